"""A BERT-like model and its pooling as one ONNX graph. The only import of onnx.

Pooling, activation and the selection of non-zero entries are inside of the graph, and the projection onto the
vocabulary is cut into slices there, so that B·L·V logits never exist. onnxruntime's fused operators (domain
``com.microsoft``) stand where they are the faster ones.

Inputs: `input_ids` int64[B, L] and `attention_mask` int64[B, L], whose first column is 1. Outputs of a sparse model:
`places` int64[2, n], the text and the vocabulary entry of each weight, sorted; and `weights` float32[n], above zero.
A dense one may have `token_type_ids` int64[B, L] beside, and gives `embeddings` float32[B, D].

int8 is dynamic quantisation: weights per output column once, symmetric; activations per tensor when they are known.
A scale that all tokens share does not change which of them is the largest: so the maximum over tokens is taken of the
int32 products, and B·V numbers are turned into floats instead of B·L·V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bridge.encode.onnx_parts import Array, Body, Head, Layer, Linear, Norm
from bridge.models import Activation, Pooling

_OPSET, _IR = 17, 8
_MICROSOFT = "com.microsoft"
_SLICE = 512
"""Vocabulary entries a slice of the projection: with a batch of as many tokens it stays in a core's cache."""

_LARGEST = 127
"""Of an int8 weight: symmetric, so that a zero point need not be subtracted."""

_NEVER = np.finfo(np.float32).min
"""Added to the score of a place without a token."""

_INLINE = 1_500_000_000
"""Bytes of weights in the file itself; protobuf ends at 2 GiB, and what is more goes beside it."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What is made of a sparse model's logits; see `bridge.models.ModelCard`."""

    pooling: Pooling
    activation: Activation
    dropped: Sequence[int] = ()


@dataclass(slots=True)
class _Graph:
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    def op(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; the name of its output, or a list of names."""
        self.count += 1
        names = [f"{kind}_{self.count}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"n{self.count}", **attributes))
        return names if outputs > 1 else names[0]

    def fused(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node of onnxruntime's own operators, its first output."""
        name: str = self.op(kind, inputs, domain=_MICROSOFT, **attributes)
        return name

    def constant(self, value: npt.ArrayLike, dtype: Any = np.float32) -> str:
        """Add a constant; its name."""
        self.count += 1
        name = f"c{self.count}"
        self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype=dtype, order="C"), name)
        return name


class _Quantised:
    """A weight [in, out] as int8 columns, each with its scale."""

    def __init__(self, weight: Array) -> None:
        largest = np.abs(weight).max(axis=0)
        self.scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
        self.values = np.rint(weight / self.scale).astype(np.int8)


def write_sparse(path: Path, body: Body, head: Head, pool: Pool, *, int8: bool = False) -> None:
    """Write a sparse model's graph to `path`."""
    graph = _Graph()
    hidden = _body(graph, body, int8)
    hidden = _wide(graph, hidden, head.transform, head.activation, int8)
    hidden = _norm(graph, hidden, head.norm, body.epsilon)
    pooled = _summed(graph, hidden, head, pool) if pool.pooling == "sum" else _best(graph, hidden, head, pool, int8)
    if pool.dropped:
        kept = np.ones(len(head.bias), dtype=np.float32)
        kept[list(pool.dropped)] = 0
        pooled = graph.op("Mul", [pooled, graph.constant(kept)])
    places = graph.op("NonZero", [pooled])
    weights = graph.op("GatherND", [pooled, graph.op("Transpose", [places], perm=[1, 0])])
    _write(
        path,
        graph,
        {"places": (places, TensorProto.INT64, [2, "entries"]), "weights": (weights, TensorProto.FLOAT, ["entries"])},
    )


def write_dense(path: Path, body: Body, pooling: str, *, normalize: bool, int8: bool = False) -> None:
    """Write a dense model's graph to `path`; `pooling` is ``cls``, ``mean`` or ``max``."""
    graph = _Graph()
    size = body.words.shape[1]
    typed = body.types is not None and len(body.types) > 1
    states = _tokens_apart(graph, _body(graph, body, int8, typed=typed), size)
    if pooling == "cls":
        pooled = graph.op("Gather", [states, graph.constant(0, np.int64)], axis=1)
    elif pooling == "max":
        pooled = graph.op("ReduceMax", [_unpadded(graph, states)], axes=[1], keepdims=0)
    else:
        mask = graph.op("Cast", [graph.op("Unsqueeze", ["attention_mask", graph.constant([2], np.int64)])], to=1)
        total = graph.op("ReduceSum", [graph.op("Mul", [states, mask]), graph.constant([1], np.int64)], keepdims=0)
        pooled = graph.op("Div", [total, graph.op("ReduceSum", [mask, graph.constant([1], np.int64)], keepdims=0)])
    if normalize:
        length = graph.op("ReduceL2", [pooled], axes=[1], keepdims=1)
        pooled = graph.op("Div", [pooled, graph.op("Max", [length, graph.constant(1e-12)])])
    _write(path, graph, {"embeddings": (pooled, TensorProto.FLOAT, ["texts", size])}, typed=typed)


def _body(graph: _Graph, body: Body, int8: bool, *, typed: bool = False) -> str:
    """Hidden states [B·L, H]; every token is of type 0 unless `typed`."""
    size = body.words.shape[1]
    one = graph.constant([1], np.int64)
    longest = graph.op("Gather", [graph.op("Shape", ["input_ids"]), one])
    table = body.positions if typed or body.types is None else body.positions + body.types[0]
    positions = graph.op("Slice", [graph.constant(table), graph.constant([0], np.int64), longest])
    states = graph.op("Add", [graph.op("Gather", [graph.constant(body.words), "input_ids"]), positions])
    if typed and body.types is not None:
        states = graph.op("Add", [states, graph.op("Gather", [graph.constant(body.types), "token_type_ids"])])
    hidden = _norm(graph, graph.op("Reshape", [states, graph.constant([-1, size], np.int64)]), body.norm, body.epsilon)
    if int8:
        there = graph.op("Cast", [graph.op("Unsqueeze", ["attention_mask", graph.constant([1, 2], np.int64)])], to=9)
        mask = graph.op("Where", [there, graph.constant(0), graph.constant(_NEVER)])
    else:
        mask = graph.op("Cast", ["attention_mask"], to=TensorProto.INT32)
    for layer in body.layers:
        mixed = (_attention if int8 else _fused_attention)(graph, hidden, mask, layer, body)
        hidden = _skip(graph, hidden, mixed, layer.out, layer.attention_norm, body.epsilon, int8)
        wide = _wide(graph, hidden, layer.wide, body.activation, int8)
        hidden = _skip(graph, hidden, wide, layer.narrow, layer.norm, body.epsilon, int8)
    return hidden


def _fused_attention(graph: _Graph, hidden: str, mask: str, layer: Layer, body: Body) -> str:
    """In one operator, for which onnxruntime has fast kernels on GPUs: [B·L, H]; `mask` is int32[B, L]."""
    size = body.words.shape[1]
    three = (layer.query, layer.key, layer.value)
    parts = [_tokens_apart(graph, _product(graph, hidden, one.weight, None), size) for one in three]
    bias = graph.constant(np.concatenate([one.bias for one in three]))
    mixed = graph.fused("MultiHeadAttention", [*parts, bias, mask], num_heads=body.heads)
    name: str = graph.op("Reshape", [mixed, graph.constant([-1, size], np.int64)])
    return name


def _attention(graph: _Graph, hidden: str, mask: str, layer: Layer, body: Body) -> str:
    """In single operators, which are faster than the fused one on a CPU: [B·L, H].

    The products are int8; attention itself is float32. `mask` is float32[B, 1, 1, L], to be added.
    """
    size = body.words.shape[1]
    width = size // body.heads
    heads = graph.op(
        "Concat", [graph.op("Shape", ["input_ids"]), graph.constant([body.heads, width], np.int64)], axis=0
    )
    shared = _quantise(graph, hidden)
    query, key, value = (
        graph.op("Transpose", [graph.op("Reshape", [_product(graph, hidden, one.weight, shared, one.bias), heads])],
                 perm=perm)
        for one, perm in ((layer.query, [0, 2, 1, 3]), (layer.key, [0, 2, 3, 1]), (layer.value, [0, 2, 1, 3]))
    )  # fmt: skip
    scores = graph.op("Mul", [graph.op("MatMul", [query, key]), graph.constant(width**-0.5)])
    shares = graph.op("Softmax", [graph.op("Add", [scores, mask])], axis=-1)
    mixed = graph.op("Transpose", [graph.op("MatMul", [shares, value])], perm=[0, 2, 1, 3])
    name: str = graph.op("Reshape", [mixed, graph.constant([-1, size], np.int64)])
    return name


def _skip(graph: _Graph, hidden: str, inner: str, linear: Linear, norm: Norm, epsilon: float, int8: bool) -> str:
    """``norm(hidden + linear(inner))``.

    As three operators: onnxruntime's fused one takes five times as long on a CPU.
    """
    product = _product(graph, inner, linear.weight, _quantise(graph, inner) if int8 else None, linear.bias)
    return _norm(graph, graph.op("Add", [product, hidden]), norm, epsilon)


def _wide(graph: _Graph, hidden: str, linear: Linear, activation: str, int8: bool) -> str:
    """``activation(linear(hidden))``."""
    product = _product(graph, hidden, linear.weight, _quantise(graph, hidden) if int8 else None, linear.bias)
    if activation == "gelu":
        return graph.fused("Gelu", [product])
    if activation == "gelu_new":
        return graph.fused("FastGelu", [product])
    rectified: str = graph.op("Relu", [product])
    return rectified


def _quantise(graph: _Graph, hidden: str) -> list[str]:
    """uint8 values, their scale, their zero point."""
    found: list[str] = graph.op("DynamicQuantizeLinear", [hidden], 3)
    return found


def _product(graph: _Graph, hidden: str, weight: Array, quantised: list[str] | None, bias: Array | None = None) -> str:
    added = [] if bias is None else [graph.constant(bias)]
    if quantised is None:
        product: str = graph.op("Gemm" if added else "MatMul", [hidden, graph.constant(weight), *added])
        return product
    small = _Quantised(weight)
    values, scale, zero = quantised
    inputs = [values, graph.constant(small.values, np.int8), scale, graph.constant(small.scale), zero]
    return graph.fused("MatMulIntegerToFloat", [*inputs, *(["", *added] if added else [])])


def _norm(graph: _Graph, hidden: str, norm: Norm, epsilon: float) -> str:
    inputs = [hidden, graph.constant(norm.weight), graph.constant(norm.bias)]
    name: str = graph.op("LayerNormalization", inputs, axis=-1, epsilon=epsilon)
    return name


def _tokens_apart(graph: _Graph, flat: str, size: int) -> str:
    """[B·L, size] ─▶ [B, L, size]."""
    shape = graph.op("Concat", [graph.op("Shape", ["input_ids"]), graph.constant([size], np.int64)], axis=0)
    name: str = graph.op("Reshape", [flat, shape])
    return name


def _unpadded(graph: _Graph, states: str) -> str:
    """[B, L, H] with each text's first state where it has no token: a repeat never changes a maximum."""
    there = graph.op("Cast", [graph.op("Unsqueeze", ["attention_mask", graph.constant([2], np.int64)])], to=9)
    first = graph.op("Slice", [states, *(graph.constant([i], np.int64) for i in (0, 1, 1))])
    name: str = graph.op("Where", [there, states, first])
    return name


def _best(graph: _Graph, hidden: str, head: Head, pool: Pool, int8: bool) -> str:
    """Activated float32[B, V], the maximum over each text's tokens."""
    size = head.words.shape[1]
    states = _unpadded(graph, _tokens_apart(graph, hidden, size))
    flat = graph.op("Reshape", [states, graph.constant([-1, size], np.int64)])
    quantised = _quantise(graph, flat) if int8 else None
    parts = []
    for start in range(0, len(head.bias), _SLICE):
        weight = head.words[start : start + _SLICE].T
        if quantised is None:
            product = graph.op("MatMul", [flat, graph.constant(weight)])
            parts.append(_maximum(graph, product, weight.shape[1]))
        else:
            small = _Quantised(weight)
            values, scale, zero = quantised
            product = graph.op("MatMulInteger", [values, graph.constant(small.values, np.int8), zero])
            whole = graph.op("Cast", [_maximum(graph, product, weight.shape[1])], to=TensorProto.FLOAT)
            parts.append(graph.op("Mul", [whole, graph.op("Mul", [graph.constant(small.scale), scale])]))
    logits = graph.op("Add", [graph.op("Concat", parts, axis=1), graph.constant(head.bias)])
    return _weights(graph, logits, pool.activation)


def _maximum(graph: _Graph, product: str, width: int) -> str:
    name: str = graph.op("ReduceMax", [_tokens_apart(graph, product, width)], axes=[1], keepdims=0)
    return name


def _summed(graph: _Graph, hidden: str, head: Head, pool: Pool) -> str:
    """Float32[B, V], the sum over each text's tokens of activated logits, as the first SPLADE has it."""
    mask = graph.op("Cast", [graph.op("Unsqueeze", ["attention_mask", graph.constant([2], np.int64)])], to=1)
    parts = []
    for start in range(0, len(head.bias), _SLICE):
        part = slice(start, start + _SLICE)
        logits = graph.op("MatMul", [hidden, graph.constant(head.words[part].T)])
        logits = graph.op("Add", [logits, graph.constant(head.bias[part])])
        weights = _tokens_apart(graph, _weights(graph, logits, pool.activation), len(head.bias[part]))
        masked = graph.op("Mul", [weights, mask])
        parts.append(graph.op("ReduceSum", [masked, graph.constant([1], np.int64)], keepdims=0))
    name: str = graph.op("Concat", parts, axis=1)
    return name


def _weights(graph: _Graph, logits: str, activation: Activation) -> str:
    found: str = graph.op("Relu", [logits])
    for _ in range({"relu": 0, "log1p_relu": 1, "log1p_log1p_relu": 2}[activation]):
        found = graph.op("Log", [graph.op("Add", [found, graph.constant(1)])])
    return found


def _write(path: Path, graph: _Graph, outputs: dict[str, tuple[str, int, list[Any]]], *, typed: bool = False) -> None:
    nodes = [*graph.nodes, *(helper.make_node("Identity", [name], [out]) for out, (name, _, _) in outputs.items())]
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]
    made = helper.make_graph(
        nodes,
        "bridge",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"]) for name in inputs],
        [helper.make_tensor_value_info(out, kind, dims) for out, (_, kind, dims) in outputs.items()],
        list(graph.constants.values()),
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=_IR, producer_name="neural-sparse-bridge")
    large = sum(len(one.raw_data) for one in graph.constants.values()) > _INLINE
    onnx.save_model(model, str(path), save_as_external_data=large, location=f"{path.name}.data" if large else None)
