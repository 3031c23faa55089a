"""An OpenID provider of a few lines, a process of its own: ``python -m tests.contract.openid_provider``.

It signs everybody in as the person whom ``/control`` was told, exactly as the standards say, except for what
``/control`` was told to do wrong. Its address is its only word on standard output.
"""

import base64
import hashlib
import json
import secrets
import socket
import time
from typing import Any
from urllib.parse import parse_qsl, urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OctKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT_ID, CLIENT_SECRET = "trunkline-test", "a secret of the client's, with % and :"


class Provider:
    """Its keys, the codes that it gave, and what it does wrong."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.keys: list[Key] = [RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})]
        self.codes: dict[str, dict[str, str]] = {}
        self.claims: dict[str, Any] = {}
        self.wrong: dict[str, Any] = {}
        self.asked: list[str] = []

    def configuration(self, _request: Request) -> Response:
        self.asked.append("configuration")
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        }
        return JSONResponse({**document, **self.wrong.get("configuration", {})})

    def published(self, _request: Request) -> Response:
        self.asked.append("keys")
        return JSONResponse(KeySet(self.keys).as_dict(private=False))

    def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.issuer, **self.wrong.get("answer", {})}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", status_code=302)

    async def token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        asked = self.codes.pop(form.get("code", ""), None)
        if not self._is_client(request.headers.get("authorization", "")):
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        shown = base64.urlsafe_b64encode(challenge).decode().rstrip("=")
        if (
            asked is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != asked["redirect_uri"]
            or shown != asked["code_challenge"]
        ):
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        return JSONResponse({"token_type": "Bearer", "id_token": self._id_token(asked)})

    async def control(self, request: Request) -> Response:
        told = await request.json()
        self.claims, self.wrong = told.get("claims", {}), told.get("wrong", {})
        if told.get("rotate"):
            self.keys = [ECKey.generate_key("P-256", {"kid": secrets.token_hex(4), "use": "sig"})]
        asked, self.asked = self.asked, []
        return JSONResponse({"asked": asked})

    def _is_client(self, header: str) -> bool:
        return header == "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()

    def _id_token(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": asked["client_id"],
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.claims,
            **self.wrong.get("claims", {}),
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return self._signed(claims)

    def _signed(self, claims: dict[str, Any]) -> str:
        match self.wrong.get("signature"):
            case "none":
                parts = [json.dumps({"alg": "none"}).encode(), json.dumps(claims).encode(), b""]
                return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
            case "client secret":
                key = OctKey.import_key(CLIENT_SECRET)
                return jwt.encode({"alg": "HS256", "kid": self.keys[0].kid}, claims, key)
            case "own key":
                forged = RSAKey.generate_key(2048, {"kid": str(self.keys[0].kid)})
                return jwt.encode({"alg": "RS256", "kid": self.keys[0].kid}, claims, forged)
            case _:
                algorithm = "RS256" if isinstance(self.keys[0], RSAKey) else "ES256"
                return jwt.encode({"alg": algorithm, "kid": self.keys[0].kid}, claims, self.keys[0])


def main() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    issuer = f"http://127.0.0.1:{listener.getsockname()[1]}"
    provider = Provider(issuer)
    routes = [
        Route("/.well-known/openid-configuration", provider.configuration),
        Route("/keys", provider.published),
        Route("/authorize", provider.authorize),
        Route("/token", provider.token, methods=["POST"]),
        Route("/control", provider.control, methods=["POST"]),
    ]
    print(issuer, flush=True)  # noqa: T201 - the process's only word
    config = uvicorn.Config(Starlette(routes=routes), log_level="error", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
