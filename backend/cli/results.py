"""``trunkline jobs results``: what each silo told last of its held-out rows, and what its rows lost."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from backend.cli.remote import Remote, path

_SILO = "silo:"
_ROWS = ("rows", "rows_truncated", "tokens_cut_left", "tokens_cut_right", "rows_dropped", "min_metric_rows")
_WITHHELD = "eval_withheld_below"
_EVALUATION = (
    *("eval_rows", "eval_loss", "accuracy", "f1", "f1_macro", "exact_match", "token_f1"),
    *("rouge_1", "rouge_2", "rouge_l", "bleu_4"),
)
_COUNTS = frozenset({*_ROWS, "eval_rows", _WITHHELD})
_OF_AN_ANSWER = ("precision", "recall", "f1")
_MAX_ANSWERS = 32
"""An agent tells of each answer where there are no more; docs/what-the-control-plane-learns.md."""

COLUMNS = ["silo", "round", *_EVALUATION, *_ROWS, "withheld"]
ANSWER_COLUMNS = ["silo", "answer", *_OF_AN_ANSWER]


def results(remote: Remote, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each silo of a job; what it has not told is None.

    Args:
        remote: The control plane.
        job: As it tells of the job.
    """
    answers = list(job["spec"]["task"].get("answers", {}))[:_MAX_ANSWERS]
    numbers = {
        name: _latest(remote, job["id"], name)
        for name in (*_ROWS, *_EVALUATION, _WITHHELD, *_names_of(answers))
    }
    return [_row(silo["name"], numbers, answers) for silo in job["silos"]]


def answer_rows(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each silo and answer that it has told of."""
    for row in found:
        for answer, scores in row["answers"].items():
            yield {"silo": row["silo"], "answer": answer, **scores}


def _row(
    silo: str, numbers: Mapping[str, Mapping[str, tuple[int, float]]], answers: list[str]
) -> dict[str, Any]:
    def told(name: str, *, since: int = 0) -> float | None:
        number, value = numbers[name].get(silo, (-1, None))
        if value is None or number < since:
            return None
        return int(value) if name in _COUNTS else value

    # The newest evaluation counts, also where it says nothing but that it is withheld.
    newest = max(numbers[name].get(silo, (-1, 0.0))[0] for name in ("eval_rows", "eval_loss", _WITHHELD))
    below = told(_WITHHELD, since=max(newest, 0))
    scores = {
        answer: {name: told(f"{name}_{index}", since=newest) for name in _OF_AN_ANSWER}
        for index, answer in enumerate(answers)
    }
    return {
        "silo": silo,
        "round": newest if newest >= 0 else None,
        **{name: told(name, since=newest) for name in _EVALUATION},
        **{name: told(name) for name in _ROWS},
        "withheld": f"fewer than {below} rows" if below is not None else None,
        "answers": {
            answer: found
            for answer, found in scores.items()
            if any(value is not None for value in found.values())
        },
    }


def _names_of(answers: list[str]) -> list[str]:
    return [f"{name}_{index}" for index in range(len(answers)) for name in _OF_AN_ANSWER]


def _latest(remote: Remote, job_id: str, name: str) -> dict[str, tuple[int, float]]:
    """Return the newest round's number of this name, by silo."""
    found: dict[str, tuple[int, float]] = {}
    after: str | None = "0"
    while after is not None:
        query = urlencode({"name": name, "after": after})
        page = remote.call("GET", f"{path('jobs', job_id, 'metrics')}?{query}")
        for row in page["items"]:
            silo = row["party"].removeprefix(_SILO)
            if row["party"].startswith(_SILO) and row["round"] >= found.get(silo, (-1, 0.0))[0]:
                found[silo] = (row["round"], row["value"])
        after = page["next"]
    return found
