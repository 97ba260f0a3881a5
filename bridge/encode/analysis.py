"""Text ─▶ terms, for the lexical model: any language, and code.

A *word* is a run of letters, marks and digits of one kind of script. Then, in this order:

1. NFKC, so that full-width and ligature forms meet their plain ones.
2. Scripts written without spaces (Han, Kana, Thai, Lao, Khmer, Burmese) become overlapping
   pairs of characters, Han also single characters: the classic dictionary-free method.
3. Identifiers (``camelCase``, ``snake_case``, ``HTTPServer``) give the whole and its parts.
4. Case folding, Snowball stemming where the language has a stemmer, and removal of the combining
   accents U+0300–U+036F. Marks outside that block (the vowel signs of Indic scripts, say) carry
   meaning and stay. Stemming comes before accents go, because Snowball's rules look at them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import Protocol, TypeVar

import regex

from bridge.offsets import Span

MAX_TERM_LENGTH = 64
"""Characters; a longer run (base64, a hash chain) is cut, so that it can still be found."""

_CACHED_RUNS = 200_000
_LONGEST_CACHED = 96
"""Bytes of a run. Where words are not spaced a run is a sentence, which does not come back."""

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
_SPACED = rf"[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]*(?:['’][\p{{Latin}}\p{{M}}]+)*"
_WORD = regex.compile(rf"[{_UNSPACED}][{_UNSPACED}\p{{M}}]*|{_SPACED}", regex.VERSION1)
_COUNTED = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|{_SPACED}", regex.VERSION1)
# The same over ASCII, where the standard library's engine is several times faster.
_ASCII_WORD = re.compile(r"[A-Za-z0-9]\w*(?:'[A-Za-z]+)*", re.ASCII)
_STARTS_UNSPACED = regex.compile(rf"[{_UNSPACED}]")
_APOSTROPHE = re.compile("['’]")
_GRAPHEME = regex.compile(r"\X")
_HAN = regex.compile(r"\p{Han}")
_PARTS = regex.compile(r"\p{Lu}+(?!\p{Ll})|\p{Lu}?[\p{Ll}\p{M}]+|\p{N}+|[\p{L}\p{M}]+")
_COMPOUND = regex.compile(r"_|\p{Ll}\p{Lu}|\p{Lu}{2}\p{Ll}")
_ACCENTS = regex.compile(r"[\u0300-\u036f]+")

STEMMERS: dict[str, str] = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek",
    "en": "english", "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque",
    "fa": "persian", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian",
    "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "nb": "norwegian",
    "ne": "nepali", "nl": "dutch", "nn": "norwegian", "no": "norwegian", "pl": "polish",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho",
    "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
"""ISO 639-1 code ─▶ Snowball algorithm."""


class Analyzer(Protocol):
    """Texts ─▶ terms in reading order, repeats kept; one list a text."""

    def terms(self, texts: Sequence[str]) -> list[list[str]]: ...

    def spans(self, text: str) -> list[Span]:
        """A text's terms with where they stand in it."""
        ...


@cache
def snowball_algorithms() -> frozenset[str]:
    """The algorithms of the installed PyStemmer; newer releases know more languages."""
    import Stemmer

    return frozenset(Stemmer.algorithms())


def stemmer_for(language: str | None) -> str | None:
    """The Snowball algorithm for an ISO 639-1 code, or None where there is none (of this release)."""
    algorithm = STEMMERS.get((language or "").split("-")[0].lower())
    return algorithm if algorithm in snowball_algorithms() else None


Term = TypeVar("Term")


class KnownRuns(dict[bytes, tuple[Term, ...]]):
    """Runs of bytes ─▶ what their words give, analyzed on first sight; a text is mostly words seen before."""

    def __init__(self, of_word: Callable[[str], Iterable[Term]]) -> None:
        super().__init__()
        self._of_word = of_word

    def __missing__(self, run: bytes) -> tuple[Term, ...]:
        found = self.analyzed(run)
        if len(run) <= _LONGEST_CACHED:
            if len(self) >= _CACHED_RUNS:
                self.clear()
            self[run] = found
        return found

    def analyzed(self, run: bytes) -> tuple[Term, ...]:
        """What the words of a run give."""
        words = _words(run.decode("utf-8", "surrogatepass"))
        if len(run) > _LONGEST_CACHED and len(words) > 1:
            return tuple(chain.from_iterable(self[word.encode("utf-8", "surrogatepass")] for word in words))
        return tuple(chain.from_iterable(map(self._of_word, words)))

    def of(self, text: str) -> list[Term]:
        """Of all runs of a text, in its order."""
        return list(chain.from_iterable(map(self.__getitem__, parted(text).split())))


class WordAnalyzer:
    """Words, stemmed with `stemmer` (a Snowball algorithm, or None for no stemming)."""

    def __init__(self, stemmer: str | None = None) -> None:
        self.stemmer = stemmer
        self._known = KnownRuns(self.of_word)
        self._known_forms = KnownRuns(self._formed)
        self._stem: Callable[[str], str] = lambda word: word
        if stemmer is not None:
            import Stemmer

            # Its own cache would hold the same words a second time.
            self._stem = Stemmer.Stemmer(stemmer, 0).stemWord

    def terms(self, texts: Sequence[str]) -> list[list[str]]:
        return list(map(self._known.of, texts))

    def forms(self, texts: Sequence[str]) -> list[list[tuple[str, str]]]:
        """As `terms`, each term with the word form (case-folded, not stemmed) that it was made from: (term, form)."""
        return list(map(self._known_forms.of, texts))

    def spans(self, text: str) -> list[Span]:
        """The terms of a text with the words, or where none are spaced the characters, that they were made from."""
        return list(chain.from_iterable(map(self._spans, _WORD.finditer(text))))

    def _spans(self, match: regex.Match[str]) -> Iterable[Span]:
        run, start = match[0], match.start()
        graphemes = [(one[0], start + one.start(), start + one.end()) for one in _GRAPHEME.finditer(run)]
        if not _STARTS_UNSPACED.match(run) or len(graphemes) == 1:
            # Each word is analyzed by itself: what normalisation does to it stays in its place.
            return (Span(term, start, match.end()) for term in self.terms([run])[0])
        known = set(self.terms([run])[0])
        pairs = ((left[0] + right[0], left[1], right[2]) for left, right in pairwise(graphemes))
        pieces = ((unicodedata.normalize("NFKC", text), begin, end) for text, begin, end in chain(graphemes, pairs))
        return (Span(*piece) for piece in pieces if piece[0] in known)

    def of_word(self, word: str) -> Iterable[str]:
        """The terms of one word, analyzed anew."""
        return (term for term, _ in self._formed(word))

    def _formed(self, word: str) -> Iterable[tuple[str, str]]:
        if _STARTS_UNSPACED.match(word):
            return ((pair, pair) for pair in _pairs(word))
        pieces = _APOSTROPHE.split(word)
        if len(pieces) > 1:
            # English 's and 't, French l' and d': one letter beside an apostrophe is grammar.
            pieces = [piece for piece in pieces if len(piece) > 1] or pieces
        return ((term, form.casefold()) for piece in pieces for form in _forms(piece) if (term := self._normal(form)))

    def _normal(self, form: str) -> str:
        return fold_accents(self._stem(form.casefold()[:MAX_TERM_LENGTH]))


_BETWEEN = bytes(code if code > 127 or chr(code).isalnum() or chr(code) in "_'" else 32 for code in range(256))


def parted(text: str) -> bytes:
    """Blanks for all ASCII that no word holds. What is between blanks are runs: each is analyzed like a text."""
    return text.encode("utf-8", "surrogatepass").translate(_BETWEEN)


def _words(text: str) -> list[str]:
    return _ASCII_WORD.findall(text) if text.isascii() else _WORD.findall(unicodedata.normalize("NFKC", text))


class WordOffsets:
    """Words as `bridge.offsets.TokenOffsets`, as they stand in a text; where none are spaced, characters."""

    special = 0

    def ids(self, text: str) -> range:
        return range(len(self.starts(text)))

    def starts(self, text: str) -> list[int]:
        return [match.start() for match in _COUNTED.finditer(text)]


def fold_accents(text: str) -> str:
    """Without the combining accents U+0300–U+036F; other marks stay."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", text)))


def _forms(piece: str) -> list[str]:
    """An identifier gives its parts and the whole; any other word gives itself."""
    if not _COMPOUND.search(piece):
        return [piece]
    parts = _PARTS.findall(piece)
    whole = piece.replace("_", "")
    return [*parts, whole] if len(parts) > 1 else parts or [whole]


def _pairs(run: str) -> list[str]:
    graphemes = _GRAPHEME.findall(run)
    if len(graphemes) == 1:
        return graphemes
    singles = [grapheme for grapheme in graphemes if _HAN.match(grapheme)]
    return singles + [left + right for left, right in pairwise(graphemes)]
