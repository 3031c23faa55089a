"""The control plane as a user's program sees it: five lines of REST, with errors as sentences."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from splitlearn.errors import LinkError, TrunklineError
from splitlearn.loopback import UNPROXIED

_API = "/api/v1"
_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.25
_DATA = "data: "  # a line of server-sent events


class RefusedError(TrunklineError):
    """The control plane refused a request; the message is its own."""

    code = "refused"
    exit_code = 12
    public = "the control plane refused"


class ControlPlane:
    """Calls the REST API.

    Args:
        url: Its address.
        token: A user's token; None before :meth:`sign_in`.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.url = url
        self._client = httpx2.Client(base_url=url + _API, timeout=_TIMEOUT_SECONDS, mounts=UNPROXIED)
        if token is not None:
            self._authorize(token)

    def sign_in(self, name: str, password: str) -> str:
        """Get a token and use it from now on."""
        answer = self.call("POST", "/sign-in", {"name": name, "password": password})
        token: str = answer["token"]
        self._authorize(token)
        return token

    def call(
        self, method: str, path: str, body: object = None, *, query: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the answer's JSON, or None where there is none.

        Raises:
            RefusedError: With the control plane's sentence and remedy.
            LinkError: It cannot be reached.
        """
        response = self._ask(method, path, json=body, params=query)
        return response.json() if response.content else None

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """Return what has happened to a job so far, oldest first; errors as of :meth:`call`."""
        response = self._ask("GET", f"/jobs/{job_id}/events", params={"follow": "false"})
        lines = response.text.splitlines()
        return [json.loads(line.removeprefix(_DATA)) for line in lines if line.startswith(_DATA)]

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx2.HTTPError as error:
            raise LinkError(
                f"cannot reach the control plane at {self.url}: {error}; see that it runs"
            ) from error
        if not response.is_success:
            raise _refusal(response)
        return response

    def _authorize(self, token: str) -> None:
        self._client.headers["Authorization"] = f"Bearer {token}"


def wait_for(find: Callable[[], Any], *, timeout_seconds: float, what: str) -> Any:
    """Ask until something is found.

    Raises:
        LinkError: It did not come in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while (found := find()) is None:
        if time.monotonic() > deadline:
            raise LinkError(f"{what} did not come within {timeout_seconds:g} s; see the logs")
        time.sleep(_POLL_SECONDS)
    return found


def _refusal(response: httpx2.Response) -> RefusedError:
    try:
        body = response.json()
        remedy = f"; {body['remedy']}" if body.get("remedy") else ""
        return RefusedError(f"{body['message']}{remedy}")
    except (ValueError, KeyError, TypeError):
        return RefusedError(f"the control plane answered {response.status_code} without a reason")
