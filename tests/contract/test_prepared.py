"""Passages and pruning in real indexes: what is stored, what is remembered, what is refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import register
from bridge.encode import Encoder, load_encoder
from bridge.engines import Engine, open_engine
from bridge.errors import IndexConflict, UsageError
from bridge.fit import FitOptions, fit
from bridge.indexmodel import IndexModel
from bridge.ingest import IngestOptions, IngestSummary, ingest
from bridge.prepare import Preparation, Prepared, prepare
from bridge.prune import Pruning
from bridge.records import HASH_FIELD, SparseVector
from bridge.register import RegisterOptions
from bridge.settings import EngineSettings
from bridge.sources import open_source, text_of
from bridge.tokens import dot, field_value, store_precision
from bridge.vectorfile import read_meta
from tests.contract.test_ingest import Interrupted
from tests.nodes import running_node

Bridge = Callable[..., tuple[int, str, str]]
Record = dict[str, Any]

NODES = ("opensearch-3.6.0", "opensearch-2.19.1", "elasticsearch-7.17.29", "elasticsearch-9.2.0")
CORPUS = Path(register.__file__).parent / "demo_data" / "corpus.jsonl"
NESTED = RegisterOptions(passages="nested", passage_tokens=40, overlap=8, pruning=Pruning(top_k=12))
MERGED = RegisterOptions(passages="merge", passage_tokens=40, pruning=Pruning(max_ratio=0.7))

pytestmark = [
    pytest.mark.node,
    # A test node without security says so in a header of every answer, which the client turns into a warning.
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]


def long_documents() -> list[Record]:
    """Six short ones as one."""
    rows = [json.loads(line) for line in CORPUS.read_text("utf-8").splitlines()]
    return [
        {"_id": str(n), "title": rows[n]["title"], "text": " ".join(row["text"] for row in rows[n : n + 6])}
        for n in range(0, len(rows), 6)
    ]


DOCUMENTS = long_documents()
TEXTS = {document["_id"]: text_of(document, ("title", "text")) for document in DOCUMENTS}


@pytest.fixture(scope="module", params=NODES)
def connected(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "opensearch-3.6.0":
        with open_engine(settings=EngineSettings(url=request.getfixturevalue("opensearch_url"))) as engine:
            yield engine
    else:
        with running_node(request.param) as url, open_engine(settings=EngineSettings(url=url)) as engine:
            yield engine


@pytest.fixture
def place(connected: Engine) -> Iterator[str]:
    """A name for an index of `connected`."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    if connected.get_index(name):
        connected.delete_index(name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "demo"
    fit(TEXTS.values(), folder, FitOptions(language="en"))
    return folder


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A model whose tokens have ids that SEISMIC takes."""
    folder = tmp_path_factory.mktemp("model") / "pieces"
    fit(TEXTS.values(), folder, FitOptions(tokenizer=shared / "bert-uncased"))
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS), "utf-8")
    return path


def load(engine: Engine, index: str, corpus: Path, options: IngestOptions) -> IngestSummary:
    with open_source([str(corpus)]) as source:
        summary = ingest(engine, index, source, replace(options, dead_letter=corpus.with_suffix(".dead")))
    assert summary.dead == 0
    return summary


def sources(engine: Engine, index: str) -> dict[str, Record]:
    """Id ─▶ what is stored, vectors included."""
    body: Record = {"size": 1000, "query": {"match_all": {}}}
    if engine.product == "elasticsearch" and engine.info().version >= (9, 2, 0):
        body["_source"] = {"exclude_vectors": False}
    return {hit["_id"]: hit["_source"] for hit in engine.search(index, body)["hits"]["hits"]}


def expected(encoder: Encoder, preparation: Preparation) -> dict[str, Prepared]:
    found = prepare(encoder, list(TEXTS.values()), preparation)
    assert all(isinstance(one, Prepared) for one in found)
    return dict(zip(TEXTS, found, strict=True))  # type: ignore[arg-type]


def close(stored: Record, vector: SparseVector, model: IndexModel, engine: Engine) -> None:
    wanted = field_value(vector, model.kind, engine.product)
    assert stored == pytest.approx(wanted, rel=1e-6)


def best(engine: Engine, index: str, model: IndexModel, token: str) -> dict[str, float]:
    """Document ─▶ the heaviest weight of `token` among its passages, as the engine scores it."""
    if model.kind == "rank_features":
        inner: Record = {"rank_feature": {"field": f"{model.path}.{token}", "linear": {}}}
    else:
        inner = {"term": {model.path: {"value": token}}}
    body = {"nested": {"path": model.passage_field, "score_mode": "max", "query": inner}}
    found = engine.search(index, {"size": 1000, "query": body})
    return {hit["_id"]: hit["_score"] for hit in found["hits"]["hits"]}


# --- Every engine -------------------------------------------------------------------------------------------


def test_nested_passages_hold_the_vectors_of_their_slices(
    connected: Engine, place: str, model: Path, corpus: Path
) -> None:
    summary = load(connected, place, corpus, IngestOptions(model=str(model), register=NESTED))
    state = connected.require_index(place)
    described = IndexModel.of(state)
    assert described is not None
    assert (described.passages, described.passage_field, described.field) == ("nested", "passages", "embedding")
    assert described.path == "passages.embedding"
    assert described.preparation == Preparation("nested", 40, 8, Pruning(top_k=12))
    field = state.mappings["properties"]["passages"]
    assert field["type"] == "nested"
    assert set(field["properties"]) == {"start", "end", "embedding"}
    assert field["properties"]["embedding"]["type"] == described.kind

    wanted = expected(load_encoder(model), described.preparation)
    stored = sources(connected, place)
    for name, prepared in wanted.items():
        kept = stored[name]
        assert {"title", "text", "passages", HASH_FIELD} == set(kept)
        assert [(one["start"], one["end"]) for one in kept["passages"]] == [
            (passage.start, passage.end) for passage, _ in prepared.nested
        ]
        assert TEXTS[name] == text_of(kept, described.text_fields)
        for one, (passage, vector) in zip(kept["passages"], prepared.nested, strict=True):
            assert TEXTS[name][one["start"] : one["end"]] == passage.text
            close(one["embedding"], vector, described, connected)
            assert 1 <= len(vector) <= 12
    assert summary.passages == sum(prepared.passages for prepared in wanted.values()) > 2 * len(TEXTS)
    removed, documents = sum(prepared.removed for prepared in wanted.values()), len(TEXTS)
    assert summary.pruned_terms == pytest.approx(removed / documents, abs=0.01)
    assert summary.active_terms == pytest.approx(sum(one.terms for one in wanted.values()) / documents, abs=0.01)

    token = wanted["0"].nested[0][1].tokens[0]
    weights = {
        name: max(vector.as_dict().get(token, 0.0) for _, vector in prepared.nested)
        for name, prepared in wanted.items()
    }
    scores = best(connected, place, described, token)
    assert scores == pytest.approx({name: weight for name, weight in weights.items() if weight}, rel=0.005)


def test_merged_passages_are_one_vector(connected: Engine, place: str, model: Path, corpus: Path) -> None:
    summary = load(connected, place, corpus, IngestOptions(model=str(model), register=MERGED))
    described = IndexModel.of(connected.require_index(place))
    assert described is not None
    assert (described.passage_field, described.path) == (None, "embedding")
    wanted = expected(load_encoder(model), Preparation("merge", 40, 0, Pruning(max_ratio=0.7)))
    stored = sources(connected, place)
    for name, prepared in wanted.items():
        assert prepared.vector is not None
        close(stored[name]["embedding"], prepared.vector, described, connected)
    mass, gone = (sum(getattr(one, name) for one in wanted.values()) for name in ("mass", "removed_mass"))
    assert summary.pruned_mass == pytest.approx(gone / (mass + gone), abs=1e-5)
    assert 0 < summary.pruned_mass < 1


def test_an_index_remembers_how_its_vectors_were_made(connected: Engine, place: str, model: Path, corpus: Path) -> None:
    load(connected, place, corpus, IngestOptions(model=str(model), register=NESTED))
    before = sources(connected, place)
    again = load(connected, place, corpus, IngestOptions())
    assert (again.indexed, again.unchanged) == (0, len(DOCUMENTS))
    # What is named and the same is no other setting.
    load(connected, place, corpus, IngestOptions(register=RegisterOptions(passages="nested", overlap=8)))
    changed = [{**DOCUMENTS[0], "text": DOCUMENTS[1]["text"]}, *DOCUMENTS[1:]]
    corpus.write_text("".join(json.dumps(document) + "\n" for document in changed), "utf-8")
    assert load(connected, place, corpus, IngestOptions()).indexed == 1
    after = sources(connected, place)
    assert after["0"]["passages"] != before["0"]["passages"]
    assert all(len(one["embedding"]) <= 12 for one in after["0"]["passages"])
    for other, named in (
        (RegisterOptions(passages="merge"), "merge passage-tokens=40"),
        (RegisterOptions(passages="whole"), "whole prune=top-k=12"),
        (RegisterOptions(passage_tokens=30), "nested passage-tokens=30 overlap=8 prune=top-k=12"),
        (RegisterOptions(overlap=0), "nested passage-tokens=40 prune=top-k=12"),
        (RegisterOptions(pruning=Pruning(top_k=13)), "prune=top-k=13"),
    ):
        if other.passages == "merge":
            other = replace(other, passage_tokens=40)
        with pytest.raises(IndexConflict) as caught:
            load(connected, place, corpus, IngestOptions(register=other))
        assert "nested passage-tokens=40 overlap=8 prune=top-k=12" in str(caught.value)
        assert named in str(caught.value)
    with pytest.raises(IndexConflict, match=r"in passages\.embedding .* not in pieces\.embedding"):
        load(connected, place, corpus, IngestOptions(register=RegisterOptions(passage_field="pieces")))
    assert sources(connected, place) == after


# --- OpenSearch 3.6 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [1_000_000, 1])
def test_seismic_finds_the_best_of_nested_passages(
    engine: Engine, index: str, pieces: Path, corpus: Path, threshold: int
) -> None:
    """Below `approximate_threshold` exactly, above it within the eight bits of its weights."""
    encoder = load_encoder(pieces)
    wanted = RegisterOptions(kind="sparse_vector", passages="nested", passage_tokens=40)
    body = register.plan(engine, index, encoder, wanted).create
    assert body is not None
    field = body["mappings"]["properties"]["passages"]["properties"]["embedding"]
    field["method"]["parameters"]["approximate_threshold"] = threshold
    engine.create_index(index, body)
    load(engine, index, corpus, IngestOptions(model=str(pieces)))
    engine.request("POST", f"/{index}/_forcemerge", params={"max_num_segments": "1"})
    engine.refresh(index)
    vectors = expected(encoder, Preparation("nested", 40))
    for question in ("why does bread turn out heavy", "what causes two high tides a day", "when to prune fruit trees"):
        (asked,) = encoder.encode_query([question])
        weights = dict(zip(asked.ids.tolist(), asked.weights.tolist(), strict=True))
        scores = {
            name: max(dot(weights, dict(zip(v.ids.tolist(), store_precision(v.weights).tolist(), strict=True)))
                      for _, v in prepared.nested)
            for name, prepared in vectors.items()
        }  # fmt: skip
        clause = {"query_tokens": {str(i): w for i, w in weights.items()}, "method_parameters": {"k": 200}}
        query = {"neural_sparse": {"passages.embedding": clause}}
        nested = {"nested": {"path": "passages", "score_mode": "max", "query": query}}
        found = engine.search(index, {"size": 5, "query": nested})["hits"]["hits"]
        assert len(found) == 5
        for place, hit in enumerate(found):
            exact = threshold > 1
            assert hit["_score"] == pytest.approx(scores[hit["_id"]], rel=1e-5 if exact else 0.03)
            assert hit["_score"] == pytest.approx(sorted(scores.values())[-1 - place], rel=1e-5 if exact else 0.03)


def test_an_interrupted_run_counts_what_was_prepared_before(
    engine: Engine, index: str, model: Path, corpus: Path, opensearch_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.batches.BATCH", 5)
    monkeypatch.setattr("bridge.keeper.CHECKPOINT_SECONDS", 0.0)
    letters = corpus.with_suffix(".dead")
    options = IngestOptions(model=str(model), register=NESTED, dead_letter=letters)
    options = replace(options, bulk=replace(options.bulk, chunk_documents=4, in_flight=1))
    with open_source([str(corpus)]) as source:
        broken = Interrupted(source.files, source.options)
        broken.after = len(DOCUMENTS) // 2
        with pytest.raises(KeyboardInterrupt):
            ingest(engine, index, broken, options)
    summary = load(engine, index, corpus, options)
    wanted = expected(load_encoder(model), Preparation("nested", 40, 8, Pruning(top_k=12)))
    assert summary.source == len(DOCUMENTS)
    # A document that went in before the place was kept is met again, and not encoded again.
    assert summary.indexed + summary.unchanged == len(DOCUMENTS)
    assert len(sources(engine, index)) == len(DOCUMENTS)
    assert summary.passages is not None
    most = sum(one.passages for one in wanted.values())
    assert most * 0.7 < summary.passages <= most
    if summary.unchanged == 0:
        assert summary.passages == most


def test_the_command_line_says_what_was_removed(
    bridge: Bridge, index: str, model: Path, corpus: Path, opensearch_url: str, engine: Engine
) -> None:
    arguments = ["--model", str(model), "--passages", "merge", "--passage-tokens", "40", "--prune", "max-ratio=0.7"]
    code, out, _ = bridge("register", index, *arguments, "--json", url=opensearch_url)
    assert code == 0
    meta = engine.require_index(index).meta
    assert (meta["passages"], meta["passage_tokens"], meta["pruning"]) == ("merge", 40, "max-ratio=0.7")
    assert "passage_overlap" not in meta
    code, out, _ = bridge("ingest", index, str(corpus), "--json", url=opensearch_url)
    summary = json.loads(out)
    assert code == 0
    assert summary["source"] == summary["indexed"] == len(DOCUMENTS)
    assert summary["passages"] > summary["source"]
    assert summary["pruned_terms"] > 0
    assert 0 < summary["pruned_mass"] < 1
    corpus.write_text(json.dumps({**DOCUMENTS[0], "text": "another text of bread and flour"}) + "\n")
    code, out, _ = bridge("ingest", index, str(corpus), url=opensearch_url)
    assert "; 1 passages; pruning removed " in out
    assert " % of the mass" in out


def test_whole_texts_say_nothing_of_passages(
    bridge: Bridge, index: str, model: Path, corpus: Path, opensearch_url: str
) -> None:
    code, out, _ = bridge("ingest", index, str(corpus), "--model", str(model), "--json", url=opensearch_url)
    assert code == 0
    assert not {"passages", "pruned_terms", "pruned_mass", "dense_model"} & set(json.loads(out))
    assert json.loads(out)["active_terms"] > 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--passages", "merge"], "reads texts of any length; say how long a passage is with --passage-tokens"),
        (["--passage-tokens", "40"], "go with merged or nested passages, not with whole texts"),
        (["--passages", "nested", "--passage-tokens", "8", "--overlap", "5"], "overlap is 5"),
        (["--prune", "half"], "is not METHOD=VALUE"),
        (["--passages", "nested", "--passage-tokens", "40", "--passage-field", "a.b"], "must be a plain name"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(
    fails: Callable[..., str], index: str, model: Path, corpus: Path, opensearch_url: str, engine: Engine,
    arguments: list[str], reason: str,
) -> None:  # fmt: skip
    for command in (["ingest", index, str(corpus)], ["register", index]):
        assert reason in fails(2, *command, "--model", str(model), *arguments, url=opensearch_url)
    assert engine.get_index(index) is None


def test_a_document_with_such_a_field_of_its_own_is_a_dead_letter(
    bridge: Bridge, index: str, model: Path, tmp_path: Path, opensearch_url: str
) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"_id": "1", "text": "bread", "passages": ["mine"]}) + "\n")
    arguments = ["--model", str(model), "--passages", "nested", "--passage-tokens", "40"]
    code, _, err = bridge("ingest", index, str(path), *arguments, url=opensearch_url)
    assert code == 3
    assert "it has a field passages of its own" in err
    assert "--passage-field" in err


def test_a_nested_vector_file_goes_in_as_the_texts_would(
    bridge: Bridge, engine: Engine, index: str, model: Path, corpus: Path, opensearch_url: str
) -> None:
    arguments = ["--model", str(model), "--passages", "nested", "--passage-tokens", "40", "--prune", "top-k=12"]
    assert bridge("encode", str(corpus), "-o", "v.jsonl", *arguments, "--keep-source")[0] == 0
    code, out, _ = bridge("ingest", index, "v.jsonl", "--json", url=opensearch_url)
    assert (code, json.loads(out)["indexed"]) == (0, len(DOCUMENTS))
    described = IndexModel.of(engine.require_index(index))
    assert described is not None
    assert described.preparation == Preparation("nested", 40, 0, Pruning(top_k=12))
    stored = sources(engine, index)
    for name, prepared in expected(load_encoder(model), described.preparation).items():
        for one, (passage, vector) in zip(stored[name]["passages"], prepared.nested, strict=True):
            assert (one["start"], one["end"]) == (passage.start, passage.end)
            close(one["embedding"], vector, described, engine)
    named = IngestOptions(vectors=read_meta(Path("v.jsonl")), register=NESTED)
    with open_source(["v.jsonl"]) as source, pytest.raises(UsageError, match="go in as they are"):
        ingest(engine, index, source, named)
    plain = IngestOptions(model=str(model), register=RegisterOptions(passages="whole"))
    with pytest.raises(IndexConflict, match="vectors made as: nested"):
        load(engine, index, corpus, plain)
