"""Running the parties of one process together, and telling the cause from what it caused."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from splitlearn.errors import LinkError, TrainingError, TrunklineError
from splitlearn.privacy import FixedPointError

R = TypeVar("R")
Run = Callable[[], Coroutine[Any, Any, None]]
_LAST_WORDS_SECONDS = 5.0


def run_to_the_end(run: Callable[[], R]) -> R:
    """Call ``run``, which starts an event loop, also from a thread that has one running: a notebook's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(run).result()


async def all_or_first_error(runs: Sequence[Run]) -> None:
    """Run all; when one fails, the others get a moment to say goodbye, and the cause is raised.

    Args:
        runs: The worker's first: of several that miss one another, it can say who is missing.
    """
    tasks = [asyncio.create_task(run()) for run in runs]
    try:
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if any(task.exception() for task in done):
            if pending:
                await asyncio.wait(pending, timeout=_LAST_WORDS_SECONDS)
            raise _root_cause([error for task in tasks if task.done() and (error := task.exception())])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _root_cause(errors: Sequence[BaseException]) -> BaseException:
    return min(errors, key=_distance_from_cause)


def _distance_from_cause(error: BaseException) -> int:
    if not isinstance(error, TrunklineError):
        return 0  # a bug
    if isinstance(error, FixedPointError):
        return 1
    return 2 if isinstance(error, LinkError | TrainingError) else 1  # these follow from another's end
