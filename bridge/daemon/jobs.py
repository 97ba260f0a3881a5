"""What takes longer than a request: kept before it is answered for, run on threads, gone on with after a crash."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bridge.daemon.jobstore import KEPT_LINES, Job, JobStore, Kind
from bridge.errors import BridgeError
from bridge.records import Progress

Work = Callable[["Job", "Running"], Mapping[str, Any]]
"""Does a job, telling how far it is; its result."""

_TOLD = 1.0
"""Seconds between two writes of a job's progress."""

_log = logging.getLogger("bridge.jobs")


class Stopped(BaseException):
    """A job is to end now. Not an `Exception`: nobody on the way takes it for a failure."""


class Running:
    """What a job's work is given: where it says how far it is, and where it learns that it is to end."""

    def __init__(self, store: JobStore, job: Job) -> None:
        self._store, self._job = store, job
        self._told = 0.0
        self._progress: dict[str, Any] = dict(job.progress)
        self.said: list[str] = list(job.said)
        self.stop = threading.Event()
        self.cancelled = False

    def say(self, line: str) -> None:
        """A line for whoever asks."""
        self.said = [*self.said, line][-KEPT_LINES:]
        self.check()

    def report(self, progress: Progress) -> None:
        """How far it is.

        Raises:
            Stopped: the job is to end now.
        """
        found: dict[str, Any] = msgspec.to_builtins(progress)
        self.tell(found)

    def tell(self, progress: Mapping[str, Any]) -> None:
        """The same, in words of its own."""
        self._progress = dict(progress)
        self.check()
        now = time.monotonic()
        if now - self._told >= _TOLD:
            self._told = now
            self.keep()

    def keep(self) -> None:
        self._store.progress(self._job.id, self._progress, self.said)

    def check(self) -> None:
        """Raises Stopped where the job is to end."""
        if self.stop.is_set():
            raise Stopped


class Jobs:
    """Runs the jobs of a store, `most` at a time, in the order in which they came.

    Args:
        store: where they are kept.
        work: does one.
        most: how many run at once.
        kept: of those that have ended; older ones are forgotten.
        forget: is told the id of each that was done, and whether it is forgotten.
    """

    def __init__(
        self,
        store: JobStore,
        work: Work,
        *,
        most: int = 1,
        kept: int = 1000,
        forget: Callable[[str, bool], None] = lambda name, whole: None,
    ) -> None:
        self.store = store
        self._work, self._kept, self._forget = work, kept, forget
        self._running: dict[str, Running] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._run, name=f"job-{number}", daemon=True) for number in range(most)
        ]

    def start(self) -> None:
        """Go on with what another daemon left, and begin what waits."""
        for name in self.store.requeue_running():
            _log.info("job %s was interrupted: going on with it", name)
        for thread in self._threads:
            thread.start()

    def add(self, kind: Kind, index: str, owner: str, request: bytes, name: str | None = None) -> Job:
        """A new job; it is kept before this returns."""
        job = self.store.add(name or new_id(), kind, index, owner, request)
        self._wake()
        return job

    def cancel(self, name: str) -> bool:
        """End a job that waits or runs, as soon as it can; False where it has ended already."""
        if self.store.cancel_queued(name):
            return True
        with self._changed:
            running = self._running.get(name)
            if running is None:
                return False
            running.cancelled = True
            running.stop.set()
            return True

    def resume(self, name: str) -> None:
        """Let a job that failed or was cancelled wait again; it goes on where it stopped."""
        self.store.requeue(name)
        self._wake()

    def close(self, seconds: float) -> bool:
        """End what runs: it goes on when a daemon starts again. False where something did not end in time."""
        with self._changed:
            self._closing = True
            for running in self._running.values():
                running.stop.set()
            self._changed.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    return
                job = self.store.begin_next()
                if job is None:
                    self._changed.wait()
                    continue
                running = self._running[job.id] = Running(self.store, job)
            try:
                self._do(job, running)
            finally:
                with self._changed:
                    del self._running[job.id]

    def _do(self, job: Job, running: Running) -> None:
        try:
            result = self._work(job, running)
        except Stopped:
            running.keep()
            if running.cancelled:
                self.store.end(job.id, "cancelled")
            else:
                self.store.requeue(job.id)
        except BridgeError as error:
            running.keep()
            self.store.end(job.id, "failed", error=str(error))
            _log.warning("job %s failed: %s", job.id, error)
        except Exception as error:
            running.keep()
            _log.exception("job %s failed", job.id)
            self.store.end(job.id, "failed", error=f"unexpected {type(error).__name__}; the daemon's log says more")
        else:
            running.keep()
            self.store.end(job.id, "done", result=result)
            self._forget(job.id, False)
        for name in self.store.forget(self._kept):
            self._forget(name, True)


def new_id() -> str:
    """Of a job: nobody guesses it."""
    return secrets.token_hex(8)
