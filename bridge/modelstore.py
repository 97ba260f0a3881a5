"""Models travel with their index: stored in `.bridge-models` of the same cluster.

What needs no neural weights (a fitted model, an inference-free query side) is stored whole: gzip-packed,
split into parts of a megabyte, and read back only if its sha256 is the one that was stored. The local
cache comes first, so a machine asks the cluster once. Of a model with weights its Hugging Face id is
stored, and this machine remembers where it lay.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bridge import templates
from bridge.encode.base import Encoder
from bridge.encode.dense import DenseEncoder, load_dense
from bridge.encode.folder import writing
from bridge.encode.hub import is_repository
from bridge.encode.load import ModelOrigin, cached_model, load_encoder, remember_model, remembered_model
from bridge.engines import Engine
from bridge.errors import IndexNotFound, ModelError, ModelFormatError, ModelNotFound, RequestRejected

MODELS_INDEX = ".bridge-models"

MODEL_FILES = (
    "bridge.json",
    "idf.json",
    "model.safetensors",
    "projection.safetensors",
    "query_token_weights.txt",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""What a model without neural weights consists of; nothing else is stored or written."""

_PART = 1_000_000
_PARTS_AT_ONCE = 4
_MEND = "register or ingest with the model's folder again (--model), and it is stored anew"


class _Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    model: str
    files: dict[str, str]
    """File name ─▶ sha256 of its content."""
    parts: dict[str, int]
    """File name ─▶ number of parts."""
    origin: ModelOrigin | None = None
    """Of a model with weights: nothing is stored but this."""


def save_model(engine: Engine, encoder: Encoder, origin: ModelOrigin) -> None:
    """Store in the cluster what of `encoder` travels, unless it is there, whole.

    Args:
        engine: the cluster.
        encoder: the index's.
        origin: how it was named; a Hugging Face id is stored too, a folder is remembered on this machine alone.
    """
    _make_index(engine)
    for fingerprint, files in encoder.portable.items():
        if not _is_whole(engine, fingerprint):
            _save_files(engine, fingerprint, files)
    for fingerprint in {encoder.fingerprint, encoder.query_fingerprint} - set(encoder.portable):
        _remember(engine, fingerprint, origin)


def save_dense(engine: Engine, fingerprint: str, origin: ModelOrigin) -> None:
    """Remember where an index's dense encoder is to be had; its weights stay where they are."""
    _make_index(engine)
    _remember(engine, fingerprint, origin)


def _remember(engine: Engine, fingerprint: str, origin: ModelOrigin) -> None:
    remember_model(fingerprint, origin)
    stored = engine.get_sources(MODELS_INDEX, [fingerprint], ["model"])
    if is_repository(origin.model) and not Path(origin.model).is_dir() and fingerprint not in stored:
        _put(engine, [(fingerprint, msgspec.to_builtins(_Manifest(fingerprint, {}, {}, origin)))])


def _make_index(engine: Engine) -> None:
    state = engine.get_index(MODELS_INDEX)
    if state is None:
        body = templates.load_template("mappings", engine.product, "models")
        try:
            engine.create_index(MODELS_INDEX, body)
        except RequestRejected:
            # Another process made it in between.
            engine.require_index(MODELS_INDEX)


def _save_files(engine: Engine, fingerprint: str, paths: Sequence[Path]) -> None:
    """The manifest is written last: a model that has one is whole."""
    files: dict[str, str] = {}
    parts: dict[str, int] = {}
    for path in paths:
        content = path.read_bytes()
        files[path.name] = hashlib.sha256(content).hexdigest()
        parts[path.name] = _store(engine, fingerprint, path.name, gzip.compress(content, mtime=0))
    _put(engine, [(fingerprint, msgspec.to_builtins(_Manifest(fingerprint, files, parts)))])


def find_model(engine: Engine, fingerprint: str, **options: Any) -> Encoder:
    """The model of that fingerprint, from the local cache or else from the cluster.

    Args:
        engine: the cluster.
        fingerprint: as an index's `_meta` has it.
        options: device, precision and the rest, as for `bridge.load_encoder`.

    Raises:
        ModelNotFound: neither has it.
        ModelFormatError: what the cluster holds is not what was stored.
    """
    folder = cached_model(fingerprint)
    origin = None if folder.is_dir() else remembered_model(fingerprint) or _fetch(engine, fingerprint, folder)
    if origin:
        options |= {"revision": origin.revision, "activation": origin.activation}
    encoder = load_encoder(origin.model if origin else folder, **options)
    if fingerprint not in (encoder.fingerprint, encoder.query_fingerprint):
        where = origin.model if origin else folder
        raise ModelFormatError(
            f"{where} was changed: it is now {encoder.fingerprint}, not {fingerprint}; "
            + ("name the model with --model" if origin else "delete it, and it is fetched anew")
        )
    return encoder


def find_dense(engine: Engine, fingerprint: str, **options: Any) -> DenseEncoder:
    """The dense encoder of that fingerprint, from where it was last seen or the cluster says.

    Args:
        engine: the cluster.
        fingerprint: as an index's `_meta` has it.
        options: device, precision and the rest, as for `bridge.encode.dense.load_dense`.

    Raises:
        ModelNotFound: neither knows it.
        ModelFormatError: what is there now is another model.
    """
    origin = remembered_model(fingerprint)
    if origin is None:
        try:
            manifest = _manifest(engine, fingerprint)
        except IndexNotFound:
            manifest = None
        origin = manifest.origin if manifest else None
    if origin is None:
        raise ModelNotFound(
            f"where the dense model {fingerprint} is to be had is known neither here nor in {MODELS_INDEX} of "
            f"{engine.url}; name its folder with --dense"
        )
    encoder = load_dense(origin.model, **options | {"revision": origin.revision})
    if encoder.fingerprint != fingerprint:
        raise ModelFormatError(
            f"{origin.model} was changed: it is now {encoder.fingerprint}, not {fingerprint}; "
            "name the dense model with --dense"
        )
    return encoder


def stored_models(engine: Engine) -> list[str]:
    """Fingerprints of the models that the cluster holds."""
    try:
        engine.refresh(MODELS_INDEX)
        found = engine.search(MODELS_INDEX, {"size": 1000, "query": {"exists": {"field": "model"}}})
    except IndexNotFound:
        return []
    return sorted(hit["_id"] for hit in found["hits"]["hits"])


def _fetch(engine: Engine, fingerprint: str, folder: Path) -> ModelOrigin | None:
    """Bring the model's files into `folder`; of a model with weights, say where they are to be had."""
    try:
        manifest = _manifest(engine, fingerprint)
    except IndexNotFound:
        manifest = None
    if manifest is None:
        raise ModelNotFound(
            f"model {fingerprint} is neither in the local cache nor in {MODELS_INDEX} of {engine.url}; "
            "name its folder with --model"
        )
    if manifest.origin:
        return manifest.origin
    with writing(folder):
        _fetch_files(engine, manifest, folder)
    return None


def _fetch_files(engine: Engine, manifest: _Manifest, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
        half = Path(temporary) / "model"
        half.mkdir()
        for name, content in _files(engine, manifest):
            (half / name).write_bytes(content)
        try:
            half.replace(folder)
        except OSError:
            # Another process was faster; it wrote the same bytes.
            if not folder.is_dir():
                raise


def _manifest(engine: Engine, fingerprint: str) -> _Manifest | None:
    found = engine.get_sources(MODELS_INDEX, [fingerprint], ["model", "files", "parts", "origin"])
    return msgspec.convert(found[fingerprint], _Manifest) if fingerprint in found else None


def _is_whole(engine: Engine, fingerprint: str) -> bool:
    manifest = _manifest(engine, fingerprint)
    try:
        return manifest is not None and all(name in MODEL_FILES for name, _ in _files(engine, manifest))
    except ModelFormatError:
        return False


def _files(engine: Engine, manifest: _Manifest) -> Iterator[tuple[str, bytes]]:
    """Name and content of each stored file, checked."""
    for name, digest in manifest.files.items():
        what = f"{name} of model {manifest.model} in {MODELS_INDEX} of {engine.url}"
        if name not in MODEL_FILES:
            raise ModelFormatError(f"{what} is no file that a model has")
        try:
            content = gzip.decompress(b"".join(_parts(engine, manifest.model, name, manifest.parts[name])))
        except (KeyError, ValueError, OSError, EOFError, zlib.error):
            content = None
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            raise ModelFormatError(f"{what} is damaged; {_MEND}")
        yield name, content


def _store(engine: Engine, fingerprint: str, name: str, packed: bytes) -> int:
    pieces = [packed[start : start + _PART] for start in range(0, len(packed), _PART)]
    for first in range(0, len(pieces), _PARTS_AT_ONCE):
        chunk = enumerate(pieces[first : first + _PARTS_AT_ONCE], first)
        _put(
            engine,
            [(f"{fingerprint}/{name}/{i}", {"data": base64.b64encode(piece).decode()}) for i, piece in chunk],
        )
    return len(pieces)


def _parts(engine: Engine, fingerprint: str, name: str, count: int) -> Iterator[bytes]:
    for first in range(0, count, _PARTS_AT_ONCE):
        ids = [f"{fingerprint}/{name}/{i}" for i in range(first, min(count, first + _PARTS_AT_ONCE))]
        found = engine.get_sources(MODELS_INDEX, ids, ["data"])
        for one in ids:
            if one not in found:
                raise ModelFormatError(f"part {one} is missing from {MODELS_INDEX} of {engine.url}; {_MEND}")
            yield base64.b64decode(found[one]["data"])


def _put(engine: Engine, documents: Sequence[tuple[str, object]]) -> None:
    lines = []
    for name, document in documents:
        lines += [msgspec.json.encode({"index": {"_id": name}}), msgspec.json.encode(document)]
    for item in engine.bulk(MODELS_INDEX, b"\n".join(lines) + b"\n"):
        if "error" in item["index"]:
            raise ModelError(f"the model cannot be stored in {MODELS_INDEX} of {engine.url}: {item['index']['error']}")
