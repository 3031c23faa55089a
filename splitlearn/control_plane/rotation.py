"""A party takes a new key while it works; normative in docs/control-plane.md, section 6.

In the state folder, ``next.key`` is written before anything is sent; the new certificate then takes the old
one's place in one step, and whoever reads the folder from then on has the new pair. A process that is killed
anywhere leaves a party that can speak, and the same command goes on where it ended.
"""

import asyncio
import base64

from splitlearn.control_plane.admission import NonceAnswer, RotatedBody, RotationAnswer, RotationBody
from splitlearn.control_plane.enrolment import PENDING_POLL_SECONDS
from splitlearn.control_plane.errors import PendingError
from splitlearn.control_plane.requests import OnReach, Requests, ignore_reach
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.errors import IdentityError
from splitlearn.identity import (
    Certificate,
    Context,
    SigningKey,
    rotated_statement,
    rotation_statement,
)


async def rotate_key(
    state: StateFolder,
    *,
    wait: bool = False,
    on_reach: OnReach = ignore_reach,
    patience_seconds: float | None = None,
) -> Certificate:
    """Have a new key certified and use it; the party's process may run meanwhile, and its jobs go on.

    Args:
        state: The folder of an enrolled party.
        wait: Stay until a person has signed with the offline root.
        on_reach: Told while the control plane cannot be reached.
        patience_seconds: Longest absence of the control plane; None waits for ever.

    Raises:
        StorageError: The party is not enrolled, or the disk refused.
        FolderInUseError: Another process rotates the key.
        PendingError: The certificate waits for a person, and ``wait`` is off.
        RefusedError: The control plane refuses; the message says why.
        UnreachableError: Nobody answered within patience.
    """
    with state.rotating():
        rotation = _Rotation(state, on_reach=on_reach, patience_seconds=patience_seconds)
        try:
            if not state.has_switched_key():
                state.switch_key(await rotation.certified(wait=wait))
            await rotation.say_in_use()
            state.drop_old_key()
        finally:
            await rotation.requests.close()
    return state.identity().certificate


class _Rotation:
    def __init__(self, state: StateFolder, *, on_reach: OnReach, patience_seconds: float | None) -> None:
        self._state, self._membership = state, state.enrolled()
        self._patience_seconds = patience_seconds
        self.requests = Requests(self._membership.url, on_reach=on_reach)

    async def certified(self, *, wait: bool) -> Certificate:
        key = self._state.next_signing_key()
        while True:
            answer = await self.requests.ask(
                "POST",
                "/rotation",
                RotationAnswer,
                body=await self._body(key),
                patience_seconds=self._patience_seconds,
            )
            if answer.certificate is not None:
                return self._checked(base64.b64decode(answer.certificate), key)
            if not wait:
                raise PendingError(
                    f"the new key of {self._membership.kind} {self._membership.name!r} waits for a person "
                    "with the offline root; an admin signs it by: trunkline root sign; then run the same "
                    "command again. Until then the old key works as before",
                    code="party_pending",
                )
            await asyncio.sleep(PENDING_POLL_SECONDS)

    async def say_in_use(self) -> None:
        membership = self._membership
        nonce = await self._nonce()
        key = self._state.identity().signing_key
        statement = rotated_statement(
            audience=membership.url,
            kind=membership.certificate_kind,
            name=membership.name,
            nonce=nonce,
            key=key.public_key,
        )
        body = RotatedBody(
            kind=membership.kind,
            name=membership.name,
            nonce=nonce,
            signature=_text(key.sign(Context.KEY_ROTATED, statement)),
        )
        await self.requests.ask(
            "POST", "/rotation/finish", RotationAnswer, body=body, patience_seconds=self._patience_seconds
        )

    async def _body(self, key: SigningKey) -> RotationBody:
        membership, old = self._membership, self._state.identity().signing_key
        nonce = await self._nonce()
        statement = rotation_statement(
            audience=membership.url,
            kind=membership.certificate_kind,
            name=membership.name,
            nonce=nonce,
            old_key=old.public_key,
            new_key=key.public_key,
        )
        return RotationBody(
            kind=membership.kind,
            name=membership.name,
            nonce=nonce,
            public_key=_text(key.public_key.raw),
            signature=_text(old.sign(Context.KEY_ROTATION, statement)),
            new_signature=_text(key.sign(Context.KEY_ROTATION, statement)),
        )

    async def _nonce(self) -> str:
        answer = await self.requests.ask(
            "GET", "/login/nonce", NonceAnswer, patience_seconds=self._patience_seconds
        )
        if answer.audience != self._membership.url:
            raise IdentityError(
                f"the control plane says that it is {answer.audience}, this party enrolled at "
                f"{self._membership.url}; nothing was signed"
            )
        return answer.nonce

    def _checked(self, raw: bytes, key: SigningKey) -> Certificate:
        membership = self._membership
        certificate = Certificate.from_bytes(raw)
        root = self._state.trust().root_public_key
        root.verify(Context.CERTIFICATE, certificate.signed_part(), certificate.signature)
        held = (certificate.kind, certificate.name, certificate.public_key)
        if held != (membership.certificate_kind, membership.name, key.public_key):
            raise IdentityError("the certificate is for another party or key; tell the federation")
        return certificate


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
