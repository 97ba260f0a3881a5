"""Inference-free query encoding: the OpenSearch form, `tokenizer.json` + `idf.json`.

The query vector is the *set* of the query's tokens, each weighted by the table: repeats are not
summed, special tokens are left out (the model masks them), and a token that the table lacks weighs
1.0, as in OpenSearch's own code. Nothing heavier than `tokenizers` is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bridge.encode.base import TokenVocabulary, sparse_vector
from bridge.encode.folder import file_hash, read_json
from bridge.errors import ModelFormatError, UsageError
from bridge.records import SparseVector

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MISSING_WEIGHT = 1.0


class Wordpieces:
    """A tokenizer.json: text ─▶ token ids without special tokens, and its vocabulary."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        self.tokenizer = load_tokenizer(path)
        size = self.tokenizer.get_vocab_size(with_added_tokens=True)
        listed = self.tokenizer.get_vocab(with_added_tokens=True)
        tokens = [""] * max(size, 1 + max(listed.values(), default=-1))
        for token, i in listed.items():
            tokens[i] = token
        self.vocabulary = TokenVocabulary(tokens)
        self.special = special_ids(path, listed)
        self.fingerprint = file_hash(path)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, in reading order, special tokens (and `[UNK]`) left out."""
        encoded = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[i for i in one.ids if i not in self.special] for one in encoded]


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


def special_ids(path: Path, listed: dict[str, int]) -> frozenset[int]:
    """Ids of the tokens that tokenizer.json marks as special, and of its unknown token."""
    content: dict[str, Any] = read_json(path)
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


class LookupEncoder:
    """Inference-free queries from a folder with `tokenizer.json` and `idf.json`."""

    encodes_documents = False
    open_vocabulary = False

    def __init__(self, folder: Path) -> None:
        self.name = folder.name or str(folder)
        self._pieces = Wordpieces(folder)
        self.vocabulary = self._pieces.vocabulary
        idf = read_idf(folder / "idf.json")
        self._weights = np.full(len(self.vocabulary), MISSING_WEIGHT, dtype=np.float32)
        for token, weight in idf.items():
            i = self.vocabulary.index.get(token)
            if i is not None:
                self._weights[i] = weight
        self.space = f"tokens-{self._pieces.fingerprint[:16]}"
        self.fingerprint = f"lookup-{file_hash(folder / 'tokenizer.json', folder / 'idf.json')[:16]}"

    @property
    def ceilings(self) -> tuple[float, float]:
        # A learned document weight is log(1 + x) and rarely passes 3, OpenSearch's own default.
        return 3.0, float(self._weights.max(initial=1.0))

    def encode_query(self, texts: Sequence[str]) -> list[SparseVector]:
        weights = self._weights
        return [
            sparse_vector({i: float(weights[i]) for i in set(ids)}, self.vocabulary) for ids in self._pieces.ids(texts)
        ]

    def encode_document(self, texts: Sequence[str]) -> list[SparseVector]:
        del texts
        raise UsageError(
            f"model {self.name} encodes queries only (tokenizer.json and idf.json, no weights); "
            "name a document model, or make one from the corpus with: bridge fit SOURCE -o FOLDER "
            f"--tokenizer {self.name}"
        )
