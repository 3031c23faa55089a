"""The stage of ``bench.stage`` for tests: its servers are required where the environment says so."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.stage import OwnServer, ServerAbsentError, Stage, own_postgresql, own_redis
from tests import services


@contextmanager
def own_servers() -> Iterator[tuple[OwnServer, OwnServer]]:
    """Start PostgreSQL and Redis for whoever may kill them; skip or fail where they are not installed."""
    try:
        with own_postgresql() as database, own_redis() as broker:
            yield database, broker
    except ServerAbsentError as error:
        services.absent(str(error))


def kill_and_start(stage: Stage, part: str) -> None:
    """As a process manager would: what was killed is started again, a job's process by its agent."""
    stage.kill(part)
    if not part.startswith("child-"):
        stage.start(part)
