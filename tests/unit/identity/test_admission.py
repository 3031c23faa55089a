"""Invitations survive paste and telephone, and statements mean one thing."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitlearn.identity import (
    CertificateKind,
    FederationRoot,
    Fingerprint,
    Invitation,
    MalformedInvitationError,
    SigningKey,
    enrolment_statement,
    login_statement,
)

ROOT = Fingerprint.of(SigningKey.from_private_bytes(bytes(range(32))).public_key)


def _invitation(**changes: object) -> Invitation:
    fields: dict[str, object] = {
        "kind": CertificateKind.SILO,
        "name": "north-hospital",
        "url": "https://trunkline.example",
        "fingerprint": ROOT,
        "secret": bytes(range(32)),
    }
    return Invitation(**{**fields, **changes})  # type: ignore[arg-type]  # the wrong types are tested too


class TestInvitation:
    @pytest.mark.parametrize("kind", [CertificateKind.SILO, CertificateKind.WORKER])
    def test_comes_back_from_its_text(self, kind: CertificateKind) -> None:
        invitation = _invitation(kind=kind)
        assert Invitation.parse(invitation.to_text()) == invitation

    def test_white_space_of_a_mail_does_not_matter(self) -> None:
        text = _invitation().to_text()
        folded = "\n  ".join(text[start : start + 40] for start in range(0, len(text), 40))
        assert Invitation.parse(f"\n {folded}\n") == _invitation()

    @pytest.mark.parametrize("written", ["invitation: {}", '  "invitation": "{}",'])
    def test_is_taken_out_of_what_the_command_line_printed(self, written: str) -> None:
        line = written.format(_invitation().to_text())
        listed = f"id: 6d4b\nname: north-hospital\n{line}\nfingerprint: {ROOT}\n"
        assert Invitation.parse(listed) == _invitation()
        with pytest.raises(MalformedInvitationError):
            Invitation.parse(listed.replace("invitation", "token", 1))

    def test_text_is_fixed(self) -> None:
        # The layout is normative: another digest means that invitations already sent are refused.
        digest = hashlib.sha256(_invitation().to_text().encode()).hexdigest()
        assert digest == "9f9a6ab10705cb1c307e22b9fcdb8c9feac893593d55113fa69294b5eff7db22"

    @given(position=st.integers(0, 10_000), shift=st.integers(1, 63))
    def test_no_changed_character_passes(self, position: int, shift: int) -> None:
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        text = _invitation().to_text()
        start = text.index(".") + 1
        index = start + position % (len(text) - start - 1)  # the last character may hold unused bits
        changed = alphabet[(alphabet.index(text[index]) + shift) % 64]
        with pytest.raises(MalformedInvitationError):
            Invitation.parse(text[:index] + changed + text[index + 1 :])

    @given(text=st.text(max_size=200))
    def test_no_other_text_passes(self, text: str) -> None:
        with pytest.raises(MalformedInvitationError):
            Invitation.parse("trunkline-invitation-1." + text)

    def test_every_shorter_text_is_refused(self) -> None:
        text = _invitation().to_text()
        for length in range(len(text)):
            with pytest.raises(MalformedInvitationError):
                Invitation.parse(text[:length])

    @pytest.mark.parametrize(
        "url",
        ["", "trunkline.example", "ftp://host", "http://", "http://host/", "http://ho st", "http://h:x",
         "http://" + "h" * 600, "http://hôte"],
    )  # fmt: skip
    def test_refuses_a_wrong_address(self, url: str) -> None:
        with pytest.raises(MalformedInvitationError, match="address"):
            _invitation(url=url)

    def test_is_never_for_a_spec_signer(self) -> None:
        with pytest.raises(MalformedInvitationError, match="only silos and workers"):
            _invitation(kind=CertificateKind.SPEC_SIGNER)

    def test_refuses_a_wrong_name_or_secret(self) -> None:
        with pytest.raises(MalformedInvitationError, match="name"):
            _invitation(name="North")
        with pytest.raises(MalformedInvitationError, match="31 bytes"):
            _invitation(secret=bytes(31))

    def test_never_shows_its_secret_in_a_log(self) -> None:
        assert "secret" not in repr(_invitation())


class TestStatements:
    def test_enrolment_changes_with_every_field(self) -> None:
        base: dict[str, object] = {
            "audience": "https://a.example",
            "kind": CertificateKind.SILO,
            "name": "north",
            "fingerprint": ROOT,
            "secret": bytes(32),
            "public_key": SigningKey.generate().public_key,
        }
        others: dict[str, object] = {
            "audience": "https://b.example",
            "kind": CertificateKind.WORKER,
            "name": "south",
            "fingerprint": FederationRoot.generate().fingerprint,
            "secret": bytes(31) + b"\1",
            "public_key": SigningKey.generate().public_key,
        }
        statements = {enrolment_statement(**base)}  # type: ignore[arg-type]  # built field by field
        for name, value in others.items():
            statements.add(enrolment_statement(**{**base, name: value}))  # type: ignore[arg-type]  # as above
        assert len(statements) == 1 + len(others)

    def test_login_fields_cannot_run_into_each_other(self) -> None:
        one = login_statement(
            audience="a", kind=CertificateKind.SILO, name="n", nonce="xy", boot_id="z", previous_boot_id=""
        )
        other = login_statement(
            audience="a", kind=CertificateKind.SILO, name="n", nonce="x", boot_id="yz", previous_boot_id=""
        )
        assert one != other
