"""Vectors in place: an index is read, and each of its documents gets its vector and content hash.

Nobody is kept from writing meanwhile. A document is written only where it is still what was encoded; one that was
changed, or came, since the reading began is read in another round, by its higher sequence number. What a round finds
with the vector that it should have is passed over: it is this load's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

import msgspec

from bridge.bulk import CHANGED_SINCE
from bridge.engines import IndexState
from bridge.engines.shards import Shard, shards_of
from bridge.errors import SourceError, UsageError
from bridge.indexmodel import IndexModel
from bridge.indexsource import (
    IndexReader,
    check_whole,
    own_fields,
    pages,
    patiently,
    show_writes,
    source_filter,
    stored_document,
)
from bridge.records import HASH_FIELD, BulkOutcome, Doc, EncodedDoc, Position
from bridge.sources import Source, SourceOptions
from bridge.sources.index import StoredDocument
from bridge.sources.streams import Cursor

ROUNDS = 5
"""How often what was changed meanwhile is read again; a document that is changed each time is dead after the last."""

Body = Callable[[EncodedDoc], Mapping[str, Any]]


def in_place(source: Source, state: IndexState | None) -> InPlace | None:
    """How `source` is loaded into the index that it is read from; None where it is another.

    Raises:
        UsageError: the index stands among other sources, or documents would be changed.
        UnsupportedByEngine: documents that are written again would lose what `_source` does not keep.
    """
    readers = [file.reader for file in source.files]
    if state is None or not any(reader and reader.uuid == state.uuid for reader in readers):
        return None
    (reader, *more) = readers
    if more or not isinstance(reader, IndexReader):
        raise UsageError(f"an index that gets vectors of its own documents is a source alone; leave {state.name} out")
    options, plain = source.options, SourceOptions()
    given = [name for name in ("id_field", "id_from", "id_template", "version_field", "delete_field", "drop", "assign")
             if getattr(options, name) != getattr(plain, name)]  # fmt: skip
    if given:
        raise UsageError(
            f"--{given[0].replace('_', '-')} makes other documents, and index {state.name} is to keep its own: vectors "
            "are added in place"
        )
    there = IndexModel.of(state)
    check_whole(state, there)
    return InPlace(reader, there)


@dataclass(slots=True)
class InPlace:
    """The load of an index into itself: a reader in rounds, and what differs in sending."""

    reader: IndexReader
    there: IndexModel | None
    """What the index said of itself before the load."""
    model: IndexModel | None = None
    is_current: Callable[[Doc, str | None], bool] = lambda doc, digest: False
    _turn: int = 0
    _number: int = 0
    _bounds: dict[int, int] = field(default_factory=dict)
    """Shard ─▶ the sequence number up to which the rounds before have read."""
    _changed: dict[str, int] = field(default_factory=dict)
    """Id ─▶ how often the document was found changed, of those that are not settled."""
    _wanted: set[str] | None = None
    """Of a late round: the ids that it is for."""

    @property
    def operation(self) -> Literal["index", "update"]:
        """How documents are written.

        An index that has never had vectors gets them as fields that are added. Fields of an object are merged with
        those that are there, so one that may hold an older vector is written whole, as it was read.
        """
        return "update" if self.there is None else "index"

    def begin(self, given: Source, model: IndexModel) -> Source:
        """The documents as a source that goes on until all are up to `model`, or `ROUNDS` are over."""
        self.model = model
        return Source([replace(given.files[0], reader=_Rounds(self))], given.options)

    def body(self, whole: Body) -> Body:
        """What is sent of a document of which the engine should hold `whole`."""
        if self.operation == "index":
            return whole
        names = {*own_fields(self.model), HASH_FIELD}
        return lambda document: {name: value for name, value in whole(document).items() if name in names}

    def outcomes(self, load: Callable[[], Generator[BulkOutcome, None, None]]) -> Generator[BulkOutcome, None, None]:
        """What became of each document, round after round until one finds nothing to do.

        Args:
            load: sends what the source gives now, to its end: a round begins when the one before it is settled.

        What was changed each of `ROUNDS` times that it was encoded is dead. A writer that never rests cannot keep the
        load from ending: later rounds are for what is still owed from the ones before.
        """
        for turn in count():
            self._turn, before = turn, self._number
            self._wanted = set(self._changed) if turn >= ROUNDS else None
            with contextlib.closing(load()) as outcomes:
                for outcome in outcomes:
                    yield self._judged(outcome)
            if (turn and self._number == before) or (turn >= ROUNDS - 1 and not self._changed):
                return

    def _judged(self, outcome: BulkOutcome) -> BulkOutcome:
        name = outcome.id or ""
        if outcome.reason != CHANGED_SINCE:
            self._changed.pop(name, None)
            return outcome
        self._changed[name] = self._changed.get(name, 0) + 1
        if self._changed[name] < ROUNDS:
            return outcome
        del self._changed[name]
        return msgspec.structs.replace(outcome, result="dead", reason=f"{CHANGED_SINCE}, each of {ROUNDS} times")

    def documents(self) -> Iterator[StoredDocument]:
        """Those of this round: all in the first, then what was written since the last one began."""
        bounds = self._bounds
        shards = self._shards()
        self._bounds = {shard.number: shard.settled for shard in shards}
        for shard in shards:
            for document in self._read(shard, bounds.get(shard.number, -1)):
                wanted = self._wanted is None or document.id in self._wanted
                if wanted and not (self._turn and self._is_done(document)):
                    self._number += 1
                    yield replace(document, number=self._number)

    def _is_done(self, document: StoredDocument) -> bool:
        doc = Doc(document.id, document.fields, Position(self.reader.name, 0))
        return document.stored is not None and self.is_current(doc, document.stored.digest)

    def _shards(self) -> list[Shard]:
        """How far they have come; what is written later has a higher number, and all before is shown."""
        found = patiently(lambda: shards_of(self.reader.engine, self.reader.index))
        show_writes(self.reader.engine, self.reader.index)
        return found

    def _read(self, shard: Shard, after: int) -> Iterator[StoredDocument]:
        engine, reader = self.reader.engine, self.reader
        # Where there were no vectors before, a field of that name is the user's, unless the hash is with it.
        own = own_fields(self.model)
        left_out = own if self.operation == "index" else ()
        found = pages(
            engine, reader.index, shard.number, source_filter(engine, left_out),
            after=after, part=reader.spec.part, lost=self._check_same,
        )  # fmt: skip
        with contextlib.closing(found):
            for hits in found:
                for hit in hits:
                    if HASH_FIELD in hit.get("_source", {}):
                        hit["_source"] = {key: value for key, value in hit["_source"].items() if key not in own}
                    yield stored_document(hit, 0, in_place=True)

    def _check_same(self) -> None:
        """Raises SourceError where the index is another; that it was written to is nothing new."""
        now = patiently(lambda: self.reader.engine.get_index(self.reader.index))
        if now is None or now.uuid != self.reader.uuid:
            raise SourceError(f"{self.reader.name}: the index was deleted while it was read")


@dataclass(frozen=True, slots=True)
class _Rounds:
    """The reader that reads in rounds."""

    load: InPlace

    @property
    def name(self) -> str:
        return self.load.reader.name

    @property
    def uuid(self) -> str:
        return self.load.reader.uuid

    @property
    def size(self) -> int:
        return self.load.reader.size

    def fingerprint(self) -> bytes:
        """The load changes the index itself: what it has done already is seen document by document."""
        return self.load.reader.uuid.encode()

    def read(self, cursor: Cursor) -> Iterator[StoredDocument]:
        for document in self.load.documents():
            cursor.at(self.load.reader.bytes_of(document.number))
            yield document

    def close(self) -> None:
        self.load.reader.close()
