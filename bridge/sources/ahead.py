"""Files read ahead by threads: opened, fetched and decompressed while the ones before are parsed.

What they give comes out in the order of the files, each file's as one thread reads it, so that nothing but the time
depends on it. Threads, since decompression leaves the interpreter to others; parsing does not, and what another process
has parsed costs as much to hand over as to parse.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from bridge.sources.files import SourceFile
from bridge.sources.streams import Cursor

AHEAD_BYTES = 8 << 20
"""What a file may give before it is asked for, decompressed; one piece more where that is larger."""

JOIN_SECONDS = 5.0

Begin = Callable[[SourceFile, Cursor], Generator[Any, None, None] | None]
"""What a file gives piece by piece, bytes or record batches; None where it has to be read when its turn comes."""


def read_ahead(files: Sequence[SourceFile], readers: int, begin: Begin) -> Generator[SourceFile, None, None]:
    """`files` in order, `readers` of them begun; closing it ends what was begun.

    A file in a store is begun before it is parsed in any case.
    """
    rest = iter(files)
    begun: deque[tuple[SourceFile, FileAhead | None]] = deque()
    try:
        while True:
            while len(begun) < readers and (file := next(rest, None)):
                pieces = begin(file, own := Cursor()) if readers > 1 or file.remote else None
                ahead = FileAhead(pieces, own) if pieces else None
                begun.append((file, ahead))
            if not begun:
                return
            file, ahead = begun[0]
            yield replace(file, ahead=ahead)
            begun.popleft()
    finally:
        for _, ahead in begun:
            if ahead:
                ahead.stop()


class FileAhead:
    """What one file gives, taken by a thread of its own as far as there is room."""

    def __init__(self, pieces: Generator[Any, None, None], cursor: Cursor) -> None:
        self._pieces = pieces
        self._cursor = cursor
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._ended = False
        self._stopped = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="bridge-read-ahead", daemon=True)
        self._thread.start()

    def pieces(self, cursor: Cursor) -> Iterator[Any]:
        """All of them, once; `cursor` follows along. Raises what reading raised, after what came before it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
                piece, offset = self._waiting.popleft()
                self._bytes -= _size(piece)
                self._changed.notify_all()
            cursor.at(offset)
            yield piece
        if self._failure:
            raise self._failure

    def stop(self) -> None:
        """End the thread and let go of what it has read."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        try:
            with closing(self._pieces):
                for piece in self._pieces:
                    with self._changed:
                        self._changed.wait_for(lambda: self._stopped or self._bytes < AHEAD_BYTES)
                        if self._stopped:
                            return
                        self._waiting.append((piece, self._cursor.bytes_read))
                        self._bytes += _size(piece)
                        self._changed.notify_all()
        except Exception as error:
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def _size(piece: Any) -> int:
    if isinstance(piece, bytes):
        return len(piece)
    _, batch = piece
    return int(batch.nbytes)
