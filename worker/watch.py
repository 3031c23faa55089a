"""What the worker counts, and whether it is ready; read by a listener's thread, changed by the others."""

import time
from collections.abc import Sequence
from pathlib import Path

import redis
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from redis.exceptions import RedisError

from splitlearn.control_plane.reach import Reach
from splitlearn.parties import TrunkStepped

_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BROKER_SECONDS = 1.0


class WorkerWatch:
    """The worker's own numbers; any thread may count.

    Args:
        broker_url: The broker; None for the folder.
        broker_dir: That folder.
    """

    def __init__(self, *, broker_url: str | None, broker_dir: Path) -> None:
        self._broker_url, self._broker_dir = broker_url, broker_dir
        self.reach = Reach()
        self._confirmed_at: float | None = None
        self.registry = CollectorRegistry()
        self._steps = Counter(
            "trunkline_worker_steps", "Training steps of the trunk.", registry=self.registry
        )
        self._tokens = Counter(
            "trunkline_worker_label_tokens", "Label tokens of those steps.", registry=self.registry
        )
        self._parts = Histogram(
            "trunkline_worker_step_seconds",
            "Training steps split: the trunk's computing, and waiting for silos and wire.",
            ("part",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._rounds = Counter("trunkline_worker_rounds", "Rounds that were trained.", registry=self.registry)
        self._attempts = Counter(
            "trunkline_worker_attempts",
            "Attempts to host a trunk that ended.",
            ("end",),
            registry=self.registry,
        )
        self._wire_bytes = Counter(
            "trunkline_worker_wire_bytes", "Sealed bytes to and from silos.", registry=self.registry
        )
        self._hosting = Gauge(
            "trunkline_worker_hosting", "Whether a trunk is hosted now.", registry=self.registry
        )
        age = Gauge(
            "trunkline_worker_lease_age_seconds",
            "Since the control plane last confirmed the lease; 0 without one.",
            registry=self.registry,
        )
        age.set_function(self._lease_age)
        self._memory = Gauge(
            "trunkline_worker_peak_memory_bytes",
            "Largest memory of the device in use by this process.",
            registry=self.registry,
        )
        for part in ("trunk", "waiting"):
            self._parts.labels(part)

    # Counting

    def stepped(self, step: TrunkStepped) -> None:
        """Count a step of the trunk."""
        self._steps.inc()
        self._tokens.inc(step.num_label_tokens)
        self._parts.labels("trunk").observe(step.compute_seconds)
        self._parts.labels("waiting").observe(max(0.0, step.seconds - step.compute_seconds))

    def round_done(self, *, wire_bytes: int, peak_memory_bytes: float) -> None:
        """Count a round, the bytes that crossed in it, and the memory so far."""
        self._rounds.inc()
        self._wire_bytes.inc(wire_bytes)
        self._memory.set(peak_memory_bytes)

    def began(self) -> None:
        """Note that a trunk is hosted."""
        self._hosting.set(1)
        self.confirmed()

    def ended(self, word: str) -> None:
        """Count the end of an attempt by its word: an order's, or ``failed``."""
        self._hosting.set(0)
        self._confirmed_at = None
        self._attempts.labels(word).inc()

    def confirmed(self) -> None:
        """Note that the control plane has just confirmed the lease."""
        self._confirmed_at = time.monotonic()

    # Telling

    def to_text(self) -> str:
        """Return the numbers in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def not_ready(self) -> Sequence[str]:
        """Name what is not there: the control plane, or the broker."""
        return [sentence for sentence in (self.reach.missing, self._missing_broker()) if sentence]

    def _missing_broker(self) -> str:
        if self._broker_url is None or not self._broker_url.startswith("redis"):
            return "" if self._broker_dir.is_dir() else f"broker: there is no folder {self._broker_dir}"
        try:
            with redis.Redis.from_url(
                self._broker_url, socket_connect_timeout=_BROKER_SECONDS, socket_timeout=_BROKER_SECONDS
            ) as client:
                client.ping()
        except (RedisError, ValueError) as error:
            return f"broker: Redis does not answer ({type(error).__name__})"
        return ""

    def _lease_age(self) -> float:
        confirmed_at = self._confirmed_at
        return 0.0 if confirmed_at is None else time.monotonic() - confirmed_at
