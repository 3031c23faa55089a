"""Reads ``docker-compose.yml`` as Docker Compose does; starts nothing."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
_OPERATORS = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:-|:\?)(?P<rest>.*))?", re.DOTALL)


class MissingVariableError(Exception):
    """A variable that the file requires is not set; the message is the file's own."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service.

    Attributes:
        name: As in the file.
        fields: All of it, as in the file.
    """

    name: str
    fields: Mapping[str, Any]

    @property
    def command(self) -> list[str]:
        """Its command, dollars as a program sees them."""
        return [str(word).replace("$$", "$") for word in self.fields.get("command", [])]

    @property
    def health_check(self) -> list[str]:
        """The words of its health check."""
        kind, *words = self.fields["healthcheck"]["test"]
        assert kind == "CMD", "no shell"
        return [str(word) for word in words]

    @property
    def mounts(self) -> Iterator[tuple[str, str, bool]]:
        """Source, target, and whether the source is a path of the host."""
        for mount in self.fields.get("volumes", []):
            if isinstance(mount, str):
                source, target = mount.split(":")[:2]
                yield source, target, False
            else:
                yield mount["source"], mount["target"], mount["type"] == "bind"

    def environment(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return its environment; a variable without a value is handed on where it is set."""
        given = self.fields.get("environment", {})
        passed = {name: values[name] for name, value in given.items() if value is None and name in values}
        return {name: str(value) for name, value in given.items() if value is not None} | passed


def read_services(values: Mapping[str, str], path: Path = COMPOSE_FILE) -> dict[str, Service]:
    """Return all services, of every profile.

    Raises:
        MissingVariableError: The file requires a variable that the values lack.
    """
    return {name: Service(name, fields) for name, fields in read_compose(values, path)["services"].items()}


def read_compose(values: Mapping[str, str], path: Path = COMPOSE_FILE) -> dict[str, Any]:
    """Return the whole file with its variables put in."""
    read: dict[str, Any] = _filled(yaml.safe_load(path.read_text()), values)
    return read


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a ``.env`` file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """Put variables in: ``${NAME}``, ``${NAME:-default}``, ``${NAME:?message}``, nested; ``$$`` stays.

    Raises:
        MissingVariableError: One is required, or has neither value nor default.
    """
    done, place = "", 0
    while (found := re.compile(r"\$\$|\$\{").search(text, place)) is not None:
        done += text[place : found.start()]
        if found.group() == "$$":
            done, place = done + "$$", found.end()
            continue
        place = _closing(text, found.end())
        done += _value(text[found.end() : place], values)
        place += 1
    return done + text[place:]


def _value(expression: str, values: Mapping[str, str]) -> str:
    parts = _OPERATORS.fullmatch(expression)
    assert parts is not None, f"not understood: {expression}"
    name, operator, rest = parts["name"], parts["operator"], parts["rest"] or ""
    if values.get(name):
        return values[name]
    if operator == ":-":
        return interpolate(rest, values)
    raise MissingVariableError(f"required variable {name} is missing a value: {rest}")


def _closing(text: str, place: int) -> int:
    depth = 1
    while True:
        place += 1
        if text[place] == "{":
            depth += 1
        elif text[place] == "}":
            depth -= 1
            if depth == 0:
                return place


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    match value:
        case str():
            return interpolate(value, values)
        case dict():
            return {interpolate(key, values): _filled(item, values) for key, item in value.items()}
        case list():
            return [_filled(item, values) for item in value]
        case _:
            return value
