"""What /metrics tells: numbers only, in Prometheus' families."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from splitlearn.link import CloseReason
from splitlearn.wire import Direction


@dataclass
class Counters:
    """Counts since the process began; plain numbers, for one is raised at every frame."""

    frames: Counter[Direction] = field(default_factory=Counter)
    bytes: Counter[Direction] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    sessions: int = 0
    feed_failures: int = 0

    def relayed(self, direction: Direction, num_bytes: int) -> None:
        """Count a frame that was handed on."""
        self.frames[direction] += 1
        self.bytes[direction] += num_bytes

    def ended(self, reason: CloseReason | None) -> None:
        """Count a connection's end; None when its other end left or was lost."""
        self.closed[reason.word if reason is not None else "left"] += 1

    def to_text(self, *, connections: int, sessions: int, is_feed_answering: bool) -> str:
        """Return everything in Prometheus' text format, version 0.0.4.

        Args:
            connections: Served now.
            sessions: Pairs now.
            is_feed_answering: Whether the control plane tells standings.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Told([*self._counts(), *_now(connections, sessions, is_feed_answering)]))
        return generate_latest(registry).decode()

    def _counts(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "trunkline_gateway_connections", "Connections that were served.", value=self.connections
        )
        yield CounterMetricFamily(
            "trunkline_gateway_sessions", "Pairs that were connected.", value=self.sessions
        )
        yield CounterMetricFamily(
            "trunkline_gateway_feed_failures",
            "Questions about standings unanswered.",
            value=self.feed_failures,
        )
        for what, counts in (("frames", self.frames), ("bytes", self.bytes)):
            name = f"trunkline_gateway_relayed_{what}"
            family = CounterMetricFamily(name, f"Sealed {what} that were relayed.", labels=["direction"])
            for way in Direction:
                family.add_metric([way.name.lower()], counts[way])
            yield family
        closed = CounterMetricFamily(
            "trunkline_gateway_closed", "Connections that ended, by the word for why.", labels=["reason"]
        )
        for word, count in sorted(self.closed.items()):
            closed.add_metric([word], count)
        yield closed


def _now(connections: int, sessions: int, is_feed_answering: bool) -> Iterable[Metric]:  # noqa: FBT001
    yield GaugeMetricFamily(
        "trunkline_gateway_open_connections", "Connections that are served now.", value=connections
    )
    yield GaugeMetricFamily(
        "trunkline_gateway_open_sessions", "Pairs that are connected now.", value=sessions
    )
    yield GaugeMetricFamily(
        "trunkline_gateway_feed_answering",
        "Whether the control plane answers about standings.",
        value=float(is_feed_answering),
    )


class _Told(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families
