"""Making and checking the sealed proof: SIGMA's "sign the exchange, MAC your identity".

H. Krawczyk, "SIGMA: the 'SIGn-and-MAc' approach to authenticated Diffie-Hellman", 2003. The signature
shows who made the key exchange, the MAC that the same party knows its keys and goes by this certificate.
"""

import hmac
from dataclasses import dataclass

from splitlearn.channel.errors import MisboundIdentityError, TamperedHandshakeError, WrongKeyError
from splitlearn.channel.messages import Proof
from splitlearn.channel.schedule import KeySchedule, transcript_hash
from splitlearn.channel.setting import Role, Setting
from splitlearn.channel.terms import ResumePoint
from splitlearn.channel.traffic import open_once, seal_once
from splitlearn.identity import Certificate, SignatureError


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedProof:
    """Our proof, ready to send.

    Attributes:
        sealed: Ciphertext and tag.
        bound: Transcript hash that it signs.
    """

    sealed: bytes
    bound: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedProof:
    """The peer's proof, believed.

    Attributes:
        certificate: Who the peer is.
        resume: The last message of ours that it has opened.
        bound: Transcript hash that it signed.
    """

    certificate: Certificate
    resume: ResumePoint
    bound: bytes


def make_proof(setting: Setting, keys: KeySchedule, before: bytes, *, header: bytes) -> SealedProof:
    """Prove who we are.

    Args:
        setting: Ours.
        keys: Of this handshake.
        before: Transcript hash before this proof.
        header: Envelope of the message that will carry it, authenticated with it.
    """
    role, identity = setting.role, setting.identity
    bound = _bound_hash(role, before, certificate=identity.certificate, resume=setting.resume)
    proof = Proof(
        certificate=identity.certificate,
        signature=identity.signing_key.sign(role.context, bound),
        mac=keys.mac(role.mac_use, before, bound),
        resume=setting.resume,
    )
    sealed = seal_once(keys.key(role.seal_use, before), proof.to_bytes(), header=header)
    return SealedProof(sealed=sealed, bound=bound)


def check_proof(
    setting: Setting, keys: KeySchedule, before: bytes, *, peer: Role, header: bytes, sealed: bytes
) -> VerifiedProof:
    """Open the peer's proof and believe it, or refuse.

    Args:
        setting: Ours; its terms say who the peer must be.
        keys: Of this handshake.
        before: Transcript hash before this proof.
        peer: The peer's role.
        header: Envelope of the message that carried the proof.
        sealed: The proof as received.

    Raises:
        TamperedHandshakeError: It does not open.
        MalformedHandshakeError: It opens, and is no proof.
        IdentityError: The certificate is refused.
        MisboundIdentityError: The MAC is not over this certificate and handshake.
        WrongKeyError: The signature is not by the certificate's key over this handshake.
    """
    opened = open_once(keys.key(peer.seal_use, before), sealed, header=header)
    if opened is None:
        raise TamperedHandshakeError(
            f"the {peer.kind.value}'s proof does not open: it was changed, or is of another handshake"
        )
    proof = Proof.from_bytes(opened)
    setting.verify(peer, proof.certificate)
    bound = _bound_hash(peer, before, certificate=proof.certificate, resume=proof.resume)
    if not hmac.compare_digest(proof.mac, keys.mac(peer.mac_use, before, bound)):
        raise MisboundIdentityError(
            f"the certificate of {proof.certificate.name!r} was not bound to this handshake by its sender"
        )
    _check_signature(peer, proof, bound)
    return VerifiedProof(certificate=proof.certificate, resume=proof.resume, bound=bound)


def _bound_hash(role: Role, before: bytes, *, certificate: Certificate, resume: ResumePoint) -> bytes:
    return transcript_hash(role.stage, before, certificate.to_bytes(), resume.to_bytes())


def _check_signature(peer: Role, proof: Proof, bound: bytes) -> None:
    try:
        proof.certificate.public_key.verify(peer.context, bound, proof.signature)
    except SignatureError as error:
        raise WrongKeyError(
            f"the key in the certificate of {proof.certificate.name!r} did not sign this handshake"
        ) from error
