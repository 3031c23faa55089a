"""Certificates, revocation lists and spec signatures as bytes: one encoding each, strictly read."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitlearn.errors import IdentityError, LocalProtocolError
from splitlearn.identity import (
    MAX_CERTIFICATE_BYTES,
    Certificate,
    CertificateKind,
    FederationRoot,
    Identity,
    MalformedCertificateError,
    MalformedRevocationListError,
    MalformedSpecSignatureError,
    RevocationList,
    SpecSignature,
    sign_spec,
)
from splitlearn.identity.fields import _NAME
from splitlearn.identity.revocation import MAX_REVOCATION_LIST_BYTES, MAX_REVOKED_SERIALS
from splitlearn.spec import Name
from tests.unit.identity.conftest import NOW, YEAR, issue, seeded_key

KIND, NAME_LENGTH, NAME, KEY = 4, 5, 6, 11
ROOT = FederationRoot(seeded_key(1))
SPEC_SIGNER = Identity(issue(ROOT, kind=CertificateKind.SPEC_SIGNER, name="lab", seed=41), seeded_key(41))
DOCUMENTS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "certificate": (Certificate.from_bytes, issue(ROOT).to_bytes()),
    "revocation list": (RevocationList.from_bytes, ROOT.revoke([5, 3, 9], issued_at=NOW).to_bytes()),
    "spec signature": (SpecSignature.from_bytes, sign_spec(b"{}", signer=SPEC_SIGNER).to_bytes()),
}


@pytest.mark.parametrize("what", DOCUMENTS)
class TestEveryDocument:
    def test_parses_to_itself(self, what: str) -> None:
        parse, data = DOCUMENTS[what]
        assert parse(data).to_bytes() == data

    def test_rejects_every_truncation(self, what: str) -> None:
        parse, data = DOCUMENTS[what]
        for length in range(len(data)):
            with pytest.raises(IdentityError):
                parse(data[:length])

    def test_rejects_trailing_bytes(self, what: str) -> None:
        parse, data = DOCUMENTS[what]
        with pytest.raises(IdentityError):
            parse(data + b"\0")

    @settings(max_examples=300, deadline=None)
    @given(position=st.integers(0, 1000), new=st.integers(0, 255))
    def test_a_changed_byte_is_refused_or_encodes_to_itself(self, what: str, position: int, new: int) -> None:
        parse, data = DOCUMENTS[what]
        changed = bytearray(data)
        changed[position % len(data)] = new
        try:
            parsed = parse(bytes(changed))
        except IdentityError:
            return
        assert parsed.to_bytes() == changed

    @settings(max_examples=200, deadline=None)
    @given(data=st.binary(max_size=400))
    def test_random_bytes_raise_nothing_else(self, what: str, data: bytes) -> None:
        parse, genuine = DOCUMENTS[what]
        for candidate in (data, genuine[:4] + data, genuine[:40] + data):
            try:
                parsed = parse(candidate)
            except IdentityError:
                continue
            assert parsed.to_bytes() == candidate


class TestCertificate:
    def test_every_kind_survives(self) -> None:
        for kind in CertificateKind:
            assert Certificate.from_bytes(issue(ROOT, kind=kind).to_bytes()).kind is kind

    def test_longest_one_fits_the_limit(self) -> None:
        longest = issue(ROOT, name="n" * 64).to_bytes()
        assert len(longest) == MAX_CERTIFICATE_BYTES
        assert Certificate.from_bytes(longest).name == "n" * 64

    def test_rejects_unknown_kind(self) -> None:
        with pytest.raises(MalformedCertificateError, match="kind 9"):
            Certificate.from_bytes(patched(KIND, b"\x09"))

    @pytest.mark.parametrize("name", [b"North", b"nor\n\n", b"nort\xe9", b"-nort", b"no th"])
    def test_rejects_other_names(self, name: bytes) -> None:
        with pytest.raises(MalformedCertificateError, match="name"):
            Certificate.from_bytes(patched(NAME, name))

    def test_rejects_a_key_of_small_order(self) -> None:
        with pytest.raises(MalformedCertificateError, match="key"):
            Certificate.from_bytes(patched(KEY, bytes(32)))

    def test_rejects_serial_zero(self) -> None:
        with pytest.raises(MalformedCertificateError, match="serial"):
            Certificate.from_bytes(patched(KEY + 32, bytes(8)))

    def test_rejects_a_moment_after_the_last_year(self) -> None:
        with pytest.raises(MalformedCertificateError, match="9999"):
            Certificate.from_bytes(patched(KEY + 48, b"\xff" * 8))

    def test_rejects_validity_that_ends_before_it_begins(self) -> None:
        with pytest.raises(MalformedCertificateError, match="ends"):
            issue(ROOT, not_before=NOW, not_after=NOW - timedelta(seconds=1))

    def test_cuts_fractions_of_a_second_and_keeps_utc(self) -> None:
        issued = issue(ROOT, not_before=NOW + timedelta(microseconds=999_999))
        assert issued.not_before == NOW
        assert issued.not_before.tzinfo is UTC

    def test_a_moment_without_a_zone_is_our_fault(self) -> None:
        with pytest.raises(LocalProtocolError, match="time zone"):
            issue(ROOT, not_before=datetime(2026, 1, 1))  # noqa: DTZ001 - the fault under test

    def test_serials_are_drawn_when_left_out(self) -> None:
        key = seeded_key(11).public_key
        serials = {
            ROOT.issue(key, kind=CertificateKind.SILO, name="a", not_before=NOW, not_after=NOW + YEAR).serial
            for _ in range(8)
        }
        assert len(serials) == 8
        assert all(1 <= serial <= 1 << 63 for serial in serials)

    def test_names_are_those_of_the_job_specification(self) -> None:
        _, field = get_args(Name)
        (constraint,) = field.metadata
        assert constraint.pattern == f"^{_NAME.pattern}$"


class TestRevocationList:
    def test_serials_are_sorted_and_unique(self) -> None:
        assert ROOT.revoke([9, 3, 9], issued_at=NOW).serials == (3, 9)

    def test_the_next_list_keeps_the_former_serials(self) -> None:
        first = ROOT.revoke([9], issued_at=NOW)
        second = ROOT.revoke([3], issued_at=NOW, previous=first)
        assert (second.number, second.serials) == (2, (3, 9))

    def test_an_empty_list_is_legal(self) -> None:
        assert RevocationList.from_bytes(ROOT.revoke([], issued_at=NOW).to_bytes()).serials == ()

    def test_longest_one_fits_the_limit(self) -> None:
        longest = ROOT.revoke(range(1, MAX_REVOKED_SERIALS + 1), issued_at=NOW)
        assert len(longest.to_bytes()) == MAX_REVOCATION_LIST_BYTES
        with pytest.raises(MalformedRevocationListError, match="too many"):
            ROOT.revoke([MAX_REVOKED_SERIALS + 1], issued_at=NOW, previous=longest)
        with pytest.raises(MalformedRevocationListError, match="too long"):
            RevocationList.from_bytes(longest.to_bytes() + b"\0")

    @pytest.mark.parametrize("serials", [(2, 1), (1, 1)])
    def test_rejects_serials_out_of_order(self, serials: tuple[int, int]) -> None:
        data = bytearray(ROOT.revoke([1, 2], issued_at=NOW).to_bytes())
        data[24:40] = b"".join(serial.to_bytes(8, "big") for serial in serials)
        with pytest.raises(MalformedRevocationListError, match="ascending"):
            RevocationList.from_bytes(bytes(data))

    @pytest.mark.parametrize("serial", [0, 1 << 64])
    def test_rejects_serials_out_of_range(self, serial: int) -> None:
        with pytest.raises(MalformedRevocationListError, match="not in"):
            ROOT.revoke([serial], issued_at=NOW)

    def test_rejects_number_zero(self) -> None:
        data = ROOT.revoke([1], issued_at=NOW).to_bytes()
        with pytest.raises(MalformedRevocationListError, match="number 0"):
            RevocationList.from_bytes(data[:4] + bytes(8) + data[12:])

    def test_rejects_a_count_that_promises_too_much_before_reading_it(self) -> None:
        data = ROOT.revoke([1], issued_at=NOW).to_bytes()
        with pytest.raises(MalformedRevocationListError, match="too many"):
            RevocationList.from_bytes(data[:20] + b"\xff" * 4 + data[24:])


class TestSpecSignature:
    def test_rejects_too_many_bytes(self) -> None:
        with pytest.raises(MalformedSpecSignatureError, match="too long"):
            SpecSignature.from_bytes(bytes(256))


def patched(position: int, new: bytes) -> bytes:
    data = issue(ROOT).to_bytes()
    return data[:position] + new + data[position + len(new) :]
