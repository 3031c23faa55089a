"""``trunkline-agent run``: the entry point of the part that stays up."""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from client_agent.cli.options import DEFAULT_STATE_DIR, StateDir, resolved
from client_agent.log import LOGGER, LogFormat, log_to
from client_agent.places import AgentFolder
from client_agent.processes.forkery import Forkery
from client_agent.supervisor import Supervisor
from client_agent.watch import AgentWatch
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.requests import Absent, Back
from splitlearn.control_plane.session import Session
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.simulation.exit_codes import INTERRUPTED, OK
from splitlearn.spec import MAX_SILOS, MIN_SILOS_AVERAGED
from splitlearn.watching import Status, WatchListener

EPILOG = "Example: trunkline-agent run --threads 8"
_log = logging.getLogger(LOGGER)


def run(
    *,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            envvar="TRUNKLINE_AGENT_THREADS",
            help="Of each job's process. Default: all cores",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            envvar="TRUNKLINE_AGENT_DEVICE",
            help="Where this silo's layers are computed: auto, cpu, cuda, cuda:1.",
        ),
    ] = "auto",
    log_format: Annotated[
        LogFormat,
        typer.Option(envvar="TRUNKLINE_AGENT_LOG_FORMAT", help="Lines for people, or JSON for a collector."),
    ] = "console",
    watch_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            envvar="TRUNKLINE_AGENT_WATCH_PORT",
            help="Answer /healthz, /readyz and /metrics on this port of 127.0.0.1. Default: nowhere",
        ),
    ] = None,
    min_metric_rows: Annotated[
        int,
        typer.Option(
            min=1,
            envvar="TRUNKLINE_AGENT_MIN_METRIC_ROWS",
            help="Losses and scores over fewer rows are told to nobody. Default: 1, all are told",
        ),
    ] = 1,
    min_silos_in_sum: Annotated[
        int,
        typer.Option(
            min=MIN_SILOS_AVERAGED,
            max=MAX_SILOS,
            envvar="TRUNKLINE_AGENT_MIN_SILOS_IN_SUM",
            help="Fewest silos over which this one averages its blocks. Default: 3, which is also the least",
        ),
    ] = MIN_SILOS_AVERAGED,
    state_dir: StateDir = DEFAULT_STATE_DIR,
) -> None:
    """Stay up and take part in jobs. Ctrl-C or SIGTERM ends in order; the jobs wait for the next start."""
    folder = AgentFolder(resolved(state_dir))
    state = StateFolder(folder.path)
    state.enrolled()
    with state.locked():
        log_to(folder.log, also_stderr=True, log_format=log_format)
        how = _How(
            threads or _num_cores(), device, log_format, AgentWatch(), min_metric_rows, min_silos_in_sum
        )
        with _listening(how.watch, watch_port):
            signum = asyncio.run(_serve(folder, state, how))
    raise typer.Exit(INTERRUPTED if signum == signal.SIGINT else OK)


@dataclass(frozen=True)
class _How:
    """How jobs are done, and who counts them."""

    threads: int
    device: str
    log_format: LogFormat
    watch: AgentWatch
    min_metric_rows: int
    min_silos_in_sum: int


@contextmanager
def _listening(watch: AgentWatch, port: int | None) -> Iterator[None]:
    """Answer about health and numbers to this machine, where a port is given."""
    if port is None:
        yield
        return
    status = Status(not_ready=watch.not_ready, metrics=watch.to_text)
    with WatchListener(status, host="127.0.0.1", port=port) as listener:
        _log.info("health and metrics at http://127.0.0.1:%d", listener.port)
        yield


async def _serve(folder: AgentFolder, state: StateFolder, how: _How) -> int:
    """Serve until a signal comes; return it."""
    stopped = asyncio.get_running_loop().create_future()
    _listen_to_signals(stopped)
    serving = asyncio.create_task(_supervise(folder, state, how))
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not stopped.done():
        serving.result()  # it ends by an error only
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    _log.info("the agent has stopped")
    signum: int = stopped.result()
    return signum


async def _supervise(folder: AgentFolder, state: StateFolder, how: _How) -> None:
    forkery = Forkery(environment=os.environ, log_path=folder.forker_log)  # noqa: TID251 - an entry point
    try:
        await forkery.start()  # it loads while we log in
        async with Session(state, on_reach=_Reach(how.watch)) as session:
            how.watch.reach.logged_in()
            _log.info("logged in as silo %s at %s", session.membership.name, session.membership.url)
            supervisor = Supervisor(
                folder,
                state=state,
                client=PartyClient(session),
                forkery=forkery,
                threads=how.threads,
                device=how.device,
                log_format=how.log_format,
                watch=how.watch,
                min_metric_rows=how.min_metric_rows,
                min_silos_in_sum=how.min_silos_in_sum,
            )
            await supervisor.run()
    finally:
        forkery.close()


def _listen_to_signals(stopped: "asyncio.Future[int]") -> None:
    """The first signal ends in order, the second at once."""
    loop = asyncio.get_running_loop()

    def receive(signum: int) -> None:
        if stopped.done():
            os._exit(128 + signum)  # the jobs' processes see that we are gone
        stopped.set_result(signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, receive, signum)


class _Reach:
    """Says when the control plane is away and when it is back; not at every try in between."""

    def __init__(self, watch: AgentWatch) -> None:
        self._watch = watch
        self._is_away = False

    def __call__(self, word: Absent | Back) -> None:
        self._watch.reach.change(word)
        if isinstance(word, Back):
            _log.info("the control plane is back after %.0f s", word.seconds)
        elif not self._is_away:
            _log.warning("%s; waiting for it", word.sentence)
        self._is_away = isinstance(word, Absent)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
