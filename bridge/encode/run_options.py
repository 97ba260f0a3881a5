"""Where and how a model's weights run, and what may be done to read them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a model's weights are read and run.

    Attributes:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``auto``.
        precision: ``fp32``, ``bf16`` or ``fp16``; by default fp32 on a CPU and bf16 on a GPU.
        allow_pickle: read pytorch_model.bin, restricted to tensors, where there are no safetensors.
        trust_remote_code: run code that the model's folder brings along for its architecture.
        threads: of the ONNX runtime; all usable cores by default (torch has OMP_NUM_THREADS).
        slow: allow half precision on a CPU; for tests of that code path.
    """

    device: str = "cpu"
    precision: str | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    slow: bool = False
    threads: int | None = None
