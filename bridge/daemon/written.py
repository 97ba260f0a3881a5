"""Answers put together from pieces that were written before.

Where a question's words are looked up, every token has always the same weight, so it stands in every search body as the
same text. What an answer costs then is to find the texts: no vector, no body, no writing of JSON. What a token's text
is, and what stands around all of them, is taken from answers that were written in full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from bridge.encode.lookup import LookupEncoder
from bridge.records import EncodedQuery

MOST_PIECES = 8_192
"""Tokens whose text is known at once, about a megabyte; then it begins anew."""
MOST_SIZES = 16

Write = Callable[[EncodedQuery, int], bytes]
"""A query, and how many hits are wanted ─▶ the answer, as JSON.

Tokens are written one after the other, in order of their ids, with a comma between two; how one is written depends
neither on the others nor on the hits that are wanted.
"""


class Written:
    """Answers of one way of asking. For one event loop.

    Args:
        encoder: of the questions.
        most: tokens of a question that is answered so.
        write: what writes an answer in full.
    """

    def __init__(self, encoder: LookupEncoder, most: int, write: Write) -> None:
        self._encoder, self._most, self._write = encoder, most, write
        self._pieces: dict[int, bytes] = {}
        self._frames: dict[int, _Frame | None] = {}

    def answer(self, question: str, size: int) -> bytes | None:
        """What `write` writes; None where that is to be asked."""
        try:
            frame = self._frames[size]
        except KeyError:
            frame = self._frame(size)
        if frame is None:
            return None
        ids = self._encoder.query_ids(question)
        if not 0 < len(ids) <= self._most:
            return None
        known = self._pieces
        try:
            found = [known[i] for i in ids]
        except KeyError:
            if not self._learn(ids, size, frame):
                return None
            found = [self._pieces[i] for i in ids]
        return b"%b%b%b" % (frame.before, b",".join(found), frame.after)

    def _learn(self, ids: Sequence[int], size: int, frame: _Frame) -> bool:
        """Whether each token has a text: one whose weight changes what stands around all of them has none."""
        if len(self._pieces) + len(ids) > MOST_PIECES:
            self._pieces = {}
        for i in ids:
            if i not in self._pieces:
                whole = self._whole([i], size)
                if not (whole.startswith(frame.before) and whole.endswith(frame.after)):
                    return False
                self._pieces[i] = whole[len(frame.before) : len(whole) - len(frame.after)]
        return True

    def _frame(self, size: int) -> _Frame | None:
        if len(self._frames) >= MOST_SIZES:
            self._frames.clear()
            self._pieces.clear()
        pair = self._encoder.some_ids(2)
        frame = None
        if len(pair) == 2:
            frame = _common(self._whole(pair[:1], size), self._whole(pair[1:], size), self._whole(pair, size))
        self._frames[size] = frame
        return frame

    def _whole(self, ids: Sequence[int], size: int) -> bytes:
        return self._write(EncodedQuery("", self._encoder.query_vector(ids)), size)


class _Frame(NamedTuple):
    """What stands before and after the tokens of an answer."""

    before: bytes
    after: bytes


def _common(first: bytes, second: bytes, both: bytes) -> _Frame | None:
    """What answers have in common, from those of one token, of another, and of both; None where it cannot be told.

    That is where ``both`` is ``before + one + "," + other + after``, for one way of cutting it alone.
    """
    one, other = len(both) - len(second) - 1, len(both) - len(first) - 1
    if one <= 0 or other <= 0:
        return None
    found = [
        _Frame(first[:place], first[place + one :])
        for place in range(len(first) - one + 1)
        if first[:place] == second[:place]
        and first[place + one :] == second[place + other :]
        and both == first[: place + one] + b"," + second[place:]
    ]
    return found[0] if len(found) == 1 else None
