"""SPLADE-style models: documents by a masked language model; queries by it, by another one, or by a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from bridge.encode.base import TokenVocabulary
from bridge.encode.entries import SparseRuntime
from bridge.encode.folder import file_hash, separator_token
from bridge.encode.lookup import LookupEncoder, Wordpieces
from bridge.encode.recipe import Recipe, read_recipe
from bridge.encode.run_options import RunOptions
from bridge.errors import MissingExtra, ModelFormatError, UsageError
from bridge.models import Activation
from bridge.offsets import Span, TokenOffsets, TokenWindow
from bridge.records import SparseVector

_CEILING = 4.0
"""log(1 + logit) of the published models rarely passes 3.5."""


class SpladeEncoder:
    """A sparse model of a folder, by its recipe; weights are loaded when the first text is encoded with them.

    Args:
        folder: a local folder.
        name: the Hugging Face id that it was fetched as.
        options: device, precision, permissions.
        activation: another one than the files or the card say (DiSCo's card has ``relu`` where its training code
            has ``log1p_relu``).
        recipe: instead of what the folder's files say.
    """

    open_vocabulary = False

    def __init__(
        self,
        folder: Path,
        *,
        name: str | None = None,
        options: RunOptions | None = None,
        activation: Activation | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        self.name = name or folder.name or str(folder)
        recipe = recipe or read_recipe(folder, name)
        self.recipe = replace(recipe, activation=activation) if activation else recipe
        self.options = options or RunOptions()
        recipe = self.recipe
        self._pieces = Wordpieces(recipe.transformer, lowercase=recipe.lowercase)
        self.vocabulary: TokenVocabulary = self._pieces.vocabulary
        self.dropped = sorted(self._pieces.special) if recipe.drop_special else ()
        self._runtime: SparseRuntime | None = None
        self.fingerprint = f"splade-{self._digest()[:16]}"
        # Several query encoders may ask the same documents: the space is that of the vocabulary.
        self.space = self._pieces.space
        self._asker = self._query_side(name)

    def _digest(self) -> str:
        """Over all that decides a document's vector."""
        recipe = self.recipe
        weights = sorted(recipe.transformer.glob("*.safetensors")) or sorted(
            recipe.transformer.glob("pytorch_model*.bin")
        )
        if not weights:
            raise ModelFormatError(
                f"{recipe.transformer} has no weights: neither model.safetensors nor pytorch_model.bin"
            )
        how = (
            recipe.pooling, recipe.activation, recipe.drop_special, recipe.lowercase,
            recipe.document_length, recipe.document_prompt,
        )  # fmt: skip
        return file_hash(*weights, salt=repr((self._pieces.fingerprint, *how)))

    def _query_side(self, name: str | None) -> LookupEncoder | SpladeEncoder | None:
        recipe = self.recipe
        if recipe.query_folder is not None:
            side: LookupEncoder | SpladeEncoder = LookupEncoder(
                recipe.query_folder, table=recipe.query_table, prompt=recipe.query_prompt
            )
        elif recipe.query_recipe is not None:
            folder = recipe.query_recipe.transformer
            side = SpladeEncoder(folder, name=name, options=self.options, recipe=recipe.query_recipe)
        else:
            return None
        if side.space != self.space:
            raise ModelFormatError(f"{self.name}: its query side has another vocabulary than its document side")
        return side

    @property
    def encodes_documents(self) -> bool:
        """False for a query model, such as a conversation encoder over another model's documents."""
        return self.recipe.encodes_documents

    @property
    def query_fingerprint(self) -> str:
        """The fingerprint of what encodes queries, which may be a table or a model of its own."""
        return self._asker.query_fingerprint if self._asker else self.fingerprint

    @property
    def lookup(self) -> LookupEncoder | None:
        """The query side, where it is a table that needs no weights."""
        return self._asker if isinstance(self._asker, LookupEncoder) else None

    @property
    def portable(self) -> Mapping[str, tuple[Path, ...]]:
        return self._asker.portable if self._asker else {}

    @property
    def ceilings(self) -> tuple[float, float]:
        return _CEILING, self._asker.ceilings[1] if self._asker else _CEILING

    @cached_property
    def passage_tokenizer(self) -> TokenOffsets:
        """Counts a document's tokens as the model reads them."""
        return self._pieces.offsets(self.recipe.document_prompt)

    @property
    def max_document_tokens(self) -> int:
        """The longest document that is read whole, special tokens counted."""
        return self.recipe.document_length

    @cached_property
    def query_window(self) -> TokenWindow:
        """What of a query is read."""
        if self._asker:
            return self._asker.query_window
        recipe = self.recipe
        offsets = self._pieces.offsets(recipe.query_prompt)
        return TokenWindow(offsets, recipe.query_length, separator_token(recipe.transformer))

    def spans(self, text: str) -> list[Span]:
        return self._pieces.spans(text)

    def encode_document(self, texts: Sequence[str]) -> list[SparseVector]:
        recipe = self.recipe
        if not recipe.encodes_documents:
            raise UsageError(f"model {self.name} encodes queries only; name the model of its documents")
        return self._encode(texts, recipe.document_prompt, recipe.document_length)

    def encode_query(self, texts: Sequence[str]) -> list[SparseVector]:
        if self._asker:
            return self._asker.encode_query(texts)
        return self._encode(texts, self.recipe.query_prompt, self.recipe.query_length)

    def _encode(self, texts: Sequence[str], prompt: str, length: int) -> list[SparseVector]:
        framed = self._pieces.framed([prompt + text for text in texts] if prompt else texts, length)
        # A text without any token would still have the special ones, and a vector that says nothing of it.
        ids = [one.ids if text.strip() else [] for one, text in zip(framed, texts, strict=True)]
        found = self.runtime.encode(ids, dropped=self.dropped)
        return [SparseVector(ids, weights, self.vocabulary) for ids, weights in found]

    @property
    def runtime(self) -> SparseRuntime:
        """The loaded model.

        Raises:
            MissingExtra: torch or transformers is not installed.
            ModelFormatError: the weights are not those of a masked language model of this vocabulary.
        """
        if self._runtime is None:
            self._runtime = self._load()
        return self._runtime

    def _load(self) -> SparseRuntime:
        try:
            from bridge.encode.torch_runtime import TorchSplade
        except ImportError:
            raise MissingExtra(f"encoding with {self.name}", "encode") from None
        return TorchSplade(self.recipe, self.options, vocabulary=len(self.vocabulary))
