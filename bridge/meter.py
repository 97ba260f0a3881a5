"""What a load spends its time on: reading and encoding, or waiting for the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bridge.records import Effort

Item = TypeVar("Item")
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Meter:
    """Measures one load. Documents are pulled through `reading`, requests sent through `sending`.

    Attributes:
        encode_seconds: spent on reading and encoding.
        asked_seconds: spent on questions to the engine amidst that, as those that `asking` lets through.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._in_flight = 0
        self.encode_seconds = 0.0
        self.asked_seconds = 0.0

    def reading(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; the time that it takes to get them counts as encoding."""
        stream = iter(items)
        while True:
            started, asked = self._clock(), self.asked_seconds
            try:
                item = next(stream)
            except StopIteration:
                return
            finally:
                self.encode_seconds += self._clock() - started - (self.asked_seconds - asked)
            yield item

    def asking(self, ask: Callable[[Asked], Answer]) -> Callable[[Asked], Answer]:
        """`ask`, whose time is the engine's; for the thread that reads alone."""

        def asked(question: Asked) -> Answer:
            started = self._clock()
            try:
                return ask(question)
            finally:
                self.asked_seconds += self._clock() - started

        return asked

    def sending(self, send: Callable[[bytes], list[dict[str, Any]]]) -> Callable[[bytes], list[dict[str, Any]]]:
        """`send`, counted while it is under way; for several threads."""

        def sent(body: bytes) -> list[dict[str, Any]]:
            with self._lock:
                self._in_flight += 1
            try:
                return send(body)
            finally:
                with self._lock:
                    self._in_flight -= 1

        return sent

    def effort(self, *, waited: float, retried: int, queued: int) -> Effort:
        """How it stands now; `waited` are the seconds that the sender waited for the engine."""
        return Effort(self.encode_seconds, self.asked_seconds + waited, retried, queued, self._in_flight)
