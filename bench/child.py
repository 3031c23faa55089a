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
    """Read one request, run it, answer. Ends at once when whoever started it is gone."""
    request = kind.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    transformers_logging.disable_progress_bar()
    answer(run(request))


def answer(document: BaseModel) -> None:
    """Send one document to the parent."""
    sys.stdout.write(document.model_dump_json() + "\n")
    sys.stdout.flush()


def prepare_torch(task: Task) -> None:
    """Give torch the threads that the task allows."""
    torch.set_num_threads(task.threads)


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)
