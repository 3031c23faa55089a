"""What the API's document promises."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from backend.settings import Settings
from tests.unit.backend.conftest import World


def _schema(world: World) -> dict[str, Any]:
    application = world.anybody.client.app
    assert isinstance(application, FastAPI)
    return application.openapi()


def _operations(world: World) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in _schema(world)["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


class TestDocument:
    def test_operation_ids_are_unique_words(self, world: World) -> None:
        ids = [operation["operationId"] for _, operation in _operations(world)]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", word) for word in ids)

    def test_every_error_has_the_one_form(self, world: World) -> None:
        for route, operation in _operations(world):
            errors = {code: answer for code, answer in operation["responses"].items() if code >= "400"}
            assert "500" in errors, route
            for code, answer in errors.items():
                content = answer["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorBody"}, (route, code)
                assert content["examples"], (route, code)

    def test_every_request_body_refuses_unknown_fields(self, world: World) -> None:
        schema = _schema(world)
        bodies = [
            operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
            for _, operation in _operations(world)
            if "requestBody" in operation
        ]
        assert bodies
        for name in bodies:
            assert schema["components"]["schemas"][name]["additionalProperties"] is False, name

    def test_every_route_says_what_it_does(self, world: World) -> None:
        for route, operation in _operations(world):
            assert operation.get("description"), route

    def test_is_served_with_its_pages(self, world: World) -> None:
        for path in ("/docs", "/openapi.json"):
            assert world.anybody.client.get(path).status_code == 200


def _unbounded(
    schema: dict[str, Any], part: dict[str, Any], where: str, above: frozenset[str]
) -> Iterator[str]:
    """Places of a request where a text or a list may be as long as one likes."""
    if "$ref" in part:
        name = part["$ref"].rsplit("/", 1)[1]
        if name not in above:
            yield from _unbounded(schema, schema["components"]["schemas"][name], where, above | {name})
        return
    for choice in part.get("anyOf", []):
        yield from _unbounded(schema, choice, where, above)
    bounds = {"string": {"maxLength", "enum", "const", "pattern", "format"}, "array": {"maxItems"}}
    if (kind := part.get("type")) in bounds and not bounds[kind] & set(part):
        yield where
    if kind == "array":
        yield from _unbounded(schema, part["items"], f"{where}[]", above)
    for name, field in part.get("properties", {}).items():
        yield from _unbounded(schema, field, f"{where}.{name}", above)


class TestLimitsInTheDocument:
    def test_every_text_and_list_of_a_request_has_one(self, world: World) -> None:
        schema, found = _schema(world), set[str]()
        for route, operation in _operations(world):
            for parameter in operation.get("parameters", []):
                found.update(
                    _unbounded(schema, parameter["schema"], f"{route} {parameter['name']}", frozenset())
                )
            if "requestBody" in operation:
                body = operation["requestBody"]["content"]["application/json"]["schema"]
                found.update(_unbounded(schema, body, route, frozenset()))
        # The limit on the whole body holds for these: a worker's list of precisions, each one of three.
        assert found <= {"PUT /api/v1/worker/capabilities.precisions"}

    def test_every_list_comes_in_pages(self, world: World) -> None:
        schema = _schema(world)
        for route, operation in _operations(world):
            content = operation["responses"].get("200", {}).get("content", {})
            name = content.get("application/json", {}).get("schema", {}).get("$ref", "").rsplit("/", 1)[-1]
            if name.startswith("Page_"):
                assert "next" in schema["components"]["schemas"][name]["properties"]
                assert "after" in {parameter["name"] for parameter in operation["parameters"]}, route


class TestErrors:
    def test_unknown_field_is_refused_by_name(self, world: World) -> None:
        answer = world.admin("POST", "/projects", {"name": "second", "nmae": "x"})
        assert answer.status_code == 422
        assert (answer.json()["code"], "nmae" in answer.json()["message"]) == ("invalid_request", True)

    def test_a_refused_value_is_not_echoed(self, world: World) -> None:
        answer = world.anybody("POST", "/sign-in", {"name": "admin", "password": "s3cret" * 100})
        assert answer.status_code == 422
        assert "s3cret" not in answer.text

    def test_large_body_is_refused(self, world: World) -> None:
        limit = world.server.settings.max_body_bytes
        answer = world.anybody("POST", "/sign-in", {"name": "admin", "password": "x" * limit})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")

    def test_large_body_without_a_length_is_refused(self, world: World) -> None:
        block = b"x" * (64 << 10)
        count = world.server.settings.max_body_bytes // len(block) + 1
        answer = world.anybody.client.post(
            "/api/v1/sign-in",
            content=(block for _ in range(count)),
            headers={"Content-Type": "application/json"},
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")

    def test_a_body_that_cannot_be_read_is_refused_in_the_one_form(self, world: World) -> None:
        for content in (b"{", b"\xff", b"[" * 100_000, b'{"name": "\\ud800"}', b"", b"1" * 5000, b"null"):
            answer = world.anybody.client.post(
                "/api/v1/sign-in", content=content, headers={"Content-Type": "application/json"}
            )
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), content[:20]

    def test_unknown_path_and_method_have_the_one_form(self, world: World) -> None:
        assert world.anybody.refused("GET", "/nothing") == (404, "not_found")
        assert world.anybody.refused("DELETE", "/sign-in") == (405, "http")

    def test_our_own_failure_shows_its_detail_in_the_log_only(
        self, world: World, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with world.server.database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE federation RENAME TO gone")
        answer = world.anybody("GET", "/federation")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "gone" not in answer.text
        assert "sqlite" not in answer.text.lower()
        log = capfd.readouterr().err
        assert answer.headers["X-Request-Id"] in log
        assert "no such table: federation" in log


class TestHealth:
    def test_not_ready_with_another_schema(self, world: World) -> None:
        with world.server.database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        assert world.anybody.client.get("/readyz").status_code == 503
        assert world.anybody.client.get("/healthz").status_code == 200


class TestLimits:
    def test_lists_come_in_pages(self, world: World, settings: Settings) -> None:
        for number in range(3):
            world.admin.ok("POST", "/projects", {"name": f"p{number}"})
        small = settings.model_copy(update={"max_page": 2})
        object.__setattr__(world.server, "settings", small)
        first = world.admin.ok("GET", "/projects")
        second = world.admin.ok("GET", f"/projects?after={first['next']}")
        names = [item["name"] for page in (first, second) for item in page["items"]]
        assert (names, second["next"]) == (["default", "p0", "p1", "p2"], None)

    def test_invitations_and_tokens_come_in_pages(self, world: World, settings: Settings) -> None:
        object.__setattr__(world.server, "settings", settings.model_copy(update={"max_page": 2}))
        for path, create in (("/silos/invitations", "/silos/invitations"), ("/tokens", "/tokens")):
            made = [world.admin.ok("POST", create, {"name": f"n{number}"})["id"] for number in range(5)]
            seen, query = [], ""
            while True:
                page = world.admin.ok("GET", path + query)
                seen += [item["id"] for item in page["items"]]
                if page["next"] is None:
                    break
                query = f"?after={page['next']}"
            assert (len(seen), set(seen)) == (5, set(made)), path
