"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


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

    def measure(self, operation: str) -> Callable[[int, float], None]:
        """Counts one request of an operation: its status, and the seconds that it took."""
        seconds = self._seconds.labels(operation)
        counted: dict[int, Counter] = {}

        def measure(status: int, took: float) -> None:
            counter = counted.get(status)
            if counter is None:
                counter = counted[status] = self._requests.labels(operation, str(status))
            counter.inc()
            seconds.observe(took)

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
        return generate_latest(self.registry)


def _one_of(values: Callable[[], dict[str, int]], key: str) -> float:
    return values()[key]
