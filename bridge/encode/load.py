"""One loader: a folder's files say which encoder reads it."""

from __future__ import annotations

import os
from pathlib import Path

from bridge.encode.base import Encoder
from bridge.encode.lexical import CARD_FILE, LexicalEncoder
from bridge.encode.lookup import LookupEncoder
from bridge.errors import ModelFormatError, ModelNotFound
from bridge.settings import cache_folder


def load_encoder(model: str | os.PathLike[str], *, device: str = "cpu") -> Encoder:
    """The encoder of a folder, or of a fitted model's fingerprint in the local cache.

    Args:
        model: a folder, or a fingerprint such as ``lexical-0123456789abcdef``.
        device: where a neural encoder would run; the families read here need none.

    Raises:
        ModelNotFound: there is no such folder or cached model.
        ModelFormatError: the folder lacks a file, or a file is not what it should be.
    """
    del device
    folder = find_folder(model)
    if (folder / CARD_FILE).is_file():
        return LexicalEncoder(folder)
    if not (folder / "tokenizer.json").is_file():
        raise ModelFormatError(
            f"{folder} is not a model folder: it has no tokenizer.json (an inference-free model has "
            f"tokenizer.json and idf.json; a fitted one has {CARD_FILE})"
        )
    if (folder / "idf.json").is_file():
        return LookupEncoder(folder)
    raise ModelFormatError(
        f"{folder} has a tokenizer.json but no idf.json, so it cannot encode queries without inference; "
        "fit a model over its vocabulary with: bridge fit SOURCE -o FOLDER --tokenizer " + str(folder)
    )


def find_folder(model: str | os.PathLike[str]) -> Path:
    """The folder that `model` names: a path, or a fingerprint in the local cache."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelFormatError(f"{path} is a file; a model is a folder")
    name = os.fspath(model)
    if os.sep not in name and name not in {"", ".", ".."}:
        cached = cached_model(name)
        if cached.is_dir():
            return cached
    raise ModelNotFound(f"no model {name}: there is no such folder, and no fitted model of that name in the cache")


def cached_model(fingerprint: str) -> Path:
    """Where a fitted model of that fingerprint lies in the local cache (it may not be there)."""
    return cache_folder() / "models" / fingerprint
