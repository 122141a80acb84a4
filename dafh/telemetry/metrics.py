"""What Prometheus reads of a gateway. No label has a caller's words in it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

#: Seconds, from a cached answer to a deadline.
SECONDS = (
    0.002,
    0.005,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
)
#: Things handled together.
SIZES = (1, 2, 4, 8, 16, 32, 64)
#: Distances as shares of the code's bits.
SHARES = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one gateway; `docs/operations.md` says what to look for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._watched: dict[str, Gauge] = {}
        self.requests = Counter(
            "dafh_requests",
            "Calls that ended.",
            ["method", "code", "reason"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "dafh_request_seconds",
            "How long calls took.",
            ["method"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "dafh_stage_seconds",
            "How long one stage of a call took, without the wait for a place.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "dafh_batch_size",
            "Questions of a batch, and frames of an object indexed together.",
            ["method"],
            buckets=SIZES,
            registry=self.registry,
        )
        self.distances = Histogram(
            "dafh_nearest_distance",
            "Hamming distance of the nearest hit, as a share of the code's bits.",
            buckets=SHARES,
            registry=self.registry,
        )
        self.queries = Counter(
            "dafh_query_images",
            "Query images, by whether they look like anything the model knows.",
            ["in_distribution"],
            registry=self.registry,
        )
        self.stored = Counter(
            "dafh_indexed_cases", "Cases indexed.", ["outcome"], registry=self.registry
        )
        self.shared = Counter(
            "dafh_encodings",
            "Image encodings asked for, by whether the work was shared with an equal one.",
            ["shared"],
            registry=self.registry,
        )
        self.up = Gauge(
            "dafh_part_up",
            "Whether what the gateway stands on works.",
            ["part"],
            registry=self.registry,
        )

    def watch(self, name: str, about: str, read: Callable[[], float], **labels: str) -> None:
        """Have a value read whenever Prometheus asks."""
        gauge = self._watched.get(name)
        if gauge is None:
            gauge = Gauge(name, about, list(labels), registry=self.registry)
            self._watched[name] = gauge
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self.registry)
