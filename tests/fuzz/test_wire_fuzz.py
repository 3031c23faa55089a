"""Random and mutated bytes against everything that reads bytes; only ``WireError`` may come out.

Run it alone for longer: ``python tests/fuzz/test_wire_fuzz.py --seed 1 --iterations 1000000``. A finding
prints its seed and iteration, with which it comes back.
"""

import argparse
import contextlib
import random
import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from splitlearn.errors import WireError
from splitlearn.wire import (
    CLOSED_LIST,
    Activations,
    CachedHidden,
    CacheLimit,
    CacheRefused,
    Codec,
    Decode,
    Direction,
    Envelope,
    FrameDecoder,
    GradActivations,
    Hidden,
    Kind,
    Limits,
    Message,
    Outcome,
    PaddingSide,
    Phase,
    Prefill,
    Ready,
    SumConsent,
    SumConsents,
    SumKey,
    SumPart,
    SumRoster,
    SumTotal,
    TurnEnd,
    decode_message,
    encode_message,
)
from splitlearn.wire.codecs import decode, encode_into, encoded_bytes

LIMITS = Limits(max_frame_bytes=1 << 16, max_message_bytes=1 << 16, max_tensor_elements=1 << 16)
INTERESTING = (
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\0\1\0\0",
    b"\x7f\x80\0\0",
)
Target = Callable[[bytearray, random.Random], None]


def _messages() -> list[Message]:
    rows_ND = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    outcome = Outcome(norms_bottom=(0.5,), norms_trunk=(1.0, 2.0), norms_top=(), finite=True, num_tokens=4)
    key = SumKey(
        certificate=bytes(9), key=bytes(32), num_tokens=3, num_words=2, next_attempt=1, signature=bytes(64)
    )
    return [
        key,
        SumConsent(signature=bytes(64), seeds=(bytes(48),)),
        SumPart(offset=0, words=np.arange(2, dtype=np.uint32)),
        SumRoster(attempt=1, members=(key, key)),
        SumConsents(signatures=(bytes(64),), seed=bytes(48)),
        SumTotal(offset=0, words=np.arange(2, dtype=np.uint32)),
        Ready(last_round=1, served=frozenset(Phase)),
        TurnEnd(outcome=outcome, loss_sum=1.5, num_tokens=12),
        Hidden(micro_batch=0, hidden=rows_ND),
        Prefill(cache=1, capacity=9, lengths=(1, 3), hidden=rows_ND),
        Decode(cache=1, rows=(0, 1, 2, 4), positions=(3, 1, 4, 1), hidden=rows_ND),
        CachedHidden(cache=1, hidden=rows_ND),
        CacheRefused(cache=1, limit=CacheLimit.BYTES, asked=1 << 40, allowed=5),
        GradActivations(micro_batch=0, outcome=outcome, grad=rows_ND),
        Activations(
            phase=Phase.TRAIN,
            micro_batch=0,
            num_micro_batches=1,
            lengths=(1, 3),
            padding_side=PaddingSide.RIGHT,
            num_label_tokens=2,
            outcome=outcome,
            hidden=rows_ND,
        ),
    ]


def message_seeds() -> list[bytes]:
    """Return valid messages, in every codec."""
    return [bytes(encode_message(message, codec=codec)) for message in _messages() for codec in Codec]


def block_seeds() -> list[bytes]:
    """Return valid tensor blocks, in every codec and some shapes."""
    seeds = []
    for codec in Codec:
        for shape in ((5,), (0, 3), (2, 3), (1, 2, 3, 4)):
            buffer = bytearray(encoded_bytes(shape, codec))
            encode_into(np.ones(shape, np.float32), codec, buffer, limits=LIMITS)
            seeds.append(bytes(buffer))
    return seeds


def stream_seeds() -> list[bytes]:
    """Return streams of one and of three valid frames."""
    frames = [
        Envelope(
            kind=Kind.SEALED,
            direction=Direction.SILO_TO_TRUNK,
            body_bytes=size,
            epoch=1,
            job_tag=bytes(16),
            message_bytes=size,
        ).pack()
        + bytes(size)
        for size in (0, 1, 100)
    ]
    return [frames[1], b"".join(frames)]


def mutate(data: bytearray, rng: random.Random) -> None:
    """Change bytes in place, up to four times."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        piece = rng.choice((rng.choice(INTERESTING), rng.randbytes(rng.randint(0, 4))))
        kind = rng.randrange(5)
        if kind == 0:
            data[start : start + len(piece)] = piece
        elif kind == 1:
            data[start:start] = piece
        elif kind == 2:
            del data[start : start + rng.randint(0, 8)]
        elif kind == 3 and start < len(data):
            data[start] ^= 1 << rng.randrange(8)
        else:
            data[start:start] = data[start : start + rng.randint(0, 64)]


def read_message(data: bytearray, rng: random.Random) -> None:
    """Decode as a message; what is accepted must survive another round through fp32."""
    direction = rng.choice(tuple(Direction))
    message, ack = decode_message(bytes(data), direction=direction, limits=LIMITS)
    again = encode_message(message, codec=Codec.FP32, ack=ack)
    assert decode_message(again, direction=direction) == (message, ack)


def read_block(data: bytearray, rng: random.Random) -> None:
    """Decode as a tensor block; what is accepted must be encodable in every codec."""
    array = decode(data, limits=LIMITS)
    codec = rng.choice(tuple(Codec))
    encode_into(array, codec, bytearray(encoded_bytes(array.shape, codec)), limits=LIMITS)


def read_stream(data: bytearray, rng: random.Random) -> None:
    """Decode as a stream in random chunks; what is accepted must give back the stream."""
    decoder, frames, offset = FrameDecoder(LIMITS), [], 0
    while offset < len(data):
        end = offset + rng.choice((1, 7, 64, 200))
        frames += decoder.feed(bytes(data[offset:end]))
        offset = end
    decoder.finish()
    assert b"".join(frame.header + bytes(frame.body) for frame in frames) == data


TARGETS: dict[str, tuple[Callable[[], list[bytes]], Target]] = {
    "message": (message_seeds, read_message),
    "block": (block_seeds, read_block),
    "stream": (stream_seeds, read_stream),
}


def fuzz(target: str, *, seed: int, iterations: int) -> int:
    """Run one target.

    Returns:
        How many inputs were accepted; a run that accepts none, or all, tests nothing.

    Raises:
        AssertionError: Something other than ``WireError`` came out; names seed and iteration.
    """
    make_seeds, read = TARGETS[target]
    seeds, accepted = make_seeds(), 0
    for iteration in range(iterations):
        rng = random.Random(f"{seed}/{target}/{iteration}")
        data = bytearray(rng.choice(seeds))
        if rng.random() < 0.05:
            data = bytearray(rng.randbytes(rng.randint(0, 300)))
        mutate(data, rng)
        try:
            with contextlib.suppress(WireError):
                read(data, rng)
                accepted += 1
        except Exception as error:
            raise AssertionError(f"{target}: seed {seed}, iteration {iteration}, {data.hex()}") from error
    return accepted


@pytest.mark.parametrize("target", TARGETS)
def test_only_wire_errors_come_out(target: str) -> None:
    accepted = fuzz(target, seed=0, iterations=3000)
    assert 0 < accepted < 3000


def test_seeds_hold_both_directions() -> None:
    sent = {type(message) for message in _messages()}
    assert {listed.direction for listed in CLOSED_LIST if listed.cls in sent} == set(Direction)


def main() -> None:
    """Read the arguments and run every target."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of splitlearn.wire.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=100_000, help="inputs per target")
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    for target in TARGETS:
        accepted = fuzz(target, seed=arguments.seed, iterations=arguments.iterations)
        sys.stdout.write(f"{target}: {arguments.iterations} inputs, {accepted} accepted, no finding\n")


if __name__ == "__main__":
    main()
