"""Texts ─▶ the numbers of their terms in an index, a batch at a time.

A text is mostly words seen before: those of several texts are looked up together (`bridge.encode.runtable`), and only
what is new goes through the analyzer, and what is long through a dictionary.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from bridge.encode.analysis import KnownRuns, WordAnalyzer, parted
from bridge.encode.runtable import LONGEST, UNKNOWN, Runs, RunTable

_REMEMBERED = 200_000
"""Runs, and as many terms that are not in the index."""

_FROM_BYTES = 4096
"""Of all texts together: below, the array operations take longer than a dictionary."""

_PORTION = 2**20
"""Bytes that are looked up at once: they take about thirty times as much memory meanwhile."""

_SEVERAL = -(2**30)
"""From here down, what the table gives says which of those runs it is that give several terms, or none."""

_Indices = npt.NDArray[np.int64]


class NumberedWords:
    """The terms of texts as their numbers in an index: words seen before go straight to them. Safe to share."""

    def __init__(self, analyzer: WordAnalyzer, index: Mapping[str, int]) -> None:
        self._analyzer, self._index = analyzer, index
        self._known = _Known(analyzer, index)

    def of(self, texts: Sequence[str], others: Callable[[list[str]], list[int]]) -> tuple[_Indices, _Indices]:
        """The numbers of all terms, in reading order, repeats kept, and the place of the text that each is in.

        Args:
            texts: any number.
            others: what gives terms that are not in the index their numbers.
        """
        known = self._known
        if known.full:
            known = self._known = _Known(self._analyzer, self._index)
        written = list(map(parted, texts))
        size = sum(map(len, written))
        if size < _FROM_BYTES:
            numbers, places = known.of_few(written)
        elif size <= _PORTION:
            numbers, places = known.of_many(written)
        else:
            found = [(known.of_many(pieces), np.array(owners)) for pieces, owners in _portions(written)]
            numbers = np.concatenate([ours for (ours, _), _ in found])
            places = np.concatenate([owners[theirs] for (_, theirs), owners in found])
        strange = numbers < 0
        if strange.any():
            codes = numbers[strange].tolist()
            distinct = list(dict.fromkeys(codes))
            given = dict(zip(distinct, others([known.others[-1 - code] for code in distinct]), strict=True))
            numbers[strange] = [given[code] for code in codes]
        return numbers, places


def _portions(texts: Sequence[bytes]) -> Iterator[tuple[list[bytes], list[int]]]:
    """Texts in pieces, a long one cut between two runs, and the place of each one's text: a portion at a time."""
    pieces: list[bytes] = []
    owners: list[int] = []
    size = 0
    for place, text in enumerate(texts):
        start = 0
        while start < len(text):
            end = text.find(b" ", start + _PORTION)
            end = len(text) if end < 0 else end
            pieces.append(text[start:end])
            owners.append(place)
            size += end - start
            start = end
            if size >= _PORTION:
                yield pieces, owners
                pieces, owners, size = [], [], 0
    if pieces:
        yield pieces, owners


class _Known:
    """Numbers of the terms of runs; those below zero count the terms that are not in the index."""

    def __init__(self, analyzer: WordAnalyzer, index: Mapping[str, int]) -> None:
        codes = _Codes(index)
        self.others = codes.others
        self._runs = KnownRuns(lambda word: map(codes.of, analyzer.of_word(word)))
        self._lock = threading.Lock()
        self._table = RunTable()
        self._groups = _Groups()

    @property
    def full(self) -> bool:
        """Whether it is time to begin anew."""
        return max(len(self.others), len(self._table)) >= _REMEMBERED

    def of_few(self, texts: Sequence[bytes]) -> tuple[_Indices, _Indices]:
        """See `NumberedWords.of`."""
        found = [list(chain.from_iterable(map(self._runs.__getitem__, text.split()))) for text in texts]
        numbers = np.fromiter(chain.from_iterable(found), np.int64)
        return numbers, np.repeat(np.arange(len(texts)), list(map(len, found)))

    def of_many(self, texts: Sequence[bytes]) -> tuple[_Indices, _Indices]:
        """See `NumberedWords.of`."""
        runs = Runs(texts)
        codes = self._table.get(runs).astype(np.int64)
        places = np.repeat(np.arange(len(texts)), runs.counts)
        if codes.min(initial=0) > _SEVERAL:
            return codes, places
        unknown = codes == UNKNOWN
        grouped = (codes <= _SEVERAL) & ~unknown
        met = self._met(runs.at(unknown))
        counts = np.ones(len(runs), np.int64)
        counts[grouped], numbers = self._groups.of(_SEVERAL - codes[grouped])
        counts[unknown] = list(map(len, met))
        codes = np.repeat(codes, counts)
        unknown = codes == UNKNOWN
        codes[(codes <= _SEVERAL) & ~unknown] = numbers
        codes[unknown] = np.fromiter(chain.from_iterable(met), np.int64)
        return codes, np.repeat(places, counts)

    def _met(self, runs: Sequence[bytes]) -> list[tuple[int, ...]]:
        """The numbers of runs that the table does not know; it gets to know those that it can hold."""
        known, new = self._runs, dict[bytes, tuple[int, ...]]()
        found: list[tuple[int, ...]] = []
        for run in runs:
            if len(run) > LONGEST:
                one = known[run]
            elif run in new:
                one = new[run]
            else:
                one = new[run] = known.analyzed(run)
            found.append(one)
        if new:
            with self._lock:
                codes = [one[0] if len(one) == 1 else _SEVERAL - self._groups.add(one) for one in new.values()]
            self._table.put(dict(zip(new, codes, strict=True)))
        return found


class _Codes:
    """Terms ─▶ their numbers in an index; those that it does not list are counted below zero."""

    def __init__(self, index: Mapping[str, int]) -> None:
        self.others: list[str] = []
        self._index = index
        self._given: dict[str, int] = {}
        self._lock = threading.Lock()

    def of(self, term: str) -> int:
        found = self._index.get(term)
        if found is None:
            with self._lock:
                found = self._given.get(term)
                if found is None:
                    found = self._given[term] = -1 - len(self.others)
                    self.others.append(term)
        return found


class _Groups:
    """Groups of numbers, each under its own number from zero on."""

    def __init__(self) -> None:
        self._numbers = np.zeros(1024, np.int64)
        self._bounds = np.zeros(1024, np.int64)
        self._added = 0

    def add(self, group: Sequence[int]) -> int:
        """Its number; for one thread at a time."""
        number, start = self._added, int(self._bounds[self._added])
        end = start + len(group)
        self._numbers = _with_room(self._numbers, end)
        self._numbers[start:end] = group
        self._bounds = _with_room(self._bounds, number + 2)
        self._bounds[number + 1] = end
        self._added += 1
        return number

    def of(self, groups: _Indices) -> tuple[_Indices, _Indices]:
        """How many numbers each of these has, and all of them in order."""
        starts = self._bounds[groups]
        counts = self._bounds[groups + 1] - starts
        before = np.cumsum(counts) - counts
        return counts, self._numbers[np.repeat(starts - before, counts) + np.arange(counts.sum())]


def _with_room(array: _Indices, size: int) -> _Indices:
    return array if size <= len(array) else np.concatenate([array, np.zeros(max(len(array), size), np.int64)])
