"""How much to send at once: additive increase, multiplicative decrease.

The rule is that of TCP (Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion
avoidance in computer networks", 1989): senders that share an engine come to share it evenly. Requests
under way and documents a request grow while the engine takes them, and are halved when it asks to wait.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

LEAST_DOCUMENTS = 16
QUICK = 1.0
SLOW = 10.0
"""Seconds. A request that takes longer comes near to a timeout, and a retry of it costs as much again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a `Pace` comes to: requests under way, documents a request, bytes a request."""

    in_flight: int
    documents: int
    bytes: int


class Pace:
    """What may be sent now; the senders' threads report to it how their requests went."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._window = float(min(2, limits.in_flight))
        self._documents = float(limits.documents)
        self._bytes = limits.bytes
        self._epoch = 0

    @property
    def in_flight(self) -> int:
        """Requests that may be under way."""
        return int(self._window)

    @property
    def documents(self) -> int:
        """Documents that a request may have."""
        return int(self._documents)

    @property
    def bytes(self) -> int:
        """Bytes that a request may have."""
        return self._bytes

    @property
    def epoch(self) -> int:
        """Counts the decreases; a request notes it when it starts."""
        return self._epoch

    def taken(self, seconds: float) -> None:
        """A request was answered in full after `seconds`."""
        with self._lock:
            # One more a round trip of all that are under way.
            self._window = min(self._window + 1 / self._window, self._limits.in_flight)
            if seconds > SLOW:
                self._documents = max(self._documents / 2, min(LEAST_DOCUMENTS, self._limits.documents))
            elif seconds < QUICK:
                self._documents = min(self._documents + LEAST_DOCUMENTS, self._limits.documents)

    def put_off(self, epoch: int) -> None:
        """The engine asked a request to wait that started in `epoch`: send half as much.

        Requests under way together are refused together; that is one sign of overload, not several, so
        only the first of an epoch counts.
        """
        with self._lock:
            if epoch != self._epoch:
                return
            self._epoch += 1
            self._window = max(self._window / 2, 1.0)
            self._documents = max(self._documents / 2, min(LEAST_DOCUMENTS, self._limits.documents))

    def too_large(self, size: int) -> None:
        """A request of `size` bytes was refused for its size: send at most half of that from now on."""
        with self._lock:
            self._bytes = max(min(self._bytes, size // 2), 1)
