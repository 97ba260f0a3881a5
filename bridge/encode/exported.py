"""Folders that hold an ONNX file: those that `bridge export` writes, and published ones.

An unquantised export gives its source's vectors (within 1e-4), so it carries its source's fingerprints: an index made
with the one takes the other. An int8 export gives *other* document vectors in the same space: its documents have a
fingerprint of their own, so that one index never mixes the two. A query is scored against whatever documents are
there, so as a query encoder int8 stands for its source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from bridge.encode.dense import DenseEncoder, DenseModel, DenseRecipe, DenseRuntime
from bridge.encode.entries import SparseRuntime
from bridge.encode.folder import EXPORT_FILE, file_hash
from bridge.encode.recipe import Recipe
from bridge.encode.run_options import RunOptions
from bridge.encode.splade import SpladeEncoder
from bridge.errors import MissingExtra, ModelFormatError, UsageError
from bridge.models import Activation, Pooling

MODEL_FILE = "model.onnx"
PUBLISHED = ("onnx/model.onnx", "model.onnx")
"""Where published repositories keep the file."""

Precision = Literal["fp32", "int8"]


class SparseFacts(msgspec.Struct, frozen=True):
    """`Recipe` as it stands in the card, its paths relative to the folder."""

    pooling: Pooling
    activation: Activation
    drop_special: bool
    document_length: int
    query_length: int
    encodes_documents: bool
    document_prompt: str
    query_prompt: str
    lowercase: bool
    query_folder: str | None
    query_table: str | None


class DenseFacts(msgspec.Struct, frozen=True):
    """`DenseRecipe` as it stands in the card."""

    dimension: int
    pooling: Literal["cls", "mean", "max"]
    normalize: bool
    document_length: int
    query_length: int
    document_prompt: str
    query_prompt: str
    titled: bool
    lowercase: bool


class ExportCard(msgspec.Struct, frozen=True):
    """What `bridge export` writes beside the graph.

    Attributes:
        version: of this file's form.
        precision: of the graph.
        source: the model's name.
        fingerprint: the source's, of its documents.
        sparse, dense: how texts are encoded; one of them.
    """

    version: int
    precision: Precision
    source: str
    fingerprint: str
    sparse: SparseFacts | None = None
    dense: DenseFacts | None = None


def read_card(folder: Path) -> ExportCard:
    """The card of an exported folder.

    Raises:
        ModelFormatError: it has none, or not one that this release reads.
    """
    path = folder / EXPORT_FILE
    try:
        card = msgspec.json.decode(path.read_bytes(), type=ExportCard)
    except OSError as error:
        raise ModelFormatError(f"{folder} has no {EXPORT_FILE}") from error
    except msgspec.DecodeError as error:
        raise ModelFormatError(f"{path} is not the card of an export: {error}") from error
    if card.version != 1:
        raise ModelFormatError(f"{path} is of version {card.version}, which this release does not read")
    if not (folder / MODEL_FILE).is_file():
        raise ModelFormatError(f"{folder} has no {MODEL_FILE}")
    return card


def find_published(folder: Path) -> Path | None:
    """The ONNX file of a published repository's folder, if it has one."""
    return next((folder / name for name in PUBLISHED if (folder / name).is_file()), None)


class OnnxSpladeEncoder(SpladeEncoder):
    """A sparse model whose weights are an ONNX file.

    Args:
        folder: one that `bridge export` wrote, or, with `published`, a published one.
        name: the Hugging Face id that it was fetched as.
        options: device and threads; the precision is the file's.
        published: the ONNX file of a folder without a card, read by the folder's other files.
        recipe: of a published folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str | None = None,
        options: RunOptions | None = None,
        published: Path | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        self.precision: Precision = "fp32"
        self._file = published or folder / MODEL_FILE
        card = None if published else read_card(folder)
        if card is not None:
            if card.sparse is None:
                raise ModelFormatError(f"{folder} is an exported dense model; it goes with --dense")
            recipe, self.precision = _recipe(folder, card.sparse), card.precision
        super().__init__(folder, name=name, options=options, recipe=recipe)
        check_precision(self.options, self.precision)
        if card is not None:
            self._source = card.fingerprint
            self.fingerprint = own_fingerprint(card)

    def _digest(self) -> str:
        return file_hash(self.recipe.transformer / "tokenizer.json", self._file)

    @property
    def query_fingerprint(self) -> str:
        """The source's: a quantised query asks the same documents."""
        return self._asker.query_fingerprint if self._asker else getattr(self, "_source", self.fingerprint)

    def _load(self) -> SparseRuntime:
        try:
            from bridge.encode.onnx_runtime import OnnxSplade
        except ImportError:
            raise MissingExtra(f"encoding with {self.name}", "onnx") from None
        return OnnxSplade(
            self._file,
            self.options,
            pooling=self.recipe.pooling,
            activation=self.recipe.activation,
            vocabulary=len(self.vocabulary),
            int8=self.precision == "int8",
        )


class OnnxDenseEncoder(DenseEncoder):
    """A dense model that `bridge export` wrote."""

    def __init__(self, folder: Path, *, options: RunOptions | None = None) -> None:
        card = read_card(folder)
        facts = msgspec.structs.asdict(_dense_facts(folder, card))
        super().__init__(folder, options=options, recipe=DenseRecipe(folder, **facts))
        check_precision(self.options, card.precision)
        self._file, self.precision = folder / MODEL_FILE, card.precision
        self.fingerprint = own_fingerprint(card)

    def _load(self) -> DenseRuntime:
        try:
            from bridge.encode.onnx_runtime import OnnxDense
        except ImportError:
            raise MissingExtra(f"encoding with {self.name}", "onnx") from None
        return OnnxDense(self._file, self.options, dimension=self.dimension, int8=self.precision == "int8")


def describe_export(folder: Path) -> DenseModel:
    """What a mapping needs of an exported dense model.

    Raises:
        ModelFormatError: it has no card, or that of a sparse model.
    """
    card = read_card(folder)
    facts = _dense_facts(folder, card)
    return DenseModel(folder.name, own_fingerprint(card), facts.dimension, facts.normalize)


def _dense_facts(folder: Path, card: ExportCard) -> DenseFacts:
    if card.dense is None:
        raise ModelFormatError(f"{folder} is an exported sparse model; it goes with --model")
    return card.dense


def own_fingerprint(card: ExportCard) -> str:
    """The fingerprint of an export's documents."""
    return card.fingerprint if card.precision == "fp32" else f"{card.fingerprint}-{card.precision}"


def check_precision(options: RunOptions, precision: Precision) -> None:
    """An ONNX file has the precision that it was written in.

    Raises:
        UsageError: another was asked for.
    """
    if options.precision not in (None, precision):
        raise UsageError(f"this ONNX file is {precision}; {options.precision} takes an export of its own, or torch")


def _recipe(folder: Path, facts: SparseFacts) -> Recipe:
    named = msgspec.structs.asdict(facts)
    query, table = named.pop("query_folder"), named.pop("query_table")
    if query is None or table is None:
        return Recipe(folder, **named)
    home = folder / query
    return Recipe(folder, query="lookup", query_folder=home, query_table=home / table, **named)
