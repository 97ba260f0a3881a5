"""How far a run has come: a small JSON file, replaced atomically.

It moves only past documents whose outcome is known, in source order, so that a run resumed from it
repeats a few documents but never skips one.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from bridge.errors import CheckpointError


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run and its position.

    `source`, `model`, `dense` and `index_uuid` say which run it is; `position` counts the source's items that
    are settled; the counters are the summary's so far, those from `prepared` on over the documents that were
    encoded and indexed (`mass` is a sum of weights); `dead_letter_bytes` is the dead-letter file's
    length at this position.
    """

    format: int = 1
    source: str
    model: str
    dense: str = ""
    index_uuid: str
    operation: str
    position: int = 0
    indexed: int = 0
    unchanged: int = 0
    deleted: int = 0
    dead: int = 0
    prepared: int = 0
    passages: int = 0
    terms: int = 0
    mass: float = 0.0
    removed_terms: int = 0
    removed_mass: float = 0.0
    dead_letter: str = ""
    dead_letter_bytes: int = 0


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint in `path`, or None where there is none.

    Raises:
        CheckpointError: it cannot be read, or is not a whole checkpoint.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(content, type=Checkpoint)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"the checkpoint {path} is damaged ({error}); start over with --fresh: "
            "documents that are in the index are recognised"
        ) from error


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace `path` by `checkpoint`; after a crash the file holds the old one or the new one, whole.

    Raises:
        CheckpointError: it cannot be written (a full disk, say).
    """
    half = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with half.open("wb") as file:
            file.write(msgspec.json.encode(checkpoint))
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be written: {error.strerror}; make room there (or set BRIDGE_DATA_DIR to a "
            "folder elsewhere) and run it again"
        ) from error


def check_same_run(there: Checkpoint, now: Checkpoint, path: Path) -> None:
    """Raises CheckpointError unless both are of the same source, model and index; says which differs."""
    for name, what in (
        ("source", "the source has changed"),
        ("model", "the model is another"),
        ("dense", "the dense model is another"),
        ("index_uuid", "the index is another"),
    ):
        if getattr(there, name) != getattr(now, name):
            raise CheckpointError(
                f"cannot resume the interrupted run at document {there.position}: {what} since ({path}); "
                "start over with --fresh: documents that are in the index are recognised"
            )
