"""The worker as a process: enrol, lock, log in, report, then take tasks until a signal or a refusal."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

import structlog
import torch
from celery import Celery
from celery.worker import state as celery_state

from splitlearn.control_plane.enrolment import enrol
from splitlearn.control_plane.expiry import ending_sentence
from splitlearn.control_plane.generation_schemas import GenerationDispatch
from splitlearn.control_plane.requests import Absent, Back
from splitlearn.control_plane.schemas import DispatchBody
from splitlearn.control_plane.session import Session
from splitlearn.control_plane.state_folder import Membership, StateFolder
from splitlearn.errors import TrunklineError
from splitlearn.generation import CacheLimits
from splitlearn.identity import CertificateKind
from splitlearn.training.speed import measure_speed
from splitlearn.watching import Status, WatchListener
from worker.celery_app import make_app
from worker.devices import choose_devices, describe_capabilities
from worker.generation_host import GenerationHost
from worker.home import Home
from worker.orders import Order
from worker.settings import Settings
from worker.station import Station
from worker.stored_files import drop_idle_folders
from worker.trunk_cache import TrunkCache
from worker.trunk_host import TrunkHost
from worker.watch import WorkerWatch

_JOB_DAYS = 7.0
_FIRST_RESTART_SECONDS = 0.5
_MAX_RESTART_SECONDS = 10.0
_log = structlog.get_logger("worker")


def run(settings: Settings) -> None:
    """Serve until a signal ends it.

    Raises:
        TrunklineError: It cannot begin, or another process has taken over.
    """
    _log.info("worker_starting")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    devices = choose_devices(settings.device)
    state = StateFolder(settings.state_dir)
    with state.locked():
        membership = _join(settings, state)
        with structlog.contextvars.bound_contextvars(worker=membership.name):
            _serve(settings, state, membership, devices)


def _join(settings: Settings, state: StateFolder) -> Membership:
    if settings.invitation is None:
        return state.enrolled()
    text = settings.invitation.get_secret_value()
    membership = asyncio.run(enrol(text, state, kind=CertificateKind.WORKER, wait=True, on_reach=_say_reach))
    _log.info("enrolled", worker=membership.name, control_plane=membership.url)
    return membership


def _serve(
    settings: Settings, state: StateFolder, membership: Membership, devices: tuple[torch.device, ...]
) -> None:
    ending = _Ending(settings.drain_seconds)
    url = settings.broker_url.get_secret_value() if settings.broker_url else None
    watch = WorkerWatch(broker_url=url, broker_dir=settings.broker_dir)

    def reach(change: Absent | Back) -> None:
        _say_reach(change)
        watch.reach.change(change)

    with (
        ending.signals(),
        _listening(settings, watch),
        Home(lambda: Session(state, on_reach=reach), on_end=ending.end_with) as home,
    ):
        watch.reach.logged_in()
        _say_expiry(state)
        station = Station(home, state, devices, TrunkCache(devices), watch)
        drop_idle_folders(station.jobs, days=_JOB_DAYS)
        host = TrunkHost(station, on_stuck=ending.end_with)
        generations = GenerationHost(station, limits=_cache_limits(settings), on_stuck=ending.end_with)
        ending.attach(host, generations)
        report = _Report(station, measure=settings.measure)
        report.send()

        def serve(dispatch: DispatchBody) -> None:
            host.host(dispatch)
            report.send_again()

        def generate(dispatch: GenerationDispatch) -> None:
            generations.host(dispatch)
            report.send_again()

        app = make_app(
            broker_url=url,
            broker_dir=settings.broker_dir,
            worker=membership.name,
            host=serve,
            generate=generate,
        )
        app.set_current()  # Celery looks a task up in the current application, not in the one that got it
        _log.info("worker_ready", device=",".join(map(str, devices)), control_plane=membership.url)
        _take_tasks(app, membership.name, ending)
        _log.info("worker_stopped")
    ending.raise_refusal()


@contextmanager
def _listening(settings: Settings, watch: WorkerWatch) -> Iterator[None]:
    """Answer about health and numbers, where a port is set for that."""
    if settings.watch_port is None:
        yield
        return
    token = settings.metrics_token.get_secret_value() if settings.metrics_token else None
    status = Status(not_ready=watch.not_ready, metrics=watch.to_text)
    with WatchListener(status, host=settings.watch_host, port=settings.watch_port, token=token) as listener:
        _log.info("watch_listening", host=settings.watch_host, port=listener.port)
        yield


def _cache_limits(settings: Settings) -> CacheLimits:
    return CacheLimits(
        max_bytes=settings.cache_bytes, max_rows=settings.cache_rows, max_length=settings.cache_tokens
    )


class _Report:
    """Tells the control plane what this worker can do, and what it has at hand.

    Args:
        station: The worker.
        measure: Whether its speed is measured, now.
    """

    def __init__(self, station: Station, *, measure: bool) -> None:
        self._station = station
        self._speed = measure_speed(station.devices[0]) if measure else None

    def send(self) -> None:
        """Tell it; waits for the control plane if need be."""
        station = self._station
        capabilities = describe_capabilities(
            station.devices, speed=self._speed, models=station.models_at_hand()
        )
        station.home.start(station.home.client.put_capabilities(capabilities)).result()
        names = " with ".join(device.name for device in capabilities.devices)
        _log.info(
            "capabilities", device=names, tokens_per_second=round(capabilities.trunk_tokens_per_second or 0)
        )

    def send_again(self) -> None:
        """Tell what has changed with a job; where that is refused, the old word stands."""
        try:
            self.send()
        except TrunklineError as error:
            _log.warning("capabilities_refused", code=error.code, reason=error.message)


def _say_expiry(state: StateFolder) -> None:
    sentence = ending_sentence(state.identity().certificate, now=datetime.now(tz=UTC))
    if sentence is not None:
        _log.warning("certificate_expires", reason=sentence)


def _take_tasks(app: Celery, name: str, ending: "_Ending") -> None:
    """Run Celery; where its broker fails in a way that ends it, begin again."""
    pause = _FIRST_RESTART_SECONDS
    while not ending.is_asked:
        started = time.monotonic()
        worker = app.WorkController(
            hostname=f"{name}@trunkline",
            pool="solo",
            concurrency=1,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            optimization="fair",
        )
        worker.start()
        if ending.is_asked:
            return
        _log.warning("broker_failed", again_in_seconds=pause)
        ending.wait(pause)
        pause = (
            _FIRST_RESTART_SECONDS
            if time.monotonic() - started > pause
            else min(2 * pause, _MAX_RESTART_SECONDS)
        )


def _say_reach(change: Absent | Back) -> None:
    match change:
        case Absent():
            _log.warning(
                "control_plane_away", reason=change.sentence, again_in_seconds=round(change.pause_seconds, 2)
            )
        case Back():
            _log.info("control_plane_back", seconds=round(change.seconds, 1))


class _Ending:
    """Ends the worker: by signals in order, or because its session is over.

    The first signal lets the round finish, for a while; the second gives it up at once.

    Args:
        drain_seconds: That while.
    """

    def __init__(self, drain_seconds: float) -> None:
        self._drain_seconds = drain_seconds
        self._asked = threading.Event()
        self._hosts: tuple[TrunkHost | GenerationHost, ...] = ()
        self._refusal: TrunklineError | None = None
        self._timer: threading.Timer | None = None

    @property
    def is_asked(self) -> bool:
        """Whether the worker is to end."""
        return self._asked.is_set()

    def attach(self, *hosts: TrunkHost | GenerationHost) -> None:
        """Name whom to give orders to."""
        self._hosts = hosts

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the end."""
        self._asked.wait(seconds)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT; after the block nothing is left that would act later."""
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._timer is not None:
                self._timer.cancel()
            celery_state.should_stop = None

    def end_with(self, error: TrunklineError) -> None:
        """End at once: the session is over; from any thread."""
        _log.error("session_over", code=error.code, reason=error.message)
        self._refusal = error
        self._stop(Order.LOST)

    def raise_refusal(self) -> None:
        """Raise what ended the session, if that is why the worker ended."""
        if self._refusal is not None:
            raise self._refusal

    def _receive(self, _signum: int, _frame: FrameType | None) -> None:
        if self.is_asked or not self._hosts:
            self._stop(Order.DRAIN_NOW)
            if not self._hosts:
                raise KeyboardInterrupt
            return
        self._stop(Order.DRAIN_AFTER_ROUND)
        self._timer = threading.Timer(self._drain_seconds, self._stop, (Order.DRAIN_NOW,))
        self._timer.daemon = True
        self._timer.start()

    def _stop(self, order: Order) -> None:
        self._asked.set()
        celery_state.should_stop = 0
        for host in self._hosts:
            host.give(order)
