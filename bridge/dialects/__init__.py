"""Dialects: the same query vector in the words of each engine. `speaker` chooses one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from bridge.dialects import elasticsearch, opensearch
from bridge.dialects.features import Query, rank_feature
from bridge.dialects.seismic import Seismic
from bridge.errors import UnsupportedByEngine
from bridge.records import Product, SparseVector
from bridge.tokens import Kind

Dialect = Literal["neural_sparse", "rank_feature", "sparse_vector"]

DIALECTS: dict[Product, dict[Kind, tuple[Dialect, ...]]] = {
    "opensearch": {"rank_features": ("neural_sparse", "rank_feature"), "sparse_vector": ("neural_sparse",)},
    "elasticsearch": {"rank_features": ("rank_feature",), "sparse_vector": ("sparse_vector",)},
}
"""The dialects of each product and field kind, the preferred first."""


NEWEST: dict[str, str] = {"opensearch": "3.6.0", "elasticsearch": "9.2.0"}
"""The versions that a query is for where nobody says another: the newest that the tests run."""


def default_dialect(product: Product, version: tuple[int, ...], kind: Kind) -> Dialect:
    """The preferred dialect that this version understands."""
    if product == "opensearch" and kind == "rank_features" and version < (2, 14):
        return "rank_feature"
    return DIALECTS[product][kind][0]


def check(dialect: Dialect, product: Product, version: tuple[int, ...], kind: Kind) -> None:
    """Raises UnsupportedByEngine unless this product, version and field kind speak the dialect."""
    if dialect not in DIALECTS[product][kind]:
        known = ", ".join(DIALECTS[product][kind])
        raise UnsupportedByEngine(f"{dialect} does not ask a {kind} field of {product}; what does: {known}")
    if dialect == "neural_sparse" and version < (2, 14):
        raise UnsupportedByEngine("neural_sparse takes raw tokens from OpenSearch 2.14 on; use rank_feature")


def boosted(clause: Query, boost: float) -> Query:
    """`clause`, as `query_for` gives it, with `boost` times its score."""
    if boost == 1:
        return clause
    ((name, inner),) = clause.items()
    if name == "neural_sparse":
        ((field, how),) = inner.items()
        return {name: {field: {**how, "boost": how.get("boost", 1.0) * boost}}}
    return {name: {**inner, "boost": boost}}


Speaker = Callable[[str, SparseVector, int], Query]
"""Field, query vector and number of hits wanted ─▶ a query clause."""


def speaker(
    dialect: Dialect, product: Product, version: tuple[int, ...], kind: Kind, how: Seismic = opensearch.SEISMIC
) -> Speaker:
    """What asks a field of that kind in the dialect, chosen once for many queries; `how` is of a SEISMIC field.

    Raises:
        UnsupportedByEngine: this product, version and field kind do not speak the dialect.
    """
    check(dialect, product, version, kind)
    if product == "opensearch" and kind == "sparse_vector":
        return lambda field, vector, size: opensearch.seismic(field, vector, k=size, how=how)
    ask: Callable[[str, SparseVector], Query]
    if dialect == "rank_feature":
        ask = rank_feature
    elif product == "elasticsearch":
        ask = elasticsearch.sparse_vector if version >= (8, 15) else elasticsearch.term_bool
    else:
        ask = opensearch.neural_sparse
    return lambda field, vector, size: ask(field, vector)


def query_for(
    dialect: Dialect,
    product: Product,
    version: tuple[int, ...],
    kind: Kind,
    field: str,
    vector: SparseVector,
    size: int,
) -> Query:
    """`vector` as a query clause; `size` is the number of hits wanted.

    Raises:
        UnsupportedByEngine: see `speaker`.
    """
    return speaker(dialect, product, version, kind)(field, vector, size)
