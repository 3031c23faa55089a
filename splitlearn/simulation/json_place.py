"""Where ``--json`` may not write: over the user's own files, or over those of the run."""

from collections.abc import Iterator
from pathlib import Path

from splitlearn.errors import SpecError
from splitlearn.simulation.demo_options import DemoOptions
from splitlearn.simulation.run_folder import NAMES_OF_A_RUN

_REMEDY = "give --json another path"


def refuse_taken(options: DemoOptions) -> None:
    """Refuse a path for the result at which there is, or will be, something that is no result.

    Raises:
        SpecError: It is a data file, a file of the model's folder, or one that the run itself uses.
    """
    if options.json_path is None:
        return
    try:
        reason = next(_reasons(options, options.json_path), None)
    except (OSError, RuntimeError):  # a path that cannot be followed is refused where it is opened
        return
    if reason is not None:
        raise SpecError(f"--json {options.json_path} {reason}; {_REMEDY}")


def _reasons(options: DemoOptions, path: Path) -> Iterator[str]:
    target = path.resolve()
    for data in options.data:
        if target == data.resolve() or (target.exists() and data.exists() and target.samefile(data)):
            yield f"is the data file {data}, which it would replace"
    model = Path(options.model)
    if model.is_dir() and (
        target.is_relative_to(model.resolve())
        or path.absolute().is_relative_to(model.absolute())
        or any(target == entry.resolve() for entry in model.iterdir())
    ):
        yield f"is in the model's folder {model}"
    out = options.out_dir.resolve()
    if out == target or out.is_relative_to(target):
        yield f"is where the run's folder {options.out_dir} is to be"
    elif target.is_relative_to(out):
        first, *others = target.relative_to(out).parts
        if others or first in NAMES_OF_A_RUN or first.startswith("."):
            yield f"is among the files that the run keeps in {options.out_dir} (its result is in result.json)"
