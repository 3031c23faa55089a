"""Users, roles and API tokens."""

import pytest

from backend.audit.service import OPERATOR
from backend.auth.permissions import PERMISSIONS, Permission, allowed
from backend.db.models import Role
from backend.organizations.service import NameTakenError, create_organization
from backend.users.service import NewUser
from tests.unit.backend.conftest import Api, World


class TestUsers:
    def test_generated_password_signs_in_with_the_role(self, world: World) -> None:
        me = world.user("rosa", "researcher").ok("GET", "/me")
        assert (me["role"], me["permissions"]) == ("researcher", ["read", "run_jobs"])

    def test_name_is_taken_once_per_server(self, world: World) -> None:
        body = {"name": "admin", "role": "auditor"}
        assert world.admin.refused("POST", "/users", body) == (409, "name_taken")

    def test_disabling_ends_everything_at_once_and_enabling_lets_in_again(self, world: World) -> None:
        password = world.admin.ok("POST", "/users", {"name": "rosa", "role": "researcher"})["password"]
        rosa = world.sign_in("rosa", password)
        token = Api(rosa.client, rosa.ok("POST", "/tokens", {"name": "script"})["token"])
        world.admin.ok("PATCH", "/users/rosa", {"disabled": True})
        assert rosa.refused("GET", "/me")[0] == token.refused("GET", "/me")[0] == 401
        body = {"name": "rosa", "password": password}
        assert world.anybody.refused("POST", "/sign-in", body) == (401, "wrong_credentials")
        world.admin.ok("PATCH", "/users/rosa", {"disabled": False})
        world.sign_in("rosa", password)

    @pytest.mark.parametrize("change", [{"role": "auditor"}, {"disabled": True}])
    def test_last_admin_stays(self, world: World, change: dict[str, object]) -> None:
        assert world.admin.refused("PATCH", "/users/admin", change) == (409, "last_admin")
        world.user("second", "admin")
        world.admin.ok("PATCH", "/users/admin", change)

    def test_reset_password_ends_the_old_one(self, world: World) -> None:
        rosa = world.user("rosa", "researcher")
        password = world.admin.ok("POST", "/users/rosa/password")["password"]
        assert rosa.refused("GET", "/me")[0] == 401
        world.sign_in("rosa", password)

    def test_every_change_is_audited_without_a_password(self, world: World) -> None:
        created = world.admin.ok("POST", "/users", {"name": "rosa", "role": "researcher"})
        world.admin.ok("PATCH", "/users/rosa", {"role": "auditor"})
        reset = world.admin.ok("POST", "/users/rosa/password")
        rows = world.audit()
        assert [row["action"] for row in rows[:3]] == ["reset_password", "change_user", "create_user"]
        assert {row["actor_name"] for row in rows[:3]} == {"admin"}
        assert created["password"] not in str(rows)
        assert reset["password"] not in str(rows)


class TestTokens:
    def test_works_until_it_is_revoked(self, world: World) -> None:
        created = world.admin.ok("POST", "/tokens", {"name": "nightly", "valid_days": 2})
        token = world.anybody.as_(created["token"])
        assert token.ok("GET", "/me")["name"] == "admin"
        assert created["token"] not in world.admin("GET", "/tokens").text
        world.admin.ok("DELETE", f"/tokens/{created['id']}")
        assert token.refused("GET", "/me") == (401, "not_signed_in")

    def test_expires(self, world: World) -> None:
        created = world.admin.ok("POST", "/tokens", {"name": "nightly", "valid_days": 2})
        world.clock.advance(days=2)
        assert world.anybody.as_(created["token"]).refused("GET", "/me") == (401, "not_signed_in")

    def test_of_a_lesser_role_may_do_less(self, world: World) -> None:
        created = world.admin.ok("POST", "/tokens", {"name": "nightly", "role": "researcher"})
        token = world.anybody.as_(created["token"])
        assert token.refused("POST", "/projects", {"name": "p"}) == (403, "forbidden")
        rosa = world.user("rosa", "researcher")
        assert rosa.refused("POST", "/tokens", {"name": "x", "role": "admin"}) == (409, "token_role")

    def test_never_exceeds_what_its_owner_may_do_later(self, world: World) -> None:
        second = world.user("second", "admin")
        token = world.anybody.as_(second.ok("POST", "/tokens", {"name": "nightly"})["token"])
        world.admin.ok("PATCH", "/users/second", {"role": "researcher"})
        assert token.refused("POST", "/projects", {"name": "p"}) == (403, "forbidden")

    def test_lives_no_longer_than_the_server_allows(self, world: World) -> None:
        body = {"name": "x", "valid_days": world.server.settings.max_api_token_days + 1}
        assert world.admin.refused("POST", "/tokens", body) == (409, "token_lifetime")

    def test_of_somebody_else_cannot_be_revoked(self, world: World) -> None:
        created = world.user("rosa", "researcher").ok("POST", "/tokens", {"name": "hers"})
        assert world.admin.refused("DELETE", f"/tokens/{created['id']}") == (404, "not_found")


class TestPermissions:
    def test_admin_may_do_everything_and_nobody_else_manages(self) -> None:
        assert PERMISSIONS[Role.ADMIN] == frozenset(Permission)
        managers = {role for role, granted in PERMISSIONS.items() if Permission.MANAGE in granted}
        assert managers == {Role.ADMIN}

    def test_of_two_roles_is_what_both_grant(self) -> None:
        assert allowed((Role.RESEARCHER, Role.AUDITOR)) == {Permission.READ}


class TestOrganizations:
    def test_name_is_taken_once(self, world: World) -> None:
        with pytest.raises(NameTakenError), world.server.database.write() as session:
            create_organization(
                session, name="default", admin=NewUser("x", "y"), actor=OPERATOR, now=world.clock()
            )

    def test_project_name_is_taken_once(self, world: World) -> None:
        assert world.admin.refused("POST", "/projects", {"name": "default"}) == (409, "name_taken")
