"""Passages on the real engines: a document's score is that of its best passage, nested or collapsed.

Scores are compared with dot products of the encoder's own vectors of each slice, made without the engine.
"""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import register
from bridge.encode import Encoder, load_encoder
from bridge.encode.load import ModelOrigin
from bridge.engines import Engine, open_engine
from bridge.errors import UsageError
from bridge.fit import fit
from bridge.indexmodel import IndexModel
from bridge.modelstore import save_model
from bridge.prune import Pruning
from bridge.records import Hit, TokenScore
from bridge.rewrite import QueryRewriter
from bridge.search import sample_vectors, search
from bridge.settings import EngineSettings
from bridge.sources import text_of
from bridge.tokens import Kind, dot, field_value
from tests.nodes import running_node
from tests.vectors import stored

NODES = ("opensearch-3.6.0", "opensearch-2.19.1", "elasticsearch-7.17.29", "elasticsearch-9.2.0")
DIALECTS = {
    "opensearch-3.6.0": ("neural_sparse", "rank_feature"),
    "opensearch-2.19.1": ("neural_sparse", "rank_feature"),
    "elasticsearch-7.17.29": ("rank_feature",),
    "elasticsearch-9.2.0": ("sparse_vector",),
}
CORPUS = Path(register.__file__).parent / "demo_data" / "corpus.jsonl"
QUESTIONS = (
    "why does my bread turn out heavy and dense",
    "what causes two high tides in a day?",
    "when should fruit trees be pruned",
    "how does the moon keep its face to the earth",
)
TEXT_FIELDS = ("title", "text")
RELATIVE = 1e-6
SIZE = 20

pytestmark = [
    pytest.mark.node,
    # A test node without security says so in a header of every answer, which the client turns into a warning.
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]


@dataclass(frozen=True)
class Long:
    """A long document, and where each of its passages stands in the text that is encoded."""

    id: str
    source: dict[str, Any]
    passages: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        return text_of(self.source, TEXT_FIELDS)


@dataclass(frozen=True)
class Library:
    """An index with the documents' passages, nested, and one with a document for each passage."""

    engine: Engine
    nested: str
    flat: str
    encoder: Encoder
    kind: Kind
    weights: dict[str, list[dict[str, float]]]
    """Document ─▶ for each passage its vector as the engine keeps it."""

    def scores(self, question: str) -> dict[str, list[float]]:
        asked = self.encoder.encode_query([question])[0].as_dict()
        return {name: [dot(asked, passage) for passage in passages] for name, passages in self.weights.items()}


def long_documents() -> dict[str, Long]:
    """Five short ones of a subject as one, its sentences as passages."""
    rows = [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()]
    found = {}
    for subject, members in itertools.groupby(sorted(rows, key=lambda row: row["subject"]), lambda row: row["subject"]):
        listed = list(members)
        for start in range(0, len(listed), 5):
            part = listed[start : start + 5]
            source = {"title": part[0]["title"], "text": " ".join(row["text"] for row in part), "subject": subject}
            text = text_of(source, TEXT_FIELDS)
            ends = [match.end() for match in re.finditer(r"[.;] |\n|$", text)]
            spans = tuple((a, b) for a, b in itertools.pairwise([0, *ends]) if a < b)
            name = f"{subject}-{start}"
            found[name] = Long(name, source, spans)
    return found


DOCUMENTS = long_documents()


@pytest.fixture(scope="module", params=NODES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def connected(name: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    if name == "opensearch-3.6.0":
        with open_engine(settings=EngineSettings(url=request.getfixturevalue("opensearch_url"))) as engine:
            yield engine
    else:
        with running_node(name) as url, open_engine(settings=EngineSettings(url=url)) as engine:
            yield engine


@pytest.fixture(scope="module")
def own_home(connected: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Like `module_home`, for as long as one engine is connected to: the next node comes from the real cache."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRIDGE_CACHE_DIR", str(folder / "cache"))
        yield


@pytest.fixture(scope="module")
def library(connected: Engine, own_home: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("model") / "demo"
    fit([document.text for document in DOCUMENTS.values()], folder)
    encoder = load_encoder(folder)
    save_model(connected, encoder, ModelOrigin(str(folder)))
    kind = register.default_kind(connected.info())
    name = f"test-{uuid.uuid4().hex[:12]}"
    library = Library(connected, f"{name}-nested", f"{name}-flat", encoder, kind, {})
    make(library)
    fill(library)
    yield library
    connected.delete_index(library.nested)
    connected.delete_index(library.flat)


def make(library: Library) -> None:
    encoder = library.encoder
    model = IndexModel(
        space=encoder.space,
        document_encoder=encoder.fingerprint,
        query_encoders=(encoder.query_fingerprint,),
        kind=library.kind,
        field="embedding",
        text_fields=TEXT_FIELDS,
    )
    offset = {"type": "integer", "index": False, "doc_values": False}
    vector = {"embedding": {"type": library.kind}}
    keywords = {"subject": {"type": "keyword"}, "document": {"type": "keyword"}}
    nested = {"type": "nested", "properties": {"start": offset, "end": offset, **vector}}
    for index, fields, meta in (
        (library.nested, {"passages": nested}, replace(model, passages="nested", passage_field="passages")),
        (library.flat, vector, model),
    ):
        mappings = {"_meta": {"bridge": meta.as_meta()}, "properties": {**fields, **keywords}}
        library.engine.create_index(index, {"settings": {"number_of_shards": 2}, "mappings": mappings})


def fill(library: Library) -> None:
    lines: dict[str, list[dict[str, Any]]] = {library.nested: [], library.flat: []}
    for document in DOCUMENTS.values():
        slices = [document.text[start:end] for start, end in document.passages]
        vectors = library.encoder.encode_document(slices)
        values = [field_value(vector, library.kind, library.engine.product) for vector in vectors]
        library.weights[document.id] = [stored(vector) for vector in vectors]
        passages = [
            {"start": start, "end": end, "embedding": value}
            for (start, end), value in zip(document.passages, values, strict=True)
        ]
        lines[library.nested] += [{"index": {"_id": document.id}}, {**document.source, "passages": passages}]
        for i, (text, value) in enumerate(zip(slices, values, strict=True)):
            own = {"text": text, "subject": document.source["subject"], "document": document.id, "embedding": value}
            lines[library.flat] += [{"index": {"_id": f"{document.id}/{i}"}}, own]
    for index, actions in lines.items():
        body = "".join(json.dumps(action) + "\n" for action in actions).encode()
        assert not [item for item in library.engine.bulk(index, body, refresh=True) if "error" in item["index"]]


def check_explained(matches: list[TokenScore], score: float) -> None:
    assert sum(match.contribution for match in matches) == pytest.approx(score, rel=RELATIVE)


def check_best(hits: tuple[Hit, ...], best: dict[str, float]) -> None:
    """The hits are the documents with the greatest scores, in order but for ties."""
    assert hits
    expected = sorted((score for score in best.values() if score), reverse=True)[:SIZE]
    assert [hit.score for hit in hits] == pytest.approx(expected, rel=RELATIVE)


def test_the_corpus_has_documents_of_several_passages() -> None:
    assert len(DOCUMENTS) == 48
    assert all(len(document.passages) > 5 for document in DOCUMENTS.values())
    for document in DOCUMENTS.values():
        assert "".join(document.text[start:end] for start, end in document.passages) == document.text


# --- nested -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_score_is_the_greatest_dot_product_of_the_passages(library: Library, name: str, question: str) -> None:
    scores = library.scores(question)
    for dialect in DIALECTS[name]:
        rewriter = QueryRewriter.for_index(library.engine, library.nested, dialect=dialect)
        assert (rewriter.field, rewriter.nested_path) == ("passages.embedding", "passages")
        hits = search(library.engine, library.nested, rewriter, question, size=SIZE).hits
        check_best(hits, {document: max(found) for document, found in scores.items()})
        for hit in hits:
            assert hit.score == pytest.approx(max(scores[hit.id]), rel=RELATIVE)


def test_a_hit_shows_its_best_passage_and_the_tokens_of_that(library: Library) -> None:
    rewriter = QueryRewriter.for_index(library.engine, library.nested)
    for question in QUESTIONS:
        scores = library.scores(question)
        hits = search(library.engine, library.nested, rewriter, question, size=SIZE).hits
        for hit in hits:
            document = DOCUMENTS[hit.id]
            (passage,) = hit.passages
            assert passage.start is not None
            place = [start for start, _ in document.passages].index(passage.start)
            assert (passage.start, passage.end) == document.passages[place]
            assert passage.text == document.text[passage.start : passage.end]
            assert scores[hit.id][place] == pytest.approx(max(scores[hit.id]), rel=RELATIVE)
            assert passage.score == pytest.approx(hit.score, rel=RELATIVE)
            check_explained(list(hit.matches), hit.score)
            assert hit.matches == passage.matches
            assert hit.source == document.source


def test_as_many_passages_as_are_wanted_come_best_first(library: Library) -> None:
    rewriter = QueryRewriter.for_index(library.engine, library.nested)
    hits = search(library.engine, library.nested, rewriter, QUESTIONS[3], size=3, passages=4).hits
    assert max(len(hit.passages) for hit in hits) > 2
    for hit in hits:
        matching = sorted((score for score in library.scores(QUESTIONS[3])[hit.id] if score), reverse=True)
        assert [passage.score for passage in hit.passages] == pytest.approx(matching[:4], rel=RELATIVE)
        for passage in hit.passages:
            check_explained(list(passage.matches), passage.score)


def test_what_is_not_asked_for_does_not_come(library: Library) -> None:
    rewriter = QueryRewriter.for_index(library.engine, library.nested)
    (hit,) = search(library.engine, library.nested, rewriter, QUESTIONS[0], size=1, matches=False).hits
    assert (hit.matches, hit.passages) == ((), ())
    assert hit.source == DOCUMENTS[hit.id].source
    (hit,) = search(library.engine, library.nested, rewriter, QUESTIONS[0], size=1, fields=False).hits
    assert hit.source == {}
    assert [passage.text for passage in hit.passages] == [None]
    check_explained(list(hit.matches), hit.score)
    (hit,) = search(
        library.engine, library.nested, rewriter, QUESTIONS[3], size=1, matches=False, fields=False, passages=2
    ).hits
    assert [(passage.text, passage.matches) for passage in hit.passages] == [(None, ()), (None, ())]


def test_a_filter_changes_no_score(library: Library) -> None:
    rewriter = QueryRewriter.for_index(library.engine, library.nested)
    everything = search(library.engine, library.nested, rewriter, QUESTIONS[1], size=48).hits
    subject = everything[-1].source["subject"]
    only = search(
        library.engine, library.nested, rewriter, QUESTIONS[1], size=48, filter={"term": {"subject": subject}}
    ).hits
    wanted = [(hit.id, hit.score) for hit in everything if hit.source["subject"] == subject]
    assert 0 < len(wanted) < len(everything)
    assert {hit.id: hit.score for hit in only} == pytest.approx(dict(wanted), rel=RELATIVE)
    assert all(hit.passages for hit in only)


def test_a_body_made_without_the_cluster_is_the_same(library: Library, name: str, tmp_path: Path) -> None:
    asked = QueryRewriter.for_index(library.engine, library.nested)
    product, _, version = name.partition("-")
    alone = QueryRewriter.load(
        library.encoder.fingerprint, engine=product, version=version, kind=library.kind, nested_path="passages"
    )
    for passages in (0, 3):
        body = alone.rewrite(QUESTIONS[0], passages=passages)
        assert body == asked.rewrite(QUESTIONS[0], passages=passages)
        hits = library.engine.search(library.nested, body)["hits"]["hits"]
        assert all(set(hit["_source"]) == {"title", "text", "subject"} for hit in hits)
        for hit in hits:
            inner = hit["inner_hits"]["passages"]["hits"]["hits"] if passages else []
            assert all(set(one["_source"]) == {"start", "end"} for one in inner)


def test_pruned_queries_score_what_is_left_of_them(library: Library) -> None:
    rewriter = QueryRewriter.for_index(library.engine, library.nested, pruning=Pruning(top_k=2))
    result = search(library.engine, library.nested, rewriter, QUESTIONS[0], size=SIZE)
    assert result.query.sparse
    assert (len(result.query.sparse), result.query.pruned) == (2, 3)
    left = result.query.sparse.as_dict()
    best = {name: max(dot(left, one) for one in passages) for name, passages in library.weights.items()}
    check_best(result.hits, best)


def test_each_passage_is_a_sample(library: Library) -> None:
    rewriter = QueryRewriter.for_index(library.engine, library.nested)
    expected = [passage for passages in library.weights.values() for passage in passages]
    assert comparable(sample_vectors(library.engine, library.nested, rewriter)) == comparable(expected)


def comparable(vectors: Iterable[dict[str, float]]) -> list[list[tuple[str, np.float32]]]:
    """In one order, and as float32: engines write as few digits as tell one from the next."""
    return sorted(sorted((token, np.float32(weight)) for token, weight in vector.items()) for vector in vectors)


# --- one document a passage -------------------------------------------------------------------------


@pytest.mark.parametrize("question", QUESTIONS)
def test_collapsed_hits_are_the_best_passage_of_each_document(library: Library, name: str, question: str) -> None:
    scores = library.scores(question)
    for dialect in DIALECTS[name]:
        rewriter = QueryRewriter.for_index(library.engine, library.flat, dialect=dialect)
        hits = search(library.engine, library.flat, rewriter, question, size=SIZE, collapse="document").hits
        documents = [hit.source["document"] for hit in hits]
        assert len(set(documents)) == len(documents)
        check_best(hits, {document: max(found) for document, found in scores.items()})
        for hit in hits:
            assert hit.score == pytest.approx(max(scores[hit.source["document"]]), rel=RELATIVE)
            check_explained(list(hit.matches), hit.score)
            assert hit.passages == ()


def test_a_collapsed_hit_may_bring_its_other_passages(library: Library) -> None:
    rewriter = QueryRewriter.for_index(library.engine, library.flat)
    scores = library.scores(QUESTIONS[3])
    hits = search(library.engine, library.flat, rewriter, QUESTIONS[3], size=3, collapse="document", passages=3).hits
    assert max(len(hit.passages) for hit in hits) > 2
    for hit in hits:
        matching = sorted((score for score in scores[hit.source["document"]] if score), reverse=True)
        assert [passage.score for passage in hit.passages] == pytest.approx(matching[:3], rel=RELATIVE)
        for passage in hit.passages:
            document, _, place = (passage.id or "").rpartition("/")
            start, end = DOCUMENTS[document].passages[int(place)]
            assert passage.text == DOCUMENTS[document].text[start:end]
            check_explained(list(passage.matches), passage.score)


def test_a_collapsed_body_brings_no_vectors(library: Library) -> None:
    rewriter = QueryRewriter.for_index(library.engine, library.flat)
    body = rewriter.rewrite(QUESTIONS[0], collapse="document", passages=2, filter={"term": {"subject": "cooking"}})
    hits = library.engine.search(library.flat, body)["hits"]["hits"]
    assert hits
    for hit in hits:
        inner = hit["inner_hits"]["passages"]["hits"]["hits"]
        assert all(set(one["_source"]) == {"text", "subject", "document"} for one in [hit, *inner])


def test_passages_of_an_index_without_any_are_refused(library: Library) -> None:
    rewriter = QueryRewriter.for_index(library.engine, library.flat)
    with pytest.raises(UsageError, match="keeps no passages"):
        rewriter.rewrite(QUESTIONS[0], passages=1)
    with pytest.raises(UsageError, match="up to 100"):
        QueryRewriter.for_index(library.engine, library.nested).rewrite(QUESTIONS[0], passages=101)
