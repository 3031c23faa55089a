"""Only the closed list is said, no token in the open, and a peer silo opens none of it."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from splitlearn.channel import Established, SealedSession
from splitlearn.protocol import SiloProtocol
from splitlearn.tasks import load_silo_data, load_tokenizer
from splitlearn.wire import (
    CLOSED_LIST,
    ENVELOPE_BYTES,
    TAG_BYTES,
    Codec,
    Direction,
    Envelope,
    Kind,
    Message,
    decode_message,
    encode_message,
)
from tests.integration.conftest import Job, NewJob
from tests.integration.recording import ONE_STEP, Take, data_of, leaves, recording, run_recorded


def control_part(encoded: bytes, message: Message) -> bytes:
    """The bytes of a message before its tensors' values."""
    tensors = [value for _, value in leaves(message) if isinstance(value, np.ndarray)]
    return encoded[: len(encoded) - sum(tensor.nbytes for tensor in tensors)]


def ngrams(tokens: Sequence[int], *, size: int) -> Iterator[bytes]:
    """Yield every run of tokens in every fixed-width encoding."""
    for start in range(len(tokens) - size + 1):
        for dtype in ("u1", "<u2", ">u2", "<u4", ">u4", "<u8", ">u8", "<f4", ">f4", "<f8", ">f8"):
            yield np.array(tokens[start : start + size]).astype(dtype).tobytes()


@pytest.fixture
def take(new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> Take:
    """Runs a job on some silos' data and returns all that was said: see :func:`run_recorded`."""
    return partial(run_recorded, new_job, monkeypatch)


class TestClosedList:
    def test_everything_said_is_on_it_and_nothing_else_is_in_the_bytes(self, take: Take) -> None:
        taken = take(data_of("a", text="a diagnosis"), data_of("b", text="other"), rounds=2)
        listed = {(entry.cls, entry.direction) for entry in CLOSED_LIST}
        seen = set()
        for (_, direction), said in taken.recorder.said.items():
            for encoded in said:
                message, ack = decode_message(encoded, direction=direction)
                seen.add((type(message), direction))
                assert bytes(encode_message(message, codec=Codec.FP32, ack=ack)) == encoded
        assert seen <= listed
        assert len(seen) >= 11

    def test_no_run_of_tokens_is_in_the_control_fields(self, take: Take) -> None:
        data = data_of("a", text="a diagnosis")
        taken = take(data)
        patterns = {
            pattern
            for row in [*data.training, *(example.target for example in data.heldout)]
            for pattern in ngrams(row.input_ids, size=3)
        }
        assert len(patterns) > 400
        for direction in Direction:
            said = taken.recorder.said["a", direction]
            messages = taken.recorder.messages("a", direction)
            for encoded, message in zip(said, messages, strict=True):
                control = control_part(encoded, message)
                assert not [pattern for pattern in patterns if pattern in control]
        smuggled = b"header" + np.array(data.training[0].input_ids).astype(">u4").tobytes()
        assert any(pattern in smuggled for pattern in patterns), "the search finds what it looks for"

    def test_no_word_of_a_text_leaves_in_the_open(
        self, test_data: Any, tmp_path: Any, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = test_data / "models" / "stories260K"
        text = test_data / "data" / "text" / "tinystories" / "tinystories_slice.txt"
        lines = [line for line in text.read_text(encoding="utf-8").splitlines() if len(line) > 40][:12]
        (tmp_path / "stories.txt").write_text("\n".join(lines), encoding="utf-8")
        job = new_job("llama", data_of("a", text="x"), **ONE_STEP)
        data = load_silo_data(
            tmp_path / "stories.txt",
            silo_name="a",
            task=job.spec.task,
            tokenizer=load_tokenizer(folder),
            max_tokens=12,
            holdout=0.2,
            seed=0,
        )
        recorder = recording(monkeypatch)
        Job(job.spec, folder, [data], job.work_dir).run()
        words = {word.encode() for line in lines for word in line.split() if len(word) > 4}
        assert len(words) > 30
        everything = b"".join(each for said in recorder.said.values() for each in said)
        assert not [word for word in words if word in everything]


class TestPeerSilo:
    """Silo b takes part in the same job, has the base weights, and recorded all of silo a's traffic."""

    def test_opens_nothing(self, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
        sessions: dict[str, SealedSession] = {}
        establish = SiloProtocol._establish

        def kept(self: SiloProtocol, handshaken: Established) -> None:
            establish(self, handshaken)
            sessions[self.terms.silo_name] = handshaken.session

        monkeypatch.setattr(SiloProtocol, "_establish", kept)
        monkeypatch.setattr(SealedSession, "close", lambda _: None)  # b keeps its keys, against the rules
        taken = take(data_of("a", text="a diagnosis"), data_of("b", text="other"))

        recorded = [*taken.lines.frames["a", "silo"], *taken.lines.frames["a", "trunk"]]
        sealed = [frame for frame in recorded if frame[4] == Kind.SEALED]
        assert len(sealed) > 10
        assert not any(opens(sessions["b"], frame) for frame in sealed)
        assert all(opens(sessions["a"], frame) for frame in sealed), "the attempt is one that can succeed"

    def test_finds_nothing_that_the_base_weights_would_let_it_guess(self, take: Take) -> None:
        """No 16 bytes of a plaintext stand on the line, though b could compute much of it from a guess."""
        taken = take(data_of("a", text="a diagnosis"))
        on_the_line = b"".join(frame for frames in taken.lines.frames.values() for frame in frames)
        pieces = {
            encoded[start : start + 16]
            for said in taken.recorder.said.values()
            for encoded in said
            for start in range(0, len(encoded) - 16, 16)
        }
        telling = [piece for piece in pieces if piece.count(0) < 8]
        assert len(telling) > 500
        assert not [piece for piece in telling if piece in on_the_line]


def opens(session: SealedSession, recorded: bytes) -> bool:
    """Try a recorded frame with both keys of a session, at the frame's own counter."""
    header, body = recorded[:ENVELOPE_BYTES], recorded[ENVELOPE_BYTES:]
    for key in (session._open_key, session._seal_key):
        key._counter = Envelope.unpack(header).counter
        if key.open_into(body, header=header, out=memoryview(bytearray(len(body) - TAG_BYTES))):
            return True
    return False
