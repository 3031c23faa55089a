"""The API as a command sees it."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.app_prefix import API_PREFIX
from backend.cli.absence import Absence
from backend.cli.output import REFUSED_EXIT_CODE, USAGE_EXIT_CODE, CommandError
from splitlearn.loopback import UNPROXIED

_TIMEOUT_SECONDS = 30.0
_QUIET_SECONDS = 60.0  # a stream says that it lives every 15
_PAUSE_SECONDS = 0.5
_OF_THE_SPECIFICATION = frozenset({"spec", "unserved"})
_NOT_SIGNED_IN = "not_signed_in"
_SIGN_IN = "sign in: export TRUNKLINE_TOKEN=$(trunkline tokens sign-in NAME)"  # no header is typed here
_ABSENT = frozenset({502, 503, 504})
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
"""What may be asked twice: where an answer is lost, nobody knows whether it was done."""


class ClientSettings(BaseSettings):
    """Where the control plane is and who asks, from ``TRUNKLINE_URL`` and ``TRUNKLINE_TOKEN``."""

    model_config = SettingsConfigDict(env_prefix="TRUNKLINE_", extra="ignore")

    url: str = "http://127.0.0.1:8470"
    token: SecretStr | None = None


class _AwayError(Exception):
    """A proxy says that the control plane is away, or it says so itself."""


class Remote:
    """Calls the API and turns refusals into sentences.

    Args:
        settings: Address and token.

    Raises:
        CommandError: The address or the token is none.
    """

    def __init__(self, settings: ClientSettings) -> None:
        token = settings.token.get_secret_value().strip() if settings.token else ""
        if not (token.isascii() and token.isprintable()):
            raise CommandError(
                "TRUNKLINE_TOKEN holds characters that no token has", exit_code=USAGE_EXIT_CODE
            )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = _address(settings.url)
        # A connection is closed with its answer: a command asks once or twice, and nobody closes a client.
        limits = httpx2.Limits(max_keepalive_connections=0)
        self._client = httpx2.Client(
            headers=headers, timeout=_TIMEOUT_SECONDS, limits=limits, mounts=UNPROXIED
        )

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer's JSON, or None when it has none.

        Raises:
            CommandError: Refused, or not reached.
        """
        response = self._answer(method, path, body)
        if not response.is_success:
            raise _refusal(response)
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise CommandError(
                f"what answers at {self._url} is no control plane", remedy="set TRUNKLINE_URL to its address"
            ) from error

    def _answer(self, method: str, path: str, body: object) -> httpx2.Response:
        """Ask, and where a proxy says that the control plane is away, wait, if asking twice does no harm."""
        absence = Absence(self._url)
        while True:
            try:
                response = self._client.request(method, self._url + API_PREFIX + path, json=body)
            except httpx2.ConnectError as error:
                raise self._unreached(error) from error
            except httpx2.HTTPError as error:
                if method not in _REPEATABLE:
                    raise self._unanswered(str(error) or type(error).__name__) from error
                if not absence.wait(str(error) or type(error).__name__):
                    raise self._unreached(error) from error
                continue
            if response.status_code not in _ABSENT:
                absence.over()
                return response
            if method not in _REPEATABLE and not _is_refusal(response):
                raise self._unanswered(f"a proxy answers {response.status_code}")
            if method not in _REPEATABLE or not absence.wait(f"{response.status_code} is answered"):
                return response

    def _unanswered(self, why: str) -> CommandError:
        return CommandError(
            f"no answer came from the control plane at {self._url} ({why}); it may have done what was asked",
            remedy="look whether it did (trunkline jobs list, for a job) before asking again",
        )

    def _unreached(self, error: Exception) -> CommandError:
        return CommandError(
            f"cannot reach the control plane at {self._url}: {error}",
            remedy="start it by: trunkline up, or trunkline api; or set TRUNKLINE_URL to its address",
        )

    def events(self, path: str, *, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the events of a stream; one that breaks off is taken up where it ended.

        Args:
            path: The stream's route.
            after: Only events after this number.

        Raises:
            CommandError: Refused, or not reached.
        """
        last, absence = str(after), Absence(self._url)
        while True:
            try:
                for name, value in self._lines(path, last):
                    if name == "id":
                        last = value
                    elif name == "data":
                        absence.over()
                        yield json.loads(value)
            except (httpx2.HTTPError, _AwayError) as error:
                self._bear(error, absence, is_first=last == "0")
            else:
                return

    def _bear(self, error: Exception, absence: Absence, *, is_first: bool) -> None:
        """Wait a moment after a stream broke off, or was not to be had.

        Raises:
            CommandError: There is nobody, or for too long.
        """
        if isinstance(error, httpx2.ReadTimeout | httpx2.RemoteProtocolError | httpx2.ReadError):
            time.sleep(_PAUSE_SECONDS)
            return
        is_away = isinstance(error, _AwayError) or (isinstance(error, httpx2.ConnectError) and not is_first)
        if not (is_away and absence.wait(str(error))):
            raise self._unreached(error) from error

    def _lines(self, path: str, last: str) -> Iterator[tuple[str, str]]:
        headers = {"Last-Event-ID": last}
        url = self._url + API_PREFIX + path
        with self._client.stream("GET", url, headers=headers, timeout=_QUIET_SECONDS) as response:
            if not response.is_success:
                response.read()
                if response.status_code in _ABSENT:
                    raise _AwayError(f"{response.status_code} is answered")
                raise _refusal(response)
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                yield name, value

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of an answer as they come.

        Raises:
            CommandError: Refused, not reached, or broken off.
        """
        try:
            with self._client.stream("GET", self._url + API_PREFIX + path) as response:
                if not response.is_success:
                    response.read()
                    raise _refusal(response)
                yield from response.iter_bytes()
        except httpx2.HTTPError as error:
            raise self._unreached(error) from error

    def rows(self, path: str) -> Iterator[dict[str, Any]]:
        """Return all rows of a list, page by page."""
        after: str | None = None
        while True:
            between = "&" if "?" in path else "?"
            query = "" if after is None else f"{between}{urlencode({'after': after})}"
            page = self.call("GET", path + query)
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def numbers(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield a job's metrics that are there now; their list has a next page also after the last."""
        after = "0"
        while page := self.call("GET", f"{path}?after={after}"):
            if not page["items"]:
                return
            yield from page["items"]
            after = page["next"]


def path(*parts: str) -> str:
    """Return a route of these parts, of which each may be anything that was typed."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _address(text: str) -> str:
    try:
        parsed = httpx2.URL(text)
        is_address = parsed.scheme in {"http", "https"} and bool(parsed.host)
    except httpx2.InvalidURL:
        is_address = False
    if not is_address:
        raise CommandError(
            f"TRUNKLINE_URL {text[:200]!r} is not http(s)://host[:port]", exit_code=USAGE_EXIT_CODE
        )
    return text.rstrip("/")


def _is_refusal(response: httpx2.Response) -> bool:
    """Whether an answer is the control plane's own, which says that nothing was done."""
    try:
        return bool(response.json()["code"])
    except (ValueError, KeyError, TypeError):
        return False


def _refusal(response: httpx2.Response) -> CommandError:
    try:
        body = response.json()
        # A wrong specification is the same error here as in the demo: one word, one exit code.
        exit_code = USAGE_EXIT_CODE if body["code"] in _OF_THE_SPECIFICATION else REFUSED_EXIT_CODE
        remedy = _SIGN_IN if body["code"] == _NOT_SIGNED_IN else body["remedy"]
        return CommandError(str(body["message"]), remedy=remedy, exit_code=exit_code)
    except (ValueError, KeyError, TypeError):
        return CommandError(f"the control plane answered {response.status_code} without a reason")
