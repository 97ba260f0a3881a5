"""Every dialect, in every form, on every engine that speaks it: accepted, exact, and ranked as the scores say.

The expected scores are made without the engine, of the encoder's own vectors: the sum of query weight × stored weight,
where a stored weight is a float32 with its low 15 bits cleared. SEISMIC is approximate: here it is only asked.

Elasticsearch's 9.2 node has no `rank_features` field (its jar is not to be had) and a parser of ours for the
`sparse_vector` query, over the server's own classes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from bridge import register
from bridge.encode import Encoder
from bridge.engines import Engine
from bridge.errors import UsageError
from bridge.fit import fit
from bridge.prune import Pruning
from bridge.records import Doc, SparseVector
from bridge.rewrite import Explain, QueryRewriter
from bridge.search import search
from bridge.sources import open_source, text_of
from bridge.tokens import Kind, dot, field_value
from bridge.twophase import TwoPhase
from tests.vectors import stored

CORPUS = str(Path(register.__file__).parent / "demo_data")
QUESTIONS = (
    "why does my bread turn out heavy and dense",
    "what causes two high tides in a day?",
    "when should fruit trees be pruned",
    "how does the moon keep its face to the earth",
    "J.R.R. Tolkien's e.g. dotted words, and u.s. ones",
)
FORMS = ("plain", "filter", "pruned", "two phases", "several fields", "nested passages", "msearch")
PHASES = TwoPhase(prune_ratio=0.6, expansion_rate=5)
"""A window that holds every document: all that share a heavy token with the query have their whole score."""

RELATIVE = 1e-6
SIZE = 50

pytestmark = [
    pytest.mark.node,
    # A test node without security says so in a header of every answer, which the client turns into a warning.
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]


@dataclass(frozen=True)
class Row:
    """A dialect, on the engines that speak it; `version` where it is that of an older engine."""

    dialect: str
    kind: Kind
    engines: tuple[str, ...]
    version: tuple[int, ...] | None = None
    exact: bool = True


ELASTICSEARCH = ("elasticsearch-8.19.0", "elasticsearch-9.2.0")
ROWS = {
    "neural_sparse": Row("neural_sparse", "rank_features", ("opensearch-3.6.0", "opensearch-2.19.1")),
    "rank_feature": Row(
        "rank_feature", "rank_features", ("opensearch-3.6.0", "opensearch-2.19.1", "elasticsearch-7.17.29")
    ),
    "sparse_vector": Row("sparse_vector", "sparse_vector", ELASTICSEARCH),
    "bool of term": Row("sparse_vector", "sparse_vector", ELASTICSEARCH, version=(8, 14, 0)),
    "SEISMIC": Row("neural_sparse", "sparse_vector", ("opensearch-3.6.0",), exact=False),
}


@dataclass
class Held:
    """A document's vectors, by field, at the precision that an engine keeps; of `passages` there are several."""

    fields: dict[str, dict[str, float]]
    passages: list[dict[str, float]]
    even: bool


@dataclass
class Library:
    """An engine with the same documents in an index for each kind of field."""

    engine: Engine
    model: Path
    encoder: Encoder
    held: dict[str, Held]
    indices: dict[Kind, str] = field(default_factory=dict)

    def index(self, kind: Kind) -> str:
        if kind not in self.indices:
            self.indices[kind] = f"test-{uuid.uuid4().hex[:12]}"
            self._load(self.indices[kind], kind)
        return self.indices[kind]

    def _load(self, index: str, kind: Kind) -> None:
        vector: dict[str, Any] = {"type": kind}
        settings: dict[str, Any] = {"number_of_shards": 1, "number_of_replicas": 0}
        if kind == "sparse_vector" and self.engine.product == "opensearch":
            settings["index.sparse"] = True
            vector["method"] = {"name": "seismic", "parameters": {"approximate_threshold": 1_000_000}}
        passages = {"type": "nested", "properties": {"start": {"type": "integer"}, "embedding": vector}}
        properties = {"title_embedding": vector, "embedding": vector, "passages": passages, "even": {"type": "boolean"}}
        self.engine.create_index(index, {"settings": settings, "mappings": {"properties": properties}})
        lines: list[bytes] = []
        for number, (name, source) in enumerate(self.documents()):
            body: dict[str, Any] = {path: self._value(one, kind) for path, one in source["vectors"].items()}
            body["passages"] = [{"start": 0, "embedding": self._value(one, kind)} for one in source["passages"]]
            lines += [
                msgspec.json.encode({"index": {"_id": name}}),
                msgspec.json.encode(body | {"even": number % 2 == 0}),
            ]
        answers = self.engine.bulk(index, b"\n".join(lines) + b"\n")
        assert {one["index"]["status"] for one in answers} == {201}, answers[:2]
        self.engine.refresh(index)

    def _value(self, vector: SparseVector, kind: Kind) -> dict[str, float]:
        return field_value(vector, kind, self.engine.product)

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        with open_source([CORPUS]) as source:
            documents = [item for item in source.read() if isinstance(item, Doc)]
        for document in documents:
            title, text = str(document.source["title"]), text_of(document.source, ["text"])
            whole, head, *cut = self.encoder.encode_document([text, title, *text.split(". ")])
            yield (
                str(document.id),
                {
                    "vectors": {"title_embedding": head, "embedding": whole},
                    "passages": [one for one in cut if one],
                },
            )

    def rewriter(self, row: Row, form: str) -> QueryRewriter:
        fields = {"several fields": ["title_embedding^2.5", "embedding"], "nested passages": ["passages.embedding"]}
        found = QueryRewriter.for_index(
            self.engine,
            self.index(row.kind),
            model=str(self.model),
            fields=fields.get(form, ["embedding"]),
            dialect=row.dialect,
            pruning=Pruning(max_ratio=0.6) if form == "pruned" else None,
            two_phase=PHASES if form == "two phases" and row.exact else None,
        )
        return replace(found, version=row.version) if row.version else found

    def scores(self, rewriter: QueryRewriter, question: str, form: str) -> dict[str, float]:
        """What each document that has any of the tokens is to score."""
        sparse = rewriter.encode(question).sparse
        assert sparse is not None
        weights = sparse.as_dict()
        heavy = (PHASES.part(sparse)[0] if form == "two phases" else sparse).as_dict()
        found: dict[str, float] = {}
        for name, held in self.held.items():
            if form == "filter" and not held.even:
                continue
            if form == "nested passages":
                score = max((dot(weights, one) for one in held.passages), default=0.0)
            elif form == "several fields":
                score = 2.5 * dot(weights, held.fields["title_embedding"]) + dot(weights, held.fields["embedding"])
            else:
                score = dot(weights, held.fields["embedding"])
            if score and (dot(heavy, held.fields["embedding"]) or form in ("several fields", "nested passages")):
                found[name] = score
        return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "demo"
    with open_source([CORPUS]) as source:
        texts = [text_of(item.source, ["title", "text"]) for item in source.read() if isinstance(item, Doc)]
    # Without stems, so that dotted abbreviations and identifiers are words of the model, too.
    fit([*texts, "J.R.R. e.g. u.s. dotted"], folder)
    return folder


@pytest.fixture(scope="module")
def library(any_engine: Engine, model: Path) -> Iterator[Library]:
    from bridge import load_encoder

    found = Library(any_engine, model, load_encoder(model), {})
    for number, (name, source) in enumerate(found.documents()):
        fields = {path: stored(one) for path, one in source["vectors"].items()}
        found.held[name] = Held(fields, [stored(one) for one in source["passages"]], number % 2 == 0)
    yield found
    for index in found.indices.values():
        any_engine.delete_index(index)


def row_of(name: str, engine: Engine) -> Row:
    """The row, or a test that is skipped where `engine` has no such query."""
    if f"{engine.product}-{engine.info().number}" not in ROWS[name].engines:
        pytest.skip("this engine has no such query")
    return ROWS[name]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ROWS)
def test_it_is_accepted_exact_and_ranked_as_the_scores_say(
    any_engine: Engine, library: Library, name: str, form: str
) -> None:
    row = row_of(name, any_engine)
    rewriter = library.rewriter(row, form)
    index = library.index(row.kind)
    if form == "two phases" and not row.exact:
        with pytest.raises(UsageError, match="approximately as it is"):
            replace(rewriter, two_phase=PHASES).rewrite(QUESTIONS[0])
        return
    how: dict[str, Any] = {"size": SIZE, "filter": {"term": {"even": True}} if form == "filter" else None}
    if form == "msearch":
        answer = any_engine.request("POST", "/_msearch", body=rewriter.msearch(index, QUESTIONS, **how), ndjson=True)
        answers = answer["responses"]
    else:
        answers = [any_engine.search(index, rewriter.rewrite(question, **how)) for question in QUESTIONS]
    assert len(answers) == len(QUESTIONS)
    asked = 0
    for question, answer in zip(QUESTIONS, answers, strict=True):
        hits = [(hit["_id"], hit["_score"]) for hit in answer["hits"]["hits"]]
        expected = library.scores(rewriter, question, form)
        assert bool(hits) == bool(expected), answer
        asked += len(hits)
        if row.exact:
            check(hits, expected)
        elif form == "filter":
            assert all(library.held[name].even for name, _ in hits)
    assert asked


def check(hits: list[tuple[str, float]], expected: Mapping[str, float]) -> None:
    """The best of `expected`, each with its score; the order among equals is free."""
    best = sorted(expected.values(), reverse=True)[:SIZE]
    assert [score for _, score in hits] == pytest.approx(best, rel=RELATIVE)
    for name, score in hits:
        assert score == pytest.approx(expected[name], rel=RELATIVE)


@pytest.mark.parametrize("by", get_args(Explain))
@pytest.mark.parametrize("form", ["plain", "several fields", "nested passages", "two phases"])
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.exact and not row.version])
def test_the_tokens_make_the_score(any_engine: Engine, library: Library, name: str, form: str, by: Explain) -> None:
    """As the stored vectors say, and as the engine does."""
    row = row_of(name, any_engine)
    rewriter, index = library.rewriter(row, form), library.index(row.kind)
    result = search(any_engine, index, rewriter, QUESTIONS[0], size=SIZE, explained_by=by)
    assert result.hits
    for hit in result.hits:
        assert sum(match.contribution for match in hit.matches) == pytest.approx(hit.score, rel=RELATIVE)
        assert not {"embedding", "title_embedding"} & set(hit.source)


@pytest.mark.parametrize("many", [None, 15, 300])
@pytest.mark.parametrize("fields", [["embedding"], ["embedding", "title_embedding^2"]], ids=["one", "two"])
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.exact])
def test_the_longest_query_is_taken_beside_a_filter(
    any_engine: Engine, library: Library, name: str, fields: list[str], many: int | None
) -> None:
    """On an index with nested fields, of which an engine makes a clause of its own."""
    row = row_of(name, any_engine)
    rewriter = QueryRewriter.for_index(
        any_engine, library.index(row.kind), model=str(library.model), fields=fields, dialect=row.dialect
    )
    rewriter = replace(rewriter, version=row.version) if row.version else rewriter
    text = " ".join(f"strange{i}" for i in range(3000)) + " bread"
    clauses = [{"term": {"even": True}}, *({"term": {"x": str(i)}} for i in range(many or 0))]
    body = rewriter.rewrite(text, filter={"bool": {"should": clauses}} if many else None)
    any_engine.search(library.index(row.kind), body)
