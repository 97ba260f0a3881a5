"""Python's collector of cycles, kept out of the way of a load."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG_OBJECTS = 100_000
"""So many are made before Python looks for cycles among them."""

_lock = threading.Lock()
_running: list[tuple[int, int, int]] = []
"""The thresholds to go back to, once for each load that runs."""


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Documents under way are many objects without cycles: looking for these takes a quarter of a load's time.

    The thresholds are the process's: the first load to begin raises them, and the last one to end puts them back. What
    loads leave behind is looked for then: a process that does one after the other, as the daemon does, makes so little
    besides that Python would not look for it by itself.
    """
    with _lock:
        _running.append(_running[0] if _running else gc.get_threshold())
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS, 20, 100)
    try:
        yield
    finally:
        with _lock:
            before = _running.pop()
            if not _running:
                gc.set_threshold(*before)
                gc.unfreeze()
                gc.collect()
