"""Inference-free query encoding: the OpenSearch form, `tokenizer.json` + `idf.json`.

The query vector is the *set* of the query's tokens, each weighted by the table: repeats are not
summed, special tokens are left out (the model masks them), and a token that the table lacks weighs
1.0, as in OpenSearch's own code. Nothing heavier than `tokenizers` is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from bridge.encode.base import TokenVocabulary
from bridge.encode.folder import TABLE_FILES, find_table, read_json, separator_token, sha256, tokenizer_length
from bridge.encode.knownwords import KnownWords
from bridge.errors import ModelFormatError, UsageError
from bridge.offsets import PromptedOffsets, Span, TokenizerOffsets, TokenOffsets, TokenWindow
from bridge.records import SparseVector, Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MISSING_WEIGHT = 1.0


class Framed(NamedTuple):
    """Token ids of a text with the model's special tokens, and for each the text of a pair that it is of."""

    ids: list[int]
    types: list[int]


class Wordpieces:
    """A tokenizer.json: text ─▶ token ids with or without special tokens, and its vocabulary.

    `lowercase` puts lower-casing before the tokenizer's own normalisation, as sentence-transformers' do_lower_case.
    """

    def __init__(self, folder: Path, *, lowercase: bool = False) -> None:
        path = folder / "tokenizer.json"
        self.tokenizer = load_tokenizer(path)
        if lowercase:
            lower_first(self.tokenizer)
        content: dict[str, Any] = read_json(path)
        listed = _listed(self.tokenizer, content)
        size = self.tokenizer.get_vocab_size(with_added_tokens=True)
        tokens = [""] * max(size, 1 + max(listed.values(), default=-1))
        for token, i in listed.items():
            tokens[i] = token
        self.vocabulary = TokenVocabulary(tokens)
        self.special = special_ids(content, listed)
        # Whoever asks offline needs no name for this, and starts sooner without.
        self._content = path.read_bytes()
        self._cutters: dict[int, Tokenizer] = {}
        self._known = KnownWords(self.tokenizer, content)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of all that decides how a text is read."""
        # What a tokenizer was last told of truncation and padding is saved with it, and is nothing of its own.
        content = msgspec.json.decode(self._content)
        own = {name: value for name, value in content.items() if name not in ("truncation", "padding")}
        return sha256(msgspec.json.encode(own, order="sorted"))

    @cached_property
    def space(self) -> str:
        """Names the vocabulary."""
        tokens = map(self.vocabulary.token, range(len(self.vocabulary)))
        return f"tokens-{sha256(chr(0).join(tokens).encode())[:16]}"

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, in reading order, special tokens (and `[UNK]`) left out."""
        return [[i for i in ids if i not in self.special] for ids in self.all_ids(texts)]

    def all_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The same, with the special tokens that stand in a text as words, and `[UNK]`."""
        if len(texts) == 1 and (known := self._known.ids(texts[0])) is not None:
            return [known]
        encoded = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [one.ids for one in encoded]

    def framed(self, texts: Sequence[str] | Sequence[tuple[str, str]], length: int) -> list[Framed]:
        """Each text, or pair of texts, with the model's special tokens, cut to `length` with them included.

        Of a pair the longer text is cut first, as transformers' ``truncation=True`` does.
        """
        encoded = self._cutting(length).encode_batch_fast(list(texts))
        return [Framed(one.ids, one.type_ids) for one in encoded]

    def spans(self, text: str) -> list[Span]:
        """The text's tokens with where they stand, special ones left out."""
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        found = zip(encoded.ids, encoded.offsets, strict=True)
        return [Span(self.vocabulary.token(i), *place) for i, place in found if i not in self.special]

    def offsets(self, prompt: str = "", *, special: int | None = None) -> TokenOffsets:
        """Where tokens stand in a text that comes after `prompt`; `special` as for `TokenizerOffsets`."""
        plain = TokenizerOffsets(self.tokenizer, special=special)
        return PromptedOffsets(plain, prompt) if prompt else plain

    def _cutting(self, length: int) -> Tokenizer:
        # Truncation is a tokenizer's state: one object for each length, so that threads can share this one.
        found = self._cutters.get(length)
        if found is None:
            from tokenizers import Tokenizer

            found = Tokenizer.from_str(self.tokenizer.to_str())
            found.enable_truncation(length)
            self._cutters[length] = found
        return found


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in `path`, with truncation and padding off.

    Raises:
        ModelFormatError: there is no such file, or it is not a tokenizer.
    """
    if not path.is_file():
        raise ModelFormatError(f"{path.parent} has no tokenizer.json, so it is not a model that can be used here")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelFormatError(f"{path} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def lower_first(tokenizer: Tokenizer) -> None:
    """Make `tokenizer` lower-case a text before anything else."""
    from tokenizers.normalizers import Lowercase
    from tokenizers.normalizers import Sequence as Chain

    own = tokenizer.normalizer
    tokenizer.normalizer = Chain([Lowercase(), own] if own else [Lowercase()])


def _listed(tokenizer: Tokenizer, content: dict[str, Any]) -> dict[str, int]:
    """Token ─▶ id. The same as `get_vocab` of the tokenizer, which takes longer than reading its file."""
    vocabulary = (content.get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict):
        names = (entry["content"] for entry in content.get("added_tokens", []))
        added = {name: tokenizer.token_to_id(name) for name in names}
        found: dict[str, int] = vocabulary | added
        if len(found) == tokenizer.get_vocab_size(with_added_tokens=True) and None not in added.values():
            return found
    listed: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    return listed


def special_ids(content: dict[str, Any], listed: dict[str, int]) -> frozenset[int]:
    """Ids of the tokens that a tokenizer.json marks as special, and of its unknown token."""
    special = {entry["id"] for entry in content.get("added_tokens", []) if entry.get("special")}
    unknown = (content.get("model") or {}).get("unk_token")
    if isinstance(unknown, str) and unknown in listed:
        special.add(listed[unknown])
    return frozenset(special)


def read_idf(path: Path) -> dict[str, float]:
    """Token ─▶ weight.

    Raises:
        ModelFormatError: not a JSON object of numbers.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, float])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelFormatError(f"{path} is not a JSON object of token weights: {error}") from error
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror}") from error


def read_weights(path: Path, vocabulary: TokenVocabulary) -> Weights:
    """float32[V], a weight for each id.

    idf.json and query_token_weights.txt name tokens, and a token that they lack weighs 1.0, as in OpenSearch;
    sentence-transformers' SparseStaticEmbedding holds the whole table (`weight`, float32[V]).

    Raises:
        ModelFormatError: it is not such a table.
    """
    if path.suffix == ".safetensors":
        return _read_table(path, len(vocabulary))
    named = read_idf(path) if path.suffix == ".json" else _read_token_weights(path)
    weights = [named.get(token, MISSING_WEIGHT) for token in map(vocabulary.token, range(len(vocabulary)))]
    # What is too large for a float32 is found by who looks for numbers that are not finite.
    with np.errstate(over="ignore"):
        return np.array(weights, dtype=np.float32)


def _read_token_weights(path: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        token, tab, weight = line.rpartition("\t")
        try:
            found[token] = float(weight)
        except ValueError:
            tab = ""
        if not tab:
            raise ModelFormatError(f"{path}:{number}: not a token, a tab and a weight: {line[:60]}")
    return found


def _read_table(path: Path, size: int) -> Weights:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        table = load_file(path).get("weight")
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(f"{path} cannot be read: {error}") from error
    if table is None or table.shape != (size,):
        raise ModelFormatError(f"{path} has no table `weight` of {size} entries")
    return np.ascontiguousarray(table, dtype=np.float32)


class LookupEncoder:
    """Inference-free queries from a folder with `tokenizer.json` and a table of weights.

    Args:
        folder: of the tokenizer; also of the table, unless that is named.
        table: idf.json, query_token_weights.txt, or the model.safetensors of a SparseStaticEmbedding.
        prompt: text put before each query.
    """

    encodes_documents = False
    open_vocabulary = False

    def __init__(self, folder: Path, *, table: Path | None = None, prompt: str = "") -> None:
        self.name = folder.name or str(folder)
        self._pieces = Wordpieces(folder)
        self.vocabulary = self._pieces.vocabulary
        found = table or find_table(folder)
        if found is None:
            raise ModelFormatError(f"{folder} has no table of query weights: {' or '.join(TABLE_FILES)}")
        self._weights = read_weights(found, self.vocabulary)
        if not np.isfinite(self._weights).all():
            raise ModelFormatError(f"{found} holds weights that are not finite numbers")
        self._listed: list[float] = self._weights.tolist()
        self._unasked = self._pieces.special.union(np.flatnonzero(self._weights <= 0).tolist())
        self._length, self._prompt = tokenizer_length(folder), prompt
        self._separator = separator_token(folder)
        self.files: tuple[Path, ...] = tuple(
            path for path in (folder / "tokenizer.json", folder / "tokenizer_config.json", found) if path.is_file()
        )

    @property
    def space(self) -> str:
        return self._pieces.space

    @cached_property
    def fingerprint(self) -> str:
        # By what is in the table, not by its file: an IDF file and its SparseStaticEmbedding are one encoder.
        content = sha256(self._weights.tobytes())
        whole = "-".join((self._pieces.fingerprint, content, str(self._length), self._prompt))
        return f"lookup-{sha256(whole.encode())[:16]}"

    @property
    def query_fingerprint(self) -> str:
        return self.fingerprint

    @property
    def portable(self) -> dict[str, tuple[Path, ...]]:
        # A prompt stands in files of the whole model, which do not travel.
        return {} if self._prompt else {self.fingerprint: self.files}

    @property
    def ceilings(self) -> tuple[float, float]:
        # A learned document weight is log(1 + x) and rarely passes 3, OpenSearch's own default.
        return 3.0, float(self._weights.max(initial=1.0))

    @cached_property
    def query_window(self) -> TokenWindow:
        """What of a query is read; special tokens are left out, and do not count."""
        return TokenWindow(self._pieces.offsets(self._prompt, special=0), self._length, self._separator)

    @cached_property
    def passage_tokenizer(self) -> TokenOffsets:
        """Counts tokens as a model of this vocabulary reads them; how many that one takes is not known here."""
        return self._pieces.offsets()

    def encode_query(self, texts: Sequence[str]) -> list[SparseVector]:
        return list(map(self.query_vector, self._asked(texts)))

    def query_ids(self, text: str) -> list[int]:
        """The ids of a query's vector alone."""
        return self._asked([text])[0]

    def some_ids(self, number: int) -> list[int]:
        """The first `number` ids that a query can have, or as many as there are."""
        askable = (i for i in range(len(self.vocabulary)) if i not in self._unasked)
        return list(islice(askable, number))

    def spans(self, text: str) -> list[Span]:
        return self._pieces.spans(text)

    def _asked(self, texts: Sequence[str]) -> list[list[int]]:
        if self._prompt:
            texts = [self._prompt + text if text else text for text in texts]
        return [sorted(set(self._cut(ids)).difference(self._unasked)) for ids in self._pieces.all_ids(texts)]

    def _cut(self, ids: list[int]) -> list[int]:
        if self._length is None or len(ids) <= self._length:
            return ids
        # Special tokens do not count.
        return [i for i in ids if i not in self._pieces.special][: self._length]

    def query_vector(self, ids: Sequence[int]) -> SparseVector:
        """The vector of a query that has these ids, ascending and of those that a query can have."""
        # From a list: numpy gives the interpreter's lock up while it takes from an array, and many threads that each
        # want it back for so little stand in each other's way.
        weights = np.fromiter(map(self._listed.__getitem__, ids), np.float32, len(ids))
        return SparseVector(np.fromiter(ids, np.int32, len(ids)), weights, self.vocabulary)

    def encode_document(self, texts: Sequence[str]) -> list[SparseVector]:
        del texts
        raise UsageError(
            f"model {self.name} encodes queries only (tokenizer.json and idf.json, no weights); "
            "name a document model, or make one from the corpus with: bridge fit SOURCE -o FOLDER "
            f"--tokenizer {self.name}"
        )
