"""What is asked of the provider, and what is believed of its answers.

Every address comes from the operator's setting, or from the document behind it, which must name that very
issuer. Redirects are not followed, and answers are short.
"""

import json
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx2
import structlog
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ValidationError

from backend.openid.errors import ProviderAwayError, TokenRefusedError
from backend.openid.settings import OpenIdSettings
from splitlearn.errors import StorageError
from splitlearn.loopback import UNPROXIED

OPENID_CALLBACK: Final = "/openid/callback"
"""Route to which the provider sends browsers back."""
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a key of the provider's alone: neither none, nor one that our secret makes."""
_TIMEOUT_SECONDS: Final = 10.0
_MAX_ANSWER_BYTES: Final = 1 << 20
_MAX_SECRET_BYTES: Final = 4096
_DOCUMENT_SECONDS: Final = 3600.0
_KEYS_AGAIN_SECONDS: Final = 5.0  # between two questions for keys: a forged token must not cause one each
_LEEWAY_SECONDS: Final = 60
_log = structlog.get_logger("backend.openid")


class _Document(BaseModel):
    """What is used of a provider's description (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class Provider:
    """One OpenID provider; its description and keys are kept for a while. For any thread.

    Args:
        settings: As the operator set them, with an issuer.
        redirect_uri: Where the provider sends browsers back to.

    Raises:
        StorageError: The client's secret cannot be read.
    """

    def __init__(self, settings: OpenIdSettings, *, redirect_uri: str) -> None:
        self.issuer = settings.openid_issuer
        self._settings, self._redirect_uri = settings, redirect_uri
        self._secret = _read_secret(settings.openid_client_secret_file)
        # A connection is closed with its answer: questions are rare, and nobody closes this client.
        limits = httpx2.Limits(max_keepalive_connections=0)
        self._client = httpx2.Client(
            timeout=_TIMEOUT_SECONDS, follow_redirects=False, mounts=UNPROXIED, limits=limits
        )
        self._lock = threading.Lock()
        self._document: tuple[float, _Document] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def authorization_url(self, *, state: str, nonce: str, challenge: str) -> str:
        """Return where a browser is sent to.

        Raises:
            ProviderAwayError: The provider's description cannot be had.
        """
        endpoint = self._describe().authorization_endpoint
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._settings.openid_client_id,
                "redirect_uri": self._redirect_uri,
                "scope": self._settings.openid_scopes,
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}"

    def claims_for(self, code: str, *, verifier: str, nonce: str, now: datetime) -> Mapping[str, Any]:
        """Exchange a code for a token, and return what the provider says in it.

        Raises:
            ProviderAwayError: The provider does not answer.
            TokenRefusedError: It refuses the code, or its token is not for us, here and now.
        """
        return self._verified(self._exchange(code, verifier=verifier), nonce=nonce, now=now)

    def _exchange(self, code: str, *, verifier: str) -> str:
        document = self._describe()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        client_id = self._settings.openid_client_id
        auth = None
        if self._secret is None:
            form["client_id"] = client_id
        elif "client_secret_basic" in document.token_endpoint_auth_methods_supported:
            auth = httpx2.BasicAuth(client_id, self._secret)
        else:
            form |= {"client_id": client_id, "client_secret": self._secret}
        status, answer = self._ask("POST", document.token_endpoint, data=form, auth=auth)
        if status in {400, 401, 403}:
            reason = str(answer.get("error", status))[:80]
            _log.warning("openid_code_refused", reason=reason)
            raise TokenRefusedError(f"the provider refuses the code: {reason!r}")
        token = answer.get("id_token")
        if status != httpx2.codes.OK or not isinstance(token, str):
            raise self._away(f"its token endpoint answered {status} without an id token")
        return token

    def _verified(self, token: str, *, nonce: str, now: datetime) -> Mapping[str, Any]:
        client_id = self._settings.openid_client_id
        rules = jwt.JWTClaimsRegistry(
            now=int(now.timestamp()),
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            claims = self._decoded(token).claims
            rules.validate(claims)
        except (JoseError, ValueError) as error:
            _log.warning("openid_token_refused", reason=str(error)[:200])
            raise TokenRefusedError(f"the provider's token is not to be believed: {error}"[:300]) from error
        audience = claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        if (several or "azp" in claims) and claims.get("azp") != client_id:
            raise TokenRefusedError("the provider's token was made for another program")
        return claims

    def _decoded(self, token: str) -> jwt.Token:
        try:
            return jwt.decode(token, self._key_set(), algorithms=ALGORITHMS)
        except InvalidKeyIdError:  # the provider may have taken a new key since we asked
            return jwt.decode(token, self._key_set(anew=True), algorithms=ALGORITHMS)

    def _key_set(self, *, anew: bool = False) -> KeySet:
        with self._lock:
            kept = self._keys
        age = None if kept is None else time.monotonic() - kept[0]
        if (
            kept is not None
            and age is not None
            and age < (_KEYS_AGAIN_SECONDS if anew else _DOCUMENT_SECONDS)
        ):
            return kept[1]
        status, answer = self._ask("GET", self._describe().jwks_uri)
        try:
            keys = KeySet.import_key_set({"keys": answer["keys"]})
        except (JoseError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._away(f"its keys cannot be read (status {status}): {error}") from error
        with self._lock:
            self._keys = time.monotonic(), keys
        return keys

    def _describe(self) -> _Document:
        with self._lock:
            kept = self._document
        if kept is not None and time.monotonic() - kept[0] < _DOCUMENT_SECONDS:
            return kept[1]
        status, answer = self._ask("GET", f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            document = _Document.model_validate(answer)
        except ValidationError as error:
            raise self._away(f"its description (status {status}) lacks: {_fields(error)}") from error
        if document.issuer != self.issuer:
            raise self._away(
                f"it calls itself {document.issuer[:200]!r}, TRUNKLINE_OPENID_ISSUER says otherwise"
            )
        scheme = urlsplit(self.issuer).scheme
        for url in (document.authorization_endpoint, document.token_endpoint, document.jwks_uri):
            if urlsplit(url).scheme not in {"https", scheme}:
                raise self._away(f"its address {url[:200]!r} is not https")
        with self._lock:
            self._document = time.monotonic(), document
        return document

    def _ask(
        self,
        method: str,
        url: str,
        *,
        data: Mapping[str, str] | None = None,
        auth: httpx2.BasicAuth | None = None,
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            with self._client.stream(method, url, data=data, auth=auth, headers=headers) as response:
                body = b""
                for block in response.iter_raw():
                    body += block
                    if len(body) > _MAX_ANSWER_BYTES:
                        raise self._away(f"its answer is longer than {_MAX_ANSWER_BYTES} bytes")
                status = response.status_code
        except httpx2.HTTPError as error:
            raise self._away(f"{type(error).__name__}: {error}") from error
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        return status, answer if isinstance(answer, dict) else {}

    def _away(self, reason: str) -> ProviderAwayError:
        _log.warning("openid_provider_away", issuer=self.issuer, reason=reason[:300])
        return ProviderAwayError(f"the OpenID provider {self.issuer} cannot be used now: {reason}"[:500])


def open_provider(settings: OpenIdSettings, *, redirect_uri: str) -> Provider | None:
    """Return the provider that the settings name; None where they name none.

    Raises:
        StorageError: The client's secret cannot be read.
    """
    return Provider(settings, redirect_uri=redirect_uri) if settings.openid_issuer else None


def _read_secret(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SECRET_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read TRUNKLINE_OPENID_CLIENT_SECRET_FILE {path}: {error}") from error
    if not text:
        raise StorageError(f"TRUNKLINE_OPENID_CLIENT_SECRET_FILE {path} is empty")
    return text


def _fields(error: ValidationError) -> str:
    return ", ".join(".".join(str(part) for part in item["loc"]) for item in error.errors())
