"""Hybrid search without an engine: what is read, who fuses, and how; and the bodies that are sent."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.errors import UnsupportedByEngine, UsageError
from bridge.fit import fit
from bridge.hybrid import Asked, Hybrid, by_engine, fuse, read_hybrid
from bridge.records import DenseVector, EncodedQuery
from bridge.rewrite import QueryRewriter
from bridge.settings import Product
from bridge.targets import Target
from bridge.twophase import TwoPhase
from tests.vectors import vector_of

# The classes of the published specification (elastic/elasticsearch-specification, `specification/_types/Retriever.ts`
# and `Knn.ts`, of 9.2): field ─▶ its type, "!" where it must be there.
BASE = {"filter": "query", "min_score": "float", "_name": "string"}
SPECIFICATION: dict[str, dict[str, str]] = {
    "retriever": {"standard": "standard", "knn": "knn", "rrf": "rrf", "linear": "linear"},
    "standard": BASE | {"query": "query", "terminate_after": "integer"},
    "knn": BASE
    | {
        "field": "string!",
        "query_vector": "floats",
        "k": "integer!",
        "num_candidates": "integer!",
        "similarity": "float",
    },
    "linear": BASE | {"retrievers": "inner[]", "rank_window_size": "integer", "normalizer": "normalizer"},
    "inner": {"retriever": "retriever!", "weight": "float!", "normalizer": "normalizer!"},
    "rrf": BASE | {"retrievers": "entry[]!", "rank_constant": "integer", "rank_window_size": "integer"},
    "component": {"retriever": "retriever!", "weight": "float"},
}


def check(value: Any, kind: str) -> None:
    """Fails unless `value` is what the specification calls `kind`."""
    kind = kind.removesuffix("!")
    if kind.endswith("[]"):
        assert isinstance(value, list)
        for one in value:
            check(one, kind[:-2])
    elif kind == "entry":
        check(value, "component" if "retriever" in value else "retriever")
    elif kind in SPECIFICATION:
        known = SPECIFICATION[kind]
        assert set(value) <= set(known), f"{kind} has no {set(value) - set(known)}"
        assert {name for name, of in known.items() if of.endswith("!")} <= set(value)
        assert kind != "retriever" or len(value) == 1, "a container holds one variant"
        for name, one in value.items():
            check(one, known[name])
    elif kind == "normalizer":
        assert value in ("none", "minmax", "l2_norm")
    elif kind == "floats":
        assert all(isinstance(one, float) for one in value)
    else:
        assert isinstance(value, {"query": dict, "float": (int, float), "integer": int, "string": str}[kind])


def asking(product: Product, version: tuple[int, ...], hybrid: Hybrid, **settings: Any) -> QueryRewriter:
    """A rewriter whose engine fuses, of vectors that are given."""
    kind = "rank_features" if product == "opensearch" else "sparse_vector"
    target = Target("embedding", kind, "neural_sparse" if product == "opensearch" else "sparse_vector")
    asked = Asked(hybrid, by_engine(hybrid, product, version, able=True), ("title", "text"))
    return QueryRewriter(None, product, version, (target,), hybrid=asked, **settings)


QUERY = EncodedQuery(
    "weather in ny",
    vector_of({"ny": 5.7729, "weather": 4.5684}),
    DenseVector(np.array([0.5, -0.25, 0.75, 0.125], np.float32)),
    words="weather in ny",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "lexical"
    fit(["the weather in new york", "rain and sun"], folder)
    return folder


@pytest.mark.parametrize("parts", ["bm25", "bm25,dense", "bm25^0.5,dense^2", "sparse^0,bm25,dense"])
@pytest.mark.parametrize("fusion", ["linear", "rrf"])
@pytest.mark.parametrize("narrowed", [None, {"term": {"lang": "en"}}])
def test_retrievers_are_as_the_specification_has_them(parts: str, fusion: Any, narrowed: Any) -> None:
    hybrid = read_hybrid(parts, fusion=fusion)
    body = asking("elasticsearch", (9, 2, 0), hybrid).body(QUERY, size=20, start=5, filter=narrowed)
    assert set(body) == {"size", "from", "_source", "retriever"}
    check(body["retriever"], "retriever")
    ((_, how),) = body["retriever"].items()
    assert how["rank_window_size"] == 100
    assert len(how["retrievers"]) == len(hybrid.parts)
    assert json.dumps(how["retrievers"]).count('"lang"') == (len(hybrid.parts) if narrowed else 0)


def test_the_check_of_the_specification_can_fail() -> None:
    for wrong in ({"linear": {"retrievers": [{"retriever": {"standard": {}}}]}}, {"rrf": {}}, {"knn": {}, "rrf": {}}):
        with pytest.raises(AssertionError):
            check(wrong, "retriever")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("bm25", (("sparse", 1), ("bm25", 1))),
        ("bm25^0.3, dense^2", (("sparse", 1), ("bm25", 0.3), ("dense", 2))),
        ("bm25,sparse^0.5", (("bm25", 1), ("sparse", 0.5))),
        ("sparse^0,bm25,dense", (("bm25", 1), ("dense", 1))),
    ],
)
def test_the_parts_are_read(text: str, parts: Any) -> None:
    assert read_hybrid(text).parts == parts
    assert sum(read_hybrid(text).weights) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "how", "reason"),
    [
        ("", {}, "'' is no part"),
        ("lexical", {}, "'lexical' is no part"),
        ("bm25^x", {}, r"'bm25\^x' is no part"),
        ("bm25^-1", {}, r"'bm25\^-1' is no part"),
        ("bm25^inf", {}, "is no part"),
        ("bm25^nan", {}, "is no part"),
        ("bm25,bm25", {}, "named once, not sparse, bm25, bm25"),
        ("sparse", {}, "two parts or more"),
        ("sparse^0,bm25", {}, "two parts or more"),
        ("bm25", {"depth": 0}, "depth 0 is not between 1 and 10,000"),
        ("bm25", {"rank_constant": 0}, "rank constant 0"),
        ("bm25", {"pipeline": "own", "where": "client"}, "fuses in the engine, not in the client"),
    ],
)
def test_what_is_no_hybrid_search_is_refused(text: str, how: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        read_hybrid(text, **how)


@pytest.mark.parametrize(
    ("product", "version", "parts", "fusion", "engine"),
    [
        ("opensearch", (3, 6, 0), "bm25^2", "rrf", True),
        ("opensearch", (3, 0, 0), "bm25^2", "rrf", False),
        ("opensearch", (3, 0, 0), "bm25^2", "linear", True),
        ("opensearch", (2, 19, 1), "bm25", "rrf", True),
        ("opensearch", (2, 18, 0), "bm25", "linear", False),
        ("elasticsearch", (9, 2, 0), "bm25^2", "rrf", True),
        ("elasticsearch", (9, 1, 0), "bm25^2", "rrf", False),
        ("elasticsearch", (8, 18, 0), "bm25^2", "linear", True),
        ("elasticsearch", (8, 17, 0), "bm25", "rrf", False),
    ],
)
def test_who_fuses_follows_from_version_and_parts(
    model: Path, product: Product, version: tuple[int, ...], parts: str, fusion: Any, engine: bool
) -> None:
    target = {"opensearch": "rank_features", "elasticsearch": "sparse_vector"}[product]

    def load(where: Any) -> QueryRewriter:
        number = ".".join(map(str, version))
        hybrid = read_hybrid(parts, fusion=fusion, where=where)
        return QueryRewriter.load(model, engine=product, version=number, kind=target, hybrid=hybrid)

    assert load("auto").hybrid.by_engine == engine  # type: ignore[union-attr]
    assert not load("client").hybrid.by_engine  # type: ignore[union-attr]
    if engine:
        assert load("engine").rewrite("weather")
    else:
        with pytest.raises(UnsupportedByEngine, match="does not fuse these parts"):
            load("engine")
        with pytest.raises(UnsupportedByEngine, match="one search body holds no parts"):
            load("auto").rewrite("weather")


def test_reciprocal_ranks_and_weighted_means() -> None:
    """By hand: a is first and second, b second and first, c third in one."""
    rankings = [[("a", 9.0), ("b", 5.0), ("c", 1.0)], [("b", 0.5), ("a", 0.25)]]
    assert dict(fuse(rankings, read_hybrid("bm25", fusion="rrf"))) == pytest.approx(
        {"a": 1 / 61 + 1 / 62, "b": 1 / 62 + 1 / 61, "c": 1 / 63}
    )
    weighted = read_hybrid("sparse^3,bm25", fusion="rrf", rank_constant=1)
    assert fuse(rankings, weighted)[0] == ("a", pytest.approx(0.75 / 2 + 0.25 / 3))
    linear = dict(fuse(rankings, read_hybrid("sparse^3,bm25")))
    assert linear == pytest.approx({"a": 0.75 + 0.25 * 0.001, "b": 0.75 * 0.5 + 0.25, "c": 0.75 * 0.001})


@pytest.mark.parametrize("fusion", ["linear", "rrf"])
def test_what_one_part_alone_finds_keeps_its_order(fusion: Any) -> None:
    draw = random.Random(3)
    for _ in range(50):
        scores = sorted({draw.random() * 20 for _ in range(draw.randint(1, 30))}, reverse=True)
        hits = [(str(number), score) for number, score in enumerate(scores)]
        assert [name for name, _ in fuse([hits, []], read_hybrid("bm25", fusion=fusion))] == [name for name, _ in hits]
    assert fuse([[], []], read_hybrid("bm25", fusion=fusion)) == []


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"min_score": 1.0}, "min_score would be compared"),
        ({"collapse": "whole"}, "do not collapse what they fuse"),
        ({"size": 10_001}, "up to 10,000 hits"),
    ],
)
def test_what_a_hybrid_search_cannot_do(how: dict[str, Any], reason: str) -> None:
    rewriter = asking("opensearch", (3, 6, 0), read_hybrid("bm25"))
    with pytest.raises(UsageError, match=reason):
        rewriter.body(QUERY, **how)


def test_phases_and_parts_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="asks each part in one phase"):
        asking("opensearch", (3, 6, 0), read_hybrid("bm25"), two_phase=TwoPhase())


def test_a_page_beyond_the_depth_deepens_every_part() -> None:
    body = asking("opensearch", (3, 6, 0), read_hybrid("bm25,dense", depth=20)).body(QUERY, size=30, start=40)
    assert body["query"]["hybrid"]["pagination_depth"] == 70
    assert body["query"]["hybrid"]["queries"][2]["knn"]["dense"]["k"] == 70


def test_a_body_can_be_changed_without_changing_the_next() -> None:
    rewriter = asking("opensearch", (3, 6, 0), read_hybrid("bm25", fusion="rrf"))
    body = rewriter.body(QUERY)
    body["search_pipeline"]["phase_results_processors"].clear()
    assert rewriter.body(QUERY)["search_pipeline"]["phase_results_processors"]
