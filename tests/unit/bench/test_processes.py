"""Child processes are reported when they fail, and never left behind."""

import asyncio
import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from bench.documents import WorkerListens
from bench.processes import ChildError, child

ENVIRONMENT = dict(os.environ)  # noqa: TID251 - the children need a PATH like anybody


class Nonsense(BaseModel):
    nothing: str = "of use"


class TestChild:
    def test_a_failure_is_reported_with_what_the_child_said(self) -> None:
        async def run() -> None:
            async with child("bench.nowhere", Nonsense(), environment=ENVIRONMENT) as nowhere:
                await nowhere.receive(WorkerListens)

        with pytest.raises(ChildError, match=r"(?s)nowhere process ended with exit code 1:.*No module named"):
            asyncio.run(run())

    def test_is_ended_when_the_run_is_interrupted(self) -> None:
        pids: list[int] = []

        async def run() -> None:
            async with child("bench.channel", Nonsense(), environment=ENVIRONMENT) as benchmark:
                pids.append(benchmark.pid)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(run())
        assert not Path(f"/proc/{pids[0]}").exists()
