"""Source ─▶ encode ─▶ bulk ─▶ engine, losing nothing.

Every document of the source ends as exactly one of indexed, unchanged, deleted or dead; a dead one
stands in the dead-letter file with its reason. The checkpoint moves only past settled documents, and
an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from bridge import register
from bridge.bulk import BulkOptions, BulkSender
from bridge.checkpoint import Checkpoint, check_same_run, read_checkpoint, write_checkpoint
from bridge.deadletter import DeadLetterFile
from bridge.encode import Encoder, load_encoder
from bridge.encode.base import TokenVocabulary
from bridge.encode.load import ModelOrigin
from bridge.engines import Engine
from bridge.errors import BridgeError, DocumentError, ModelMismatch, SourceError, UsageError
from bridge.fit import FitOptions, fit
from bridge.indexmodel import IndexModel
from bridge.modelstore import find_model, save_model
from bridge.records import (
    HASH_FIELD,
    TEXT_FIELDS,
    BulkOutcome,
    DeadLetter,
    Doc,
    EncodedDoc,
    Progress,
    Report,
    SparseVector,
)
from bridge.register import RegisterOptions
from bridge.settings import data_folder
from bridge.sources import Item, Source, content_hash, text_of
from bridge.tokens import field_value
from bridge.vectorfile import StoredEncoder, VectorMeta, looks_encoded, read_vector, source_fields

CHECKPOINT_SECONDS = 1.0
_BATCH = 128


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
    run: Mapping[str, Any] = field(default_factory=dict)
    """Device, precision and the rest, as `bridge.load_encoder` takes them."""
    vectors: VectorMeta | None = None
    """The source is files of `bridge encode`: their vectors go in as they are."""


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
    encoder, model = _prepare(engine, index, source, options, say, report)
    state = engine.require_index(index)
    path = checkpoint_path(engine, state.name, source)
    position = _begin(engine, state.uuid, index, source, encoder, options, path, say)
    letters = DeadLetterFile(Path(position.dead_letter), position.dead_letter_bytes)
    most_under_way = (options.bulk.in_flight + 2) * options.bulk.chunk_documents + _BATCH
    run = _Run(engine, index, source, encoder, model, model.text_fields, most_under_way, options.vectors)
    sender = BulkSender(
        lambda body: engine.bulk(index, body),
        run.body,
        run.hashes,
        replace(options.bulk, operation="create" if position.operation == "create" else "index"),
        warn=say,
    )
    try:
        position = _settle(sender.run(run.documents(position)), position, letters, path, source, report)
    except KeyboardInterrupt:
        say(f"interrupted; {path} remembers the place: the same command goes on there")
        raise
    finally:
        letters.close()
    engine.refresh(index)
    path.unlink(missing_ok=True)
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
    )


def checkpoint_path(engine: Engine, index: str, source: Source) -> Path:
    """Where the checkpoint of this source into this index lies; the same command finds it again."""
    names = [str(Path(file.name).resolve()) for file in source.files]
    key = "\0".join([engine.info().cluster_uuid or engine.url, index, *names])
    return data_folder() / "checkpoints" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _prepare(
    engine: Engine,
    index: str,
    source: Source,
    options: IngestOptions,
    say: Callable[[str], None],
    report: Report,
) -> tuple[Encoder, IndexModel]:
    """The encoder, and the index's own description, registered where it was missing."""
    state = engine.get_index(index)
    there = IndexModel.of(state) if state else None
    wanted = options.register
    if options.text_fields:
        wanted = replace(wanted, text_fields=options.text_fields)
    if options.vectors:
        encoder, origin = _of_vectors(options.vectors, options)
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
    return encoder, planned.model


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
    encoder: Encoder,
    options: IngestOptions,
    path: Path,
    say: Callable[[str], None],
) -> Checkpoint:
    letters = (options.dead_letter or Path(f"{index}.dead-letter.jsonl")).absolute()
    now = Checkpoint(
        source=source.fingerprint(),
        model=encoder.fingerprint,
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
    engine.refresh(index)
    if engine.count(index) == 0:
        now = msgspec.structs.replace(now, operation="create")
    # Written before the first document, so that a run that dies early is known to have begun as it did.
    write_checkpoint(path, now)
    return now


@dataclass(slots=True)
class _Run:
    """What the stages share."""

    engine: Engine
    index: str
    source: Source
    encoder: Encoder
    model: IndexModel
    text_fields: tuple[str, ...]
    most_under_way: int
    """Documents that may have been read, and not yet have come to the engine."""
    vectors: VectorMeta | None = None
    sent: dict[str, None] = field(default_factory=dict)
    """The ids of the latest `most_under_way` documents that were sent, the oldest first."""

    def documents(self, begin: Checkpoint) -> Iterator[EncodedDoc | BulkOutcome]:
        """The source's documents, encoded, in order; those that need no sending come as their outcome."""
        items = self.source.read(begin.position)
        while batch := list(islice(items, _BATCH)):
            settled: dict[int, BulkOutcome] = {}
            texts: dict[int, tuple[Doc, str | SparseVector, str]] = {}
            for place, item in enumerate(batch):
                if isinstance(item, DeadLetter):
                    settled[place] = _dead(item)
                elif item.op == "index":
                    try:
                        texts[place] = self._read(item)
                    except DocumentError as error:
                        settled[place] = _dead(DeadLetter(item.position, item.id, str(error), _whole(item)))
            if begin.operation == "index":
                self._settle_unchanged(batch, texts, settled)
            vectors = self._vectors(texts)
            for place, item in enumerate(batch):
                if place in settled:
                    yield settled[place]
                elif isinstance(item, Doc):
                    doc, _, digest = texts.get(place, (item, "", ""))
                    yield EncodedDoc(doc.id or "", doc.source, doc.position, digest, vectors.get(place), op=doc.op)

    def _read(self, doc: Doc) -> tuple[Doc, str | SparseVector, str]:
        """The document as it is indexed, its text or its vector, and its content's hash."""
        if self.vectors is None:
            self._check_names(doc)
            try:
                text = text_of(doc.source, self.text_fields)
            except DocumentError:
                if looks_encoded(doc.source):
                    raise DocumentError(
                        "it is a document of a vector file whose FILE.meta.json is not beside it: whose vectors "
                        "these are is not known; copy that along"
                    ) from None
                raise
            # The text as well: other text fields make another vector of the same source.
            return doc, text, content_hash({"source": doc.source, "text": text})
        vocabulary = self.encoder.vocabulary
        if self.encoder.open_vocabulary or not isinstance(vocabulary, TokenVocabulary):
            vector = read_vector(doc.source)
        else:
            vector = read_vector(doc.source, vocabulary)
        kept = replace(doc, source=source_fields(doc.source))
        self._check_names(kept)
        return kept, vector, content_hash(doc.source)

    def _vectors(self, texts: Mapping[int, tuple[Doc, str | SparseVector, str]]) -> dict[int, SparseVector]:
        found = {place: given for place, (_, given, _) in texts.items() if isinstance(given, SparseVector)}
        unread = {place: given for place, (_, given, _) in texts.items() if isinstance(given, str)}
        if unread:
            found |= zip(unread, self.encoder.encode_document(list(unread.values())), strict=True)
        return found

    def _settle_unchanged(
        self,
        batch: list[Item],
        texts: dict[int, tuple[Doc, str | SparseVector, str]],
        settled: dict[int, BulkOutcome],
    ) -> None:
        stored = self.hashes([doc.id for doc, _, _ in texts.values() if doc.id])
        for place, item in enumerate(batch):
            if place in settled:
                continue
            name = item.id or ""
            # While an earlier document of that id may be under way, what is stored now is not what counts.
            if name not in self.sent and place in texts and stored.get(name) == texts[place][2]:
                settled[place] = BulkOutcome(item.position, name, "unchanged")
                del texts[place]
            else:
                self.sent.pop(name, None)
                self.sent[name] = None
        while len(self.sent) > self.most_under_way:
            del self.sent[next(iter(self.sent))]

    def _check_names(self, doc: Doc) -> None:
        for name in (self.model.field, HASH_FIELD):
            if name in doc.source:
                raise DocumentError(
                    f"it has a field {name} of its own, which the index keeps for the bridge; see --field"
                )

    def body(self, document: EncodedDoc) -> Mapping[str, Any]:
        """What the engine gets as `_source`."""
        if document.sparse is None:
            return document.source
        value = field_value(document.sparse, self.model.kind, self.engine.product)
        return {**document.source, self.model.field: value, HASH_FIELD: document.content_hash}

    def hashes(self, ids: list[str] | Any) -> dict[str, str | None]:
        """The content hashes of those of `ids` that are in the index."""
        found = self.engine.get_sources(self.index, list(ids), [HASH_FIELD])
        return {name: fields.get(HASH_FIELD) for name, fields in found.items()}


def _settle(
    outcomes: Iterator[BulkOutcome],
    position: Checkpoint,
    letters: DeadLetterFile,
    path: Path,
    source: Source,
    report: Report,
) -> Checkpoint:
    """Count outcomes, write dead letters, move the checkpoint; whatever ends this, the place is kept."""
    counts = {
        "indexed": position.indexed,
        "unchanged": position.unchanged,
        "deleted": position.deleted,
        "dead": position.dead,
    }
    done = position.position
    written = time.monotonic()

    def here() -> Checkpoint:
        return msgspec.structs.replace(position, position=done, dead_letter_bytes=letters.sync(), **counts)

    try:
        for outcome in outcomes:
            if outcome.result == "dead":
                letters.append(outcome)
            counts[outcome.result] += 1
            done += 1
            if time.monotonic() - written >= CHECKPOINT_SECONDS:
                write_checkpoint(path, here())
                report(Progress("ingest", done, source.bytes_read, source.bytes_total))
                written = time.monotonic()
    except BaseException as failure:
        # A second failure here must not hide the first; the older checkpoint stands, and is safe.
        with contextlib.suppress(BridgeError):
            write_checkpoint(path, here())
        if isinstance(failure, OSError):
            raise SourceError(
                f"the run broke off at document {done + 1:,}: {failure}; the same command goes on there"
            ) from failure
        raise
    return here()


def _dead(letter: DeadLetter) -> BulkOutcome:
    return BulkOutcome(letter.position, letter.id, "dead", 0, letter.reason, letter.document)


def _whole(doc: Doc) -> dict[str, Any]:
    return dict(doc.source)
