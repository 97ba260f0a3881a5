"""Queries that were encoded before: those asked last, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence

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

    def find(
        self,
        questions: Sequence[str],
        key: Callable[[str], Hashable],
        make: Callable[[list[str]], Iterable[EncodedQuery]],
    ) -> list[EncodedQuery]:
        """The queries of `questions`, in order: those that are kept, and what `make` makes of all others together."""
        if not self.size:
            return list(make(list(questions)))
        if len(questions) == 1:
            # One question is what most calls have, and what has to be fast.
            name = key(questions[0])
            query = self.get(name)
            if query is None:
                (query,) = make(list(questions))
                self.put(name, query)
            return [query]
        known = {question: self.get(key(question)) for question in questions}
        found = {question: query for question, query in known.items() if query}
        new = [question for question in known if question not in found]
        for question, query in zip(new, make(new) if new else (), strict=True):
            found[question] = query
            self.put(key(question), query)
        return [found[question] for question in questions]
