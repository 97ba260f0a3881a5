"""Masked language models on torch: token sequences ─▶ sparse vectors.

Three things make it fast, and none changes a result:

* texts are sorted by length and cut into batches by a token budget, so that little padding is computed;
* the maximum is taken before the activation, which is monotone: B·V activations instead of B·L·V;
* the projection onto the vocabulary is done in slices, so that B·L·V never exists, and only where it can matter
  (`bridge.encode.torch_projection`).

Only non-zero entries leave the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers

from bridge.encode.batching import batches
from bridge.encode.entries import NO_ENTRIES, Entries
from bridge.encode.recipe import Recipe
from bridge.encode.run_options import RunOptions
from bridge.encode.torch_load import (
    TOKENS_CPU,
    TOKENS_GPU,
    callers,
    choose_device,
    choose_precision,
    load_model,
    padded,
    placed,
)
from bridge.encode.torch_projection import Projection
from bridge.errors import ModelFormatError

MAX_PADDING = 1024
"""A model's vocabulary may be rounded up past its tokenizer's; by more than this it is another model's tokenizer."""


@dataclass(frozen=True, slots=True)
class Head:
    """The masked-LM head, taken apart: hidden states ─▶ `transform` ─▶ `weight` and `bias` give logits."""

    body: Any
    transform: Callable[[torch.Tensor], torch.Tensor]
    weight: torch.Tensor
    bias: torch.Tensor | None


class TorchSplade:
    """One sparse model on one device."""

    def __init__(self, recipe: Recipe, options: RunOptions, *, vocabulary: int) -> None:
        """Load the weights; `vocabulary` is the size of the tokenizer's."""
        self.recipe = recipe
        self.device = choose_device(options.device)
        self.dtype = choose_precision(options.precision, self.device, slow=options.slow)
        self.model = load_model(transformers.AutoModelForMaskedLM, recipe.transformer, self.dtype, options)
        self.head = _fitting(
            take_apart(placed(self.model, self.device), recipe.transformer), vocabulary, recipe.transformer
        )
        self.projection = Projection(
            self.head.weight, self.head.bias, pooling=recipe.pooling, activation=recipe.activation
        )
        self.vocabulary_size = vocabulary
        self._callers = callers(self.device)
        self.budget = TOKENS_CPU if self.device.type == "cpu" else TOKENS_GPU

    def encode(self, ids: Sequence[Sequence[int]], *, dropped: Sequence[int] = ()) -> list[Entries]:
        """Entries of each token sequence, in order; an empty sequence has none.

        Args:
            ids: token ids, special ones included, each no longer than the model takes.
            dropped: vocabulary ids whose entries are set to zero.
        """
        found: list[Entries] = [NO_ENTRIES] * len(ids)

        @torch.inference_mode()  # type: ignore[untyped-decorator]
        def encode(rows: list[int], threads: int) -> None:
            del threads
            for row, entries in zip(rows, self._batch([ids[row] for row in rows], dropped), strict=True):
                found[row] = entries

        self._callers.each(encode, list(batches([len(one) for one in ids], self.budget)))
        return found

    def _batch(self, ids: list[Sequence[int]], dropped: Sequence[int]) -> Iterator[Entries]:
        tokens, mask = padded(ids, self.device)
        even = min(map(len, ids)) == tokens.shape[1]
        hidden = self.head.body(input_ids=tokens, attention_mask=mask).last_hidden_state
        pooled = self.projection.pool(self.head.transform(hidden), None if even else mask)
        if dropped:
            pooled[:, list(dropped)] = 0
        yield from _entries(pooled)


def _entries(pooled: torch.Tensor) -> Iterator[Entries]:
    """Each row's non-zero entries; two transfers a batch."""
    rows, columns = pooled.nonzero(as_tuple=True)
    weights = pooled[rows, columns]
    bounds = torch.searchsorted(rows, torch.arange(pooled.shape[0] + 1, device=rows.device)).tolist()
    ids, values = columns.to("cpu", torch.int32).numpy(), weights.to("cpu").numpy()
    for start, end in pairwise(bounds):
        yield ids[start:end], values[start:end]


def _fitting(head: Head, vocabulary: int, folder: Path) -> Head:
    """`head` without the rows past the tokenizer's vocabulary, by which some models round theirs up."""
    size = int(head.weight.shape[0])
    if not vocabulary <= size <= vocabulary + MAX_PADDING:
        raise ModelFormatError(f"{folder}: the tokenizer has {vocabulary} tokens, the model {size}")
    bias = None if head.bias is None else head.bias[:vocabulary]
    return Head(head.body, head.transform, head.weight[:vocabulary], bias)


def take_apart(model: Any, folder: Path) -> Head:
    """The head of a masked language model, and its body.

    Raises:
        ModelFormatError: the architecture computes its logits in a way that is not known here.
    """
    kind = type(model).__name__
    if kind == "DistilBertForMaskedLM":
        return Head(
            model.distilbert,
            lambda hidden: model.vocab_layer_norm(model.activation(model.vocab_transform(hidden))),
            model.vocab_projector.weight,
            model.vocab_projector.bias,
        )
    if kind == "BertForMaskedLM":
        head = model.cls.predictions
        return Head(model.bert, head.transform, head.decoder.weight, head.decoder.bias)
    if kind in ("RobertaForMaskedLM", "XLMRobertaForMaskedLM", "CamembertForMaskedLM"):
        lm = model.lm_head
        gelu = torch.nn.functional.gelu
        return Head(
            model.roberta, lambda hidden: lm.layer_norm(gelu(lm.dense(hidden))), lm.decoder.weight, lm.decoder.bias
        )
    if kind == "ModernBertForMaskedLM":
        return Head(model.model, model.head, model.decoder.weight, model.decoder.bias)
    return _hollowed(model, folder)


def _hollowed(model: Any, folder: Path) -> Head:
    """Any other architecture, its last linear map taken out; a probe shows whether that was all there is to it."""
    with torch.inference_mode():
        return _probed(model, folder)


def _probed(model: Any, folder: Path) -> Head:
    decoder = model.get_output_embeddings()
    if not isinstance(decoder, torch.nn.Linear):
        raise ModelFormatError(f"{folder}: the logits of a {type(model).__name__} come from no linear map")
    probe = torch.arange(8, device=decoder.weight.device).unsqueeze(0) % decoder.weight.shape[0]
    expected = model(input_ids=probe, attention_mask=torch.ones_like(probe)).logits
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if child is decoder:
                setattr(module, name, torch.nn.Identity())

    def body(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return SimpleNamespace(last_hidden_state=model(input_ids=input_ids, attention_mask=attention_mask).logits)

    hidden = body(probe, torch.ones_like(probe)).last_hidden_state
    found = (
        torch.nn.functional.linear(hidden, decoder.weight, decoder.bias)
        if hidden.shape[-1] == decoder.in_features
        else None
    )
    if found is None or not torch.allclose(found.float(), expected.float(), rtol=1e-3, atol=1e-4):
        raise ModelFormatError(f"{folder}: the logits of a {type(model).__name__} are not known to be computed here")
    return Head(body, lambda states: states, decoder.weight, decoder.bias)
