"""Long text ─▶ passages that fit a model, and their vectors ─▶ one vector.

A passage ends, as far as it can, where a sentence does; else at the end of a line, else between
words, else between tokens. Every end is checked by tokenizing the passage alone, because a slice of
a text need not have the slice of its tokens. A text is read in windows, so that the time grows with
its length and the memory does not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import regex

from bridge.errors import DocumentError, UsageError
from bridge.offsets import TokenOffsets
from bridge.records import Ids, SparseVector, Vocabulary

# Characters a token, to begin with: English has 4 to 5. After that, a quarter more than the last passage took.
_RATE = 6.0
_MARGIN = 1.25
_WINDOW_LEAST = 64
_TRIES = 4
_LONGEST_GRAPHEME = 64

_CLOSING = r"""[\p{Pe}\p{Pf}\p{Pi}"'`*_]*+"""
# A stop after a single capital is most often an initial's, after a number where a sentence would start a list's,
# and before a lower-case letter an abbreviation's. Other scripts' stops mean nothing else, and need no space.
_SENTENCE = regex.compile(
    rf"(?<!\b\p{{Lu}}|(?:^|[\n\r.!?:]\s{{0,3}})\p{{Nd}}{{1,3}})[.!?…]++{_CLOSING}\s++(?!\p{{Ll}})"
    rf"|[\p{{Sentence_Terminal}}--[.!?]]++{_CLOSING}\s*+"
    r"|[\n\r\x85\u2028\u2029]\s*+(?!\p{Ll})"
    r"|(?>\r\n|[\n\r\x85])[^\S\n\r\x85]*+[\n\r\x85]\s*+",
    regex.VERSION1,
)
_LINE = regex.compile(r"[\n\r\x85\u2028\u2029]\s*+")
_WORD = regex.compile(r"[\s\u200b]++")
_INK = regex.compile(r"\S")
_GRAPHEME = regex.compile(r"\X")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a text: `text` is exactly ``original[start:end]``."""

    text: str
    start: int
    """Offset of its first character."""
    end: int
    """Offset past its last character."""
    tokens: int
    """Tokens of `text` alone, the model's special tokens counted."""


def chunk(text: str, tokenizer: TokenOffsets, *, max_tokens: int, overlap: int = 0) -> list[Passage]:
    """`text` as passages that cover it, in order; none for an empty text.

    Args:
        tokenizer: the model's.
        max_tokens: a passage's longest, in tokens of it alone, the model's special tokens counted.
        overlap: about how many tokens at the end of a passage come again at the start of the next: as
            many whole sentences as fit into that, else words. Between sentences it gives way to one
            that fits whole only without it.

    Raises:
        UsageError: `max_tokens` leaves no room for text, or `overlap` takes more than half of it.
        DocumentError: a single character takes more tokens than a passage may have.
    """
    budget = max_tokens - tokenizer.special
    if budget < 1:
        raise UsageError(f"max_tokens is {max_tokens}; {tokenizer.special} special tokens leave no room for text")
    if not 0 <= overlap <= budget // 2:
        raise UsageError(f"overlap is {overlap}; it lies between 0 and half of the {budget} tokens of text a passage")
    cutter = _Cutter(text, tokenizer, budget)
    return [
        Passage(text[cut.start : cut.end], cut.start, cut.end, cut.tokens + tokenizer.special)
        for cut in cutter.cuts(overlap)
    ]


def join(passages: Sequence[Passage]) -> str:
    """The text that `passages` cover: their overlaps taken once.

    Raises:
        UsageError: there is a gap between two, so that they are not all of a text's passages, in order.
    """
    parts: list[str] = []
    end = 0
    for passage in passages:
        if passage.start > end:
            raise UsageError(f"no passage covers the characters {end} to {passage.start}")
        parts.append(passage.text[end - passage.start :])
        end = passage.end
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Cut:
    start: int
    end: int
    tokens: int
    """Tokens of the slice, special ones left out."""
    clean: bool
    """Whether it ends where a sentence or the text does."""
    starts: Sequence[int]
    """Where the tokens of the slice, and some after it, start; counted from `start`."""


@dataclass(frozen=True, slots=True)
class _Cutter:
    text: str
    tokenizer: TokenOffsets
    budget: int
    """Tokens a passage, special ones left out."""

    def cuts(self, overlap: int) -> Iterator[_Cut]:
        start, done, clean, rate = 0, 0, True, _RATE  # characters a token
        while done < len(self.text):
            cut = self._cut(start, done, rate)
            # After a passage that was cut inside a sentence, the overlap is what holds that sentence together.
            if start < done and (cut is None or (clean and not cut.clean)):
                fresh = self._cut(done, done, rate)
                if cut is None or (fresh is not None and fresh.clean):
                    cut = fresh
            # Without an overlap there is always a cut, or an error.
            assert cut is not None  # noqa: S101
            yield cut
            start, done, clean = self._again(cut, overlap), cut.end, cut.clean
            rate = (cut.end - cut.start) / max(cut.tokens, 1)

    def _cut(self, start: int, done: int, rate: float) -> _Cut | None:
        """The longest passage from `start` that goes past `done`; None where only a later start allows one."""
        starts = self._window(start, rate)
        if len(starts) <= self.budget:
            return _Cut(start, len(self.text), len(starts), True, starts)
        limit = start + starts[self.budget]
        # Some tokenizers count a space to the token after it: a border may lie past the space.
        after = starts[self.budget + 1] if len(starts) > self.budget + 1 else starts[self.budget]
        limit = self._ink(limit, start + after)
        for tried in count():
            limit = max(limit, start + 1)
            end, clean = self._border(done, limit)
            if end <= done:
                return None
            slice_ = self.text[start:end]
            tokens = len(self.tokenizer.ids(slice_))
            if tokens <= self.budget:
                return _Cut(start, end, tokens, clean, starts)
            if end == start + 1:
                raise DocumentError(
                    f"the character {slice_!r} (U+{ord(slice_):04X}) takes {tokens} tokens, "
                    f"more than the {self.budget} that a passage may have"
                )
            # Halving ends it soon where a slice's tokens have little to do with those of the whole.
            over = self.tokenizer.starts(slice_)[self.budget] if tried < _TRIES else (end - start) // 2
            limit = min(start + over, end - 1)
        raise AssertionError  # the loop returns or raises

    def _window(self, start: int, rate: float) -> Sequence[int]:
        """Where the tokens from `start` on start: more than the budget, unless the text ends before."""
        size = int(self.budget * rate * _MARGIN) + _WINDOW_LEAST
        while True:
            starts = self.tokenizer.starts(self.text[start : start + size])
            if len(starts) > self.budget or start + size >= len(self.text):
                return starts
            size *= 2

    def _ink(self, start: int, end: int) -> int:
        """The first character from `start` on that is not white space; `end` where that comes first."""
        found = _INK.search(self.text, start, end)
        return found.start() if found else end

    def _border(self, done: int, limit: int) -> tuple[int, bool]:
        """The best end in (done, limit], and whether a sentence ends there; `limit` where nothing is better."""
        # White space alone is no passage.
        first = self._ink(done, limit)
        # One character more: what comes after a stop says whether it ends a sentence.
        for pattern in (_SENTENCE, _LINE, _WORD):
            found = [m.end() for m in pattern.finditer(self.text, first, limit + 1) if m.end() <= limit]
            if found:
                return found[-1], pattern is _SENTENCE
        return self._between_graphemes(first, limit), False

    def _between_graphemes(self, first: int, limit: int) -> int:
        """`limit`, or before the character with its marks that it would tear apart."""
        if limit >= len(self.text):
            return limit
        near = max(first, limit - _LONGEST_GRAPHEME)
        ends = [m.end() for m in _GRAPHEME.finditer(self.text, near, limit + _LONGEST_GRAPHEME) if m.end() <= limit]
        return ends[-1] if ends else limit

    def _again(self, cut: _Cut, overlap: int) -> int:
        """Where the passage after `cut` starts: at most about `overlap` tokens before its end."""
        if not overlap or cut.end == len(self.text):
            return cut.end
        tokens = bisect_left(cut.starts, cut.end - cut.start)
        earliest = max(cut.start + cut.starts[max(tokens - overlap, 0)], cut.start + 1)
        for pattern in (_SENTENCE, _WORD):
            # The border at `earliest` itself is the end of what stands before it.
            for match in pattern.finditer(self.text, cut.start, cut.end):
                if match.end() >= earliest and match.end() < cut.end:
                    return match.end()
        return min(self._between_graphemes(cut.start + 1, earliest), cut.end)


@dataclass(frozen=True, slots=True)
class _Merged:
    """The vocabulary of vectors whose own ones differ: just their tokens."""

    listed: Mapping[int, str]
    size: int

    def __len__(self) -> int:
        return self.size

    def tokens(self, ids: Ids) -> tuple[str, ...]:
        return tuple(self.listed[i] for i in ids.tolist())


def merge_max(vectors: Sequence[SparseVector]) -> SparseVector:
    """One vector of a text's passages: for each token the largest of its weights.

    Vectors of different vocabulary objects are merged by token. An id stays what it was, unless another
    token or another id of the same token came first; then it becomes one past all of the vocabularies'.

    Raises:
        UsageError: there are no vectors.
    """
    if not vectors:
        raise UsageError("there are no vectors to merge")
    vocabulary: Vocabulary = vectors[0].vocabulary
    if all(vector.vocabulary is vocabulary for vector in vectors):
        ids = [vector.ids for vector in vectors]
    else:
        vocabulary, ids = _common(vectors)
    every = np.concatenate(ids)
    if not len(every):
        return SparseVector(every, np.zeros(0, np.float32), vocabulary)
    order = np.argsort(every, kind="stable")
    every = every[order]
    first = np.flatnonzero(np.diff(every, prepend=-1))
    weights = np.concatenate([vector.weights for vector in vectors])[order]
    return SparseVector(every[first], np.maximum.reduceat(weights, first), vocabulary)


def _common(vectors: Sequence[SparseVector]) -> tuple[Vocabulary, list[Ids]]:
    """A vocabulary for all of `vectors`, and the ids of each in it."""
    listed: dict[int, str] = {}
    known: dict[str, int] = {}
    size = max(len(vector.vocabulary) for vector in vectors)
    ids: list[Ids] = []
    for vector in vectors:
        mapped: list[int] = []
        for i, token in zip(vector.ids.tolist(), vector.tokens, strict=True):
            if token not in known:
                if i in listed:
                    i, size = size, size + 1
                known[token], listed[i] = i, token
            mapped.append(known[token])
        ids.append(np.asarray(mapped, dtype=np.int32))
    return _Merged(listed, size), ids
