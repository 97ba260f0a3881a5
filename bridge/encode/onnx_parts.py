"""The weights of a BERT-like model by what they do, whatever their names are in its family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bridge.errors import ModelFormatError

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Linear:
    """``x @ weight + bias``: [in, out] and [out]."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm over the last axis: [H] each."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer, normalised after each half."""

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    attention_norm: Norm
    wide: Linear
    narrow: Linear
    norm: Norm


@dataclass(frozen=True, slots=True)
class Body:
    """Token ids ─▶ hidden states.

    Attributes:
        words: [V, H].
        positions: [P, H], from the first position on.
        types: [T, H], of token types, where the family has them.
        heads: attention heads.
        activation: between `wide` and `narrow`: ``gelu``, ``relu`` or ``gelu_new``.
        epsilon: of every layer norm.
    """

    words: Array
    positions: Array
    types: Array | None
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int
    activation: str
    epsilon: float


@dataclass(frozen=True, slots=True)
class Head:
    """Hidden states ─▶ logits: `transform`, an activation, `norm`, then ``@ words.T + bias`` ([V, H], [V])."""

    transform: Linear
    activation: str
    norm: Norm
    words: Array
    bias: Array


_ACTIVATIONS = {
    "gelu": "gelu",
    "relu": "relu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
}

KNOWN = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert")
"""`model_type` of the families that can be written as a graph."""


def read_body(weights: Weights, config: Mapping[str, Any]) -> Body:
    """The transformer of a model's weights, with a head or without.

    Args:
        weights: by their names in the model's own code.
        config: its config.json.

    Raises:
        ModelFormatError: another family, or a variant of it that is not known here.
    """
    family = str(config.get("model_type"))
    if family not in KNOWN:
        raise ModelFormatError(f"a {family} model is not known to be written as ONNX here; {', '.join(KNOWN)} are")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ModelFormatError("only absolute positions are known to be written as ONNX here")
    return _distilbert(weights, config) if family == "distilbert" else _bert(weights, config, family)


def read_head(weights: Weights, config: Mapping[str, Any], size: int) -> Head:
    """The masked-LM head, its first `size` vocabulary entries; arguments and errors as for `read_body`."""
    family = str(config.get("model_type"))
    if family == "distilbert":
        transform, norm, decoder = "vocab_transform", "vocab_layer_norm", "vocab_projector"
        activation = _activation(config.get("activation"))
    elif family == "bert":
        transform, norm = "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"
        decoder, activation = "cls.predictions.decoder", _activation(config.get("hidden_act"))
    else:
        # These have gelu here whatever their layers have.
        transform, norm, decoder, activation = "lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "gelu"
    try:
        return Head(
            _linear(weights, transform),
            activation,
            _norm(weights, norm),
            weights[f"{decoder}.weight"][:size],
            weights[f"{decoder}.bias"][:size],
        )
    except KeyError as error:
        raise ModelFormatError(f"the model has no weights {error.args[0]}, so it is no masked language model") from None


def _bert(weights: Weights, config: Mapping[str, Any], family: str) -> Body:
    prefix = next(
        (one for one in ("bert.", "roberta.", "") if f"{one}embeddings.word_embeddings.weight" in weights), ""
    )
    embeddings = f"{prefix}embeddings"
    first = 0 if family == "bert" else int(config.get("pad_token_id") or 0) + 1
    layers = tuple(
        _layer(
            weights,
            f"{prefix}encoder.layer.{i}.",
            ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
            ("attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"),
        )
        for i in range(int(config["num_hidden_layers"]))
    )
    return Body(
        weights[f"{embeddings}.word_embeddings.weight"],
        weights[f"{embeddings}.position_embeddings.weight"][first:],
        weights[f"{embeddings}.token_type_embeddings.weight"],
        _norm(weights, f"{embeddings}.LayerNorm"),
        layers,
        int(config["num_attention_heads"]),
        _activation(config.get("hidden_act")),
        float(config.get("layer_norm_eps", 1e-12)),
    )


def _distilbert(weights: Weights, config: Mapping[str, Any]) -> Body:
    prefix = "distilbert." if "distilbert.embeddings.word_embeddings.weight" in weights else ""
    layers = tuple(
        _layer(
            weights,
            f"{prefix}transformer.layer.{i}.",
            ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
            ("sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"),
        )
        for i in range(int(config["n_layers"]))
    )
    return Body(
        weights[f"{prefix}embeddings.word_embeddings.weight"],
        weights[f"{prefix}embeddings.position_embeddings.weight"],
        None,
        _norm(weights, f"{prefix}embeddings.LayerNorm"),
        layers,
        int(config["n_heads"]),
        _activation(config.get("activation")),
        1e-12,
    )


def _layer(
    weights: Weights, prefix: str, attention: tuple[str, str, str, str], rest: tuple[str, str, str, str]
) -> Layer:
    query, key, value, out = (_linear(weights, prefix + name) for name in attention)
    attention_norm, wide, narrow, norm = (prefix + name for name in rest)
    return Layer(
        query, key, value, out, _norm(weights, attention_norm),
        _linear(weights, wide), _linear(weights, narrow), _norm(weights, norm),
    )  # fmt: skip


def _linear(weights: Weights, name: str) -> Linear:
    return Linear(weights[f"{name}.weight"].T, weights[f"{name}.bias"])


def _norm(weights: Weights, name: str) -> Norm:
    return Norm(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _activation(name: object) -> str:
    known = _ACTIVATIONS.get(str(name))
    if known is None:
        raise ModelFormatError(f"the activation {name} is not known to be written as ONNX here")
    return known
