"""A model ─▶ a folder with an ONNX file that gives the same vectors, or an int8 one that gives nearly the same, faster.

The folder needs neither torch nor transformers to be used. It holds model.onnx (its larger weights in model.onnx.data
where they pass a file's limit), the tokenizer, the table of an inference-free query side, and a card with the source's
recipe and fingerprint (`bridge.encode.exported`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bridge.encode.dense import DenseEncoder, load_dense
from bridge.encode.exported import MODEL_FILE, DenseFacts, ExportCard, Precision, SparseFacts
from bridge.encode.folder import EXPORT_FILE, read_json
from bridge.encode.load import find_folder, load_encoder
from bridge.encode.recipe import is_sparse_folder
from bridge.encode.splade import SpladeEncoder
from bridge.errors import MissingExtra, ModelFormatError, UsageError
from bridge.records import SparseVector

_QUERY = "query"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

PROBES = (
    "Sparse retrieval weighs the words of a document, and words that it does not hold.",
    "What is the weather in New York now?",
    "The committee met on 3 March 2021 to discuss the budget; no decision was taken before the summer recess.",
    "def parse(line: str) -> list[int]: return [int(field) for field in line.split(',')]",
    "Crystalline silicon cells lose about 0.4 % of their power for each degree above 25 °C.",
    "ok",
)
"""Texts that an export is checked with when it has been written."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how near it is to its source.

    Attributes:
        folder: where.
        precision: ``fp32`` or ``int8``.
        fingerprint: of the documents that it encodes.
        size: bytes of the ONNX file and what lies beside it.
        difference: the largest of any weight or coordinate, over a handful of texts.
        cosine: the lowest between a text's vector and its source's.
    """

    folder: Path
    precision: Precision
    fingerprint: str
    size: int
    difference: float
    cosine: float


def export(
    model: str | os.PathLike[str],
    folder: Path,
    *,
    int8: bool = False,
    revision: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Exported:
    """Write `model` to `folder` as ONNX.

    Args:
        model: a sparse or a dense model: a folder or a Hugging Face id.
        folder: a new or an empty folder.
        int8: quantise: weights once, by column; activations as they come, by tensor.
        revision, allow_pickle, trust_remote_code: as for `bridge.load_encoder`.

    Raises:
        UsageError: the folder holds something, or there is nothing to export in the model.
        ModelFormatError: a family that is not known to be written as ONNX.
        MissingExtra: torch, or onnx, is not installed.
    """
    source = find_folder(model, revision=revision, allow_pickle=allow_pickle)
    if (source / EXPORT_FILE).is_file():
        raise UsageError(f"{source} is an export; export the model that it was made of")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder")
    permissions: Any = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code, "revision": revision}
    half = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        if _is_dense(source):
            dense = load_dense(model, **permissions)
            _write_dense(dense, half, int8=int8)
            found = _compare(dense, load_dense(half), half, folder)
        else:
            sparse = load_encoder(model, **permissions)
            _write_sparse(sparse, half, int8=int8)
            found = _compare(sparse, load_encoder(half), half, folder)
        if folder.exists():
            folder.rmdir()
        half.rename(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return found


def _is_dense(folder: Path) -> bool:
    return not is_sparse_folder(folder) and (
        (folder / "modules.json").is_file()
        or ((folder / "config.json").is_file() and bool(read_json(folder / "config.json").get("architectures")))
    )


def _write_sparse(encoder: Any, folder: Path, *, int8: bool) -> None:
    if not isinstance(encoder, SpladeEncoder):
        raise UsageError(f"{encoder.name} needs no inference to speak of: there is nothing to write as ONNX")
    recipe = encoder.recipe
    if recipe.query_recipe is not None:
        raise UsageError(f"{encoder.name} has a query model of its own: export its two transformers one by one")
    graph, parts = _writers()
    weights, config = _weights(encoder.runtime), read_json(recipe.transformer / "config.json")
    special = encoder.dropped if recipe.drop_special else ()
    graph.write_sparse(
        folder / MODEL_FILE,
        parts.read_body(weights, config),
        parts.read_head(weights, config, len(encoder.vocabulary)),
        graph.Pool(recipe.pooling, recipe.activation, special),
        int8=int8,
    )
    _copy(recipe.transformer, folder, _TOKENIZER)
    home = None
    if recipe.query_folder is not None and recipe.query_table is not None:
        # The query side may have a tokenizer of its own.
        home = "." if recipe.query_folder == recipe.transformer else _QUERY
        _copy(recipe.query_folder, folder / home, _TOKENIZER)
        shutil.copyfile(recipe.query_table, folder / home / recipe.query_table.name)
    facts = SparseFacts(
        pooling=recipe.pooling,
        activation=recipe.activation,
        drop_special=recipe.drop_special,
        document_length=recipe.document_length,
        query_length=recipe.query_length,
        encodes_documents=recipe.encodes_documents,
        document_prompt=recipe.document_prompt,
        query_prompt=recipe.query_prompt,
        lowercase=recipe.lowercase,
        query_folder=home,
        query_table=recipe.query_table.name if home and recipe.query_table else None,
    )
    _write_card(folder, ExportCard(1, _precision(int8), encoder.name, encoder.fingerprint, sparse=facts))


def _write_dense(encoder: DenseEncoder, folder: Path, *, int8: bool) -> None:
    recipe = encoder.recipe
    if recipe.projections:
        raise ModelFormatError(f"{encoder.name} has a Dense module, which is not known to be written as ONNX here")
    graph, parts = _writers()
    body = parts.read_body(_weights(encoder.runtime), read_json(recipe.transformer / "config.json"))
    graph.write_dense(folder / MODEL_FILE, body, recipe.pooling, normalize=recipe.normalize, int8=int8)
    _copy(recipe.transformer, folder, _TOKENIZER)
    facts = DenseFacts(
        dimension=recipe.dimension,
        pooling=recipe.pooling,
        normalize=recipe.normalize,
        document_length=recipe.document_length,
        query_length=recipe.query_length,
        document_prompt=recipe.document_prompt,
        query_prompt=recipe.query_prompt,
        titled=recipe.titled,
        lowercase=recipe.lowercase,
    )
    _write_card(folder, ExportCard(1, _precision(int8), encoder.name, encoder.fingerprint, dense=facts))


def _writers() -> tuple[Any, Any]:
    try:
        from bridge.encode import onnx_graph, onnx_parts
    except ImportError:
        raise MissingExtra("export", "onnx") from None
    return onnx_graph, onnx_parts


def _weights(runtime: Any) -> dict[str, Any]:
    """The loaded weights by name, float32."""
    return {name: value.float().numpy() for name, value in runtime.model.state_dict().items()}


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    target.mkdir(exist_ok=True)
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _precision(int8: bool) -> Precision:
    return "int8" if int8 else "fp32"


def _write_card(folder: Path, card: ExportCard) -> None:
    encoded = msgspec.json.encode({key: value for key, value in msgspec.to_builtins(card).items() if value is not None})
    (folder / EXPORT_FILE).write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")


def _compare(source: Any, exported: Any, half: Path, folder: Path) -> Exported:
    """How the vectors of what was written differ from the source's."""
    documents = getattr(source, "encodes_documents", True)
    plain, other = (
        [_vector(one) for one in (encoder.encode_document if documents else encoder.encode_query)(PROBES)]
        for encoder in (source, exported)
    )
    pairs = list(zip(plain, other, strict=True))
    lengths = [float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs]
    return Exported(
        folder,
        exported.precision,
        exported.fingerprint,
        sum(path.stat().st_size for path in half.glob(f"{MODEL_FILE}*")),
        max(float(np.abs(a - b).max(initial=0)) for a, b in pairs),
        min(float(a @ b) / length if length else 1.0 for (a, b), length in zip(pairs, lengths, strict=True)),
    )


def _vector(found: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    if not isinstance(found, SparseVector):
        return np.asarray(found, dtype=np.float32)
    whole = np.zeros(len(found.vocabulary), dtype=np.float32)
    whole[found.ids] = found.weights
    return whole
