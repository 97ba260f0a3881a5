"""Small helpers over the files of a model folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bridge.errors import ModelError, ModelFormatError


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Around what writes a model to `folder`, or beside it.

    Raises:
        ModelError: it cannot be written (a full disk, say).
    """
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"the model cannot be written to {folder}: {error.strerror or error}; make room, or name another folder "
            "(BRIDGE_CACHE_DIR moves the cache)"
        ) from error


def file_hash(*paths: Path) -> str:
    """sha256 (hex) over the contents of `paths`, in order, names included."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelFormatError(f"{path} cannot be read: {error.strerror}") from error
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def read_json(path: Path) -> Any:
    """The JSON document in `path`.

    Raises:
        ModelFormatError: missing, unreadable, or not JSON.
    """
    try:
        return msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise ModelFormatError(f"{path.parent} has no {path.name}") from None
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelFormatError(f"{path} is not JSON: {error}") from error
