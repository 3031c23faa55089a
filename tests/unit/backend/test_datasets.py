from typing import Any

import pytest

from backend.audit.service import OPERATOR
from backend.datasets.service import announced
from backend.db.models import PartyKind
from backend.organizations.service import create_organization
from backend.parties.repository import find_party
from backend.settings import Settings
from backend.users.service import NewUser
from tests.unit.backend.conftest import ON_SQLITE_ALONE, Api, World


def reviews(name: str = "reviews", **changes: Any) -> dict[str, Any]:
    return {"name": name, "task": "choice", "num_rows": 120, "schema_digest": "ab" * 32, **changes}


@pytest.fixture
def north(world: World) -> Api:
    return world.anybody.as_(world.enrolled("north").log_in()["token"])


def announce(silo: Api, *datasets: dict[str, Any]) -> None:
    silo.ok("PUT", "/silo/datasets", {"datasets": list(datasets)})


def shown(world: World, path: str = "/datasets") -> list[str]:
    return [f"{row['silo']}/{row['name']}" for row in world.admin.ok("GET", path)["items"]]


class TestAnnounce:
    def test_what_is_announced_is_shown(self, world: World, north: Api) -> None:
        announce(north, reviews())
        (row,) = world.admin.ok("GET", "/datasets")["items"]
        assert row.pop("announced_at")
        assert row == {"silo": "north", **reviews()}

    def test_what_is_left_out_is_withdrawn(self, world: World, north: Api) -> None:
        announce(north, reviews("a"), reviews("b"))
        announce(north, reviews("b"))
        assert shown(world) == ["north/b"]

    def test_what_was_withdrawn_may_come_back_changed(self, world: World, north: Api) -> None:
        announce(north, reviews())
        announce(north)
        announce(north, reviews(task="any", num_rows=7))
        (row,) = world.admin.ok("GET", "/silos/north/datasets")["items"]
        assert (row["task"], row["num_rows"]) == ("any", 7)

    def test_only_a_change_is_audited(self, world: World, north: Api) -> None:
        for _ in range(2):
            announce(north, reviews())
        actions = [row["action"] for row in world.audit()]
        assert actions.count("announce_datasets") == 1

    def test_a_silo_writes_its_own_list_only(self, world: World, north: Api) -> None:
        south = world.anybody.as_(world.enrolled("south").log_in()["token"])
        announce(north, reviews())
        announce(south, reviews())
        announce(south)
        assert shown(world) == ["north/reviews"]


@ON_SQLITE_ALONE
class TestRefusals:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"name": "Über"},
            {"task": "chat"},
            {"num_rows": 0},
            {"schema_digest": "AB" * 32},
            {"first_row": "a patient"},
        ],
        ids=lambda wrong: next(iter(wrong)),
    )
    def test_a_wrong_field(self, wrong: dict[str, Any], north: Api) -> None:
        body = {"datasets": [reviews(**wrong)]}
        assert north.refused("PUT", "/silo/datasets", body) == (422, "invalid_request")

    def test_a_name_that_is_listed_twice_changes_nothing(self, world: World, north: Api) -> None:
        announce(north, reviews("a"))
        answer = north("PUT", "/silo/datasets", {"datasets": [reviews("b"), reviews("b")]})
        assert (answer.status_code, "'b' is listed twice" in answer.json()["message"]) == (422, True)
        assert shown(world) == ["north/a"]

    def test_an_unknown_silo(self, world: World) -> None:
        assert world.admin.refused("GET", "/silos/nowhere/datasets") == (404, "not_found")


class TestList:
    def test_pages_go_by_silo_and_name(self, world: World, north: Api, settings: Settings) -> None:
        south = world.anybody.as_(world.enrolled("south").log_in()["token"])
        announce(south, reviews("a"), reviews("b"))
        announce(north, reviews("b"), reviews("c"))
        object.__setattr__(world.server, "settings", settings.model_copy(update={"max_page": 3}))
        first = world.admin.ok("GET", "/datasets")
        names = [f"{row['silo']}/{row['name']}" for row in first["items"]]
        assert (names, first["next"]) == (["north/b", "north/c", "south/a"], "south/a")
        assert shown(world, f"/datasets?after={first['next']}") == ["south/b"]

    def test_a_silos_list_comes_in_pages(self, world: World, north: Api, settings: Settings) -> None:
        announce(north, reviews("a"), reviews("b"))
        object.__setattr__(world.server, "settings", settings.model_copy(update={"max_page": 1}))
        assert world.admin.ok("GET", "/silos/north/datasets")["next"] == "a"
        assert shown(world, "/silos/north/datasets?after=a") == ["north/b"]

    def test_another_organisations_are_not_shown(self, world: World, north: Api) -> None:
        announce(north, reviews())
        new = NewUser("fremd", world.server.passwords.hash("a-password-for-the-test"))
        with world.server.database.write() as session:
            create_organization(session, name="elsewhere", admin=new, actor=OPERATOR, now=world.clock())
        stranger = world.sign_in("fremd", "a-password-for-the-test")
        assert stranger.ok("GET", "/datasets")["items"] == []


class TestAnnounced:
    def test_a_withdrawn_one_is_not_found(self, world: World, north: Api) -> None:
        announce(north, reviews("a"), reviews("b"))
        announce(north, reviews("b"))
        with world.server.database.read() as session:
            silo = find_party(session, PartyKind.SILO, "north")
            assert silo is not None
            found = [announced(session, silo.id, name) is not None for name in ("a", "b", "c")]
        assert found == [False, True, False]
