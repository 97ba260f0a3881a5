"""The dead-letter file: what could not go in, and why; nothing is lost silently."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from bridge.errors import SourceError
from bridge.records import BulkOutcome


class DeadLetterFile:
    """JSON lines ``{"file", "line", "id", "reason", "document"}``, made when the first one comes.

    Where a document has an external version, or a routing of its own, ``version`` and ``routing`` follow.

    Older letters stay: those of an earlier run are still not in the index. A resumed run meets those
    documents again whose letters a broken-off one wrote past its checkpoint (`size`): such a letter is
    not written twice. It is not cut either, for another run may have written to the file since.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.first: str | None = None
        """Where the first document of this run stands that is dead, and why it is."""
        self._size = size
        self._file: BinaryIO | None = None
        self._there: Counter[bytes] = Counter()
        if path.is_file() and path.stat().st_size > size:
            with self._wrapped(), path.open("r+b") as file:
                file.seek(size)
                for line in file:
                    if line.endswith(b"\n"):
                        self._there[_digest(line)] += 1
                        size += len(line)
                # A process that was killed may leave half a line.
                file.truncate(size)

    def append(self, outcome: BulkOutcome) -> None:
        """Raises SourceError where the file cannot be written."""
        letter = {
            "file": outcome.position.file,
            "line": outcome.position.line,
            "id": outcome.id,
            "reason": outcome.reason,
            "document": outcome.document,
        }
        for name, value in (("version", outcome.version), ("routing", outcome.routing)):
            if value is not None:
                letter[name] = value
        line = msgspec.json.encode(letter) + b"\n"
        self.first = self.first or f"{outcome.position}: {outcome.reason}"
        if self._there[_digest(line)] > 0:
            self._there[_digest(line)] -= 1
            return
        with self._wrapped():
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab")
            self._file.write(line)

    @property
    def length(self) -> int:
        """The file's length in bytes, with what is not yet on the disk."""
        return self._size if self._file is None else self._file.tell()

    def sync(self) -> int:
        """The file's length in bytes, all of it on the disk."""
        if self._file is not None:
            with self._wrapped():
                self._file.flush()
                os.fsync(self._file.fileno())
        return self.length

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    @contextlib.contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(
                f"the dead-letter file {self.path} cannot be written: {error.strerror}; make room (or name another "
                "with --dead-letter) and run the same command again: it goes on where it stopped"
            ) from error


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()
