"""Lines of vectors in an engine's own words, so that ingesting them is next to no work.

::

    {"id", "vector": {name: weight, ..}, "dotted": {token: weight, ..}, "hash", "source": {..}}

``vector`` is what a `rank_features` field takes (and Elasticsearch's `sparse_vector`): names as
`bridge.tokens.feature_key` makes them, weights at the precision that the engine keeps. ``dotted`` is there where a
token holds a dot: OpenSearch gets these under their own names as well. ``hash`` is over both as they are written. What
was checked when the line was made need not be checked again while the hash is that of the text, and the text goes into
the bulk request as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from bridge.errors import DocumentError
from bridge.records import Product, ReadyVector, SparseVector
from bridge.tokens import feature_values, token_of_key

RAW_FIELDS = frozenset({"vector", "dotted"})
"""What a source had better hand on as it is written."""

_decode = msgspec.json.Decoder(dict[str, float]).decode


def ready_fields(vector: SparseVector) -> dict[str, Any]:
    """The fields of `vector` in such a line.

    Raises:
        DocumentError: a weight that no engine takes.
    """
    value, dotted = (msgspec.Raw(msgspec.json.encode(part)) if part else None for part in feature_values(vector))
    value = value or msgspec.Raw(b"{}")
    fields: dict[str, Any] = {"vector": value}
    if dotted is not None:
        fields["dotted"] = dotted
    return fields | {"hash": _digest(value, dotted)}


def read_ready(fields: Mapping[str, Any]) -> ReadyVector:
    """The vector in one document of such a file, as it is written.

    Args:
        fields: the document's; those of `RAW_FIELDS` as `msgspec.Raw`, or parsed.

    Raises:
        DocumentError: it is no such document, or its hash is another.
    """
    value, dotted, digest = fields.get("vector"), fields.get("dotted"), fields.get("hash")
    if type(value) is not msgspec.Raw:
        value = _written(value)
    if dotted is not None and type(dotted) is not msgspec.Raw:
        dotted = _written(dotted)
    if _digest(value, dotted) != digest:
        raise DocumentError("its vector is not the one that was written: its hash is another; encode it again")
    return ReadyVector(value, dotted, digest)


def ready_value(vector: ReadyVector, product: Product) -> msgspec.Raw:
    """`vector` as the value of a field."""
    if vector.dotted is None or product != "opensearch":
        return vector.value
    # Two objects that are not empty, and have no name in common.
    return msgspec.Raw(bytes(vector.value)[:-1] + b"," + bytes(vector.dotted)[1:])


def parsed(vector: ReadyVector) -> tuple[list[str], list[float]]:
    """Tokens and weights, for a field that does not go by names."""
    weights = _decode(vector.value)
    return [token_of_key(name) for name in weights], list(weights.values())


def _written(value: Any) -> msgspec.Raw:
    """A parsed object as `ready_fields` had written it: numbers have one shortest text."""
    if not isinstance(value, dict):
        raise DocumentError("it has no vector: an object of names and weights, with its hash beside it")
    try:
        return msgspec.Raw(msgspec.json.encode({name: float(weight) for name, weight in value.items()}))
    except (TypeError, ValueError):
        raise DocumentError("its vector is not an object of names and weights") from None


def _digest(value: msgspec.Raw, dotted: msgspec.Raw | None) -> str:
    digest = hashlib.sha256(value)
    if dotted is not None:
        digest.update(b"\n")
        digest.update(dotted)
    return digest.hexdigest()[:32]
