"""``trunkline second-factor`` and signing in with a code, as they are typed."""

import pytest
from pyotp import TOTP
from sqlalchemy import select

from backend.auth.codes import secret_text
from backend.db.models import SecondFactor
from tests.unit.backend.cli.conftest import Terminal
from tests.unit.backend.conftest import World


@pytest.fixture
def typing(admin: Terminal, world: World) -> Terminal:
    """The admin's terminal, at which somebody types what is asked for, a fresh code each time."""

    def ask_for(what: str, *, hidden: bool) -> str:
        assert hidden == (what == "Password")
        if what == "Password":
            return world.first.password
        world.clock.advance(seconds=30)
        with world.server.database.read() as session:
            secret = session.scalars(select(SecondFactor.secret)).one()
        return TOTP(secret_text(secret)).at(world.clock())

    for module in ("users", "second_factor"):
        admin.patch.setattr(f"backend.cli.{module}.ask_for", ask_for)
    return admin


def test_is_added_used_and_removed(typing: Terminal, world: World) -> None:
    added = typing("second-factor", "add", "--json")
    assert (added.exit_code, "otpauth://totp/Trunkline:admin" in added.err) == (0, True)
    assert "\N{FULL BLOCK}" in added.err
    assert len(added.out.splitlines()) > 10
    ended = typing("tokens", "sign-in", "admin")
    assert (ended.exit_code, ended.out, "a fresh code" in ended.err) == (12, "", True)
    assert typing("tokens", "sign-in", "admin", "--code").out.startswith("tks_")
    assert len(typing("second-factor", "recovery-codes").out.splitlines()) == 10
    assert typing("second-factor", "demand", "admins", "--json").json["second_factor"] == "admins"
    assert typing("second-factor", "demand", "nobody").exit_code == 2
    assert typing("second-factor", "remove").out == "second_factor: off\n"
    assert world.admin.refused("GET", "/users") == (403, "second_factor_demanded")


def test_of_others_is_reset(typing: Terminal) -> None:
    ended = typing("users", "reset-second-factor", "admin")
    assert (ended.exit_code, "no second factor" in ended.err) == (12, True)
    typing("second-factor", "add", "--no-picture")
    assert typing("users", "reset-second-factor", "admin").out == "reset: admin\n"
