"""What /metrics tells: numbers only."""

from collections import Counter
from dataclasses import dataclass, field

from splitlearn.link import CloseReason
from splitlearn.wire import Direction


@dataclass
class Counters:
    """Counts since the process began."""

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

    def to_text(self, *, connections: int, sessions: int) -> str:
        """Return everything in Prometheus' text format, version 0.0.4.

        Args:
            connections: Served now.
            sessions: Pairs now.
        """
        lines = [
            "# TYPE trunkline_gateway_connections gauge",
            f"trunkline_gateway_connections {connections}",
            "# TYPE trunkline_gateway_sessions gauge",
            f"trunkline_gateway_sessions {sessions}",
            "# TYPE trunkline_gateway_connections_total counter",
            f"trunkline_gateway_connections_total {self.connections}",
            "# TYPE trunkline_gateway_sessions_total counter",
            f"trunkline_gateway_sessions_total {self.sessions}",
            "# TYPE trunkline_gateway_feed_failures_total counter",
            f"trunkline_gateway_feed_failures_total {self.feed_failures}",
        ]
        for what, counts in (("frames", self.frames), ("bytes", self.bytes)):
            name = f"trunkline_gateway_relayed_{what}_total"
            lines.append(f"# TYPE {name} counter")
            lines += [f'{name}{{direction="{way.name.lower()}"}} {counts[way]}' for way in Direction]
        lines.append("# TYPE trunkline_gateway_closed_total counter")
        lines += [
            f'trunkline_gateway_closed_total{{reason="{word}"}} {count}'
            for word, count in sorted(self.closed.items())
        ]
        return "\n".join(lines) + "\n"
