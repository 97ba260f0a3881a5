"""Registering: what is made, what is kept, what is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bridge import register, templates
from bridge.dialects import opensearch
from bridge.encode import Encoder, load_encoder
from bridge.encode.base import TokenVocabulary
from bridge.encode.dense import DenseModel, describe_dense
from bridge.engines import Engine
from bridge.errors import IndexConflict, ModelMismatch, RequestRejected, UnsupportedByEngine, UsageError
from bridge.fit import FitOptions, fit
from bridge.ingest import IngestOptions, ingest
from bridge.modelstore import stored_models
from bridge.records import SparseVector
from bridge.register import RegisterOptions
from bridge.rewrite import QueryRewriter
from bridge.sources import open_source

Bridge = Callable[..., tuple[int, str, str]]
Matrix = npt.NDArray[np.float64]

TEXTS = ["the cat sat on the mat", "a dog chased the cat", "dogs and cats sleep all day"]


@pytest.fixture
def model(tmp_path: Path) -> Encoder:
    return fit(TEXTS, tmp_path / "model")


@pytest.fixture
def other(tmp_path: Path) -> Encoder:
    return fit([*TEXTS, "one text more"], tmp_path / "other")


@pytest.fixture
def dense(tmp_path: Path) -> DenseModel:
    folder = tmp_path / "dense"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 384}')
    return describe_dense(folder)


def done(engine: Engine, index: str, encoder: Encoder, options: RegisterOptions | None = None) -> list[str]:
    """Plan and apply; the steps that were taken."""
    planned = register.plan(engine, index, encoder, options)
    register.apply(engine, planned)
    return planned.steps


def as_it_is(engine: Engine, index: str) -> tuple[Any, Any]:
    state = engine.require_index(index)
    return state.mappings, {name: value for name, value in state.settings.items() if name != "index.version.created"}


def ingest_texts(engine: Engine, index: str, folder: Path, texts: list[str], options: IngestOptions) -> None:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"_id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)))
    with open_source([str(path)]) as source:
        assert ingest(engine, index, source, options).indexed == len(texts)


# --- Creating -----------------------------------------------------------------------------------------------


def test_an_index_is_created_with_its_model_in_meta(engine: Engine, index: str, model: Encoder) -> None:
    assert done(engine, index, model) == [f"create index {index}"]
    state = engine.require_index(index)
    assert state.mappings["properties"] == {
        "embedding": {"type": "rank_features"},
        "bridge_content_hash": {"type": "keyword", "index": False, "doc_values": False, "store": True},
    }
    assert state.meta == {
        "format": 1,
        "space": model.space,
        "document_encoder": model.fingerprint,
        "query_encoders": [model.fingerprint],
        "kind": "rank_features",
        "field": "embedding",
        "text_fields": ["title", "text"],
    }


def test_options_reach_the_index(engine: Engine, index: str, model: Encoder) -> None:
    done(engine, index, model, RegisterOptions(field="v", text_fields=("body",), shards=2, replicas=0))
    state = engine.require_index(index)
    assert state.mappings["properties"]["v"] == {"type": "rank_features"}
    assert (state.meta["field"], state.meta["text_fields"]) == ("v", ["body"])
    assert (state.settings["index.number_of_shards"], state.settings["index.number_of_replicas"]) == ("2", "0")


def test_one_node_is_green_without_asking_for_replicas(engine: Engine, index: str, model: Encoder) -> None:
    done(engine, index, model)
    health = engine.request("GET", f"/_cluster/health/{index}", params={"wait_for_status": "green", "timeout": "10s"})
    assert health["status"] == "green"


@pytest.mark.parametrize(
    "options",
    [
        RegisterOptions(),
        RegisterOptions(shards=2, replicas=1, field="v", text_fields=("body",)),
        RegisterOptions(two_phase=True),
        RegisterOptions(dense=DenseModel("d", "dense-0", 384)),
    ],
    ids=["plain", "options", "two-phase", "dense"],
)
def test_registering_twice_changes_nothing(
    engine: Engine, index: str, model: Encoder, options: RegisterOptions
) -> None:
    done(engine, index, model, options)
    before = as_it_is(engine, index)
    again = register.plan(engine, index, model, options)
    assert (again.steps, again.diff) == ([], "")
    register.apply(engine, again)
    assert as_it_is(engine, index) == before


def test_registering_again_without_options_keeps_what_there_is(engine: Engine, index: str, model: Encoder) -> None:
    done(engine, index, model, RegisterOptions(text_fields=("body",), two_phase=True, shards=2, replicas=0))
    assert register.plan(engine, index, model).steps == []


def test_registering_again_without_options_keeps_kind_and_field(
    engine: Engine, index: str, tmp_path: Path, shared: Path
) -> None:
    pieces = fit(TEXTS, tmp_path / "pieces", FitOptions(tokenizer=shared / "bert-uncased"))
    done(engine, index, pieces, RegisterOptions(kind="sparse_vector", field="v"))
    assert register.plan(engine, index, pieces).steps == []


def test_replicas_asked_for_later_are_had_and_stay(engine: Engine, index: str, model: Encoder) -> None:
    done(engine, index, model)
    assert done(engine, index, model, RegisterOptions(replicas=1)) == [f"change settings of {index}"]
    assert engine.require_index(index).settings["index.number_of_replicas"] == "1"
    assert register.plan(engine, index, model, RegisterOptions(replicas=1)).steps == []
    assert register.plan(engine, index, model).steps == []


def test_an_index_made_by_someone_else_in_between_is_a_conflict(engine: Engine, index: str, model: Encoder) -> None:
    planned = register.plan(engine, index, model)
    engine.create_index(index, {})
    with pytest.raises(IndexConflict, match="created by someone else"):
        register.apply(engine, planned)


# --- On the command line ------------------------------------------------------------------------------------


def test_dry_run_shows_the_difference_and_changes_nothing(
    engine: Engine, index: str, model: Encoder, tmp_path: Path, bridge: Bridge, opensearch_url: str
) -> None:
    command = ("register", index, "--model", str(tmp_path / "model"), "--two-phase")
    code, out, err = bridge(*command, "--dry-run", url=opensearch_url)
    assert code == 0
    assert '+        "type": "rank_features"' in out
    assert f"would create index {index}" in err
    assert engine.get_index(index) is None
    assert engine.get_search_pipeline(f"{index}-two-phase") is None
    assert model.fingerprint not in stored_models(engine)
    assert bridge(*command, url=opensearch_url)[0] == 0
    before = as_it_is(engine, index)
    _, out, _ = bridge(*command, "--dry-run", url=opensearch_url)
    assert out == f"{index} is as wanted: nothing to do\n"
    assert as_it_is(engine, index) == before


def test_dry_run_of_an_extension_changes_nothing(
    engine: Engine, index: str, model: Encoder, tmp_path: Path, bridge: Bridge, opensearch_url: str
) -> None:
    engine.create_index(index, {"mappings": {"properties": {"body": {"type": "text"}}}})
    before = as_it_is(engine, index)
    code, out, _ = bridge(
        "register", index, "--model", str(tmp_path / "model"), "--dry-run", "--json", url=opensearch_url
    )
    shown = json.loads(out)
    assert (code, shown["steps"], shown["dry_run"]) == (0, [f"extend the mapping of {index}"], True)
    assert "rank_features" in shown["diff"]
    assert as_it_is(engine, index) == before


def test_another_model_is_exit_code_5_and_names_both(
    engine: Engine, index: str, model: Encoder, other: Encoder, tmp_path: Path, bridge: Bridge, opensearch_url: str
) -> None:
    done(engine, index, model)
    before = as_it_is(engine, index)
    code, out, err = bridge("register", index, "--model", str(tmp_path / "other"), url=opensearch_url)
    assert (code, out) == (5, "")
    assert model.fingerprint in err
    assert other.fingerprint in err
    assert len(err.splitlines()) == 1
    assert as_it_is(engine, index) == before


def test_an_index_that_cannot_be_is_refused_before_anything_is_sent(
    engine: Engine, index: str, model: Encoder, dense: DenseModel, tmp_path: Path, bridge: Bridge, opensearch_url: str
) -> None:
    code, _, err = bridge(
        "register", index, "--model", str(tmp_path / "model"), "--kind", "sparse_vector", url=opensearch_url
    )
    assert code == 2
    assert "an open vocabulary" in err
    assert "--tokenizer" in err
    assert engine.get_index(index) is None


# --- What cannot be changed ---------------------------------------------------------------------------------


def test_a_field_of_another_type_is_a_conflict(engine: Engine, index: str, model: Encoder) -> None:
    engine.create_index(index, {"mappings": {"properties": {"embedding": {"type": "text"}}}})
    before = as_it_is(engine, index)
    with pytest.raises(IndexConflict, match=r'field embedding of another kind \({"type":"text"}, wanted'):
        register.plan(engine, index, model)
    assert as_it_is(engine, index) == before


def test_a_setting_that_is_fixed_at_creation_is_a_conflict(
    engine: Engine, index: str, model: Encoder, dense: DenseModel
) -> None:
    done(engine, index, model)
    with pytest.raises(IndexConflict, match=r"index\.number_of_shards 1, wanted 3; that is fixed"):
        register.plan(engine, index, model, RegisterOptions(shards=3))
    with pytest.raises(IndexConflict, match=r"index\.knn unset, wanted true"):
        register.plan(engine, index, model, RegisterOptions(dense=dense))


def test_another_field_or_kind_of_the_same_model_is_a_conflict(
    engine: Engine, index: str, tmp_path: Path, shared: Path
) -> None:
    pieces = fit(TEXTS, tmp_path / "pieces", FitOptions(tokenizer=shared / "bert-uncased"))
    done(engine, index, pieces)
    with pytest.raises(IndexConflict, match=r"keeps its vectors in embedding \(rank_features\), not in v"):
        register.plan(engine, index, pieces, RegisterOptions(field="v"))
    with pytest.raises(IndexConflict):
        register.plan(engine, index, pieces, RegisterOptions(kind="sparse_vector"))


def test_a_pipeline_of_that_name_with_another_body_is_a_conflict(engine: Engine, index: str, model: Encoder) -> None:
    name = f"{index}-two-phase"
    engine.put_search_pipeline(name, {"description": "mine", "request_processors": []})
    with pytest.raises(IndexConflict, match="is there already and differs"):
        register.plan(engine, index, model, RegisterOptions(two_phase=True))
    assert (engine.get_search_pipeline(name) or {})["description"] == "mine"
    engine.request("DELETE", f"/_search/pipeline/{name}")


def test_a_meta_of_a_later_release_is_refused(engine: Engine, index: str, model: Encoder) -> None:
    engine.create_index(index, {"mappings": {"_meta": {"bridge": {"format": 2}}}})
    with pytest.raises(ModelMismatch, match="another release"):
        register.plan(engine, index, model)


# --- Indices of others --------------------------------------------------------------------------------------


def test_a_foreign_index_is_extended_and_keeps_its_own(
    engine: Engine, index: str, model: Encoder, tmp_path: Path
) -> None:
    mine = {"_meta": {"owner": "search team", "tags": {"a": 1}}, "properties": {"body": {"type": "text"}}}
    engine.create_index(index, {"mappings": mine, "settings": {"index": {"refresh_interval": "7s"}}})
    engine.request("PUT", f"/{index}/_doc/old", params={"refresh": "true"}, body=b'{"body": "before"}')
    assert done(engine, index, model) == [f"extend the mapping of {index}"]
    state = engine.require_index(index)
    assert state.mappings["_meta"] == {**mine["_meta"], "bridge": state.meta}
    assert state.meta["document_encoder"] == model.fingerprint
    assert state.mappings["properties"]["body"] == {"type": "text"}
    assert state.mappings["properties"]["embedding"] == {"type": "rank_features"}
    assert state.settings["index.refresh_interval"] == "7s"
    assert engine.get_sources(index, ["old"], ["body"]) == {"old": {"body": "before"}}
    assert register.plan(engine, index, model).steps == []
    ingest_texts(engine, index, tmp_path, TEXTS, IngestOptions(model=str(tmp_path / "model")))
    assert engine.count(index) == 4


def test_an_alias_stands_for_its_index(engine: Engine, index: str, model: Encoder, tmp_path: Path) -> None:
    alias = f"{index}-alias"
    done(engine, index, model, RegisterOptions(two_phase=True))
    engine.request("PUT", f"/{index}/_alias/{alias}")
    assert register.plan(engine, alias, model, RegisterOptions(two_phase=True)).steps == []
    ingest_texts(engine, alias, tmp_path, TEXTS, IngestOptions(model=str(tmp_path / "model")))
    assert engine.count(index) == 3
    rewriter = QueryRewriter.for_index(engine, alias)
    assert engine.search(alias, rewriter.rewrite("dog"))["hits"]["hits"][0]["_id"] in {"1", "2"}


def test_an_extension_through_an_alias_reaches_the_index(engine: Engine, index: str, model: Encoder) -> None:
    alias = f"{index}-alias"
    engine.create_index(index, {"aliases": {alias: {}}})
    done(engine, alias, model)
    assert engine.require_index(index).meta["document_encoder"] == model.fingerprint


def test_an_alias_of_two_indices_is_refused(engine: Engine, index: str, model: Encoder) -> None:
    alias = f"{index}-alias"
    try:
        for name in (index, f"{index}-2"):
            engine.create_index(name, {"aliases": {alias: {}}})
        with pytest.raises(RequestRejected, match=f"stands for 2 indices \\({index}, {index}-2\\); name one"):
            register.plan(engine, alias, model)
    finally:
        engine.delete_index(f"{index}-2")


def test_a_query_only_model_makes_an_index_that_others_fill(engine: Engine, index: str, shared: Path) -> None:
    lookup = load_encoder(shared / "bert-uncased")
    done(engine, index, lookup)
    meta = engine.require_index(index).meta
    assert "document_encoder" not in meta
    assert (meta["space"], meta["query_encoders"]) == (lookup.space, [lookup.fingerprint])


def test_a_model_of_another_space_is_refused(engine: Engine, index: str, tmp_path: Path, shared: Path) -> None:
    done(engine, index, load_encoder(shared / "bert-uncased"))
    pieces = fit(TEXTS, tmp_path / "pieces", FitOptions(tokenizer=shared / "bert-uncased"))
    with pytest.raises(ModelMismatch):
        register.plan(engine, index, pieces)


# --- Pipelines ----------------------------------------------------------------------------------------------


def test_two_phase_is_put_and_used_by_every_search(engine: Engine, index: str, model: Encoder, tmp_path: Path) -> None:
    name = f"{index}-two-phase"
    assert done(engine, index, model, RegisterOptions(two_phase=True)) == [
        f"put search pipeline {name}",
        f"create index {index}",
    ]
    assert engine.require_index(index).settings["index.search.default_pipeline"] == name
    ingest_texts(engine, index, tmp_path, TEXTS, IngestOptions(model=str(tmp_path / "model")))
    body = QueryRewriter.for_index(engine, index, dialect="neural_sparse").rewrite("dogs chased the mat")
    before = two_phase_runs(engine, name)
    found = engine.search(index, body)["hits"]["hits"]
    assert two_phase_runs(engine, name) == before + 1
    plain = engine.search(index, body, params={"search_pipeline": "_none"})["hits"]["hits"]
    assert two_phase_runs(engine, name) == before + 1
    assert [(hit["_id"], hit["_score"]) for hit in found] == [
        (hit["_id"], pytest.approx(hit["_score"], rel=1e-6)) for hit in plain
    ]


def two_phase_runs(engine: Engine, pipeline: str) -> int:
    (node,) = engine.request("GET", "/_nodes/stats/search_pipeline")["nodes"].values()
    processors = node["search_pipeline"]["pipelines"][pipeline]["request_processors"]
    return sum(stats["stats"]["count"] for processor in processors for stats in processor.values())


def test_two_phase_is_refused_for_a_sparse_vector_field(
    engine: Engine, index: str, tmp_path: Path, shared: Path
) -> None:
    pieces = fit(TEXTS, tmp_path / "pieces", FitOptions(tokenizer=shared / "bert-uncased"))
    with pytest.raises(UnsupportedByEngine, match="two-phase search needs a rank_features field"):
        register.plan(engine, index, pieces, RegisterOptions(kind="sparse_vector", two_phase=True))


def test_a_dense_companion_has_the_models_dimension_and_a_hybrid_pipeline(
    engine: Engine, index: str, model: Encoder, dense: DenseModel
) -> None:
    assert done(engine, index, model, RegisterOptions(dense=dense)) == [
        f"put search pipeline {index}-hybrid",
        f"create index {index}",
    ]
    state = engine.require_index(index)
    field = state.mappings["properties"]["dense"]
    assert (field["type"], field["dimension"]) == ("knn_vector", 384)
    assert [field["method"][name] for name in ("name", "engine", "space_type")] == ["hnsw", "lucene", "innerproduct"]
    assert (state.meta["dense_field"], state.meta["dense_encoder"]) == ("dense", dense.fingerprint)


def test_the_hybrid_pipeline_brings_scores_to_one_scale(
    engine: Engine, index: str, model: Encoder, dense: DenseModel
) -> None:
    done(engine, index, model, RegisterOptions(dense=dense))
    one = [1.0] + [0.0] * 383
    for name, vector in (("both", one), ("sparse", [-value for value in one])):
        body = {"embedding": {"cat": 1.0 if name == "both" else 0.5}, "dense": vector}
        engine.request("PUT", f"/{index}/_doc/{name}", params={"refresh": "true"}, body=json.dumps(body).encode())
    parts = [
        {"neural_sparse": {"embedding": {"query_tokens": {"cat": 1.0}}}},
        {"knn": {"dense": {"vector": one, "k": 2}}},
    ]
    query = {"query": {"hybrid": {"queries": parts}}, "_source": False}
    found = engine.search(index, query, params={"search_pipeline": f"{index}-hybrid"})["hits"]["hits"]
    assert [hit["_id"] for hit in found] == ["both", "sparse"]
    assert found[0]["_score"] == 1.0
    assert 0 <= found[1]["_score"] < 0.1


def test_a_dense_field_and_seismic_exclude_each_other(
    engine: Engine, index: str, dense: DenseModel, tmp_path: Path, shared: Path
) -> None:
    pieces = fit(TEXTS, tmp_path / "pieces", FitOptions(tokenizer=shared / "bert-uncased"))
    with pytest.raises(UsageError, match="cannot share an index on OpenSearch"):
        register.plan(engine, index, pieces, RegisterOptions(kind="sparse_vector", dense=dense))
    assert engine.get_index(index) is None


# --- SEISMIC ------------------------------------------------------------------------------------------------


QUERIES = [
    "0-dimensional biomaterials show inductive properties.",
    "cell",
    "the effects of vitamin D on bone density in older women",
    "IL-6 signaling and p53 (TP53) mutations",
    "white matter development in newborn infants",
]


@pytest.fixture
def abstracts(shared: Path) -> list[str]:
    with gzip.open(shared / "corpora" / "scifact" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in islice(lines, 400)]


@pytest.fixture
def pieces(abstracts: list[str], tmp_path: Path, shared: Path) -> Encoder:
    return fit(abstracts, tmp_path / "pieces", FitOptions(tokenizer=shared / "bert-uncased"))


def asked_ids(pieces: Encoder) -> npt.NDArray[np.int32]:
    """The tokens of all `QUERIES`: no other one counts."""
    return np.unique(np.concatenate([vector.ids for vector in pieces.encode_query(QUERIES)]))


def matrix(vectors: list[SparseVector], ids: npt.NDArray[np.int32], weight: Callable[[Any], Any]) -> Matrix:
    """A row a vector, a column an id of `ids`."""
    rows = np.zeros((len(vectors), len(ids)))
    for row, vector in zip(rows, vectors, strict=True):
        known = np.isin(vector.ids, ids)
        row[np.searchsorted(ids, vector.ids[known])] = weight(vector.weights)[known]
    return rows


def cleared(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return (weights.view(np.uint32) >> 15 << 15).view(np.float32)


def steps(weights: npt.NDArray[np.float32], ceiling: float) -> Matrix:
    """SEISMIC's quantisation: weights up to the ceiling as the nearest of 255 steps."""
    return np.round(np.minimum(weights, np.float32(ceiling)) / np.float32(ceiling) * np.float32(255)).astype(np.float64)


def hits(engine: Engine, index: str, query: str, size: int = 10) -> list[tuple[int, float]]:
    body = QueryRewriter.for_index(engine, index).rewrite(query, size=size)
    found = engine.search(index, {**body, "_source": False})["hits"]["hits"]
    return [(int(hit["_id"]), hit["_score"]) for hit in found]


SEISMIC = IngestOptions(register=RegisterOptions(kind="sparse_vector"))


def test_seismic_is_exact_while_segments_are_below_its_threshold(
    engine: Engine, index: str, abstracts: list[str], pieces: Encoder, tmp_path: Path
) -> None:
    """Below `approximate_threshold` (1,000,000 documents a segment) OpenSearch does not quantise at all."""
    options = IngestOptions(model=str(tmp_path / "pieces"), register=SEISMIC.register)
    ingest_texts(engine, index, tmp_path, abstracts, options)
    field = engine.require_index(index).mappings["properties"]["embedding"]
    assert (field["type"], field["method"]["name"]) == ("sparse_vector", "seismic")
    assert engine.require_index(index).settings["index.sparse"] == "true"
    ids = asked_ids(pieces)
    documents = matrix(pieces.encode_document(abstracts), ids, cleared)
    for query in QUERIES:
        asked = matrix(pieces.encode_query([query]), ids, lambda weights: weights)[0]
        scores = documents @ asked
        found = hits(engine, index, query)
        assert [score for _, score in found] == pytest.approx(np.sort(scores)[::-1][:10].tolist(), rel=1e-6)
        assert [score for _, score in found] == pytest.approx([scores[i] for i, _ in found], rel=1e-6)


def test_seismic_above_its_threshold_scores_with_eight_bits_below_the_models_ceilings(
    engine: Engine, index: str, abstracts: list[str], pieces: Encoder, tmp_path: Path
) -> None:
    """Scores are then the exact dot product of the quantised weights, each within half a step of the true one.

    Measured on 100 SciFact claims over 1,000 abstracts: 0.2 % off on average, 0.84 % at most, and 0.988 of the
    true top 10; on a query of one light word up to 1.3 %.
    """
    planned = register.plan(engine, index, pieces, SEISMIC.register)
    always = {"method": {"parameters": {"approximate_threshold": 1}}}
    assert planned.create
    body = templates.merge(planned.create, {"mappings": {"properties": {"embedding": always}}})
    engine.create_index(index, body)
    ingest_texts(engine, index, tmp_path, abstracts, IngestOptions(model=str(tmp_path / "pieces")))
    engine.request("POST", f"/{index}/_forcemerge", params={"max_num_segments": "1"})
    engine.refresh(index)

    ids = asked_ids(pieces)
    document_step, query_step = (ceiling / 255 for ceiling in pieces.ceilings)
    vectors = pieces.encode_document(abstracts)
    exact = matrix(vectors, ids, cleared)
    quantised = matrix(vectors, ids, lambda weights: document_step * steps(cleared(weights), pieces.ceilings[0]))
    for query in QUERIES:
        asked_vector = pieces.encode_query([query])
        asked = matrix(asked_vector, ids, lambda weights: weights)[0]
        asked_quantised = matrix(asked_vector, ids, lambda weights: query_step * steps(weights, pieces.ceilings[1]))[0]
        found = hits(engine, index, query)
        places = [i for i, _ in found]
        scores = np.array([score for _, score in found])
        assert len(found) == 10
        assert scores == pytest.approx((quantised @ asked_quantised)[places], rel=1e-6)
        half_steps = (exact > 0) @ (asked > 0) * document_step * query_step / 4
        half_steps = half_steps + exact @ (asked > 0) * query_step / 2 + (exact > 0) @ asked * document_step / 2
        assert np.all(np.abs(scores - (exact @ asked)[places]) <= half_steps[places])
        best = np.argsort(-(exact @ asked))[:10].tolist()
        assert len(set(best) & set(places)) >= 8


@pytest.mark.parametrize("threshold", [1, 1_000_000])
def test_seismic_scores_weights_above_the_engines_64_in_full(engine: Engine, index: str, threshold: int) -> None:
    parameters = {"quantization_ceiling_search": 64.0, "approximate_threshold": threshold}
    field = {"type": "sparse_vector", "method": {"name": "seismic", "parameters": parameters}}
    engine.create_index(
        index, {"settings": {"index": {"sparse": True}}, "mappings": {"properties": {"embedding": field}}}
    )
    engine.request("PUT", f"/{index}/_doc/a", params={"refresh": "true"}, body=b'{"embedding": {"1": 3.0, "7": 1.0}}')
    vocabulary = TokenVocabulary([str(i) for i in range(10)])
    query = SparseVector(np.array([1, 7], np.int32), np.array([200, 1], np.float32), vocabulary)
    (hit,) = engine.search(index, {"query": opensearch.seismic("embedding", query, k=10)})["hits"]["hits"]
    # With eight bits, half a step of the heavy weight is worth 1.5.
    assert hit["_score"] == pytest.approx(601, abs=1e-3 if threshold > 1 else 2.5)


def test_no_weight_passes_the_ceilings_that_the_mapping_got(abstracts: list[str], pieces: Encoder) -> None:
    document_ceiling, query_ceiling = pieces.ceilings
    assert max(vector.weights.max() for vector in pieces.encode_document(abstracts)) <= document_ceiling
    assert max(vector.weights.max() for vector in pieces.encode_query(QUERIES)) <= np.float32(query_ceiling)
