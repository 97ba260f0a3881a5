"""Query vectors ─▶ OpenSearch DSL. Pure functions; the twin of `elasticsearch.py`."""

from __future__ import annotations

from bridge.dialects.features import Query, rank_feature
from bridge.dialects.seismic import Seismic
from bridge.errors import UnsupportedByEngine
from bridge.records import SparseVector
from bridge.tokens import MAX_SEISMIC_ID, query_ids, query_tokens

__all__ = ["neural_sparse", "rank_feature", "seismic"]

SEISMIC = Seismic()

LARGEST_WEIGHT = 64.0
"""`neural_sparse` takes weights in (0, 64]."""


def neural_sparse(field: str, vector: SparseVector) -> Query:
    """`neural_sparse` with raw `query_tokens` over a `rank_features` field (2.14 and newer).

    A dotted token is asked for raw: documents carry it so for the cluster's own encoders.
    """
    tokens, boost = bounded(query_tokens(vector))
    return {"neural_sparse": {field: {"query_tokens": tokens, **boost}}}


def seismic(field: str, vector: SparseVector, *, k: int, how: Seismic = SEISMIC) -> Query:
    """`neural_sparse` over a SEISMIC `sparse_vector` field (3.3 and newer): ids, and the search's own knobs.

    Args:
        k: how many hits are collected; no fewer than the request's size.
        how: how far it looks.

    Raises:
        UnsupportedByEngine: an id is past what the field takes.
    """
    if len(vector) and (last := int(vector.ids[-1])) > MAX_SEISMIC_ID:
        raise UnsupportedByEngine(f"token id {last} is past {MAX_SEISMIC_ID}, the last that sparse_vector takes")
    tokens, boost = bounded(query_ids(vector))
    parameters = how.parameters(k, len(tokens))
    return {"neural_sparse": {field: {"query_tokens": tokens, "method_parameters": parameters, **boost}}}


def bounded(tokens: dict[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Weights within the engine's bound, and the boost that undoes the scaling."""
    heaviest = max(tokens.values(), default=0.0)
    if heaviest <= LARGEST_WEIGHT:
        return tokens, {}
    # A power of two: dividing and multiplying by it changes no bit of a weight.
    scale = 2.0
    while heaviest / scale > LARGEST_WEIGHT:
        scale *= 2
    return {token: weight / scale for token, weight in tokens.items()}, {"boost": scale}
