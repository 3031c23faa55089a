"""``trunkline jobs``: what people type, what they read, and how a script learns the outcome."""

import io
import json
import sys
import threading
from pathlib import Path

import pytest

from tests.unit.backend.cli.conftest import Terminal
from tests.unit.backend.jobs.conftest import Federation


@pytest.fixture
def spec(federation: Federation, tmp_path: Path) -> str:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(federation.spec()))
    return str(path)


class TestSubmit:
    def test_tells_id_state_and_what_comes_next(
        self, admin: Terminal, federation: Federation, spec: str
    ) -> None:
        job_id = admin("jobs", "submit", spec, "--json").json["id"]
        assert federation.state(job_id)[0] == "awaiting_approval"
        text = admin("jobs", "submit", spec)
        assert "awaiting_approval: silos north, south were asked; next: each agent checks" in text.out

    def test_reads_standard_input(self, admin: Terminal, federation: Federation) -> None:
        admin.patch.setattr(sys, "stdin", io.StringIO(json.dumps(federation.spec(name="piped"))))
        assert admin("jobs", "submit", "-", "--json").json["name"] == "piped"

    def test_plans_without_submitting(self, admin: Terminal, federation: Federation, spec: str) -> None:
        assert admin("jobs", "plan", spec, "--json").json["workers"] == ["worker"]
        text = admin("jobs", "plan", spec).out
        assert "wire_bytes_per_token" in text
        assert "trunk" in text
        assert federation.world.admin.ok("GET", "/jobs")["items"] == []

    def test_tells_what_the_author_should_know(
        self, admin: Terminal, federation: Federation, tmp_path: Path
    ) -> None:
        west = federation.world.anybody.as_(federation.world.enrolled("west", "silo").log_in()["token"])
        announced = {"name": "notes", "task": "causal-lm", "num_rows": 7, "schema_digest": "00" * 32}
        west.ok("PUT", "/silo/datasets", {"datasets": [announced]})
        silos = [{"name": name, "dataset": "notes"} for name in ("north", "south", "west")]
        path = tmp_path / "lora.json"
        path.write_text(json.dumps(federation.spec(silos=silos)))
        for command in ("plan", "submit"):
            assert "note: adapter: with silo_blocks 'averaged'" in admin("jobs", command, str(path)).out
        path.write_text(json.dumps(federation.spec()))
        assert "note:" not in admin("jobs", "plan", str(path)).out


class TestShortIds:
    def test_stand_for_the_whole(self, admin: Terminal, federation: Federation) -> None:
        job_id = federation.submit()
        assert admin("jobs", "show", job_id[:8], "--json").json["id"] == job_id
        assert admin("jobs", "cancel", job_id[:13].upper()).exit_code == 0
        federation.look()
        assert federation.state(job_id)[0] == "cancelled"


class TestRefusals:
    def test_of_a_specification_name_field_and_remedy(
        self, admin: Terminal, federation: Federation, tmp_path: Path
    ) -> None:
        path = tmp_path / "wrong.json"
        for changes, sentence, exit_code in (
            ({"silos": [{"name": "north", "dataset": "secrets"}]}, "no data set 'secrets'", 12),
            ({"ronuds": 1}, "ronuds", 2),
            ({"release": "project"}, "not served yet", 2),
        ):
            path.write_text(json.dumps(federation.spec(**changes)))
            ended = admin("jobs", "submit", str(path))
            assert (ended.exit_code, ended.out, sentence in ended.err) == (exit_code, "", True), ended.err
            assert len(ended.err.splitlines()) >= 2, "the remedy"

    def test_of_a_file_are_usage_errors(self, admin: Terminal, tmp_path: Path) -> None:
        path = tmp_path / "spec"
        for content, sentence in (
            (b"{", "is no JSON"),
            (b"[]", "no JSON object"),
            (b"\xff", "cannot read"),
            (b'{"learning_rate": {"peak": NaN}}', "it holds NaN, and numbers have to be finite"),
            (b'{"learning_rate": {"peak": -Infinity}}', "it holds -Infinity"),
        ):
            path.write_bytes(content)
            ended = admin("jobs", "submit", str(path))
            assert (ended.exit_code, sentence in ended.err, ended.out) == (2, True, ""), ended.err
        assert admin("jobs", "submit", str(tmp_path / "absent")).exit_code == 2

    def test_of_what_is_no_job(self, admin: Terminal) -> None:
        for command in ("show", "cancel", "logs", "watch"):
            ended = admin("jobs", command, "00000000-0000-0000-0000-000000000000")
            assert (ended.exit_code, ended.out) == (12, ""), (command, ended)
            assert ended.err.startswith("trunkline: "), command
            for word in ("x", "../users", "a/b?c", "ä", ""):
                ended = admin("jobs", command, word)
                assert (ended.exit_code, ended.out) == (2, ""), (command, word, ended)
                assert ended.err.startswith(f"trunkline: {word!r} is no id"), (command, word)

    def test_of_a_beginning_that_is_no_jobs_or_several_jobs(self, admin: Terminal) -> None:
        rows = [{"id": "abcd1"}, {"id": "abcd2"}]
        admin.patch.setattr("backend.cli.remote.Remote.rows", lambda *_: iter(rows))
        for begin, sentence in (
            ("abcd", "2 jobs' ids begin with 'abcd'"),
            ("abcd3", "no job's id begins with 'abcd3'"),
        ):
            ended = admin("jobs", "show", begin)
            assert (ended.exit_code, ended.out, sentence in ended.err) == (12, "", True), ended.err

    def test_without_a_token_say_how_to_get_one(self, admin: Terminal) -> None:
        admin.patch.delenv("TRUNKLINE_TOKEN")
        ended = admin("jobs", "list")
        assert ended.exit_code == 12
        assert "export TRUNKLINE_TOKEN=$(trunkline tokens sign-in NAME)" in ended.err
        assert "Authorization" not in ended.err, "nobody types a header here"

    def test_of_an_address_say_how_to_start_or_set_it(self, admin: Terminal) -> None:
        for url, exit_code in (
            ("http://127.0.0.1:1", 12),
            ("localhost:8470", 2),
            ("http://[::1", 2),
            ("http://host:port", 2),
            ("nothing", 2),
            ("http://", 2),
        ):
            admin.patch.setenv("TRUNKLINE_URL", url)
            for command in (("jobs", "list"), ("jobs", "logs", "00000000-0000-0000-0000-000000000000")):
                ended = admin(*command)
                assert (ended.exit_code, ended.out) == (exit_code, ""), (url, ended)
                assert "TRUNKLINE_URL" in ended.err

    def test_of_a_token_that_is_none_are_usage_errors(self, admin: Terminal) -> None:
        admin.patch.setenv("TRUNKLINE_TOKEN", "tke_ä")
        assert admin("jobs", "list").exit_code == 2

    def test_of_who_answers_there_but_is_no_control_plane(self, admin: Terminal) -> None:
        class Elsewhere:
            is_success, content, status_code = True, b"<html>", 200

            def json(self) -> object:
                raise ValueError

        admin.patch.setattr("httpx2.Client.request", lambda *_args, **_how: Elsewhere())
        ended = admin("jobs", "list")
        assert (ended.exit_code, "no control plane" in ended.err) == (12, True)


class TestLook:
    def test_lists_and_filters(self, admin: Terminal, federation: Federation) -> None:
        first = federation.submit(name="first")
        federation.clock.advance(seconds=1)
        second = federation.submit(name="second")
        assert [row["id"] for row in admin("jobs", "list", "--json").json] == [second, first]
        assert [row["id"] for row in admin("jobs", "list", "--name", "first", "--json").json] == [first]
        assert admin("jobs", "list", "--state", "running", "--json").json == []
        text = admin("jobs", "list", "--silo", "north").out
        assert first in text
        assert second in text

    def test_lists_all_pages(self, admin: Terminal, federation: Federation) -> None:
        server = federation.world.server
        object.__setattr__(server, "settings", server.settings.model_copy(update={"max_page": 2}))
        submitted = {federation.submit() for _ in range(5)}
        assert {row["id"] for row in admin("jobs", "list", "--json").json} == submitted

    def test_an_unknown_state_is_a_usage_error(self, admin: Terminal) -> None:
        ended = admin("jobs", "list", "--state", "lost")
        assert (ended.exit_code, ended.out) == (2, "")

    def test_shows_one(self, admin: Terminal, federation: Federation) -> None:
        job_id = federation.running()
        assert admin("jobs", "show", job_id, "--json").json["lease"]["worker"] == "worker"
        text = admin("jobs", "show", job_id).out
        assert "hosted by: worker, epoch 1, round 1" in text
        assert "approved" in text

    def test_prints_what_has_happened_and_ends(self, admin: Terminal, federation: Federation) -> None:
        job_id = federation.running()
        lines = admin("jobs", "logs", job_id, "--json")
        events = [json.loads(line) for line in lines.out.splitlines()]
        assert (lines.exit_code, events[0]["kind"], events[-1]["to"]) == (0, "job_submitted", "running")
        text = admin("jobs", "logs", job_id).out
        assert "job_state  running: worker trains the trunk (round 1); next: rounds are committed" in text


class TestWishes:
    def test_are_granted(self, admin: Terminal, federation: Federation) -> None:
        job_id = federation.running()
        assert admin("jobs", "pause", job_id, "--json").json["desired"] == "pause"
        assert admin("jobs", "resume", job_id, "--json").json["desired"] == "run"
        assert job_id in admin("jobs", "cancel", job_id).out
        federation.look()
        assert admin("jobs", "retry", job_id, "--round", "0", "--json").json["state"] == "queued"
        clone = admin("jobs", "clone", job_id, "--changes", '{"rounds": 8}', "--json").json
        assert (clone["parent_id"], clone["spec"]["rounds"]) == (job_id, 8)

    def test_are_said_to_be_noted(self, admin: Terminal, federation: Federation) -> None:
        job_id = federation.running()
        paused = admin("jobs", "pause", job_id).out
        assert paused.startswith(f"{job_id}  running: ")
        assert paused.endswith("; wanted: pause after this round\n")
        assert "wanted" not in admin("jobs", "resume", job_id).out
        assert admin("jobs", "cancel", job_id).out.endswith("; wanted: cancel\n")

    def test_are_refused_with_state_and_remedy(self, admin: Terminal, federation: Federation) -> None:
        job_id = federation.submit()
        for command in ("pause", "retry"):
            ended = admin("jobs", command, job_id)
            assert (ended.exit_code, ended.out, "awaiting_approval" in ended.err) == (12, "", True)
        assert admin("jobs", "clone", job_id, "--changes", "{").exit_code == 2
        assert admin("jobs", "retry", job_id, "--round", "-1").exit_code == 2


class TestWatch:
    @pytest.mark.parametrize(("outcome", "exit_code"), [("completed", 0), ("failed", 11), ("cancelled", 12)])
    def test_ends_with_the_job_and_says_how(
        self, admin: Terminal, federation: Federation, outcome: str, exit_code: int
    ) -> None:
        job_id = federation.running()

        def end() -> None:
            if outcome == "cancelled":
                federation.world.admin.ok("POST", f"/jobs/{job_id}/cancel")
            else:
                federation.release(job_id, outcome)
            if outcome == "completed":
                federation.finish(job_id)
            federation.look()

        ending = threading.Timer(0.2, end)
        ending.start()
        ended = admin("jobs", "watch", job_id, "--json")
        ending.join()
        events = [json.loads(line) for line in ended.out.splitlines()]
        assert (ended.exit_code, events[-1]["to"]) == (exit_code, outcome)
        assert [event["number"] for event in events] == sorted({event["number"] for event in events})

    def test_of_a_job_that_is_over_tells_it_all(self, admin: Terminal, federation: Federation) -> None:
        job_id = federation.running()
        federation.release(job_id, "failed")
        ended = admin("jobs", "watch", job_id)
        assert ended.exit_code == 11
        assert "failed: worker was failed (round 3); next: nothing" in ended.out

    def test_may_follow_a_submission(self, admin: Terminal, federation: Federation, spec: str) -> None:
        def refuse() -> None:
            [job] = federation.world.admin.ok("GET", "/jobs")["items"]
            path = f"/silo/jobs/{job['id']}/approval"
            federation.parties["south"].ok("PUT", path, {"decision": "refused", "reason": "3 rows"})
            federation.look()

        refusing = threading.Timer(0.5, refuse)
        refusing.start()
        ended = admin("jobs", "submit", spec, "--watch")
        refusing.join()
        assert (ended.exit_code, "3 rows" in ended.out) == (11, True)


class TestWatching:
    def test_shows_what_each_party_told(self, admin: Terminal, federation: Federation) -> None:
        job_id = federation.running()
        line = {"at": "2026-03-01T12:00:00Z", "level": "info", "event": "attached", "epoch": 1}
        for party in ("north", "worker"):
            federation.parties[party].ok("POST", "/logs", {"job": job_id, "lines": [line]})
        rows = admin("jobs", "logs", job_id, "--party", "all", "--json").json
        assert [row["party"] for row in rows] == ["silo:north", "worker:worker"]
        rows = admin("jobs", "logs", job_id, "--party", "silo:north", "--json").json
        assert [(row["party"], row["event"], row["epoch"]) for row in rows] == [("silo:north", "attached", 1)]

    def test_exports_every_number_to_tensorboard(
        self, admin: Terminal, federation: Federation, tmp_path: Path
    ) -> None:
        job_id = federation.running()
        points = [{"name": "loss", "round": 1, "step": step, "value": 1.0} for step in range(3)]
        federation.parties["north"].ok("POST", "/metrics", {"job": job_id, "metrics": points})
        told = admin("jobs", "export", job_id, "--tensorboard", str(tmp_path), "--json")
        assert told.json == {"tensorboard": 3}
        assert list((tmp_path / job_id).glob("events.out.*"))

    def test_an_export_to_nowhere_is_a_usage_error(self, admin: Terminal, federation: Federation) -> None:
        assert admin("jobs", "export", federation.running()).exit_code == 2
