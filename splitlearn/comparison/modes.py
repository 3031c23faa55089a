"""The modes that are compared, and the job that each makes of the same specification. Torch-free.

**Same budget** means: every mode reads the same number of rows, ``rounds * steps_per_round * batch_size *
accumulation_steps`` for each of the K silos, and every mode but ``alone`` reads the very same rows.

========================  ==========================  =====================================
mode                      optimiser steps             rows of a step
========================  ==========================  =====================================
centralised               rounds * steps_per_round    the union of the silos' batches
client-batching           the same                    the same
hierarchical-R            the same, each replica      the union of its own silos' batches
serial                    K times as many             one silo's batch
alone:<silo>              rounds * steps_per_round    K batches, all of this silo's own rows
========================  ==========================  =====================================

So a silo alone does as many steps on as many rows as the federation, and goes over its own rows more often.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from splitlearn.errors import SpecError
from splitlearn.spec import AveragingSpec, JobSpec

ModeKind = Literal["centralised", "serial", "client-batching", "hierarchical", "alone"]

CENTRALISED = "centralised"
_ALONE: Final = "alone"
_REPLICAS = re.compile(r"hierarchical-([0-9]{1,4})")
_MIN_REPLICAS = 2
_WITHOUT_NUMBER: Mapping[str, ModeKind] = MappingProxyType(
    {"centralised": "centralised", "serial": "serial", "client-batching": "client-batching"}
)
USUAL_MODES = (CENTRALISED, "serial", "client-batching", "hierarchical-2", "hierarchical-4", _ALONE)
"""What is trained unless the user chooses; see :func:`usual_modes`."""

OWN_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"serial": ("turn_steps",), "hierarchical": ("replica_schedule", "replica_moments")}
)
"""Fields of a job that have a meaning with one schedule only, and so are given to that mode alone."""


@dataclass(frozen=True, order=True)
class Mode:
    """One way to train the job.

    Attributes:
        name: As in commands and results: ``hierarchical-2``, ``alone:north``.
        kind: What it is.
        replicas: Of the trunk.
        silo: ``alone``: whose rows are trained on.
    """

    name: str
    kind: ModeKind
    replicas: int = 1
    silo: str | None = None

    @property
    def file_stem(self) -> str:
        """The name as part of a file's."""
        return self.name.replace(":", "-of-")


@dataclass(frozen=True)
class LeftOut:
    """A usual mode that this roster cannot have, and nobody asked for by name.

    Attributes:
        mode: Its name.
        reason: Why, with the numbers.
    """

    mode: str
    reason: str

    def __str__(self) -> str:
        """Say it for people."""
        return f"{self.mode} is left out: {self.reason}"


def usual_modes(*, silos: Sequence[str]) -> tuple[tuple[Mode, ...], tuple[LeftOut, ...]]:
    """Return the usual modes that a job can have, and those that it cannot.

    Args:
        silos: The roster.
    """
    too_large = [name for name in USUAL_MODES if _is_too_large(name, len(silos))]
    reason = f"more replicas than the {len(silos)} silo{'s' if len(silos) > 1 else ''} of the roster"
    found = parse_modes([name for name in USUAL_MODES if name not in too_large], silos=silos)
    return found, tuple(LeftOut(name, reason) for name in too_large)


def parse_modes(names: Iterable[str], *, silos: Sequence[str]) -> tuple[Mode, ...]:
    """Return the modes of some names, each once, in the order given; ``alone`` stands for every silo's.

    Args:
        names: As the user wrote them.
        silos: The roster.

    Raises:
        SpecError: An unknown name, an unknown silo, more replicas than silos, or no name at all.
    """
    found: dict[str, Mode] = {}
    for name in names:
        for mode in _modes_of(name.strip(), silos):
            found.setdefault(mode.name, mode)
    if not found:
        raise SpecError(f"no mode to train; give some of {', '.join(USUAL_MODES)}")
    return tuple(found.values())


def _modes_of(name: str, silos: Sequence[str]) -> list[Mode]:
    kind, _, silo = name.partition(":")
    if kind == _ALONE and (not silo or silo in silos):
        return [Mode(f"{_ALONE}:{one}", _ALONE, silo=one) for one in ([silo] if silo else silos)]
    if kind == _ALONE:
        raise SpecError(f"{name}: no silo {silo!r} in the roster; it has {', '.join(silos)}")
    if name in _WITHOUT_NUMBER:
        return [Mode(name, _WITHOUT_NUMBER[name])]
    asked = _REPLICAS.fullmatch(name)
    if asked is None:
        raise SpecError(
            f"unknown mode {name!r}; there are {', '.join(USUAL_MODES)}, hierarchical-R for any number R of "
            "replicas, and alone:SILO"
        )
    replicas = int(asked[1])
    if replicas < _MIN_REPLICAS:
        raise SpecError(f"{name}: {replicas} is no number of replicas; give hierarchical-2 or more")
    if replicas > len(silos):
        served = [mode for mode in USUAL_MODES if not _is_too_large(mode, len(silos))]
        raise SpecError(
            f"{name}: {replicas} replicas are more than the {len(silos)} silos of the roster, and each needs "
            f"a silo of its own; choose others: --modes {','.join(served)}"
        )
    return [Mode(f"hierarchical-{replicas}", "hierarchical", replicas=replicas)]


def _is_too_large(name: str, num_silos: int) -> bool:
    asked = _REPLICAS.fullmatch(name)
    return asked is not None and int(asked[1]) > num_silos


def job_of(
    mode: Mode, base: JobSpec, *, seed: int, own_fields: Mapping[str, Mapping[str, Any]] | None = None
) -> JobSpec:
    """Return the job that a mode trains.

    Args:
        mode: The mode.
        base: The job as every mode has it, with schedule ``client-batching``.
        seed: Of this run.
        own_fields: By kind of mode, fields that only it has; see :data:`OWN_FIELDS`.

    Raises:
        SpecError: This mode cannot have these fields; names the mode.
    """
    own = (own_fields or {}).get(mode.kind, {})
    fields = {**base.model_dump(), "seed": seed, **_begun(mode, base), **_changes(mode, base), **own}
    if mode.kind == "hierarchical" and own.get("replica_schedule") == "serial":
        fields["learning_rate"] = _warmed_up(base, times=-(-len(base.silos) // mode.replicas))
    try:
        job = JobSpec.parse(fields)
        job.refuse_unserved(on_platform=False)
    except SpecError as error:
        raise type(error)("\n".join(f"{mode.name}: {line}" for line in error.message.splitlines())) from error
    return job


def _begun(mode: Mode, base: JobSpec) -> dict[str, Any]:
    """All modes begin with the same model, so one of them evaluates it, but where it may be the result."""
    if mode.kind == CENTRALISED or base.evaluation.watches:
        return {}
    return {"evaluation": {**base.evaluation.model_dump(), "before_training": False}}


def _changes(mode: Mode, base: JobSpec) -> dict[str, Any]:
    num_silos = len(base.silos)
    if mode.kind == "serial":
        return {
            "schedule": "serial",
            "learning_rate": _warmed_up(base, times=num_silos),
            "averaging": _at_rounds_ends(base),
        }
    if mode.kind == "hierarchical":
        return {
            "schedule": "hierarchical",
            "replicas": mode.replicas,
            "averaging": _at_rounds_ends(base),
        }
    if mode.kind == "alone":
        assert mode.silo is not None, "parse_modes names it"
        return {
            "silos": (base.silos[base.silo_index(mode.silo)].model_dump(),),
            "batch_size": base.batch_size * num_silos,
            # Alone there is nobody to average with; what is trained stays the same.
            "silo_blocks": "frozen" if base.silo_blocks == "frozen" else "local",
            "averaging": AveragingSpec().model_dump(),
            "min_silos": 1,
        }
    return {}


def _warmed_up(base: JobSpec, *, times: int) -> dict[str, Any]:
    """Return the rate with a warm-up over the same share of a run that has so many times as many steps."""
    rate = base.learning_rate
    return {**rate.model_dump(), "warmup_steps": rate.warmup_steps * times}


def _at_rounds_ends(base: JobSpec) -> dict[str, Any]:
    """Return the averaging without that in mid-round, where silos in turns or in replicas do not meet."""
    return {**base.averaging.model_dump(), "every_steps": 0}
