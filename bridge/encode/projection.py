"""The projection model: sparse documents from any dense encoder and a table, queries by look-up.

`bridge fit --teacher` makes the table from a corpus, without judgements and without training. The score of
a query's terms against a document is the lexical one plus, for each term, what the dense encoder's view of the
document says about that word::

    query      q(t) = √idf(t)                                       idf as in the lexical model
    document   own terms    max(l(t) + p(t), floor · l(t))     l(t) = q(t) · saturated frequency of t
               some others  n(t) + p(t), where above zero      p(t) = words[t] · (embedding − mean)
                                                               n(t) = q(t) · ν · Σ cos(t, s) · saturated frequency of s

The last sum goes over the document's own terms s that have t among their neighbours. Of the terms that a
document does not hold, those with the largest weight · reach[t] are kept, where reach is q(t) times a power of
the number of documents that hold t: a word that is never asked for is a wasted entry. How `words`, `mean` and
`reach` come about stands in `bridge.fit_projection`; what was tried, in docs/projection.md.

A folder of this family::

    bridge.json               the card: family, k1, b, the teacher's name and fingerprint, …
    idf.json                  term ─▶ query weight; the table's rows are its first terms, in order
    projection.safetensors    words float16[n, d] · mean float32[d] · reach float32[n]
                              neighbours int32[n, k] (−1: none) · cosines float32[n, k]

The teacher's weights are not in it. They are loaded when the first document is encoded; queries need none of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from bridge.encode.analysis import WordAnalyzer
from bridge.encode.base import OverlayVocabulary, TokenVocabulary
from bridge.encode.folder import CARD_FILE, file_hash
from bridge.encode.lexical import asked_terms, function_terms, saturated
from bridge.encode.lookup import read_idf
from bridge.encode.run_options import RunOptions
from bridge.errors import ModelFormatError, ModelMismatch, ModelNotFound, UsageError
from bridge.offsets import Span, TokenOffsets
from bridge.records import SparseVector

FAMILY = "projection"
TABLE_FILE = "projection.safetensors"

_AT_ONCE = 32
"""Documents whose weights over the whole table are held at a time."""

Floats = npt.NDArray[np.float32]


class ProjectionCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What bridge.json holds.

    Attributes:
        k1, b, documents, average_length: of the lexical part.
        unseen_weight: the query weight of a term that idf.json lacks.
        teacher: the dense encoder's folder or Hugging Face id, as it was named when the model was fitted.
        teacher_fingerprint: what that encoder's must be.
        table: sha256 (hex) of projection.safetensors.
        expansion: the most terms that a document gets beside its own,
        terms: the terms that it should have in all: one with many of its own gets fewer others,
        least_expansion: but up to so many whatever it has.
        floor: the share of its lexical weight that an own term keeps whatever the teacher says.
        neighbour_weight: ν, what an own term lends to its neighbours.
    """

    family: Literal["projection"] = "projection"
    format: Literal[1] = 1
    language: str | None = None
    stemmer: str | None = None
    k1: float = 0.9
    b: float = 0.4
    documents: int
    average_length: float
    unseen_weight: float
    teacher: str
    teacher_fingerprint: str
    table: str
    expansion: int
    least_expansion: int
    terms: int
    floor: float
    neighbour_weight: float


class Teacher(Protocol):
    """A dense encoder, as far as it is needed here."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dimension(self) -> int: ...

    def encode_document(self, texts: Sequence[str]) -> Floats:
        """float32[n, dimension], one row a text."""
        ...

    def encode_query(self, texts: Sequence[str]) -> Floats:
        """float32[n, dimension], one row a text."""
        ...


@dataclass(frozen=True, slots=True)
class ProjectionTable:
    """What projects an embedding onto terms; row i is of the i-th term of idf.json.

    Attributes:
        words: float16[n, d]; the product with a centred embedding is a document weight.
        mean: float32[d], the mean embedding of a document.
        reach: float32[n], what a weight is multiplied by when terms compete for a place.
        neighbours: int32[n, k], rows of similar words; −1 where there are fewer.
        cosines: float32[n, k], their similarity; 0 where there are fewer.
    """

    words: npt.NDArray[np.float16]
    mean: Floats
    reach: Floats
    neighbours: npt.NDArray[np.int32]
    cosines: Floats

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(getattr(self, name)) for name in _SHAPES}, path)

    @classmethod
    def load(cls, path: Path) -> ProjectionTable:
        """Read it.

        Raises:
            ModelFormatError: missing, no safetensors, or not such a table.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays: dict[str, npt.NDArray[Any]] = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelFormatError(f"{path} cannot be read: {error}") from error
        sizes: dict[str, int] = {}
        for name, (kind, axes) in _SHAPES.items():
            array = arrays.get(name)
            if array is None or array.dtype != kind or array.ndim != len(axes):
                raise ModelFormatError(f"{path} has no {name} {kind}[{', '.join(axes)}]")
            for axis, size in zip(axes, array.shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise ModelFormatError(f"{path}: {name} has {size} {axis}, where another array has {sizes[axis]}")
        if not all(np.isfinite(arrays[name]).all() for name in ("words", "mean", "reach", "cosines")):
            raise ModelFormatError(f"{path} holds values that are not finite")
        listed = arrays["neighbours"]
        if listed.size and not (listed.min() >= -1 and listed.max() < sizes["terms"]):
            raise ModelFormatError(f"{path}: neighbours names rows that are not there")
        return cls(**{name: arrays[name] for name in _SHAPES})


_SHAPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "words": ("float16", ("terms", "dimensions")),
    "mean": ("float32", ("dimensions",)),
    "reach": ("float32", ("terms",)),
    "neighbours": ("int32", ("terms", "places")),
    "cosines": ("float32", ("terms", "places")),
}


class ProjectionEncoder:
    """Documents (with the teacher) and queries (without) of one fitted folder.

    A folder without its table, as it travels with an index, encodes queries only.

    Args:
        folder: what `bridge fit --teacher` wrote.
        teacher: the dense encoder, or its folder or Hugging Face id; by default the one that the card names.
            It is loaded when documents are encoded.
        options: where that one runs.
    """

    open_vocabulary = True

    def __init__(
        self, folder: Path, *, teacher: Teacher | str | None = None, options: RunOptions | None = None
    ) -> None:
        self.name = folder.name or str(folder)
        self.card = read_projection_card(folder)
        self.analyzer = WordAnalyzer(self.card.stemmer)
        self._weights = read_idf(folder / "idf.json")
        self._folder = folder
        small = (folder / CARD_FILE, folder / "idf.json")
        # The card holds the table's hash, so the small files tell models apart without reading the large one.
        self.query_fingerprint = f"{FAMILY}-query-{file_hash(*small)[:16]}"
        self.space = self.query_fingerprint
        self.portable: dict[str, tuple[Path, ...]] = {self.query_fingerprint: small}
        self.encodes_documents = (folder / TABLE_FILE).is_file()
        self.fingerprint = self.query_fingerprint
        if self.encodes_documents:
            self.fingerprint = f"{FAMILY}-{file_hash(*small)[:16]}"
            self.portable[self.fingerprint] = (*small, folder / TABLE_FILE)
        self.vocabulary = TokenVocabulary(tuple(self._weights))
        self._function_terms = function_terms(self.card.language, self.analyzer)
        self._named: Teacher | str = teacher or self.card.teacher
        self._teacher: Teacher | None = None
        self._options = options or RunOptions()
        self._projector: Projector | None = None

    @property
    def ceilings(self) -> tuple[float, float]:
        largest = max(self._weights.values(), default=self.card.unseen_weight)
        # The teacher can add about as much as the word's own saturated frequency gives.
        return 2 * (self.card.k1 + 1) * largest, largest

    @property
    def passage_tokenizer(self) -> TokenOffsets | None:
        """The teacher's, which is what reads no more than its length; None where that one has none."""
        found: TokenOffsets | None = getattr(self.teacher, "passage_tokenizer", None)
        return found

    @property
    def max_document_tokens(self) -> int | None:
        """The longest document that the teacher reads whole, special tokens counted."""
        found: int | None = getattr(self.teacher, "max_document_tokens", None)
        return found

    def spans(self, text: str) -> list[Span]:
        return self.analyzer.spans(text)

    def encode_query(self, texts: Sequence[str]) -> list[SparseVector]:
        vocabulary = OverlayVocabulary(self.vocabulary)
        vectors = []
        for terms in self.analyzer.terms(texts):
            asked = asked_terms(terms, self._function_terms)
            vectors.append(vocabulary.vector(asked, self._query_weights(asked)))
        return vectors

    def encode_document(self, texts: Sequence[str]) -> list[SparseVector]:
        vocabulary = OverlayVocabulary(self.vocabulary)
        empty = vocabulary.vector((), np.empty(0))
        vectors = [empty] * len(texts)
        # Asked for even where there is nothing to encode: what is missing must show before anything is written.
        projector, teacher = self.projector, self.teacher
        counts = [Counter(terms) for terms in self.analyzer.terms(texts)]
        filled = [i for i, counted in enumerate(counts) if counted]
        if not filled:
            return vectors
        embeddings = teacher.encode_document([texts[i] for i in filled])
        for start in range(0, len(filled), _AT_ONCE):
            part = filled[start : start + _AT_ONCE]
            projected = projector.project(embeddings[start : start + _AT_ONCE])
            for i, row in zip(part, projected, strict=True):
                vectors[i] = self._document(counts[i], row, projector, vocabulary)
        return vectors

    @property
    def projector(self) -> Projector:
        """The table, read when it is first asked for."""
        if self._projector is None:
            path = self._folder / TABLE_FILE
            if not self.encodes_documents:
                raise UsageError(f"model {self.name} encodes queries only: {TABLE_FILE} is not in {self._folder}")
            if hash_of(path) != self.card.table:
                raise ModelFormatError(f"{path} is not the table that {CARD_FILE} names (its sha256 differs)")
            table = ProjectionTable.load(path)
            if len(table.reach) > len(self.vocabulary):
                raise ModelFormatError(f"{self._folder}: {TABLE_FILE} has more rows than idf.json has terms")
            weights = np.fromiter(self._weights.values(), dtype=np.float32, count=len(self._weights))
            self._projector = Projector(table, weights, self.card)
        return self._projector

    @property
    def teacher(self) -> Teacher:
        """The dense encoder.

        Raises:
            ModelNotFound: it is not where the card says.
            ModelMismatch: there is another one.
        """
        if self._teacher is None:
            found = self._load_teacher(self._named) if isinstance(self._named, str) else self._named
            if found.fingerprint != self.card.teacher_fingerprint:
                raise ModelMismatch(
                    f"model {self.name} was fitted with the dense encoder {self.card.teacher_fingerprint}, "
                    f"and {found.name} is {found.fingerprint}"
                )
            self._teacher = found
        return self._teacher

    def _load_teacher(self, name: str) -> Teacher:
        from bridge.encode.dense import load_dense

        run = self._options
        try:
            return load_dense(
                name,
                device=run.device,
                precision=run.precision,
                allow_pickle=run.allow_pickle,
                trust_remote_code=run.trust_remote_code,
                threads=run.threads,
            )
        except ModelNotFound as error:
            raise ModelNotFound(
                f"{error}; model {self.name} encodes documents with that dense encoder: name its place with --teacher"
            ) from error

    def _query_weights(self, terms: Sequence[str]) -> npt.NDArray[np.float64]:
        unseen = self.card.unseen_weight
        return np.fromiter((self._weights.get(term, unseen) for term in terms), dtype=np.float64, count=len(terms))

    def _document(
        self, counted: Counter[str], projected: Floats, projector: Projector, vocabulary: OverlayVocabulary
    ) -> SparseVector:
        frequency = saturated(counted, self.card.k1, self.card.b, self.card.average_length)
        weights = frequency * self._query_weights(list(counted))
        ids = np.fromiter(map(vocabulary.id_of, counted), dtype=np.int32, count=len(counted))
        added, added_weights = projector.apply(ids, frequency, weights, projected)
        ids = np.concatenate([ids, added])
        order = np.argsort(ids)
        return SparseVector(ids[order], np.concatenate([weights, added_weights])[order].astype(np.float32), vocabulary)


class Projector:
    """A table made ready: embeddings ─▶ weights over its terms, and from these a document's vector."""

    def __init__(self, table: ProjectionTable, weights: Floats, card: ProjectionCard) -> None:
        self._words: Floats = np.ascontiguousarray(table.words.T, dtype=np.float32)
        self._table = table
        self._lent: Floats = weights[: len(table.reach)] * card.neighbour_weight
        self._card = card

    def project(self, embeddings: Floats) -> Floats:
        """p: float32[n documents, n terms] of float32[n documents, d]."""
        centred: Floats = embeddings - self._table.mean
        return centred @ self._words

    def apply(
        self,
        ids: npt.NDArray[np.int32],
        frequency: npt.NDArray[np.float64],
        weights: npt.NDArray[np.float64],
        projected: Floats,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Change the own terms' `weights` in place; return the ids and weights of the terms that are added.

        Args:
            ids: the document's own terms; those past the table are left as they are.
            frequency: their saturated frequencies.
            weights: their lexical weights, l(t).
            projected: p, float32[n terms] of the table; it is used up.
        """
        table, card = self._table, self._card
        listed = ids < len(table.reach)
        own = ids[listed]
        weights[listed] = np.maximum(weights[listed] + projected[own], card.floor * weights[listed])
        near = table.neighbours[own]
        lent = table.cosines[own] * frequency[listed][:, None]
        there = near >= 0
        received = np.bincount(near[there], lent[there], minlength=len(projected))
        projected += (self._lent * received).astype(np.float32)
        projected[own] = 0
        rank = projected * table.reach
        room = max(card.least_expansion, min(card.expansion, card.terms - len(ids)))
        wanted = min(room, len(rank))
        best = np.argpartition(rank, len(rank) - wanted)[len(rank) - wanted :] if wanted else np.empty(0, np.intp)
        added: npt.NDArray[np.int32] = best[rank[best] > 0].astype(np.int32)
        return added, projected[added].astype(np.float64)


def hash_of(path: Path) -> str:
    """sha256 (hex) of a file's content.

    Raises:
        ModelFormatError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror}") from error


def read_projection_card(folder: Path) -> ProjectionCard:
    """The card of a fitted folder.

    Raises:
        ModelFormatError: missing, or not such a card.
    """
    path = folder / CARD_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProjectionCard)
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelFormatError(f"{path} is not a projection model's card: {error}") from error
