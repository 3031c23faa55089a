"""The centralised reference: the same job, on all silos' rows pooled, by one model that was never cut.

Step s takes the union, in roster order, of the silos' batches at step s; trainable set, initial weights,
batches, learning rate and seed are the job's. It knows nothing of segments or trainers: a plain Hugging
Face model, its own loss, torch's own clipping. So where both agree, both are right.

As a program (``python -m splitlearn.simulation.centralised REQUEST RESULT``) it reads a
:class:`CentralisedRequest`, prints a line of JSON per step, and writes a :class:`CentralisedAnswer`.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from splitlearn.errors import TrunklineError, UnservedError
from splitlearn.families import FAMILIES
from splitlearn.partition import StartingPoint, apply_adapter, find_result
from splitlearn.planning import Cut, ModelFolder, Role
from splitlearn.simulation.centralised_files import (
    CentralisedAnswer,
    CentralisedRequest,
    SiloAnswer,
    read_document,
    write_document,
)
from splitlearn.simulation.unsplit_texts import summary_scores
from splitlearn.spec import JobSpec
from splitlearn.tasks import (
    BatchPlan,
    EvaluationPlan,
    EvaluationResult,
    Example,
    LossSum,
    TokenBatch,
    TokenRow,
    concatenate_batches,
    row_scores,
    total_loss,
)
from splitlearn.training.best import BestBlocks, Standing
from splitlearn.training.learning_rate import learning_rate
from splitlearn.training.optimizer import build_optimizer, set_learning_rate
from splitlearn.training.precision import computing_in, first_loss_scale
from splitlearn.training.seeding import TRUNK_PARTY, Segment, StepKey, dropout_seed

_PAD_TOKEN_ID = 0  # any will do: nothing valid attends to a pad, and no pad has a label


class SiloRows(Protocol):
    """What the reference needs of a silo; :class:`splitlearn.tasks.SiloData` has it."""

    @property
    def name(self) -> str:
        """Name in the roster."""

    @property
    def training(self) -> Sequence[TokenRow]:
        """Rows to train on."""

    @property
    def heldout(self) -> Sequence[Example]:
        """Examples to evaluate on."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of the reference: mean loss in nats (NaN without label tokens), and how long it took."""

    step: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class CentralisedResult:
    """What the reference came to.

    Attributes:
        steps: Every step.
        evaluations: Of each silo's held-out rows at the end, in roster order.
        state: The trained tensors, by name.
        before: As ``evaluations``, but before step 1; empty where the job does not ask for it.
        result_round: The round that state and evaluations are of; None where not one was trained.
    """

    steps: tuple[StepReport, ...]
    evaluations: tuple[tuple[str, EvaluationResult], ...]
    state: dict[str, Tensor] = field(repr=False)
    before: tuple[tuple[str, EvaluationResult], ...] = ()
    result_round: int | None = None

    @property
    def losses(self) -> tuple[float, ...]:
        """Mean loss of each step."""
        return tuple(step.loss for step in self.steps)

    @property
    def eval_loss(self) -> float:
        """Token-weighted mean over all silos' held-out rows, in nats."""
        return total_loss(result.loss for _, result in self.evaluations).mean

    @property
    def seconds_per_step(self) -> float:
        """Median over the steps."""
        return statistics.median(step.seconds for step in self.steps)


def ignore_step(_: StepReport) -> None:
    """Tell nobody."""


def train_centralised(
    spec: JobSpec,
    model_folder: Path | str,
    data: Sequence[SiloRows],
    *,
    evaluated: Sequence[SiloRows] | None = None,
    on_step: Callable[[StepReport], None] = ignore_step,
) -> CentralisedResult:
    """Train one uncut model on the pooled data of all silos, then evaluate it on each silo's held-out rows.

    Takes ``rounds * steps_per_round`` steps whatever the schedule, so that it reads the same rows, keeps the
    best round or ends early where the job does, and begins where the first silo does. Torch's global
    generator is used, and put back.

    Args:
        spec: The job.
        model_folder: The model.
        data: Of every silo, in roster order.
        evaluated: Whose held-out rows are evaluated, in this order; None for those of ``data``.
        on_step: Told of every step.

    Raises:
        ModelError: The model, the cut or the adapter is wrong.
        UnservedError: The silos cut the model at different layers.
    """
    assert [silo.name for silo in data] == [silo.name for silo in spec.silos], "data in roster order"
    folder = ModelFolder.open(model_folder)
    cut = _common_cut(spec, folder)
    with torch.random.fork_rng(devices=[]):
        run = _Run(spec, _load(spec, folder, cut), cut)
        plans = [
            BatchPlan(
                silo.training,
                batch_size=spec.batch_size,
                seed=spec.seed,
                silo_name=silo.name,
                pad_token_id=_PAD_TOKEN_ID,
            )
            for silo in data
        ]
        whose = (evaluated or data) if spec.evaluation.before_training else ()
        before = tuple((silo.name, run.conclude(silo.heldout, folder)) for silo in whose)
        steps = tuple(run.steps(plans, on_step, heldout=[silo.heldout for silo in data]))
        evaluations = tuple((silo.name, run.conclude(silo.heldout, folder)) for silo in evaluated or data)
    return CentralisedResult(steps, evaluations, run.state(), before, run.result_round)


def _common_cut(spec: JobSpec, folder: ModelFolder) -> Cut:
    first = spec.silos[0].cut
    for silo in spec.silos:
        if silo.cut != first:
            raise UnservedError(
                f"silos.{silo.name}.cut: {silo.cut} differs from {first} of silo {spec.silos[0].name!r}; "
                "give all silos the same cut"
            )
    return folder.cut(bottom_layers=first.bottom_layers, top_layers=first.top_layers)


def _load(spec: JobSpec, folder: ModelFolder, cut: Cut) -> Any:
    """Load the whole model in training mode with the job's trainable set."""
    result = find_result(Path(spec.start_from), spec.silos[0].name) if spec.start_from else None
    start = StartingPoint.open(result, base=folder, adapter=spec.adapter) if result else None
    path = start.folder.path if start else folder.path
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    model = apply_adapter(model.train(), spec.adapter, seed=spec.seed)
    if start:
        start.begin_whole(model)
    if spec.silo_blocks == "frozen":
        _freeze_outside(model, cut.layers(Role.TRUNK))
    return model


def _freeze_outside(model: Any, trunk: range) -> None:
    """Freeze all but the trunk's layers; frozen blocks carry no adapter, so its dropout draws nothing."""
    family = FAMILIES[model.config.model_type]
    for name, parameter in model.named_parameters():
        if family.layer_of(name.removeprefix("base_model.model.")) not in trunk:
            parameter.requires_grad_(requires_grad=False)
    for name, module in model.named_modules():
        outside = family.layer_of(name.removeprefix("base_model.model.")) not in trunk
        if outside and ".lora_dropout." in name and isinstance(module, nn.Dropout):
            module.p = 0.0


class _Run:
    """The model on its way through the job."""

    def __init__(self, spec: JobSpec, model: Any, cut: Cut) -> None:
        self._spec, self._model = spec, model
        self._named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        self._parameters = [value for _, value in self._named]
        self._optimizer = build_optimizer(self._parameters, spec.optimizer)
        self._total_steps = spec.rounds * spec.steps_per_round
        self._scale = first_loss_scale(spec)
        self._device = self._parameters[0].device
        self._key: StepKey | None = None
        self.result_round: int | None = None
        self._seed_at_cuts(cut)

    def steps(
        self,
        plans: Sequence[BatchPlan],
        on_step: Callable[[StepReport], None],
        *,
        heldout: Sequence[Sequence[Example]],
    ) -> list[StepReport]:
        reports = []
        best, standing, evaluation = BestBlocks(self._named), Standing(), self._spec.evaluation
        if evaluation.watches and evaluation.before_training:
            standing = standing.after(0, self._losses(heldout), min_delta=evaluation.min_delta)
            best.keep(0)
        for step in range(self._total_steps):
            start = time.perf_counter()
            loss = self._step(step, self._union(plans, step))
            reports.append(StepReport(step, loss, time.perf_counter() - start))
            on_step(reports[-1])
            round_number, is_within = divmod(step + 1, self._spec.steps_per_round)
            if not evaluation.watches or is_within or not self._is_evaluated(round_number):
                continue
            standing = standing.after(round_number, self._losses(heldout), min_delta=evaluation.min_delta)
            if standing.best_round == round_number:
                best.keep(round_number)
            if standing.ends_the_job(evaluation):
                break
        self.result_round = len(reports) // self._spec.steps_per_round
        if evaluation.keep_best and standing.best_round is not None:
            best.restore()
            self.result_round = standing.best_round
        return reports

    def _losses(self, heldout: Sequence[Sequence[Example]]) -> dict[str, LossSum]:
        """Evaluate every silo's rows; which silo's is all that a name has to tell here."""
        return {str(number): self.evaluate(examples).loss for number, examples in enumerate(heldout)}

    def _is_evaluated(self, round_number: int) -> bool:
        every = self._spec.evaluation.every_rounds
        return round_number == self._spec.rounds or round_number % every == 0

    def evaluate(self, heldout: Sequence[Example]) -> EvaluationResult:
        plan = EvaluationPlan(
            heldout,
            batch_size=self._spec.evaluation.batch_size,
            pad_token_id=_PAD_TOKEN_ID,
            max_examples=self._spec.evaluation.max_rows,
            task=self._spec.task,
        )
        self._model.eval()
        self._key = None
        with torch.no_grad():
            batches = [plan.batch(index) for index in range(plan.num_batches)]
            scores = [
                score
                for batch in batches
                for score in row_scores(self._forward(batch).logits, batch.labels_BT)
            ]
        self._model.train()
        return plan.result(scores)

    def conclude(self, heldout: Sequence[Example], folder: ModelFolder) -> EvaluationResult:
        """Evaluate, and score generated texts where the job asks for that."""
        found = self.evaluate(heldout)
        self._model.eval()
        scores = summary_scores(self._spec, folder, self._model, heldout)
        self._model.train()
        return replace(found, scores=(*found.scores, *scores))

    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._named}

    def _union(self, plans: Sequence[BatchPlan], step: int) -> TokenBatch:
        micro_batches = self._spec.accumulation_steps
        batches = [
            plan.batch(step * micro_batches + index) for plan in plans for index in range(micro_batches)
        ]
        return batches[0] if len(batches) == 1 else concatenate_batches(batches, pad_token_id=_PAD_TOKEN_ID)

    def _step(self, step: int, batch: TokenBatch) -> float:
        num_tokens = batch.num_label_tokens
        if num_tokens == 0:
            return math.nan
        rate = learning_rate(self._spec.learning_rate, step=step, total_steps=self._total_steps)
        set_learning_rate(self._optimizer, rate)
        self._optimizer.zero_grad(set_to_none=True)
        self._key = StepKey(self._spec.seed, 1 + step // self._spec.steps_per_round, step, 0)
        self._seed("bottom", self._spec.silos[0].name)
        loss = self._forward(batch, labels=batch.labels_BT, num_items_in_batch=torch.tensor(num_tokens)).loss
        factor = 1.0 if self._scale is None else 2.0**self._scale.exponent
        (loss * factor).backward()
        for value in self._parameters:
            if value.grad is not None and factor != 1.0:
                value.grad.div_(factor)
        taken = math.isfinite(self._clip())
        if taken:
            self._optimizer.step()
        if self._scale is not None:
            self._scale = self._scale.after(finite=taken)
        return float(loss.detach())

    def _forward(self, batch: TokenBatch, **arguments: Tensor) -> Any:
        mask = batch.layout.attention_mask()
        with computing_in(self._spec.precision, self._device):
            return self._model(
                input_ids=batch.input_ids_BT, attention_mask=mask, use_cache=False, **arguments
            )

    def _clip(self) -> float:
        """Clip as the job says and return the global gradient norm."""
        if self._spec.max_grad_norm is None:
            gradients = [value.grad for value in self._parameters if value.grad is not None]
            return float(torch.nn.utils.get_total_norm(gradients))
        return float(torch.nn.utils.clip_grad_norm_(self._parameters, self._spec.max_grad_norm))

    def _seed(self, segment: Segment, party: str) -> None:
        if self._key is not None:
            torch.manual_seed(dropout_seed(self._key, segment, party))

    def _seed_at_cuts(self, cut: Cut) -> None:
        """Re-seed where the split run changes parties; with one silo both then draw the same masks."""
        base = getattr(self._model, "get_base_model", lambda: self._model)()
        family = FAMILIES[base.config.model_type]
        layers = base.get_submodule(f"{family.decoder}.{family.layers}")
        silo = self._spec.silos[0].name
        layers[cut.bottom_layers].register_forward_pre_hook(lambda *_: self._seed("trunk", TRUNK_PARTY))
        # After the trunk's last layer, not before the top's first: the top may have no layer.
        last_of_trunk = layers[cut.num_layers - cut.top_layers - 1]
        last_of_trunk.register_forward_hook(lambda *_: self._seed("top", silo))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one request file; returns the exit code that :mod:`splitlearn.errors` documents."""
    parser = argparse.ArgumentParser(description="Train the centralised reference of a job.")
    parser.add_argument("request", type=Path, help="JSON file to read")
    parser.add_argument("result", type=Path, help="JSON file to write")
    paths = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    try:
        request = read_document(paths.request, CentralisedRequest)
        torch.set_num_threads(request.threads)
        result = train_centralised(request.spec, request.model_folder, request.silos, on_step=_print_step)
        write_document(paths.result, _answer(result))
    except TrunklineError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


def _answer(result: CentralisedResult) -> CentralisedAnswer:
    return CentralisedAnswer(
        losses=result.losses,
        eval_loss=result.eval_loss,
        seconds_per_step=result.seconds_per_step,
        silos=tuple(
            SiloAnswer(
                name=name,
                eval_loss=evaluation.loss.mean,
                num_tokens=evaluation.loss.num_tokens,
                accuracy=evaluation.accuracy,
                scores=evaluation.scores,
            )
            for name, evaluation in result.evaluations
        ),
    )


def _print_step(report: StepReport) -> None:
    loss = report.loss if math.isfinite(report.loss) else None
    sys.stdout.write(json.dumps({"step": report.step, "loss": loss, "seconds": report.seconds}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
