"""One migration under way: passes, checks, the swap, and what comes late."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.engines import Engine
from bridge.engines.shards import aliases_of, block_writes, move_alias, shards_of
from bridge.errors import EngineError, IndexConflict
from bridge.indexsource import patiently
from bridge.migration.checks import check_health, check_vectors, counts_agree
from bridge.migration.copying import Bounds, Copier, written_by_others
from bridge.migration.ledger import Ledger
from bridge.migration.places import MigrateOptions, Place
from bridge.migration.target import HELD

FEW = 100
"""A pass that finds no more documents than that is followed by the swap."""

ROUNDS = 10
"""Passes before the swap, at most: a writer may be as fast as the encoder."""

SHRINKS = 0.8
"""Where a pass finds more than this share of what the one before did, more of them would not help."""

QUIET_SECONDS = 2.0
"""For so long nothing may have reached the old index before it is closed for writes."""

QUIET_PATIENCE = 60.0

TOMBSTONES = "1d"
"""How long the new index remembers deletions, so that a late document does not undo one."""

WRITE_BLOCK = "index.blocks.write"
READ_ONLY = "index.blocks.read_only"
GC_DELETES = "index.gc_deletes"


@dataclass(slots=True)
class Move:
    """One migration; `run` does all that is left of it."""

    engine: Engine
    place: Place
    ledger: Ledger
    copier: Copier
    options: MigrateOptions
    say: Callable[[str], None]
    rounds: int = 0
    late: int = 0
    """Documents that came after the swap."""
    missing: int = 0
    old_deleted: bool = False
    _dead_before: int = field(init=False)

    def __post_init__(self) -> None:
        self._dead_before = self.ledger.entry.dead

    @property
    def alias(self) -> str:
        return self.place.alias

    @property
    def old(self) -> str:
        return self.copier.old.name

    @property
    def new(self) -> str:
        return self.copier.new

    @property
    def dead(self) -> int:
        """Documents that could not go in, in this run and those before."""
        return self._dead_before + self.copier.place.dead

    def run(self) -> bool:
        """Whether the alias stands for the new index at the end; if not, why was said."""
        bounds = self.ledger.entry.bounds or {}
        if self.place.current.name != self.new:
            bounds = self._fill()
            if not self._may_move(bounds):
                return False
            bounds = self._swap(bounds)
        self._end(bounds)
        return True

    def _fill(self) -> Bounds:
        """Pass after pass, until little is left; the bounds of the last."""
        bounds, looked = self.ledger.entry.bounds, self.ledger.entry.looked
        before: int | None = None
        while True:
            whole = bounds is None
            if whole:
                self.engine.refresh(self.new)
            fresh = whole and self.engine.count(self.new) == 0
            done = self.copier.changes(bounds, fresh=fresh)
            bounds = done.bounds
            # Into an empty index came what was there, and no deletion of it is left to be seen.
            looked = bounds if fresh else looked
            self.rounds += 1
            self.ledger.update(bounds=bounds, looked=looked, dead=self.dead)
            self.say(f"{self.new}: pass {self.rounds} read {done.read:,} documents of {self.old}")
            if not whole:
                slow = before is not None and done.read > SHRINKS * before
                if done.read <= FEW or slow or self.rounds >= ROUNDS:
                    break
                before = done.read
        if looked is None or self.copier.may_have_deleted(looked):
            looked = self.copier.deletions()
            bounds = self.copier.changes(bounds).bounds
            self.ledger.update(bounds=bounds, looked=looked, dead=self.dead)
        return bounds

    def _may_move(self, bounds: Bounds) -> bool:
        """Whether the new index is fit to be asked."""
        engine, entry = self.engine, self.ledger.entry
        engine.put_settings(self.new, {name: entry.settings.get(name) for name in HELD})
        engine.refresh(self.new)
        check_health(engine, self.new)
        looked = check_vectors(engine, self.new, self.copier.models)
        self.say(f"{self.new}: the vectors of {looked:,} documents were made again, and are the ones that it holds")
        if entry.dead or not counts_agree(self.copier, bounds):
            self.missing, first = self.copier.missing(bounds)
        if not self.missing or self.options.accept_dead:
            return True
        self.say(
            f"{self.alias} still stands for {self.old}: {self.missing:,} of its documents, {first!r} first, are not in "
            f"{self.new}; mend them there and run it again, or move the alias without them with --accept-dead"
        )
        return False

    def _swap(self, bounds: Bounds) -> Bounds:
        """Move the alias; the bounds of the last pass before."""
        engine = self.engine
        engine.put_settings(self.new, {GC_DELETES: TOMBSTONES})
        bounds = self.copier.changes(bounds).bounds
        own = {shard.number: shard.written for shard in patiently(lambda: shards_of(engine, self.new))}
        # What is remembered here may be less than what is done: a pass that is made twice changes nothing.
        self.ledger.update(phase="swap", bounds=bounds, own=own, dead=self.dead)
        engine.refresh(self.new)
        bounds = self.copier.changes(bounds).bounds
        engine.refresh(self.new)
        self._move_alias()
        self.say(f"{self.alias} stands for {self.new}")
        return bounds

    def _move_alias(self) -> None:
        """Raises IndexConflict where somebody else has moved it."""
        try:
            move_alias(self.engine, self.alias, self.place.properties, old=self.old, new=self.new)
        except EngineError as error:
            # An answer may be lost on its way, or come before the last node has confirmed.
            there = patiently(lambda: aliases_of(self.engine, self.alias))
            if self.new in there:
                return
            if self.old in there:
                raise
            raise IndexConflict(
                f"{self.alias} does not stand for {self.old} any more: somebody has moved it; see what is there, and "
                f"delete {self.new} to begin anew"
            ) from error

    def _end(self, bounds: Bounds) -> None:
        """What came to the old index at last."""
        engine, copier = self.engine, self.copier
        before = copier.place.position
        bounds = copier.changes(bounds).bounds
        engine.refresh(self.new)
        self.ledger.update(phase="late", bounds=bounds, dead=self.dead)
        bounds = self._quieten(bounds)
        settings = engine.require_index(self.old).settings
        closed = any(settings.get(name) == "true" for name in (WRITE_BLOCK, READ_ONLY))
        blocked_by_others = closed and not self.ledger.entry.blocked
        if not blocked_by_others:
            self.ledger.update(blocked=True)
            if closed:
                # An interrupted run's: engines wait for the writes under way only where there is no block yet.
                engine.put_settings(self.old, {WRITE_BLOCK: None})
            block_writes(engine, self.old)
        copier.changes(bounds)
        looked = self.ledger.entry.looked
        if looked is None or copier.may_have_deleted(looked):
            copier.deletions()
        engine.refresh(self.new)
        if not blocked_by_others:
            engine.put_settings(self.old, {WRITE_BLOCK: None})
        self.late = copier.place.position - before
        engine.put_settings(self.new, {GC_DELETES: settings.get(GC_DELETES)})
        self.ledger.update(phase="done", blocked=False, dead=self.dead)
        if written_by_others(engine, self.new, self.ledger.entry.own or {}):
            self.say(
                f"{self.alias} was written to meanwhile; documents of writers that do not encode get their vectors "
                f"from: bridge ingest {self.alias} index:{self.alias}"
            )
        if self.options.delete_old:
            self._delete_old()

    def _quieten(self, bounds: Bounds) -> Bounds:
        """Bring what comes to the old index, until nothing does."""

        def written() -> list[int]:
            return [shard.written for shard in patiently(lambda: shards_of(self.engine, self.old))]

        began = quiet = time.monotonic()
        last = written()
        while time.monotonic() - quiet < QUIET_SECONDS:
            time.sleep(0.2)
            if (now := written()) != last:
                last, quiet = now, time.monotonic()
                bounds = self.copier.changes(bounds).bounds
            if time.monotonic() - began > QUIET_PATIENCE:
                self.say(f"{self.old} is still written to, by its own name; what comes later stays there alone")
                break
        return bounds

    def _delete_old(self) -> None:
        if self.dead or self.missing:
            self.say(f"{self.old} is kept: it has documents that are not in {self.new}")
            return
        self.engine.delete_index(self.old)
        self.old_deleted = True
