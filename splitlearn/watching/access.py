"""Who may read ``/metrics``: whoever shows the token; without one, this machine alone."""

import hmac
import ipaddress
from collections.abc import Mapping

_SCHEME = "bearer"
_FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-real-ip"})


def may_read(*, token: str | None, peer: str | None, headers: Mapping[str, str]) -> bool:
    """Tell whether a request for the numbers is answered.

    A proxy on this machine hides who asks: what it has handed on is not taken for a word of this machine.

    Args:
        token: The one that opens; None where none is set.
        peer: Address that the connection comes from; None where the transport knows none.
        headers: Of the request; names in any case.
    """
    folded = {name.lower(): value for name, value in headers.items()}
    if token is not None:
        scheme, _, shown = folded.get("authorization", "").partition(" ")
        return scheme.lower() == _SCHEME and hmac.compare_digest(shown.encode(), token.encode())
    return is_loopback(peer) and not _FORWARDED & folded.keys()


def is_loopback(address: str | None) -> bool:
    """Tell whether an address is this machine's own."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
