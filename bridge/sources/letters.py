"""A dead-letter file as a source, so that what could not go in is tried again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bridge.errors import SourceError
from bridge.records import DeadLetter, Doc, Position
from bridge.sources.documents import Item, to_item
from bridge.sources.files import SourceFile
from bridge.sources.options import SourceOptions
from bridge.sources.streams import Cursor, Overlong, lines


class Letter(msgspec.Struct, frozen=True):
    """One line of a dead-letter file."""

    file: str
    line: int
    id: str | None
    reason: str
    document: Any
    version: int | None = None
    routing: str | None = None

    @property
    def position(self) -> Position:
        """Where the document stood when it was read first."""
        return Position(self.file, self.line)


def letters_file(path: Path) -> SourceFile:
    """The file as part of a source. Raises `SourceError` where it cannot be opened."""
    file = SourceFile(str(path), "letters", None)
    file.open().close()
    return file


def read_letters(file: SourceFile, options: SourceOptions, cursor: Cursor) -> Iterator[Item]:
    """Each letter's document, at its first position; what was never read as a document stays a letter."""
    for letter in letters(file, cursor):
        if cursor.passes_over():
            continue
        if not isinstance(letter.document, dict):
            yield DeadLetter(letter.position, letter.id, letter.reason, letter.document)
            continue
        fields = dict(letter.document)
        if letter.id is not None and options.id_from == "field":
            fields.setdefault(options.id_field, letter.id)
        item = to_item(fields, letter.position, options)
        if isinstance(item, Doc):
            # Without its version an old document would replace what was written since, and without its routing it
            # would be a second one beside the first.
            version = letter.version if item.version is None else item.version
            item = msgspec.structs.replace(item, version=version, routing=letter.routing)
        yield item


def letters(file: SourceFile, cursor: Cursor | None = None) -> Iterator[Letter]:
    """The letters of a file, in order. Raises `SourceError` for a line that is none."""
    decode = msgspec.json.Decoder(Letter).decode
    for number, line in enumerate(lines(file.chunks(cursor or Cursor())), 1):
        if isinstance(line, Overlong):
            raise SourceError(f"{file.name}:{number}: the line is too long to be read")
        if line.isspace():
            continue
        try:
            yield decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SourceError(
                f"{file.name}:{number}: is not a dead letter ({error}); a dead-letter file has a line for each "
                "document, with file, line, id, reason and document"
            ) from None
