"""Dense encoders: text ─▶ one embedding, by the recipe that a folder's files (or its card) give.

A sentence-transformers folder lists its modules (Transformer, Pooling, perhaps Dense and Normalize) in modules.json.
A folder without that file is read by its card (SimLM: the first token's state, unit length, a title beside each
passage), or else as sentence-transformers reads it: the mean of the tokens' states.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from bridge.encode.folder import EXPORT_FILE, file_hash, lowers_case, model_length, read_json, read_prompts
from bridge.encode.licences import say_licence
from bridge.encode.load import find_folder
from bridge.encode.lookup import Framed, Wordpieces
from bridge.encode.run_options import RunOptions
from bridge.errors import MissingExtra, ModelFormatError
from bridge.models import find_card
from bridge.offsets import TokenOffsets

Embeddings = npt.NDArray[np.float32]
Passage = str | tuple[str, str]
"""A text, or a title and a text."""

DensePool = Literal["cls", "mean", "max"]

_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "model.onnx")
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}
_IGNORED = ("Dropout",)
_NO_TITLE = "-"


@dataclass(frozen=True, slots=True)
class DenseModel:
    """A dense encoder as far as a mapping needs it."""

    name: str
    fingerprint: str
    dimension: int
    normalized: bool = True
    """Whether its vectors have unit length."""


@dataclass(frozen=True, slots=True)
class DenseRecipe:
    """How a text becomes an embedding.

    Attributes:
        transformer: the folder of config.json, weights and tokenizer.
        pooling: what is made of the tokens' states: the first one's, their mean, their maximum.
        projections: folders of sentence-transformers' Dense modules, applied in order.
        normalize: to unit length at the end.
        document_length, query_length: tokens, special ones included.
        document_prompt, query_prompt: text put before each text.
        titled: a document is a pair of title and text ("-" where it has no title).
        lowercase: texts are lower-cased before the tokenizer sees them.
    """

    transformer: Path
    dimension: int
    pooling: DensePool = "mean"
    projections: tuple[Path, ...] = ()
    normalize: bool = False
    document_length: int = 512
    query_length: int = 512
    document_prompt: str = ""
    query_prompt: str = ""
    titled: bool = False
    lowercase: bool = False


class DenseRuntime(Protocol):
    """What computes embeddings of token sequences."""

    def encode(self, framed: Sequence[Framed]) -> Embeddings:
        """float32[n, dimension], in order."""
        ...


class DenseEncoder:
    """A dense encoder; its weights are loaded when the first text is encoded."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str | None = None,
        options: RunOptions | None = None,
        recipe: DenseRecipe | None = None,
    ) -> None:
        self.recipe = recipe or read_dense_recipe(folder, name)
        self.name = name or folder.name or str(folder)
        self.dimension = self.recipe.dimension
        self.fingerprint = _fingerprint(folder, self.recipe)
        self._pieces = Wordpieces(self.recipe.transformer, lowercase=self.recipe.lowercase)
        self.options = options or RunOptions()
        self._runtime: DenseRuntime | None = None

    def encode_document(self, texts: Sequence[Passage]) -> Embeddings:
        """float32[n, dimension], one row a text, in order.

        A pair is a title and a text. A model that was trained on such pairs (SimLM) gets both, with "-" for a title
        that is not there; any other gets them joined by a newline.
        """
        recipe = self.recipe
        framed: list[Framed]
        if recipe.titled:
            pairs = [(_NO_TITLE, text) if isinstance(text, str) else (text[0] or _NO_TITLE, text[1]) for text in texts]
            framed = self._pieces.framed(pairs, recipe.document_length)
        else:
            joined = [text if isinstance(text, str) else "\n".join(part for part in text if part) for text in texts]
            framed = self._framed(joined, recipe.document_prompt, recipe.document_length)
        return self.runtime.encode(framed)

    @property
    def description(self) -> DenseModel:
        """What a mapping needs of it."""
        return DenseModel(self.name, self.fingerprint, self.dimension, self.recipe.normalize)

    @cached_property
    def passage_tokenizer(self) -> TokenOffsets:
        """Counts a document's tokens as the model reads them, without a title."""
        if not self.recipe.titled:
            return self._pieces.offsets(self.recipe.document_prompt)
        title = len(self._pieces.tokenizer.encode(_NO_TITLE, add_special_tokens=False).ids)
        pair = self._pieces.tokenizer.num_special_tokens_to_add(is_pair=True)
        return self._pieces.offsets(special=pair + title)

    @property
    def max_document_tokens(self) -> int:
        """The longest document that is read whole, special tokens counted."""
        return self.recipe.document_length

    def encode_query(self, texts: Sequence[str]) -> Embeddings:
        """float32[n, dimension], one row a text, in order."""
        return self.runtime.encode(self._framed(texts, self.recipe.query_prompt, self.recipe.query_length))

    def _framed(self, texts: Sequence[str], prompt: str, length: int) -> list[Framed]:
        return self._pieces.framed([prompt + text for text in texts] if prompt else texts, length)

    @property
    def runtime(self) -> DenseRuntime:
        """The loaded model."""
        if self._runtime is None:
            self._runtime = self._load()
        return self._runtime

    def _load(self) -> DenseRuntime:
        try:
            from bridge.encode.torch_dense import TorchDense
        except ImportError:
            raise MissingExtra(f"encoding with {self.name}", "encode") from None
        return TorchDense(self.recipe, self.options)


def dense_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """What `load_dense` takes of the options for a sparse model that is loaded beside it.

    A revision is of the sparse model's repository; an activation and a teacher are nothing to a dense encoder.
    """
    return {key: value for key, value in options.items() if key not in ("revision", "activation", "teacher")}


def load_dense(
    model: str | os.PathLike[str],
    *,
    device: str = "cpu",
    precision: str | None = None,
    revision: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    threads: int | None = None,
) -> DenseEncoder:
    """The dense encoder of a folder or a Hugging Face id; arguments as for `bridge.load_encoder`.

    Raises:
        ModelNotFound: there is no such folder or repository.
        ModelFormatError: the folder lacks a file, or has a module that is not known here.
    """
    folder = find_folder(model, revision=revision, allow_pickle=allow_pickle)
    name = None if Path(model).expanduser().is_dir() else os.fspath(model)
    card = find_card(name or folder.name)
    if card:
        say_licence(card)
    # Imported late: an exported encoder is one of these.
    from bridge.encode.exported import OnnxDenseEncoder

    if (folder / EXPORT_FILE).is_file():
        return OnnxDenseEncoder(folder, options=RunOptions(device, precision, threads=threads))
    options = RunOptions(device, precision, allow_pickle or bool(card and card.allow_pickle), trust_remote_code)
    return DenseEncoder(folder, name=name, options=options)


def describe_dense(model: str | os.PathLike[str]) -> DenseModel:
    """Read what a mapping needs off a dense encoder's folder, without its weights.

    Raises:
        ModelNotFound: there is no such folder.
        ModelFormatError: its files do not say a dimension, or name a module that is not known here.
    """
    folder = find_folder(model)
    from bridge.encode.exported import describe_export

    if (folder / EXPORT_FILE).is_file():
        return describe_export(folder)
    name = None if Path(model).expanduser().is_dir() else os.fspath(model)
    recipe = read_dense_recipe(folder, name)
    return DenseModel(name or folder.name, _fingerprint(folder, recipe), recipe.dimension, recipe.normalize)


def read_dense_recipe(folder: Path, name: str | None = None) -> DenseRecipe:
    """The recipe of a dense encoder's folder.

    Args:
        folder: a local folder.
        name: the Hugging Face id that it was fetched as; by default the folder's name is looked up.

    Raises:
        ModelFormatError: the files are not those of a dense encoder, or name a module that is not known here.
    """
    if (folder / "modules.json").is_file():
        return _from_modules(folder)
    dimension = read_json(folder / "config.json").get("hidden_size")
    # A folder that lost its modules.json still has the modules' own.
    for path in sorted(folder.glob("*_Pooling/config.json")) + sorted(folder.glob("*_Dense/config.json")):
        module = read_json(path)
        dimension = module.get("out_features") or module.get("word_embedding_dimension") or dimension
    if not isinstance(dimension, int) or dimension <= 0:
        raise ModelFormatError(
            f"{folder / 'config.json'} has no hidden_size, so the dimension of its vectors is not known"
        )
    length = model_length(folder)
    card = find_card(name or folder.name)
    if card is None or card.task != "dense":
        return DenseRecipe(folder, dimension, document_length=length, query_length=length)
    return DenseRecipe(
        folder,
        dimension,
        pooling=card.dense_pooling,
        normalize=True,
        document_length=min(length, card.document_length),
        query_length=min(length, card.query_length),
        titled=card.family == "simlm",
    )


def _from_modules(folder: Path) -> DenseRecipe:
    modules = [
        (folder / str(one.get("path", "")), str(one.get("type", "")).rpartition(".")[2])
        for one in read_json(folder / "modules.json")
    ]
    transformer = next((path for path, kind in modules if kind == "Transformer"), None)
    pooling = next((path for path, kind in modules if kind == "Pooling"), None)
    if transformer is None or pooling is None or modules[0][1] != "Transformer":
        raise ModelFormatError(f"{folder} is not a dense encoder: modules.json has no Transformer with a Pooling")
    for path, kind in modules:
        if kind not in ("Transformer", "Pooling", "Dense", "Normalize", *_IGNORED):
            raise ModelFormatError(f"{path}: the sentence-transformers module {kind} is not known here")
    facts = read_json(pooling / "config.json")
    projections = tuple(path for path, kind in modules if kind == "Dense")
    last = read_json(projections[-1] / "config.json").get("out_features") if projections else None
    dimension = last or facts.get("embedding_dimension") or facts.get("word_embedding_dimension")
    if not isinstance(dimension, int) or dimension <= 0:
        raise ModelFormatError(f"{pooling / 'config.json'} does not say the dimension of its vectors")
    kinds = [kind for _, kind in modules]
    if "Normalize" in kinds and "Dense" in kinds[kinds.index("Normalize") :]:
        raise ModelFormatError(f"{folder}: a Dense module after Normalize is not known here")
    length = model_length(transformer)
    prompts = read_prompts(folder)
    if prompts and not facts.get("include_prompt", True):
        raise ModelFormatError(f"{pooling / 'config.json'}: pooling that leaves the prompt out is not known here")
    return DenseRecipe(
        transformer,
        dimension,
        pooling=_pool(facts, pooling),
        projections=projections,
        normalize="Normalize" in kinds,
        document_length=length,
        query_length=length,
        document_prompt=prompts.get("document", ""),
        query_prompt=prompts.get("query", ""),
        lowercase=lowers_case(transformer),
    )


def _pool(facts: dict[str, Any], folder: Path) -> DensePool:
    asked = facts.get("pooling_mode")
    if asked is None:
        # Before release 5.6 of sentence-transformers each mode was a switch of its own.
        asked = [_SWITCHES.get(name, name) for name, on in facts.items() if name.startswith("pooling_mode_") and on]
    names = asked if isinstance(asked, list) else [asked]
    for known in get_args(DensePool):
        if names == [known]:
            return known  # type: ignore[no-any-return]
    if not names:
        return "mean"
    raise ModelFormatError(
        f"{folder / 'config.json'}: {' and '.join(map(str, names))} pooling is not known here; cls, mean and max are"
    )


def _fingerprint(folder: Path, recipe: DenseRecipe) -> str:
    """Over all that decides a vector; files that a folder does not have do not count."""
    transformer = recipe.transformer
    named = [
        transformer / "config.json",
        *(transformer / name for name in _WEIGHTS),
        transformer / "tokenizer.json",
        *sorted(folder.glob("*_Pooling/config.json")),
        *(path / name for path in recipe.projections for name in ("config.json", "model.safetensors")),
    ]
    how = (recipe.pooling, recipe.normalize, recipe.document_length, recipe.document_prompt, recipe.lowercase)
    return f"dense-{file_hash(*(path for path in named if path.is_file()), salt=repr(how))[:16]}"
