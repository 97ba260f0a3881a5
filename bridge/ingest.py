"""Source ─▶ encode ─▶ bulk ─▶ engine, losing nothing.

Every document of the source ends as exactly one of indexed, unchanged, deleted or dead; a dead one
stands in the dead-letter file with its reason. The checkpoint moves only past settled documents, and
an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from bridge.batches import Batches, most_under_way
from bridge.bulk import BulkSender
from bridge.checkpoint import Checkpoint, check_same_run, read_checkpoint, write_checkpoint
from bridge.collector import collecting_seldom
from bridge.deadletter import DeadLetterFile
from bridge.encode import Encoder
from bridge.encode.dense import DenseEncoder
from bridge.engines import Engine, IndexState
from bridge.errors import (
    DocumentError,
    EngineError,
    EngineForbidden,
    IndexReadOnly,
    RequestRejected,
)
from bridge.fit import FitOptions, fit
from bridge.indexmodel import IndexModel, content_hashes, encodes_itself
from bridge.inplace import in_place
from bridge.journal import Journal
from bridge.keeper import Keeper
from bridge.loadplan import IngestOptions, apply_load, plan_load
from bridge.loadsettings import await_copies, begin_load, finish_load, has_copies
from bridge.meter import Meter
from bridge.patience import Patience
from bridge.records import BulkOutcome, Doc, Effort, Progress, Report
from bridge.settings import data_folder
from bridge.sources import Source, text_of

__all__ = ["IngestOptions", "IngestSummary", "checkpoint_path", "ingest", "journal_path", "texts_of"]


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """The run's totals: `source` = `indexed` + `unchanged` + `deleted` + `dead`."""

    source: int
    indexed: int
    unchanged: int
    deleted: int
    dead: int
    retried: int
    seconds: float
    encode_seconds: float
    """Of `seconds`, what reading and encoding took, …"""
    engine_seconds: float
    """… and what was spent waiting for the engine."""
    model: str
    dead_letter: str | None = None
    first_dead: str | None = None
    """Where the first dead document of this run stands, and why it is dead."""
    dense_model: str | None = None
    active_terms: float | None = None
    """Entries of a document's vectors, the mean over those that were encoded and indexed, as all that follows."""
    passages: int | None = None
    """How many, where texts are cut."""
    pruned_terms: float | None = None
    """What pruning removed: the mean number of entries a document."""
    pruned_mass: float | None = None
    """What pruning removed: its share of the sum of all weights, 0 to 1."""


def ingest(
    engine: Engine,
    index: str,
    source: Source,
    options: IngestOptions | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
    report: Report = lambda progress: None,
) -> IngestSummary:
    """Bring every document of `source` into `index`.

    Args:
        engine: where the index is, or is made.
        index: made if it is not there.
        source: read once, or twice where a model is fitted on it first.
        options: the model, the text fields, how an index is made, where dead letters go.
        say: gets lines for the user.
        report: gets the progress.

    Raises:
        ModelMismatch, IndexConflict: the index belongs to another model, or differs; nothing was written.
        CheckpointError: an interrupted run cannot go on, since source, model or index changed.
        EngineError, SourceError: the run broke off; the same call goes on where it stopped.
    """
    started = time.monotonic()
    options = options or IngestOptions()
    whole, fitting = source, options.fit
    plan = plan_load(engine, index, source, options, lambda fields: _fit(whole, fields, fitting, report, say), say)
    inside = in_place(source, plan.state)
    apply_load(engine, plan, say)
    encoder, dense, model = plan.encoder, plan.dense, plan.model
    state = engine.require_index(index)
    if inside:
        # What is done already is seen document by document: there is no place to go on at.
        source, options = inside.begin(source, model), replace(options, fresh=True)
    path = checkpoint_path(engine, state.name, source)
    position = _begin(engine, state.uuid, index, source, (encoder, dense), options, path, say)
    letters = DeadLetterFile(Path(position.dead_letter), position.dead_letter_bytes)
    meter = Meter()
    patient = Patience(options.bulk.patience, say)

    stored = content_hashes(engine, state)

    def hashes(ids: Sequence[str]) -> Mapping[str, str | None]:
        return patient(lambda: stored(ids))

    journal = Journal(journal_path(path))
    fresh = position.operation == "create"
    asked = meter.asking(hashes)
    run = Batches(
        source, encoder, model, engine.product, asked, most_under_way(options.bulk), dense, options.vectors, journal
    )
    if inside:
        inside.is_current = run.is_current
    # An ingest pipeline has done its work on documents that are there.
    pipeline = "_none" if inside or encodes_itself(state) else None
    sender = BulkSender(
        meter.sending(lambda lines: engine.bulk(index, lines, pipeline=pipeline)),
        inside.body(run.body) if inside else run.body,
        hashes,
        replace(options.bulk, operation=inside.operation if inside else "create" if fresh else "index"),
        warn=say,
    )
    patient.ended = sender.ended

    def effort() -> Effort:
        return meter.effort(waited=sender.waited, retried=sender.retried, queued=sender.queued)

    fast = options.fast_load
    keeper = Keeper(engine, index, state, path, journal, letters, source, report, options.error_budget, effort, fast)
    begun = position.position

    def load() -> Generator[BulkOutcome, None, None]:
        return sender.run(meter.reading(run.documents(begun, fresh=fresh)))

    try:
        _begin_load(engine, state, index, fresh, fast, say)
        # Closed before anything else happens: requests under way must not meet the index's own settings.
        with collecting_seldom(), contextlib.closing(inside.outcomes(load) if inside else load()) as outcomes:
            position = keeper.settle(outcomes, run.effects, position)
        # The sender has ended, and with it the patience of its threads.
        patient.ended = threading.Event()
        patient(lambda: (engine.flush if fast else engine.refresh)(index))
    except KeyboardInterrupt:
        say(f"interrupted; {path} remembers the place: the same command goes on there")
        raise
    finally:
        letters.close()
        journal.close()
        _finish(engine, index, say)
    path.unlink(missing_ok=True)
    journal.remove()
    if fast:
        _end_fast(engine, index, say)
    spent = effort()
    return IngestSummary(
        source=position.position,
        indexed=position.indexed,
        unchanged=position.unchanged,
        deleted=position.deleted,
        dead=position.dead,
        retried=sender.retried,
        seconds=round(time.monotonic() - started, 3),
        encode_seconds=round(spent.encode_seconds, 3),
        engine_seconds=round(spent.engine_seconds, 3),
        model=encoder.fingerprint,
        dead_letter=position.dead_letter if position.dead else None,
        first_dead=letters.first,
        dense_model=dense.fingerprint if dense else None,
        active_terms=round(position.terms / position.prepared, 2) if position.prepared else None,
        passages=position.passages if model.passages != "whole" else None,
        **({} if options.vectors else _pruned(position, model)),
    )


def _begin_load(
    engine: Engine, state: IndexState, index: str, fresh: bool, fast: bool, say: Callable[[str], None]
) -> None:
    """Settings for the load, where this user may change them: documents go in without that, too."""
    if fast and has_copies(state):
        use = f"{index}: " if fresh else f"{index} is in use; "
        say(f"{use}until this load ends, it has no replicas (--fast-load): a node that is lost takes its part along")
    try:
        begin_load(engine, index, fresh=fresh, fast=fast)
    except (EngineForbidden, IndexReadOnly, RequestRejected) as error:
        say(f"{index} keeps its own settings during the load: {error}")


def _finish(engine: Engine, index: str, say: Callable[[str], None]) -> None:
    """Put the index's settings back, also when the run broke off; why it did must not be hidden."""
    try:
        finish_load(engine, index)
    except EngineError as error:
        say(f"{index} has still the settings of a load ({error}); bridge ingest {index} --finish puts them back")


def _end_fast(engine: Engine, index: str, say: Callable[[str], None]) -> None:
    """See the replicas come back; the documents are in, whether they do or not."""
    try:
        engine.refresh(index)
        await_copies(engine, index, say)
    except EngineError as error:
        say(f"the documents are in, but whether {index} has its replicas again is not known: {error}")


def _pruned(position: Checkpoint, model: IndexModel) -> dict[str, float]:
    """What pruning removed, where any was asked for and any document was encoded."""
    if not model.pruning or not position.prepared:
        return {}
    whole = position.mass + position.removed_mass
    return {
        "pruned_terms": round(position.removed_terms / position.prepared, 2),
        "pruned_mass": round(position.removed_mass / whole, 6) if whole else 0.0,
    }


def checkpoint_path(engine: Engine, index: str, source: Source) -> Path:
    """Where the checkpoint of this source into this index lies; the same command finds it again."""
    names = [file.key for file in source.files]
    key = "\0".join([engine.info().cluster_uuid or engine.url, index, *names])
    return data_folder() / "checkpoints" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def journal_path(checkpoint: Path) -> Path:
    """Where the journal of the same run lies."""
    return checkpoint.with_suffix(".sent")


def _fit(
    source: Source, fields: tuple[str, ...], options: FitOptions, report: Report, say: Callable[[str], None]
) -> Encoder:
    encoder = fit(texts_of(source, fields, report), options=options)
    say(f"no model was named: fitted {encoder.fingerprint} on the source itself")
    return encoder


def texts_of(source: Source, fields: tuple[str, ...], report: Report) -> Iterator[str]:
    """The texts of a source's documents, for fitting; one without text is passed over.

    Ingest finds such a document again, and makes a dead letter of it.
    """
    for count, item in enumerate(source.read(), 1):
        if count % 1000 == 0:
            report(Progress("fit", count, source.bytes_read, source.bytes_total))
        if isinstance(item, Doc) and item.op == "index":
            with contextlib.suppress(DocumentError):
                yield text_of(item.source, fields)


def _begin(
    engine: Engine,
    uuid: str,
    index: str,
    source: Source,
    encoders: tuple[Encoder, DenseEncoder | None],
    options: IngestOptions,
    path: Path,
    say: Callable[[str], None],
) -> Checkpoint:
    letters = (options.dead_letter or Path(f"{index}.dead-letter.jsonl")).absolute()
    now = Checkpoint(
        source=source.fingerprint(),
        model=encoders[0].fingerprint,
        dense=encoders[1].fingerprint if encoders[1] else "",
        index_uuid=uuid,
        operation="index",
        dead_letter=str(letters),
        dead_letter_bytes=letters.stat().st_size if letters.is_file() else 0,
    )
    if options.fresh:
        path.unlink(missing_ok=True)
    elif there := read_checkpoint(path):
        check_same_run(there, now, path)
        say(f"going on with an interrupted run at document {there.position + 1:,} (--fresh starts over)")
        return there
    journal_path(path).unlink(missing_ok=True)
    engine.refresh(index)
    if engine.count(index) == 0:
        now = msgspec.structs.replace(now, operation="create")
    # Written before the first document, so that a run that dies early is known to have begun as it did.
    write_checkpoint(path, now)
    return now
