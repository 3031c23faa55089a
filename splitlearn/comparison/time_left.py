"""How long the rest of a comparison will take, from what was seen so far. Pure."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_TELLING_SHARE = 0.2  # before, a run's loading is most of what was seen of it


@dataclass(frozen=True, slots=True)
class Active:
    """A run that runs: of which kind, how much of it is done, since when in seconds."""

    kind: str
    share: float
    seconds: float

    @property
    def whole(self) -> float | None:
        """How long all of it takes at this pace; None while nobody can tell."""
        return self.seconds / self.share if self.share >= _TELLING_SHARE else None


def seconds_left(
    finished: Mapping[str, Sequence[float]],
    active: Sequence[Active],
    waiting: Iterable[str],
    *,
    parallel: int,
) -> float | None:
    """Estimate the seconds until the last run ends; None while nothing is known.

    Args:
        finished: Seconds of the finished runs, by kind.
        active: The runs that run.
        waiting: Kinds of those that wait.
        parallel: How many run at once.
    """
    waits = list(waiting)
    total = 0.0
    for run in active:
        whole = run.whole or _expected(run.kind, finished, active)
        if whole is None:
            return None
        total += max(whole - run.seconds, 0.0)
    for kind in waits:
        whole = _expected(kind, finished, active)
        if whole is None:
            return None
        total += whole
    return total / max(1, min(parallel, len(active) + len(waits)))


def _expected(kind: str, finished: Mapping[str, Sequence[float]], active: Sequence[Active]) -> float | None:
    alike = list(finished.get(kind, ())) or [
        run.whole for run in active if run.kind == kind and run.whole is not None
    ]
    known = (
        alike
        or [seconds for runs in finished.values() for seconds in runs]
        or [run.whole for run in active if run.whole is not None]
    )
    return statistics.fmean(known) if known else None


def in_words(seconds: float | None) -> str:
    """Return a rough span of time for people: ``about 4 min left``; empty where it is not known."""
    if seconds is None:
        return ""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return "less than a minute left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 120 else f"about {minutes / 60:.1f} h left"  # noqa: PLR2004
