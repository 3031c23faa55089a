"""What a person sees where a sign-in by a provider is refused: a plain page, which loads and runs nothing."""

from html import escape
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse

from backend.app_prefix import API_PREFIX
from backend.errors import ApiError

_PATH: Final = f"{API_PREFIX}/openid/"
_HTML: Final = "text/html"
_ERRORS: Final = 400


def wants_page(request: Request) -> bool:
    """Tell whether a browser shows the answer to a person: it came to these routes, and names HTML itself."""
    is_here = request.url.path.startswith(_PATH)
    asked = (part.partition(";")[0].strip() for part in request.headers.get("accept", "").split(","))
    return is_here and _HTML in asked


def refusal_page(error: ApiError, *, headers: dict[str, str]) -> HTMLResponse:
    """Return a refusal for people; it says what its JSON says, and where to begin again."""
    remedy = f"<p>What to do: {escape(error.remedy)}.</p>" if error.remedy else ""
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Not signed in</title></head><body>'
        f"<h1>You are not signed in</h1><p>{escape(error.message)}</p>{remedy}"
        f'<p><a href="{_PATH}start">Begin again</a>, or go <a href="/">back</a>.</p>'
        f"<p>For whoever runs this server: <code>{escape(error.code)}</code></p></body></html>"
    )
    return HTMLResponse(page, status_code=error.status, headers={**headers, "Vary": "Accept"})


def also_as_page(responses: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """Return a route's documented answers, refusals also as pages."""
    return {
        code: {**answer, "content": {**answer["content"], _HTML: {"schema": {"type": "string"}}}}
        if int(code) >= _ERRORS
        else answer
        for code, answer in responses.items()
    }
