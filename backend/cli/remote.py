"""The API as a command sees it."""

from collections.abc import Iterator
from typing import Any

import httpx2
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.app_prefix import API_PREFIX
from backend.cli.output import CommandError

_TIMEOUT_SECONDS = 30.0


class ClientSettings(BaseSettings):
    """Where the control plane is and who asks, from ``TRUNKLINE_URL`` and ``TRUNKLINE_TOKEN``."""

    model_config = SettingsConfigDict(env_prefix="TRUNKLINE_", extra="ignore")

    url: str = "http://127.0.0.1:8470"
    token: SecretStr | None = None


class Remote:
    """Calls the API and turns refusals into sentences.

    Args:
        settings: Address and token.
    """

    def __init__(self, settings: ClientSettings) -> None:
        headers = {"Authorization": f"Bearer {settings.token.get_secret_value()}"} if settings.token else {}
        self._url = settings.url.rstrip("/")
        self._client = httpx2.Client(headers=headers, timeout=_TIMEOUT_SECONDS)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer's JSON, or None when it has none.

        Raises:
            CommandError: Refused, or not reached.
        """
        try:
            response = self._client.request(method, self._url + API_PREFIX + path, json=body)
        except httpx2.HTTPError as error:
            raise CommandError(
                f"cannot reach the control plane at {self._url}: {error}",
                remedy="start it by: trunkline api; or set TRUNKLINE_URL to its address",
            ) from error
        if response.is_success:
            return response.json() if response.content else None
        raise _refusal(response)

    def rows(self, path: str) -> Iterator[dict[str, Any]]:
        """Return all rows of a list, page by page."""
        after: str | None = None
        while True:
            page = self.call("GET", path if after is None else f"{path}?after={after}")
            yield from page["items"]
            after = page["next"]
            if after is None:
                return


def _refusal(response: httpx2.Response) -> CommandError:
    try:
        body = response.json()
        return CommandError(str(body["message"]), remedy=body["remedy"])
    except (ValueError, KeyError, TypeError):
        return CommandError(f"the control plane answered {response.status_code} without a reason")
