"""The demo's own task: triage notes of hospitals that may not share them. Every word is made up here.

A note says who came, with which complaint, in what state and with which temperature; the answer says how
urgent it is, which department takes over and which two things it does first. The rule is one for all
hospitals: the state gives the urgency, one step more for some complaints and for the very young and old;
the complaint gives department and actions; fever adds an isolation room. Which two of the department's
four actions come first is the nurse's choice, so no model reaches a loss of zero.

What differs is how many notes a hospital has, which complaints it mostly sees, and how it writes them
down. So each can learn from the others what it seldom sees itself. No medical advice.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from splitlearn.errors import DataError
from splitlearn.spec import CausalLmTask, ChoiceTask, SftTask
from splitlearn.tasks import Record, Task, keyed_random

URGENCIES = ("green", "yellow", "orange", "red")

DEMO_TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "causal-lm": CausalLmTask(text="{note}\nTriage: {triage}"),
        "sft": SftTask(prompt="{note}\nTriage:", answer=" {triage}"),
        "choice": ChoiceTask(
            prompt="{note}\nUrgency:",
            label="urgency",
            answers={urgency: f" {urgency}" for urgency in URGENCIES},
        ),
    }
)
"""The demo's tasks by their kind; ``sft`` is the one that runs without flags."""

MAX_SILOS = 64
_SIZES = (900, 420, 240)
_SMALLEST_SIZE = 60
_SHRINKS_BY = 0.75
_YOUNG_YEARS, _OLD_YEARS = 2, 85
_FEVER_CELSIUS = 38.5


@dataclass(frozen=True)
class DemoSilo:
    """One hospital of the demo.

    Attributes:
        name: The silo's name.
        records: Its notes, with the columns ``note``, ``triage`` and ``urgency``.
    """

    name: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class _Complaint:
    words: str
    department: str
    escalates: bool = False


@dataclass(frozen=True)
class _Patient:
    age: int
    is_female: bool
    complaint: _Complaint
    hours: int
    level: int
    state: str
    celsius: float


_ACTIONS = {
    "heart": ("heart trace", "two blood lines", "oxygen mask", "rhythm watch"),
    "bones": ("splint", "picture of the limb", "pain relief", "call the surgeon"),
    "skin": ("cool water", "clean dressing", "tetanus shot", "stitches"),
    "children": ("weigh the child", "sips of water", "look into the ears", "blood culture"),
    "lungs": ("inhaler", "chest picture", "sit upright", "oxygen mask"),
    "nerves": ("head scan", "sugar test", "light in the eyes", "name the day"),
    "belly": ("belly scan", "nothing to eat", "urine test", "drip"),
}

_COMPLAINTS = (
    _Complaint("chest pain", "heart", escalates=True),
    _Complaint("racing heart", "heart"),
    _Complaint("swollen legs", "heart"),
    _Complaint("fall on the hip", "bones"),
    _Complaint("twisted ankle", "bones"),
    _Complaint("crushed hand", "bones", escalates=True),
    _Complaint("burned arm", "skin"),
    _Complaint("dog bite", "skin"),
    _Complaint("rash and stiff neck", "children", escalates=True),
    _Complaint("barking cough", "children"),
    _Complaint("ear ache", "children"),
    _Complaint("wheezing", "lungs"),
    _Complaint("coughing blood", "lungs", escalates=True),
    _Complaint("slurred speech", "nerves", escalates=True),
    _Complaint("sudden confusion", "nerves"),
    _Complaint("worst headache ever", "nerves", escalates=True),
    _Complaint("belly cramps", "belly"),
    _Complaint("black stool", "belly", escalates=True),
)

_STATES = (
    ("walks and talks", "jokes with the nurse", "ate and drank today"),
    ("is pale", "slept badly", "holds on to the chair"),
    ("breathes fast", "cannot stand", "sweats and trembles"),
    ("is hard to wake", "has blue lips", "has a thready pulse"),
)


def _jotted(patient: _Patient) -> str:
    sex = "f" if patient.is_female else "m"
    short = patient.complaint.words.replace(" and ", " + ")
    return f"{patient.age}{sex} {short} {patient.hours}h, T{patient.celsius}, {patient.state}"


def _told(patient: _Patient) -> str:
    child, pronoun = ("girl", "She") if patient.is_female else ("boy", "He")
    return (
        f"A {child} of {patient.age} came with {patient.complaint.words} for {patient.hours} hours. "
        f"{pronoun} {patient.state}. Temperature {patient.celsius}."
    )


def _form(patient: _Patient) -> str:
    sex = "woman" if patient.is_female else "man"
    return (
        f"{sex} | {patient.age} years | {patient.celsius} C | {patient.complaint.words}, {patient.hours} h | "
        f"{patient.state}"
    )


@dataclass(frozen=True)
class _Hospital:
    name: str
    mix: tuple[int, ...]  # how often each complaint comes, in the order of _COMPLAINTS
    states: tuple[int, ...]  # how often each state comes, from mild to grave
    ages: tuple[int, int]
    write: Callable[[_Patient], str]


_HOSPITALS = (
    _Hospital(
        "harbour", (9, 7, 5, 4, 7, 7, 5, 3, 1, 1, 1, 2, 3, 2, 1, 3, 3, 2), (2, 3, 3, 2), (16, 80), _jotted
    ),
    _Hospital(
        "hillside", (1, 1, 1, 1, 5, 2, 5, 6, 7, 9, 9, 7, 1, 1, 1, 1, 6, 1), (5, 4, 2, 1), (0, 15), _told
    ),
    _Hospital(
        "riverside", (4, 4, 7, 9, 1, 1, 1, 1, 1, 1, 1, 4, 4, 7, 9, 3, 2, 5), (1, 3, 4, 2), (66, 97), _form
    ),
)


def demo_silos(num_silos: int = 3, *, seed: int = 0) -> tuple[DemoSilo, ...]:
    """Make the notes of some hospitals: 900, 420, 240 rows, and then ever fewer.

    Three hospitals differ in content and style; further ones are each like one of these, with notes of
    their own. The same seed gives the same notes, however many hospitals are asked for.

    Raises:
        DataError: ``num_silos`` is out of range.
    """
    if not 1 <= num_silos <= MAX_SILOS:
        raise DataError(
            f"num_silos: {num_silos} hospitals are not served by the demo; ask for 1 to {MAX_SILOS}"
        )
    return tuple(_silo(index, seed=seed) for index in range(num_silos))


def _silo(index: int, *, seed: int) -> DemoSilo:
    hospital = _HOSPITALS[index % len(_HOSPITALS)]
    generation = index // len(_HOSPITALS) + 1
    name = hospital.name if generation == 1 else f"{hospital.name}-{generation}"
    chance = keyed_random("demo", seed, name)
    rows = [_row(hospital, chance) for _ in range(_num_rows(index))]
    return DemoSilo(name, tuple(Record(row, f"demo:{name}", line) for line, row in enumerate(rows, 1)))


def _num_rows(index: int) -> int:
    further = max(index + 1 - len(_SIZES), 0)
    return max(_SMALLEST_SIZE, int(_SIZES[min(index, len(_SIZES) - 1)] * _SHRINKS_BY**further))


def _row(hospital: _Hospital, chance: random.Random) -> dict[str, object]:
    patient = _patient(hospital, chance)
    urgency = _urgency(patient)
    actions = list(_ACTIONS[patient.complaint.department])
    first = actions.pop(_drawn((4, 3, 2, 1), chance))
    second = actions.pop(_drawn((3, 2, 1), chance))
    isolation = ", own room" if patient.celsius >= _FEVER_CELSIUS else ""
    triage = f"{urgency}, {patient.complaint.department} team: {first}, then {second}{isolation}"
    return {"note": hospital.write(patient), "triage": triage, "urgency": urgency}


def _patient(hospital: _Hospital, chance: random.Random) -> _Patient:
    youngest, oldest = hospital.ages
    level = _drawn(hospital.states, chance)
    return _Patient(
        age=youngest + int(chance.random() * (oldest - youngest + 1)),
        is_female=bool(_drawn((1, 1), chance)),
        complaint=_COMPLAINTS[_drawn(hospital.mix, chance)],
        hours=1 + int(chance.random() * 24),
        level=level,
        state=_STATES[level][_drawn((1, 1, 1), chance)],
        celsius=round(36 + 4 * chance.random(), 1),
    )


def _urgency(patient: _Patient) -> str:
    is_frail = patient.age <= _YOUNG_YEARS or patient.age >= _OLD_YEARS
    level = patient.level + patient.complaint.escalates + is_frail
    return URGENCIES[min(level, len(URGENCIES) - 1)]


def _drawn(weights: tuple[int, ...], chance: random.Random) -> int:
    left = chance.random() * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1
