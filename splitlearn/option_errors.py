"""Refused options of a command line, told with what was typed: the library names option and limit alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup

_LONGEST = 80


class TellingGroup(TyperGroup):
    """A group of commands that tells wrong values; as ``cls`` of an application, for all below it too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See typer."""
        with _told():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """See typer."""
        with _told():
            return super().invoke(ctx)


class TellingCommand(TyperCommand):
    """A command that is an application of its own, and tells wrong values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See typer."""
        with _told():
            return super().parse_args(ctx, args)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except typer.BadParameter as error:
        if isinstance(error.__cause__, ValidationError):
            error.message = _sentence(error.message, error.__cause__.errors()[0]["input"])
        raise


def _sentence(message: str, value: object) -> str:
    """Put what was typed in the place of a sentence's subject; one that names it already stays."""
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."
    subject, _, rest = message.partition(" ")
    return f"{shown} {rest}" if subject == "Input" else message.removeprefix("Value error, ")
