"""A party's session: log-in, heartbeats, and log-in again when a session has ended for its age."""

import asyncio
import base64
import contextlib
import secrets
from types import TracebackType
from typing import Self

from splitlearn.control_plane.admission import (
    FederationAnswer,
    LoginAnswer,
    LoginBody,
    NonceAnswer,
    SessionAnswer,
)
from splitlearn.control_plane.errors import RefusedError, SupersededError, UnreachableError
from splitlearn.control_plane.requests import OnReach, Requests, ignore_reach
from splitlearn.control_plane.state_folder import Boots, Membership, StateFolder
from splitlearn.errors import IdentityError, TrunklineError
from splitlearn.identity import LOGIN_CONTEXTS, RevocationList, login_statement

HEARTBEAT_SECONDS = 20.0
_NOT_SIGNED_IN = 401


def new_boot_id() -> str:
    """Return the random name of a new process."""
    return secrets.token_hex(16)


class Session:
    """Speaks for a party as long as it is entered; an async context manager that logs in.

    Args:
        state: The party's folder, enrolled, locked by this process or by the one that started it.
        boot_id: Name of this process. A child that shares its parent's gets a session of its own without
            taking over; None draws a new one.
        on_reach: Told while the control plane cannot be reached.
        log_out: Whether to end the session on the way out, so that another machine need not wait.
    """

    def __init__(
        self,
        state: StateFolder,
        *,
        boot_id: str | None = None,
        on_reach: OnReach = ignore_reach,
        log_out: bool = True,
    ) -> None:
        self._state, self._membership = state, state.enrolled()
        self.boot_id = boot_id or new_boot_id()
        self.requests = Requests(self._membership.url, on_reach=on_reach)
        self.epoch = 0
        self._token: str | None = None
        self._log_out = log_out
        self._login_lock = asyncio.Lock()
        self._ended: asyncio.Future[TrunklineError] | None = None
        self._heart: asyncio.Task[None] | None = None

    @property
    def membership(self) -> Membership:
        """Who this is, and where."""
        return self._membership

    async def __aenter__(self) -> Self:
        """Log in, wait for the control plane if need be, and begin the heartbeats."""
        self._ended = asyncio.get_running_loop().create_future()
        try:
            await self._log_in(stale=None)
            await self.refresh_revocations()
        except BaseException:
            await self.requests.close()
            raise
        self._heart = asyncio.create_task(self._beat(), name="heartbeats")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End heartbeats, session and connections."""
        assert self._heart is not None, "entered"
        self._heart.cancel()
        await asyncio.gather(self._heart, return_exceptions=True)
        if self._log_out and not self._is_over:
            with contextlib.suppress(TrunklineError):
                await self.requests.send("DELETE", "/session", token=self._token, patience_seconds=0)
        await self.requests.close()

    @property
    def _is_over(self) -> bool:
        return self._ended is not None and self._ended.done()

    async def ended(self) -> TrunklineError:
        """Wait until the session can go on no more, and return why."""
        assert self._ended is not None, "entered"
        return await asyncio.shield(self._ended)

    async def token(self) -> str:
        """Return the current token.

        Raises:
            TrunklineError: What ended the session for good.
        """
        if self._ended is not None and self._ended.done():
            raise self._ended.result()
        assert self._token is not None, "logged in"
        return self._token

    async def renew(self, stale: str) -> str:
        """Log in again because ``stale`` was refused, unless another call did so already.

        Raises:
            SupersededError, RevokedError: This process may speak for the party no more.
        """
        await self._log_in(stale=stale)
        return await self.token()

    async def refresh_revocations(self, *, known_number: int | None = None) -> None:
        """Fetch the newest revocation list if it is newer than the one in the folder.

        Args:
            known_number: The newest list's number, where the control plane has told it.
        """
        trust = self._state.trust()
        mine = trust.revocations.number if trust.revocations else 0
        if known_number is not None and known_number <= mine:
            return
        answer = await self.requests.ask("GET", "/federation", FederationAnswer)
        if answer.revocation_list is not None and answer.revocation_number > mine:
            self._state.update_revocations(
                RevocationList.from_bytes(base64.b64decode(answer.revocation_list))
            )

    async def _log_in(self, *, stale: str | None) -> None:
        async with self._login_lock:
            if stale != self._token:
                return
            try:
                answer = await self._ask_log_in()
            except (RefusedError, IdentityError) as error:
                self._end(error)
                raise
            self._token, self.epoch = answer.token, answer.epoch

    async def _ask_log_in(self) -> LoginAnswer:
        if self._token is not None:
            # Not what the folder says now: a process that took over must not be taken over in turn.
            return await self._log_in_after(self.boot_id)
        boots = self._state.boots()
        self._state.write_boots(Boots(last=boots.last, trying=self.boot_id))
        try:
            answer = await self._log_in_after(boots.last)
        except SupersededError:
            # The last process may have been killed between the server's word and its own note of it.
            if boots.trying in {None, boots.last, self.boot_id}:
                self._state.write_boots(boots)
                raise
            answer = await self._log_in_after(boots.trying)
        self._state.write_boots(Boots(last=self.boot_id))
        return answer

    async def _log_in_after(self, previous: str | None) -> LoginAnswer:
        while True:
            try:
                return await self.requests.ask(
                    "POST", "/login", LoginAnswer, body=await self._proof(previous)
                )
            except RefusedError as error:
                if error.code != "nonce_refused":  # it grew old, or its answer was lost
                    raise

    async def _proof(self, previous: str | None) -> LoginBody:
        membership = self._membership
        nonce = await self.requests.ask("GET", "/login/nonce", NonceAnswer)
        if nonce.audience != membership.url:
            raise IdentityError(
                f"the control plane says that it is {nonce.audience}, this party enrolled at "
                f"{membership.url}; nothing was signed: compare its TRUNKLINE_PUBLIC_URL with the invitation"
            )
        kind = membership.certificate_kind
        statement = login_statement(
            audience=membership.url,
            kind=kind,
            name=membership.name,
            nonce=nonce.nonce,
            boot_id=self.boot_id,
            previous_boot_id=previous or "",
        )
        signature = self._state.signing_key().sign(LOGIN_CONTEXTS[kind], statement)
        return LoginBody(
            kind=membership.kind,
            name=membership.name,
            nonce=nonce.nonce,
            boot_id=self.boot_id,
            previous_boot_id=previous,
            signature=base64.b64encode(signature).decode("ascii"),
        )

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self._beat_once()
            except UnreachableError:
                continue
            except TrunklineError as error:
                self._end(error)
                return

    async def _beat_once(self) -> None:
        token = await self.token()
        try:
            answer = await self.requests.ask("POST", "/session/heartbeat", SessionAnswer, token=token)
        except RefusedError as error:
            if error.status != _NOT_SIGNED_IN:
                raise
            await self.renew(token)
        else:
            await self.refresh_revocations(known_number=answer.revocation_number)

    def _end(self, error: TrunklineError) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(error)
