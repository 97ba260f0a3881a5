"""The time that a request may take, with one timer for all requests: one for each costs a tenth of a short one."""

from __future__ import annotations

import asyncio
from typing import Any

_LOOKS = 20
"""How often in the time that is allowed it is looked who has had it; nobody gets more than a twentieth too much."""


class Deadlines:
    """Cancels tasks that do something for too long; only for the tasks of one event loop.

    Args:
        seconds: that each may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # In the order in which they began, which is that in which their time ends.
        self._due: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._looking = False

    def begin(self) -> asyncio.Task[Any]:
        """The running task's time begins; `end` it with what this returns, whatever happens."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (requests are tasks)
        loop = asyncio.get_running_loop()
        self._due[task] = loop.time() + self.seconds
        if not self._looking:
            self._looking = True
            loop.call_later(self.seconds / _LOOKS, self._look, loop)
        return task

    def end(self, task: asyncio.Task[Any]) -> bool:
        """Whether the task was cancelled because its time was over; then it is so no longer."""
        self._due.pop(task, None)
        if task not in self._late:
            return False
        self._late.remove(task)
        task.uncancel()
        return True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._due:
            task, due = next(iter(self._due.items()))
            if due > now:
                break
            del self._due[task]
            self._late.add(task)
            task.cancel()
        self._looking = bool(self._due)
        if self._looking:
            loop.call_later(self.seconds / _LOOKS, self._look, loop)
