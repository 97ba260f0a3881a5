"""Takes the outcomes of a load: counts them, writes dead letters, moves the checkpoint."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bridge.batches import Effect
from bridge.checkpoint import Checkpoint, write_checkpoint
from bridge.deadletter import DeadLetterFile
from bridge.engines import Engine, IndexState
from bridge.errors import BridgeError, EngineError, IndexConflict, SourceError, TooManyDead
from bridge.journal import Journal
from bridge.records import BulkOutcome, Effort, Progress, Report
from bridge.sources import Source

CHECKPOINT_SECONDS = 1.0
FLUSH_SECONDS = 30.0
"""Between two checkpoints where each wants a flush of the index."""

BUDGET_FROM = 1000
"""Fewer documents say little about a source."""


@dataclass(slots=True)
class Keeper:
    """Counts outcomes, writes dead letters, moves the checkpoint; whatever ends a run, the place is kept."""

    engine: Engine
    index: str
    state: IndexState
    path: Path
    journal: Journal
    letters: DeadLetterFile
    source: Source
    report: Report
    error_budget: float
    effort: Callable[[], Effort | None] = field(default=lambda: None)
    flushes: bool = False
    """The checkpoint moves only past what a flush has brought into segments on the disk."""

    def settle(
        self, outcomes: Iterator[BulkOutcome], effects: deque[Effect | None], position: Checkpoint
    ) -> Checkpoint:
        """Take all outcomes; the place after the last."""
        place = position
        pause = FLUSH_SECONDS if self.flushes else CHECKPOINT_SECONDS
        kept = told = time.monotonic()
        self._tell(place)
        try:
            for outcome in outcomes:
                if outcome.result == "dead":
                    self.letters.append(outcome)
                # One effect was put there for each item, in the order in which outcomes come. The place changes at
                # one stroke: an interrupt before or after leaves counts that agree with each other.
                place = self._after(place, outcome, effects.popleft())
                if outcome.result == "dead":
                    self._check_budget(place)
                now = time.monotonic()
                if now - kept >= pause:
                    if self._may_keep():
                        self._keep(place)
                    kept = time.monotonic()
                if now - told >= CHECKPOINT_SECONDS:
                    self._tell(place)
                    told = now
            self._same_index()
        except IndexConflict:
            # What was sent since the last checkpoint may be in an index that nobody wants.
            raise
        except BaseException as failure:
            # A second failure here must not hide the first; the older checkpoint stands, and is safe.
            with contextlib.suppress(BridgeError):
                if self.flushes:
                    self.engine.flush(self.index)
                self._keep(place)
            if isinstance(failure, OSError):
                raise SourceError(
                    f"the run broke off at document {place.position + 1:,}: {failure}; the same command goes on there"
                ) from failure
            raise
        self.letters.sync()
        self._tell(place)
        return place

    def _after(self, place: Checkpoint, outcome: BulkOutcome, effect: Effect | None) -> Checkpoint:
        changed: dict[str, Any] = {
            "position": place.position + 1,
            outcome.result: getattr(place, outcome.result) + 1,
        }
        if outcome.result == "dead":
            changed["dead_letter_bytes"] = self.letters.length
        elif effect and outcome.result == "indexed":
            changed["prepared"] = place.prepared + 1
            changed["passages"] = place.passages + effect.passages
            changed["terms"] = place.terms + effect.terms
            changed["mass"] = place.mass + effect.mass
            changed["removed_terms"] = place.removed_terms + effect.removed
            changed["removed_mass"] = place.removed_mass + effect.removed_mass
        return msgspec.structs.replace(place, **changed)

    def _tell(self, place: Checkpoint) -> None:
        source = self.source
        self.report(Progress("ingest", place.position, source.bytes_read, source.bytes_total, self.effort()))

    def _keep(self, place: Checkpoint) -> None:
        self.letters.sync()
        write_checkpoint(self.path, place)
        self.journal.settled(place.position)

    def _may_keep(self) -> bool:
        """Whether what is settled is in the index that it is meant for, and, where that is asked for, on the disk."""
        if not self._same_index():
            return False
        if self.flushes:
            try:
                self.engine.flush(self.index)
            except EngineError as error:
                if error.retryable:
                    return False
                raise
        return True

    def _same_index(self) -> bool:
        """Whether the index is known to be the one that the run began with.

        Raises:
            IndexConflict: it is another: it was deleted, and the engine made a new one of that name, or an alias moved.
        """
        try:
            now = self.engine.get_index(self.index)
        except EngineError as error:
            if error.retryable:
                return False
            raise
        if now is None or now.uuid != self.state.uuid:
            what = "was deleted" if now is None else "is another one now: it was deleted, or its alias was moved,"
            raise IndexConflict(
                f"index {self.index} {what} while documents were sent to it; see what is there, and start over with "
                "--fresh"
            )
        return True

    def _check_budget(self, place: Checkpoint) -> None:
        dead, done = place.dead, place.position
        if done >= BUDGET_FROM and dead > self.error_budget * done:
            raise TooManyDead(
                f"{dead:,} of the first {done:,} documents cannot go in; the first: {self.letters.first}; stopped, "
                f"since the rest will fare no better (--error-budget 1 goes on all the same); they are "
                f"kept in {self.letters.path}"
            )
