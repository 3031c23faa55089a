"""One's own second factor. Open to who has to get one first; closed to API tokens."""

from fastapi import APIRouter, status

from backend.auth import second_factor
from backend.auth.callers import AnyUser
from backend.auth.codes import enrolment_uri, secret_text
from backend.auth.errors import (
    FactorMissingError,
    FactorOnError,
    SignInThrottledError,
    WrongCredentialsError,
)
from backend.auth.schemas import (
    BeginFactorBody,
    BegunFactorAnswer,
    CodeBody,
    RecoveryCodesAnswer,
)
from backend.errors import SIGNED_IN, UnavailableError, documented
from backend.server import ServerDep

router = APIRouter(prefix="/me/second-factor", tags=["auth"])
_CODE = (*SIGNED_IN, SignInThrottledError, WrongCredentialsError)
_ISSUER = "Trunkline"


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=documented(*_CODE, FactorOnError, UnavailableError),
)
def begin_second_factor(server: ServerDep, caller: AnyUser, body: BeginFactorBody) -> BegunFactorAnswer:
    """Begin a second factor: its secret is shown this once. Nothing is asked for before it is confirmed."""
    secret = second_factor.begin(server, caller, password=body.password.get_secret_value())
    return BegunFactorAnswer(
        secret=secret_text(secret), uri=enrolment_uri(secret, user=caller.name, issuer=_ISSUER)
    )


@router.post("/confirm", responses=documented(*_CODE, FactorMissingError, FactorOnError))
def confirm_second_factor(server: ServerDep, caller: AnyUser, body: CodeBody) -> RecoveryCodesAnswer:
    """Switch it on by a first code; the recovery codes are shown this once."""
    return RecoveryCodesAnswer(recovery_codes=second_factor.confirm(server, caller, code=body.code))


@router.post("/recovery-codes", responses=documented(*_CODE, FactorMissingError))
def renew_recovery_codes(server: ServerDep, caller: AnyUser, body: CodeBody) -> RecoveryCodesAnswer:
    """Get new recovery codes, shown this once; the old ones are worth nothing any more."""
    codes = second_factor.renew_recovery_codes(server, caller, code=body.code)
    return RecoveryCodesAnswer(recovery_codes=codes)


@router.post(
    "/remove",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(*_CODE, FactorMissingError),
)
def remove_second_factor(server: ServerDep, caller: AnyUser, body: CodeBody) -> None:
    """Take it away, by a last code."""
    second_factor.remove(server, caller, code=body.code)
