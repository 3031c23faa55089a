"""JobSpec v1: everything the parties of one job must agree on, in one frozen, signed document.

The same schema serves the REST API, the worker and the agent. Unknown fields are refused, so that a
misspelt setting can never be ignored; a field that is valid but not served yet is refused by name
(:meth:`JobSpec.refuse_unserved`).
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from splitlearn.errors import SpecError, UnservedError
from splitlearn.evaluation_spec import EvaluationSpec
from splitlearn.frozen import Frozen
from splitlearn.task_spec import CausalLmTask, ChatSpec, ChoiceTask, SftTask, SummariseTask, TaskSpec

__all__ = [
    "MAX_SILOS",
    "MAX_SPEC_BYTES",
    "AdamWSpec",
    "CausalLmTask",
    "ChatSpec",
    "ChoiceTask",
    "CutSpec",
    "EvaluationSpec",
    "Frozen",
    "FullAdapter",
    "JobSpec",
    "LearningRateSpec",
    "LoraAdapter",
    "Name",
    "PrivacySpec",
    "SGDSpec",
    "SftTask",
    "SiloSpec",
    "SummariseTask",
    "TaskSpec",
    "is_job_id",
]

MAX_SILOS = 256
MIN_SILOS_AVERAGED = 3
MIN_REPLICAS = 2
MAX_SPEC_BYTES = 1 << 20
_DIGEST_CONTEXT = b"trunkline/spec/v1\0"
_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LATER_FIELDS = (
    "averaging",
    "replicas",
    "replica_schedule",
    "replica_moments",
    "gradient_checkpointing",
    "start_from",
)
"""Fields that the first specifications did not have."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
"""A silo, data set or job: lower-case letters, digits, dot, underscore, hyphen; 1 to 64 characters."""


class CutSpec(Frozen):
    """Where one silo cuts the model: how many of the N layers it keeps at either end."""

    bottom_layers: int = Field(default=1, ge=0, le=4096)
    top_layers: int = Field(default=1, ge=0, le=4096)


class SiloSpec(Frozen):
    """One silo of the roster. The roster's order is the order of everything."""

    name: Name
    dataset: Name
    cut: CutSpec = CutSpec()


class FullAdapter(Frozen):
    """Train every weight of the trainable segments."""

    kind: Literal["full"] = "full"


class LoraAdapter(Frozen):
    """Train low-rank adapters (LoRA, arXiv 2106.09685) on the named linear layers.

    Attributes:
        r: Rank.
        alpha: Scaling numerator: the update is multiplied by alpha / r.
        dropout: Probability of zeroing an input element of the adapter, in [0, 1).
        targets: Module names ("q_proj"), or empty for PEFT's default of the model's family.
        freeze_a: Train B alone (arXiv 2403.12313). The average of B times A is then the average of the
            products; with both trained, averaging each apart is not.
    """

    kind: Literal["lora"] = "lora"
    r: int = Field(default=8, ge=1, le=4096)
    alpha: float = Field(default=16.0, gt=0, le=65536)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ()
    freeze_a: bool = Field(default=False, strict=True)


class AdamWSpec(Frozen):
    """AdamW (arXiv 1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0, le=10)


class SGDSpec(Frozen):
    """Stochastic gradient descent."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=10)


class LearningRateSpec(Frozen):
    """Learning rate as a function of the global optimiser step, the same for every party.

    Attributes:
        peak: Rate after warm-up.
        warmup_steps: Steps of linear increase from peak / (warmup_steps + 1).
        decay: What follows the warm-up, until the job's last step.
        floor: Rate that a decay ends with, as a fraction of the peak.
    """

    peak: float = Field(default=1e-3, gt=0, le=10)
    warmup_steps: int = Field(default=0, ge=0, le=10_000_000)
    decay: Literal["constant", "linear", "cosine"] = "constant"
    floor: float = Field(default=0.0, ge=0, le=1)


class AveragingSpec(Frozen):
    """How silos average their blocks; see docs/protocol.md, section 14.

    Attributes:
        every_steps: Client-batching only: average after each n-th step of a round besides its end; 0 for
            the round's end only.
        moments: After an average the optimiser's moments of a silo's blocks stay its own, or begin anew.
        fraction_bits: Binary digits behind the point of the sum's fixed-point numbers. What a silo's
            blocks changed since the last average, times its weight, lies below 2^(31 - fraction_bits) / K.
    """

    every_steps: int = Field(default=0, ge=0, le=1_000_000)
    moments: Literal["local", "reset"] = "local"
    fraction_bits: int = Field(default=24, ge=8, le=30)


class PrivacySpec(Frozen):
    """Defences at the cut: noise in multiples of the activations' rms, clip of a token's norm."""

    noise: float = Field(default=0.0, ge=0, le=100)
    clip: float | None = Field(default=None, gt=0)


class JobSpec(Frozen):
    """One training job. See each part for its fields; sizes are counts, durations seconds.

    Attributes:
        spec_version: Version of this schema.
        name: The job's name for people.
        model: Registered model, or folder, that every party resolves for itself.
        schedule: How silos and trunk take turns.
        replicas: Hierarchical: trunks that are trained side by side, each with its share of the silos; auto:
            how many at most, 1 for as many as there are workers.
        replica_schedule: Hierarchical: how the silos of one replica take turns with it.
        replica_moments: Hierarchical: whether the optimiser's moments are averaged with the trunks at a
            round's end, or stay each replica's own.
        silo_blocks: Bottom and top stay as they are, are trained by each silo for itself, or are trained and
            averaged by a secure sum over at least 3 silos. What a person left open is filled in by
            :mod:`splitlearn.spec_defaults`.
        averaging: When and how they are averaged.
        turn_steps: Serial, also in replicas: steps of one silo's turn; None for all its steps of the round.
        batch_size: Rows per micro-batch and silo.
        accumulation_steps: Micro-batches per optimiser step.
        max_tokens: Tokens per row after which it is truncated.
        steps_per_round: Optimiser steps of a round (serial: of each silo in a round).
        precision: Of the matrix products: bf16 and fp16 are computed under autocast, fp16 with a scale of the
            loss; parameters, gradients and the optimiser stay fp32.
        codec: How tensors between silo and trunk are encoded.
        on_lost_silo: Wait for a silo that vanished, or go on without it from the last common round on.
        min_silos: With ``continue``: where fewer would be left, the job waits.
        release: Who receives the result: each silo its own model, or the project all of it.
        patience_seconds: Without progress for this long, a party is reported lost.
        gradient_checkpointing: Keep of each layer's forward its input alone, and compute the rest again in
            the backward: less memory, a third more computing, the same bits.
        start_from: An earlier run whose result is trained on: the id of a completed job of the same project,
            or in one process its folder, or that of one result. A silo that took no part in it begins at the
            base model.
    """

    spec_version: Literal[1] = 1
    name: Name = "job"
    model: str = Field(min_length=1, max_length=1024)
    adapter: FullAdapter | LoraAdapter = Field(default=LoraAdapter(), discriminator="kind")
    silos: tuple[SiloSpec, ...] = Field(min_length=1, max_length=MAX_SILOS)
    silo_blocks: Literal["frozen", "local", "averaged"] = "frozen"
    schedule: Literal["serial", "client-batching", "hierarchical", "auto"] = "client-batching"
    turn_steps: int | None = Field(default=None, ge=1, le=1_000_000)
    optimizer: AdamWSpec | SGDSpec = Field(default=AdamWSpec(), discriminator="kind")
    learning_rate: LearningRateSpec = LearningRateSpec()
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    batch_size: int = Field(default=8, ge=1, le=4096)
    accumulation_steps: int = Field(default=1, ge=1, le=256)
    max_tokens: int = Field(default=128, ge=2, le=1 << 20)
    rounds: int = Field(default=1, ge=1, le=1_000_000)
    steps_per_round: int = Field(default=10, ge=1, le=1_000_000)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    codec: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    task: TaskSpec = Field(default=CausalLmTask(), discriminator="kind")
    evaluation: EvaluationSpec = EvaluationSpec()
    on_lost_silo: Literal["wait", "continue"] = "wait"
    min_silos: int = Field(default=1, ge=1, le=MAX_SILOS)
    patience_seconds: float = Field(default=600.0, gt=0, le=604_800)
    privacy: PrivacySpec = PrivacySpec()
    release: Literal["silos", "project"] = "silos"
    averaging: AveragingSpec = AveragingSpec()
    replicas: int = Field(default=1, ge=1, le=MAX_SILOS)
    replica_schedule: Literal["client-batching", "serial"] = "client-batching"
    replica_moments: Literal["averaged", "kept"] = "averaged"
    gradient_checkpointing: bool = Field(default=False, strict=True)
    start_from: str | None = Field(default=None, min_length=1, max_length=1024)

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        doubled = [name for name, count in Counter(silo.name for silo in self.silos).items() if count > 1]
        if doubled:
            raise ValueError(f"silos: the name {doubled[0]!r} is listed twice; every silo needs its own")
        if self.min_silos > len(self.silos):
            raise ValueError(
                f"min_silos: {self.min_silos} is more than the {len(self.silos)} silos of the roster; "
                "lower it or add silos"
            )
        self._refuse_turns()
        self._refuse_replicas()
        self._refuse_averaging()
        return self

    def _refuse_turns(self) -> None:
        if self.turn_steps is not None and not self.takes_turns:
            raise ValueError(
                f"turn_steps: {self.turn_steps} has a meaning only with schedule 'serial', or "
                f"replica_schedule 'serial', not {self.schedule!r}; leave it out"
            )
        if self.turn_steps is not None and self.turn_steps > self.steps_per_round:
            raise ValueError(
                f"turn_steps: {self.turn_steps} is more than steps_per_round {self.steps_per_round}; lower it"
            )

    def _refuse_replicas(self) -> None:
        if self.schedule not in {"hierarchical", "auto"}:
            for name in ("replicas", "replica_schedule", "replica_moments"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name}: {getattr(self, name)!r} has a meaning only with schedule 'hierarchical' or "
                        f"'auto', not {self.schedule!r}; leave it out"
                    )
        if self.schedule == "hierarchical" and self.replicas < MIN_REPLICAS:
            raise ValueError(
                f"replicas: {self.replicas} is too few for schedule 'hierarchical', which averages at least "
                f"{MIN_REPLICAS} trunks; raise it, or use 'client-batching'"
            )
        if self.replicas > len(self.silos):
            raise ValueError(
                f"replicas: {self.replicas} is more than the {len(self.silos)} silos of the roster, and each "
                "replica needs one; lower it or add silos"
            )

    def _refuse_averaging(self) -> None:
        averaging, is_averaged = self.averaging, self.silo_blocks == "averaged"
        if is_averaged and len(self.silos) < MIN_SILOS_AVERAGED:
            raise ValueError(
                f"silo_blocks: 'averaged' needs at least {MIN_SILOS_AVERAGED} silos, the roster has "
                f"{len(self.silos)}: with fewer, a silo could take its own blocks off the average and see "
                "another's; add silos, or use 'local'"
            )
        if not is_averaged and averaging != AveragingSpec():
            raise ValueError(
                f"averaging: has a meaning only with silo_blocks 'averaged', not {self.silo_blocks!r}; "
                "leave it out"
            )
        if averaging.every_steps and self.schedule == "hierarchical":
            raise ValueError(
                f"every_steps: {averaging.every_steps} (averaging) has no meaning with schedule "
                "'hierarchical', whose replicas meet at a round's end only; leave it out, or lower "
                "steps_per_round"
            )
        if averaging.every_steps and self.schedule == "serial":
            raise ValueError(
                f"every_steps: {averaging.every_steps} (averaging) has no meaning with schedule 'serial', "
                "where the silos have done the same steps at a round's end only; leave it out, or lower "
                "steps_per_round"
            )
        if averaging.every_steps > self.steps_per_round:
            raise ValueError(
                f"every_steps: {averaging.every_steps} (averaging) is more than steps_per_round "
                f"{self.steps_per_round}; lower it"
            )

    @classmethod
    def parse(cls, data: Mapping[str, Any] | bytes | str) -> Self:
        """Build a specification from a mapping or JSON text.

        Raises:
            SpecError: With one line per wrong field: its path, the value seen and the limit.
        """
        if isinstance(data, bytes | str) and len(data) > MAX_SPEC_BYTES:
            raise SpecError(f"the specification has {len(data)} bytes, the limit is {MAX_SPEC_BYTES}")
        try:
            if isinstance(data, bytes | str):
                return cls.model_validate_json(data)
            return cls.model_validate(data)
        except ValidationError as error:
            raise SpecError("\n".join(_sentences(error))) from error

    def refuse_unserved(self, *, on_platform: bool = True) -> None:
        """Refuse, by name, a valid field that this version cannot honour.

        Args:
            on_platform: By its processes; :func:`splitlearn.simulation.simulate` may serve more.

        Raises:
            UnservedError: Names every such field, its value and what may be asked for instead.
        """
        refused = [
            f"{field}: {value!r} is not served yet; {remedy}"
            for field, value, served, remedy in self._served(on_platform=on_platform)
            if not served
        ]
        if refused:
            raise UnservedError("\n".join(refused))

    def _served(self, *, on_platform: bool) -> Iterator[tuple[str, object, bool, str]]:
        yield (
            "silo_blocks with on_lost_silo",
            (self.silo_blocks, self.on_lost_silo),
            (self.silo_blocks, self.on_lost_silo) != ("averaged", "continue"),
            "use on_lost_silo 'wait': what was summed with a silo is not summed again without it",
        )
        yield (
            "schedule",
            self.schedule,
            self.schedule != "auto",
            "use 'serial', 'client-batching' or 'hierarchical'",
        )
        yield (
            "silos.cut",
            [silo.cut.model_dump() for silo in self.silos],
            len({silo.cut for silo in self.silos}) == 1,
            "give every silo the same cut: one trunk holds the same layers for all",
        )
        yield (
            "start_from",
            self.start_from,
            self.start_from is None or not on_platform or is_job_id(self.start_from),
            "give a completed job's id of the same project, or train in one process, from a run's folder",
        )
        yield "privacy.noise", self.privacy.noise, self.privacy.noise == 0, "use 0"
        yield "privacy.clip", self.privacy.clip, self.privacy.clip is None, "leave it out"
        yield "release", self.release, self.release == "silos", "use 'silos'"
        yield (
            "min_silos",
            self.min_silos,
            self.on_lost_silo == "continue" or self.min_silos in {1, len(self.silos)},
            "leave it out, or use on_lost_silo 'continue': else every silo takes part in every step",
        )

    def canonical_bytes(self) -> bytes:
        """Return the one byte string that stands for this specification: what is digested and signed.

        JSON in UTF-8 with sorted keys, no white space, every default written out, but for fields that came
        later: while they have their defaults they are left out, so that a document keeps its digest.
        """
        fields = self.model_dump(mode="json")
        for name in _LATER_FIELDS:
            if getattr(self, name) == type(self).model_fields[name].default:
                del fields[name]
        if not fields["adapter"].get("freeze_a", True):
            del fields["adapter"]["freeze_a"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def digest(self) -> bytes:
        """Return the 32-byte SHA-256 of the canonical bytes, under a context of its own."""
        return hashlib.sha256(_DIGEST_CONTEXT + self.canonical_bytes()).digest()

    def silo_index(self, name: str) -> int:
        """Return the position of a silo in the roster.

        Raises:
            SpecError: No silo of that name.
        """
        for index, silo in enumerate(self.silos):
            if silo.name == name:
                return index
        known = ", ".join(silo.name for silo in self.silos)
        raise SpecError(f"no silo {name!r} in the roster; it has {known}")

    @property
    def shares(self) -> tuple[tuple[str, ...], ...]:
        """Each replica's silos by name; of a job without replicas the whole roster, once.

        Dealt out in the roster's order, as evenly as may be: the first shares have one silo more.
        """
        names = tuple(silo.name for silo in self.silos)
        count = self.replicas if self.schedule == "hierarchical" else 1
        smaller, num_larger = divmod(len(names), count)
        ends = [smaller * number + min(number, num_larger) for number in range(count + 1)]
        return tuple(names[begin:end] for begin, end in pairwise(ends))

    def replica_of(self, name: str) -> int:
        """Return which replica's silo it is; 0 in a job without replicas.

        Raises:
            SpecError: No silo of that name.
        """
        self.silo_index(name)
        return next(replica for replica, share in enumerate(self.shares) if name in share)

    @property
    def meeting_evaluates(self) -> bool:
        """Whether, after a round, the average of several replicas is evaluated by all silos at one place.

        So it is where something is decided by what they tell together.
        """
        return len(self.shares) > 1 and self.evaluation.watches

    @property
    def silos_meet(self) -> bool:
        """Whether, after a round, the silos of several replicas have something to do with each other."""
        return self.meeting_evaluates or (len(self.shares) > 1 and self.silo_blocks == "averaged")

    @property
    def takes_turns(self) -> bool:
        """Whether the silos of a trunk take turns with it, rather than all taking each step together."""
        within = self.replica_schedule if self.schedule == "hierarchical" else self.schedule
        return within == "serial"

    @property
    def global_steps_per_round(self) -> int:
        """Steps by which the global step grows in a round.

        Replicas take steps of the same numbers at the same time. Where silos take turns, a replica with fewer
        silos than others has done its steps before the round's last number.
        """
        return self.steps_per_round * (max(map(len, self.shares)) if self.takes_turns else 1)

    @property
    def total_steps(self) -> int:
        """Global steps of the whole job: the optimiser steps of its trunk, or of the busiest replica's."""
        return self.rounds * self.global_steps_per_round


def is_job_id(text: str) -> bool:
    """Whether a text is the id of a job: a UUID in lower-case letters."""
    return _JOB_ID.fullmatch(text) is not None


def _sentences(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        path = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            yield f"{path}: unknown field; {_meant(path)}remove it or correct its spelling"
        elif not path:
            yield message
        else:
            yield f"{path}: {message}; got {_shortened(detail['input'])}"


def _meant(path: str) -> str:
    """Return where a field of this name belongs, if it is one of the evaluation's or the learning rate's."""
    for name, model in (("evaluation", EvaluationSpec), ("learning_rate", LearningRateSpec)):
        if path in model.model_fields:
            return f"{name}.{path} may be meant: "
    return ""


def _shortened(value: object, *, max_characters: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= max_characters else text[: max_characters - 3] + "..."
