"""What enrolment and log-in refuse: each reason with a sentence and a remedy."""

from backend.errors import ConflictError, InvalidRequestError, NotSignedInError, RecordedError


class PartyNameTakenError(ConflictError):
    """A silo or worker of this name is enrolled in the federation."""

    code = "name_taken"
    remedy = "choose another name, or revoke the enrolled one first"


class InvitationUnknownError(RecordedError):
    """This server never made the invitation: it is another federation's, or invented."""

    status = 404
    code = "invitation_unknown"
    remedy = "check the address in the invitation, or ask for a new one"


class InvitationUsedError(RecordedError):
    """The invitation was used by another key."""

    status = 409
    code = "invitation_used"
    remedy = "if it was not you, tell the federation at once: somebody else enrolled under this name"


class InvitationExpiredError(RecordedError):
    """The invitation's time is over."""

    status = 410
    code = "invitation_expired"
    remedy = "ask for a new invitation"


class InvitationWithdrawnError(RecordedError):
    """An admin took the invitation back."""

    status = 410
    code = "invitation_withdrawn"
    remedy = "ask for a new invitation"


class WrongRootError(RecordedError):
    """The invitation pins another federation root than this server's."""

    status = 409
    code = "wrong_root"
    remedy = "do not go on: compare the fingerprint with whoever invited you"


class FingerprintRefusedError(InvalidRequestError):
    """The text is no fingerprint."""

    code = "fingerprint"
    remedy = "copy the invitation again, whole"


class KeyRefusedError(InvalidRequestError):
    """The bytes are no public key, or a weak one."""

    code = "invalid_key"
    remedy = "let the program make its key anew: remove it from the state folder, and enrol again"


class ProofRefusedError(RecordedError):
    """The signature does not show that the caller holds the key and was invited here."""

    status = 403
    code = "proof_refused"
    remedy = "enrol with the address that is written in the invitation, and the key that signs"


class CertificateRefusedError(ConflictError):
    """The certificate is not the root's, or not for this request."""

    code = "certificate_refused"
    remedy = "sign the very request file that this server shows, with this federation's root"


class NonceRefusedError(RecordedError):
    """The nonce is not this server's, too old, or was used."""

    status = 401
    code = "nonce_refused"
    remedy = "ask for a new nonce and sign it at once"


class LoginRefusedError(RecordedError):
    """No party of this name, or the signature is not its key's; which of them is not said."""

    status = 401
    code = "login_refused"
    remedy = "enrol first; if you did, check that the state folder is the one of this server"


class PartyPendingError(RecordedError):
    """The request waits for a person with the offline root."""

    status = 403
    code = "party_pending"
    remedy = "an admin signs it: trunkline root sign; then enrol again with the same invitation"


class PartyRevokedError(RecordedError):
    """The certificate was revoked."""

    status = 403
    code = "party_revoked"
    remedy = "ask an admin for a new invitation"


class CertificateExpiredError(RecordedError):
    """The certificate is not valid now."""

    status = 403
    code = "certificate_expired"
    remedy = "ask an admin to revoke the old one and to send a new invitation"


class IdentityInUseError(RecordedError):
    """Another live process speaks for this party."""

    status = 409
    code = "identity_in_use"
    remedy = "stop the other process; was the state folder copied to another machine, enrol that one anew"


class SessionEndedError(NotSignedInError):
    """The party's session was closed or has expired."""

    code = "session_ended"
    remedy = "log in again, unless another process took over on purpose"
