"""The file that ``trunkline compare`` reads: a job, with its rows by file path. Torch-free.

The fields are those of :class:`~splitlearn.spec.JobSpec`, but for ``schedule``, which is what is compared,
and ``silos``, which follow from the rows. Besides: ``data`` or ``split``, ``columns`` and ``layout``
(:mod:`splitlearn.comparison.source`), ``cut`` (of every silo), and ``preset`` in place of ``task``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from splitlearn.comparison.modes import OWN_FIELDS, Mode, job_of
from splitlearn.comparison.source import Source
from splitlearn.comparison.yaml_text import YamlText, read_yaml
from splitlearn.errors import DataError, ModelError, SpecError
from splitlearn.planning import ModelFolder
from splitlearn.presets import find_preset
from splitlearn.simulation.demo_options import name_of
from splitlearn.spec import JobSpec
from splitlearn.spec_defaults import fill_open_fields

_OF_THE_SOURCE = ("data", "split", "columns", "layout")
_COMPARED: Mapping[str, str] = {
    "schedule": "every schedule is trained; choose with --modes",
    "replicas": "every mode has its own number; choose with --modes hierarchical-2,hierarchical-4",
    "silos": "the silos are those of data or split; give cut for all of them",
    "spec_version": "this file has no version",
}
_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


@dataclass(frozen=True)
class Comparison:
    """What is to be compared.

    Attributes:
        base: The job as every mode has it, with schedule ``client-batching`` and the first seed.
        source: The rows, with absolute paths.
        model_folder: The model, absolute.
        own_fields: By kind of mode, fields of the job that only it has.
        path: The file.
        notes: What its author should know of the job, a sentence each.
    """

    base: JobSpec
    source: Source
    model_folder: Path
    own_fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    path: Path = Path()
    notes: tuple[str, ...] = ()

    def job(self, mode: Mode, *, seed: int) -> JobSpec:
        """Return the job that a mode trains; see :func:`~splitlearn.comparison.modes.job_of`."""
        return job_of(mode, self.base, seed=seed, own_fields=self.own_fields)


def read_comparison(path: Path, *, root: Path | None = None) -> Comparison:
    """Read the file, and look at the model's folder and whether the data files are there.

    Args:
        path: The file.
        root: Relative paths in the file begin here; None for the file's own folder.

    Raises:
        SpecError: A field is wrong; one line for each, with file and line.
        ModelError: No such folder, an unknown family, or a cut larger than the model.
        DataError: A data file is not there.
    """
    text = read_yaml(path)
    try:
        comparison = _parsed(text.content, path, path.parent if root is None else root)
    except SpecError as error:
        raise type(error)(text.located(error.message)) from error
    _look_at(comparison, text)
    return comparison


def _parsed(content: Mapping[str, Any], path: Path, root: Path) -> Comparison:
    refused = [f"{name}: {remedy}" for name, remedy in _COMPARED.items() if name in content]
    if refused:
        raise SpecError("\n".join(f"{line}; leave the field out" for line in refused))
    fields = {"name": name_of(path), **content}
    preset = fields.pop("preset", None)
    given = {name: fields.pop(name) for name in _OF_THE_SOURCE if name in fields}
    if preset is not None:
        fields, given = _with_preset(preset, fields, given)
    source = _source(given).below(root)
    own = {
        kind: {name: fields.pop(name) for name in names if name in fields}
        for kind, names in OWN_FIELDS.items()
    }
    cut = {"cut": fields.pop("cut")} if "cut" in fields else {}
    silos = [{"name": silo, "dataset": silo, **cut} for silo in source.silos]
    filled = fill_open_fields({**fields, "silos": silos}, on_platform=False)
    base = filled.spec
    return Comparison(base, source, (root / base.model).absolute(), own, path, filled.notes)


def _with_preset(
    name: object, fields: dict[str, Any], given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    if "task" in fields:
        raise SpecError("preset: task is given, too; leave one of the two out")
    try:
        preset = find_preset(str(name))
    except DataError as error:
        raise SpecError(f"preset: {error.message}") from error
    task = preset.task.model_dump(mode="json")
    return {**fields, "task": task}, {"layout": preset.layout, **given}


def _source(given: Mapping[str, Any]) -> Source:
    try:
        return _SOURCE.validate_python(given)
    except ValidationError as error:
        raise SpecError("\n".join(_sentences(error))) from error


def _sentences(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        path = ".".join(str(part) for part in detail["loc"] if part != "[key]")
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            yield f"{path}: unknown field; remove it or correct its spelling"
        elif detail["type"] == "value_error":
            yield f"{path}: {message}" if path and not message.startswith(f"{path}:") else message
        else:
            yield f"{path}: {message}; got {str(detail['input'])[:80]!r}"


def _look_at(comparison: Comparison, text: YamlText) -> None:
    place = text.place_of("model")
    if not comparison.model_folder.is_dir():
        raise ModelError(
            f"{place}: model: no folder {comparison.model_folder}; give a Hugging Face folder with "
            "safetensors"
        )
    cut = comparison.base.silos[0].cut
    ModelFolder.open(comparison.model_folder).cut(bottom_layers=cut.bottom_layers, top_layers=cut.top_layers)
    for file in comparison.source.files:
        if not file.is_file():
            where = text.place_of("split.file" if comparison.source.split is not None else "data")
            raise DataError(
                f"{where}: no file {file}; relative paths begin at the specification's folder (--root)"
            )
