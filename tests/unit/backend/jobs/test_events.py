"""Server-sent events: every one once, in order, also over several connections."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from backend.app_prefix import API_PREFIX
from backend.db.models import Event
from backend.events import EventKind, emit
from backend.events.bus import Bus
from backend.events.stream import PAGE, stream
from backend.organizations.repository import find_organization, find_project
from tests.unit.backend.conftest import ON_SQLITE_ALONE, Clock, World
from tests.unit.backend.jobs.conftest import Federation


def parse(text: str) -> list[dict[str, Any]]:
    """Read a stream as a browser does: blocks of fields, comments left out."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            event = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(event["number"]), event["kind"])
            events.append(event)
    return events


def read(world: World, path: str, *, last: str | None = None) -> list[dict[str, Any]]:
    between = "&" if "?" in path else "?"
    headers = {"Authorization": f"Bearer {world.admin.token}"}
    if last is not None:
        headers["Last-Event-ID"] = last
    answer = world.anybody.client.get(f"{API_PREFIX}{path}{between}follow=false", headers=headers)
    assert answer.is_success, answer.text
    assert answer.status_code == 204 or answer.headers["content-type"].startswith("text/event-stream")
    return parse(answer.text)


class TestOfAJob:
    def test_tell_its_whole_life(self, federation: Federation) -> None:
        job_id = federation.running()
        federation.commit(job_id, 1)
        federation.release(job_id, "completed", result=federation.upload(b"trunk"))
        federation.finish(job_id)
        federation.look()
        events = read(federation.world, f"/jobs/{job_id}/events")
        assert [event["kind"] for event in events] == [
            *("job_submitted", "job_state", "silo_approval", "silo_approval", "job_state"),
            *("lease_granted", "job_state", "silo_attached", "silo_attached", "job_state"),
            *("round_committed", "job_state", "silo_finished", "silo_finished", "job_state"),
        ]
        moves = [event["to"] for event in events if event["kind"] == "job_state"]
        assert moves == ["awaiting_approval", "queued", "preparing", "running", "finishing", "completed"]
        assert {event["job"] for event in events} == {job_id}

    @ON_SQLITE_ALONE
    def test_go_on_where_the_reader_was(self, federation: Federation) -> None:
        job_id = federation.submit()
        federation.submit(name="another")  # its events stand between
        first = read(federation.world, f"/jobs/{job_id}/events")
        federation.approve(job_id)
        rest = read(federation.world, f"/jobs/{job_id}/events", last=str(first[-1]["number"]))
        assert [event["kind"] for event in rest] == ["silo_approval", "silo_approval"]
        assert first + rest == read(federation.world, f"/jobs/{job_id}/events")

    @ON_SQLITE_ALONE
    def test_may_be_read_in_two_parts_at_any_place(self, federation: Federation) -> None:
        job_id = federation.submit()
        federation.approve(job_id)
        whole = read(federation.world, f"/jobs/{job_id}/events")
        for cut in range(len(whole)):
            number = whole[cut - 1]["number"] if cut else 0
            assert whole[cut:] == read(federation.world, f"/jobs/{job_id}/events", last=str(number))
            assert whole[cut:] == read(federation.world, f"/jobs/{job_id}/events?after={number}")

    @ON_SQLITE_ALONE
    def test_end_with_the_job(self, federation: Federation) -> None:
        """Without ``follow=false``: a stream that went on would hang here."""
        job_id = federation.running()
        federation.release(job_id, "failed")
        admin = federation.world.admin
        events = parse(admin("GET", f"/jobs/{job_id}/events").text)
        assert events[-1]["to"] == "failed"
        after = admin("GET", f"/jobs/{job_id}/events?after={events[-1]['number']}")
        assert (after.status_code, after.content) == (204, b"")

    @ON_SQLITE_ALONE
    def test_are_not_another_organisations(self, federation: Federation) -> None:
        job_id = federation.submit()
        foreign = federation.foreign_admin()
        assert foreign.refused("GET", f"/jobs/{job_id}/events") == (404, "not_found")
        assert parse(foreign("GET", "/events?follow=false").text) == []


@ON_SQLITE_ALONE
class TestBadNumbers:
    def test_of_the_last_event_are_refused(self, world: World) -> None:
        for last in ("", "x", "-1", "1.5", "٣", str(1 << 63), "9" * 20, "1" * 21):
            token = f"Bearer {world.admin.token}"
            headers = {b"Authorization": token.encode(), b"Last-Event-ID": last.encode()}
            answer = world.anybody.client.get(f"{API_PREFIX}/events?follow=false", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), last

    def test_in_the_query_are_refused(self, world: World) -> None:
        for after in ("", "x", "-1", str(1 << 63)):
            answer = world.admin.refused("GET", f"/events?follow=false&after={after}")
            assert answer == (422, "invalid_request"), after

    def test_a_number_that_is_not_there_yet_gives_nothing(self, world: World) -> None:
        assert read(world, "/events", last=str((1 << 63) - 1)) == []


class TestOfAProject:
    def test_have_numbers_without_gaps(self, federation: Federation) -> None:
        for name in ("first", "second"):
            federation.approve(federation.submit(name=name))
        numbers = [event["number"] for event in read(federation.world, "/events")]
        assert numbers == list(range(1, len(numbers) + 1))

    def test_come_in_pages_without_a_seam(self, world: World) -> None:
        count = 2 * PAGE + 1
        with world.server.database.write() as session:
            organization = find_organization(session, "default")
            assert organization is not None
            project = find_project(session, organization.id, "default")
            assert project is not None
            for number in range(count):
                told = {"model": str(number)}
                emit(session, project.id, EventKind.MODEL_STATE, body=told, now=world.clock())
        assert [event["model"] for event in read(world, "/events")] == [str(n) for n in range(count)]

    @ON_SQLITE_ALONE
    def test_of_an_unknown_one_are_refused(self, world: World) -> None:
        assert world.admin.refused("GET", "/events?project=none") == (404, "not_found")


def _event(number: int) -> Event:
    return Event(number=number, kind="job_state", job_id=None, body={}, happened_at=Clock().moment)


class TestStream:
    """The generator itself: what a test client cannot show, because it waits for the end."""

    def test_wakes_for_what_comes_later(self) -> None:
        events: list[Event] = [_event(1)]
        bus = Bus()

        def newer(number: int) -> Sequence[Event]:
            return [event for event in events if event.number > number]

        async def follow() -> list[str]:
            found = []
            async for text in stream(newer, bus, after=0):
                found.append(text)
                if text.startswith("id: 1\n"):
                    events.append(_event(2))
                    asyncio.get_running_loop().call_later(0.01, bus.notify)
                if text.startswith("id: 2\n"):
                    bus.close()
            return found

        found = asyncio.run(asyncio.wait_for(follow(), timeout=1.5))  # before it would look by itself
        assert [event["number"] for event in parse("".join(found))] == [1, 2]

    def test_loses_nothing_that_is_written_while_it_reads(self) -> None:
        events: list[Event] = []
        bus = Bus()

        def newer(number: int) -> Sequence[Event]:
            found = [event for event in events if event.number > number]
            if not events:
                events.append(_event(1))  # committed after the query, before the wait
                bus.notify()
            return found

        async def first() -> str:
            async for text in stream(newer, bus, after=0):
                if text.startswith("id: "):
                    return text
            return ""

        assert asyncio.run(asyncio.wait_for(first(), timeout=1.5)).startswith("id: 1\n")

    def test_ends_with_the_process(self) -> None:
        bus = Bus()

        async def follow() -> None:
            asyncio.get_running_loop().call_later(0.01, bus.close)
            async for _ in stream(lambda _: [], bus, after=0):
                pass

        asyncio.run(asyncio.wait_for(follow(), timeout=1.5))
        assert not bus._tasks
