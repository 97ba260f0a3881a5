"""Opening sources and passing over them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from bridge.errors import SourceError
from bridge.sources.delimited import read_delimited
from bridge.sources.documents import Item, SourceOptions
from bridge.sources.files import STDIN, Format, SourceFile, resolve
from bridge.sources.jsonl import read_jsonl
from bridge.sources.letters import letters_file, read_letters
from bridge.sources.parquet import read_parquet
from bridge.sources.streams import Cursor

Reader = Callable[[SourceFile, SourceOptions, Cursor], Iterator[Item]]

_READERS: dict[Format, Reader] = {
    "jsonl": read_jsonl,
    "csv": read_delimited,
    "tsv": read_delimited,
    "parquet": read_parquet,
    "letters": read_letters,
}


class Source:
    """What the user wants read: one or more files, in a stable order.

    A context manager; closing it deletes the temporary copy of stdin, where there is one.
    """

    def __init__(self, files: Sequence[SourceFile], options: SourceOptions) -> None:
        self.files = tuple(files)
        self.options = options
        self._cursor = Cursor()

    @property
    def name(self) -> str:
        """Short, for messages: a file's name, and how many more there are."""
        first = self.files[0].name
        first = first if first == STDIN else Path(first).name
        return first if len(self.files) == 1 else f"{first} and {len(self.files) - 1:,} more"

    def read(self, skip: int = 0) -> Iterator[Item]:
        """One pass from the start: each document in order, as a `Doc` or a `DeadLetter`.

        The first `skip` items are passed over without being parsed where the format allows (for resuming).
        Raises `SourceError` where a file breaks off or cannot be read; what came before was yielded.
        """
        cursor = self._cursor = Cursor(skip)
        for file in self.files:
            yield from _READERS[file.format](file, self.options, cursor)
            cursor.leave(file.size or 0)

    def fingerprint(self) -> str:
        """64 hex characters that change when the source does: names, sizes and samples of the content.

        Reads stdin to its end. Folders do not count, so a moved source is the same source; a change that
        keeps a file's size and its first, middle and last 64 KiB goes unseen.
        """
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(file.sample())
        return digest.hexdigest()

    @property
    def bytes_total(self) -> int | None:
        """Bytes as they are stored, or None while stdin has not come to its end."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def bytes_read(self) -> int:
        """Of `bytes_total`, how much the latest pass has consumed."""
        return self._cursor.bytes_read

    def close(self) -> None:
        """Delete the temporary copy of stdin."""
        for file in self.files:
            if file.spool:
                file.spool.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(
    specs: Sequence[str],
    options: SourceOptions = SourceOptions(),  # noqa: B008 - frozen
    *,
    stdin: BinaryIO | None = None,
) -> Source:
    """A source of all that `specs` name: files, globs, BEIR folders, `-` for `stdin` (JSONL).

    A file that is named twice is read once. Raises `SourceError`, before anything is read, for what is
    missing, unreadable, of no known form, or matches nothing.
    """
    if not specs:
        raise SourceError("no source is named")
    if specs.count("-") > 1:
        raise SourceError("stdin (-) is named twice; it can be read as one source only")
    files: dict[str, SourceFile] = {}
    for spec in specs:
        for file in resolve(spec, stdin or sys.stdin.buffer):
            key = file.name if file.spool else str(Path(file.name).resolve())
            files.setdefault(key, file)
    return Source(list(files.values()), options)


def open_letters(
    path: Path,
    options: SourceOptions = SourceOptions(),  # noqa: B008 - frozen
) -> Source:
    """The documents of a dead-letter file as a source. Raises `SourceError` where it cannot be opened."""
    return Source([letters_file(path)], options)
