"""What an index should be like, for every product, version and option; nothing is asked of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.encode import Encoder
from bridge.encode.analysis import WordOffsets
from bridge.encode.base import TokenVocabulary
from bridge.encode.dense import DenseModel, describe_dense
from bridge.engines.base import Engine, parse_version
from bridge.engines.elasticsearch import ElasticsearchEngine
from bridge.engines.opensearch import OpenSearchEngine
from bridge.errors import IndexConflict, IndexNotFound, ModelFormatError, ModelMismatch, UnsupportedByEngine, UsageError
from bridge.indexmodel import IndexModel
from bridge.register import Plan, RegisterOptions, apply, default_kind, plan
from bridge.settings import EngineSettings

DENSE = DenseModel("dense", "dense-0", 384)
CLOSED = RegisterOptions(kind="sparse_vector")


class Canned(Engine):
    """An engine of any version that answers from a dictionary, and remembers what was asked."""

    def __init__(
        self, version: str, *, elasticsearch: bool = False, plugins: list[str] | None = None, **answers: Any
    ) -> None:
        super().__init__(EngineSettings(url="http://engine:9200"))
        self.twin = ElasticsearchEngine if elasticsearch else OpenSearchEngine
        self.product = self.twin.product  # type: ignore[misc]
        self.capabilities = self.twin.capabilities  # type: ignore[method-assign]
        known = ["opensearch-neural-search", "opensearch-knn"] if plugins is None else plugins
        self.answers: dict[str, Any] = {
            "/": {"version": {"number": version}},
            "/_cat/plugins": [{"component": name} for name in known],
            **{f"/{path}": answer for path, answer in answers.items()},
        }
        self.asked: list[str] = []

    def request(self, method: str, path: str, **_: Any) -> Any:
        self.asked.append(f"{method} {path}")
        if path not in self.answers:
            raise IndexNotFound(f"{path}: not found", status=404)
        return self.answers[path]

    def close(self) -> None:
        pass

    def open_point(self, index: str, shard: int, keep_alive: str) -> str:
        raise NotImplementedError

    def close_point(self, point: str) -> None:
        raise NotImplementedError

    @staticmethod
    def capabilities(version: tuple[int, int, int], plugins: frozenset[str] | None) -> Any:
        raise NotImplementedError


class Model:
    """A made-up encoder over a closed vocabulary."""

    name = "made-up"
    open_vocabulary = False
    encodes_documents = True

    def __init__(
        self, fingerprint: str = "model-1", space: str = "space-1", size: int = 30_522, ceilings: Any = (2.5, 7.5)
    ) -> None:
        self.fingerprint = self.query_fingerprint = fingerprint
        self.space = space
        self.vocabulary = TokenVocabulary(["x"] * size)
        self.ceilings: tuple[float, float] = ceilings

    def encode_document(self, texts: Any) -> Any:
        raise NotImplementedError

    encode_query = encode_document


def there(meta: Mapping[str, Any] | None = None, **settings: str) -> dict[str, Any]:
    """What an engine says of an index `i` that was registered for `Model()`."""
    kept = IndexModel("space-1", "model-1", ("model-1",), "rank_features", "embedding", ("title", "text")).as_meta()
    properties = {
        "embedding": {"type": "rank_features"},
        "bridge_content_hash": {"type": "keyword", "index": False, "doc_values": False, "store": True},
    }
    return {
        "i": {
            "mappings": {"_meta": {"bridge": {**kept, **(meta or {})}}, "properties": properties},
            "settings": {"index.uuid": "u", "index.auto_expand_replicas": "0-1", **settings},
        }
    }


def created(engine: Engine, model: Encoder, options: RegisterOptions | None = None) -> dict[str, Any]:
    body = plan(engine, "i", model, options).create
    assert body is not None
    return body


# --- Each product -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "elasticsearch", "kind"),
    [
        ("2.11.0", False, "rank_features"),
        ("3.6.0", False, "rank_features"),
        ("7.17.29", True, "rank_features"),
        ("8.14.3", True, "rank_features"),
        ("8.15.0", True, "sparse_vector"),
        ("9.2.0", True, "sparse_vector"),
    ],
)
def test_the_default_kind_is_the_best_that_can_be_asked_with_raw_vectors(
    version: str, elasticsearch: bool, kind: str
) -> None:
    engine = Canned(version, elasticsearch=elasticsearch)
    assert default_kind(engine.info()) == kind
    properties = created(engine, Model())["mappings"]["properties"]
    assert properties["embedding"] == {"type": kind}


def test_seismic_gets_the_models_ceilings() -> None:
    body = created(Canned("3.6.0"), Model(ceilings=(2.5, 7.5)), CLOSED)
    assert body["settings"]["index"]["sparse"] is True
    assert body["mappings"]["properties"]["embedding"] == {
        "type": "sparse_vector",
        "method": {
            "name": "seismic",
            "parameters": {
                "n_postings": 1000,
                "quantization_ceiling_ingest": 2.5,
                "quantization_ceiling_search": 7.5,
            },
        },
    }


def test_seismics_query_ceiling_is_no_more_than_what_is_sent() -> None:
    body = created(Canned("3.6.0"), Model(ceilings=(2.5, 200.0)), CLOSED)
    parameters = body["mappings"]["properties"]["embedding"]["method"]["parameters"]
    assert parameters["quantization_ceiling_search"] == 64.0


def test_settings_that_were_not_asked_for_are_the_engines_own() -> None:
    assert created(Canned("3.6.0"), Model())["settings"] == {"index": {"auto_expand_replicas": "0-1"}}
    asked = created(Canned("3.6.0"), Model(), RegisterOptions(shards=3, replicas=2))
    assert asked["settings"]["index"] == {
        "number_of_shards": 3,
        "number_of_replicas": 2,
        "auto_expand_replicas": False,
    }


@pytest.mark.parametrize(("elasticsearch", "type_"), [(False, "knn_vector"), (True, "dense_vector")])
def test_a_dense_companion_is_of_the_products_own_type(elasticsearch: bool, type_: str) -> None:
    engine = Canned("9.2.0" if elasticsearch else "3.6.0", elasticsearch=elasticsearch)
    body = created(engine, Model(), RegisterOptions(dense=DENSE, dense_field="meaning"))
    assert body["mappings"]["properties"]["meaning"]["type"] == type_
    assert body["mappings"]["_meta"]["bridge"]["dense_encoder"] == "dense-0"
    assert body["settings"]["index"].get("knn") is (None if elasticsearch else True)


def test_planning_only_reads() -> None:
    engine = Canned("3.6.0")
    planned = plan(engine, "i", Model(), RegisterOptions(two_phase=True, dense=DENSE))
    assert planned.steps == [
        "put search pipeline i-two-phase",
        "put search pipeline i-hybrid",
        "create index i",
    ]
    assert {request.split()[0] for request in engine.asked} == {"GET"}


def test_a_plan_without_steps_sends_nothing() -> None:
    engine = Canned("3.6.0", i=there())
    planned = plan(engine, "i", Model())
    engine.asked.clear()
    apply(engine, planned)
    assert (planned.steps, engine.asked) == ([], [])


# --- What an engine cannot do -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "options", "reason"),
    [
        (
            Canned("2.19.1"),
            CLOSED,
            r"OpenSearch 2\.19\.1 has no sparse_vector field \(SEISMIC\): it needs OpenSearch 3\.3",
        ),
        (Canned("3.6.0", plugins=["opensearch-knn"]), CLOSED, r"needs OpenSearch 3\.3 with neural-search"),
        (Canned("7.17.29", elasticsearch=True), CLOSED, r"Elasticsearch 7\.17\.29 has no usable sparse_vector field"),
        (Canned("3.6.0", plugins=[]), RegisterOptions(dense=DENSE), "has no dense vector field here"),
        (Canned("7.17.29", elasticsearch=True), RegisterOptions(dense=DENSE), "has no dense vector field here"),
        (Canned("2.14.0"), RegisterOptions(two_phase=True), r"two-phase search needs .* OpenSearch 2\.15 or newer"),
        (Canned("9.2.0", elasticsearch=True), RegisterOptions(two_phase=True), "two-phase search needs"),
    ],
    ids=lambda value: str(value.info()) if isinstance(value, Canned) else "",
)
def test_what_the_engine_cannot_do_is_refused_and_said(engine: Canned, options: RegisterOptions, reason: str) -> None:
    with pytest.raises(UnsupportedByEngine, match=reason):
        plan(engine, "i", Model(), options)


def test_seismic_is_refused_to_a_vocabulary_beyond_its_ids() -> None:
    plan(Canned("3.6.0"), "i", Model(size=32_768), CLOSED)
    with pytest.raises(UsageError, match="32769 tokens; use --kind rank_features"):
        plan(Canned("3.6.0"), "i", Model(size=32_769), CLOSED)


@pytest.mark.parametrize("name", ["a.b", "", " "])
def test_a_vector_field_is_a_plain_name(name: str) -> None:
    with pytest.raises(UsageError, match="must be a plain name without dots"):
        plan(Canned("3.6.0"), "i", Model(), RegisterOptions(field=name))


@pytest.mark.parametrize(
    ("version", "number"),
    [("3.6.0", (3, 6, 0)), ("9.2", (9, 2, 0)), ("3.0.0-beta1", (3, 0, 0)), ("8.19.0-SNAPSHOT", (8, 19, 0))],
)
def test_versions_are_read_with_their_qualifiers(version: str, number: tuple[int, int, int]) -> None:
    assert parse_version({"version": {"number": version}}, "http://engine") == number


# --- An index that is there ---------------------------------------------------------------------------------


def test_a_query_encoder_of_the_same_space_is_added_to_the_list() -> None:
    query_model = Model("model-2")
    query_model.encodes_documents = False
    planned = plan(Canned("3.6.0", i=there()), "i", query_model)
    assert planned.steps == ["extend the mapping of i"]
    assert planned.model.query_encoders == ("model-1", "model-2")
    assert planned.model.document_encoder == "model-1"


def test_a_second_document_encoder_is_a_mismatch_even_in_the_same_space() -> None:
    with pytest.raises(ModelMismatch, match="belongs to model model-1, not to model-2; name another index"):
        plan(Canned("3.6.0", i=there()), "i", Model("model-2"))


def test_a_model_of_another_space_is_a_mismatch() -> None:
    with pytest.raises(ModelMismatch, match="model-1, not to model-2"):
        plan(Canned("3.6.0", i=there()), "i", Model("model-2", space="space-2"))


def test_an_index_is_filled_by_the_document_encoder_that_its_query_encoder_waited_for() -> None:
    meta = {"query_encoders": ["query-1"], "document_encoder": None}
    planned = plan(Canned("3.6.0", i=there(meta)), "i", Model())
    assert (planned.model.document_encoder, planned.model.query_encoders) == ("model-1", ("query-1", "model-1"))


@pytest.mark.parametrize(
    ("meta", "reason"), [({"format": 2}, "another release"), ({"kind": "dense"}, r"unreadable _meta\.bridge")]
)
def test_a_meta_that_cannot_be_read_is_a_mismatch(meta: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelMismatch, match=reason):
        plan(Canned("3.6.0", i=there(meta)), "i", Model())


def test_a_meta_with_more_in_it_than_this_release_knows_is_read() -> None:
    assert plan(Canned("3.6.0", i=there({"more": 1})), "i", Model()).model.space == "space-1"


def test_an_administrators_replicas_stand_unless_others_are_asked_for() -> None:
    own = there(**{"index.auto_expand_replicas": "false", "index.number_of_replicas": "3"})
    assert plan(Canned("3.6.0", i=own), "i", Model()).steps == []
    planned = plan(Canned("3.6.0", i=own), "i", Model(), RegisterOptions(replicas=1))
    assert planned.settings == {"index.number_of_replicas": "1"}
    expanding = plan(Canned("3.6.0", i=there()), "i", Model(), RegisterOptions(replicas=1))
    assert expanding.settings == {"index.number_of_replicas": "1", "index.auto_expand_replicas": "false"}


def test_defaults_that_the_engine_adds_to_a_field_are_no_difference() -> None:
    state = there()
    state["i"]["mappings"]["properties"]["embedding"]["positive_score_impact"] = True
    assert plan(Canned("3.6.0", i=state), "i", Model()).steps == []


def test_the_difference_is_a_diff_of_the_index_there_and_wanted() -> None:
    state = {"i": {"mappings": {}, "settings": {}}}
    diff = plan(Canned("3.6.0", i=state), "i", Model()).diff
    assert diff.startswith("--- i (there)\n+++ i (wanted)\n")
    assert '+        "type": "rank_features"' in diff


def test_steps_are_in_the_order_of_the_requests() -> None:
    model = IndexModel("s", "m", ("m",), "rank_features", "v", ("text",))
    planned = Plan("i", model, mapping={}, settings={}, pipelines={"p": {}})
    assert planned.steps == ["put search pipeline p", "extend the mapping of i", "change settings of i"]


def test_a_setting_that_is_fixed_is_a_conflict() -> None:
    with pytest.raises(IndexConflict, match=r"index\.number_of_shards 1, wanted 2"):
        plan(Canned("3.6.0", i=there(**{"index.number_of_shards": "1"})), "i", Model(), RegisterOptions(shards=2))


# --- Dense models -------------------------------------------------------------------------------------------


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("files", "dimension"),
    [
        ({"config.json": '{"hidden_size": 384}'}, 384),
        ({"config.json": '{"hidden_size": 768}', "1_Pooling/config.json": '{"word_embedding_dimension": 512}'}, 512),
        (
            {
                "config.json": '{"hidden_size": 768}',
                "1_Pooling/config.json": '{"word_embedding_dimension": 768}',
                "2_Dense/config.json": '{"in_features": 768, "out_features": 128}',
            },
            128,
        ),
    ],
)
def test_the_dimension_is_that_of_the_last_module(tmp_path: Path, files: dict[str, str], dimension: int) -> None:
    assert describe_dense(write(tmp_path, files)).dimension == dimension


def test_a_folder_that_says_no_dimension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="has no hidden_size"):
        describe_dense(write(tmp_path, {"config.json": '{"hidden_size": "many"}'}))
    with pytest.raises(ModelFormatError, match=r"has no config\.json"):
        describe_dense(write(tmp_path / "empty", {"other.json": "{}"}))


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    files = {"config.json": '{"hidden_size": 384}', "model.safetensors": "one"}
    one = describe_dense(write(tmp_path / "a", files))
    same = describe_dense(write(tmp_path / "b", files))
    other = describe_dense(write(tmp_path / "c", {**files, "model.safetensors": "two"}))
    assert one.fingerprint == same.fingerprint != other.fingerprint


# --- Passages, and names that fields may have ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (RegisterOptions(dense=DENSE, dense_field="embedding"), "each field needs a name of its own"),
        (RegisterOptions(field="bridge_content_hash"), "each field needs a name of its own"),
        (RegisterOptions(passages="nested", passage_tokens=9, field="start"), "each field needs a name of its own"),
        (
            RegisterOptions(passages="nested", passage_tokens=9, dense=DENSE, passage_field="dense"),
            "each field needs a name of its own",
        ),
        (RegisterOptions(passages="nested", passage_tokens=9, passage_field="a.b"), "must be a plain name"),
        (RegisterOptions(dense=DENSE, dense_field=" "), "must be a plain name"),
    ],
)
def test_names_that_mean_two_things_are_refused(options: RegisterOptions, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        plan(Canned("3.6.0"), "i", Countable(), options)


class Countable(Model):
    """A made-up encoder whose tokens are words."""

    passage_tokenizer = WordOffsets()
    max_document_tokens = 256


def test_a_nested_field_may_be_named_like_one_outside() -> None:
    options = RegisterOptions(passages="nested", dense=DENSE, field="dense")
    properties = created(Canned("3.6.0"), Countable(), options)["mappings"]["properties"]
    assert properties["passages"]["properties"]["dense"] == {"type": "rank_features"}
    assert properties["dense"]["type"] == "knn_vector"


@pytest.mark.parametrize(
    ("version", "elasticsearch", "kind", "type_"),
    [
        ("3.6.0", False, "sparse_vector", "sparse_vector"),
        ("2.19.1", False, None, "rank_features"),
        ("7.17.29", True, None, "rank_features"),
        ("9.2.0", True, None, "sparse_vector"),
    ],
)
def test_nested_passages_are_mapped_for_every_product(version: str, elasticsearch: bool, kind: Any, type_: str) -> None:
    options = RegisterOptions(kind=kind, passages="nested", overlap=4)
    body = created(Canned(version, elasticsearch=elasticsearch), Countable(), options)
    properties = body["mappings"]["properties"]
    assert "embedding" not in properties
    assert properties["passages"]["type"] == "nested"
    assert properties["passages"]["properties"]["embedding"]["type"] == type_
    meta = body["mappings"]["_meta"]["bridge"]
    found = {name: meta[name] for name in ("passages", "passage_field", "field", "passage_tokens", "passage_overlap")}
    assert found == {
        "passages": "nested",
        "passage_field": "passages",
        "field": "embedding",
        # The model's own length, written out.
        "passage_tokens": 256,
        "passage_overlap": 4,
    }


def test_whole_texts_leave_nothing_of_passages_in_meta() -> None:
    meta = created(Canned("3.6.0"), Countable())["mappings"]["_meta"]["bridge"]
    assert not {"passages", "passage_field", "passage_tokens", "passage_overlap", "pruning"} & set(meta)


def test_an_index_of_another_space_says_so_whatever_the_passages() -> None:
    index = Canned("3.6.0", i=there({"passages": "merge", "passage_tokens": 512}))
    with pytest.raises(ModelMismatch, match="belongs to model model-1"):
        plan(index, "i", Countable("model-2", "space-2"))


def test_dense_vectors_stay_in_their_field_and_of_their_model() -> None:
    index = Canned("3.6.0", i=there({"dense_field": "meaning", "dense_encoder": "dense-0"}, **{"index.knn": "true"}))
    assert plan(index, "i", Model(), RegisterOptions(dense=DENSE)).model.dense_field == "meaning"
    with pytest.raises(IndexConflict, match="keeps its dense vectors in meaning, not in other"):
        plan(index, "i", Model(), RegisterOptions(dense=DENSE, dense_field="other"))
    with pytest.raises(ModelMismatch, match="holds dense vectors of dense-0, not of dense-1"):
        plan(index, "i", Model(), RegisterOptions(dense=DenseModel("d", "dense-1", 384)))


@pytest.mark.parametrize(("normalized", "similarity"), [(True, "dot_product"), (False, "max_inner_product")])
def test_elasticsearch_is_told_whether_dense_vectors_have_unit_length(normalized: bool, similarity: str) -> None:
    dense = DenseModel("d", "dense-1", 384, normalized)
    body = created(Canned("9.2.0", elasticsearch=True), Model(), RegisterOptions(dense=dense))
    assert body["mappings"]["properties"]["dense"]["similarity"] == similarity


def test_a_broken_pruning_in_meta_is_named() -> None:
    with pytest.raises(ModelMismatch, match=r"unreadable _meta\.bridge.*pruning"):
        plan(Canned("3.6.0", i=there({"pruning": "half"})), "i", Model())
