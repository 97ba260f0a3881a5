"""What Prometheus is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_TOGETHER = 64
"""Requests that are counted at once, which takes half the time that it takes for each in the middle of its answer."""


class Metrics:
    """A registry of its own: two daemons in one process count apart."""

    kind = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "bridge_requests", "Requests that were answered.", ["operation", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "bridge_request_seconds", "From a request's first byte to its answer.", ["operation"],
            buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._uncounted: list[Callable[[], None]] = []
        """Each counts what an operation has answered since."""

    def measure(self, operation: str) -> Callable[[int, float], None]:
        """Counts one request of an operation: its status, and the seconds that it took."""
        seconds = self._seconds.labels(operation)
        taken: deque[tuple[int, float]] = deque()

        def count() -> None:
            with suppress(IndexError):
                while True:
                    status, took = taken.popleft()
                    self._requests.labels(operation, str(status)).inc()
                    seconds.observe(took)

        def measure(status: int, took: float) -> None:
            taken.append((status, took))
            if len(taken) >= _TOGETHER:
                count()

        self._uncounted.append(count)
        return measure

    def gauge(self, name: str, says: str, value: Callable[[], float], **labels: str) -> None:
        """A number that is asked for when the metrics are."""
        gauge = Gauge(name, says, list(labels), registry=self.registry)
        (gauge.labels(**labels) if labels else gauge).set_function(value)

    def counts(self, name: str, says: str, label: str, values: Callable[[], dict[str, int]]) -> None:
        """The same of several, by one label."""
        gauge = Gauge(name, says, [label], registry=self.registry)
        for key in values():
            gauge.labels(key).set_function(partial(_one_of, values, key))

    def text(self) -> bytes:
        """What `/metrics` answers."""
        for count in self._uncounted:
            count()
        return generate_latest(self.registry)


def _one_of(values: Callable[[], dict[str, int]], key: str) -> float:
    return values()[key]
