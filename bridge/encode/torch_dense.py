"""Dense encoders on torch: token sequences ─▶ embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers

from bridge.encode.batching import batches
from bridge.encode.dense import DenseRecipe, Embeddings
from bridge.encode.folder import read_json
from bridge.encode.lookup import Framed
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
from bridge.errors import ModelFormatError

_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": torch.nn.Identity,
    "torch.nn.modules.activation.Tanh": torch.nn.Tanh,
    "torch.nn.modules.activation.ReLU": torch.nn.ReLU,
    "torch.nn.modules.activation.GELU": torch.nn.GELU,
}


class TorchDense:
    """One dense model on one device."""

    def __init__(self, recipe: DenseRecipe, options: RunOptions) -> None:
        self.recipe = recipe
        self.device = choose_device(options.device)
        self.dtype = choose_precision(options.precision, self.device, slow=options.slow)
        model = load_model(
            transformers.AutoModel, recipe.transformer, self.dtype, options, optional=("pooler.", "position_ids")
        )
        if getattr(model, "pooler", None) is not None:
            # A classifier's layer over the first token: computed for nothing here.
            model.pooler = None
        self.model = placed(model, self.device)
        self.projections = [_projection(path, options).to(self.device) for path in recipe.projections]
        self._callers = callers(self.device)
        self.budget = TOKENS_CPU if self.device.type == "cpu" else TOKENS_GPU
        self._typed = "token_type_ids" in inspect.signature(model.forward).parameters
        if getattr(model.config, "type_vocab_size", 2) < 2:
            self._typed = False

    def encode(self, framed: Sequence[Framed]) -> Embeddings:
        """float32[n, dimension], in order."""
        found = np.empty((len(framed), self.recipe.dimension), dtype=np.float32)

        def encode(rows: list[int], threads: int) -> None:
            del threads
            found[rows] = self._batch([framed[row] for row in rows]).numpy()

        self._callers.each(encode, list(batches([len(one.ids) for one in framed], self.budget)))
        return found

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _batch(self, framed: Sequence[Framed]) -> torch.Tensor:
        tokens, mask = padded([one.ids for one in framed], self.device)
        more = {}
        if self._typed and any(map(any, (one.types for one in framed))):
            more["token_type_ids"] = padded([one.types for one in framed], self.device)[0]
        states = self.model(input_ids=tokens, attention_mask=mask, **more).last_hidden_state
        # Sums and norms in single precision, whatever the model runs in.
        pooled = self._pool(states.float(), mask)
        for projection in self.projections:
            pooled = projection(pooled)
        if self.recipe.normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        return pooled.cpu()

    def _pool(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.recipe.pooling == "cls":
            return states[:, 0]
        there = mask.unsqueeze(-1)
        if self.recipe.pooling == "max":
            return states.masked_fill(there == 0, float("-inf")).amax(1)
        return (states * there).sum(1) / there.sum(1).clamp(min=1)


def _projection(folder: Path, options: RunOptions) -> torch.nn.Module:
    """A sentence-transformers Dense module: a linear map and an activation."""
    config = read_json(folder / "config.json")
    activation = _ACTIVATIONS.get(str(config.get("activation_function", "torch.nn.modules.activation.Tanh")))
    if activation is None or config.get("use_residual"):
        raise ModelFormatError(
            f"{folder / 'config.json'}: a Dense module with {config.get('activation_function')}"
            f"{' and a residual' if config.get('use_residual') else ''} is not known here"
        )
    linear = torch.nn.Linear(config["in_features"], config["out_features"], bias=bool(config.get("bias", True)))
    weights = _projection_weights(folder, options)
    try:
        linear.load_state_dict({name.removeprefix("linear."): value.float() for name, value in weights.items()})
    except RuntimeError as error:
        raise ModelFormatError(f"{folder}: its weights are not those of a linear map: {error}") from error
    return torch.nn.Sequential(linear, activation()).eval()


def _projection_weights(folder: Path, options: RunOptions) -> dict[str, torch.Tensor]:
    if (folder / "model.safetensors").is_file():
        from safetensors.torch import load_file

        loaded: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
        return loaded
    path = folder / "pytorch_model.bin"
    if not path.is_file():
        raise ModelFormatError(f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin")
    if not options.allow_pickle:
        raise ModelFormatError(
            f"{folder} holds its weights as a pickle only (pytorch_model.bin); --allow-pickle reads it, "
            "restricted to tensors"
        )
    pickled: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return pickled
