"""Going back: the alias stands for the old index again, or a migration that has not come so far is given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bridge.engines import Engine
from bridge.engines.shards import move_alias, shards_of
from bridge.errors import IndexConflict, UsageError
from bridge.indexsource import pages, patiently, show_writes
from bridge.migration.copying import absent, written_by_others
from bridge.migration.ledger import Ledger, check_free
from bridge.migration.moving import WRITE_BLOCK
from bridge.migration.places import find_place


@dataclass(frozen=True, slots=True)
class Back:
    """What going back does, or did."""

    alias: str
    old: str
    """What the alias stands for in the end."""
    new: str
    moved: bool
    """The alias was moved; else the new index was given up before it came so far."""
    written: int
    """Documents that were written in the new index since the alias came to it: the old one does not have that."""
    deleted: int
    """Documents that were deleted there: the old one has them."""
    done: bool
    """False where it has not been done, because there are such documents, and nobody has agreed."""


def roll_back(engine: Engine, alias: str, *, agreed: bool, say: Callable[[str], None] = lambda line: None) -> Back:
    """Let `alias` stand for the index that it came from; the new index is kept.

    A migration that is under way, and has not moved the alias, is given up: its index is deleted.

    Args:
        engine: where the alias is.
        alias: that a migration has moved, or was to move.
        agreed: do it although documents were written, or deleted, in the new index since.
        say: gets lines for the user.

    Raises:
        UsageError: no migration has brought the alias where it is.
        IndexConflict: the old index is not there any more, or another process works on the migration.
    """
    place = find_place(engine, alias)
    if place.under_way and place.under_way[0] != place.current.name:
        new, opened = place.under_way
        check_free(opened, new)
        engine.delete_index(new)
        say(f"{alias} stands for {opened.old}, as before; {new}, which was being filled, is deleted")
        return Back(alias, opened.old, new, moved=False, written=0, deleted=0, done=True)
    entry, new = place.made_by, place.current.name
    if entry is None:
        raise UsageError(f"{alias} stands for {new}, where no bridge migrate has brought it: there is no way back")
    old = engine.get_index(entry.old)
    if old is None or old.uuid != entry.old_uuid:
        raise IndexConflict(f"{alias} came from {entry.old}, which is not there any more: there is no way back")
    engine.refresh(new)
    written = written_by_others(engine, new, entry.own or {})
    deleted = _missing(engine, old.name, new)
    if (written or deleted) and not agreed:
        return Back(alias, old.name, new, moved=False, written=written, deleted=deleted, done=False)
    with Ledger(engine, new, entry) as ledger:
        if entry.blocked:
            engine.put_settings(old.name, {WRITE_BLOCK: None})
        ledger.update(phase="back", blocked=False)
        move_alias(engine, alias, place.properties, old=new, new=old.name)
    say(f"{alias} stands for {old.name}; {new} is kept")
    return Back(alias, old.name, new, moved=True, written=written, deleted=deleted, done=True)


def _missing(engine: Engine, old: str, new: str) -> int:
    """How many documents of the old index the new one does not have."""
    show_writes(engine, old)
    count = 0
    for shard in patiently(lambda: shards_of(engine, old)):
        for hits in pages(engine, old, shard.number, False):
            count += sum(1 for _ in absent(engine, new, hits))
    return count
