"""ONNX files: exported ones, the form that Splade_PP publishes, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed: no onnxruntime")
onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed: no onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bridge import load_encoder  # noqa: E402
from bridge.encode import onnx_runtime  # noqa: E402
from bridge.encode.onnx_runtime import OnnxModel, choose_providers, padded  # noqa: E402
from bridge.encode.run_options import RunOptions  # noqa: E402
from bridge.errors import ModelFormatError, UsageError  # noqa: E402

BERT_NAMES = ("input_ids", "attention_mask", "token_type_ids")
OLD_NAMES = ("input_ids", "input_mask", "segment_ids")
TEXTS = ["thermal stress in glass", "ok", "", "the weather in new york is rainy today, and was so yesterday"]


def logits_file(path: Path, table: Any, names: tuple[str, ...], kind: int = TensorProto.INT64) -> None:
    """A "model" whose logits are ``table[token]``, plus 0.25 for each token of type 1: the published files' form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nodes = [helper.make_node("Gather", ["table", names[0]], ["rows"])]
    # Every input must count, or the library drops it.
    nodes.append(helper.make_node("Cast", [names[1]], ["mask"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("ReduceSum", ["mask"], ["total"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["total", "zero"], ["nothing"]))
    nodes.append(helper.make_node("Add", ["rows", "nothing"], ["logits" if len(names) < 3 else "sum"]))
    if len(names) == 3:
        nodes.append(helper.make_node("Cast", [names[2]], ["types"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Unsqueeze", ["types", "two"], ["column"]))
        nodes.append(helper.make_node("Add", ["sum", "column"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "logits",
        [helper.make_tensor_value_info(name, kind, ["b", "l"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "l", table.shape[1]])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.zeros((), np.float32), "zero"),
            numpy_helper.from_array(np.array([2], np.int64), "two"),
        ],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.fixture(scope="module")
def table() -> Any:
    return (np.random.default_rng(0).standard_normal((30522, 40)) - 1).astype(np.float32)


def published(folder: Path, shared: Path) -> Path:
    """A folder as prithivida's: a masked language model's config and tokenizer, its weights as onnx/model.onnx."""
    folder.mkdir()
    shutil.copyfile(shared / "bert-uncased" / "tokenizer.json", folder / "tokenizer.json")
    (folder / "config.json").write_text('{"architectures": ["BertForMaskedLM"], "max_position_embeddings": 512}')
    return folder


@pytest.mark.parametrize(
    ("names", "kind"),
    [(BERT_NAMES, TensorProto.INT64), (OLD_NAMES, TensorProto.INT32), (BERT_NAMES[:2], TensorProto.INT64)],
)
def test_a_published_file_is_pooled_here(tmp_path: Path, shared: Path, names: tuple[str, ...], kind: int) -> None:
    folder = published(tmp_path / "model", shared)
    # As wide as the vocabulary, but of few tokens: the file stays small.
    narrow = (np.random.default_rng(0).standard_normal((64, 30522)) - 2).astype(np.float32)
    logits_file(folder / "onnx" / "model.onnx", narrow, names, kind)
    encoder = load_encoder(folder)
    framed = encoder._pieces.framed(TEXTS, 512)  # type: ignore[attr-defined]
    ids = [[token % 64 for token in one.ids] for one in framed]
    found = encoder.runtime.encode(ids, dropped=[101])  # type: ignore[attr-defined]
    for sequence, (places, weights) in zip(ids, found, strict=True):
        expected = np.log1p(np.maximum(narrow[sequence].max(0), 0))
        expected[101] = 0
        assert np.array_equal(places, np.flatnonzero(expected))
        np.testing.assert_allclose(weights, expected[places], atol=1e-6)
    assert encoder.query_fingerprint == encoder.fingerprint


@pytest.mark.parametrize(
    ("names", "says"), [(("pixel_values", "attention_mask"), "pixel_values"), (("input_ids", "position_ids"), "inputs")]
)
def test_other_inputs_are_refused(tmp_path: Path, table: Any, names: tuple[str, ...], says: str) -> None:
    logits_file(tmp_path / "model.onnx", table[:50], names)
    with pytest.raises(ModelFormatError, match=says):
        OnnxModel(tmp_path / "model.onnx", RunOptions())


def test_another_vocabulary_is_refused(tmp_path: Path, shared: Path, table: Any) -> None:
    folder = published(tmp_path / "model", shared)
    logits_file(folder / "onnx" / "model.onnx", table[:50], BERT_NAMES)
    with pytest.raises(ModelFormatError, match="30522 tokens"):
        load_encoder(folder).encode_document(["a text"])


def test_no_onnx_file_at_all(tmp_path: Path, shared: Path) -> None:
    folder = published(tmp_path / "model", shared)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"this is no protobuf")
    with pytest.raises(ModelFormatError, match="cannot be read as ONNX"):
        load_encoder(folder).encode_document(["a text"])


def test_devices() -> None:
    assert choose_providers("cpu", int8=True) == ["CPUExecutionProvider"]
    assert choose_providers("auto", int8=True) == ["CPUExecutionProvider"]
    with pytest.raises(UsageError, match="ten times slower"):
        choose_providers("cuda", int8=True)
    with pytest.raises(UsageError, match="not known"):
        choose_providers("mps", int8=False)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(UsageError, match="no CUDA provider"):
            choose_providers("cuda:1", int8=False)


def test_padding() -> None:
    tokens, mask = padded([[5, 6, 7], [8]])
    assert tokens.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def products_file(path: Path, weight: int) -> None:
    """Gives ``logits = Σ uint8(input_ids) · weight`` over the tokens of a text, as an int8 product."""
    small = numpy_helper.from_array(np.full((96, 8), weight, np.int8), "weight")
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("MatMulInteger", ["bytes", "weight"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["sums"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMin", ["mask"], ["one"], keepdims=0),
        helper.make_node("Mul", ["sums", "one"], ["logits"]),
    ]
    sides = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "l"]) for name in BERT_NAMES[:2]]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 8])
    graph = helper.make_graph(nodes, "products", sides, [out], [small])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("weight", [127, -127])
def test_int8_products_do_not_saturate(
    tmp_path: Path, weight: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """255·127 twice is more than 16 bits hold, and that is how processors without VNNI add them up."""
    if not known:
        monkeypatch.setattr(onnx_runtime, "_CPU", tmp_path / "not there")
        assert not onnx_runtime.sums_in_32_bits()
    products_file(tmp_path / "model.onnx", weight)
    ids = np.full((40, 96), 255, dtype=np.int64)
    (found,) = OnnxModel(tmp_path / "model.onnx", RunOptions()).run(["logits"], ids, np.ones_like(ids), threads=1)
    assert (found == 96 * 255 * weight).all()


def test_what_the_processor_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, exact in (
        ("fpu avx2 fma", False),
        ("fpu avx512_vnni", True),
        ("avx_vnni", True),
        ("avx512_vnni2", False),
    ):
        monkeypatch.setattr(onnx_runtime, "_CPU", tmp_path / "cpuinfo")
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        assert onnx_runtime.sums_in_32_bits() is exact
