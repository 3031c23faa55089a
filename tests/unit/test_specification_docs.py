"""docs/specification.md says what the models of a specification say."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from splitlearn.comparison.yaml_text import parse_yaml
from splitlearn.spec import JobSpec
from splitlearn.spec_defaults import fill_open_fields

PAGE = (Path(__file__).parents[2] / "docs" / "specification.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]


@dataclass(frozen=True)
class Field:
    """A field by its dotted name, in one of the models that have it."""

    name: str
    info: FieldInfo
    model: type[BaseModel]

    def __str__(self) -> str:
        return f"{self.model.__name__}:{self.name}"

    @property
    def rows(self) -> list[list[str]]:
        return [row for row in ROWS if row[0] == f"`{self.name}`"]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def values_in(annotation: Any) -> Iterator[Any]:
    """What the literals of a type allow; those of a model's fields have rows of their own."""
    for part in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield part
        else:
            yield from values_in(part)


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[Field]:
    for name, info in model.model_fields.items():
        yield Field(prefix + name, info, model)
        for part in models_in(info.annotation):
            yield from fields_of(part, f"{prefix}{name}.")


FIELDS = list(fields_of(JobSpec))


def bounds_of(info: FieldInfo) -> Iterator[float]:
    for limit in info.metadata:
        match limit:
            case Ge(bound) | Gt(bound) | Le(bound) | Lt(bound) | MinLen(bound) | MaxLen(bound):
                yield bound  # type: ignore[misc]


def default_in(row: list[str]) -> Any:
    return json.loads(row[2].strip("`"))


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


class TestFields:
    @pytest.mark.parametrize("field", FIELDS, ids=str)
    def test_every_one_has_a_row(self, field: Field) -> None:
        assert f"`{field.name}`" in PAGE
        assert field.rows

    def test_no_row_tells_of_another(self) -> None:
        assert {row[0].strip("`") for row in ROWS} == {field.name for field in FIELDS}

    @pytest.mark.parametrize("field", FIELDS, ids=str)
    def test_the_default_is_told(self, field: Field) -> None:
        told = [row[2] for row in field.rows]
        if field.info.is_required() or field.name.endswith(".kind"):  # a part's kind tells the kinds apart
            assert told == ["required"]
            return
        kind: TypeAdapter[Any] = TypeAdapter(field.info.rebuild_annotation())
        assert field.info.get_default() in [kind.validate_python(default_in(row)) for row in field.rows]

    @pytest.mark.parametrize("field", FIELDS, ids=str)
    def test_every_value_is_told(self, field: Field) -> None:
        for value in values_in(field.info.annotation):
            assert any(f"`{json.dumps(value)}`" in row[1] for row in field.rows), value

    @pytest.mark.parametrize("field", FIELDS, ids=str)
    def test_every_bound_is_told(self, field: Field) -> None:
        numbers = {number for row in field.rows for number in re.findall(r"\d+(?:[.,]\d+)*", row[3])}
        assert {f"{bound:,}" for bound in bounds_of(field.info)} <= numbers


class TestExamples:
    def test_there_are_two(self) -> None:
        assert (len(examples("json")), len(examples("yaml"))) == (1, 1)

    def test_the_job_can_be_submitted(self) -> None:
        (text,) = examples("json")
        JobSpec.parse(text).refuse_unserved()

    def test_the_comparison_is_of_the_same_job(self) -> None:
        (submitted,), (compared,) = examples("json"), examples("yaml")
        fields = parse_yaml(compared, source="specification.md").content
        silos = [{"name": silo, "dataset": "notes"} for silo in fields.pop("data")]
        job = fill_open_fields({**fields, "silos": silos, "model": "my-model"}, on_platform=False).spec
        assert job == JobSpec.parse(submitted)
