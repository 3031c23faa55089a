"""What the child processes have in common: a request on standard input, answers on standard output."""

import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from pydantic import BaseModel
from transformers.utils import logging as transformers_logging

from bench.documents import Task

Request = TypeVar("Request", bound=BaseModel)


def serve(kind: type[Request], run: Callable[[Request], BaseModel]) -> None:
    """Read one request, run it, answer."""
    request = receive(kind)
    transformers_logging.disable_progress_bar()
    answer(run(request))


def receive(kind: type[Request]) -> Request:
    """Wait for the parent's next document."""
    return kind.model_validate_json(sys.stdin.readline())


def answer(document: BaseModel) -> None:
    """Send one document to the parent."""
    sys.stdout.write(document.model_dump_json() + "\n")
    sys.stdout.flush()


def prepare_torch(task: Task) -> None:
    """Give torch the threads that the task allows, on the core that it names."""
    if task.core is not None:
        os.sched_setaffinity(0, {task.core})
    torch.set_num_threads(task.threads)


def end_with_parent() -> None:
    """From now on, end at once when whoever started this process is gone. Nothing more is received."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)
