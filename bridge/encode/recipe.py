"""How a folder's model turns logits into vectors, read off its files (and its card, for what they do not say).

Files, in order: modules.json (a sentence-transformers SparseEncoder: Transformer + SpladePooling, or a Router
with an inference-free query side), then the root's config.json (a masked language model).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bridge.encode.folder import find_table, lowers_case, model_length, read_json, read_prompts
from bridge.errors import ModelFormatError
from bridge.models import Activation, ModelCard, Pooling, find_card

_ST_ACTIVATIONS: dict[str, Activation] = {"relu": "log1p_relu", "log1p_relu": "log1p_log1p_relu"}
"""sentence-transformers names the function inside of its own log1p."""

_TABLES = ("SparseStaticEmbedding", "IDF")
"""Modules that are a table of weights; the second is the name of an early release."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a sparse model does.

    Attributes:
        transformer: the folder that holds config.json, the weights and the tokenizer.
        pooling, activation: see `bridge.models.ModelCard`.
        drop_special: zero the vocabulary entries of special tokens.
        document_length, query_length: tokens, special ones included.
        encodes_documents: False for a model that is for queries alone.
        query: ``same`` (this model encodes queries too), ``lookup`` (a table does) or ``separate`` (`query_recipe`).
        query_folder: where the lookup's tokenizer lies.
        query_table: the lookup's weights: idf.json, query_token_weights.txt or a model.safetensors.
        query_recipe: of the folder's own query model, where it has one.
        document_prompt, query_prompt: text put before each text.
        lowercase: texts are lower-cased before the tokenizer sees them.
    """

    transformer: Path
    pooling: Pooling = "max"
    activation: Activation = "log1p_relu"
    drop_special: bool = False
    document_length: int = 512
    query_length: int = 512
    encodes_documents: bool = True
    query: str = "same"
    query_folder: Path | None = None
    query_table: Path | None = None
    query_recipe: Recipe | None = None
    document_prompt: str = ""
    query_prompt: str = ""
    lowercase: bool = False


def read_recipe(folder: Path, name: str | None = None) -> Recipe:
    """The recipe of a sparse model's folder.

    Args:
        folder: a local folder.
        name: the Hugging Face id that it was fetched as; by default the folder's name is looked up.

    Raises:
        ModelFormatError: the files are not those of a sparse encoder.
    """
    card = find_card(name or folder.name)
    if (folder / "modules.json").is_file():
        return _from_modules(folder, card)
    return _from_root(folder, card)


def is_sparse_folder(folder: Path) -> bool:
    """Whether the folder's files claim a sparse encoder (a masked LM, or SpladePooling among its modules)."""
    if (folder / "modules.json").is_file():
        kinds = [kind for _, kind in _modules(folder)]
        for path, kind in _modules(folder):
            if kind == "Router":
                kinds += map(_kind, _router(path).get("types", {}).values())
        return any(kind in ("SpladePooling", *_TABLES) for kind in kinds)
    if not (folder / "config.json").is_file():
        return False
    architectures = read_json(folder / "config.json").get("architectures") or []
    return any(str(one).endswith("ForMaskedLM") for one in architectures)


def has_weights(folder: Path) -> bool:
    """Whether weights of a transformer lie in the folder or in one of its modules."""
    return any(
        (path.parent / "config.json").is_file() and not path.parent.name.endswith(_TABLES)
        for pattern in ("*.safetensors", "pytorch_model*.bin", "*/*.safetensors", "*/pytorch_model*.bin")
        for path in folder.glob(pattern)
    )


def _from_root(folder: Path, card: ModelCard | None) -> Recipe:
    length = model_length(folder)
    table = find_table(folder)
    if card is None or card.task != "sparse":
        return Recipe(
            folder,
            # A folder with a table and weights is of the OpenSearch doc form, whatever its name.
            drop_special=table is not None,
            document_length=length,
            query_length=length,
            query="lookup" if table else "same",
            query_folder=folder if table else None,
            query_table=table,
        )
    lookup = card.query == "lookup"
    if lookup and table is None:
        raise ModelFormatError(f"{folder} has no table of query weights: idf.json or query_token_weights.txt")
    return Recipe(
        folder,
        pooling=card.pooling,
        activation=card.activation,
        drop_special=card.drop_special,
        document_length=min(length, card.document_length),
        query_length=min(length, card.query_length),
        encodes_documents=not card.query_only,
        query="lookup" if lookup else "same",
        query_folder=folder if lookup else None,
        query_table=table if lookup else None,
    )


def _from_modules(folder: Path, card: ModelCard | None) -> Recipe:
    prompts = read_prompts(folder)
    documents = queries = _modules(folder)
    router = next((path for path, kind in documents if kind == "Router"), None)
    if router is not None:
        documents, queries = _route(router, "document"), _route(router, "query")
    side = _transformer_side(folder, documents)
    side = replace(
        side,
        drop_special=card.drop_special if card else find_table(folder) is not None,
        encodes_documents=not (card and card.query_only),
        document_prompt=prompts.get("document", ""),
        query_prompt=prompts.get("query", ""),
    )
    tables = [path for path, kind in queries if kind in _TABLES]
    if tables:
        # OpenSearch's published folders keep the tokenizer at the root.
        home = tables[0] if (tables[0] / "tokenizer.json").is_file() else folder
        return replace(side, query="lookup", query_folder=home, query_table=_named_table(folder, tables[0]))
    if queries == documents:
        return side
    own = replace(_transformer_side(folder, queries), query_prompt=side.query_prompt, drop_special=side.drop_special)
    return replace(side, query="separate", query_recipe=own)


def _transformer_side(folder: Path, modules: list[tuple[Path, str]]) -> Recipe:
    transformer = next((path for path, kind in modules if kind.endswith("Transformer")), None)
    pooling = next((path for path, kind in modules if kind == "SpladePooling"), None)
    if transformer is None or pooling is None:
        raise ModelFormatError(
            f"{folder} is a sentence-transformers folder without a Transformer and a SpladePooling on its document side"
        )
    facts = read_json(pooling / "config.json")
    strategy, activation = facts.get("pooling_strategy", "max"), facts.get("activation_function", "relu")
    if strategy not in ("max", "sum") or activation not in _ST_ACTIVATIONS:
        raise ModelFormatError(f"{pooling / 'config.json'}: {strategy} pooling of {activation} is not known")
    length = model_length(transformer)
    return Recipe(
        transformer,
        pooling=strategy,
        activation=_ST_ACTIVATIONS[activation],
        document_length=length,
        query_length=length,
        lowercase=lowers_case(transformer),
    )


def _modules(folder: Path) -> list[tuple[Path, str]]:
    """Folder and kind of each module that modules.json lists, in order."""
    listed = read_json(folder / "modules.json")
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        raise ModelFormatError(f"{folder / 'modules.json'} lists no modules")
    return [(folder / str(one.get("path", "")), _kind(one.get("type", ""))) for one in listed]


def _kind(name: object) -> str:
    """The class of a module's dotted name."""
    return str(name).rpartition(".")[2]


def _router(folder: Path) -> Any:
    path = folder / "router_config.json"
    # Releases before 5.0 of sentence-transformers kept it in config.json.
    return read_json(path if path.is_file() else folder / "config.json")


def _route(folder: Path, task: str) -> list[tuple[Path, str]]:
    config = _router(folder)
    names = (config.get("structure") or {}).get(task)
    if not isinstance(names, list) or not names:
        raise ModelFormatError(f"{folder}: its Router has no route for a {task}")
    types = config.get("types") or {}
    # OpenSearch's published folders name the root itself as the document transformer.
    return [(folder / one if (folder / one).is_dir() else folder, _kind(types.get(one, ""))) for one in names]


def _named_table(folder: Path, module: Path) -> Path:
    """The table of a SparseStaticEmbedding: its own, or the one that its config names by a path."""
    config = module / "config.json"
    named = read_json(config).get("path") if module != folder and config.is_file() else None
    places = [folder / str(named), module / Path(str(named)).name, folder / Path(str(named)).name] if named else []
    table = next((path for path in places if path.is_file()), None) or find_table(module)
    if table is None and (module / "model.safetensors").is_file() and module != folder:
        table = module / "model.safetensors"
    table = table or find_table(folder)
    if table is None:
        raise ModelFormatError(f"{module} has no table of query weights: idf.json or model.safetensors")
    return table
