"""The page ``docs/what-leaves.md``, written from the schema itself.

``python -m splitlearn.wire.catalogue > docs/what-leaves.md`` writes it; a test compares.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields

from splitlearn.wire.envelope import ENVELOPE_BYTES, TAG_BYTES, Direction, Envelope
from splitlearn.wire.messages import CLOSED_LIST, MessageType, Outcome
from splitlearn.wire.schema import Listed, listed_fields

_INTRODUCTION = """\
# What leaves

Written by `python -m splitlearn.wire.catalogue > docs/what-leaves.md`; do not edit. A test compares this
page with the schema, and another that nothing outside the schema can be encoded.

This is the closed list of what a silo and the trunk say to each other during a job: every message type
and every field. There is no field for text, for a token or for a label: each is a number, a member of an
enumeration, a list of numbers, a tensor, a key or a signature, with one stated meaning. What a silo's
blocks learned has one field, `SumPart.words`, used by jobs with `silo_blocks: averaged` alone, and is masked
there. A type or field that is not on this list cannot be encoded, and is refused where it arrives.

The list says what is sent, not what can be concluded. Activations and gradients are functions of the
text and of its labels, and whoever runs the trunk and knows the base weights can recover most of both;
`docs/threat-model.md` says how much was recovered and what lowers it.

## Who can read it

| part | silo that sent it, trunk's worker | relay, control plane, network, other silos |
|---|---|---|
| envelope | yes | yes, but not change it: the seal covers it |
| messages | yes | no: sealed from end to end between this silo and the worker |

The handshake before the first message carries keys, certificates, names, the specification's digest and
the resume points; `docs/protocol.md` lists it byte by byte.
"""

_ENVELOPE = f"""\
## In the clear: the envelope of every frame

{ENVELOPE_BYTES} bytes before each frame's body. Besides these fields a relay sees when each frame comes and
goes. A message's size follows from row lengths, hidden size and codec, so a relay that knows the model
knows how many tokens each micro-batch has.

| field | what it is | what it may reveal to the relay |
|---|---|---|
| `magic` | `TRK1` | that this is Trunkline |
"""

_ENVELOPE_FIELDS: Mapping[str, tuple[str, str]] = {
    "kind": ("handshake message or sealed fragment", "reconnections"),
    "direction": ("who sent it", "who waits for whom: timing of either side's computation"),
    "replica": ("which of the job's trunks", "a place in the job's public plan"),
    "body_bytes": (f"bytes that follow, {TAG_BYTES} of them the seal's tag", "the fragment's size"),
    "epoch": ("the lease under which the trunk runs", "how often the trunk was placed anew"),
    "job_tag": ("hash of the job's id", "which frames belong together; the job, to whoever knows its id"),
    "round": ("the round", "progress"),
    "step": ("the global step", "progress; how long a step takes"),
    "counter": ("frames sealed before in this session", "the traffic's amount"),
    "message_seq": ("number of the message in this job", "how many messages a step has; what is sent again"),
    "fragment_offset": ("where the fragment begins in its message", "nothing more"),
    "message_bytes": ("size of the whole message", "tokens in the micro-batch, see above"),
}

_DIRECTIONS = {
    Direction.SILO_TO_TRUNK: "From the silo to the trunk",
    Direction.TRUNK_TO_SILO: "From the trunk to the silo",
}

_PREFIX = """\
## In every message

| field | kind | what it is | what it may reveal to its reader |
|---|---|---|---|
| `type` | u8 | the message's number below | nothing more |
| `ack` | u64 | number of the last message opened from the reader | that it arrived |
"""


def catalogue() -> str:
    """Return the whole page as Markdown."""
    parts = [_INTRODUCTION, _ENVELOPE + "\n".join(_envelope_rows()) + "\n", _PREFIX]
    for direction, heading in _DIRECTIONS.items():
        parts.append(f"## {heading}\n\nSealed: read by this silo and the trunk's worker only.\n")
        parts += (_message(listed) for listed in CLOSED_LIST if listed.direction is direction)
    parts.append(_section("Outcome, inside some of them", Outcome, listed_fields(Outcome), level=2))
    return "\n".join(parts)


def _envelope_rows() -> Iterator[str]:
    for field in fields(Envelope):
        what, reveals = _ENVELOPE_FIELDS[field.name]
        yield f"| `{field.name}` | {what} | {reveals} |"


def _message(listed: MessageType) -> str:
    return _section(f"{listed.cls.__name__} ({listed.number})", listed.cls, listed.fields, level=3)


def _section(title: str, cls: type, entries: Mapping[str, Listed], *, level: int) -> str:
    summary = (cls.__doc__ or "").splitlines()[0].replace("``", "`")
    rows = (
        f"| `{name}` | {entry.kind.label} | {entry.what} | {entry.reveals} |"
        for name, entry in entries.items()
    )
    head = "| field | kind | what it is | what it may reveal to its reader |\n|---|---|---|---|"
    return "\n".join([f"{'#' * level} {title}", "", summary, "", head, *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(catalogue())
