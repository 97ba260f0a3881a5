"""An index as a source. What reads it is given from outside: sources know no engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from bridge.errors import SourceError
from bridge.records import Doc, Position, Stored
from bridge.sources.documents import Item, to_item
from bridge.sources.options import SourceOptions
from bridge.sources.streams import Cursor

if TYPE_CHECKING:
    from bridge.sources.files import SourceFile


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as an index holds it, without what the bridge keeps beside it."""

    number: int
    """Its place in the order in which the index is read, from 1."""
    id: str
    fields: Mapping[str, Any]
    routing: str | None
    stored: Stored | None
    """Given where it is to be written back."""


class IndexReader(Protocol):
    """What reads one index."""

    @property
    def name(self) -> str:
        """As the user named it, without credentials."""
        ...

    @property
    def uuid(self) -> str:
        """Of the index that it reads."""
        ...

    @property
    def size(self) -> int:
        """Bytes, for the progress."""
        ...

    def fingerprint(self) -> bytes:
        """A digest that changes when the index does."""
        ...

    def read(self, cursor: Cursor) -> Iterator[StoredDocument]:
        """Its documents, in an order that stays while the index does; as many as `cursor` skips are left out."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


Opener = Callable[[str], IndexReader]
"""Opens ``index:NAME`` and the like."""


def no_engine(spec: str) -> IndexReader:
    """The opener where no engine is to be had. Raises SourceError."""
    raise SourceError(f"{spec}: an index cannot be a source here; give a file")


def read_index(file: SourceFile, options: SourceOptions, cursor: Cursor) -> Iterator[Item]:
    """Each document, as one item; its line is its place in the order in which the index is read."""
    if file.reader is None:
        raise SourceError(f"{file.name}: nothing reads it")
    for document in file.reader.read(cursor):
        fields = {**document.fields, "_id": document.id}
        if cursor.leaves_out(fields):
            continue
        item = to_item(fields, Position(file.name, document.number), options)
        if isinstance(item, Doc):
            routing = document.routing if item.id == document.id else None
            item = msgspec.structs.replace(item, routing=routing, stored=document.stored)
        yield item
