"""Models on onnxruntime: token sequences ─▶ sparse vectors or embeddings. The only import of onnxruntime.

Two forms of sparse model are read: the one that `bridge export` writes, with pooling, activation and selection inside
of the graph; and a masked language model whose output is logits [B, L, V], such as the file that Splade_PP publishes,
which is pooled here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from bridge.encode.batching import batches
from bridge.encode.callers import Callers
from bridge.encode.entries import NO_ENTRIES, Entries
from bridge.encode.lookup import Framed
from bridge.encode.run_options import RunOptions
from bridge.errors import ModelFormatError, UsageError
from bridge.models import Activation, Pooling

TOKENS_CPU, TOKENS_GPU = 512, 16_384
"""Tokens a batch: on a CPU what a layer writes must stay in the cache of a core, a GPU wants to be filled."""

_INPUTS = {
    "input_ids": "ids",
    "attention_mask": "mask",
    "input_mask": "mask",
    "token_type_ids": "types",
    "segment_ids": "types",
}
"""The names under which published files know the three inputs of a BERT."""

_ERRORS_ONLY = 3
_CPU = Path("/proc/cpuinfo")

Integers = npt.NDArray[np.int64]


class OnnxModel:
    """A loaded file, its inputs by what they mean. Safe to share between threads.

    One product may use all threads or, with others beside it, one: these are two sessions of the library, each of
    which holds the weights, so there is only one where only one is of use.
    """

    def __init__(self, path: Path, options: RunOptions, *, int8: bool = False) -> None:
        """Load `path`.

        Raises:
            UsageError: a device that is not here, or that is bad for this file.
            ModelFormatError: not an ONNX file, or one with inputs that are not those of a text model.
        """
        self.path = path
        providers = choose_providers(options.device, int8=int8)
        self.on_gpu = providers[0] != "CPUExecutionProvider"
        self._providers = providers
        self.callers = Callers(1 if self.on_gpu else options.threads or _usable_cores())
        self._lock = threading.Lock()
        session = self._load(1)
        self._sessions = {1: session}
        self._used: set[int] = set()
        self._feeds: dict[str, tuple[str, Any]] = {}
        for one in session.get_inputs():
            if one.name not in _INPUTS:
                listed = ", ".join(each.name for each in session.get_inputs())
                raise ModelFormatError(
                    f"{path} is not a text model that is known here: its inputs are {listed}; those of one are "
                    "input_ids, attention_mask and perhaps token_type_ids"
                )
            self._feeds[one.name] = _INPUTS[one.name], np.int32 if one.type == "tensor(int32)" else np.int64
        if {"ids", "mask"} - {meaning for meaning, _ in self._feeds.values()}:
            raise ModelFormatError(f"{path} is not a text model: it lacks the input input_ids or attention_mask")
        self.outputs = {one.name: one.shape for one in session.get_outputs()}

    def run(
        self, names: list[str], ids: Integers, mask: Integers, types: Integers | None = None, *, threads: int
    ) -> list[Any]:
        """The named outputs for [B, L] inputs; without `types` all tokens are of type 0.

        Args:
            threads: that this product may use.
        """
        values: Mapping[str, Integers] = {
            "ids": ids,
            "mask": mask,
            "types": np.zeros_like(ids) if types is None else types,
        }
        feeds = {name: values[meaning].astype(kind, copy=False) for name, (meaning, kind) in self._feeds.items()}
        try:
            found: list[Any] = self._session(threads).run(names, feeds)
        except Exception as error:
            raise ModelFormatError(f"{self.path} fails: {' '.join(str(error).split())[:300]}") from error
        return found

    def _session(self, threads: int) -> Any:
        with self._lock:
            if threads not in self._sessions:
                if not self._used:
                    # The one that the file was checked with, in a process that asks one text at a time.
                    self._sessions.clear()
                self._sessions[threads] = self._load(threads)
            self._used.add(threads)
            return self._sessions[threads]

    def _load(self, threads: int) -> Any:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = _ERRORS_ONLY
        if not sums_in_32_bits():
            settings.add_session_config_entry("session.x64quantprecision", "1")
        # On a CPU the fused form of these two operators takes several times as long as they do one by one.
        slow = set() if self.on_gpu else {"SkipLayerNormFusion", "BiasGeluFusion"}
        try:
            return onnxruntime.InferenceSession(
                str(self.path), settings, providers=self._providers, disabled_optimizers=slow
            )
        except Exception as error:  # the library's errors share no base class
            raise ModelFormatError(
                f"{self.path} cannot be read as ONNX: {' '.join(str(error).split())[:300]}"
            ) from error


class OnnxSplade:
    """One sparse model.

    Args:
        path: the ONNX file.
        options: device and threads.
        pooling, activation: of logits, where the file gives those; see `bridge.models.ModelCard`.
        vocabulary: entries of the tokenizer's vocabulary.
        int8: the file is quantised.
    """

    def __init__(
        self,
        path: Path,
        options: RunOptions,
        *,
        pooling: Pooling,
        activation: Activation,
        vocabulary: int,
        int8: bool = False,
    ) -> None:
        self.vocabulary_size = vocabulary
        self._model = OnnxModel(path, options, int8=int8)
        self._pooling, self._activation = pooling, activation
        outputs = self._model.outputs
        self._logits = None if {"places", "weights"} <= set(outputs) else _logits(path, outputs, vocabulary)
        self.budget = TOKENS_GPU if self._model.on_gpu else TOKENS_CPU

    def encode(self, ids: Sequence[Sequence[int]], *, dropped: Sequence[int] = ()) -> list[Entries]:
        """Entries of each token sequence, in order; an empty sequence has none.

        Args:
            ids: token ids, special ones included, each no longer than the model takes.
            dropped: vocabulary ids whose entries are set to zero.
        """
        found: list[Entries] = [NO_ENTRIES] * len(ids)
        out = np.asarray(dropped, dtype=np.int32)

        def encode(rows: list[int], threads: int) -> None:
            for row, (places, weights) in zip(rows, self._batch([ids[row] for row in rows], threads), strict=True):
                kept = ~np.isin(places, out) if out.size else slice(None)
                found[row] = places[kept], weights[kept]

        self._model.callers.each(encode, list(batches([len(one) for one in ids], self.budget)))
        return found

    def _batch(self, ids: Sequence[Sequence[int]], threads: int) -> Iterator[Entries]:
        tokens, mask = padded(ids)
        if self._logits is None:
            places, weights = self._model.run(["places", "weights"], tokens, mask, threads=threads)
        else:
            (logits,) = self._model.run([self._logits], tokens, mask, threads=threads)
            pooled = _pool(logits[:, :, : self.vocabulary_size], mask, self._pooling, self._activation)
            places = np.stack(np.nonzero(pooled))
            weights = pooled[places[0], places[1]]
        bounds = np.searchsorted(places[0], np.arange(len(ids) + 1))
        for start, end in pairwise(bounds.tolist()):
            yield places[1, start:end].astype(np.int32), weights[start:end]


class OnnxDense:
    """One dense model, its pooling inside of the file.

    Raises:
        ModelFormatError: the file has no output `embeddings`.
    """

    def __init__(self, path: Path, options: RunOptions, *, dimension: int, int8: bool = False) -> None:
        self._model = OnnxModel(path, options, int8=int8)
        self._dimension = dimension
        if "embeddings" not in self._model.outputs:
            raise ModelFormatError(f"{path} is not a dense model that bridge export wrote: no output embeddings")
        self.budget = TOKENS_GPU if self._model.on_gpu else TOKENS_CPU

    def encode(self, framed: Sequence[Framed]) -> npt.NDArray[np.float32]:
        """float32[n, dimension], in order."""
        found = np.zeros((len(framed), self._dimension), dtype=np.float32)

        def encode(rows: list[int], threads: int) -> None:
            tokens, mask = padded([framed[row].ids for row in rows])
            types, _ = padded([framed[row].types for row in rows])
            (found[rows],) = self._model.run(["embeddings"], tokens, mask, types, threads=threads)

        self._model.callers.each(encode, list(batches([len(one.ids) for one in framed], self.budget)))
        return found


def choose_providers(device: str, *, int8: bool) -> list[str]:
    """onnxruntime's providers for a device; the last is always the CPU.

    Raises:
        UsageError: the device is not known, not here, or bad for int8.
    """
    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda", "auto"):
        raise UsageError(f"device {device!r} is not known to the ONNX runtime; it is cpu, cuda, cuda:N or auto")
    here = cuda in onnxruntime.get_available_providers()
    if kind == "cpu" or (kind == "auto" and (int8 or not here)):
        return [cpu]
    if int8:
        raise UsageError(
            "an int8 model on a GPU is about ten times slower than the same model there without quantisation; "
            "use it with --device cpu, or the unquantised model on the GPU"
        )
    if not here:
        raise UsageError(
            f"device {device} was asked for, and this onnxruntime has no CUDA provider "
            "(onnxruntime-gpu has one); use cpu or auto"
        )
    number = device.partition(":")[2]
    return [(cuda, {"device_id": number}), cpu] if number else [cuda, cpu]  # type: ignore[list-item]


def padded(rows: Sequence[Sequence[int]]) -> tuple[Integers, Integers]:
    """`rows` filled up with zeros to the longest, and the mask of what is not filling: int64[B, L] each."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    tokens = np.zeros(mask.shape, dtype=np.int64)
    tokens[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return tokens, mask.astype(np.int64)


def _pool(
    logits: npt.NDArray[np.float32], mask: Integers, pooling: Pooling, activation: Activation
) -> npt.NDArray[np.float32]:
    """[B, V] from logits [B, L, V]."""
    if pooling == "max":
        # Zero is what the activation makes of everything below it, so it never wins.
        best = np.max(logits, axis=1, where=mask[:, :, None] == 1, initial=0)
        return _activate(best, activation)
    summed: npt.NDArray[np.float32] = np.sum(_activate(logits, activation), axis=1, where=mask[:, :, None] == 1)
    return summed


def _activate(logits: npt.NDArray[np.float32], activation: Activation) -> npt.NDArray[np.float32]:
    found = np.maximum(logits, 0)
    for _ in range({"relu": 0, "log1p_relu": 1, "log1p_log1p_relu": 2}[activation]):
        found = np.log1p(found)
    return found


def _logits(path: Path, outputs: Mapping[str, Sequence[Any]], vocabulary: int) -> str:
    """The name of the output that is logits [B, L, V]."""
    for name, shape in outputs.items():
        # A size that the file leaves open is a name or None.
        fits = len(shape) == 3 and (not isinstance(shape[2], int) or shape[2] >= vocabulary)
        if fits and ("logits" in name or len(outputs) == 1):
            return name
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in outputs.items())
    raise ModelFormatError(
        f"{path} is not a masked language model of this tokenizer's {vocabulary} tokens: its outputs are {listed}"
    )


def sums_in_32_bits() -> bool:
    """Whether this processor adds up int8 products exactly (VNNI), by what Linux says of it.

    Others add pairs of them in 16 bits, which may saturate, unless onnxruntime is told to be exact; with VNNI that
    would only make it slow. Where it cannot be told, exactness comes first.
    """
    try:
        listed = _CPU.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return bool({"avx512_vnni", "avx_vnni"} & set(listed.split()))


def _usable_cores() -> int:
    """The cores that this process may use, which in a container are fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
