"""What a person asks a generation for, what is shown of an answer, and the session around it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from client_agent.cli.generating import find_job
from client_agent.generating import _Asked, _Run
from client_agent.generation_prompts import Prompt, Wanted, WantedError, read_prompt_file, read_prompts
from client_agent.generation_session import GenerationEndedError, GenerationSession, NoWorkerError
from client_agent.generation_text import ShownText
from client_agent.job_record import JobRecord
from client_agent.places import AgentFolder, UnknownJobError
from splitlearn.control_plane.errors import UnreachableError
from splitlearn.control_plane.generation_schemas import OpenedGeneration, SiloGeneration
from splitlearn.control_plane.schemas import BlobRef
from splitlearn.errors import DataError

JOB = "c1f73429-3b73-4f6e-9fec-9e0b598202c9"
OTHER = "c1f99999-3b73-4f6e-9fec-9e0b598202c9"
SESSION = "00000000-3b73-4f6e-9fec-9e0b598202c9"


class TestPrompts:
    def test_are_strings_or_objects(self) -> None:
        said = [{"role": "user", "content": "hello"}]
        lines = ['"one"\n', "\n", '{"prompt": "two"}\n', json.dumps({"messages": said})]
        assert read_prompts(lines, source="x") == [Prompt("one"), Prompt("two"), Prompt(messages=tuple(said))]

    @pytest.mark.parametrize(
        "line",
        [
            "{",
            "7",
            "{}",
            '{"prompt": 7}',
            '{"prompt": "a", "more": 1}',
            '{"messages": []}',
            '{"messages": [{"role": "user"}]}',
        ],
    )
    def test_that_are_neither_are_named_by_line_and_not_quoted(self, line: str) -> None:
        with pytest.raises(DataError, match="x, line 2") as caught:
            read_prompts(['"one"', line], source="x")
        assert line not in caught.value.message or line == "{"

    def test_that_are_none_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="holds no prompt"):
            read_prompts(["\n"], source="x")
        with pytest.raises(DataError, match="cannot read"):
            read_prompt_file(tmp_path / "absent")
        (tmp_path / "latin").write_bytes(b'"\xe9"')
        with pytest.raises(DataError, match="not UTF-8"):
            read_prompt_file(tmp_path / "latin")

    def test_and_options_agree(self) -> None:
        with pytest.raises(WantedError, match="0 prompts"):
            Wanted(prompts=())
        with pytest.raises(WantedError, match="--top-k"):
            Wanted(prompts=(Prompt("a"),), temperature=0, top_k=2)
        with pytest.raises(WantedError, match="add --chat"):
            Wanted(prompts=(Prompt(messages=({"role": "user", "content": "a"},)),))

    def test_are_answered_greedily_unless_draws_are_asked_for(self) -> None:
        prompts = (Prompt("a"),)
        assert not Wanted(prompts=prompts, seed=3).is_sampled
        assert not Wanted(prompts=prompts, temperature=0).is_sampled
        assert Wanted(prompts=prompts, top_p=0.9).is_sampled


class TestShownText:
    def test_is_what_has_come(self) -> None:
        shown = ShownText()
        assert [shown.add("The"), shown.add(""), shown.add(" film")] == [
            ("The", False),
            ("", False),
            (" film", False),
        ]
        assert shown.end() == ("", False)

    def test_is_not_shown_twice_where_it_is_begun_anew(self) -> None:
        shown = ShownText()
        shown.add("The film")
        assert shown.begin()
        assert [shown.add("The"), shown.add(" film was")] == [("", False), (" was", False)]

    def test_that_comes_out_otherwise_is_shown_whole(self) -> None:
        shown = ShownText()
        shown.add("The film")
        shown.begin()
        assert [shown.add("The"), shown.add(" book"), shown.add(" was")] == [
            ("", False),
            ("The book", True),
            (" was", False),
        ]

    def test_that_comes_out_shorter_is_shown_whole(self) -> None:
        shown = ShownText()
        shown.add("The film")
        shown.begin()
        shown.add("The")
        assert shown.end() == ("The", True)


class FakeClient:
    """Answers how the session stands, in turn; the last answer stays."""

    def __init__(self, *standings: Any) -> None:
        self._standings = list(standings)
        self.ended: list[str] = []

    async def open_generation(self, job: str, attempt: str) -> OpenedGeneration:
        assert (job, len(attempt)) == (JOB, 32)
        return OpenedGeneration(
            **standing("waiting", 0).model_dump(),
            name="job",
            spec="",
            signature="",
            round=3,
            result=BlobRef(digest="00" * 32, num_bytes=1),
        )

    async def generation(self, *_: str, patience_seconds: float) -> SiloGeneration:
        assert patience_seconds == 60
        found = self._standings.pop(0) if len(self._standings) > 1 else self._standings[0]
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, SiloGeneration)
        return found

    async def end_generation(self, _: str, generation: str, *, patience_seconds: float) -> None:
        assert patience_seconds == 0
        self.ended.append(generation)


def standing(state: Any, epoch: int, code: str = "opened") -> SiloGeneration:
    return SiloGeneration(
        id=SESSION,
        job=JOB,
        state=state,
        reason_code=code,
        reason=f"north {code}; wait",
        epoch=epoch,
        worker="gpu-1" if state == "hosted" else None,
        poll_seconds=0.001,
        silence_seconds=60,
    )


def in_session(client: FakeClient, what: str, *, epoch: int, wait_seconds: float = 5.0) -> Any:
    async def run() -> Any:
        async with GenerationSession(client, JOB, wait_seconds=wait_seconds) as session:  # type: ignore[arg-type]
            if what == "hosted":
                return await session.hosted(after_epoch=epoch)
            return await asyncio.wait_for(session.moved(epoch), timeout=5)

    return asyncio.run(run())


class TestSession:
    def test_waits_for_a_worker_and_ends(self) -> None:
        client = FakeClient(standing("waiting", 0), standing("hosted", 1))
        assert in_session(client, "hosted", epoch=0).worker == "gpu-1"
        assert client.ended == [SESSION]

    def test_waits_for_another_worker_than_the_one_that_was_lost(self) -> None:
        client = FakeClient(standing("hosted", 1), standing("waiting", 1), standing("hosted", 2))
        assert in_session(client, "hosted", epoch=1).epoch == 2

    def test_waits_no_longer_than_asked(self) -> None:
        client = FakeClient(standing("waiting", 0, "busy"))
        with pytest.raises(NoWorkerError, match=r"within 0 s \(--wait\): north busy"):
            in_session(client, "hosted", epoch=0, wait_seconds=0)
        assert client.ended == [SESSION]

    @pytest.mark.parametrize("what", ["hosted", "moved"])
    def test_says_why_it_has_ended(self, what: str) -> None:
        with pytest.raises(GenerationEndedError, match="north idle") as caught:
            in_session(FakeClient(standing("ended", 1, "idle")), what, epoch=1)
        assert caught.value.code == "idle"

    @pytest.mark.parametrize("after", [standing("waiting", 1), standing("hosted", 2)])
    def test_notices_that_the_worker_was_lost(self, after: SiloGeneration) -> None:
        in_session(FakeClient(standing("hosted", 1), standing("hosted", 1), after), "moved", epoch=1)

    def test_ends_where_the_control_plane_is_away_for_too_long(self) -> None:
        with pytest.raises(GenerationEndedError, match="was away for 60 s"):
            in_session(FakeClient(UnreachableError("nobody answers")), "moved", epoch=1)


class EndedSession:
    """A session that has ended before a worker was asked anything."""

    def __init__(self, code: str) -> None:
        self._code = code

    async def hosted(self, *, after_epoch: int) -> SiloGeneration:
        raise GenerationEndedError(f"ended under epoch {after_epoch}", code=self._code)


class TestRun:
    def run(self) -> _Run:
        nothing: Any = None
        return _Run(nothing, nothing, nothing, nothing, nothing, left=[_Asked(0, [1])])

    @pytest.mark.parametrize("code", ["idle", "silo_silent"])
    def test_is_given_another_session_once_where_loading_took_too_long(self, code: str) -> None:
        run, session = self.run(), EndedSession(code)
        asyncio.run(run.at(session))  # type: ignore[arg-type]
        assert run.left
        with pytest.raises(GenerationEndedError):
            asyncio.run(run.at(session))  # type: ignore[arg-type]

    @pytest.mark.parametrize("code", ["too_long", "ended_by_admin", "no_result"])
    def test_ends_with_its_session_else(self, code: str) -> None:
        with pytest.raises(GenerationEndedError):
            asyncio.run(self.run().at(EndedSession(code)))  # type: ignore[arg-type]


class TestFindJob:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> AgentFolder:
        folder = AgentFolder(tmp_path)
        for job_id, name in ((JOB, "reviews"), (OTHER, "notes")):
            job = folder.job(job_id)
            job.path.mkdir(parents=True)
            record = {"id": job_id, "name": name, "dataset": "d", "state": "completed", "phase": "finished"}
            JobRecord.model_validate({**record, "updated_at": "2026-03-01T12:00:00Z"}).write(job.record)
        return folder

    @pytest.mark.parametrize("word", [JOB, "c1f7", "reviews"])
    def test_takes_an_id_its_beginning_or_a_name(self, word: str, folder: AgentFolder) -> None:
        assert find_job(folder, word).job_id == JOB

    @pytest.mark.parametrize(
        ("word", "expected"),
        [
            ("c1f", "several jobs are called 'c1f' or have ids that begin so in"),
            ("x", "no job is called 'x' or has an id that begins so in"),
        ],
    )
    def test_refuses_what_is_not_one_job(self, word: str, expected: str, folder: AgentFolder) -> None:
        with pytest.raises(UnknownJobError, match=expected):
            find_job(folder, word)

    def test_refuses_a_name_that_two_jobs_have(self, folder: AgentFolder) -> None:
        again = folder.job(OTHER)
        record = JobRecord.read(again.record)
        assert record is not None
        record.model_copy(update={"name": "reviews"}).write(again.record)
        with pytest.raises(UnknownJobError, match="several jobs are"):
            find_job(folder, "reviews")
