"""What signing in by a provider refuses."""

from backend.errors import ForbiddenError, NotFoundError, RecordedError, UnavailableError


class OpenIdOffError(NotFoundError):
    """This server has no OpenID provider."""

    code = "openid_off"
    remedy = "sign in with name and password; an operator sets TRUNKLINE_OPENID_ISSUER"


class ProviderAwayError(UnavailableError):
    """The provider does not answer, or not as OpenID Connect says."""

    code = "openid_provider_away"
    remedy = "try again; if it goes on, an operator finds the reason in the log"


class SignInNotBegunError(RecordedError):
    """This browser began no such sign-in, its time is over, or it was finished before."""

    status = 401
    code = "openid_not_begun"
    remedy = "begin the sign-in again, and finish it in the same browser within ten minutes"


class TokenRefusedError(RecordedError):
    """The provider did not vouch for anybody, or its token is not to be believed."""

    status = 401
    code = "openid_refused"
    remedy = "begin again; if it goes on, an operator compares TRUNKLINE_OPENID_ISSUER and _CLIENT_ID"


class NotAdmittedError(RecordedError, ForbiddenError):
    """The provider vouches for somebody who is not let in here."""

    status = 403
    code = "openid_not_admitted"
    remedy = "ask an admin of your organisation: trunkline users set-email NAME ADDRESS"
