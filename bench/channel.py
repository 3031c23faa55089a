"""How fast do the sealed channel and the codecs take a 4 MiB frame from one party to the other?

For every codec: seal, cut the frame from the stream, open, and decode the message to fp32 (how fast it is
encoded stands beside it). In the same run, over the same bytes: AES-256-GCM alone, into the same buffers,
and copying memory once. All in one thread. GB/s are 10^9 bytes of the frame's plaintext per second, from
the median of many repetitions in turn; the ratio is our time over that of AES-GCM alone.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.machine import describe_machine, stay_on_cores
from bench.tables import Row, json_path, positive, print_table, say, write_json
from splitlearn.channel import ResumePoint, SealedSession, SeenHandshakes, SiloHandshake, TrunkHandshake
from splitlearn.simulation.roster import WORKER_NAME, enrol
from splitlearn.spec import JobSpec, SiloSpec
from splitlearn.wire import (
    ENVELOPE_BYTES,
    TAG_BYTES,
    Codec,
    Direction,
    Frame,
    FrameDecoder,
    Hidden,
    Limits,
    decode_message,
    encode_message,
    encoded_bytes,
)

_DIM = 1024
_NONCE_BYTES = 12
_INTERRUPTED = 130
_COLUMNS = ("codec", "frame MiB", "encode", "seal + open + decode", "AES-GCM", "copy", "ratio", "to copy")
_SILO = "silo"


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends of one sealed session."""

    silo: SealedSession
    trunk: SealedSession


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(arguments)
    stay_on_cores(1)
    limits = Limits()
    try:
        rows = [
            measure(codec, max_frame_bytes=limits.max_frame_bytes, repetitions=options.repetitions)
            for codec in options.codec or Codec
        ]
    except KeyboardInterrupt:
        say("interrupted")
        return _INTERRUPTED
    print_table("One frame from party to party, GB/s", _COLUMNS, [_cells(row) for row in rows])
    if options.json is not None:
        write_json(options.json, rows=rows, machine=describe_machine(threads=1))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.channel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--codec", type=Codec, choices=list(Codec), action="append", help="all by default")
    parser.add_argument("--repetitions", type=positive, default=200, help="of each operation (default 200)")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    return parser.parse_args(arguments)


def measure(codec: Codec, *, max_frame_bytes: int, repetitions: int) -> dict[str, Any]:
    """Return one row, for the largest message in this codec that one frame holds."""
    limits = Limits(max_frame_bytes=max_frame_bytes)
    message = _message(codec, limits)
    plaintext = encode_message(message, codec=codec, limits=limits)
    seconds = _medians(
        {
            "encode": lambda: encode_message(message, codec=codec, limits=limits),
            "ours": _passage(session_pair(), plaintext, limits),
            "aes_gcm": _aes_gcm(plaintext),
            "copy": _copy(plaintext),
        },
        repetitions,
    )
    gigabytes = len(plaintext) / 1e9
    return {
        "codec": codec.value,
        "frame_bytes": len(plaintext) + ENVELOPE_BYTES + TAG_BYTES,
        "ratio": seconds["ours"] / seconds["aes_gcm"],
        "ratio_to_copy": seconds["ours"] / seconds["copy"],
        "encode_gb_per_second": gigabytes / seconds["encode"],
        "seal_open_decode_gb_per_second": gigabytes / seconds["ours"],
        "aes_gcm_gb_per_second": gigabytes / seconds["aes_gcm"],
        "copy_gb_per_second": gigabytes / seconds["copy"],
    }


def session_pair() -> Pair:
    """Return both ends of a session after a real handshake."""
    spec = JobSpec(model="none", silos=(SiloSpec(name=_SILO, dataset="none"),))
    roster = enrol(spec)
    terms, now = roster.terms[_SILO], datetime.now(tz=UTC)
    silo = SiloHandshake(
        terms,
        identity=roster.silos[_SILO],
        trust=roster.trust,
        resume=ResumePoint(last_opened=0),
        now=now,
        seen=SeenHandshakes(),
    )
    trunk = TrunkHandshake(
        terms,
        identity=roster.worker,
        trust=roster.trust,
        resume=ResumePoint(last_opened=0),
        now=now,
        seen=SeenHandshakes(),
    )
    assert terms.worker_name == WORKER_NAME
    reply = trunk.receive_hello(_frame(silo.hello()))
    confirm = silo.receive_reply(_frame(reply))
    return Pair(silo.established().session, trunk.receive_confirm(_frame(confirm)).session)


def _frame(data: bytes | bytearray, limits: Limits | None = None) -> Frame:
    (frame,) = FrameDecoder(limits or Limits()).feed(data)
    return frame


def _message(codec: Codec, limits: Limits) -> Hidden:
    """Return normally distributed values, as many rows as one frame holds."""
    room = limits.max_fragment_bytes - 4096  # for the message's own fields
    num_rows = max(1, room // (encoded_bytes((64, _DIM), codec) // 64 + 1))
    values_ND = np.random.default_rng(0).standard_normal((num_rows, _DIM), dtype=np.float32)
    return Hidden(micro_batch=0, hidden=values_ND)


def _passage(pair: Pair, plaintext: bytearray, limits: Limits) -> Callable[[], object]:
    frame_bytes = bytearray(len(plaintext) + ENVELOPE_BYTES + TAG_BYTES)
    opened = bytearray(len(plaintext))

    def run() -> object:
        pair.trunk.seal_into(plaintext, frame_bytes, round_number=1, step=0, message_seq=1)
        pair.silo.open_into(_frame(frame_bytes, limits), opened)
        return decode_message(opened, direction=Direction.TRUNK_TO_SILO, limits=limits)

    return run


def _aes_gcm(plaintext: bytearray) -> Callable[[], object]:
    cipher = AESGCM(AESGCM.generate_key(256))
    sealed, opened = bytearray(len(plaintext) + TAG_BYTES), bytearray(len(plaintext))
    header, nonce = bytes(ENVELOPE_BYTES), bytes(_NONCE_BYTES)

    def run() -> object:
        cipher.encrypt_into(nonce, plaintext, header, sealed)
        return cipher.decrypt_into(nonce, sealed, header, opened)

    return run


def _copy(plaintext: bytearray) -> Callable[[], object]:
    source, target = memoryview(plaintext), memoryview(bytearray(len(plaintext)))

    def run() -> object:
        target[:] = source
        return target

    return run


def _medians(operations: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Time the operations in turn, so that whatever else the machine does falls on all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(repetitions):
        for name, operation in operations.items():
            start = time.perf_counter()
            operation()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _cells(row: Row) -> list[str]:
    speeds = ("encode", "seal_open_decode", "aes_gcm", "copy")
    return [
        row["codec"],
        f"{row['frame_bytes'] / (1 << 20):.2f}",
        *(f"{row[f'{name}_gb_per_second']:.2f}" for name in speeds),
        f"{row['ratio']:.2f}",
        f"{row['ratio_to_copy']:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
