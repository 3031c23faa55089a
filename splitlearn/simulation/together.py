"""Running the parties of one process together, and telling the cause from what it caused."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from splitlearn.errors import TrunklineError

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
    """Run all; of several errors the first is the cause, and the others get a moment to say goodbye."""
    tasks = [asyncio.create_task(run()) for run in runs]
    try:
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in done if task.exception() is not None]
        if failed:
            if pending:
                await asyncio.wait(pending, timeout=_LAST_WORDS_SECONDS)
            raise _root_cause([error for task in failed if (error := task.exception())])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _root_cause(errors: Sequence[BaseException]) -> BaseException:
    bugs = [error for error in errors if not isinstance(error, TrunklineError)]
    return (bugs or list(errors))[0]
