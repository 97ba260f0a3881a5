"""Text ─▶ what is stored of it: one vector or several, of the whole text or of its passages, pruned.

::

    whole    text ─▶ vector ─▶ pruned                        what goes past the model's length is not read
    merge    text ─▶ passages ─▶ vectors ─▶ their maximum ─▶ pruned
    nested   text ─▶ passages ─▶ vectors ─▶ each pruned

How it was done decides what a vector is, so an index and a vector file remember it (`str(preparation)`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import msgspec

from bridge.chunk import Passage, chunk, merge_max
from bridge.encode.base import Encoder
from bridge.errors import DocumentError, UsageError
from bridge.offsets import TokenOffsets
from bridge.prune import Pruning, parse_pruning
from bridge.records import SparseVector

Passages = Literal["whole", "merge", "nested"]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How texts become vectors; `str` gives its canonical form, which `parse_preparation` reads.

    Raises:
        UsageError: a length or an overlap where texts are not cut.

    >>> str(Preparation("merge", 256, 32, parse_pruning("top-k=128")))
    'merge passage-tokens=256 overlap=32 prune=top-k=128'
    """

    passages: Passages = "whole"
    max_tokens: int | None = None
    """A passage's longest, special tokens counted; None is the model's own length."""
    overlap: int = 0
    """About how many tokens of a passage come again in the next."""
    pruning: Pruning | None = None

    def __post_init__(self) -> None:
        if self.passages not in get_args(Passages):
            raise UsageError(f"passages are {' or '.join(get_args(Passages))}, not {self.passages!r}")
        if self.passages == "whole" and (self.max_tokens is not None or self.overlap):
            raise UsageError("a passage's length and overlap go with merged or nested passages, not with whole texts")

    def __str__(self) -> str:
        parts: list[str] = [self.passages]
        if self.max_tokens is not None:
            parts.append(f"passage-tokens={self.max_tokens}")
        if self.overlap:
            parts.append(f"overlap={self.overlap}")
        if self.pruning and str(self.pruning):
            parts.append(f"prune={self.pruning}")
        return " ".join(parts)

    def resolved(self, encoder: Encoder) -> Preparation:
        """This with the length that `encoder` really gets, so that two that do the same are equal.

        Raises:
            UsageError: the model's tokens cannot be counted, it has no length of its own and none is given, it
                reads fewer tokens than that, or length and overlap leave no room for text.
        """
        if self.pruning and not str(self.pruning):
            return replace(self, pruning=None).resolved(encoder)
        if self.passages == "whole":
            return self
        longest = getattr(encoder, "max_document_tokens", None)
        tokenizer = _tokenizer(encoder)
        wanted = self.max_tokens if self.max_tokens is not None else longest
        if wanted is None:
            raise UsageError(
                f"model {encoder.name} reads texts of any length; say how long a passage is with --passage-tokens"
            )
        if longest is not None and wanted > longest:
            raise UsageError(f"model {encoder.name} reads {longest} tokens; a passage cannot have {wanted}")
        chunk("", tokenizer, max_tokens=wanted, overlap=self.overlap)  # it checks both
        return replace(self, max_tokens=wanted)


WHOLE = Preparation()
"""A text is one vector, as the model gives it."""


class Prepared(msgspec.Struct, frozen=True):
    """What one text became."""

    vector: SparseVector | None
    """Of a whole text, or merged of its passages; None where passages are nested."""
    nested: tuple[tuple[Passage, SparseVector], ...] = ()
    """Passages with their vectors, in the text's order, where they are nested."""
    passages: int = 1
    """How many the text was cut into; 1 where it is taken whole."""
    terms: int = 0
    """Entries that are left, of all vectors together."""
    removed: int = 0
    """Entries that pruning took."""
    removed_mass: float = 0.0
    """The sum of their weights."""

    @property
    def mass(self) -> float:
        """The sum of the weights that are left, added up when it is asked for."""
        left = [vector for _, vector in self.nested] if self.vector is None else [self.vector]
        return sum(float(vector.weights.sum(dtype="float64")) for vector in left)


def prepare(encoder: Encoder, texts: Sequence[str], preparation: Preparation = WHOLE) -> list[Prepared | DocumentError]:
    """What each of `texts` becomes, in order; an error for one that cannot be cut.

    The passages of all texts are encoded in one call, so that a batch is as full as it can be.

    Args:
        encoder: of documents.
        texts: any number.
        preparation: as `Preparation.resolved` gives it, or before.

    Raises:
        UsageError: see `Preparation.resolved`; or the model encodes queries only.
    """
    preparation = preparation.resolved(encoder)
    cut: list[list[Passage] | DocumentError | None] = [None] * len(texts)
    if preparation.passages != "whole" and preparation.max_tokens is not None:
        tokenizer = _tokenizer(encoder)
        cut = [_cut(text, tokenizer, preparation.max_tokens, preparation.overlap) for text in texts]
    slices: list[str] = []
    for text, passages in zip(texts, cut, strict=True):
        if passages is None:
            slices.append(text)
        elif isinstance(passages, list):
            slices += [passage.text for passage in passages]
    vectors = iter(encoder.encode_document(slices))
    found: list[Prepared | DocumentError] = []
    for passages in cut:
        if isinstance(passages, DocumentError):
            found.append(passages)
        elif passages is None:
            found.append(_one(next(vectors), 1, preparation.pruning))
        else:
            encoded = [next(vectors) for _ in passages]
            if preparation.passages == "merge":
                found.append(_one(merge_max(encoded), len(encoded), preparation.pruning))
            else:
                found.append(_several(passages, encoded, preparation.pruning))
    return found


def parse_preparation(text: str) -> Preparation:
    """The preparation of that canonical form.

    Raises:
        UsageError: it is not of that form.
    """
    kind, *parts = text.split(" ")
    values = dict(part.partition("=")[::2] for part in parts)
    if len(values) < len(parts) or not values.keys() <= {"passage-tokens", "overlap", "prune"}:
        raise UsageError(f"{text!r} does not say how texts became vectors")
    try:
        tokens, overlap = int(values["passage-tokens"]) if "passage-tokens" in values else None, values.get("overlap")
        found = Preparation(
            kind,  # type: ignore[arg-type]  # checked by the record itself
            tokens,
            int(overlap or 0),
            parse_pruning(values["prune"]) if "prune" in values else None,
        )
    except ValueError:
        raise UsageError(f"{text!r} does not say how texts became vectors") from None
    return found


def _tokenizer(encoder: Encoder) -> TokenOffsets:
    tokenizer: TokenOffsets | None = getattr(encoder, "passage_tokenizer", None)
    if tokenizer is None:
        raise UsageError(
            f"where the tokens of model {encoder.name} stand in a text is not known, so it takes texts whole: "
            "leave --passages out"
        )
    return tokenizer


def _cut(text: str, tokenizer: TokenOffsets, max_tokens: int, overlap: int) -> list[Passage] | DocumentError:
    try:
        # An empty text is one empty passage: it has a vector, though an empty one.
        return chunk(text, tokenizer, max_tokens=max_tokens, overlap=overlap) or [Passage("", 0, 0, tokenizer.special)]
    except DocumentError as error:
        return error


def _one(vector: SparseVector, passages: int, pruning: Pruning | None) -> Prepared:
    if pruning is None:
        return Prepared(vector, (), passages, len(vector))
    left = pruning.apply(vector)
    return Prepared(left.vector, (), passages, len(left.vector), left.removed, left.removed_mass)


def _several(passages: Sequence[Passage], vectors: Sequence[SparseVector], pruning: Pruning | None) -> Prepared:
    ones = [_one(vector, 1, pruning) for vector in vectors]
    nested = tuple((cut, one.vector) for cut, one in zip(passages, ones, strict=True) if one.vector is not None)
    return Prepared(
        None,
        nested,
        len(passages),
        sum(one.terms for one in ones),
        sum(one.removed for one in ones),
        sum(one.removed_mass for one in ones),
    )
