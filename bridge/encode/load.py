"""One loader: a folder's files say which encoder reads it.

Each family is imported when a folder is of it: a process that asks by a table starts faster without the others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bridge.encode.base import Encoder
from bridge.encode.folder import CARD_FILE, EXPORT_FILE, find_table, read_json
from bridge.encode.lookup import LookupEncoder
from bridge.errors import ModelFormatError, ModelNotFound, UsageError

if TYPE_CHECKING:
    from bridge.encode.run_options import RunOptions
    from bridge.models import Activation


def load_encoder(
    model: str | os.PathLike[str],
    *,
    device: str = "cpu",
    precision: str | None = None,
    revision: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    activation: Activation | None = None,
    threads: int | None = None,
    teacher: str | None = None,
) -> Encoder:
    """The encoder of a folder, a Hugging Face id, or a fitted model's fingerprint in the local cache.

    Args:
        model: a folder, an id such as ``naver/splade-v3``, or a fingerprint such as ``lexical-0123456789abcdef``.
        device: where a neural encoder runs: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``auto``.
        precision: ``fp32``, ``bf16`` or ``fp16``; fp32 on a CPU and bf16 on a GPU by default.
        revision: of a Hugging Face repository.
        allow_pickle: read pytorch_model.bin, restricted to tensors, where there are no safetensors.
        trust_remote_code: run code that the model's folder brings along for its architecture.
        activation: another one than the model's files or card say.
        threads: of the ONNX runtime; all usable cores by default.
        teacher: where a projection model's dense encoder is, if not where it was when the model was fitted.

    Raises:
        ModelNotFound: there is no such folder, repository or cached model.
        UsageError: a teacher was named, and the model has none.
        ModelFormatError: the folder lacks a file, or a file is not what it should be.
    """
    folder = find_folder(model, revision=revision, allow_pickle=allow_pickle)
    fitted = (folder / CARD_FILE).is_file()
    if teacher and not fitted:
        raise UsageError(
            f"model {model} has no teacher: only a projection model, as bridge fit --teacher makes it, has"
        )
    if fitted or (folder / EXPORT_FILE).is_file() or _has_transformer(folder):
        from bridge.encode.run_options import RunOptions

        run = RunOptions(device, precision, allow_pickle, trust_remote_code, threads=threads)
        if fitted:
            return _fitted(folder, run, teacher)
        name = None if Path(model).expanduser().is_dir() else os.fspath(model)
        if encoder := _neural(folder, name, run, activation):
            return encoder
    if (folder / "tokenizer.json").is_file():
        table = find_table(folder)
        if table is None and _is_static_embedding(folder):
            table = folder / "model.safetensors"
        if table:
            return LookupEncoder(folder, table=table)
    raise ModelFormatError(_why_not(folder))


def _neural(folder: Path, name: str | None, run: RunOptions, activation: Activation | None) -> Encoder | None:
    """The model of a folder that holds a transformer; None where it holds none that makes sparse vectors."""
    plain = replace(run, allow_pickle=False, trust_remote_code=False)
    if (folder / EXPORT_FILE).is_file():
        from bridge.encode.exported import OnnxSpladeEncoder

        return OnnxSpladeEncoder(folder, name=name, options=plain)
    from bridge.encode.recipe import has_weights, is_sparse_folder
    from bridge.models import find_card

    card = find_card(name or folder.name)
    if card:
        from bridge.encode.licences import say_licence

        say_licence(card)
    if not is_sparse_folder(folder):
        return None
    if has_weights(folder):
        from bridge.encode.splade import SpladeEncoder

        permitted = run.allow_pickle or bool(card and card.allow_pickle)
        options = replace(run, allow_pickle=permitted, threads=None)
        return SpladeEncoder(folder, name=name, options=options, activation=activation)
    from bridge.encode.exported import OnnxSpladeEncoder, find_published

    published = find_published(folder)
    return OnnxSpladeEncoder(folder, name=name, options=plain, published=published) if published else None


def _fitted(folder: Path, options: RunOptions, teacher: str | None) -> Encoder:
    try:
        content = read_json(folder / CARD_FILE)
    except ModelFormatError:
        # The reader of a lexical model's card says best what is wrong with it.
        content = None
    if isinstance(content, dict) and content.get("family") == "projection":
        from bridge.encode.projection import ProjectionEncoder

        return ProjectionEncoder(folder, teacher=teacher, options=options)
    if teacher:
        raise UsageError(f"{folder} is a lexical model, which has no teacher; fit another one with --teacher {teacher}")
    from bridge.encode.lexical import LexicalEncoder

    return LexicalEncoder(folder)


def _is_sparse(folder: Path) -> bool:
    if not _has_transformer(folder):
        return False
    from bridge.encode.recipe import is_sparse_folder

    return is_sparse_folder(folder)


def _has_transformer(folder: Path) -> bool:
    return (folder / "modules.json").is_file() or (folder / "config.json").is_file()


def _is_static_embedding(folder: Path) -> bool:
    """Whether this is a SparseStaticEmbedding alone: its table and its tokenizer, and no transformer."""
    return (folder / "model.safetensors").is_file() and not (folder / "config.json").is_file()


def _why_not(folder: Path) -> str:
    """What keeps the folder from being a sparse model, and what would help."""
    if _is_sparse(folder):
        return f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin"
    if _has_transformer(folder):
        return (
            f"{folder} is not a sparse model: its architecture is no masked language model, and it has no table of "
            "query weights; a dense model goes with --dense"
        )
    if not (folder / "tokenizer.json").is_file():
        return (
            f"{folder} is not a model folder: it has no tokenizer.json (an inference-free model has "
            f"tokenizer.json and idf.json; a fitted one has {CARD_FILE})"
        )
    return (
        f"{folder} has a tokenizer.json but no idf.json (queries without inference) and no weights of a masked "
        f"language model; fit a model over its vocabulary with: bridge fit SOURCE -o FOLDER --tokenizer {folder}"
    )


def find_folder(model: str | os.PathLike[str], *, revision: str | None = None, allow_pickle: bool = False) -> Path:
    """The folder that `model` names: a path, a fingerprint in the local cache, or a Hugging Face id.

    Raises:
        ModelNotFound: it is none of them, or cannot be fetched.
    """
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
        if origin := remembered_model(name):
            return find_folder(origin.model, revision=origin.revision, allow_pickle=allow_pickle)
        raise ModelNotFound(f"no model {name}: there is no such folder, and no fitted model of that name in the cache")
    from bridge.encode.hub import fetch_repository, is_repository

    if is_repository(name):
        return fetch_repository(name, revision=revision, allow_pickle=allow_pickle)
    raise ModelNotFound(f"no model {name}: there is no such folder")


class ModelOrigin(msgspec.Struct, frozen=True):
    """How a model was named when it was used: a path or a Hugging Face id, and what else decides its vectors."""

    model: str
    revision: str | None = None
    activation: str | None = None

    @classmethod
    def of(cls, model: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> ModelOrigin:
        """Of a folder its whole path, so that it is found from any other; `options` as for `load_encoder`."""
        path = Path(model).expanduser()
        name, options = str(path.resolve()) if path.is_dir() else os.fspath(model), options or {}
        return cls(name, options.get("revision"), options.get("activation"))


def remember_model(fingerprint: str, origin: ModelOrigin) -> None:
    """Keep, in the local cache, where the model of that fingerprint lies."""
    path = _pointer(fingerprint)
    # A cache that cannot be written costs a --model, nothing else.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(origin))


def remembered_model(fingerprint: str) -> ModelOrigin | None:
    """Where the model of that fingerprint was last seen; None where it never was, or its folder is gone."""
    try:
        origin = msgspec.json.decode(_pointer(fingerprint).read_bytes(), type=ModelOrigin)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return None if Path(origin.model).is_absolute() and not Path(origin.model).is_dir() else origin


def local_models() -> list[tuple[str, str]]:
    """Fingerprint and place of each model that was fitted, fetched from a cluster, or used on this machine."""
    folder = _models()
    if not folder.is_dir():
        return []
    found = {path.name: str(path) for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    for path in folder.glob("*.json"):
        if origin := remembered_model(path.stem):
            found[path.stem] = origin.model
    return sorted(found.items())


def _pointer(fingerprint: str) -> Path:
    return _models() / f"{fingerprint}.json"


def cached_model(fingerprint: str) -> Path:
    """Where a fitted model of that fingerprint lies in the local cache (it may not be there)."""
    return _models() / fingerprint


def _models() -> Path:
    # A folder that is named needs no cache, nor the settings that say where it is.
    from bridge.settings import cache_folder

    return cache_folder() / "models"
