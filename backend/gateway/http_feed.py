"""Asks the control plane for standings over HTTP; the documents are normative in ``docs/gateway.md``."""

import asyncio
import itertools
from collections.abc import Callable, Collection
from datetime import datetime
from types import TracebackType
from typing import Annotated, Literal, Self

import httpx2 as httpx
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from backend.gateway.standings import FeedError, Standing
from backend.gateway.tickets import Role, Seat
from splitlearn.loopback import UNPROXIED

MAX_SEATS_PER_QUESTION = 1000
_MAX_ANSWER_BYTES = 1 << 20
_SECONDS_PER_QUESTION = 1.5
_WRONG_TOKEN = frozenset({401, 403})


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SeatDocument(_Document):
    """One seat, as it is asked about."""

    job: str = Field(max_length=64)
    replica: int = Field(ge=0, lt=1 << 16)
    role: Literal["silo", "worker"]
    party: str = Field(max_length=64)


class StandingDocument(SeatDocument):
    """One seat's standing, as it is answered."""

    epoch: int = Field(ge=0, lt=1 << 32)
    revoked: bool = False

    def to_standing(self) -> Standing:
        """Return it as the gateway keeps it."""
        seat = Seat(self.job, self.replica, Role[self.role.upper()], self.party)
        return Standing(seat, self.epoch, is_revoked=self.revoked)


class StandingsQuestion(_Document):
    """The body of the gateway's request; one that has been told its own address names itself."""

    seats: Annotated[list[SeatDocument], Field(max_length=MAX_SEATS_PER_QUESTION)]
    gateway: str | None = Field(default=None, max_length=255)


class StandingsAnswer(_Document):
    """The body of the control plane's answer.

    Attributes:
        now: Its time, by which tickets end.
    """

    standings: Annotated[list[StandingDocument], Field(max_length=MAX_SEATS_PER_QUESTION)]
    now: AwareDatetime | None = None


class HttpFeed:
    """A :class:`~backend.gateway.standings.Feed` that posts questions; an async context manager.

    Args:
        url: Where the control plane answers.
        token: Sent as a bearer token, if any.
        own_url: How silos and workers reach this gateway; None where it is the only one.
        on_time: Told what the control plane says that the time is.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        own_url: str | None = None,
        on_time: Callable[[datetime], None] = lambda _: None,
    ) -> None:
        self._url, self._own_url, self._on_time = url, own_url, on_time
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._client = httpx.AsyncClient(timeout=_SECONDS_PER_QUESTION, headers=headers, mounts=UNPROXIED)

    async def __aenter__(self) -> Self:
        """Do nothing yet; connections are opened when a question is asked."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def standings(self, seats: Collection[Seat]) -> Collection[Standing]:
        """See :class:`~backend.gateway.standings.Feed`. Asked also without seats: is anybody there?"""
        try:
            async with asyncio.timeout(_SECONDS_PER_QUESTION):
                remaining, found = iter(seats), []
                while batch := list(itertools.islice(remaining, MAX_SEATS_PER_QUESTION)):
                    found += await self._ask(batch)
                return found or await self._ask([])
        except (httpx.HTTPError, ValidationError, TimeoutError) as error:
            raise FeedError(f"no standings from {self._url}: {_reason(error)}") from error

    async def _ask(self, seats: list[Seat]) -> list[Standing]:
        question = StandingsQuestion(seats=[_document(seat) for seat in seats], gateway=self._own_url)
        async with self._client.stream(
            "POST", self._url, json=question.model_dump(exclude_none=True)
        ) as response:
            response.raise_for_status()
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    raise FeedError(f"the answer of {self._url} is over {_MAX_ANSWER_BYTES} bytes")
        answer = StandingsAnswer.model_validate_json(bytes(body))
        if answer.now is not None:
            self._on_time(answer.now)
        return [told.to_standing() for told in answer.standings]


def _document(seat: Seat) -> SeatDocument:
    role: Literal["silo", "worker"] = "silo" if seat.role is Role.SILO else "worker"
    return SeatDocument(job=seat.job, replica=seat.replica, role=role, party=seat.party)


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in _WRONG_TOKEN:
        return (
            f"it answers {error.response.status_code}; set TRUNKLINE_GATEWAY_STANDINGS_TOKEN to the control "
            "plane's TRUNKLINE_STANDINGS_TOKEN"
        )
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
