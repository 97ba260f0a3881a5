"""What both torch runtimes share: device and precision, checked weights, padded batches."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from bridge.encode.callers import Callers
from bridge.encode.folder import read_json
from bridge.encode.run_options import RunOptions
from bridge.errors import ModelFormatError, UsageError

TOKENS_CPU, TOKENS_GPU = 1024, 32_768
"""Tokens a batch; on a CPU larger batches fall out of the cache, a GPU wants to be filled."""

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(asked: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU where there is one.

    Raises:
        UsageError: no such device, or a GPU where there is none.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {asked!r} is not known; it is cpu, cuda, cuda:N, mps or auto")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {asked} was asked for, and no GPU is to be had here; use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {asked} was asked for, and this machine has {torch.cuda.device_count()} GPU(s)")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps was asked for, and it is not to be had here; use cpu or auto")
    return device


def gpu_count() -> int:
    """The GPUs that this process may use."""
    return int(torch.cuda.device_count())


def choose_precision(asked: str | None, device: torch.device, *, slow: bool = False) -> torch.dtype:
    """fp32 on a CPU, bf16 (or fp16 on an older GPU) on a GPU, unless asked otherwise.

    Args:
        asked: ``fp32``, ``bf16``, ``fp16`` or None.
        device: where it is to run.
        slow: allow half precision on a CPU, which is right but slow; for tests of that code path.

    Raises:
        UsageError: an unknown precision, or one that is bad on the device.
    """
    if asked is None:
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if asked not in _PRECISIONS:
        raise UsageError(f"precision {asked!r} is not known; it is one of {', '.join(_PRECISIONS)}")
    if device.type == "cpu" and asked != "fp32" and not slow:
        raise UsageError(
            f"{asked} on a CPU is several times slower than fp32 and less exact; leave it out, or use a GPU"
        )
    return _PRECISIONS[asked]


def load_model(
    kind: Any,
    folder: Path,
    dtype: torch.dtype,
    options: RunOptions,
    *,
    optional: Sequence[str] = ("position_ids",),
) -> Any:
    """A transformers model with every weight that it needs, all of them finite numbers.

    Args:
        kind: a class such as ``transformers.AutoModelForMaskedLM``.
        folder: config.json and model.safetensors (or, where it is allowed, pytorch_model.bin).
        dtype: of the weights in memory.
        options: what may be done to read them.
        optional: parts of names of weights that may be missing.

    Raises:
        ModelFormatError: weights missing, misshapen, not finite, or in a form that nothing permits; or the
            architecture needs code of its own.
    """
    safe = any(folder.glob("*.safetensors"))
    if not safe:
        if not any(folder.glob("pytorch_model*.bin")):
            raise ModelFormatError(f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin")
        if not options.allow_pickle:
            raise ModelFormatError(
                f"{folder} holds its weights as a pickle only (pytorch_model.bin); --allow-pickle reads it, "
                "restricted to tensors"
            )
    if "auto_map" in read_json(folder / "config.json") and not options.trust_remote_code and not _is_known(folder):
        raise ModelFormatError(
            f"{folder} brings code of its own for its architecture; --trust-remote-code runs it, "
            "if you trust where it comes from"
        )
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, report = kind.from_pretrained(
                folder, local_files_only=True, dtype=dtype, use_safetensors=safe, output_loading_info=True,
                weights_only=True, trust_remote_code=options.trust_remote_code, ignore_mismatched_sizes=True,
            )  # fmt: skip
    except Exception as error:  # the library raises whatever its parsers do
        reason = " ".join(str(error).split())[:300]
        raise ModelFormatError(f"{folder} cannot be read as a {_task(kind)}: {reason}") from error
    missing = [str(name) for name in report["missing_keys"] if not any(part in name for part in optional)]
    misshapen = [str(key[0]) for key in report["mismatched_keys"]]
    if missing or misshapen:
        raise ModelFormatError(
            f"{folder} lacks weights that a {_task(kind)} has, or they are misshapen: "
            f"{', '.join([*missing, *misshapen][:4])}"
        )
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ModelFormatError(f"{folder}: the weights {name} hold values that are not finite numbers")
    return model.eval()


def placed(model: Any, device: torch.device) -> Any:
    """`model` on `device`; on a CPU with the weights of its linear maps in the order in which they are multiplied.

    They are stored [out, in] and used [in, out]: turned round once here, instead of at every product. The map onto the
    vocabulary stays as it is, since single rows of it are used too.
    """
    model = model.to(device)
    if device.type == "cpu":
        last = model.get_output_embeddings()
        for one in model.modules():
            if isinstance(one, torch.nn.Linear) and one is not last:
                one.weight.data = one.weight.data.t().contiguous().t()
    return model


def callers(device: torch.device) -> Callers:
    """What encodes batches on `device`: side by side on a CPU, as many as torch has threads."""
    if device.type != "cpu":
        return Callers(1)
    threads = torch.get_num_threads()
    return Callers(threads, lambda: _alone(threads))


def _alone(threads: int) -> None:
    """Let this thread compute alone; others go on with `threads`, also those that begin later."""
    torch.set_num_threads(1)
    # What was set counts for this thread, and for all new ones: those must not inherit it.
    other = threading.Thread(target=torch.set_num_threads, args=(threads,))
    other.start()
    other.join()


def _is_known(folder: Path) -> bool:
    """Whether the installed transformers has the architecture itself."""
    return read_json(folder / "config.json").get("model_type") in transformers.CONFIG_MAPPING


def _task(kind: Any) -> str:
    return "masked language model" if "MaskedLM" in kind.__name__ else "transformer"


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """`rows` filled up with zeros to the longest, and the mask of what is not filling: int64[B, L] each."""
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[place, : len(row)] = 1
    return tokens.to(device), mask.to(device)
