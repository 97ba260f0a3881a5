"""Queries that were encoded before: those asked last, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from bridge.records import EncodedQuery

LONGEST = 2_000
"""Characters; longer questions are rarely asked twice, and a few would take much memory."""


class QueryCache:
    """The `size` queries that were asked last. Safe to share between threads.

    Args:
        size: how many are kept; none with 0.
    """

    __slots__ = ("_kept", "_lock", "size")

    def __init__(self, size: int = 1024) -> None:
        self.size = size
        self._kept: OrderedDict[Hashable, EncodedQuery] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> EncodedQuery | None:
        """What was put there under `key`, unless it has had to go."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Hashable, query: EncodedQuery) -> None:
        """Keep `query`; the one that was not asked for longest goes."""
        if not self.size or len(query.text) > LONGEST:
            return
        with self._lock:
            self._kept[key] = query
            self._kept.move_to_end(key)
            if len(self._kept) > self.size:
                self._kept.popitem(last=False)
