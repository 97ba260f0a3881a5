"""Hybrid search on every engine: what the engine fuses, and what is fused here, is what a fusion of the parts gives.

The reference asks each part by a body that is written here, and fuses by its own few lines.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bridge import register
from bridge.encode.dense import DenseEncoder, load_dense
from bridge.engines import Engine
from bridge.errors import ModelMismatch, RequestRejected, UnsupportedByEngine, UsageError
from bridge.fit import FitOptions, fit
from bridge.hybrid import Hybrid, read_hybrid
from bridge.ingest import IngestOptions, ingest, texts_of
from bridge.records import TEXT_FIELDS
from bridge.register import RegisterOptions
from bridge.rewrite import QueryRewriter
from bridge.search import SearchResult, search
from bridge.sources import open_source
from tests.models import word_bert

CORPUS = str(Path(register.__file__).parent / "demo_data")
QUESTIONS = ("why does my bread turn out heavy", "what causes two high tides in a day", "pruning roses in the winter")
DEPTH = 30
PARTS = ("bm25", "dense", "sparse^0,bm25,dense", "bm25^0.25,dense^3", "sparse^2,bm25")
Ranking = list[tuple[str, float]]

pytestmark = [
    pytest.mark.node,
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]


@dataclass(frozen=True)
class Filled:
    """An index with the demo corpus, sparse and (where the engine has such) dense."""

    engine: Engine
    index: str
    model: str
    dense: str | None

    def rewriter(self, hybrid: Hybrid | str | None = None) -> QueryRewriter:
        return QueryRewriter.for_index(self.engine, self.index, model=self.model, hybrid=hybrid, dense=self.dense)

    def ask(self, hybrid: Hybrid, question: str, **how: Any) -> SearchResult:
        return search(self.engine, self.index, self.rewriter(hybrid), question, **how)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    with open_source([CORPUS]) as source:
        texts = list(texts_of(source, TEXT_FIELDS, lambda progress: None))
    fit(texts, folder / "sparse", FitOptions(language="en"))
    words = sorted({word for text in texts for word in text.lower().split() if word.isalpha()})
    return str(folder / "sparse"), str(word_bert(folder / "dense", words))


@pytest.fixture(scope="module")
def filled(any_engine: Engine, models: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    index = f"test-{uuid.uuid4().hex[:12]}"
    folder = tmp_path_factory.mktemp("home")
    found = Filled(any_engine, index, models[0], models[1] if any_engine.info().capabilities.dense else None)
    options = IngestOptions(
        model=found.model, dense=found.dense, dead_letter=folder / "dead", register=RegisterOptions(shards=1)
    )
    with pytest.MonkeyPatch.context() as patch, open_source([CORPUS]) as source:
        patch.setenv("BRIDGE_CACHE_DIR", str(folder / "cache"))
        patch.setenv("BRIDGE_DATA_DIR", str(folder / "data"))
        assert ingest(any_engine, index, source, options).indexed == 240
    yield found
    any_engine.delete_index(index)


@pytest.fixture(scope="module")
def encoder(models: tuple[str, str]) -> DenseEncoder:
    return load_dense(models[1])


def part(filled: Filled, encoder: DenseEncoder, name: str, question: str, narrowed: Any = None) -> Ranking:
    """One part's hits, asked for by itself."""
    opensearch = filled.engine.product == "opensearch"
    body: dict[str, Any] = {"size": DEPTH, "_source": False}
    if name == "dense":
        vector = encoder.encode_query([question])[0].tolist()
        own = {"filter": narrowed} if narrowed else {}
        if opensearch:
            body["query"] = {"knn": {"dense": {"vector": vector, "k": DEPTH, **own}}}
        else:
            body["knn"] = {"field": "dense", "query_vector": vector, "k": DEPTH, "num_candidates": 100, **own}
    else:
        clause: dict[str, Any] = {
            "multi_match": {"query": question, "fields": ["title", "text"], "type": "most_fields"}
        }
        if name == "sparse":
            plain = filled.rewriter()
            clause = plain.query(plain.encode(question), size=DEPTH)
        body["query"] = {"bool": {"must": [clause], "filter": [narrowed] if narrowed else []}}
    return [(hit["_id"], hit["_score"]) for hit in filled.engine.search(filled.index, body)["hits"]["hits"]]


def fused(rankings: Sequence[Ranking], weights: Sequence[float], fusion: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for hits, weight in zip(rankings, weights, strict=True):
        low, high = (hits[-1][1], hits[0][1]) if hits else (0.0, 0.0)
        for rank, (name, score) in enumerate(hits):
            if fusion == "rrf":
                own = 1 / (60 + rank + 1)
            else:
                own = ((score - low) / (high - low) or 0.001) if high > low else 1.0
            found[name] = found.get(name, 0) + own * weight
    return found


def weights_of(hybrid: Hybrid) -> list[float]:
    own = [weight for _, weight in hybrid.parts]
    if hybrid.fusion == "rrf" and len(set(own)) == 1:
        return [1.0] * len(own)
    return [weight / sum(own) for weight in own]


def check(hits: Ranking, expected: dict[str, float]) -> None:
    best = sorted(expected.values(), reverse=True)[: len(hits)]
    assert len(hits) == min(10, len(expected))
    assert [score for _, score in hits] == pytest.approx(best, rel=1e-4, abs=1e-6)
    for name, score in hits:
        assert score == pytest.approx(expected[name], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("where", ["engine", "client"])
@pytest.mark.parametrize("fusion", ["linear", "rrf"])
@pytest.mark.parametrize("parts", PARTS)
def test_the_ranking_is_that_of_the_parts_fused(
    filled: Filled, encoder: DenseEncoder, parts: str, fusion: Any, where: Any
) -> None:
    hybrid = read_hybrid(parts, fusion=fusion, depth=DEPTH, where=where)
    if "dense" in parts and filled.dense is None:
        with pytest.raises(UsageError, match="has no dense vectors to ask"):
            filled.rewriter(replace(hybrid, where="client"))
        return
    version = filled.engine.info().version
    engines = {"opensearch": (2, 19) if fusion == "linear" or hybrid.even else (3, 1), "elasticsearch": (99,)}
    if where == "engine" and version < engines[filled.engine.product]:
        with pytest.raises(UnsupportedByEngine, match="does not fuse these parts"):
            filled.rewriter(hybrid)
        # The same call, without insisting on it.
        assert not filled.rewriter(replace(hybrid, where="auto")).hybrid.by_engine  # type: ignore[union-attr]
        return
    for question in QUESTIONS:
        expected = fused([part(filled, encoder, name, question) for name in hybrid.names], weights_of(hybrid), fusion)
        result = filled.ask(hybrid, question)
        assert ("parts" in result.body) == (where == "client")
        check([(hit.id, hit.score) for hit in result.hits], expected)
        later = filled.ask(hybrid, question, start=3, size=4, matches=False, fields=False)
        assert [hit.id for hit in later.hits] == [hit.id for hit in result.hits][3:7]


@pytest.mark.parametrize("where", ["auto", "client"])
def test_a_filter_narrows_every_part(filled: Filled, encoder: DenseEncoder, where: Any) -> None:
    narrowed = {"ids": {"values": [str(number) for number in filled_ids(filled)[::2]]}}
    names = ["bm25", "dense"] if filled.dense else ["bm25"]
    hybrid = read_hybrid(",".join(names), depth=DEPTH, where=where)
    for question in QUESTIONS:
        rankings = [part(filled, encoder, name, question, narrowed) for name in hybrid.names]
        result = filled.ask(hybrid, question, filter=narrowed)
        check([(hit.id, hit.score) for hit in result.hits], fused(rankings, weights_of(hybrid), "linear"))


def filled_ids(filled: Filled) -> list[str]:
    body = {"size": 240, "_source": False, "query": {"match_all": {}}}
    return sorted(hit["_id"] for hit in filled.engine.search(filled.index, body)["hits"]["hits"])


def test_hits_come_with_their_documents_and_the_tokens_that_match(filled: Filled) -> None:
    hybrid = read_hybrid("dense" if filled.dense else "bm25", depth=DEPTH)
    result = filled.ask(hybrid, QUESTIONS[0])
    assert len(result.hits) == 10
    assert all(
        hit.source["text"] and "embedding" not in hit.source and "dense" not in hit.source for hit in result.hits
    )
    plain = {hit.id: hit.matches for hit in search(filled.engine, filled.index, filled.rewriter(), QUESTIONS[0]).hits}
    for hit in result.hits:
        if hit.id in plain:
            assert hit.matches == plain[hit.id]
    without = filled.ask(read_hybrid("sparse^0,bm25,dense", depth=DEPTH), QUESTIONS[0]) if filled.dense else None
    assert without is None or not any(hit.matches for hit in without.hits)


def test_a_question_without_tokens_is_asked_of_the_dense_part_alone(filled: Filled) -> None:
    result = filled.ask(read_hybrid("bm25,dense" if filled.dense else "bm25", depth=DEPTH), "?!?")
    assert result.query.sparse is not None
    assert not result.query.sparse
    assert len(result.hits) == (10 if filled.dense else 0)
    assert not any(hit.matches for hit in result.hits)
    assert all(hit.source["text"] for hit in result.hits)


def test_a_pipeline_of_the_cluster_fuses_by_its_name(filled: Filled) -> None:
    name = f"{filled.index}-own"
    if filled.engine.product != "opensearch":
        with pytest.raises(UnsupportedByEngine, match="has no search pipelines"):
            filled.rewriter(read_hybrid("bm25", pipeline=name))
        return
    with pytest.raises(RequestRejected, match=f"Pipeline {name} is not defined"):
        filled.ask(read_hybrid("bm25", pipeline=name), QUESTIONS[0])
    how = {"technique": "arithmetic_mean", "parameters": {"weights": [0.9, 0.1]}}
    processor = {"normalization-processor": {"normalization": {"technique": "min_max"}, "combination": how}}
    filled.engine.put_search_pipeline(name, {"phase_results_processors": [processor]})
    try:
        there = filled.ask(read_hybrid("bm25", pipeline=name, depth=DEPTH), QUESTIONS[0])
    finally:
        filled.engine.request("DELETE", f"/_search/pipeline/{name}")
    sent = filled.ask(read_hybrid("sparse^9,bm25", depth=DEPTH), QUESTIONS[0])
    assert [(hit.id, hit.score) for hit in there.hits] == [(hit.id, hit.score) for hit in sent.hits]


def test_another_dense_encoder_is_refused(filled: Filled, tmp_path: Path) -> None:
    if filled.dense is None:
        pytest.skip("this engine has no dense vectors")
    other = str(word_bert(tmp_path / "other", ["bread"]))
    with pytest.raises(ModelMismatch, match="holds dense vectors of"):
        replace(filled, dense=other).rewriter("dense")
