"""Results and reports as tests need them."""

from collections.abc import Sequence
from typing import Any

from splitlearn.comparison.modes import Mode, parse_modes
from splitlearn.comparison.report import Report
from splitlearn.comparison.run_files import CurvePoint, RunResult, SiloScore
from splitlearn.comparison.runner import Failure
from splitlearn.spec import JobSpec

SILOS = ("a", "b")


def job(**fields: Any) -> JobSpec:
    silos = [{"name": name, "dataset": name} for name in fields.pop("silos", SILOS)]
    return JobSpec.parse(
        {"name": "trial", "model": "m", "adapter": {"kind": "full"}, **fields, "silos": silos}
    )


def modes(*names: str, silos: Sequence[str] = SILOS) -> tuple[Mode, ...]:
    return parse_modes(names, silos=silos)


def run_result(
    mode: str, seed: int, loss: float, *, accuracy: float | None = None, **fields: Any
) -> RunResult:
    silos = tuple(
        SiloScore(
            name=name,
            rows=10,
            training=8,
            heldout=2,
            truncated=1,
            dropped=0,
            evaluated=2,
            eval_loss=loss,
            num_tokens=20,
            accuracy=accuracy,
        )
        for name in SILOS
    )
    given: dict[str, Any] = {
        "fingerprint": "f",
        "mode": mode,
        "seed": seed,
        "task": "causal-lm" if accuracy is None else "choice",
        "metric_name": "eval_loss" if accuracy is None else "accuracy",
        "metric": loss if accuracy is None else accuracy,
        "eval_loss": loss,
        "silos": silos,
        "seconds": 2.0,
        "wall_seconds": 3.0,
        "bytes": 0 if mode == "centralised" else 3 << 20,
        "evaluation_bytes": 0,
        "memory_bytes": 1 << 30,
        "optimizer_steps": 10,
        "rows_trained": 40,
        "label_tokens": 400,
        "curve": (CurvePoint(at=0.5, loss=loss + 1), CurvePoint(at=1.0, loss=loss)),
    }
    return RunResult(**{**given, **fields})


def report(
    results: Sequence[RunResult], *, failures: Sequence[Failure] = (), base: JobSpec | None = None
) -> Report:
    names = dict.fromkeys(result.mode for result in results)
    return Report(
        base=base or job(seed=1),
        modes=modes(*names) if names else modes("centralised"),
        num_seeds=2,
        threads=1,
        parallel=2,
        results=tuple(results),
        failures=tuple(failures),
    )
