"""Short runs of bytes ─▶ numbers, thousands looked up at once.

A dictionary takes a tenth of a microsecond and more for each word of a text: it makes an object of it, and waits for
memory three times. Here a run of up to sixteen bytes is two 64-bit numbers, and all runs of a batch are cut out, hashed
and compared by a few array operations. Open addressing with linear probing (Knuth, "The Art of Computer Programming",
volume 3, section 6.4); the hash is multiply-shift with random factors (Dietzfelbinger and others, "A Reliable
Randomized Algorithm for the Closest-Pair Problem", 1997), so that nobody can write texts whose words all collide.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

LONGEST = 16
"""Bytes of a run that such a table can hold."""

UNKNOWN = int(np.iinfo(np.int32).min)
"""The number of a run that is not there."""

_FIRST_BITS = 12
_HALF = LONGEST // 2
_WORD = np.dtype("<u8")
_BLANK = ord(" ")

_FIRST_MASKS = np.array([(1 << 8 * min(length, _HALF)) - 1 for length in range(LONGEST + 1)], dtype=np.uint64)
_SECOND_MASKS = np.array([(1 << 8 * max(length - _HALF, 0)) - 1 for length in range(LONGEST + 1)], dtype=np.uint64)
"""By a run's length: which bits of the eight bytes from its first, and from its ninth on, are its own."""

_Numbers = npt.NDArray[np.int32]
_Indices = npt.NDArray[np.int64]
_Halves = npt.NDArray[np.uint64]


class Runs:
    """All runs of several texts, in order.

    Attributes:
        starts, lengths: int64[runs], in bytes of `data`.
        counts: int64[texts], how many each text has.

    Args:
        texts: with blanks, and no other white space, between runs; no run holds a NUL.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        # A blank before the first, and after the last as much as is read beyond the beginning of a run.
        self.data = b"".join((b" ", b" ".join(texts), b" " * (LONGEST + 1)))
        blank = np.frombuffer(self.data, np.uint8) == _BLANK
        edges = np.flatnonzero(blank[1:] != blank[:-1]) + 1
        self.starts: _Indices = edges[0::2]
        self.lengths: _Indices = edges[1::2] - self.starts
        ends = list(accumulate((len(text) + 1 for text in texts), initial=0))
        self.counts: _Indices = np.diff(np.searchsorted(self.starts, ends, side="right"))

    def __len__(self) -> int:
        return len(self.starts)

    def at(self, places: npt.NDArray[Any]) -> list[bytes]:
        """Some of them: their indices, or a bool for each."""
        starts = self.starts[places]
        ends = starts + self.lengths[places]
        return [self.data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def halves(self) -> tuple[_Halves, _Halves]:
        """The first and the second eight bytes of each, filled up with zeros; what is beyond them is left out."""
        # Eight bytes from any byte on.
        at: npt.NDArray[Any] = np.ndarray((len(self.data) - _HALF + 1,), _WORD, self.data, 0, (1,))
        lengths = np.minimum(self.lengths, LONGEST)
        first, second = at[self.starts], at[self.starts + _HALF]
        return first & _FIRST_MASKS[lengths], second & _SECOND_MASKS[lengths]


class RunTable:
    """Runs of 1 to `LONGEST` bytes, none of them a NUL, and a number of each. Safe to share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._factors = [np.uint64(secrets.randbits(64) | 1) for _ in range(2)]
        self._begin(_FIRST_BITS)

    def __len__(self) -> int:
        return self._count

    def get(self, runs: Runs) -> _Numbers:
        """Their numbers, int32[runs]; `UNKNOWN` for one that is not there, or is longer than `LONGEST`."""
        first, second = runs.halves()
        with self._lock:
            places = self._places(first, second)
            found: _Numbers = self._numbers.take(places)
        found[runs.lengths > LONGEST] = UNKNOWN
        return found

    def put(self, numbers: dict[bytes, int]) -> None:
        """Add these runs; one that is there keeps its number."""
        halves = np.frombuffer(b"".join(run.ljust(LONGEST, b"\0") for run in numbers), _WORD).reshape(-1, 2)
        with self._lock:
            self._add(halves.astype(np.uint64), np.fromiter(numbers.values(), np.int32, len(numbers)))

    def _begin(self, bits: int) -> None:
        self._bits, self._count = bits, 0
        self._halves: _Halves = np.zeros((1 << bits, 2), np.uint64)
        self._numbers: _Numbers = np.full(1 << bits, UNKNOWN, np.int32)

    def _add(self, halves: _Halves, numbers: _Numbers) -> None:
        if 2 * (self._count + len(numbers)) > len(self._numbers):
            kept = self._numbers != UNKNOWN
            old_halves, old_numbers = self._halves[kept], self._numbers[kept]
            self._begin((2 * (self._count + len(numbers))).bit_length())
            self._add(old_halves, old_numbers)
        left = np.arange(len(numbers))
        while len(left):
            places = self._places(halves[left, 0], halves[left, 1])
            # A place that several want goes to the last of them; the others look for another in the next round.
            self._halves[places] = halves[left]
            stays = (self._halves[places] == halves[left]).all(axis=1)
            free = self._numbers[places] == UNKNOWN
            self._numbers[places[stays & free]] = numbers[left[stays & free]]
            self._count += int((stays & free).sum())
            left = left[~stays]

    def _places(self, first: _Halves, second: _Halves) -> _Indices:
        """Where each is, or where it would go."""
        hashed = first * self._factors[0] + second * self._factors[1]
        places: _Indices = (hashed >> np.uint64(64 - self._bits)).astype(np.int64)
        there = self._halves.take(places, axis=0)
        left = np.flatnonzero(_other(there, first, second))
        while len(left):
            places[left] = (places[left] + 1) & (len(self._numbers) - 1)
            there = self._halves.take(places[left], axis=0)
            left = left[_other(there, first[left], second[left])]
        return places


def _other(there: _Halves, first: _Halves, second: _Halves) -> npt.NDArray[np.bool_]:
    """Whether what is in these places is something else. Where anything is, its first byte is no NUL."""
    other: npt.NDArray[np.bool_] = ((there[:, 0] != first) | (there[:, 1] != second)) & (there[:, 0] != 0)
    return other
