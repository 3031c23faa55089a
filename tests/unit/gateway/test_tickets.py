"""Tickets: one encoding, one signer, one context, and an end."""

import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.gateway import Conversation, KeyVerifier, Refusal, Role, Seat, Ticket, issue_ticket
from backend.gateway.tickets import MAX_TICKET_CHARACTERS
from splitlearn.errors import IdentityError
from splitlearn.identity import Context, SigningKey
from splitlearn.link import CloseReason
from tests.unit.gateway.conftest import CONTROL_PLANE, NOW, TALK

VERIFIER = KeyVerifier(CONTROL_PLANE.public_key, tolerance_seconds=5)
VECTOR = (
    "544b4732"  # TKG2
    "01"  # silo
    "09" + b"tumours-7".hex() + "0001"
    "06" + b"clinic".hex() + "05" + b"gpu-1".hex() + "00000003"
    "0000000070dd5561"  # 2030-01-02 03:05:05 UTC
    "0a" + b"Proxy_47-1".hex()
)
CORRELATION_ID = "Proxy_47-1"
names = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?", fullmatch=True)
conversations = st.builds(
    Conversation,
    names,
    st.integers(0, (1 << 16) - 1),
    names,
    names,
    epoch=st.integers(0, (1 << 32) - 1),
)


def signed(body: bytes, *, context: Context = Context.GATEWAY_TICKET, key: SigningKey = CONTROL_PLANE) -> str:
    whole = body + key.sign(context, body)
    return base64.urlsafe_b64encode(whole).decode().rstrip("=")


def reason_of(text: str) -> CloseReason:
    with pytest.raises(Refusal) as refusal:
        VERIFIER.verify(text, now=NOW)
    return refusal.value.reason


class TestIssue:
    def test_has_the_documented_bytes(self) -> None:
        text = issue_ticket(
            TALK, role=Role.SILO, now=NOW, seconds=60, key=CONTROL_PLANE, correlation_id=CORRELATION_ID
        )
        assert text == signed(bytes.fromhex(VECTOR))
        assert VERIFIER.verify(text, now=NOW).correlation_id == CORRELATION_ID

    @pytest.mark.parametrize("forged", ["with space", "line\nbreak", "x" * 65, "\u00fcmlaut"])
    def test_refuses_a_correlation_id_that_could_forge_a_line(self, forged: str) -> None:
        with pytest.raises(IdentityError, match="correlation id"):
            issue_ticket(TALK, role=Role.SILO, now=NOW, seconds=60, key=CONTROL_PLANE, correlation_id=forged)

    def test_refuses_a_name_that_is_none(self) -> None:
        with pytest.raises(IdentityError, match="Clinic"):
            Conversation("job", 0, "Clinic", "gpu-1", epoch=1)

    @pytest.mark.parametrize(("replica", "epoch"), [(1 << 16, 0), (-1, 0), (0, 1 << 32), (0, -1)])
    def test_refuses_a_number_that_does_not_fit(self, replica: int, epoch: int) -> None:
        with pytest.raises(IdentityError, match="does not fit"):
            Conversation("job", replica, "clinic", "gpu-1", epoch=epoch)

    def test_the_longest_fits_the_limit(self) -> None:
        talk = Conversation("j" * 64, 65535, "s" * 64, "w" * 64, epoch=(1 << 32) - 1)
        text = issue_ticket(
            talk, role=Role.WORKER, now=NOW, seconds=60, key=CONTROL_PLANE, correlation_id="c" * 64
        )
        assert len(text) <= MAX_TICKET_CHARACTERS
        assert VERIFIER.verify(text, now=NOW).conversation == talk


class TestVerify:
    @given(talk=conversations, role=st.sampled_from(Role))
    def test_returns_what_was_issued(self, talk: Conversation, role: Role) -> None:
        text = issue_ticket(talk, role=role, now=NOW, seconds=60, key=CONTROL_PLANE)
        assert VERIFIER.verify(text, now=NOW) == Ticket(talk, role, NOW + timedelta(seconds=60))

    @pytest.mark.parametrize(("role", "party"), [(Role.SILO, "clinic"), (Role.WORKER, "gpu-1")])
    def test_names_the_seat(self, role: Role, party: str) -> None:
        found = VERIFIER.verify(
            issue_ticket(TALK, role=role, now=NOW, seconds=60, key=CONTROL_PLANE), now=NOW
        )
        assert found.seat == Seat("tumours-7", 1, role, party)

    def test_is_good_to_its_end_and_the_tolerance(self) -> None:
        text = issue_ticket(TALK, role=Role.SILO, now=NOW, seconds=60, key=CONTROL_PLANE)
        VERIFIER.verify(text, now=NOW + timedelta(seconds=65))
        with pytest.raises(Refusal) as refusal:
            VERIFIER.verify(text, now=NOW + timedelta(seconds=66))
        assert refusal.value.reason is CloseReason.EXPIRED_TICKET

    def test_refuses_another_signer(self) -> None:
        text = issue_ticket(TALK, role=Role.SILO, now=NOW, seconds=60, key=SigningKey.generate())
        assert reason_of(text) is CloseReason.WRONG_SIGNATURE

    @pytest.mark.parametrize("context", [one for one in Context if one is not Context.GATEWAY_TICKET])
    def test_refuses_a_signature_for_another_use(self, context: Context) -> None:
        assert reason_of(signed(bytes.fromhex(VECTOR), context=context)) is CloseReason.WRONG_SIGNATURE

    @given(data=st.data())
    def test_refuses_every_changed_bit(self, data: st.DataObject) -> None:
        text = issue_ticket(TALK, role=Role.SILO, now=NOW, seconds=60, key=CONTROL_PLANE)
        raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        changed = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        assert reason_of(changed) in {CloseReason.WRONG_SIGNATURE, CloseReason.MALFORMED_TICKET}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "x",
            "not a ticket",
            "ü" * 20,
            "A" * 480,
            signed(bytes.fromhex(VECTOR)) + "=",
            signed(bytes.fromhex(VECTOR) + b"\0"),
            signed(b"TKG1" + bytes.fromhex(VECTOR)[4:]),
            signed(b"TKG2\3" + bytes.fromhex(VECTOR)[5:]),
            signed(bytes.fromhex(VECTOR).replace(b"Proxy_47-1", b"Proxy\n47-1")),
            signed(bytes.fromhex(VECTOR.replace(b"clinic".hex(), b"Clinic".hex()))),
        ],
        ids=[
            "empty",
            "letter",
            "words",
            "unicode",
            "long",
            "padded",
            "longer",
            "magic",
            "role",
            "line",
            "name",
        ],
    )
    def test_refuses_what_is_no_ticket(self, text: str) -> None:
        assert reason_of(text) is CloseReason.MALFORMED_TICKET

    @given(text=st.text(max_size=500))
    def test_refuses_any_text(self, text: str) -> None:
        assert reason_of(text) in {CloseReason.WRONG_SIGNATURE, CloseReason.MALFORMED_TICKET}
