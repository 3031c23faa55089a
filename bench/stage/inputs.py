"""What a stage trains: the demo's own notes on its tiny model, small and in fp32."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitlearn.simulation.demo_inputs import plan_job, prepare_inputs, read_rows
from splitlearn.simulation.demo_options import DemoOptions, name_of
from splitlearn.spec import JobSpec
from splitlearn.tasks import Record, SiloData

PATIENCE_SECONDS = 300.0
_MAX_ROWS = 60


@dataclass(frozen=True, repr=False)
class StageInputs:
    """A job's model and rows.

    Attributes:
        spec: A job; others are made from it by :meth:`job`.
        model_folder: Its model.
        rows: Every silo's, in the roster's order.
        data: The same, tokenised; for the reference in one process.
    """

    spec: JobSpec
    model_folder: Path
    rows: Mapping[str, Sequence[Record]]
    data: Sequence[SiloData]

    @property
    def model(self) -> str:
        """Name under which the model is registered."""
        return name_of(self.model_folder)

    def job(self, **changes: Any) -> JobSpec:
        """Return the job as it is submitted, with some fields changed."""
        return self.spec.model_copy(update={"model": self.model, **changes})


def make_inputs(folder: Path, *, silos: int = 2, **options: Any) -> StageInputs:
    """Make model and rows.

    Args:
        folder: Gets the model.
        silos: So many take part.
        options: Of the demo, such as ``rounds``, where a stage's own are not wanted.
    """
    small: dict[str, Any] = {
        "silo_blocks": "local",
        "rounds": 6,
        "steps_per_round": 20,
        "batch_size": 2,
        "max_tokens": 48,
        "evaluation_rows": 6,
        "centralised": False,
    }
    demo = DemoOptions(silos=silos, **{**small, **options})
    spec = plan_job(demo).model_copy(update={"patience_seconds": PATIENCE_SECONDS})
    rows = read_rows(demo, spec)
    rows.by_silo.update({silo: records[:_MAX_ROWS] for silo, records in rows.by_silo.items()})
    inputs = prepare_inputs(demo, rows, folder=None, models=folder / "models")
    return StageInputs(spec, inputs.model_folder, rows.by_silo, inputs.data)
