"""Requests to the control plane that outlast its absence."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from splitlearn.control_plane.admission import ErrorAnswer
from splitlearn.control_plane.errors import RefusedError, UnreachableError, refusal
from splitlearn.loopback import UNPROXIED

API_PREFIX = "/api/v1"
_FIRST_PAUSE_SECONDS = 0.25
_MAX_PAUSE_SECONDS = 10.0
_TIMEOUT_SECONDS = 30.0
_SERVERS_FAULT = 500
_ABSENT = frozenset({502, 503, 504})
"""A proxy's words, or the server's own, for: not now."""

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

# Its lines hold whole addresses of every request, at a level that programs show.
logging.getLogger("httpx2").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Absent:
    """The control plane cannot be reached; it is asked again.

    Attributes:
        sentence: What happened, for people.
        pause_seconds: Until it is asked again.
    """

    sentence: str
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class Back:
    """The control plane answers again.

    Attributes:
        seconds: How long it was away.
    """

    seconds: float


OnReach = Callable[[Absent | Back], None]


def ignore_reach(_: Absent | Back) -> None:
    """Tell nobody."""


async def _refuse_compressed(response: httpx2.Response) -> None:
    """Refuse what would be unpacked before anybody could count it: a megabyte may hold a gigabyte."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        await response.aclose()
        if response.status_code >= _SERVERS_FAULT:
            raise _not_ours(response)
        raise RefusedError(
            f"{response.url.host} answers compressed ({encoding[:40]!r}), which was not asked for; "
            "let the proxy before the control plane pass answers on as they are"
        )


class Requests:
    """Sends requests, and waits with growing pauses while nobody answers.

    Args:
        url: The control plane's address.
        on_reach: Told when it cannot be reached, at every try, and when it is back.
    """

    def __init__(self, url: str, *, on_reach: OnReach = ignore_reach) -> None:
        self.url = url
        self._on_reach = on_reach
        self.http = httpx2.AsyncClient(
            base_url=url + API_PREFIX,
            headers={"Accept-Encoding": "identity"},
            timeout=_TIMEOUT_SECONDS,
            follow_redirects=False,
            mounts=UNPROXIED,
            event_hooks={"response": [_refuse_compressed]},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        answer: type[Model],
        *,
        body: BaseModel | None = None,
        token: str | None = None,
        patience_seconds: float | None = None,
    ) -> Model:
        """Return the answer of one request.

        Args:
            method: Of HTTP.
            path: Below ``/api/v1``.
            answer: Type of the answer.
            body: Sent as JSON.
            token: Of the session.
            patience_seconds: Give up when nobody has answered for so long; None never gives up.

        Raises:
            RefusedError: The control plane refused.
            UnreachableError: Nobody answered within patience.
        """
        raw = await self.send(
            method, path, body=body, token=token, patience_seconds=patience_seconds, wants_json=True
        )
        try:
            return answer.model_validate_json(raw)
        except ValidationError as error:
            raise RefusedError(
                f"{self.url} answers {method} {path} as no control plane of this version does; "
                "check the address and the versions of both"
            ) from error

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        token: str | None = None,
        patience_seconds: float | None = None,
        wants_json: bool = False,
    ) -> bytes:
        """Return the answer's bytes; see :meth:`ask`. Where JSON is wanted, all else is taken for absence."""
        headers = bearer(token)
        if body is not None:
            headers["Content-Type"] = "application/json"
        content = None if body is None else body.model_dump_json().encode()

        async def once() -> bytes:
            response = await self.http.request(method, path, content=content, headers=headers)
            await check(response)
            if wants_json and not _is_json(response.content):
                raise UnreachableError(
                    f"{self.url} answers {method} {path} with what is no JSON, or only its beginning; "
                    "see what lies between, and that the address is the control plane's"
                )
            return response.content

        return await self.patiently(once, patience_seconds=patience_seconds)

    async def patiently(
        self, attempt: Callable[[], Awaitable[T]], *, patience_seconds: float | None = None
    ) -> T:
        """Repeat ``attempt`` while it raises UnreachableError, and return what it does.

        Raises:
            UnreachableError: Nobody answered within patience.
        """
        pause, began = _FIRST_PAUSE_SECONDS, time.monotonic()
        is_away = False
        while True:
            try:
                result = await _reaching(self.url, attempt)
            except UnreachableError as error:
                left = _left(patience_seconds, since=began)
                if left <= 0:
                    raise
                is_away, pause_now = True, min(pause, left)
                self._on_reach(Absent(error.message, pause_now))
                await asyncio.sleep(pause_now)
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
            else:
                if is_away:
                    self._on_reach(Back(time.monotonic() - began))
                return result


async def _reaching(url: str, attempt: Callable[[], Awaitable[T]]) -> T:
    try:
        return await attempt()
    except (httpx2.TransportError, OSError) as error:
        raise UnreachableError(
            f"cannot reach the control plane at {url}: {error or type(error).__name__}; "
            "see that it runs and that this machine may connect to it"
        ) from error


def _left(patience_seconds: float | None, *, since: float) -> float:
    return math.inf if patience_seconds is None else since + patience_seconds - time.monotonic()


def bearer(token: str | None) -> dict[str, str]:
    """Return the header of a session."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


async def check(response: httpx2.Response) -> None:
    """Pass a success; turn all else into its error.

    Raises:
        RefusedError: With the control plane's word, sentence and remedy.
        UnreachableError: It, or a proxy before it, says: not now.
    """
    if response.is_success:
        return
    raw = await response.aread()
    try:
        told = ErrorAnswer.model_validate_json(raw)
    except ValidationError as error:
        if response.status_code >= _SERVERS_FAULT:
            raise _not_ours(response) from error
        raise RefusedError(
            f"the control plane answers {response.status_code} without a reason; check its address",
            status=response.status_code,
        ) from error
    sentence = told.message + (f"; {told.remedy}" if told.remedy else "")
    if response.status_code in _ABSENT and told.code == "unavailable":
        raise UnreachableError(sentence)
    raise refusal(sentence, code=told.code, status=response.status_code)


def _not_ours(response: httpx2.Response) -> UnreachableError:
    """Every answer of the control plane has a form: what has another comes from somebody before it."""
    return UnreachableError(
        f"a proxy before the control plane answers {response.status_code}; see that both run"
    )


def _is_json(content: bytes) -> bool:
    try:
        from_json(content)
    except ValueError:
        return False
    return True
