"""The same flows on the other real engines: OpenSearch 2.19, Elasticsearch 7.17 and 9.2.

The 9.2 node is put together from the server's own jars, which lack the parser of the `sparse_vector` query; that
parser is ours (tests/nodes/java), over the server's own classes. The field, its storage and the scores are its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import register
from bridge.encode import load_encoder
from bridge.encode.lexical import LexicalEncoder
from bridge.engines import Engine, open_engine
from bridge.errors import ModelMismatch, UnsupportedByEngine
from bridge.fit import fit
from bridge.ingest import IngestOptions, ingest, texts_of
from bridge.records import TEXT_FIELDS, Doc
from bridge.rewrite import QueryRewriter
from bridge.search import sample_vectors, search
from bridge.settings import EngineSettings
from bridge.sources import open_source, text_of
from bridge.tokens import dot
from tests.nodes import running_node
from tests.vectors import stored

NODES = ("opensearch-2.19.1", "elasticsearch-7.17.29", "elasticsearch-9.2.0")
EXPECTED_KIND = {
    "opensearch-2.19.1": "rank_features",
    "elasticsearch-7.17.29": "rank_features",
    "elasticsearch-9.2.0": "sparse_vector",
}
EXPECTED_DIALECTS = {
    "opensearch-2.19.1": ("neural_sparse", "rank_feature"),
    "elasticsearch-7.17.29": ("rank_feature",),
    "elasticsearch-9.2.0": ("sparse_vector",),
}
CORPUS = str(Path(register.__file__).parent / "demo_data")
QUESTIONS = ("why does my bread turn out heavy and dense", "what causes two high tides in a day?", "pruning roses")

pytestmark = [
    pytest.mark.node,
    # A test node without security says so in a header of every answer, which the client turns into a warning.
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]


@pytest.fixture(scope="module", params=NODES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def other(name: str) -> Iterator[Engine]:
    with running_node(name) as url, open_engine(settings=EngineSettings(url=url)) as engine:
        yield engine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "demo"
    with open_source([CORPUS]) as source:
        fit(texts_of(source, TEXT_FIELDS, lambda progress: None), folder)
    return folder


@pytest.fixture
def other_index(other: Engine) -> Iterator[str]:
    index = f"test-{uuid.uuid4().hex[:12]}"
    yield index
    if other.get_index(index):
        other.delete_index(index)


def load(engine: Engine, index: str, model: Path, folder: Path) -> None:
    options = IngestOptions(model=str(model), dead_letter=folder / "dead.jsonl")
    with open_source([CORPUS]) as source:
        summary = ingest(engine, index, source, options)
    assert (summary.indexed, summary.dead) == (240, 0)


def test_product_and_version_are_found_out(other: Engine, name: str) -> None:
    product, _, version = name.partition("-")
    assert (other.info().product, other.info().number) == (product, version)


def test_scores_equal_the_local_dot_product(
    other: Engine, other_index: str, name: str, model: Path, tmp_path: Path
) -> None:
    load(other, other_index, model, tmp_path)
    encoder = load_encoder(model)
    with open_source([CORPUS]) as source:
        documents = [item for item in source.read() if isinstance(item, Doc)]
    vectors = encoder.encode_document([text_of(document.source, TEXT_FIELDS) for document in documents])
    weights_of = {document.id: stored(vector) for document, vector in zip(documents, vectors, strict=True)}
    for dialect in EXPECTED_DIALECTS[name]:
        rewriter = QueryRewriter.for_index(other, other_index, dialect=dialect)
        assert rewriter.kind == EXPECTED_KIND[name]
        for question in QUESTIONS:
            result = search(other, other_index, rewriter, question, size=10)
            weights = encoder.encode_query([question])[0].as_dict()
            best = sorted((dot(weights, vector) for vector in weights_of.values()), reverse=True)[:10]
            assert [hit.score for hit in result.hits] == pytest.approx([score for score in best if score], rel=1e-6)
            for hit in result.hits:
                assert hit.score == pytest.approx(dot(weights, weights_of[hit.id]), rel=1e-6)
                assert sum(match.contribution for match in hit.matches) == pytest.approx(hit.score, rel=1e-6)


def test_a_second_load_changes_nothing(other: Engine, other_index: str, model: Path, tmp_path: Path) -> None:
    load(other, other_index, model, tmp_path)
    with open_source([CORPUS]) as source:
        again = ingest(other, other_index, source, IngestOptions(dead_letter=tmp_path / "dead.jsonl"))
    assert (again.unchanged, again.indexed) == (240, 0)


def test_registering_is_idempotent_and_guards(other: Engine, other_index: str, model: Path, tmp_path: Path) -> None:
    encoder = load_encoder(model)
    planned = register.plan(other, other_index, encoder)
    register.apply(other, planned)
    assert planned.steps
    assert register.plan(other, other_index, encoder).steps == []
    with pytest.raises(ModelMismatch, match="belongs to model"):
        register.plan(other, other_index, fit(["another corpus"], tmp_path / "other"))


def test_dotted_tokens_are_addressed(other: Engine, other_index: str, model: Path, tmp_path: Path) -> None:
    tokens = {".": 1.5, "...": 2.5, "##.": 3.5, "plain": 0.5, "‥․": 4.5}
    encoder = load_encoder(model)
    assert isinstance(encoder, LexicalEncoder)
    register.apply(other, register.plan(other, other_index, encoder))
    rewriter = QueryRewriter.for_index(other, other_index, model=str(model))
    from bridge.bulk import BulkSender
    from bridge.records import EncodedDoc, EncodedQuery, Position
    from bridge.tokens import field_value
    from tests.vectors import vector_of

    def body(document: EncodedDoc) -> dict[str, object]:
        assert document.sparse is not None
        return {rewriter.field: field_value(document.sparse, rewriter.kind, other.product)}

    documents = [
        EncodedDoc(str(i), {}, Position("x", i), "", vector_of({token: weight}))
        for i, (token, weight) in enumerate(tokens.items())
    ]
    outcomes = list(BulkSender(lambda lines: other.bulk(other_index, lines), body, lambda ids: {}).run(documents))
    assert [outcome.result for outcome in outcomes] == ["indexed"] * len(tokens), outcomes
    other.refresh(other_index)
    for i, (token, weight) in enumerate(tokens.items()):
        asked = rewriter.body(EncodedQuery(token, vector_of({token: 2.0})))
        hits = other.search(other_index, asked)["hits"]["hits"]
        assert [(hit["_id"], hit["_score"]) for hit in hits] == [(str(i), 2 * weight)]


def test_stored_vectors_can_be_sampled(other: Engine, other_index: str, model: Path, tmp_path: Path) -> None:
    load(other, other_index, model, tmp_path)
    rewriter = QueryRewriter.for_index(other, other_index)
    sample = list(sample_vectors(other, other_index, rewriter, size=50))
    assert len(sample) == 50
    assert all(sample)


def test_what_a_version_lacks_is_refused(other: Engine, other_index: str, name: str, model: Path) -> None:
    refused = {
        "opensearch-2.19.1": register.RegisterOptions(kind="sparse_vector"),
        "elasticsearch-7.17.29": register.RegisterOptions(kind="sparse_vector"),
        "elasticsearch-9.2.0": register.RegisterOptions(two_phase=True),
    }[name]
    with pytest.raises(UnsupportedByEngine):
        register.plan(other, other_index, load_encoder(model), refused)
    assert other.get_index(other_index) is None
