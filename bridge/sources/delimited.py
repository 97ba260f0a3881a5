"""CSV and TSV, with a header; every value is a string.

Both are read by RFC 4180's quoting, strictly: what does not parse becomes a dead letter rather than a guess.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from bridge.errors import DocumentError, SourceError
from bridge.records import DeadLetter, Position
from bridge.sources.documents import Item, raw_text, to_item
from bridge.sources.files import SourceFile
from bridge.sources.jsonl import BOM, utf8_fault
from bridge.sources.options import SourceOptions
from bridge.sources.streams import MAX_LINE_BYTES, OVERLONG_HEAD_BYTES, Cursor, Line, Overlong, lines

MAX_RECORD_BYTES = MAX_LINE_BYTES // 4
"""Python's csv keeps four bytes a character, so this holds a record to the memory of the longest line."""


def read_delimited(file: SourceFile, options: SourceOptions, cursor: Cursor) -> Iterator[Item]:
    """Each record after the header, as one item; its line is where the record begins."""
    # The limit belongs to the process; it is only ever raised, and its default is far too low for texts.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))
    records = _Records(lines(file.chunks(cursor), MAX_RECORD_BYTES), "\t" if file.format == "tsv" else ",")
    header = _header(file.name, records)
    for first, cells in records:
        if cursor.passes_over():
            continue
        position = Position(file.name, first)
        try:
            fields = _fields(header, cells)
        except DocumentError as error:
            yield DeadLetter(position, None, str(error), raw_text(records.head, records.size))
        else:
            if not cursor.leaves_out(fields):
                yield to_item(fields, position, options)


def _header(name: str, records: _Records) -> list[str]:
    first, cells = next(records, (1, None))
    if cells is None:
        raise SourceError(f"{name}: is empty; its first line must name the columns")
    if isinstance(cells, DocumentError):
        raise SourceError(f"{name}:{first}: the header cannot be read: {cells}")
    if "" in cells:
        raise SourceError(f"{name}:{first}: column {cells.index('') + 1} of the header has no name")
    if twice := sorted({cell for cell in cells if cells.count(cell) > 1}):
        raise SourceError(f"{name}:{first}: the header names a column twice: {', '.join(twice)}")
    return cells


def _fields(header: list[str], cells: list[str] | DocumentError) -> dict[str, Any]:
    if isinstance(cells, DocumentError):
        raise cells
    if len(cells) != len(header):
        raise DocumentError(f"it has {len(cells)} cells where the header has {len(header)}")
    fields = dict(zip(header, cells, strict=True))
    if fields.get("_op") == "":
        del fields["_op"]
    return fields


class _Records:
    """Records as (line where it begins, cells), or the error in place of the cells.

    Until the next one is asked for, `head` and `size` describe the record's bytes.
    """

    def __init__(self, physical: Iterator[Line], delimiter: str) -> None:
        self._lines = _Lines(physical)
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)

    @property
    def head(self) -> bytearray:
        return self._lines.head

    @property
    def size(self) -> int:
        return self._lines.size

    def __iter__(self) -> _Records:
        return self

    def __next__(self) -> tuple[int, list[str] | DocumentError]:
        while True:
            first = self._lines.begin_record()
            cells: list[str] | DocumentError
            try:
                cells = next(self._reader)
            except (csv.Error, DocumentError) as error:
                # The csv reader starts afresh at the next line.
                cells = self._explained(first, error)
            if self._lines.fault:
                cells = DocumentError(self._lines.fault)
            if cells:
                return first, cells

    def _explained(self, first: int, error: Exception) -> DocumentError:
        last = self._lines.number
        span = f"line {first}" if first == last else f"lines {first} to {last}, read as one record"
        message = str(error)
        if isinstance(error, DocumentError) or "field limit" in message:
            message = f"{self.size:,} bytes, at most {MAX_RECORD_BYTES:,} are read; is a quote not closed?"
        elif "unexpected end" in message:
            message = "a quote is not closed"
        elif "new-line character" in message:
            message = "not well-formed: a carriage return stands outside quotes"
        else:
            message = f"not well-formed: {message}"
        return DocumentError(f"{span}: {message}")


class _Lines:
    """Decoded lines for `csv.reader`; an object, since a generator would be over after its first error.

    A line that is not UTF-8 still goes through, so that the record's end is found; `fault` tells of it.
    """

    def __init__(self, physical: Iterator[Line]) -> None:
        self._physical = physical
        self.number = 0
        self.head = bytearray()
        self.size = 0
        self.fault: str | None = None

    def begin_record(self) -> int:
        """Forget the last record; returns the line where the next one begins."""
        self.head, self.size, self.fault = bytearray(), 0, None
        return self.number + 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = next(self._physical)
        self.number += 1
        if isinstance(raw, Overlong):
            self.head += raw.head
            self.size += raw.size
            raise DocumentError("too long")
        if self.number == 1:
            raw = raw.removeprefix(BOM)
        self.size += len(raw)
        if len(self.head) < OVERLONG_HEAD_BYTES:
            self.head += raw[:OVERLONG_HEAD_BYTES]
        if self.size > MAX_RECORD_BYTES:
            raise DocumentError("too long")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.fault = self.fault or f"{utf8_fault(raw)} of line {self.number}"
            return raw.decode("utf-8", "surrogateescape")
