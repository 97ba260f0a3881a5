"""What an index must know of a dense model: its fingerprint and its dimension, read off its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass

from bridge.encode.folder import file_hash, read_json
from bridge.encode.load import find_folder
from bridge.errors import ModelFormatError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "model.onnx")


@dataclass(frozen=True, slots=True)
class DenseModel:
    """A dense encoder as far as a mapping needs it."""

    name: str
    fingerprint: str
    dimension: int


def describe_dense(model: str | os.PathLike[str]) -> DenseModel:
    """Read a dense encoder's folder.

    The dimension is that of the last sentence-transformers `Dense` module, else of its pooling, else
    the transformer's `hidden_size`.

    Raises:
        ModelNotFound: there is no such folder.
        ModelFormatError: its files do not say a dimension.
    """
    folder = find_folder(model)
    config = folder / "config.json"
    dimension = read_json(config).get("hidden_size")
    for path in sorted(folder.glob("*_Pooling/config.json")) + sorted(folder.glob("*_Dense/config.json")):
        module = read_json(path)
        dimension = module.get("out_features") or module.get("word_embedding_dimension") or dimension
    if not isinstance(dimension, int) or dimension <= 0:
        raise ModelFormatError(f"{config} has no hidden_size, so the dimension of its vectors is not known")
    weights = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    return DenseModel(folder.name, f"dense-{file_hash(config, *weights)[:16]}", dimension)
