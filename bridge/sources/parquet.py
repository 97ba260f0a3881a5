"""Parquet, in batches of rows; what becomes of its types stands in `arrow`."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bridge.errors import SourceError
from bridge.records import DeadLetter, Position
from bridge.sources.arrow import Row, rows
from bridge.sources.documents import Item, to_item
from bridge.sources.files import SourceFile
from bridge.sources.options import SourceOptions
from bridge.sources.streams import Cursor

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1_000

REMOTE_BUFFER_BYTES = 4 << 20
"""What is asked of a store at a time, of each column."""


def read_parquet(file: SourceFile, options: SourceOptions, cursor: Cursor) -> Iterator[Item]:
    """Each row, as one item; its line is the row's number from 1."""
    pieces = file.ahead.pieces(cursor) if file.ahead else batches(file, options, cursor)
    with _damage(file):
        for number, batch in pieces:
            for place, row in enumerate(rows(batch), number + 1):
                if not cursor.passes_over() and not cursor.leaves_out(row[0]):
                    yield _item(row, Position(file.name, place), options)


def batches(
    file: SourceFile, options: SourceOptions, cursor: Cursor
) -> Generator[tuple[int, pa.RecordBatch], None, None]:
    """The file's record batches, each with the number of rows before it; whole row groups to skip are left out."""
    with _damage(file), _opened(file, cursor) as table:
        names = table.schema_arrow.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SourceError(f"{file.name}: names a column twice: {', '.join(twice)}")
        wanted = [name for name in names if name not in options.unread()]
        groups, number = _groups_after_skip(table.metadata, cursor)
        size, total = file.size or 0, max(1, table.metadata.num_rows)
        columns = wanted if 0 < len(wanted) < len(names) else None
        for batch in table.iter_batches(batch_size=BATCH_ROWS, row_groups=groups, columns=columns):
            cursor.at(size * (number + batch.num_rows) // total)
            yield number, batch
            number += batch.num_rows


@contextmanager
def _damage(file: SourceFile) -> Iterator[None]:
    """What goes wrong in reading, in one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(f"{file.name}: not Parquet, or damaged or cut off: {message}") from error


@contextmanager
def _opened(file: SourceFile, cursor: Cursor) -> Iterator[Any]:
    from pyarrow import parquet

    # Without pre_buffer a row group is read page by page: one may be larger than memory.
    if file.remote and file.compression is None:
        with (
            file.remote.open(exact=True) as stream,
            parquet.ParquetFile(stream, pre_buffer=False, buffer_size=REMOTE_BUFFER_BYTES) as table,
        ):
            yield table
            stream.check()
        return
    if file.compression is None:
        with parquet.ParquetFile(file.name, pre_buffer=False, buffer_size=1 << 20) as table:
            yield table
        return
    with tempfile.TemporaryFile(prefix="bridge-parquet-") as unpacked:
        for chunk in file.chunks(cursor):
            unpacked.write(chunk)
        unpacked.seek(0)
        with parquet.ParquetFile(unpacked, pre_buffer=False, buffer_size=1 << 20) as table:
            yield table


def _groups_after_skip(metadata: Any, cursor: Cursor) -> tuple[list[int], int]:
    """The row groups that are still to read, and how many rows lie before them."""
    passed = 0
    for group in range(metadata.num_row_groups):
        count = metadata.row_group(group).num_rows
        if cursor.skip < count:
            return list(range(group, metadata.num_row_groups)), passed
        cursor.skip -= count
        passed += count
    return [], passed


def _item(row: Row, position: Position, options: SourceOptions) -> Item:
    fields, fault = row
    if fields.get("_op", "") is None:
        del fields["_op"]
    if fault:
        identity = fields.get(options.id_field)
        return DeadLetter(position, identity if isinstance(identity, str) else None, fault, fields)
    return to_item(fields, position, options)
