"""Source ─▶ encode ─▶ bulk ─▶ engine, losing nothing.

Every document of the source ends as exactly one of indexed, unchanged, deleted or dead; a dead one
stands in the dead-letter file with its reason. The checkpoint moves only past settled documents, and
an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from bridge import register
from bridge.batches import BATCH, Batches
from bridge.bulk import BulkOptions, BulkSender
from bridge.checkpoint import Checkpoint, check_same_run, read_checkpoint, write_checkpoint
from bridge.deadletter import DeadLetterFile
from bridge.encode import Encoder, load_encoder
from bridge.encode.dense import DenseEncoder, load_dense
from bridge.encode.load import ModelOrigin
from bridge.engines import Engine
from bridge.errors import (
    DocumentError,
    EngineError,
    EngineForbidden,
    IndexReadOnly,
    ModelMismatch,
    RequestRejected,
    UsageError,
)
from bridge.fit import FitOptions, fit
from bridge.indexmodel import IndexModel
from bridge.journal import Journal
from bridge.keeper import Keeper
from bridge.loadsettings import begin_load, finish_load
from bridge.modelstore import find_dense, find_model, save_dense, save_model
from bridge.records import HASH_FIELD, TEXT_FIELDS, Doc, Progress, Report
from bridge.register import RegisterOptions
from bridge.settings import data_folder
from bridge.sources import Source, text_of
from bridge.vectorfile import StoredEncoder, VectorMeta, source_fields


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to ingest; what is None is decided by the index, or by the defaults for a new one."""

    model: str | None = None
    text_fields: tuple[str, ...] | None = None
    register: RegisterOptions = field(default_factory=RegisterOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    dead_letter: Path | None = None
    fresh: bool = False
    """Forget the checkpoint of an interrupted run and begin at the source's start."""
    bulk: BulkOptions = field(default_factory=BulkOptions)
    error_budget: float = 0.5
    """Stop when more than this share of the documents so far is dead, of 1,000 documents or more; 1 never does."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Device, precision and the rest, as `bridge.load_encoder` takes them."""
    vectors: VectorMeta | None = None
    """The source is files of `bridge encode`: their vectors go in as they are."""
    dense: str | None = None
    """A dense encoder's folder or Hugging Face id: its vectors go in too. An index that has such vectors keeps them
    up with the encoder that it remembers."""


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
    encoder, dense, model = _prepare(engine, index, source, options, say, report)
    state = engine.require_index(index)
    path = checkpoint_path(engine, state.name, source)
    position = _begin(engine, state.uuid, index, source, (encoder, dense), options, path, say)
    letters = DeadLetterFile(Path(position.dead_letter), position.dead_letter_bytes)

    def hashes(ids: Sequence[str]) -> dict[str, str | None]:
        found = engine.get_sources(index, list(ids), [HASH_FIELD])
        return {name: fields.get(HASH_FIELD) for name, fields in found.items()}

    # What the sender holds back behind a chunk that is stuck, the chunk that it fills, and the batch at hand.
    most_under_way = (2 * options.bulk.in_flight + 2) * options.bulk.chunk_documents + BATCH
    journal = Journal(journal_path(path))
    fresh = position.operation == "create"
    run = Batches(source, encoder, model, engine.product, hashes, most_under_way, dense, options.vectors, journal)
    sender = BulkSender(
        lambda body: engine.bulk(index, body),
        run.body,
        hashes,
        replace(options.bulk, operation="create" if fresh else "index"),
        warn=say,
    )
    keeper = Keeper(engine, index, state, path, journal, letters, source, report, options.error_budget)
    try:
        _begin_load(engine, index, fresh, say)
        position = keeper.settle(sender.run(run.documents(position.position, fresh=fresh)), run.effects, position)
    except KeyboardInterrupt:
        say(f"interrupted; {path} remembers the place: the same command goes on there")
        raise
    finally:
        letters.close()
        journal.close()
        _finish(engine, index, say)
    engine.refresh(index)
    path.unlink(missing_ok=True)
    journal.remove()
    return IngestSummary(
        source=position.position,
        indexed=position.indexed,
        unchanged=position.unchanged,
        deleted=position.deleted,
        dead=position.dead,
        retried=sender.retried,
        seconds=round(time.monotonic() - started, 3),
        model=encoder.fingerprint,
        dead_letter=position.dead_letter if position.dead else None,
        first_dead=letters.first,
        dense_model=dense.fingerprint if dense else None,
        active_terms=round(position.terms / position.prepared, 2) if position.prepared else None,
        passages=position.passages if model.passages != "whole" else None,
        **({} if options.vectors else _pruned(position, model)),
    )


def _begin_load(engine: Engine, index: str, fresh: bool, say: Callable[[str], None]) -> None:
    """Settings for the load, where this user may change them: documents go in without that, too."""
    try:
        begin_load(engine, index, fresh=fresh)
    except (EngineForbidden, IndexReadOnly, RequestRejected) as error:
        say(f"{index} keeps its refresh interval: {error}")


def _finish(engine: Engine, index: str, say: Callable[[str], None]) -> None:
    """Put the index's settings back, also when the run broke off; why it did must not be hidden."""
    try:
        finish_load(engine, index)
    except EngineError as error:
        say(f"{index} has still the settings of a load ({error}); bridge ingest {index} --finish puts them back")


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
    names = [str(Path(file.name).resolve()) for file in source.files]
    key = "\0".join([engine.info().cluster_uuid or engine.url, index, *names])
    return data_folder() / "checkpoints" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def journal_path(checkpoint: Path) -> Path:
    """Where the journal of the same run lies."""
    return checkpoint.with_suffix(".sent")


def _prepare(
    engine: Engine,
    index: str,
    source: Source,
    options: IngestOptions,
    say: Callable[[str], None],
    report: Report,
) -> tuple[Encoder, DenseEncoder | None, IndexModel]:
    """The encoders, and the index's own description, registered where it was missing."""
    state = engine.get_index(index)
    there = IndexModel.of(state) if state else None
    wanted = options.register
    if options.text_fields:
        wanted = replace(wanted, text_fields=options.text_fields)
    if options.vectors:
        encoder, origin = _of_vectors(options.vectors, options)
        wanted = _as_stored(wanted, options.vectors)
        if not options.text_fields and not there:
            wanted = replace(wanted, text_fields=options.vectors.text_fields)
    elif options.model:
        encoder = load_encoder(options.model, **options.run)
        origin = ModelOrigin.of(options.model, options.run)
    elif there and there.document_encoder:
        encoder = find_model(engine, there.document_encoder, **options.run)
        origin = ModelOrigin.of(encoder.fingerprint)
        say(f"using the index's own model {encoder.fingerprint}")
    else:
        fields = wanted.text_fields or (there.text_fields if there else TEXT_FIELDS)
        encoder = _fit(source, fields, options.fit, report)
        origin = ModelOrigin.of(encoder.fingerprint)
        say(f"no model was named: fitted {encoder.fingerprint} on the source itself")
    if there and there.document_encoder:
        there.check_document_encoder(encoder, index)
    if not options.vectors:
        encoder.encode_document([""])  # a query-only model says so before anything is written
    dense = _dense(engine, index, there, options, say)
    if dense and options.vectors:
        _check_texts(source, options.text_fields or (there.text_fields if there else options.vectors.text_fields))
    # What the index has already is left as an administrator may have made it, its search pipeline too.
    if dense and options.dense:
        wanted = replace(wanted, dense=dense.description)
    planned = register.plan(engine, index, encoder, wanted)
    by_id = planned.model.kind == "sparse_vector" and engine.product == "opensearch"
    if by_id and isinstance(encoder, StoredEncoder):
        raise UsageError(
            f"index {index} keeps ids, and a vector file has tokens; name the model ({encoder.name}) with --model"
        )
    for step in planned.steps:
        say(step)
    register.apply(engine, planned)
    if origin:
        save_model(engine, encoder, origin)
    if dense and options.dense:
        save_dense(engine, dense.fingerprint, ModelOrigin.of(options.dense))
    return encoder, dense, planned.model


def _dense(
    engine: Engine, index: str, there: IndexModel | None, options: IngestOptions, say: Callable[[str], None]
) -> DenseEncoder | None:
    """The dense encoder that is named, else the index's own, loaded; None where there is neither."""
    wanted = options.register.dense
    own = (there.dense_encoder if there else None) or (wanted.fingerprint if wanted else None)
    # A revision is the sparse model's repository's; an activation and a teacher are nothing to a dense encoder.
    run = {key: value for key, value in options.run.items() if key not in ("revision", "activation", "teacher")}
    if options.dense:
        dense = load_dense(options.dense, **run)
        if own and dense.fingerprint != own:
            raise ModelMismatch(
                f"index {index} holds dense vectors of {own}; the model {dense.name} is {dense.fingerprint}, and "
                "mixed vectors cannot be compared. Leave --dense out, or ingest into a new index"
            )
    elif own:
        dense = find_dense(engine, own, **run)
        say(f"using the index's own dense model {own}")
    else:
        return None
    _ = dense.runtime  # what is missing must show before anything is written
    return dense


def _as_stored(wanted: RegisterOptions, meta: VectorMeta) -> RegisterOptions:
    """`wanted` for vectors that are there already."""
    asked = (wanted.passages, wanted.passage_tokens, wanted.overlap, wanted.pruning)
    if any(option is not None for option in asked):
        raise UsageError(
            f"the vectors of these files were made as: {meta.preparation}, and go in as they are; "
            "passages and pruning are options of `bridge encode`"
        )
    return replace(wanted, prepared=meta.prepared)


def _check_texts(source: Source, fields: tuple[str, ...]) -> None:
    """Raises UsageError where the vector files have not kept the texts that a dense encoder needs."""
    first = next((item for item in source.read() if isinstance(item, Doc) and item.op == "index"), None)
    if first is None:
        return
    try:
        text_of(source_fields(first.source), fields)
    except DocumentError as error:
        raise UsageError(
            f"dense vectors need the texts, which {source.name} has not kept ({error}); encode it with "
            "--keep-source, or ingest the texts themselves"
        ) from None


def _of_vectors(meta: VectorMeta, options: IngestOptions) -> tuple[Encoder, ModelOrigin | None]:
    """The encoder of vector files: the model itself where it is named, else what the files say of it."""
    if not options.model:
        return StoredEncoder(meta), None
    encoder = load_encoder(options.model, **options.run)
    if encoder.fingerprint != meta.document_encoder:
        raise ModelMismatch(
            f"the vectors are of {meta.model} ({meta.document_encoder}), not of {encoder.name} ({encoder.fingerprint})"
        )
    return encoder, ModelOrigin.of(options.model, options.run)


def _fit(source: Source, fields: tuple[str, ...], options: FitOptions, report: Report) -> Encoder:
    return fit(texts_of(source, fields, report), options=options)


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
