"""What a specification says where its author left it open, filled in once: when the job is made. Torch-free.

:class:`~splitlearn.spec.JobSpec` itself reads a missing ``silo_blocks`` as ``frozen``, as it always has: a
document that is stored or signed means what it meant. Whoever makes a job of what a person wrote (the REST
API, the demo, a comparison) fills it in here, and the canonical bytes state it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from splitlearn.errors import SpecError
from splitlearn.spec import MIN_SILOS_AVERAGED, JobSpec, LoraAdapter

_BLOCKS = "silo_blocks"
_SCHEDULE = "schedule"
_Parse = Callable[[Mapping[str, Any]], JobSpec]


@dataclass(frozen=True, slots=True)
class Filled:
    """A specification with nothing left open but a schedule ``auto``.

    Attributes:
        spec: The job.
        notes: What its author should know of it, a sentence each: what was filled in otherwise than usual,
            and what is allowed but costs something.
    """

    spec: JobSpec
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BeginsWith:
    """What a job has that begins at an earlier one's result.

    Attributes:
        silo_blocks: The earlier job's.
        why_unequal: Why the silos' blocks differ at the beginning, so that they cannot be averaged; empty
            where they are equal.
    """

    silo_blocks: str
    why_unequal: str = ""


def fill_open_fields(
    fields: Mapping[str, Any],
    *,
    on_platform: bool,
    parse: _Parse = JobSpec.parse,
    begins_with: BeginsWith | None = None,
) -> Filled:
    """Parse what a person wrote; 3 silos or more average their blocks unless it says otherwise.

    Where averaging is not served with what else the job asks for, the blocks stay ``frozen``, and a note says
    why: a specification that says nothing of silo blocks is never refused for them.

    Args:
        fields: Of the specification, as written.
        on_platform: Whether the platform's processes run the job; they may serve less than one process.
        parse: Reads the fields.
        begins_with: With ``start_from``, what the earlier job has, where that is known: silo blocks that are
            left open are the same.

    Raises:
        SpecError: A field is wrong.
    """
    if _BLOCKS in fields:
        return _noted(parse(fields))
    if begins_with is not None:
        return _as_it_began(fields, begins_with, on_platform=on_platform, parse=parse)
    if not _has_enough_silos(fields):
        return _noted(parse(fields))
    if fields.get("start_from") is not None:
        return _stays_as_it_was(
            parse(fields), "it begins at an earlier result, where the silos' blocks may differ"
        )
    problem, averaged = _averaged(fields, on_platform=on_platform, parse=parse)
    if averaged is not None:
        return _noted(averaged)
    # Whatever is wrong besides is told of what was written.
    return _stays_as_it_was(parse(fields), problem)


def _as_it_began(
    fields: Mapping[str, Any], begins_with: BeginsWith, *, on_platform: bool, parse: _Parse
) -> Filled:
    if begins_with.silo_blocks != "averaged":
        return _noted(parse({**fields, _BLOCKS: begins_with.silo_blocks}))
    problem, averaged = begins_with.why_unequal, None
    if not problem:
        problem, averaged = _averaged(fields, on_platform=on_platform, parse=parse)
    if averaged is not None:
        return _noted(averaged)
    why = "; ".join(problem.splitlines())
    note = f"silo_blocks: 'local', not 'averaged' as in the job that it begins at: {why}"
    return _noted(parse({**fields, _BLOCKS: "local"}), note)


def _has_enough_silos(fields: Mapping[str, Any]) -> bool:
    silos = fields.get("silos")
    return isinstance(silos, list | tuple) and len(silos) >= MIN_SILOS_AVERAGED


def _averaged(fields: Mapping[str, Any], *, on_platform: bool, parse: _Parse) -> tuple[str, JobSpec | None]:
    """Return the job with averaged blocks, or why it cannot have them."""
    try:
        spec = parse({**fields, _BLOCKS: "averaged"})
        # Left open, the schedule becomes one that is served.
        closed = {_SCHEDULE: "client-batching", "replicas": 1} if spec.schedule == "auto" else {}
        spec.model_copy(update=closed).refuse_unserved(on_platform=on_platform)
    except SpecError as error:
        return error.message, None
    return "", spec


def _stays_as_it_was(spec: JobSpec, problem: str) -> Filled:
    usual = f"not 'averaged' as usual with {MIN_SILOS_AVERAGED} silos and more"
    why = "; ".join(problem.splitlines())
    return _noted(spec, f"silo_blocks: {spec.silo_blocks!r}, {usual}: {why}")


def _noted(spec: JobSpec, *notes: str) -> Filled:
    return Filled(spec, (*notes, *_worth_knowing(spec)))


def _worth_knowing(spec: JobSpec) -> Iterator[str]:
    if spec.silo_blocks == "averaged" and isinstance(spec.adapter, LoraAdapter) and not spec.adapter.freeze_a:
        yield _LORA_AVERAGED
    asked = spec.evaluation
    after = asked.evaluations_before_the_end(spec.rounds)
    could_be_worse = after if asked.before_training else max(0, after - 1)
    if asked.patience_evaluations > could_be_worse:
        sooner = "evaluate sooner (every_rounds), or ask for more rounds"
        remedy = f"lower it, {sooner}" if could_be_worse else sooner
        yield (
            f"evaluation.patience_evaluations: {asked.patience_evaluations} never ends this job early: "
            f"between its first evaluation and its last there {_number_of(could_be_worse)}; {remedy}"
        )


def _number_of(evaluations: int) -> str:
    return "is 1 other" if evaluations == 1 else f"are {evaluations or 'no'} others"


_LORA_AVERAGED = (
    "adapter: with silo_blocks 'averaged' the halves A and B of LoRA are averaged each apart, which is not "
    "the average of the products B times A that the silos trained; adapter.freeze_a true trains B alone, "
    "whose average is exact (docs/results.md has both measured)"
)
