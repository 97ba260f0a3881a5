"""What a run has handed to the engine since its last checkpoint: intents, written before anything is sent.

A run that is killed leaves documents behind that the engine may or may not have taken. The run that goes on meets
them again; where such a document is there already, it is this load that put it there, and it counts as indexed.

The file holds a line for each batch: the first item's number in the source, and which items were sent, a bit each.
It is read only after a crash of this process, so it goes to the kernel at once but is not forced onto the disk: what
a crash of the machine takes from it makes a count differ (unchanged in the place of indexed), never a document.
"""

from __future__ import annotations

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
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # Unbuffered: what was written outlives the process.
                self._file = self._path.open("ab", buffering=0)
            self._file.write(line)

    def settled(self, position: int) -> None:
        """The checkpoint stands at `position`: earlier intents are no longer needed."""
        while self._batches and self._batches[0][1] <= position:
            self._batches.popleft()
        # Rewritten under its name: shorter than a batch of the source, and half of it is as good as less of it.
        if self._file is not None:
            with self._writing():
                self._file.truncate(0)
                self._file.write(b"".join(line for _, _, line in self._batches))

    def close(self) -> None:
        """Keep the file for the run that goes on."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """The run is over."""
        self.close()
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
