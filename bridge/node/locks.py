"""A lock between processes, on a file; the system releases it when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.errors import NodeNotReady

_PAUSE = 0.1


@contextmanager
def file_lock(path: Path, timeout: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock on `path`, waiting for it up to `timeout` seconds (None: for ever).

    Raises `NodeNotReady` when another process holds it for longer.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline is not None and time.monotonic() > deadline:
                    raise NodeNotReady(
                        f"another process has been starting or stopping the node for {timeout:.0f} s "
                        f"(lock {path}); wait for it and try again"
                    ) from None
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)
