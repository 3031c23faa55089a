"""What ``trunkline up`` starts, and when it starts something again."""

from pathlib import Path

import pytest

from backend.embedded import programs
from backend.embedded.programs import Places
from backend.embedded.restarts import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, SOUND_SECONDS, Restarts

INHERITED = {"PATH": "/bin", "TRUNKLINE_STATE_DIR": "/elsewhere"}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(
        state_dir=tmp_path, host="127.0.0.1", port=8470, gateway_port=8471, standings_token="secret"
    )


class TestPrograms:
    def test_no_secret_stands_on_a_command_line(self, places: Places) -> None:
        parts = [
            programs.api(places, INHERITED),
            programs.gateway(places, INHERITED, ticket_public_key="ab" * 32),
            programs.worker(places, INHERITED, name="worker-1", invitation="secret", arguments=()),
        ]
        assert all("secret" not in " ".join(part.arguments) for part in parts)
        assert all("secret" in part.environment.values() for part in parts)

    def test_the_given_folder_wins_over_the_environment(self, places: Places) -> None:
        part = programs.api(places, INHERITED)
        assert part.environment["TRUNKLINE_STATE_DIR"] == str(places.state_dir)

    def test_an_operators_gateway_address_wins(self, places: Places) -> None:
        own = {"TRUNKLINE_GATEWAY_URL": "wss://relay.example/relay"}
        assert programs.api(places, own).environment["TRUNKLINE_GATEWAY_URL"] == "wss://relay.example/relay"

    def test_gateway_and_control_plane_share_the_token(self, places: Places) -> None:
        api = programs.api(places, INHERITED).environment
        gateway = programs.gateway(places, INHERITED, ticket_public_key="ab" * 32).environment
        assert api["TRUNKLINE_STANDINGS_TOKEN"] == gateway["TRUNKLINE_GATEWAY_STANDINGS_TOKEN"]

    def test_a_workers_threads_wait_politely(self, places: Places) -> None:
        part = programs.worker(places, INHERITED, name="worker-1", invitation=None, arguments=())
        assert "GOMP_SPINCOUNT" in part.environment

    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("127.0.0.1", "http://127.0.0.1:8470"),
            ("0.0.0.0", "http://127.0.0.1:8470"),  # noqa: S104 - nothing is listened on
            ("::", "http://[::1]:8470"),
        ],
    )
    def test_this_machine_reaches_what_listens_everywhere(self, tmp_path: Path, host: str, url: str) -> None:
        places = Places(state_dir=tmp_path, host=host, port=8470, gateway_port=1, standings_token="x")
        assert places.url == url


class TestRestarts:
    def test_waits_before_the_first_one(self) -> None:
        restarts = Restarts(started_at=0.0)
        assert restarts.died(5.0) == FIRST_PAUSE_SECONDS
        assert not restarts.is_due(5.0)
        assert restarts.is_due(5.0 + FIRST_PAUSE_SECONDS)

    def test_is_not_due_while_it_runs(self) -> None:
        restarts = Restarts(started_at=0.0)
        restarts.died(1.0)
        restarts.started(3.0)
        assert not restarts.is_due(1e9)

    def test_pauses_grow_up_to_a_limit(self) -> None:
        restarts = Restarts(started_at=0.0)
        pauses = []
        for now in range(10):
            pauses.append(restarts.died(float(now)))
            restarts.started(float(now))
        assert pauses[:3] == [1.0, 2.0, 4.0]
        assert pauses[-1] == LONGEST_PAUSE_SECONDS

    def test_a_sound_run_begins_anew(self) -> None:
        restarts = Restarts(started_at=0.0)
        restarts.died(1.0)
        restarts.started(2.0)
        assert restarts.died(2.0 + SOUND_SECONDS) == FIRST_PAUSE_SECONDS
