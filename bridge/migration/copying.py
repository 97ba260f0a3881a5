"""Documents of the old index ─▶ the new one, with the new model's vectors; and deletions after them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bridge.batches import Batches, most_under_way
from bridge.bulk import BulkOptions, BulkSender
from bridge.checkpoint import Checkpoint
from bridge.collector import collecting_seldom
from bridge.deadletter import DeadLetterFile
from bridge.encode import Encoder
from bridge.encode.dense import DenseEncoder
from bridge.engines import Engine, IndexState
from bridge.engines.shards import Shard, existing, shards_of
from bridge.errors import IndexConflict
from bridge.indexmodel import IndexModel, content_hashes
from bridge.indexsource import Hit, own_fields, pages, patiently, show_writes, source_filter
from bridge.journal import Journal
from bridge.keeper import Keeper
from bridge.records import HASH_FIELD, BulkOutcome, Doc, Position, Report
from bridge.settings import data_folder
from bridge.sources import Item, Source, SourceOptions

OURS = 0
"""The version of all that a migration writes: any other writer's is higher."""

_EXISTING = 1_000
"""Ids that are asked for at once."""

Bounds = dict[int, int]
"""A shard's number ─▶ a sequence number."""


@dataclass(frozen=True, slots=True)
class Models:
    """What makes the new vectors."""

    encoder: Encoder
    dense: DenseEncoder | None
    index: IndexModel


@dataclass(frozen=True, slots=True)
class Round:
    """What one pass over the old index's writes did."""

    bounds: Bounds
    """All writes up to these are in the new index."""
    read: int
    """Documents of the old index that were written since the last pass."""


@dataclass(slots=True)
class Copier:
    """Brings what was written to `old` into `new`, as often as it is asked to.

    What others have written to the new index, or deleted there, is left as it is (see `bridge.migration`).
    """

    engine: Engine
    old: IndexState
    new: str
    models: Models
    letters: DeadLetterFile
    bulk: BulkOptions
    error_budget: float
    say: Callable[[str], None]
    report: Report
    place: Checkpoint = field(init=False)
    """The counts so far."""
    retried: int = 0
    superseded: int = 0
    """Late documents of which the new index had a later write, or deletion, already."""
    _own: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._own = own_fields(IndexModel.of(self.old))
        self.place = Checkpoint(
            source=self.old.uuid, model=self.models.encoder.fingerprint, index_uuid="", operation="index"
        )

    def changes(self, since: Bounds | None, *, fresh: bool = False) -> Round:
        """Copy what was written to the old index after `since`; all of it where that is None.

        Args:
            since: the bounds of the last pass.
            fresh: the new index is empty.
        """
        shards = self._shards()
        bounds = since or {}
        before = self.place.position
        self._send(self._changed(shards, bounds), sum(max(0, s.written - bounds.get(s.number, -1)) for s in shards),
                   fresh=fresh)  # fmt: skip
        return Round({shard.number: shard.settled for shard in shards}, self.place.position - before)

    def deletions(self) -> Bounds:
        """Delete from the new index what the old one no longer has; the bounds up to which that is known."""
        bounds = {shard.number: shard.settled for shard in self._shards()}
        self.engine.refresh(self.new)
        self._send(self._deleted(), 0, fresh=False)
        return bounds

    def may_have_deleted(self, since: Bounds) -> bool:
        """Whether the old index was written to, after `since`, other than by documents that are there now.

        Every write has a number of its own. Where as many documents have numbers after `since` as were given, nothing
        was deleted; where fewer do, something was deleted, or written more than once.
        """
        shards = self._shards()
        given = sum(shard.written - since.get(shard.number, -1) for shard in shards)
        there = sum(
            sum(hit["_seq_no"] <= shard.written for hit in hits)
            for shard in shards
            for hits in self._pages(self.old.name, shard, False, since.get(shard.number, -1))
        )
        return given > there

    def missing(self, since: Bounds) -> tuple[int, str | None]:
        """How many old documents, written up to `since`, the new index does not have, and the first of them."""
        count, first = 0, None
        for shard in self._shards():
            for hits in self._pages(self.old.name, shard, False, -1):
                copied = [hit for hit in hits if hit["_seq_no"] <= since.get(shard.number, -1)]
                for hit in absent(self.engine, self.new, copied):
                    count, first = count + 1, first or hit["_id"]
        return count, first

    def _shards(self) -> list[Shard]:
        """How far the old index's writes have come; all before that is shown to what is read next."""
        found = patiently(lambda: shards_of(self.engine, self.old.name))
        show_writes(self.engine, self.old.name)
        return found

    def _changed(self, shards: Sequence[Shard], bounds: Bounds) -> Iterator[Item]:
        chosen = source_filter(self.engine, self._own)
        for shard in shards:
            for hits in self._pages(self.old.name, shard, chosen, bounds.get(shard.number, -1)):
                for hit in hits:
                    fields = {key: value for key, value in hit.get("_source", {}).items() if key != HASH_FIELD}
                    # Its number says which write it was, whoever reads it, and when.
                    position = Position(f"index:{self.old.name}", hit["_seq_no"])
                    yield Doc(hit["_id"], fields, position, version=OURS, routing=hit.get("_routing"))

    def _deleted(self) -> Iterator[Item]:
        for shard in patiently(lambda: shards_of(self.engine, self.new)):
            for hits in self._pages(self.new, shard, False, -1):
                ours = [hit for hit in hits if hit["_version"] == OURS]
                for hit in absent(self.engine, self.old.name, ours):
                    position = Position(f"index:{self.old.name}", hit["_seq_no"])
                    yield Doc(hit["_id"], {}, position, "delete", OURS, hit.get("_routing"))

    def _pages(self, index: str, shard: Shard, source: object, after: int) -> Iterator[list[Hit]]:
        with contextlib.closing(
            pages(self.engine, index, shard.number, source, after=after, lost=self._check_old)
        ) as found:
            yield from found

    def _check_old(self) -> None:
        """What has a higher number than what was read is all that is left to read, also of a later moment."""
        now = patiently(lambda: self.engine.get_index(self.old.name))
        if now is None or now.uuid != self.old.uuid:
            raise IndexConflict(f"index {self.old.name} was deleted while it was read")

    def _send(self, items: Iterator[Item], expected: int, *, fresh: bool) -> None:
        """Encode and send `items`; what became of each is counted."""
        engine, models = self.engine, self.models
        state = engine.require_index(self.new)
        stored = content_hashes(engine, state)

        def hashes(ids: Sequence[str]) -> Mapping[str, str | None]:
            return patiently(lambda: stored(ids))

        source = _Given(items, f"index:{self.old.name}", expected)
        most = most_under_way(self.bulk)
        run = Batches(source, models.encoder, models.index, engine.product, hashes, most, models.dense)
        # Its own ingest pipeline has done its work on the documents.
        sender = BulkSender(
            lambda lines: engine.bulk(self.new, lines, pipeline="_none"), run.body, hashes, self.bulk, warn=self.say
        )
        path = checkpoint_path(state.uuid)
        keeper = Keeper(
            engine, self.new, state, path, Journal(path.with_suffix(".sent")), self.letters, source, self.report,
            self.error_budget,
        )  # fmt: skip
        try:
            with collecting_seldom(), contextlib.closing(sender.run(run.documents(0, fresh=fresh))) as outcomes:
                self.place = keeper.settle(self._counted(outcomes), run.effects, self.place)
        finally:
            self.retried += sender.retried
            # What is in the new index says by itself how far it came.
            path.unlink(missing_ok=True)

    def _counted(self, outcomes: Iterator[BulkOutcome]) -> Iterator[BulkOutcome]:
        for outcome in outcomes:
            self.superseded += outcome.result == "unchanged" and outcome.reason is not None
            yield outcome


def absent(engine: Engine, index: str, hits: Sequence[Hit]) -> Iterator[Hit]:
    """Those of `hits` whose documents `index` does not have."""
    for start in range(0, len(hits), _EXISTING):
        some = hits[start : start + _EXISTING]
        there = patiently(lambda: existing(engine, index, [(hit["_id"], hit.get("_routing")) for hit in some]))  # noqa: B023
        yield from (hit for hit in some if hit["_id"] not in there)


def checkpoint_path(uuid: str) -> Path:
    """Where the keeper of a pass into the index of that UUID counts."""
    return data_folder() / "checkpoints" / f"{hashlib.sha256(f'migrate {uuid}'.encode()).hexdigest()[:32]}.json"


def written_by_others(engine: Engine, index: str, since: Bounds) -> int:
    """How many documents of the new index, written after `since`, are not as the migration wrote them."""
    return sum(
        sum(hit["_version"] != OURS for hit in hits)
        for shard in patiently(lambda: shards_of(engine, index))
        for hits in pages(engine, index, shard.number, False, after=since.get(shard.number, -1))
    )


class _Given(Source):
    """Items that are made elsewhere, as a source that is read once."""

    def __init__(self, items: Iterator[Item], name: str, expected: int) -> None:
        super().__init__((), SourceOptions())
        self._items_given, self._name, self._expected = items, name, expected
        self._given = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def bytes_total(self) -> int | None:
        """Documents, in the place of bytes: about as many as there will be."""
        return self._expected or None

    @property
    def bytes_read(self) -> int:
        return self._given

    def read(self, skip: int = 0) -> Iterator[Item]:
        del skip
        for item in self._items_given:
            self._given += 1
            yield item
