"""Bytes in, lines out: decompression and line splitting in bounded memory."""

from __future__ import annotations

import io
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from bridge.errors import SourceError
from bridge.sources.where import Condition

Compression = Literal["gzip", "zstd"] | None

MAX_LINE_BYTES = 100_000_000
"""A longer line becomes a dead letter; both engines refuse requests of 100 MB anyway."""

CHUNK_BYTES = 1 << 18
GUNZIP_BYTES = 1 << 19
DAMAGE_STEP_BYTES = 1 << 9
_GZIP = zlib.MAX_WBITS | 16
# zstd can expand some 30,000-fold and `decompressobj` has no bound on its output, so it is fed little.
ZSTD_CHUNK_BYTES = 1 << 12
OVERLONG_HEAD_BYTES = 1 << 16

MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class Cursor:
    """How far one pass over a source has come; one pass writes it, others may look.

    Args:
        skip: records that are passed over.
        condition: which documents are the source's; all, where it is None.
        raw: fields whose JSON is handed on as it is written (`msgspec.Raw`), where the format is JSON Lines.
    """

    __slots__ = ("base", "bytes_read", "condition", "matched", "raw", "seen", "skip")

    def __init__(self, skip: int = 0, condition: Condition | None = None, raw: frozenset[str] = frozenset()) -> None:
        self.raw = raw
        self.skip = skip
        self.condition = condition
        self.base = 0
        self.bytes_read = 0
        self.seen = 0
        """Documents that the condition was asked about."""
        self.matched = 0

    def at(self, offset: int) -> None:
        """The current file has been read up to `offset` (in bytes as they are stored)."""
        self.bytes_read = self.base + offset

    def leave(self, size: int) -> None:
        """The current file, of `size` bytes, is done."""
        self.base += size
        self.bytes_read = self.base

    def passes_over(self) -> bool:
        """Whether the item at hand is one of those to skip; counts it if so."""
        if self.skip == 0:
            return False
        self.skip -= 1
        return True

    def leaves_out(self, fields: Mapping[str, Any]) -> bool:
        """Whether a document of these fields is none of the source's; counts it."""
        if self.condition is None:
            return False
        self.seen += 1
        if not self.condition.holds(fields):
            return True
        self.matched += 1
        return False


@dataclass(frozen=True, slots=True)
class Overlong:
    """A line over the limit: its first bytes, and how long it was."""

    head: bytes
    size: int


Line = bytes | bytearray | Overlong


def lines(chunks: Iterable[bytes], limit: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Split `chunks` at each newline, which stays on its line; hold at most `limit` bytes of a line."""
    pending = bytearray()
    overlong: Overlong | None = None
    for chunk in chunks:
        start = 0
        while start < len(chunk):
            end = chunk.find(b"\n", start) + 1
            piece = chunk[start : end or len(chunk)]
            start += len(piece)
            if overlong is None and len(pending) + len(piece) <= limit:
                if end and not pending:
                    yield piece
                    continue
                pending += piece
            else:
                head = overlong.head if overlong else bytes(pending[:OVERLONG_HEAD_BYTES] + piece[:OVERLONG_HEAD_BYTES])
                size = overlong.size if overlong else len(pending)
                overlong, pending = Overlong(head, size + len(piece)), bytearray()
            if end:
                yield overlong or pending
                overlong, pending = None, bytearray()
    if overlong or pending:
        yield overlong or pending


def decompressed(stream: BinaryIO, compression: Compression, name: str) -> Iterator[bytes]:
    """The bytes of `stream`, in chunks. Raises `SourceError` where they are damaged or end too early."""
    try:
        match compression:
            case None:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
            case "gzip":
                yield from _gunzipped(stream)
            case "zstd":
                yield from _unzstd(stream, name)
    except EOFError:
        raise SourceError(f"{name}: the {compression} data ends too early; the file is cut off") from None
    except zlib.error as error:
        raise SourceError(f"{name}: the gzip data is damaged: {error}") from error
    except OSError as error:
        raise SourceError(f"{name}: cannot be read: {error.strerror or error}") from error


def _gunzipped(stream: BinaryIO) -> Iterator[bytes]:
    # In few and large steps: each costs a thread its turn at the interpreter, and `gzip` takes many small ones.
    member = None
    ended = False
    data = b""
    while data := data or stream.read(CHUNK_BYTES):
        if member is None and not (data := data.lstrip(b"\0") if ended else data):
            continue  # padding between members, as tapes have it
        member = member or zlib.decompressobj(_GZIP)
        before = member.copy()
        try:
            chunk = member.decompress(data, GUNZIP_BYTES)
        except zlib.error:
            yield from _up_to_damage(before, data)
            raise
        if chunk:
            yield chunk
        data = member.unused_data if member.eof else member.unconsumed_tail
        if member.eof:
            member, ended = None, True
    if member is not None or not ended:
        raise EOFError


def _up_to_damage(member: Any, data: bytes, step: int = DAMAGE_STEP_BYTES) -> Iterator[bytes]:
    """What can be had of a damaged piece, so that nothing that was whole is lost."""
    for start in range(0, len(data), step):
        before, piece = member.copy(), data[start : start + step]
        try:
            yield member.decompress(piece)
        except zlib.error:
            if step > 1:
                yield from _up_to_damage(before, piece, 1)
            return


def _unzstd(stream: BinaryIO, name: str) -> Iterator[bytes]:
    import zstandard

    # `stream_reader` takes a cut-off frame for the end of the data; only `decompressobj` tells.
    decompressor = zstandard.ZstdDecompressor()
    frame = None
    ended = False
    try:
        while data := stream.read(ZSTD_CHUNK_BYTES):
            while data:
                frame = frame or decompressor.decompressobj()
                if chunk := frame.decompress(data):
                    yield chunk
                data = frame.unused_data
                if frame.eof:
                    frame, ended = None, True
    except zstandard.ZstdError as error:
        raise SourceError(f"{name}: the zstd data is damaged: {error}") from error
    if frame is not None or not ended:
        raise EOFError


class Spool:
    """A stream that can be read only once, kept in a temporary file so that it can be read again.

    The first pass fills the file as it reads; the file is deleted when the spool is closed or forgotten.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        # Unlinked already, and closed by `close` or the finalizer: a context manager would end too soon.
        self._file = tempfile.TemporaryFile(prefix="bridge-stdin-")  # noqa: SIM115
        self._length = 0
        self._drained = False
        self.close = weakref.finalize(self, self._file.close)

    @property
    def size(self) -> int | None:
        """Bytes in all, or None until the stream has come to its end."""
        return self._length if self._drained else None

    def open(self) -> BinaryIO:
        """A reader from the start, independent of the others."""
        return _SpoolReader(self)  # type: ignore[return-value]

    def drain(self) -> int:
        """Read the stream to its end; returns the bytes in all."""
        while not self._drained:
            self.read_at(self._length, CHUNK_BYTES)
        return self._length

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on, none at the end."""
        if offset < self._length:
            self._file.seek(offset)
            return self._file.read(min(size, self._length - offset))
        if self._drained:
            return b""
        read = getattr(self._stream, "read1", self._stream.read)
        chunk: bytes = read(size)
        self._drained = not chunk
        try:
            self._file.seek(self._length)
            self._file.write(chunk)
        except OSError as error:
            where = tempfile.gettempdir()
            raise SourceError(f"<stdin>: cannot be kept in {where} for a second pass: {error.strerror}") from error
        self._length += len(chunk)
        return chunk


class PlacedReader(io.RawIOBase):
    """A reader that can stand anywhere; a subclass seeks and reads."""

    _offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self.read(len(buffer)) or b""
        buffer[: len(data)] = data
        return len(data)


class _SpoolReader(PlacedReader):
    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset += self._spool.drain()
        elif whence == io.SEEK_CUR:
            offset += self._offset
        self._offset = offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self.readall()
        data = self._spool.read_at(self._offset, size)
        self._offset += len(data)
        return data
