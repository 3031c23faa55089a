"""``trunkline jobs results``: what each silo tells of its held-out rows, and what its rows lost."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from backend.cli.remote import Remote, path

_SILO = "silo:"
_ROWS = ("rows", "rows_truncated", "tokens_cut_left", "tokens_cut_right", "rows_dropped", "min_metric_rows")
_WITHHELD = "eval_withheld_below"
_IS_EVALUATION = ("eval_rows", "eval_loss", _WITHHELD)
_WORKER, _BEST_ROUND = "worker:", "best_round"
_EVALUATION = (
    *("eval_rows", "eval_tokens", "eval_loss", "accuracy", "f1", "f1_macro", "exact_match", "token_f1"),
    *("rouge_1", "rouge_2", "rouge_l", "bleu_4"),
)
_SHARES = tuple(name for name in _EVALUATION if name not in {"eval_rows", "eval_tokens", "eval_loss"})
_COUNTS = frozenset({*_ROWS, "eval_rows", "eval_tokens", _WITHHELD})
_ALWAYS = frozenset({"silo", "round", "eval_loss"})
_OF_AN_ANSWER = ("precision", "recall", "f1")
_MAX_ANSWERS = 32
"""An agent tells of each answer where there are no more; docs/what-the-control-plane-learns.md."""

COLUMNS = ["silo", "round", *_EVALUATION, "eval_loss_before", *_ROWS, "withheld"]
ANSWER_COLUMNS = ["silo", "round", "answer", *_OF_AN_ANSWER]

_Told = Mapping[int, float]
"""What a party told under one name, by round."""


def results(remote: Remote, job: Mapping[str, Any], *, every_round: bool = False) -> list[dict[str, Any]]:
    """Return one row for each silo of a job; what it has not told is None.

    The evaluation is that of the best round, where the job keeps that one; else the newest.

    Args:
        remote: The control plane.
        job: As it tells of the job.
        every_round: One row for each evaluation instead.
    """
    answers = list(job["spec"]["task"].get("answers", {}))[:_MAX_ANSWERS]
    told = {
        name: _told(remote, job["id"], name, of=_SILO)
        for name in (*_ROWS, *_EVALUATION, _WITHHELD, *_names_of(answers))
    }
    best = best_round(remote, job)
    return [
        _row(silo["name"], number, told, answers)
        for silo in job["silos"]
        for number in _shown(_evaluated(silo["name"], told), best=best, every_round=every_round)
    ]


def answer_rows(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each silo and answer that it has told of."""
    for row in found:
        for answer, scores in row["answers"].items():
            yield {"silo": row["silo"], "round": row["round"], "answer": answer, **scores}


def overall(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each round over all silos that told: losses by label tokens, shares by rows."""
    for number in sorted({row["round"] for row in found if row["eval_loss"] is not None}):
        told = [row for row in found if row["round"] == number and row["eval_loss"] is not None]
        yield {
            **dict.fromkeys(COLUMNS),
            "silo": "all that tell",
            "round": number,
            **{name: sum(row[name] or 0 for row in told) for name in ("eval_rows", "eval_tokens")},
            "eval_loss": _mean(told, "eval_loss", by="eval_tokens"),
            "eval_loss_before": _mean(told, "eval_loss_before", by="eval_tokens"),
            **{name: _mean(told, name, by="eval_rows") for name in _SHARES},
        }


def _mean(rows: list[dict[str, Any]], name: str, *, by: str) -> float | None:
    pairs = [(row[name], row[by]) for row in rows if row[name] is not None and row[by]]
    weight = sum(each for _, each in pairs)
    return sum(value * each for value, each in pairs) / weight if weight else None


def told_columns(found: list[dict[str, Any]]) -> list[str]:
    """Return the columns in which some silo told something, and those that every table has."""
    told = {name for row in found for name, value in row.items() if value is not None}
    return [name for name in COLUMNS if name in told or name in _ALWAYS]


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as people read it; scripts get every digit."""
    return {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()}


def _evaluated(silo: str, told: Mapping[str, Mapping[str, _Told]]) -> list[int]:
    """Return the rounds of a silo's evaluations, those too of which it says only that they are withheld."""
    return sorted({number for name in _IS_EVALUATION for number in told[name].get(silo, {})})


def _shown(evaluated: list[int], *, best: int | None, every_round: bool) -> list[int] | list[None]:
    if not evaluated:
        return [None]
    if every_round:
        return evaluated
    return [best] if best in evaluated else evaluated[-1:]


def _row(
    silo: str, number: int | None, told: Mapping[str, Mapping[str, _Told]], answers: list[str]
) -> dict[str, Any]:
    def at(name: str) -> float | None:
        value = told[name].get(silo, {}).get(-1 if number is None else number)
        return int(value) if value is not None and name in _COUNTS else value

    def last(name: str) -> int | None:
        values = told[name].get(silo, {})
        return int(values[max(values)]) if values else None

    below = at(_WITHHELD)
    scores = {
        answer: {name: at(f"{name}_{index}") for name in _OF_AN_ANSWER}
        for index, answer in enumerate(answers)
    }
    return {
        "silo": silo,
        "round": number,
        **{name: at(name) for name in _EVALUATION},
        "eval_loss_before": told["eval_loss"].get(silo, {}).get(0),
        **{name: last(name) for name in _ROWS},
        "withheld": f"fewer than {below} rows" if below is not None else None,
        "answers": {
            answer: found
            for answer, found in scores.items()
            if any(value is not None for value in found.values())
        },
    }


def _names_of(answers: list[str]) -> list[str]:
    return [f"{name}_{index}" for index in range(len(answers)) for name in _OF_AN_ANSWER]


def best_round(remote: Remote, job: Mapping[str, Any]) -> int | None:
    """Return the best round, as a worker told last; None where the job does not keep it, or none is known."""
    if not job["spec"]["evaluation"].get("keep_best"):
        return None
    parties = _told(remote, job["id"], _BEST_ROUND, of=_WORKER).values()
    found = [told for rounds in parties for told in rounds.items()]
    return int(max(found)[1]) if found else None


def _told(remote: Remote, job_id: str, name: str, *, of: str) -> dict[str, dict[int, float]]:
    """Return the numbers of this name, by party and round."""
    found: dict[str, dict[int, float]] = {}
    after: str | None = "0"
    while after is not None:
        query = urlencode({"name": name, "after": after})
        page = remote.call("GET", f"{path('jobs', job_id, 'metrics')}?{query}")
        for row in page["items"]:
            if row["party"].startswith(of):
                found.setdefault(row["party"].removeprefix(of), {})[row["round"]] = row["value"]
        after = page["next"]
    return found
