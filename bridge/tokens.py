"""What happens to tokens and weights between an encoder and an engine.

Keys. A feature's name becomes part of a field path in Lucene's `rank_feature` query, so a dot in
it cannot be addressed. `feature_key` maps every token, injectively, to a name without dots:

* U+2024 ONE DOT LEADER stands for the dot. No published vocabulary holds it; it reads as a dot.
* U+2025 TWO DOT LEADER escapes a literal U+2024 or U+2025, and alone it is the empty token.

`.` ─▶ `․`, `##.` ─▶ `##․`, `‥` ─▶ `‥‥`. Nearly every token is its own key. OpenSearch takes every other
name as it is, blank ones and control characters too, up to Lucene's 32,766 bytes of UTF-8; a document
with a longer one is refused, which makes a dead letter of it.

Precision. `rank_features` and Elasticsearch's `sparse_vector` keep a weight as a float32 whose low
15 bits are cleared (Lucene's FeatureField stores the upper 17 bits as a term frequency).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bridge.errors import DocumentError
from bridge.records import Product, SparseVector, Weights

Kind = Literal["rank_features", "sparse_vector"]

SMALLEST_WEIGHT = 2.0**-126
"""1.1754944e-38: the engines refuse a document with a weight below it."""

MAX_CLAUSES = 1024
"""The lowest clause limit among the engines; a query with more tokens is cut to its heaviest."""

_DOT, _ESCAPE = "\u2024", "\u2025"
_LOW_BITS = np.uint32(15)
_CLEARED = np.uint32(0xFFFF8000)


def feature_key(token: str) -> str:
    """The name under which `token` is addressed in an engine; injective over all strings.

    >>> feature_key("##.") == "##\u2024", feature_key("weather")
    (True, 'weather')
    """
    if not token:
        return _ESCAPE
    if _DOT in token or _ESCAPE in token:
        token = token.replace(_ESCAPE, _ESCAPE * 2).replace(_DOT, _ESCAPE + _DOT)
    return token.replace(".", _DOT)


def token_of_key(key: str) -> str:
    """The token that `feature_key` maps to `key`."""
    if key == _ESCAPE:
        return ""
    if _ESCAPE not in key:
        return key.replace(_DOT, ".")
    out: list[str] = []
    characters = iter(key)
    for character in characters:
        if character == _ESCAPE:
            out.append(next(characters, _ESCAPE))
        else:
            out.append("." if character == _DOT else character)
    return "".join(out)


def store_precision(weights: Weights) -> Weights:
    """`weights` float32[n] as the engines keep them: the low 15 bits cleared, rounded toward zero."""
    return (np.ascontiguousarray(weights, dtype=np.float32).view(np.uint32) & _CLEARED).view(np.float32)


def engine_weights(weights: Weights) -> list[float]:
    """`weights` float32[n] checked and at store precision, each as the number of the shortest text.

    Raises:
        DocumentError: a weight is not finite or not positive; engines reject the whole document.
    """
    found: list[Any] = [None]
    # Infinity, what is no number, and all below zero lie past the table's end.
    with contextlib.suppress(IndexError):
        found = stored_numbers()[stored_places(weights)].tolist()
    if None not in found:
        return found
    if not np.isfinite(weights).all():
        raise DocumentError("the model gave a weight that is not a finite number")
    raise DocumentError(
        f"the model gave a weight below {SMALLEST_WEIGHT:.8g}, which the engines refuse; weights must be positive"
    )


def stored_places(weights: Weights) -> npt.NDArray[np.uint32]:
    """Where each of `weights` float32[n] stands in `stored_numbers`, or past its end."""
    return weights.view(np.uint32) >> _LOW_BITS


@cache
def stored_numbers() -> npt.NDArray[np.object_]:
    """Every finite weight that a store can hold, by its upper 17 bits; None for one that is too small.

    There are so few of them that a table is the fastest way to the shortest text, and text is what both sides of a
    bulk request spend their time on.
    """
    bits = np.arange(np.float32(np.inf).view(np.uint32) >> _LOW_BITS, dtype=np.uint32) << _LOW_BITS
    numbers = np.empty(len(bits), dtype=object)
    numbers[:] = shortest(bits.view(np.float32))
    numbers[bits.view(np.float32) < SMALLEST_WEIGHT] = None
    return numbers


def rank_features_value(vector: SparseVector, product: Product) -> dict[str, float]:
    """`vector` as the value of a `rank_features` field, or of Elasticsearch's `sparse_vector`.

    On OpenSearch a token with a dot is written twice: raw, which the cluster's own `neural_sparse`
    (with `analyzer` or `model_id`) asks for, and escaped, which `rank_feature` can address. Raw
    dotted names hold a dot and escaped ones never do, so the two cannot meet.
    """
    value, dotted = feature_values(vector)
    return value | dotted if dotted and product == "opensearch" else value


def feature_values(vector: SparseVector) -> tuple[dict[str, float], dict[str, float]]:
    """The weights of `vector` by feature key, and again by token for the tokens that hold a dot.

    Raises:
        DocumentError: see `engine_weights`.
    """
    tokens = vector.tokens
    weights = engine_weights(vector.weights)
    if _are_keys(tokens):
        return dict(zip(tokens, weights, strict=True)), {}
    pairs = list(zip(tokens, weights, strict=True))
    return (
        {feature_key(token): weight for token, weight in pairs},
        {token: weight for token, weight in pairs if "." in token},
    )


def _are_keys(tokens: Sequence[str]) -> bool:
    """Whether no token needs another name, as in nearly every text."""
    written = "\n".join(tokens)
    return "." not in written and _DOT not in written and _ESCAPE not in written and "" not in tokens


def seismic_value(vector: SparseVector) -> dict[str, float]:
    """`vector` as the value of OpenSearch's `sparse_vector` field: ids as decimal strings.

    Raises:
        DocumentError: an id is 32,768 or more, where SEISMIC's 16-bit ids wrap around.
    """
    if len(vector) and int(vector.ids[-1]) > MAX_SEISMIC_ID:
        raise DocumentError(
            f"token id {int(vector.ids[-1])} is past {MAX_SEISMIC_ID}, the last that sparse_vector takes; "
            "use --kind rank_features, or fit with --tokenizer"
        )
    weights = engine_weights(vector.weights)
    return {str(i): weight for i, weight in zip(vector.ids.tolist(), weights, strict=True)}


MAX_SEISMIC_ID = 32_767


def by_ids(kind: Kind, product: Product) -> bool:
    """Whether such a field goes by token ids, and not by names."""
    return kind == "sparse_vector" and product == "opensearch"


def field_value(vector: SparseVector, kind: Kind, product: Product) -> dict[str, float]:
    """`vector` as a document's field of `kind` on `product`."""
    if by_ids(kind, product):
        return seismic_value(vector)
    return rank_features_value(vector, product)


def document_weights(value: Mapping[str, Any], kind: Kind, product: Product) -> dict[str, float]:
    """The inverse of `field_value`: key ─▶ weight of a stored field, one entry a token.

    Keys are tokens, or ids as strings for OpenSearch's `sparse_vector`.
    """
    if by_ids(kind, product):
        return {key: float(weight) for key, weight in value.items()}
    return {token_of_key(key): float(weight) for key, weight in value.items() if "." not in key}


def heaviest(vector: SparseVector, limit: int) -> tuple[SparseVector, int]:
    """At most `limit` of the heaviest tokens, and how many that dropped; ids stay ascending."""
    if len(vector) <= limit:
        return vector, 0
    # Stable on the negated weights: among equals the lower id stays, whatever the platform.
    kept = np.sort(np.argsort(-vector.weights, kind="stable")[:limit])
    return SparseVector(vector.ids[kept], vector.weights[kept], vector.vocabulary), len(vector) - limit


def dot(query: Mapping[str, float], document: Mapping[str, float]) -> float:
    """Σ query weight × document weight over the tokens that both have."""
    return sum(weight * document[token] for token, weight in query.items() if token in document)


def query_keys(vector: SparseVector) -> dict[str, float]:
    """The keys of a query's tokens ─▶ weight (float32 as Python floats), in the vector's order."""
    tokens, weights = vector.tokens, short_weights(vector)
    if _are_keys(tokens):
        return dict(zip(tokens, weights, strict=True))
    return dict(zip(map(feature_key, tokens), weights, strict=True))


def query_tokens(vector: SparseVector) -> dict[str, float]:
    """The same, with tokens that hold a dot as they are: OpenSearch's documents carry them so, too."""
    tokens, weights = vector.tokens, short_weights(vector)
    written = "\n".join(tokens)
    if _DOT in written or _ESCAPE in written or "" in tokens:
        tokens = tuple(token if "." in token else feature_key(token) for token in tokens)
    return dict(zip(tokens, weights))  # noqa: B905 (of one vector, so of one length; strict costs a tenth of the call)


def query_ids(vector: SparseVector) -> dict[str, float]:
    """The same by token ids, as decimal strings: how OpenSearch's `sparse_vector` is asked."""
    return dict(zip(map(str, vector.ids.tolist()), short_weights(vector), strict=True))


def short_weights(vector: SparseVector) -> list[float]:
    """As `shortest`, of a query's weights: they come from a table, and the same ones again and again."""
    return [_short[weight] for weight in vector.weights.tolist()]


class _Short(dict[float, float]):
    """float32 ─▶ the Python float of the shortest text that reads back to it."""

    def __missing__(self, weight: float) -> float:
        if len(self) >= _MOST_SHORT:
            self.clear()
        found = self[weight] = float(str(np.float32(weight)))
        return found


_MOST_SHORT = 100_000
_short = _Short()


def shortest(weights: Weights) -> list[float]:
    """float32[n] as Python floats whose text is short: 0.1, not 0.10000000149; the same float32 when read back."""
    return [float(text) for text in np.asarray(weights, dtype=np.float32).astype(str)]
