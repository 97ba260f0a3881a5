"""Models that cannot be used, from the command line: one line that says why, exit code 1 or 2, no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import sparse_folder, torch, transformers

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")

Fails = Callable[..., str]
Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def good(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sparse_folder(tmp_path_factory.mktemp("good") / "model", shared / "bert-uncased" / "tokenizer.json")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": "1", "text": "rain in the mountains"}\n')
    return path


def configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def reweigh(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_head(folder: Path) -> None:
    configure(folder, architectures=["BertModel"])


def wider(folder: Path) -> None:
    """A whole model, of a vocabulary that is not its tokenizer's."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config.vocab_size = 40_000
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)


def mislabelled(folder: Path) -> None:
    configure(folder, vocab_size=30_000)


def lacking(folder: Path) -> None:
    reweigh(folder, lambda weights: weights.pop("bert.encoder.layer.1.output.dense.weight"))


def weightless(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])


def pickled(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_code(folder: Path) -> None:
    configure(folder, model_type="new", auto_map={"AutoModelForMaskedLM": "modeling.NewForMaskedLM"})
    (folder / "modeling.py").write_text("raise SystemExit('this code must not run')\n")


def not_a_number(folder: Path) -> None:
    reweigh(folder, lambda weights: weights["bert.encoder.layer.0.output.dense.weight"].view(-1)[7].fill_(float("nan")))


def infinite(folder: Path) -> None:
    reweigh(folder, lambda weights: weights["cls.predictions.transform.dense.bias"].view(-1)[0].fill_(float("inf")))


def other_inputs(folder: Path) -> None:
    """Weights as ONNX alone, as published ones come, but of a model of pictures."""
    (folder / "model.safetensors").unlink()
    helper, kind = onnx.helper, onnx.TensorProto
    table = onnx.numpy_helper.from_array(np.zeros((8, 16), dtype=np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "pixel_values"], ["logits"])],
        "pictures",
        [helper.make_tensor_value_info("pixel_values", kind.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("logits", kind.FLOAT, ["batch", "length", 16])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "onnx").mkdir()
    onnx.save(model, folder / "onnx" / "model.onnx")


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


CASES = [
    (without_head, "no masked language model"),
    (wider, "30522 tokens, the model 40000"),
    (mislabelled, "misshapen"),
    (lacking, "lacks weights"),
    (weightless, "has no weights"),
    (cut_off, "cannot be read as a masked language model"),
    (pickled, "--allow-pickle reads it"),
    (with_code, "--trust-remote-code runs it"),
    (not_a_number, "not finite"),
    (infinite, "not finite"),
    (other_inputs, "its inputs are pixel_values"),
    (no_json, "config.json"),
    (no_tokenizer, "tokenizer.json"),
]


@pytest.mark.parametrize(("spoil", "says"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_each_is_one_line(spoil: Spoil, says: str, folder: Path, corpus: Path, fails: Fails) -> None:
    spoil(folder)
    for words in (["--text", "rain"], ["corpus.jsonl", "-o", "vectors.jsonl"]):
        said = fails(1, "encode", *words, "--model", str(folder), "--device", "cpu")
        assert says in said
        assert str(folder) in said
        assert not (corpus.parent / "vectors.jsonl").exists()


def test_the_good_one_is_good(folder: Path, bridge: Callable[..., tuple[int, str, str]]) -> None:
    """What is refused above is refused for what was done to it."""
    assert bridge("encode", "--text", "rain", "--model", str(folder), "--device", "cpu")[0] == 0
    pickled(folder)
    words = ["encode", "--text", "rain", "--model", str(folder), "--device", "cpu", "--allow-pickle"]
    assert bridge(*words)[0] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_there(folder: Path, fails: Fails, device: str) -> None:
    said = fails(2, "encode", "--text", "rain", "--model", str(folder), "--device", device)
    assert said == f"device {device} was asked for, and no GPU is to be had here; use cpu or auto"


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--device", "tpu", "device 'tpu' is not known"), ("--precision", "bf16", "several times slower than fp32")],
)
def test_bad_options(folder: Path, fails: Fails, option: str, value: str, says: str) -> None:
    words = ["encode", "--text", "rain", "--model", str(folder), *([] if option == "--device" else ["--device", "cpu"])]
    assert says in fails(2, *words, option, value)


@pytest.fixture
def licensed(good: Path, tmp_path: Path) -> Path:
    """A folder under the name of a model that is not for commercial use."""
    return Path(shutil.copytree(good, tmp_path / "splade-v3"))


def test_a_non_commercial_licence_is_one_notice(licensed: Path, tmp_path: Path) -> None:
    """In processes of their own, where nobody has set logging up: as a user sees it."""
    import subprocess
    import sys

    words = [sys.executable, "-m", "bridge", "encode", "--text", "rain", "--model", str(licensed), "--device", "cpu"]
    said = []
    for _ in range(2):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        said.append([line for line in done.stderr.splitlines() if "not for commercial use" in line])
    assert len(said[0]) == 1
    assert "naver/splade-v3 is licensed" in said[0][0]
    assert said[1] == []
