"""Learn a lexical model from a corpus, in one streaming pass.

Memory is bounded: past `MAX_TERMS` distinct terms the rarest are forgotten, which leaves their
query weight at that of an unseen term, within a few percent of what it would have been.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import msgspec

from bridge.encode.analysis import Analyzer, WordAnalyzer, stemmer_for
from bridge.encode.folder import writing
from bridge.encode.lexical import CARD_FILE, LexicalCard, LexicalEncoder, PieceAnalyzer
from bridge.encode.load import cached_model
from bridge.encode.lookup import Wordpieces
from bridge.errors import SourceError, UsageError

MAX_TERMS = 2_000_000
LANGUAGE_SAMPLE = 200
"""Texts that language detection looks at, from the beginning of the corpus."""

_LANGUAGE_SHARE = 0.6
_BATCH = 256


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit: `language` is an ISO 639-1 code, ``auto`` (detect) or ``none`` (no stemming)."""

    language: str = "auto"
    tokenizer: Path | None = None
    k1: float = 0.9
    b: float = 0.4

    def __post_init__(self) -> None:
        if not (self.k1 >= 0 and math.isfinite(self.k1)):
            raise UsageError(f"k1 must be zero or more, not {self.k1}")
        if not 0 <= self.b <= 1:
            raise UsageError(f"b must lie between 0 and 1, not {self.b}")


def fit(texts: Iterable[str], folder: Path | None = None, options: FitOptions | None = None) -> LexicalEncoder:
    """Fit a lexical model and store it.

    Args:
        texts: one pass over them is made; nothing of them is kept but counts.
        folder: where to write the model; by default the local cache, under the model's fingerprint.
        options: language, tokenizer, k1 and b.

    Raises:
        SourceError: no text holds any term.
        ModelError: the model cannot be written.
        UsageError: `folder` exists and is not empty, or an unknown language was asked for.
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
    counts = _count(analyzer, chain(sample, stream))
    if not counts.frequency:
        raise SourceError("nothing to fit on: no document has a text with any word in it")
    card = LexicalCard(
        analyzer="wordpieces" if pieces else "words",
        language=language,
        stemmer=stemmer,
        k1=options.k1,
        b=options.b,
        documents=counts.documents,
        average_length=counts.length / counts.documents,
        unseen_weight=_float32(idf(counts.documents, 0)),
    )
    weights = {term: _float32(idf(counts.documents, df)) for term, df in counts.frequency.items()}
    if pieces:
        # A table over the whole vocabulary: a token that it lacked would weigh 1.0 for other readers.
        listed = sorted(set(pieces.vocabulary.index.values()) - pieces.special)
        names = (pieces.vocabulary.token(i) for i in listed)
        weights = {name: weights.get(name, card.unseen_weight) for name in names}
    return _store(card, weights, options.tokenizer, folder)


def idf(documents: int, frequency: int) -> float:
    """ln(1 + (N − df + ½) / (df + ½)), always above zero."""
    return math.log1p((documents - frequency + 0.5) / (frequency + 0.5))


@dataclass(slots=True)
class _Counts:
    frequency: Counter[str]
    documents: int = 0
    length: int = 0


def _count(analyzer: Analyzer, texts: Iterator[str]) -> _Counts:
    counts = _Counts(Counter())
    floor = 1
    while batch := list(islice(texts, _BATCH)):
        for terms in analyzer.terms(batch):
            if terms:
                counts.documents += 1
                counts.length += len(terms)
                counts.frequency.update(set(terms))
        while len(counts.frequency) > MAX_TERMS:
            kept = {term: df for term, df in counts.frequency.items() if df > floor}
            # Halve at least, or the next new word would ask for a sweep again.
            floor += len(kept) > MAX_TERMS // 2
            counts.frequency = Counter(kept)
    return counts


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


def _store(card: LexicalCard, weights: dict[str, float], tokenizer: Path | None, folder: Path | None) -> LexicalEncoder:
    parent = folder.parent if folder else cached_model("x").parent
    with writing(folder or parent):
        parent.mkdir(parents=True, exist_ok=True)
        return _write(card, weights, tokenizer, folder, parent)


def _write(
    card: LexicalCard, weights: dict[str, float], tokenizer: Path | None, folder: Path | None, parent: Path
) -> LexicalEncoder:
    # Written beside its place and renamed: a reader never meets half a model.
    with tempfile.TemporaryDirectory(dir=parent, prefix=".fit-") as temporary:
        half = Path(temporary) / "model"
        half.mkdir()
        (half / CARD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
        ordered = dict(sorted(weights.items(), key=lambda item: (item[1], item[0])))
        (half / "idf.json").write_bytes(msgspec.json.encode(ordered) + b"\n")
        if tokenizer:
            shutil.copyfile(tokenizer / "tokenizer.json", half / "tokenizer.json")
        encoder = LexicalEncoder(half)
        target = folder or cached_model(encoder.fingerprint)
        if folder and folder.is_dir():
            folder.rmdir()
        if not target.is_dir():
            half.replace(target)
    encoder.name = target.name
    return encoder
