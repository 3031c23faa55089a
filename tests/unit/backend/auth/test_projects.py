"""Roles in single projects, and scopes of tokens."""

import uuid
from typing import Any

import pytest

from backend.auth.permissions import Grant, Permission, scopes_of, scopes_text
from backend.db.models import Role
from tests.unit.backend.conftest import ON_SQLITE_ALONE, Api, World
from tests.unit.backend.jobs.conftest import Federation, federation_like_others
from tests.unit.backend.seeds import Seeds

SPEC = {"model": "tiny", "silos": [{"name": "north", "dataset": "notes"}]}


def give(world: World, name: str, role: str, project: str = "default") -> None:
    world.admin.ok("PUT", f"/projects/{project}/members/{name}", {"role": role})


class TestGrant:
    def test_of_a_project_stands_in_for_the_organisations(self) -> None:
        one, other = uuid.uuid4(), uuid.uuid4()
        grant = Grant(Role.AUDITOR, in_projects={one: Role.RESEARCHER})
        assert Permission.RUN_JOBS in grant.in_project(one)
        assert Permission.RUN_JOBS not in grant.in_project(other) | grant.everywhere
        assert Permission.RUN_JOBS in grant.somewhere

    def test_of_an_admin_is_the_same_in_every_project(self) -> None:
        one = uuid.uuid4()
        grant = Grant(Role.ADMIN, in_projects={one: Role.AUDITOR})
        assert grant.in_project(one) == frozenset(Permission)

    @pytest.mark.parametrize("member", Role)
    @pytest.mark.parametrize("token", [None, *Role])
    def test_never_exceeds_token_and_scopes(self, member: Role, token: Role | None) -> None:
        grant = Grant(member, token=token, scopes=frozenset({Permission.READ}))
        assert grant.everywhere == grant.somewhere == {Permission.READ}

    def test_scopes_are_read_as_they_were_written(self) -> None:
        for scopes in (None, [Permission.READ], list(Permission)):
            assert scopes_of(scopes_text(scopes)) == frozenset(scopes or Permission)
        assert scopes_of("read fly") == {Permission.READ}


@pytest.fixture
def federation(world: World, seeds: Seeds) -> Federation:
    return federation_like_others(world, seeds)


def job_routes(job_id: str) -> list[tuple[str, str, Any]]:
    return [
        ("POST", "/jobs", {"spec": SPEC}),
        ("POST", f"/jobs/{job_id}/clone", {}),
        ("POST", f"/jobs/{job_id}/pause", None),
        ("POST", f"/jobs/{job_id}/resume", None),
        ("POST", f"/jobs/{job_id}/retry", {}),
        ("POST", f"/jobs/{job_id}/cancel", None),
        ("POST", "/models", {"name": "another", "source": "hub:owner/name"}),
        ("DELETE", "/models/tiny", None),
    ]


@ON_SQLITE_ALONE
class TestProjectRoles:
    def test_narrow_what_the_organisation_grants(self, federation: Federation) -> None:
        world = federation.world
        rosa = world.user("rosa", "researcher")
        job_id = federation.submit()
        give(world, "rosa", "auditor")
        for method, path, body in job_routes(job_id):
            assert rosa.refused(method, path, body) == (403, "forbidden"), path
        assert rosa.ok("GET", f"/jobs/{job_id}")["id"] == job_id
        world.admin.ok("DELETE", "/projects/default/members/rosa")
        rosa.ok("POST", f"/jobs/{job_id}/cancel")

    def test_widen_it_in_that_project_alone(self, federation: Federation) -> None:
        world = federation.world
        otto = world.user("otto", "auditor")
        job_id = federation.submit()
        world.admin.ok("POST", "/projects", {"name": "second"})
        give(world, "otto", "admin", "second")
        for method, path, body in job_routes(job_id):
            assert otto.refused(method, path, body) == (403, "forbidden"), path
        body = {"name": "another", "source": "hub:owner/name", "project": "second"}
        otto.ok("POST", "/models", body)
        otto.ok("DELETE", "/models/another?project=second")
        give(world, "otto", "researcher")
        otto.ok("POST", f"/jobs/{job_id}/cancel")

    def test_make_nobody_an_admin_of_the_organisation(self, world: World) -> None:
        otto = world.user("otto", "auditor")
        give(world, "otto", "admin")
        for method, path, body in (
            ("POST", "/users", {"name": "x", "role": "admin"}),
            ("POST", "/projects", {"name": "x"}),
            ("PUT", "/projects/default/members/otto", {"role": "admin"}),
            ("POST", "/silos/invitations", {"name": "north"}),
        ):
            assert otto.refused(method, path, body) == (403, "forbidden"), path

    def test_are_shown_and_audited(self, world: World) -> None:
        otto = world.user("otto", "auditor")
        give(world, "otto", "researcher")
        assert otto.ok("GET", "/me")["projects"] == {"default": "researcher"}
        [shown] = otto.ok("GET", "/projects/default/members")["items"]
        assert (shown["name"], shown["role"]) == ("otto", "researcher")
        row = world.audit()[0]
        assert (row["action"], row["subject_name"]) == ("set_project_role", "otto")
        assert row["details"] == {"project": "default", "role": "researcher"}

    def test_are_refused_where_they_mean_nothing(self, world: World) -> None:
        world.user("otto", "auditor")
        role = {"role": "auditor"}
        members = "/projects/default/members"
        assert world.admin.refused("PUT", f"{members}/admin", role) == (409, "admin_everywhere")
        assert world.admin.refused("PUT", f"{members}/nobody", role) == (404, "not_found")
        assert world.admin.refused("PUT", "/projects/none/members/otto", role) == (404, "not_found")
        assert world.admin.refused("DELETE", f"{members}/otto") == (404, "not_found")


class TestScopes:
    def token(self, world: World, **fields: Any) -> Api:
        return world.anybody.as_(world.admin.ok("POST", "/tokens", {"name": "script", **fields})["token"])

    def test_limit_a_token(self, world: World) -> None:
        token = self.token(world, scopes=["read", "read_audit"])
        assert token.ok("GET", "/me")["permissions"] == ["read", "read_audit"]
        token.ok("GET", "/audit")
        assert token.refused("POST", "/projects", {"name": "x"}) == (403, "forbidden")

    @ON_SQLITE_ALONE
    def test_may_leave_reading_out(self, world: World) -> None:
        token = self.token(world, scopes=["read_audit"])
        token.ok("GET", "/audit")
        assert token.refused("GET", "/users") == (403, "forbidden")

    @ON_SQLITE_ALONE
    def test_do_not_exceed_the_role(self, world: World) -> None:
        body = {"name": "x", "role": "researcher", "scopes": ["manage"]}
        assert world.admin.refused("POST", "/tokens", body) == (409, "token_role")
        for scopes in ([], ["fly"], ["read"] * 9):
            body = {"name": "x", "scopes": scopes}
            assert world.admin.refused("POST", "/tokens", body) == (422, "invalid_request")

    @ON_SQLITE_ALONE
    def test_are_listed(self, world: World) -> None:
        self.token(world, role="researcher")
        self.token(world, scopes=["manage"])
        shown = [row["scopes"] for row in world.admin.ok("GET", "/tokens")["items"]]
        assert sorted(shown) == [["manage"], ["read", "run_jobs"]]  # made in the same moment

    def test_no_token_makes_another(self, world: World) -> None:
        assert self.token(world).refused("POST", "/tokens", {"name": "heir"}) == (403, "forbidden")
