"""Asking an engine again while it is away for a moment, as a node is that is started again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_random_exponential,
)

from bridge.errors import BridgeError

Answer = TypeVar("Answer")


def retryable(error: BaseException) -> bool:
    """Whether asking again may help."""
    return isinstance(error, BridgeError) and error.retryable


def tried(retrying: Retrying, work: Callable[..., Answer], *arguments: Any) -> Answer:
    """What `work` gives, tried as `retrying` says, which then lets go of it all.

    What tenacity notes of a call refers to itself, and to the work, its arguments and its answer. Left so, they would
    wait for the collector of cycles, which is kept out of a load's way: requests of tens of megabytes together.
    """
    try:
        return retrying(work, *arguments)
    finally:
        retrying.iter_state.reset()


class Patience:
    """Asks until there is an answer, or an error that will not pass, for so long.

    Attributes:
        ended: set, what is to be done no longer: nobody waits for an answer.
    """

    def __init__(
        self,
        seconds: float,
        say: Callable[[str], None] = lambda line: None,
        passes: Callable[[BaseException], bool] = retryable,
    ) -> None:
        self._seconds, self._say, self._passes = seconds, say, passes
        self.ended = threading.Event()

    def __call__(self, ask: Callable[[], Answer]) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception(self._passes),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_any(stop_after_delay(self._seconds), stop_when_event_set(self.ended)),
            sleep=self._wait,
            before_sleep=self._noticed,
            reraise=True,
        )
        return tried(retrying, ask)

    def _wait(self, seconds: float) -> None:
        self.ended.wait(seconds)

    def _noticed(self, state: RetryCallState) -> None:
        self._say(f"{state.outcome.exception() if state.outcome else None}; trying again")
