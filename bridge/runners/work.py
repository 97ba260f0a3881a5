"""A batch of a source ─▶ its lines of a vector file: the one piece of work that every runner does."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import msgspec

from bridge.encode import Encoder, load_encoder
from bridge.errors import DocumentError, ModelMismatch
from bridge.prepare import WHOLE, Preparation, prepare
from bridge.records import BulkOutcome, DeadLetter, Doc, Position
from bridge.sources import Source, text_of
from bridge.vectorfile import Form, line_of


class Document(msgspec.Struct, frozen=True, array_like=True):
    """One text to encode, and what else its line or its dead letter needs."""

    place: int
    """In its batch."""
    file: str
    line: int
    id: str
    text: str
    source: bytes | None
    """Its own fields as JSON, where the line keeps them or it may yet become a dead letter."""


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """One document that cannot be encoded."""

    place: int
    file: str
    line: int
    id: str | None
    reason: str
    document: bytes
    """As JSON."""

    def outcome(self) -> BulkOutcome:
        """What the dead-letter file keeps."""
        return BulkOutcome(Position(self.file, self.line), self.id, "dead", 0, self.reason, msgspec.Raw(self.document))


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive items of a source."""

    number: int
    """Counted from 0 in this run."""
    items: int
    bytes_read: int
    """Of the source, when the batch had been read."""
    documents: list[Document]
    dead: list[Letter]


class Encoded(msgspec.Struct, frozen=True, array_like=True):
    """What one batch became."""

    number: int
    items: int
    bytes_read: int
    lines: bytes
    dead: list[Letter]
    encoded: int
    passages: int
    terms: int
    mass: float
    """The sum of the weights that are in the lines, before any `scale`."""
    removed: int
    removed_mass: float


@dataclass(frozen=True, slots=True)
class Reading:
    """The batches of a source from an item on."""

    source: Source
    position: int
    size: int
    """Items a batch."""
    text_fields: tuple[str, ...]
    with_source: bool
    """Whether a document's own fields go along."""

    def batches(self) -> Iterator[Batch]:
        """Every batch, in order.

        Raises:
            SourceError: the source cannot be read on; what came before was yielded.
        """
        items = self.source.read(self.position)
        number = 0
        while chunk := list(islice(items, self.size)):
            documents: list[Document] = []
            dead: list[Letter] = []
            for place, item in enumerate(chunk):
                found = self._one(place, item)
                (documents if isinstance(found, Document) else dead).append(found)  # type: ignore[arg-type]
            yield Batch(number, len(chunk), self.source.bytes_read, documents, dead)
            number += 1

    def _one(self, place: int, item: Doc | DeadLetter) -> Document | Letter:
        file, line = item.position.file, item.position.line
        if isinstance(item, DeadLetter):
            return Letter(place, file, line, item.id, item.reason, msgspec.json.encode(item.document))
        try:
            if item.op == "delete":
                raise DocumentError("a deletion has no vector; give it to `bridge ingest` itself")
            if item.op == "update":
                raise DocumentError("an update of some fields has no vector; give it to `bridge ingest` itself")
            text = text_of(item.source, self.text_fields)
        except DocumentError as error:
            return Letter(place, file, line, item.id, str(error), msgspec.json.encode(item.source))
        source = msgspec.json.encode(item.source) if self.with_source else None
        return Document(place, file, line, item.id or "", text, source)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model by its name: a process of its own loads it, weights never travel."""

    model: str
    """As `bridge.load_encoder` takes it; a folder by its whole path."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Device, precision and the rest, as `bridge.load_encoder` takes them."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is done with every batch."""

    form: Form
    fingerprint: str
    """The model's."""
    keep_source: bool = False
    scale: float | None = None
    preparation: Preparation = WHOLE


class Runner(Protocol):
    """Somebody who does the work."""

    def run(self, reading: Reading, work: Work) -> Generator[Encoded, None, None]:
        """Every batch of `reading`, encoded, in order; reading stays a bounded number of batches ahead.

        Raises:
            BridgeError: what reading or encoding raised, or a worker is gone; what came before was yielded.
        """
        ...


class InProcess:
    """The runner that is this process."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def run(self, reading: Reading, work: Work) -> Generator[Encoded, None, None]:
        for batch in reading.batches():
            yield encode_batch(self.encoder, work, batch)


def load(spec: ModelSpec, work: Work, **options: Any) -> Encoder:
    """The model of `spec`, its `options` overridden by these.

    Raises:
        ModelMismatch: what is under that name here is another model than where the run was started.
    """
    encoder = load_encoder(spec.model, **{**spec.options, **options})
    if encoder.fingerprint != work.fingerprint:
        raise ModelMismatch(
            f"{spec.model} is {encoder.fingerprint} for a worker, and {work.fingerprint} where the run was started"
        )
    return encoder


def encode_batch(encoder: Encoder, work: Work, batch: Batch) -> Encoded:
    """The lines of `batch`; a document that cannot be cut into passages joins its dead letters."""
    prepared = prepare(encoder, [document.text for document in batch.documents], work.preparation)
    lines = bytearray()
    dead = list(batch.dead)
    found = []
    for document, one in zip(batch.documents, prepared, strict=True):
        source = document.source or b"{}"
        if isinstance(one, DocumentError):
            dead.append(Letter(document.place, document.file, document.line, document.id, str(one), source))
            continue
        kept = msgspec.Raw(source) if work.keep_source else None
        vector = one.nested if one.vector is None else one.vector
        try:
            lines += line_of(work.form, document.id, vector, document.text, source=kept, scale=work.scale)
        except DocumentError as error:
            dead.append(Letter(document.place, document.file, document.line, document.id, str(error), source))
            continue
        found.append(one)
    return Encoded(
        batch.number,
        batch.items,
        batch.bytes_read,
        bytes(lines),
        sorted(dead, key=lambda letter: letter.place),
        len(found),
        sum(one.passages for one in found),
        sum(one.terms for one in found),
        sum(one.mass for one in found),
        sum(one.removed for one in found),
        sum(one.removed_mass for one in found),
    )
