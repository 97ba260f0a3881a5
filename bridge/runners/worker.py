"""What a worker process does. Only the standard library is imported before it has set its threads."""

from __future__ import annotations

import logging
import os
import threading
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge.encode import Encoder
    from bridge.runners.work import Batch, Encoded

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
"""What torch, numpy and tokenizers read when they are loaded."""

_here: dict[str, Any] = {}


def start(numbers: Any, alive: Connection, threads: int, spec: bytes) -> None:
    """Begin a worker.

    Args:
        numbers: a shared counter; each worker takes the next.
        alive: ends when the first process does, or does not want the work any more.
        threads: of this worker.
        spec: `ModelSpec` and `Work`, pickled, so that nothing heavy is imported before the threads are set.
    """
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    for name in THREADS:
        os.environ.setdefault(name, str(threads))
    # What the model's loader has to say, the first process has said.
    logging.getLogger("bridge").setLevel(logging.ERROR)
    with numbers.get_lock():
        _here["number"] = numbers.value
        numbers.value += 1
    _here.update(threads=threads, spec=spec)


def _end_with(alive: Connection) -> None:
    """A killed process closes no queue: without this its workers would wait for ever."""
    wait([alive])
    os._exit(1)


def encode(batch: Batch) -> Encoded:
    """One batch; the model is loaded with the first."""
    from bridge.runners.work import encode_batch

    if "encoder" not in _here:
        _here["encoder"] = _load()
    return encode_batch(_here["encoder"], _here["work"], batch)


def _load() -> Encoder:
    import pickle

    from bridge.runners.work import load

    spec, _here["work"] = pickle.loads(_here["spec"])  # noqa: S301 - from the parent process
    asked = spec.options.get("device", "cpu")
    return load(spec, _here["work"], device=device_of(asked, _here["number"]), threads=_here["threads"])


def device_of(asked: str, number: int) -> str:
    """The device of worker `number`: the GPUs in turn where any may be used and there are several."""
    if asked not in ("auto", "cuda"):
        return asked
    try:
        from bridge.encode.torch_load import gpu_count
    except ImportError:
        # Without torch it is not known how many there are.
        return asked
    gpus = gpu_count()
    return f"cuda:{number % gpus}" if gpus > 1 else asked
