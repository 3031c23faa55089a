"""What sign-in and tokens refuse."""

from backend.errors import ConflictError, RecordedError, TooManyError


class WrongCredentialsError(RecordedError):
    """The name or the password is wrong; which of them is not said."""

    status = 401
    code = "wrong_credentials"
    remedy = "check both; an admin can set a new password by: trunkline users reset-password NAME"


class SignInThrottledError(TooManyError):
    """Too many failed sign-ins from here."""

    code = "sign_in_throttled"


class WhichOrganizationError(ConflictError):
    """The user belongs to several organisations, or not to the one named."""

    code = "which_organization"
    remedy = "name one of your organisations in the field 'organization'"


class TokenLifetimeError(ConflictError):
    """A token was asked for that lives longer than this server allows."""

    code = "token_lifetime"
    remedy = "ask for fewer days"


class TokenRoleError(ConflictError):
    """A token was asked for that may do more than its owner."""

    code = "token_role"
    remedy = "ask for your own role or a lesser one"
