"""What the API process counts itself: requests, rounds, and the steps that parties report."""

from prometheus_client import CollectorRegistry, Counter, Histogram

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STEP_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a tiny model on loopback to a large one over a slow line, in seconds."""


class Watch:
    """Counts since the process began; any thread may count.

    Prometheus adds up several API processes, each of which is asked for its own.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "trunkline_api_request_seconds",
            "Requests by route template; a held-back answer counts its waiting.",
            ("method", "route", "status"),
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.steps = Counter(
            "trunkline_silo_steps", "Training steps that silos reported.", registry=self.registry
        )
        self.tokens = Counter(
            "trunkline_silo_tokens",
            "Tokens of those steps: valid (not padding) and label (the loss is taken on).",
            ("kind",),
            registry=self.registry,
        )
        self.step_seconds = Histogram(
            "trunkline_step_seconds",
            "Whole training steps as the silos saw them.",
            buckets=STEP_BUCKETS,
            registry=self.registry,
        )
        self.step_parts = Histogram(
            "trunkline_step_part_seconds",
            "Training steps split: computed at the silo, computed at the trunk, and the rest on the wire.",
            ("part",),
            buckets=STEP_BUCKETS,
            registry=self.registry,
        )
        self.rounds = Counter(
            "trunkline_rounds_committed", "Rounds that were committed here.", registry=self.registry
        )
        self.round_seconds = Histogram(
            "trunkline_round_seconds",
            "Committed rounds, from their begin at the worker.",
            buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600),
            registry=self.registry,
        )
        self.metric_points = Counter(
            "trunkline_metric_points", "Numbers that parties sent.", ("kind",), registry=self.registry
        )
        for part in ("silo", "wire", "trunk"):  # so that a graph begins at 0, not at the first step
            self.step_parts.labels(part)
        for kind in ("valid", "label"):
            self.tokens.labels(kind)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests.labels(method, route, str(status)).observe(seconds)

    def round_committed(self, seconds: float) -> None:
        """Count one committed round."""
        self.rounds.inc()
        self.round_seconds.observe(seconds)
