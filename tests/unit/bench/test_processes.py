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
            async with child("bench.worker", Nonsense(), environment=ENVIRONMENT) as worker:
                await worker.receive(WorkerListens)

        with pytest.raises(ChildError, match=r"(?s)worker process ended with exit code 1.*nothing"):
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
