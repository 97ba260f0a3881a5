"""Takes the outcomes of a load: counts them, writes dead letters, moves the checkpoint."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import msgspec

from bridge.batches import Effect, Totals
from bridge.checkpoint import Checkpoint, write_checkpoint
from bridge.deadletter import DeadLetterFile
from bridge.engines import Engine, IndexState
from bridge.errors import BridgeError, EngineError, IndexConflict, SourceError, TooManyDead
from bridge.journal import Journal
from bridge.records import BulkOutcome, BulkResult, Progress, Report
from bridge.sources import Source

CHECKPOINT_SECONDS = 1.0
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

    def settle(
        self, outcomes: Iterator[BulkOutcome], effects: deque[Effect | None], position: Checkpoint
    ) -> Checkpoint:
        """Take all outcomes; the place after the last."""
        counts = {name: getattr(position, name) for name in get_args(BulkResult)}
        totals = Totals.of(position)
        done = position.position
        written = time.monotonic()

        def here() -> Checkpoint:
            return msgspec.structs.replace(
                position, position=done, dead_letter_bytes=self.letters.sync(), **counts, **asdict(totals)
            )

        try:
            for outcome in outcomes:
                if outcome.result == "dead":
                    self.letters.append(outcome)
                counts[outcome.result] += 1
                # One was put there for each item, in the order in which outcomes come.
                effect = effects.popleft()
                if effect and outcome.result == "indexed":
                    totals.add(effect)
                done += 1
                if outcome.result == "dead":
                    self._check_budget(counts["dead"], done)
                if time.monotonic() - written >= CHECKPOINT_SECONDS:
                    if self._same_index():
                        self._keep(here())
                    self.report(Progress("ingest", done, self.source.bytes_read, self.source.bytes_total))
                    written = time.monotonic()
            self._same_index()
        except IndexConflict:
            # What was sent since the last checkpoint may be in an index that nobody wants.
            raise
        except BaseException as failure:
            # A second failure here must not hide the first; the older checkpoint stands, and is safe.
            with contextlib.suppress(BridgeError):
                self._keep(here())
            if isinstance(failure, OSError):
                raise SourceError(
                    f"the run broke off at document {done + 1:,}: {failure}; the same command goes on there"
                ) from failure
            raise
        return here()

    def _keep(self, place: Checkpoint) -> None:
        write_checkpoint(self.path, place)
        self.journal.settled(place.position)

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

    def _check_budget(self, dead: int, done: int) -> None:
        if done >= BUDGET_FROM and dead > self.error_budget * done:
            raise TooManyDead(
                f"{dead:,} of the first {done:,} documents cannot go in; the first: {self.letters.first}; stopped, "
                f"since the rest will fare no better (--error-budget 1 goes on all the same); they are "
                f"kept in {self.letters.path}"
            )
