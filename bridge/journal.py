"""What a run has handed to the engine since its last checkpoint: intents, written before anything is sent.

A run that is killed leaves documents behind that the engine may or may not have taken. The run that goes on meets
them again; where such a document is there already, it is this load that put it there, and it counts as indexed.

The file holds a line for each batch: the first item's number in the source, and which items were sent, a bit each.
It is read only after a crash of this process, so a line goes to the kernel at once but is not forced onto the disk:
what a crash of the machine takes from it makes a count differ (unchanged in the place of indexed), never a document.
At a checkpoint what is settled leaves the file; the shorter one is written aside and takes its name, so that a kill
in between leaves the old one or the new one, whole.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bridge.errors import CheckpointError


class Journal:
    """The intents of one run; `before` are the numbers of the items that an interrupted one had sent.

    Raises:
        CheckpointError: the file is there and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._file: BinaryIO | None = None
        # Kept until the checkpoint is past them: this run may be killed as well.
        self._batches = deque(_read(path))
        self.before: frozenset[int] = frozenset(
            number for first, _, line in self._batches for number in _numbers(first, line)
        )

    def intend(self, first: int, sent: Sequence[bool]) -> None:
        """Of the items from number `first` on, these are about to be sent.

        Raises:
            CheckpointError: it cannot be written.
        """
        bits = sum(1 << place for place, one in enumerate(sent) if one)
        line = b"%d %x\n" % (first, bits)
        self._batches.append((first, first + len(sent), line))
        with self._writing():
            if self._file is None:
                # An interrupted run may have left half a line, and what is added must not continue it.
                self._file = self._rewritten()
            elif self._file.write(line) != len(line):
                # A disk that fills up takes what it has room for, and only then refuses.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def settled(self, position: int) -> None:
        """The checkpoint stands at `position`: earlier intents are no longer needed.

        Raises:
            CheckpointError: it cannot be written.
        """
        while self._batches and self._batches[0][1] <= position:
            self._batches.popleft()
        if self._file is not None:
            with self._writing():
                shorter = self._rewritten()
                self._file.close()
                self._file = shorter

    def _rewritten(self) -> BinaryIO:
        """The file, made anew of the batches at hand, open at its end."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._part.open("wb") as file:
            file.writelines(line for _, _, line in self._batches)
            file.flush()
            os.fsync(file.fileno())
        self._part.replace(self._path)
        # Unbuffered: what was written outlives the process.
        return self._path.open("ab", buffering=0)

    def close(self) -> None:
        """Keep the file for the run that goes on."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """The run is over."""
        self.close()
        self._part.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"{self._path} cannot be written: {error.strerror}; make room there and run it again"
            ) from error


def _read(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """First number, the number after the last, and the line of each batch."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    for line in content.splitlines(keepends=True):
        first = line.partition(b" ")[0]
        # A killed process may leave half a line.
        if line.endswith(b"\n") and first.isdigit():
            numbers = _numbers(int(first), line)
            yield int(first), max(numbers, default=int(first)) + 1, line


def _numbers(first: int, line: bytes) -> list[int]:
    bits = int(line.split()[1], 16)
    return [first + place for place in range(bits.bit_length()) if bits >> place & 1]
