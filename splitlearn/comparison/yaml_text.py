"""YAML for people's files: strict, and every field knows its line.

A subset on purpose. No aliases (a short file could become a huge one), no key twice (the last would win
in silence), keys as they are written (``no:`` is not ``false:``), and ``1e-3`` is a number, which YAML 1.1
denies.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from splitlearn.errors import SpecError

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 32
_FLOAT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
_CONVERTER = yaml.constructor.SafeConstructor()

FieldPath = tuple[str, ...]


@dataclass(frozen=True)
class YamlText:
    """A file's content, and where it stands.

    Attributes:
        source: The file, as messages name it.
        content: The mapping.
        lines: Line, from 1, of every field by its path.
    """

    source: str
    content: dict[str, Any]
    lines: Mapping[FieldPath, int] = field(repr=False)

    def place_of(self, dotted: str) -> str:
        """Return ``file:line`` of a field, or of the nearest that holds it.

        Args:
            dotted: ``learning_rate.peak``; words that name no field (a kind's name, say) are passed over.
        """
        path: FieldPath = ()
        for word in dotted.split("."):
            if (*path, word) in self.lines:
                path = (*path, word)
        return f"{self.source}:{self.lines[path]}" if path else self.source

    def located(self, message: str) -> str:
        """Put its place before each line of a message that begins with a field's path and a colon."""
        return "\n".join(
            f"{self.place_of(line.partition(':')[0].partition(' ')[0])}: {line}"
            for line in message.splitlines()
        )


def read_yaml(path: Path) -> YamlText:
    """Read a file that holds one mapping.

    Raises:
        SpecError: It cannot be read, is too large, is no YAML, or uses what is not allowed here.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}; give the path of a readable file") from error
    if len(raw) > MAX_FILE_BYTES:
        raise SpecError(f"{path}: more than {MAX_FILE_BYTES} bytes; a specification is a page of text")
    return parse_yaml(raw, source=str(path))


def parse_yaml(raw: bytes | str, *, source: str) -> YamlText:
    """Read YAML that is at hand; see :func:`read_yaml`."""
    try:
        for event in yaml.parse(raw, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                _refuse(source, event, f"the alias *{event.anchor}; write the value out")
        node = yaml.compose(raw, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{source}: not YAML ({_shortened(error)}); correct it") from error
    if not isinstance(node, yaml.MappingNode):
        raise SpecError(f"{source}: expected fields (name: value), found none")
    lines: dict[FieldPath, int] = {}
    return YamlText(source, _mapping(node, (), lines, source), lines)


def _mapping(node: Any, path: FieldPath, lines: dict[FieldPath, int], source: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            _refuse(source, key, "a key that is no word; write field: value")
        if key.tag == "tag:yaml.org,2002:merge":
            _refuse(source, key, "the merge key <<; write the fields out")
        name = str(key.value)
        if name in found:
            _refuse(source, key, f"{'.'.join((*path, name))} a second time; keep one of them")
        lines[(*path, name)] = key.start_mark.line + 1
        found[name] = _value(value, (*path, name), lines, source)
    return found


def _value(node: Any, path: FieldPath, lines: dict[FieldPath, int], source: str) -> Any:
    if len(path) > MAX_DEPTH:
        _refuse(source, node, f"more than {MAX_DEPTH} levels; make it flatter")
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines, source)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, str(index)), lines, source) for index, item in enumerate(node.value)]
    return _scalar(node, source)


def _scalar(node: Any, source: str) -> Any:
    if node.tag == "tag:yaml.org,2002:str":
        is_plain = node.style is None
        return float(node.value) if is_plain and _FLOAT.fullmatch(node.value) else node.value
    if node.tag == "tag:yaml.org,2002:timestamp":  # 2024-01-01 unquoted
        return node.value
    if node.tag not in _PLAIN_TAGS:
        _refuse(source, node, f"the tag {node.tag}; write a plain value")
    try:
        return _CONVERTER.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        _refuse(source, node, f"{node.value!r}, which is no value ({_shortened(error)}); put it in quotes")


_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null"))


def _refuse(source: str, at: Any, what: str) -> NoReturn:
    raise SpecError(f"{source}:{at.start_mark.line + 1}: found {what}")


def _shortened(error: Exception, *, max_characters: int = 200) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= max_characters else text[: max_characters - 3] + "..."
