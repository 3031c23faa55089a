"""A job's own process: from the fork to the last word. Imports all that the forker loads beforehand."""

import asyncio
import base64
import logging
import os
import signal
import socket
from contextlib import suppress

import torch
import transformers.models.auto.modeling_auto  # noqa: F401 - loaded before the fork

from client_agent.data import DatasetRegistry
from client_agent.job_run import JobRun
from client_agent.job_view import JobView
from client_agent.log import CORRELATION, LOGGER, log_to
from client_agent.party_control import PartyControl
from client_agent.places import AgentFolder
from client_agent.processes.messages import (
    MAX_LINE_BYTES,
    Ended,
    Order,
    PhaseBegan,
    ToJob,
    Update,
    line,
)
from client_agent.training_loop import choose_device
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.errors import RevokedError, SupersededError
from splitlearn.control_plane.session import Session
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.parties import StuckError
from splitlearn.spec import JobSpec

_ENDED_IN_ORDER = 0
_SUPERVISOR_GONE = 70
_PREDECESSOR_SECONDS = 60.0
"""The process of a supervisor that was killed ends by itself, but not before it gets the processor."""
_log = logging.getLogger(LOGGER)


def run_job(order: Order, channel: socket.socket) -> int:
    """Do a silo's part in one job; returns the exit code of the process.

    Args:
        order: Which job, for whom.
        channel: To the supervisor; when it closes, the supervisor is gone, and so is this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    torch.set_num_threads(order.threads)
    folder = AgentFolder(order.state_dir).job(order.job_id)
    with folder.held(wait_seconds=_PREDECESSOR_SECONDS):
        log_to(folder.log, also_stderr=False, log_format=order.log_format)
        try:
            asyncio.run(_converse(order, channel))
        except StuckError as error:
            return error.exit_code  # nobody waits for the thread: the forker's child ends at once
    return _ENDED_IN_ORDER


async def _converse(order: Order, channel: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=MAX_LINE_BYTES)
    first = ToJob.validate_json(await reader.readline())
    if not isinstance(first, Update):
        return  # it was not wanted any more before it began
    CORRELATION.set(first.job.correlation_id)
    view = JobView(first.job)
    work = asyncio.create_task(_work(order, view, writer), name="job")
    listening = asyncio.create_task(_listen(reader, view, work), name="supervisor")
    try:
        ended = await work
    except asyncio.CancelledError:
        ended = Ended(outcome="ended", code="stopped", message="the supervisor asked for it")
    except (RevokedError, SupersededError) as error:  # the session could not be had
        ended = Ended(outcome="ended", code=error.code, message=error.message)
    listening.cancel()
    writer.write(line(ended))
    await writer.drain()
    writer.close()


async def _listen(reader: asyncio.StreamReader, view: JobView, work: "asyncio.Task[Ended]") -> None:
    # A supervisor that is killed before it has read our last word resets the line instead of ending it.
    with suppress(OSError):
        while data := await reader.readline():
            message = ToJob.validate_json(data)
            if isinstance(message, Update):
                await view.update(message.job)
            else:
                _log.info("stopping: the supervisor asked for it")
                work.cancel()
    # Nobody is there to tell anything. Checkpoints are whole at any moment, so this one is as good as any.
    os._exit(_SUPERVISOR_GONE)


async def _work(order: Order, view: JobView, writer: asyncio.StreamWriter) -> Ended:
    state = StateFolder(order.state_dir)
    silo = state.enrolled().name
    folder = AgentFolder(order.state_dir)

    def on_phase(phase: PhaseBegan) -> None:
        writer.write(line(phase))

    async with Session(state, boot_id=order.boot_id, log_out=False) as session:
        control = PartyControl(
            PartyClient(session), state=state, job_id=order.job_id, silo=silo, models=folder.models
        )
        run = JobRun(
            # Verified by the supervisor, which alone talks to this process.
            JobSpec.parse(base64.b64decode(view.job.spec)),
            silo=silo,
            control=control,
            view=view,
            registry=DatasetRegistry(order.state_dir),
            folder=folder.job(order.job_id),
            device=choose_device(order.device),
            on_phase=on_phase,
            min_metric_rows=order.min_metric_rows,
            min_silos_in_sum=order.min_silos_in_sum,
        )
        return await run.run()
