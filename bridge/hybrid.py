"""Hybrid search: sparse, BM25 and dense ways of asking, fused into one ranking.

Two ways to fuse:

- ``linear``: each part's scores are brought to 0..1 by their smallest and largest, and their weighted mean counts.
- ``rrf``: reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): a document scores Σ weight ÷
  (rank_constant + its rank in the part, from 1). Without weights of their own all parts count 1.

The engine does it where it can: OpenSearch with a `hybrid` query and a search pipeline, Elasticsearch with its
retrievers. Elsewhere the parts are searched in one `_msearch`, and `fuse` does the same here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from bridge import templates
from bridge.dialects import hybrid as _dialect
from bridge.dialects.features import Query, filtered
from bridge.errors import ModelMismatch, UnsupportedByEngine, UsageError
from bridge.records import DENSE_FIELD, EncodedQuery, Product

if TYPE_CHECKING:
    from bridge.encode.dense import DenseEncoder
    from bridge.engines import Engine
    from bridge.indexmodel import IndexModel

Part = Literal["sparse", "bm25", "dense"]
Fusion = Literal["linear", "rrf"]
Place = Literal["auto", "engine", "client"]

_LEAST = 0.001
"""What the lowest hit of a part gets in place of 0, as OpenSearch has it: it was found, and others were not."""


@dataclass(frozen=True, slots=True)
class Hybrid:
    """What is asked beside each other, and how it becomes one ranking.

    Attributes:
        parts: each way of asking with its weight, above zero.
        fusion: ``linear`` or ``rrf``; see the module.
        where: who fuses: ``engine``, ``client``, or ``auto``: the engine where it can.
        depth: how many hits of each part are fused.
        rank_constant: of ``rrf``.
        pipeline: a search pipeline of the cluster (OpenSearch) that fuses instead, with its own weights.

    Raises:
        UsageError: not two parts, one twice, or a number out of range.
    """

    parts: tuple[tuple[Part, float], ...]
    fusion: Fusion = "linear"
    where: Place = "auto"
    depth: int = 100
    rank_constant: int = 60
    pipeline: str | None = None

    def __post_init__(self) -> None:
        names = [name for name, _ in self.parts]
        if len(set(names)) < len(names):
            raise UsageError(f"each part of a hybrid search is named once, not {', '.join(names)}")
        if len(names) < 2:
            raise UsageError(f"a hybrid search has two parts or more, of {', '.join(get_args(Part))}")
        if not 1 <= self.depth <= _dialect.MOST_CANDIDATES:
            raise UsageError(f"the depth {self.depth} is not between 1 and {_dialect.MOST_CANDIDATES:,}")
        if not 1 <= self.rank_constant <= 10_000:
            raise UsageError(f"the rank constant {self.rank_constant} is not between 1 and 10,000")
        if self.pipeline and self.where == "client":
            raise UsageError("a search pipeline fuses in the engine, not in the client: name one of the two")

    @property
    def names(self) -> tuple[Part, ...]:
        return tuple(name for name, _ in self.parts)

    @property
    def weights(self) -> tuple[float, ...]:
        """The parts' weights; their sum is 1."""
        total = sum(weight for _, weight in self.parts)
        return tuple(weight / total for _, weight in self.parts)

    @property
    def even(self) -> bool:
        """Whether all parts count the same."""
        return len({weight for _, weight in self.parts}) == 1

    def candidates(self, wanted: int) -> int:
        """How many hits of each part are fused where `wanted` are to be shown, those passed over too.

        Raises:
            UsageError: more than engines give.
        """
        if wanted > _dialect.MOST_CANDIDATES:
            raise UsageError(f"a hybrid search finds up to {_dialect.MOST_CANDIDATES:,} hits, not {wanted:,}")
        return max(self.depth, wanted)


def read_hybrid(text: str, **how: Any) -> Hybrid:
    """The parts that ``bm25,dense^2`` names, each with its weight; `how` is the rest of `Hybrid`.

    The sparse fields are a part with weight 1 unless they are named: ``sparse^0`` leaves them out.

    Raises:
        UsageError: see `Hybrid`; or a part is unknown, or its weight no number.
    """
    weights: list[tuple[str, float]] = []
    for piece in text.split(","):
        name, mark, number = piece.strip().partition("^")
        try:
            weight = float(number) if mark else 1.0
        except ValueError:
            weight = -1.0
        if name not in get_args(Part) or not 0 <= weight < float("inf"):
            raise UsageError(
                f"{piece.strip()!r} is no part of a hybrid search: it looks like bm25, dense or sparse^0.5"
            )
        weights.append((name, weight))
    if "sparse" not in dict(weights):
        weights.insert(0, ("sparse", 1.0))
    return Hybrid(tuple((name, weight) for name, weight in weights if weight), **how)  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Asked:
    """A hybrid search of one index.

    Attributes:
        how: its parts.
        by_engine: whether the engine fuses them.
        text_fields: where BM25 looks; everywhere if there are none.
        dense: the encoder of the dense part.
        dense_field: the field that it asks.
    """

    how: Hybrid
    by_engine: bool
    text_fields: tuple[str, ...] = ()
    dense: DenseEncoder | None = None
    dense_field: str = DENSE_FIELD

    def pieces(
        self,
        product: Product,
        sparse: Query,
        encoded: EncodedQuery,
        depth: int,
        filter: Mapping[str, Any] | None,  # noqa: A002
    ) -> list[Query]:
        """Each part's piece of a search body, in order; `sparse` is the clause of the sparse one."""
        found: list[Query] = []
        for name in self.how.names:
            if name == "sparse":
                found.append({"query": filtered(sparse, filter)})
            elif name == "bm25":
                found.append(_dialect.words(encoded.words or encoded.text, self.text_fields, filter))
            elif encoded.dense is not None:
                vector = encoded.dense.values.tolist()
                found.append(_dialect.nearest(product, self.dense_field, vector, depth, filter))
        return found

    def fused(self, product: Product, pieces: Sequence[Query], depth: int) -> Query:
        """The piece of a search body that has the engine fuse all parts.

        Raises:
            UnsupportedByEngine: it does not.
        """
        hybrid = self.how
        if not self.by_engine:
            raise UnsupportedByEngine(
                f"one search body holds no parts that {product} does not fuse itself: bridge search and "
                "bridge.search.search fuse them here"
            )
        if product == "opensearch":
            return _dialect.opensearch(pieces, depth, hybrid.pipeline or _pipeline(hybrid))
        if hybrid.fusion == "linear":
            return _dialect.linear(pieces, hybrid.weights, depth)
        return _dialect.rrf(pieces, None if hybrid.even else hybrid.weights, depth, hybrid.rank_constant)


def _pipeline(hybrid: Hybrid) -> Query:
    found: Query = templates.fill(_template(hybrid.fusion), {"rank_constant": hybrid.rank_constant})
    if not hybrid.even:
        ((_, how),) = found["phase_results_processors"][0].items()
        how["combination"]["parameters"] = {"weights": list(hybrid.weights)}
    return found


@lru_cache(maxsize=2)
def _template(fusion: Fusion) -> Query:
    if fusion == "linear":
        return templates.load_template("pipelines", "opensearch", "hybrid")
    return templates.load_template("pipelines", "opensearch", "rrf")


def fuse(rankings: Sequence[Sequence[tuple[str, float]]], hybrid: Hybrid) -> list[tuple[str, float]]:
    """The one ranking that the parts' make, best first: id and fused score.

    Args:
        rankings: each part's hits, best first, as id and score, in the order of ``hybrid.parts``.
        hybrid: how they are fused.
    """
    scores: dict[str, float] = {}
    plain = hybrid.fusion == "rrf" and hybrid.even
    for hits, weight in zip(rankings, (1.0,) * len(rankings) if plain else hybrid.weights, strict=True):
        for (name, _), part in zip(hits, _parts(hits, hybrid), strict=True):
            scores[name] = scores.get(name, 0.0) + weight * part
    # Sorting is stable: what scores the same stands as the first part that found it has it.
    return sorted(scores.items(), key=lambda one: -one[1])


def _parts(hits: Sequence[tuple[str, float]], hybrid: Hybrid) -> list[float]:
    if hybrid.fusion == "rrf":
        return [1 / (hybrid.rank_constant + rank) for rank in range(1, len(hits) + 1)]
    scores = [score for _, score in hits]
    least, most = min(scores, default=0.0), max(scores, default=0.0)
    if least == most:
        return [1.0] * len(scores)
    return [(score - least) / (most - least) or _LEAST for score in scores]


def by_engine(hybrid: Hybrid, product: Product, version: tuple[int, ...], able: bool) -> bool:
    """Whether the engine fuses; `able` is whether it has the means at all.

    Raises:
        UnsupportedByEngine: it is to, and cannot.
    """
    weighted = hybrid.fusion == "rrf" and not hybrid.even
    since = {"opensearch": (3, 1), "elasticsearch": (9, 2)}[product]
    if hybrid.pipeline and product != "opensearch":
        raise UnsupportedByEngine(f"{product} has no search pipelines; leave --pipeline out")
    can = able and not (weighted and version < since)
    if can or hybrid.where == "client":
        return can and hybrid.where != "client"
    if hybrid.where == "engine" or hybrid.pipeline:
        number = ".".join(map(str, version))
        why = f"takes weights with rrf from {since[0]}.{since[1]} on" if able else _MEANS[product]
        raise UnsupportedByEngine(f"{product} {number} does not fuse these parts: it {why}")
    return False


_MEANS: dict[Product, str] = {
    "opensearch": "has what it takes from 2.19 on, with the neural-search plugin",
    "elasticsearch": "has linear and rrf retrievers from 8.18 on, with an Enterprise licence",
}


def asked_offline(
    product: Product,
    version: tuple[int, ...],
    hybrid: Hybrid | str,
    model: str | None,
    field: str,
    text_fields: tuple[str, ...],
    **options: Any,
) -> Asked:
    """A hybrid search of an index that is not asked; the engine's plugins and licence are taken for granted.

    Raises:
        UsageError: a dense part, and no dense `model`; or see `read_hybrid`.
        UnsupportedByEngine: the engine is to fuse, and cannot.
    """
    from bridge.encode.dense import dense_options, load_dense

    parts = read_hybrid(hybrid) if isinstance(hybrid, str) else hybrid
    placed = by_engine(parts, product, version, version >= _SINCE[product])
    if "dense" in parts.names and model is None:
        raise UsageError("a dense part needs its encoder: name it with --dense")
    dense = load_dense(model, **dense_options(options)) if model and "dense" in parts.names else None
    return Asked(parts, placed, text_fields, dense, field)


_SINCE: dict[Product, tuple[int, int]] = {"opensearch": (2, 19), "elasticsearch": (8, 18)}


def asked_of(
    engine: Engine,
    index: str,
    there: IndexModel | None,
    hybrid: Hybrid | str,
    model: str | DenseEncoder | None = None,
    **options: Any,
) -> Asked:
    """A hybrid search of an index, whose dense encoder is found as the index says.

    Args:
        engine: where it is.
        index: its name.
        there: what it says of itself.
        hybrid: the parts.
        model: the dense encoder, where it is not to be found, or one that is loaded already.
        options: as for `bridge.load_encoder`.

    Raises:
        UsageError: the index has no dense vectors that the bridge put there.
        ModelMismatch: `model` is another than theirs.
        ModelNotFound: it is known neither here nor in the cluster.
        UnsupportedByEngine: the engine is to fuse, and cannot.
    """
    from bridge.encode.dense import dense_options, load_dense
    from bridge.modelstore import find_dense

    info = engine.info()
    parts = read_hybrid(hybrid) if isinstance(hybrid, str) else hybrid
    placed = by_engine(parts, info.product, info.version, engine.fuses())
    text_fields = there.text_fields if there else ()
    if "dense" not in parts.names:
        return Asked(parts, placed, text_fields)
    if there is None or there.dense_field is None or there.dense_encoder is None:
        raise UsageError(
            f"index {index} has no dense vectors to ask: leave dense out of the hybrid search, or ingest with --dense"
        )
    run = dense_options(options)
    if isinstance(model, str):
        dense = load_dense(model, **run)
    else:
        dense = model or find_dense(engine, there.dense_encoder, **run)
    if dense.fingerprint != there.dense_encoder:
        raise ModelMismatch(
            f"index {index} holds dense vectors of {there.dense_encoder}; the model {dense.name} is "
            f"{dense.fingerprint}: leave --dense out"
        )
    return Asked(parts, placed, text_fields, dense, there.dense_field)
