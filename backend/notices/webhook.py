"""Sending a notice to a URL, and nowhere else.

The host's name is asked for once, every address that it has is looked at, and the connection goes to the very
one that was: a name that means something else a moment later leads nowhere. No redirect is followed, no proxy
asked, and nothing of the answer but its status is read.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from backend.notices.errors import DeliveryError, TargetRefusedError

SIGNATURE_HEADER: Final = "Trunkline-Signature"
ID_HEADER: Final = "Trunkline-Notice"
_TRANSLATED: Final = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)
"""IPv6 addresses that stand for IPv4 ones: what they reach is not seen from here."""


def check_url(url: str, *, allow_private: bool) -> None:
    """Refuse a URL that no notice may go to, as far as that can be told without asking for its host.

    Raises:
        TargetRefusedError: Says why.
    """
    try:
        parts, _ = urlsplit(url), httpx2.URL(url)
        host, _ = parts.hostname, parts.port
    except (ValueError, httpx2.InvalidURL) as error:
        raise TargetRefusedError(f"{url[:200]!r} is no URL: {error}") from error
    schemes = {"https", "http"} if allow_private else {"https"}
    if parts.scheme not in schemes or not host:
        raise TargetRefusedError(f"{url[:200]!r} is not {' or '.join(sorted(schemes))}://host[:port][/path]")
    if parts.username is not None or parts.password is not None or not _is_plain(url):
        raise TargetRefusedError(
            f"{url[:200]!r} holds a user's name, a password, or characters that no URL has"
        )
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not allow_private and not is_public(address):
        raise TargetRefusedError(f"{host} is a private, loopback or link-local address")


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether an address belongs to the internet, not to this machine or its networks."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast


def signature(secret: bytes, body: bytes, *, now: datetime) -> str:
    """Return what shows a receiver that a notice is ours, and how old: HMAC-SHA-256 over ``time.body``."""
    moment = str(int(now.timestamp()))
    digest = hmac.new(secret, moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


def post(
    url: str,
    content: Mapping[str, Any],
    *,
    secret: bytes,
    now: datetime,
    timeout_seconds: float,
    allow_private: bool,
) -> None:
    """Send a notice; done when the host answers with a status of success.

    Raises:
        DeliveryError: It did not arrive, or may not go there.
    """
    try:
        check_url(url, allow_private=allow_private)
    except TargetRefusedError as error:
        raise DeliveryError(error.message) from error
    target = httpx2.URL(url)
    port = target.port or (443 if target.scheme == "https" else 80)
    address = _resolve(target.host, port, allow_private=allow_private)
    body = json.dumps(content, sort_keys=True).encode()
    headers = {
        "Host": target.netloc.decode("ascii"),
        "Content-Type": "application/json",
        "User-Agent": "trunkline",
        ID_HEADER: str(content["id"]),
        SIGNATURE_HEADER: signature(secret, body, now=now),
    }
    asked = _ask(target, address, body, headers, timeout_seconds=timeout_seconds)
    try:
        status = asyncio.run(asyncio.wait_for(asked, timeout_seconds))
    except (httpx2.HTTPError, OSError) as error:  # TimeoutError is one
        raise DeliveryError(f"the host did not take it: {type(error).__name__}") from error
    if not httpx2.codes.is_success(status):
        raise DeliveryError(f"the host answered {status}")


async def _ask(
    target: httpx2.URL, address: str, body: bytes, headers: Mapping[str, str], *, timeout_seconds: float
) -> int:
    """Return the status; its caller's limit is on the whole, for a host may send a byte now and then."""
    async with (
        httpx2.AsyncClient(timeout=timeout_seconds, follow_redirects=False, trust_env=False) as client,
        client.stream(
            "POST",
            target.copy_with(host=address),
            content=body,
            headers=headers,
            extensions={"sni_hostname": target.host},
        ) as response,
    ):
        return response.status_code


def _resolve(host: str, port: int, *, allow_private: bool) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryError(f"the name {host!r} cannot be resolved") from error
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not allow_private:
        for address in addresses:
            if not is_public(ipaddress.ip_address(address)):
                raise DeliveryError(f"{host!r} is at a private, loopback or link-local address")
    return addresses[0]
