"""Scores: what the engine answers is the dot product of the encoder's own vectors, on all of SciFact.

The vectors come from the encoder and the original texts, not from what the engine stored. The one
thing taken for granted is that the engine keeps a weight's float32 with its low 15 bits cleared.

Ties: two hits may change places, or one stand for the other at the cut, only where their scores are
equal within the tolerance. Everywhere else it must be the same document in the same place.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bridge.encode import Encoder, load_encoder
from bridge.engines import Engine
from bridge.fit import fit
from bridge.ingest import IngestOptions, ingest
from bridge.records import SparseVector
from bridge.rewrite import QueryRewriter
from bridge.sources import open_source

RELATIVE = 1e-6
SIZE = 10
DIALECTS = ("neural_sparse", "rank_feature")

Hits = list[tuple[str, float]]
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SciFact:
    """The ingested corpus and its judged queries."""

    encoder: Encoder
    texts: dict[str, str]
    queries: list[str]
    scores: list[Scores]
    """For each query the score of every document, in the order of `texts`, made without the engine."""
    answers: dict[str, list[Hits]]
    """Dialect ─▶ for each query the engine's top 10."""

    def score(self, query: int, name: str) -> float:
        return float(self.scores[query][self.place[name]])

    @property
    def place(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.texts)}


@pytest.fixture(scope="module")
def scifact(
    module_engine: Engine,
    module_index: str,
    module_home: None,
    tmp_path_factory: pytest.TempPathFactory,
    shared: Path,
) -> SciFact:
    folder = tmp_path_factory.mktemp("scifact")
    corpus = shared / "corpora" / "scifact"
    texts = read_corpus(corpus / "corpus.jsonl.gz")
    queries = judged_queries(corpus)
    fit(texts.values(), folder / "model")
    with open_source([str(corpus)]) as source:
        options = IngestOptions(model=str(folder / "model"), dead_letter=folder / "dead.jsonl")
        summary = ingest(module_engine, module_index, source, options)
    assert (summary.source, summary.indexed, summary.dead) == (len(texts), len(texts), 0)
    encoder = load_encoder(folder / "model")
    return SciFact(
        encoder,
        texts,
        queries,
        scores=brute_force(encoder, list(texts.values()), queries),
        answers={dialect: ask(module_engine, module_index, dialect, queries) for dialect in DIALECTS},
    )


def read_corpus(path: Path) -> dict[str, str]:
    """id ─▶ title and text, read without the bridge."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {r["_id"]: "\n".join(part for part in (r["title"], r["text"]) if part.strip()) for r in records}


def judged_queries(corpus: Path) -> list[str]:
    judged = {line.split("\t")[0] for line in (corpus / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]}
    records = map(json.loads, (corpus / "queries.jsonl").read_text("utf-8").splitlines())
    return [record["text"] for record in records if record["_id"] in judged]


def cleared(weight: float) -> float:
    """A float32 with its low 15 bits cleared: what a `rank_features` field keeps."""
    return float((np.array([weight], np.float32).view(np.uint32) >> 15 << 15).view(np.float32)[0])


def brute_force(encoder: Encoder, texts: list[str], queries: list[str]) -> list[Scores]:
    postings: dict[str, list[tuple[int, float]]] = {}
    for i, vector in enumerate(encoder.encode_document(texts)):
        for token, weight in pairs(vector):
            postings.setdefault(token, []).append((i, cleared(weight)))
    scores = []
    for vector in encoder.encode_query(queries):
        total = np.zeros(len(texts))
        for token, weight in pairs(vector):
            for i, document_weight in postings.get(token, ()):
                total[i] += weight * document_weight
        scores.append(total)
    return scores


def pairs(vector: SparseVector) -> list[tuple[str, float]]:
    return list(zip(vector.tokens, vector.weights.tolist(), strict=True))


def ask(engine: Engine, index: str, dialect: str, queries: list[str]) -> list[Hits]:
    rewriter = QueryRewriter.for_index(engine, index, dialect=dialect)
    bodies = [rewriter.rewrite(query, size=SIZE) for query in queries]
    assert all(dialect in json.dumps(body) for body in bodies)
    found = [engine.search(index, {**body, "_source": False})["hits"]["hits"] for body in bodies]
    return [[(hit["_id"], hit["_score"]) for hit in hits] for hits in found]


def same(scores: list[float]) -> object:
    return pytest.approx(scores, rel=RELATIVE, abs=0)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_of_the_300_judged_queries_finds_ten_documents(scifact: SciFact, dialect: str) -> None:
    assert [len(hits) for hits in scifact.answers[dialect]] == [SIZE] * 300


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_score_is_the_dot_product_of_the_encoders_vectors(scifact: SciFact, dialect: str) -> None:
    place = scifact.place
    for scores, hits in zip(scifact.scores, scifact.answers[dialect], strict=True):
        assert [score for _, score in hits] == same([scores[place[name]] for name, _ in hits])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_document_is_missed_that_scores_higher(scifact: SciFact, dialect: str) -> None:
    for scores, hits in zip(scifact.scores, scifact.answers[dialect], strict=True):
        assert [score for _, score in hits] == same(np.sort(scores)[::-1][:SIZE].tolist())


def test_both_dialects_give_the_same_scores(scifact: SciFact) -> None:
    for left, right in zip(*scifact.answers.values(), strict=True):
        assert [score for _, score in left] == same([score for _, score in right])


def test_both_dialects_rank_alike_but_for_equal_scores(scifact: SciFact) -> None:
    for query, (left, right) in enumerate(zip(*scifact.answers.values(), strict=True)):
        for (one, _), (other, _) in zip(left, right, strict=True):
            assert one == other or [scifact.score(query, one)] == same([scifact.score(query, other)])


def test_the_tolerance_is_tight_enough_to_see_the_cleared_bits(scifact: SciFact) -> None:
    name, score = scifact.answers["neural_sparse"][0][0]
    document = dict(pairs(scifact.encoder.encode_document([scifact.texts[name]])[0]))
    query = pairs(scifact.encoder.encode_query([scifact.queries[0]])[0])
    in_full = sum(weight * document.get(token, 0.0) for token, weight in query)
    assert [score] != same([in_full])


def test_one_request_answers_as_each_question_alone(scifact: SciFact, module_engine: Engine, module_index: str) -> None:
    rewriter = QueryRewriter.for_index(module_engine, module_index, dialect="neural_sparse")
    body = rewriter.msearch(module_index, scifact.queries[:20], size=SIZE)
    answers = module_engine.request("POST", "/_msearch", body=body, ndjson=True)["responses"]
    found = [[(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]] for answer in answers]
    assert found == scifact.answers["neural_sparse"][:20]


def test_pages_follow_each_other_and_the_lowest_score_cuts(
    scifact: SciFact, module_engine: Engine, module_index: str
) -> None:
    rewriter = QueryRewriter.for_index(module_engine, module_index, dialect="neural_sparse")
    whole = scifact.answers["neural_sparse"][0]

    def ask(**how: int | float) -> Hits:
        found = module_engine.search(module_index, rewriter.rewrite(scifact.queries[0], **how))  # type: ignore[arg-type]
        return [(hit["_id"], hit["_score"]) for hit in found["hits"]["hits"]]

    assert ask(size=4) + ask(size=6, start=4) == whole
    assert ask(size=SIZE, min_score=whole[4][1]) == whole[:5]
