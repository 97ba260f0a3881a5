"""Dialects: one query vector in the words of each engine, field kind and version.

What is to be sent stands in `golden/*.json`, readable and compared exactly. After a change that is
meant, `BRIDGE_GOLDEN=write` writes them anew; the difference is then reviewed like code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.clauses import MAX_TOKENS
from bridge.dialects import DIALECTS, Dialect, check, default_dialect, elasticsearch, opensearch, query_for
from bridge.dialects.inside import Inside
from bridge.dialects.seismic import Seismic, parse_seismic
from bridge.encode.base import TokenVocabulary
from bridge.errors import UnsupportedByEngine, UsageError
from bridge.hybrid import Asked, read_hybrid
from bridge.prune import Pruning
from bridge.records import DenseVector, EncodedQuery, SparseVector
from bridge.rewrite import QueryRewriter
from bridge.settings import Product
from bridge.targets import Target, read_field
from bridge.tokens import Kind
from bridge.twophase import TwoPhase
from tests.queries_page import PAGE, page
from tests.vectors import vector_of

GOLDEN = Path(__file__).parent / "golden"
WRITE = os.environ.get("BRIDGE_GOLDEN") == "write"

WEATHER = {"ny": 5.7729, "weather": 4.5684, "now": 3.5895}
DOTTED = {"u.s.": 4.25, ".": 0.5, "․": 0.25, "": 0.125, "rain": 2.0}
HEAVY = {"rare": 200.0, "common": 0.3}


@dataclass(frozen=True)
class Case:
    """A golden file's name, and what it is the query of."""

    name: str
    product: Product
    version: tuple[int, ...]
    kind: Kind
    dialect: Dialect
    weights: dict[str, float]

    def __str__(self) -> str:
        return self.name


CASES = [
    Case(f"{product}-{kind}-{dialect}{suffix}", product, version, kind, dialect, weights)
    for product, version, kind, dialect in (
        ("opensearch", (3, 6, 0), "rank_features", "neural_sparse"),
        ("opensearch", (3, 6, 0), "rank_features", "rank_feature"),
        ("opensearch", (3, 6, 0), "sparse_vector", "neural_sparse"),
        ("elasticsearch", (9, 2, 0), "rank_features", "rank_feature"),
        ("elasticsearch", (9, 2, 0), "sparse_vector", "sparse_vector"),
    )
    for suffix, weights in (("", WEATHER), ("-dots", DOTTED), ("-heavy", HEAVY))
] + [
    Case(
        "elasticsearch-sparse_vector-before-8.15",
        "elasticsearch",
        (8, 14, 3),
        "sparse_vector",
        "sparse_vector",
        WEATHER,
    )
]


ROWS = {
    "nested": {},
    "nested-passages": {"passages": 3, "filter": {"term": {"lang": "de"}}},
    "nested-explained": {"passages": 1, "explain": "vectors"},
    "collapsed": {"collapse": "document"},
    "collapsed-passages": {"collapse": "document", "passages": 3},
    "collapsed-explained": {"collapse": "document", "passages": 3, "explain": "vectors"},
}
"""What is asked of an index of passages ─▶ the arguments of `QueryRewriter.body`."""

ENGINES: tuple[tuple[Product, tuple[int, ...], Kind], ...] = (
    ("opensearch", (3, 6, 0), "rank_features"),
    ("elasticsearch", (9, 2, 0), "sparse_vector"),
)
FILTER = {"filter": {"term": {"lang": "de"}}}
HYBRID = {
    "linear": read_hybrid("bm25,dense"),
    "weighted": read_hybrid("sparse^2,bm25"),
    "rrf": read_hybrid("bm25,dense", fusion="rrf"),
    "pipeline": read_hybrid("bm25", pipeline="articles-hybrid"),
}
BOOSTED = {"fields": ("embedding^2", "title_embedding^0.5")}
WHOLE: dict[str, tuple[Product, tuple[int, ...], Kind, dict[str, Any], dict[str, Any]]] = {
    "opensearch-fields": ("opensearch", (3, 6, 0), "rank_features", BOOSTED, {}),
    "elasticsearch-fields": ("elasticsearch", (9, 2, 0), "sparse_vector", BOOSTED, {}),
    "opensearch-two-phase": ("opensearch", (3, 6, 0), "rank_features", {"two_phase": TwoPhase(0.7)}, {"start": 5}),
    "elasticsearch-two-phase": ("elasticsearch", (9, 2, 0), "sparse_vector", {"two_phase": TwoPhase(0.7)}, {}),
    "opensearch-analyzer": ("opensearch", (3, 6, 0), "rank_features", {"inside": Inside(analyzer="bert-uncased")}, {}),
    "opensearch-model": ("opensearch", (3, 6, 0), "rank_features", {"inside": Inside(model_id="aVeif4oB5Vm0")}, {}),
    "opensearch-model-seismic": (
        "opensearch", (3, 6, 0), "sparse_vector", {"inside": Inside(model_id="aVeif4oB5Vm0")}, {}
    ),
    "elasticsearch-inference": (
        "elasticsearch", (9, 2, 0), "sparse_vector", {"inside": Inside(inference_id="my-elser")}, {}
    ),
    "opensearch-hybrid": ("opensearch", (3, 6, 0), "rank_features", {"hybrid": HYBRID["linear"]}, FILTER),
    "opensearch-hybrid-weighted": ("opensearch", (3, 6, 0), "rank_features", {"hybrid": HYBRID["weighted"]}, {}),
    "opensearch-hybrid-rrf": ("opensearch", (3, 6, 0), "rank_features", {"hybrid": HYBRID["rrf"]}, {}),
    "opensearch-hybrid-pipeline": ("opensearch", (3, 6, 0), "rank_features", {"hybrid": HYBRID["pipeline"]}, {}),
    "elasticsearch-hybrid": ("elasticsearch", (9, 2, 0), "sparse_vector", {"hybrid": HYBRID["linear"]}, FILTER),
    "elasticsearch-hybrid-rrf": ("elasticsearch", (9, 2, 0), "sparse_vector", {"hybrid": HYBRID["rrf"]}, {}),
}  # fmt: skip
"""Golden file ─▶ engine, version, kind, the rewriter's own settings, and the arguments of `QueryRewriter.body`."""

BODIES = {f"{engine[0]}-body-{row}": (engine, row) for engine in ENGINES for row in ROWS}


def check_golden(name: str, found: dict[str, Any]) -> None:
    path = GOLDEN / f"{name}.json"
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if WRITE:
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize("name", BODIES)
def test_the_body_of_passages_is_the_golden_one(name: str) -> None:
    (product, version, kind), row = BODIES[name]
    nested = "passages" if row.startswith("nested") else None
    field = "passages.embedding" if nested else "embedding"
    target = Target(field, kind, default_dialect(product, version, kind), nested_path=nested)
    one = QueryRewriter(AnyTokens(), product, version, (target,))
    body = one.body(EncodedQuery("", vector_of(WEATHER)), size=5, **ROWS[row])
    check_golden(name, body)


@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_body_is_the_golden_one(name: str) -> None:
    product, version, kind, settings, how = WHOLE[name]
    own, dialect = dict(settings), default_dialect(product, version, kind)
    fields = map(read_field, own.pop("fields", ("embedding",)))
    targets = tuple(Target(path, kind, dialect, boost) for path, boost in fields)
    if "hybrid" in own:
        own["hybrid"] = Asked(own["hybrid"], by_engine=True, text_fields=("title", "text"))
    encoder = None if "inside" in own else AnyTokens()
    one = QueryRewriter(encoder, product, version, targets, **own)
    vector = None if encoder is None else vector_of(WEATHER)
    dense = DenseVector(np.array([0.5, -0.25, 0.75], np.float32))
    body = one.body(EncodedQuery("weather in ny", vector, dense), size=5, **how)
    check_golden(name, body)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_query_is_the_golden_one(case: Case) -> None:
    query = query_for(
        case.dialect, case.product, case.version, case.kind, "embedding", vector_of(case.weights), size=10
    )
    check_golden(case.name, query)


def test_every_golden_file_is_of_a_case_and_every_dialect_has_one() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.json" for name in (*map(str, CASES), *BODIES, *WHOLE)}
    spoken = {
        (product, kind, one) for product, kinds in DIALECTS.items() for kind, all_ in kinds.items() for one in all_
    }
    assert {(case.product, case.kind, case.dialect) for case in CASES} == spoken


# --- Which dialect ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "version", "kind", "dialect"),
    [
        ("opensearch", (2, 11, 0), "rank_features", "rank_feature"),
        ("opensearch", (2, 13, 9), "rank_features", "rank_feature"),
        ("opensearch", (2, 14, 0), "rank_features", "neural_sparse"),
        ("opensearch", (3, 6, 0), "rank_features", "neural_sparse"),
        ("opensearch", (3, 6, 0), "sparse_vector", "neural_sparse"),
        ("elasticsearch", (7, 17, 29), "rank_features", "rank_feature"),
        ("elasticsearch", (9, 2, 0), "rank_features", "rank_feature"),
        ("elasticsearch", (9, 2, 0), "sparse_vector", "sparse_vector"),
    ],
)
def test_the_default_is_the_best_that_the_version_understands(
    product: Product, version: tuple[int, ...], kind: Kind, dialect: Dialect
) -> None:
    assert default_dialect(product, version, kind) == dialect
    check(dialect, product, version, kind)


@pytest.mark.parametrize(
    ("dialect", "product", "version", "kind", "reason"),
    [
        ("sparse_vector", "opensearch", (3, 6), "rank_features", "what does: neural_sparse, rank_feature"),
        ("rank_feature", "opensearch", (3, 6), "sparse_vector", "does not ask a sparse_vector field of opensearch"),
        ("neural_sparse", "elasticsearch", (9, 2), "rank_features", "what does: rank_feature"),
        ("rank_feature", "elasticsearch", (9, 2), "sparse_vector", "what does: sparse_vector"),
        ("neural_sparse", "opensearch", (2, 13), "rank_features", "from OpenSearch 2.14 on; use rank_feature"),
    ],
)
def test_a_dialect_that_is_not_spoken_is_refused_and_the_spoken_one_named(
    dialect: Dialect, product: Product, version: tuple[int, ...], kind: Kind, reason: str
) -> None:
    with pytest.raises(UnsupportedByEngine, match=reason):
        query_for(dialect, product, version, kind, "v", vector_of(WEATHER), 10)


# --- Weights ------------------------------------------------------------------------------------------------


def asked(query: dict[str, Any]) -> tuple[dict[str, float], float]:
    """The tokens and the boost of a `neural_sparse` query."""
    (body,) = query["neural_sparse"].values()
    return body["query_tokens"], body.get("boost", 1.0)


@pytest.mark.parametrize("heaviest", [64.00001, 100.0, 128.0, 128.1, 1e6, 3e38])
def test_weights_beyond_64_are_scaled_and_the_boost_undoes_it_exactly(heaviest: float) -> None:
    vector = vector_of({"a": heaviest, "b": 0.1, "c": 63.7})
    tokens, boost = asked(opensearch.neural_sparse("v", vector))
    assert 32 < max(tokens.values()) <= 64
    scaled = np.array(list(tokens.values()), np.float32) * np.float32(boost)
    assert np.array_equal(scaled, vector.weights)


@pytest.mark.parametrize("heaviest", [0.001, 63.9, 64.0])
def test_weights_up_to_64_are_sent_as_they_are(heaviest: float) -> None:
    query = opensearch.neural_sparse("v", vector_of({"a": heaviest}))
    assert query == {"neural_sparse": {"v": {"query_tokens": {"a": heaviest}}}}


def test_elasticsearch_is_never_let_to_prune() -> None:
    assert elasticsearch.sparse_vector("v", vector_of(WEATHER))["sparse_vector"]["prune"] is False


def test_seismic_collects_as_many_hits_as_are_wanted_and_reads_every_list() -> None:
    query = query_for("neural_sparse", "opensearch", (3, 6), "sparse_vector", "v", vector_of(WEATHER), size=250)
    parameters = query["neural_sparse"]["v"]["method_parameters"]
    assert parameters == {"k": 250, "top_n": 3, "heap_factor": 1.0}


def test_seismic_looks_as_far_as_it_is_told() -> None:
    far = replace(asking(SEISMIC), seismic=parse_seismic("top-n=2,heap-factor=1.1")).rewrite("2", size=5)
    parameters = far["query"]["neural_sparse"]["embedding"]["method_parameters"]
    assert parameters == {"k": 5, "top_n": min(2, len(far["query"]["neural_sparse"]["embedding"]["query_tokens"])),
                          "heap_factor": 1.1}  # fmt: skip
    assert parse_seismic("heap-factor=2") == Seismic(10_000, 2.0)
    assert parse_seismic(" top-n=7 ") == Seismic(7, 1.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "says nothing of SEISMIC"),
        ("top-n", "says nothing of SEISMIC"),
        ("k=3", "says nothing of SEISMIC"),
        ("top-n=1,top-n=2", "says nothing of SEISMIC"),
        ("top-n=many", "no number"),
        ("top-n=1.5", "no number"),
        ("top-n=0", "between 1 and 10,000"),
        ("heap-factor=0", "above zero"),
        ("heap-factor=inf", "above zero"),
        ("heap-factor=nan", "above zero"),
    ],
)
def test_seismic_is_told_nothing_else(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_seismic(text)


def test_seismic_refuses_ids_that_would_wrap_around() -> None:
    vector = SparseVector(np.array([32_768], np.int32), np.array([1.0], np.float32), TokenVocabulary(["x"] * 32_769))
    with pytest.raises(UnsupportedByEngine, match="32768 is past 32767"):
        opensearch.seismic("v", vector, k=10)


# --- Search bodies ------------------------------------------------------------------------------------------


class AnyTokens:
    """An encoder of made-up queries: `n` words weigh 1, 2, … n."""

    name = "any"
    space = fingerprint = query_fingerprint = "any-0"
    encodes_documents = False
    open_vocabulary = True
    ceilings = (1.0, 1.0)
    vocabulary = TokenVocabulary([f"w{i}" for i in range(5000)])

    def encode_query(self, texts: Any) -> list[SparseVector]:
        return [vector_of({f"w{i}": i + 1.0 for i in range(int(text))}) for text in texts]

    encode_document = encode_query


SEISMIC = Target("embedding", "sparse_vector", "neural_sparse")
PASSAGES = Target("passages.v", "rank_features", "rank_feature", nested_path="passages")


def rewriter(dialect: Dialect = "rank_feature") -> QueryRewriter:
    return asking(Target("embedding", "rank_features", dialect))


def asking(target: Target) -> QueryRewriter:
    return QueryRewriter(AnyTokens(), "opensearch", (3, 6, 0), (target,))


def test_a_body_has_the_query_and_the_size_and_leaves_the_vectors_out() -> None:
    assert rewriter("neural_sparse").rewrite("2", size=5) == {
        "size": 5,
        "query": {"neural_sparse": {"embedding": {"query_tokens": {"w0": 1.0, "w1": 2.0}}}},
        "_source": {"excludes": ["embedding", "bridge_content_hash"]},
    }


def test_a_page_further_on_and_a_lowest_score() -> None:
    body = rewriter("neural_sparse").rewrite("2", size=5, start=20, min_score=1.5)
    assert (body["from"], body["size"], body["min_score"]) == (20, 5, 1.5)
    # An approximate search must find the hits that are passed over, too.
    seismic = asking(SEISMIC).rewrite("2", size=5, start=20)
    assert seismic["query"]["neural_sparse"]["embedding"]["method_parameters"]["k"] == 25


@pytest.mark.parametrize(
    "how", [{"start": -1}, {"size": -1}, {"min_score": -0.5}, {"min_score": float("nan")}, {"min_score": float("inf")}]
)
def test_no_page_before_the_first_and_no_score_that_is_none(how: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        rewriter("neural_sparse").rewrite("2", **how)


def test_a_filter_does_not_score_and_the_query_must_match() -> None:
    assert rewriter("neural_sparse").rewrite("1", filter={"term": {"lang": "de"}})["query"] == {
        "bool": {
            "should": [{"neural_sparse": {"embedding": {"query_tokens": {"w0": 1.0}}}}],
            "minimum_should_match": 1,
            "filter": [{"term": {"lang": "de"}}],
        }
    }


@pytest.mark.parametrize("dialect", ["neural_sparse", "rank_feature"])
def test_beyond_the_clause_limit_the_heaviest_stay_and_the_rest_is_counted(dialect: Dialect) -> None:
    one = rewriter(dialect)
    encoded = one.encode("1100")
    assert encoded.dropped == 1100 - MAX_TOKENS == 100
    assert encoded.sparse
    assert set(encoded.sparse.tokens) == {f"w{i}" for i in range(100, 1100)}
    assert json.dumps(one.query(encoded)).count('"boost"' if dialect == "rank_feature" else '"w') == MAX_TOKENS


def test_within_the_clause_limit_nothing_is_dropped() -> None:
    encoded = rewriter().encode("1000")
    assert (len(encoded.sparse or ()), encoded.dropped) == (1000, 0)


@pytest.mark.parametrize("dialect", ["neural_sparse", "rank_feature"])
def test_a_query_without_any_token_matches_nothing(dialect: Dialect) -> None:
    assert rewriter(dialect).rewrite("0")["query"] == {"match_none": {}}


@pytest.mark.parametrize("text", ["", "  ", "\n", [], [("", None)]])
def test_an_empty_query_is_refused(text: Any) -> None:
    with pytest.raises(UsageError, match="the query is empty"):
        rewriter().rewrite(text)


# --- Encoders in the cluster --------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [{}, {"analyzer": "a", "model_id": "b"}, {"analyzer": ""}])
def test_one_thing_encodes_in_the_cluster(named: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="an analyzer, a model_id or an inference_id: name one"):
        Inside(**named)


@pytest.mark.parametrize(
    ("inside", "product", "version", "kind", "reason"),
    [
        (Inside(analyzer="x"), "elasticsearch", (9, 2), "sparse_vector", "it encodes by inference_id"),
        (Inside(inference_id="x"), "opensearch", (3, 6), "rank_features", "it encodes by analyzer or model_id"),
        (Inside(inference_id="x"), "elasticsearch", (8, 14), "sparse_vector", "of Elasticsearch 8.15 and newer"),
        (Inside(inference_id="x"), "elasticsearch", (9, 2), "rank_features", "for sparse_vector fields"),
        (Inside(analyzer="x"), "opensearch", (2, 19), "rank_features", "an analyzer from OpenSearch 3.1 on"),
        (Inside(model_id="x"), "opensearch", (2, 10), "rank_features", "from OpenSearch 2.11 on"),
    ],
)  # fmt: skip
def test_an_encoder_that_the_cluster_cannot_have_is_refused(
    inside: Inside, product: Product, version: tuple[int, ...], kind: Kind, reason: str
) -> None:
    with pytest.raises(UnsupportedByEngine, match=reason):
        inside.query(product, version, kind, "v", "text", 10)


def test_where_the_cluster_encodes_nothing_is_made_here() -> None:
    one = QueryRewriter.load(inside=Inside(analyzer="bert-uncased"))
    assert one.rewrite("weather")["query"]["neural_sparse"]["embedding"]["query_text"] == "weather"
    assert one.rewrite([("weather", "sunny"), ("and now?", None)])["query"]["neural_sparse"]["embedding"] == {
        "query_text": "and now?", "analyzer": "bert-uncased",
    }  # fmt: skip
    for how, reason in (
        ({"pruning": Pruning(top_k=3)}, "the cluster makes its own"),
        ({"two_phase": TwoPhase()}, "the cluster makes its own"),
        ({"engine": "elasticsearch", "version": "9.2.0"}, "knows no analyzer"),
    ):
        with pytest.raises((UsageError, UnsupportedByEngine), match=reason):
            QueryRewriter.load(inside=Inside(analyzer="bert-uncased"), **how)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="name a model, or what encodes in the cluster"):
        QueryRewriter.load()
    with pytest.raises(UsageError, match="reads words, not turns"):
        replace(one, conversation="disco").rewrite([("weather", None)])


# --- Two phases ---------------------------------------------------------------------------------------------


def test_heavy_tokens_find_and_light_ones_change_the_order() -> None:
    vector = vector_of({"a": 10.0, "b": 4.0, "c": 3.999, "d": 1.0})
    heavy, light = TwoPhase(prune_ratio=0.4).part(vector)
    assert (heavy.as_dict(), set(light.as_dict())) == ({"a": 10.0, "b": 4.0}, {"c", "d"})
    assert not TwoPhase(prune_ratio=0).part(vector)[1]
    body = replace(rewriter(), two_phase=TwoPhase(prune_ratio=0.0)).rewrite("3")
    assert "rescore" not in body
    assert replace(rewriter(), two_phase=TwoPhase()).rewrite("0")["query"] == {"match_none": {}}


@pytest.mark.parametrize(("size", "start", "rate", "window"), [(10, 0, 5, 50), (10, 20, 1.5, 45), (9000, 0, 5, 10_000)])
def test_the_window_holds_the_wanted_hits(size: int, start: int, rate: float, window: int) -> None:
    body = replace(rewriter(), two_phase=TwoPhase(0.5, rate)).rewrite("3", size=size, start=start)
    assert body["rescore"]["window_size"] == window


@pytest.mark.parametrize(
    ("settings", "how", "reason"),
    [
        ({}, {"collapse": "whole"}, "do not collapse what they score in two phases"),
        ({}, {"min_score": 1.0}, "the first phase's score"),
        ({}, {"size": 10_001}, "up to 10,000 hits"),
        ({"targets": (PASSAGES,)}, {}, "of nested passages"),
        ({"targets": (SEISMIC,)}, {}, "approximately as it is"),
    ],
)
def test_what_cannot_be_asked_in_two_phases(settings: dict[str, Any], how: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        replace(rewriter(), two_phase=TwoPhase(0.5), **settings).rewrite("3", **how)


@pytest.mark.parametrize("values", [{"prune_ratio": 1.1}, {"prune_ratio": -1}, {"expansion_rate": 0.5}])
def test_phases_that_are_none(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"it (is|lies)"):
        TwoPhase(**values)


# --- Their documentation ------------------------------------------------------------------------------------


def test_the_page_of_queries_is_made_from_the_golden_files() -> None:
    if WRITE:
        PAGE.write_text(page(), "utf-8")
    assert PAGE.read_text("utf-8") == page(), "BRIDGE_GOLDEN=write makes it anew"
