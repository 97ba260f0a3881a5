"""Opening sources and passing over them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from bridge.errors import SourceError
from bridge.sources.ahead import read_ahead
from bridge.sources.delimited import read_delimited
from bridge.sources.documents import Item
from bridge.sources.files import STDIN, Format, SourceFile, resolve
from bridge.sources.index import Opener, no_engine, read_index
from bridge.sources.jsonl import read_jsonl
from bridge.sources.letters import letters_file, read_letters
from bridge.sources.options import SourceOptions
from bridge.sources.parquet import batches, read_parquet
from bridge.sources.streams import Cursor

Reader = Callable[[SourceFile, SourceOptions, Cursor], Iterator[Item]]

_READERS: dict[Format, Reader] = {
    "jsonl": read_jsonl,
    "csv": read_delimited,
    "tsv": read_delimited,
    "parquet": read_parquet,
    "letters": read_letters,
    "index": read_index,
}

_AHEAD: frozenset[Format] = frozenset({"jsonl", "csv", "tsv", "parquet"})
"""Whose bytes, or batches, may be read before their turn."""


class Source:
    """What the user wants read: one or more files, in a stable order.

    A context manager; closing it deletes the temporary copy of stdin, where there is one.
    """

    def __init__(self, files: Sequence[SourceFile], options: SourceOptions) -> None:
        self.files = tuple(files)
        self.options = options
        self._cursor = Cursor()
        self._raw: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Short, for messages: a file's name, and how many more there are."""
        first = self.files[0].name
        first = first if first == STDIN else Path(first).name
        return first if len(self.files) == 1 else f"{first} and {len(self.files) - 1:,} more"

    @contextmanager
    def handing_on(self, names: frozenset[str]) -> Iterator[None]:
        """Passes begun meanwhile give these fields as they are written (`msgspec.Raw`).

        That is so for JSON Lines, and where no option looks into documents; else they are parsed like all others.
        """
        self._raw, before = names, self._raw
        try:
            yield
        finally:
            self._raw = before

    def read(self, skip: int = 0) -> Iterator[Item]:
        """One pass from the start: each document in order, as a `Doc` or a `DeadLetter`.

        The first `skip` items are passed over (for resuming), without being parsed where the format allows and no
        condition is to be asked. What could not be read as a document passes any condition: it is not to be lost.
        Raises `SourceError` where a file breaks off or cannot be read; what came before was yielded.
        """
        options = self.options
        # With a condition, a record's number does not say how many of the source's items lie before it.
        first = skip if options.condition else 0
        looked_into = options.condition or options.shape or options.identity
        cursor = self._cursor = Cursor(skip - first, options.condition, frozenset() if looked_into else self._raw)
        last = None if options.limit is None else first + max(0, options.limit - skip)
        with closing(self._parsed(cursor)) as items:
            yield from islice(items, first, last)

    def _parsed(self, cursor: Cursor) -> Generator[Item, None, None]:
        def begin(file: SourceFile, own: Cursor) -> Generator[Any, None, None] | None:
            if file.spool or file.format not in _AHEAD:
                return None
            if file.format == "parquet":
                # Which row groups are passed over is known when its turn comes.
                return None if cursor.skip else batches(file, self.options, own)
            return file.chunks(own)

        with closing(read_ahead(self.files, self.options.readers, begin)) as files:
            for file in files:
                yield from _READERS[file.format](file, self.options, cursor)
                cursor.leave(file.size or 0)

    def fingerprint(self) -> str:
        """64 hex characters that change when the source does: names, sizes and samples of the content.

        Reads stdin to its end. Folders do not count, so a moved source is the same source; a change that
        keeps a file's size and its first, middle and last 64 KiB goes unseen. Of a store's file its tag counts, or the
        time of its last change. Options that choose or change documents make another source.
        """
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(file.sample())
        digest.update(self.options.digest())
        return digest.hexdigest()

    @property
    def matched(self) -> tuple[int, int] | None:
        """Of how many documents the condition held in the latest pass, and of how many it was asked; else None."""
        return (self._cursor.matched, self._cursor.seen) if self.options.condition else None

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
            if file.reader:
                file.reader.close()

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
    indexes: Opener = no_engine,
) -> Source:
    """A source of all that `specs` name: files, globs, BEIR folders (also of stores), `-` for `stdin` (JSONL).

    A file that is named twice is read once. An index (``index:NAME``) is opened by `indexes`. Raises `SourceError`,
    before anything is read, for what is missing, unreadable, of no known form, or matches nothing.
    """
    if not specs:
        raise SourceError("no source is named")
    if specs.count("-") > 1:
        raise SourceError("stdin (-) is named twice; it can be read as one source only")
    files: dict[str, SourceFile] = {}
    for spec in specs:
        for file in resolve(spec, stdin or sys.stdin.buffer, indexes):
            files.setdefault(file.key, file)
    return Source(list(files.values()), options)


def open_letters(
    path: Path,
    options: SourceOptions = SourceOptions(),  # noqa: B008 - frozen
) -> Source:
    """The documents of a dead-letter file as a source. Raises `SourceError` where it cannot be opened."""
    return Source([letters_file(path)], options)
