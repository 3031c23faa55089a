"""What sign-in and tokens refuse."""

from backend.db.database import KeptError
from backend.errors import ConflictError, RecordedError, TooManyError


class WrongCredentialsError(RecordedError):
    """The name, the password or the code is wrong; which of them is not said."""

    status = 401
    code = "wrong_credentials"
    remedy = (
        "check name and password, and give a fresh code if you have a second factor; an admin can set a new "
        "password by: trunkline users reset-password NAME"
    )


class SignInThrottledError(TooManyError, KeptError):
    """Too many failed sign-ins from here; the audit row of it is kept."""

    code = "sign_in_throttled"


class WhichOrganizationError(ConflictError):
    """The user belongs to several organisations, or not to the one named."""

    code = "which_organization"
    remedy = "name one of your organisations in the field 'organization'"


class FactorOnError(ConflictError):
    """There is a second factor already."""

    code = "second_factor_on"
    remedy = "remove it first, by: trunkline second-factor remove"


class FactorMissingError(ConflictError):
    """There is no second factor."""

    code = "second_factor_off"
    remedy = "get one first, by: trunkline second-factor add"


class TokenLifetimeError(ConflictError):
    """A token was asked for that lives longer than this server allows."""

    code = "token_lifetime"
    remedy = "ask for fewer days"


class TokenRoleError(ConflictError):
    """A token was asked for that may do more than its owner."""

    code = "token_role"
    remedy = "ask for your own role or a lesser one"
