"""Learn a model from a corpus, in one streaming pass: lexical, or with a dense encoder as teacher a projection.

Memory is bounded: past `MAX_TERMS` distinct terms the rarest are forgotten, which leaves their
query weight at that of an unseen term, within a few percent of what it would have been.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from bridge.encode.analysis import Analyzer, WordAnalyzer, stemmer_for
from bridge.encode.folder import CARD_FILE, writing
from bridge.encode.lexical import LexicalCard, LexicalEncoder, PieceAnalyzer, function_terms
from bridge.encode.load import cached_model
from bridge.encode.lookup import Wordpieces
from bridge.encode.projection import TABLE_FILE, ProjectionCard, ProjectionEncoder, Teacher, hash_of
from bridge.errors import SourceError, UsageError
from bridge.fit_projection import (
    EXPANSION,
    FLOOR,
    LEAST_EXPANSION,
    NEIGHBOUR_WEIGHT,
    TERMS,
    Corpus,
    Reservoir,
    fit_table,
)

MAX_TERMS = 2_000_000
LANGUAGE_SAMPLE = 200
"""Texts that language detection looks at, from the beginning of the corpus."""

_LANGUAGE_SHARE = 0.6
_BATCH = 256
_RUN = ("device", "precision", "revision", "allow_pickle", "trust_remote_code")
_SAMPLE_LENGTH = 20_000
"""Characters of a sampled text: far past what any dense encoder reads."""

Key = TypeVar("Key")
Model = TypeVar("Model", LexicalEncoder, ProjectionEncoder)


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit: `language` is an ISO 639-1 code, ``auto`` (detect) or ``none`` (no stemming)."""

    language: str = "auto"
    tokenizer: Path | None = None
    k1: float = 0.9
    b: float = 0.4
    teacher: str | None = None
    """A dense encoder's folder or Hugging Face id: then a projection model is made."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Where and how the teacher runs: device, precision, revision, allow_pickle, trust_remote_code."""

    def __post_init__(self) -> None:
        if self.teacher and self.tokenizer:
            raise UsageError("a projection model is over words: name a teacher or a tokenizer, not both")
        if not (self.k1 >= 0 and math.isfinite(self.k1)):
            raise UsageError(f"k1 must be zero or more, not {self.k1}")
        if not 0 <= self.b <= 1:
            raise UsageError(f"b must lie between 0 and 1, not {self.b}")


Fitted = LexicalEncoder | ProjectionEncoder


def fit(texts: Iterable[str], folder: Path | None = None, options: FitOptions | None = None) -> Fitted:
    """Fit a model and store it: a lexical one, or a projection where the options name a teacher.

    Args:
        texts: one pass over them is made; nothing of them is kept but counts and, for a teacher, a sample.
        folder: where to write the model; by default the local cache, under the model's fingerprint.
        options: language, tokenizer, k1, b and the teacher.

    Raises:
        SourceError: no text holds any term.
        ModelError: the model cannot be written.
        UsageError: `folder` exists and is not empty, or an unknown language was asked for.
        ModelNotFound, ModelFormatError: the teacher cannot be loaded.
    """
    options = options or FitOptions()
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty; name a new folder")
    stream = iter(texts)
    sample = list(islice(stream, LANGUAGE_SAMPLE))
    language = detect_language(sample) if options.language == "auto" else _language(options.language)
    pieces = Wordpieces(options.tokenizer) if options.tokenizer else None
    stemmer = None if pieces else stemmer_for(language)
    analyzer: Analyzer = PieceAnalyzer(pieces) if pieces else WordAnalyzer(stemmer)
    # Loaded first: a teacher that is not there is found out before the pass over the corpus.
    teacher = _load_teacher(options) if options.teacher else None
    counts = _Counts(with_forms=teacher is not None)
    counts.read(analyzer, chain(sample, stream))
    if not counts.frequency:
        raise SourceError("nothing to fit on: no document has a text with any word in it")
    facts: dict[str, Any] = {
        "language": language,
        "stemmer": stemmer,
        "k1": options.k1,
        "b": options.b,
        "documents": counts.documents,
        "average_length": counts.length / counts.documents,
    }
    if teacher:
        return _fit_projection(counts, analyzer, teacher, facts, folder, options)
    card = LexicalCard(
        analyzer="wordpieces" if pieces else "words",
        unseen_weight=_float32(idf(counts.documents, 0)),
        **facts,
    )
    weights = {term: _float32(idf(counts.documents, df)) for term, df in counts.frequency.items()}
    if pieces:
        # A table over the whole vocabulary: a token that it lacked would weigh 1.0 for other readers.
        listed = sorted(set(pieces.vocabulary.index.values()) - pieces.special)
        names = (pieces.vocabulary.token(i) for i in listed)
        weights = {name: weights.get(name, card.unseen_weight) for name in names}

    def write(half: Path) -> None:
        _write_model(half, card, weights)
        if options.tokenizer:
            shutil.copyfile(options.tokenizer / "tokenizer.json", half / "tokenizer.json")

    return _store(write, LexicalEncoder, folder)


def _load_teacher(options: FitOptions) -> Teacher:
    from bridge.encode.dense import load_dense

    return load_dense(options.teacher or "", **{name: options.run[name] for name in _RUN if name in options.run})


def _fit_projection(
    counts: _Counts,
    analyzer: Analyzer,
    teacher: Teacher,
    facts: dict[str, Any],
    folder: Path | None,
    options: FitOptions,
) -> ProjectionEncoder:
    documents = counts.documents
    # Half of the IDF (its root) on either side: a document's weight then takes the teacher's part as it is.
    weights = _ordered({term: _float32(math.sqrt(idf(documents, df))) for term, df in counts.frequency.items()})
    corpus = Corpus(
        weights=weights,
        frequency=counts.frequency,
        forms=counts.most_frequent_forms(),
        sample=counts.sample.texts,
        function_words=function_terms(facts["language"], analyzer),
        k1=options.k1,
        b=options.b,
        average_length=facts["average_length"],
    )
    table = fit_table(corpus, analyzer, teacher)
    named = options.teacher or ""

    def write(half: Path) -> None:
        table.save(half / TABLE_FILE)
        card = ProjectionCard(
            unseen_weight=_float32(math.sqrt(idf(documents, 0))),
            teacher=str(Path(named).expanduser().absolute()) if Path(named).expanduser().is_dir() else named,
            teacher_fingerprint=teacher.fingerprint,
            table=hash_of(half / TABLE_FILE),
            expansion=EXPANSION,
            least_expansion=LEAST_EXPANSION,
            terms=TERMS,
            floor=FLOOR,
            neighbour_weight=NEIGHBOUR_WEIGHT,
            **facts,
        )
        _write_model(half, card, weights)

    def load(model: Path) -> ProjectionEncoder:
        return ProjectionEncoder(model, teacher=teacher)

    return _store(write, load, folder)


def idf(documents: int, frequency: int) -> float:
    """ln(1 + (N − df + ½) / (df + ½)), always above zero."""
    return math.log1p((documents - frequency + 0.5) / (frequency + 0.5))


@dataclass(slots=True)
class _Counts:
    """What the pass over the documents keeps."""

    with_forms: bool = False
    """Also the terms' word forms, and a sample of the texts."""
    frequency: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    length: int = 0
    forms: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(term, form) ─▶ occurrences."""
    sample: Reservoir = field(default_factory=Reservoir)

    def read(self, analyzer: Analyzer, texts: Iterator[str]) -> None:
        """Count the terms of every text."""
        frequent: _Bounded[str] = _Bounded(MAX_TERMS)
        forms: _Bounded[tuple[str, str]] = _Bounded(MAX_TERMS)
        while batch := list(islice(texts, _BATCH)):
            for text, terms in zip(batch, self._terms(analyzer, batch), strict=True):
                if terms:
                    self.documents += 1
                    self.length += len(terms)
                    self.frequency.update(set(terms))
                    if self.with_forms:
                        self.sample.add(text[:_SAMPLE_LENGTH])
            frequent.sweep(self.frequency)
            forms.sweep(self.forms)

    def _terms(self, analyzer: Analyzer, batch: list[str]) -> Iterable[list[str]]:
        if not (self.with_forms and isinstance(analyzer, WordAnalyzer)):
            yield from analyzer.terms(batch)
            return
        for pairs in analyzer.forms(batch):
            self.forms.update(pairs)
            yield [term for term, _ in pairs]

    def most_frequent_forms(self) -> dict[str, str]:
        """Term ─▶ form; of equally frequent ones the first in the alphabet."""
        ranked = sorted(self.forms.items(), key=lambda item: (-item[1], item[0]))
        return {term: form for (term, form), _ in reversed(ranked)}


class _Bounded(Generic[Key]):
    """Forgets the rarest entries of a counter that has grown past `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._floor = 1

    def sweep(self, counter: Counter[Key]) -> None:
        while len(counter) > self._limit:
            rare = [key for key, count in counter.items() if count <= self._floor]
            for key in rare:
                del counter[key]
            # Halve at least, or the next new word would ask for a sweep again.
            self._floor += len(counter) > self._limit // 2


def detect_language(sample: Iterable[str]) -> str | None:
    """The ISO 639-1 code of the language of most of the texts, or None where there is no such majority."""
    import py3langid

    votes: Counter[str] = Counter()
    for text in sample:
        if text.strip():
            votes[str(py3langid.classify(text[:2000])[0])] += 1
    if not votes:
        return None
    language, count = votes.most_common(1)[0]
    return language if count >= _LANGUAGE_SHARE * votes.total() else None


def _language(asked: str) -> str | None:
    if asked == "none":
        return None
    if not (2 <= len(asked) <= 3 and asked.isascii() and asked.isalpha()):
        raise UsageError(f"language {asked!r} is not an ISO 639-1 code such as en or de (or auto, or none)")
    return asked.lower()


def _float32(value: float) -> float:
    # Shortest text of the float32: the file stays small and reads back to the same bits.
    import numpy as np

    return float(str(np.float32(value)))


def _ordered(weights: dict[str, float]) -> dict[str, float]:
    """The most frequent term, which weighs least, first."""
    return dict(sorted(weights.items(), key=lambda item: (item[1], item[0])))


def _write_model(half: Path, card: msgspec.Struct, weights: dict[str, float]) -> None:
    (half / CARD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
    (half / "idf.json").write_bytes(msgspec.json.encode(_ordered(weights)) + b"\n")


def _store(write: Callable[[Path], None], load: Callable[[Path], Model], folder: Path | None) -> Model:
    parent = folder.parent if folder else cached_model("x").parent
    with writing(folder or parent):
        parent.mkdir(parents=True, exist_ok=True)
        # Written beside its place and renamed: a reader never meets half a model.
        with tempfile.TemporaryDirectory(dir=parent, prefix=".fit-") as temporary:
            half = Path(temporary) / "model"
            half.mkdir()
            write(half)
            target = folder or cached_model(load(half).fingerprint)
            if folder and folder.is_dir():
                folder.rmdir()
            if not target.is_dir():
                half.replace(target)
    return load(target)
