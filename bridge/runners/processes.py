"""Several processes on this machine, each with the model; the GPUs in turn, the cores of a CPU shared out."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import wait

from bridge.errors import BridgeError, SourceError
from bridge.runners import worker
from bridge.runners.work import Encoded, ModelSpec, Reading, Work

_AHEAD = 2
"""Batches a worker that are read and not yet written: one that it encodes, one that waits for it."""

_LOOK, _GRACE = 0.5, 5.0
"""Seconds between two looks for workers that have died, and after which a pool that knows of one would have ended."""


class Processes:
    """A pool of `workers` new processes that load the model of `spec`; they end with the run, or with this process."""

    def __init__(self, spec: ModelSpec, workers: int) -> None:
        self.spec, self.workers = spec, workers

    def run(self, reading: Reading, work: Work) -> Generator[Encoded, None, None]:
        context = get_context("spawn")
        threads = max(1, usable_cores() // self.workers)
        alive, wanted = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(
            self.workers,
            mp_context=context,
            initializer=worker.start,
            initargs=(context.Value("i", 0), alive, threads, pickle.dumps((self.spec, work))),
        )
        unread = _reading_end(pool)
        over = threading.Event()
        threading.Thread(target=_watch, args=(pool, over), daemon=True).start()
        under_way: deque[Future[Encoded]] = deque()
        try:
            try:
                for batch in reading.batches():
                    # The pool starts its processes here. An interruption of the terminal goes to all of them, and is
                    # this process's to answer.
                    with _no_interruption():
                        under_way.append(pool.submit(worker.encode, batch))
                    if len(under_way) >= _AHEAD * self.workers:
                        yield under_way.popleft().result()
            except SourceError:
                # What was read before it is not lost.
                yield from _results(under_way)
                raise
            yield from _results(under_way)
            pool.shutdown()
        except BrokenProcessPool as error:
            raise BridgeError(
                "a worker process ended before its work was done (killed, perhaps for want of memory: fewer --workers "
                "need less); the same command goes on there"
            ) from error
        finally:
            # Whoever is still at work ends at once.
            wanted.close()
            if unread is not None:
                threading.Thread(target=_read_out, args=(unread,), daemon=True).start()
            pool.shutdown(cancel_futures=True)
            over.set()
            alive.close()


def _reading_end(pool: ProcessPoolExecutor) -> int | None:
    """A descriptor, this function's caller's own, of the pipe that the pool sends batches through."""
    reader = getattr(getattr(pool, "_call_queue", None), "_reader", None)
    return None if reader is None else os.dup(reader.fileno())


def _read_out(end: int) -> None:
    """Take what nobody reads any more from the pipe, until its writer ends.

    A batch may be larger than a pipe holds, and Python before 3.12.1 waits forever until a worker that has died reads
    the rest of it (gh-94777).
    """
    try:
        while os.read(end, 1 << 16):
            pass
    finally:
        os.close(end)


def _watch(pool: ProcessPoolExecutor, over: threading.Event) -> None:
    """End a pool that waits for the rest of an answer in whose midst a worker has died.

    It reads an answer to its end, and looks only then who has died. Once nobody is left who could write to that pipe,
    neither a worker nor this process, the end comes, and the pool knows that it is broken.
    """
    workers = getattr(pool, "_processes", None)
    writer = getattr(getattr(pool, "_result_queue", None), "_writer", None)
    if workers is None or writer is None:
        return
    dead: dict[int, float] = {}
    while not over.wait(_LOOK):
        now = time.monotonic()
        for pid, process in list(workers.items()):
            if wait([process.sentinel], 0) and now - dead.setdefault(pid, now) > _GRACE:
                for one in list(workers.values()):
                    one.kill()
                writer.close()
                return


def _results(under_way: deque[Future[Encoded]]) -> Iterator[Encoded]:
    while under_way:
        yield under_way.popleft().result()


def usable_cores() -> int:
    """The cores that this process may use, which in a container are fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _no_interruption() -> Iterator[None]:
    """SIGINT held back; processes that are started meanwhile never get it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
