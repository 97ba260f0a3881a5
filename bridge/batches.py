"""A source's items ─▶ documents with their vectors, a batch at a time: what `bridge.ingest` sends.

An item that needs no sending (it cannot go in, or is unchanged) comes as its outcome instead. What preparation did
to each document waits in `Batches.effects`, in the same order, for whoever learns what became of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec

from bridge.bulk import BulkOptions
from bridge.encode import Encoder
from bridge.encode.base import TokenVocabulary
from bridge.encode.dense import DenseEncoder
from bridge.encode.dense import Passage as TitledText
from bridge.errors import DocumentError
from bridge.featuretext import FeatureText
from bridge.indexmodel import Hashes, IndexModel
from bridge.journal import Journal
from bridge.prepare import Prepared, prepare
from bridge.readyfile import read_ready, ready_value
from bridge.records import (
    HASH_FIELD,
    BulkOutcome,
    DeadLetter,
    DenseVector,
    Doc,
    EncodedDoc,
    EncodedPassage,
    Product,
    ReadyVector,
    SparseVector,
)
from bridge.sources import Item, Source, content_hash, text_of
from bridge.tokens import by_ids, field_value, shortest
from bridge.vectorfile import VectorMeta, looks_encoded, raw_fields, read_passages, read_vector, source_fields

BATCH = 128

TITLE = "title"
"""The text field that a dense model trained on pairs gets as the title."""

_LOOK = 512
"""Documents whose hashes are asked for at once."""


def most_under_way(options: BulkOptions) -> int:
    """Documents that may have been read, and not yet have come to the engine.

    What the sender holds back behind a chunk that is stuck, the chunk that it fills, and those at hand.
    """
    return (2 * options.in_flight + 2) * options.chunk_documents + _LOOK


class Effect(msgspec.Struct, frozen=True):
    """What preparation did to one document."""

    passages: int
    terms: int
    mass: float
    """The sum of the weights that are left, where any are pruned."""
    removed: int
    removed_mass: float


class _Read(msgspec.Struct, frozen=True):
    """A document that is to be sent, before it has vectors."""

    doc: Doc
    given: str | SparseVector | ReadyVector | Sequence[EncodedPassage]
    """Its text, or what a vector file holds of it."""
    digest: str
    source: Mapping[str, Any]
    """The user's fields, as they are indexed."""
    titled: TitledText | None = None
    """Its text for the dense encoder."""


@dataclass(slots=True)
class Batches:
    """One source for one index."""

    source: Source
    encoder: Encoder
    model: IndexModel
    product: Product
    hashes: Hashes
    most_under_way: int
    """Documents that may have been read, and not yet have come to the engine."""
    dense: DenseEncoder | None = None
    vectors: VectorMeta | None = None
    """The source is files of vectors, which go in as they are."""
    journal: Journal | None = None
    """Is told what is about to be sent, and knows what an interrupted run had sent."""
    effects: deque[Effect | None] = field(default_factory=deque)
    """One an item that `documents` gave, and nobody has taken away yet."""
    sent: dict[str, None] = field(default_factory=dict)
    """The ids of the latest `most_under_way` documents that were sent, the oldest first."""
    replayed: set[str] = field(default_factory=set)
    """The ids of documents that an interrupted run had sent and that were met again."""
    own_names: dict[str, str] = field(init=False)
    """The fields that are the bridge's, and the option that names each."""
    _text: FeatureText | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        model, vocabulary = self.model, self.encoder.vocabulary
        if isinstance(vocabulary, TokenVocabulary) and not by_ids(model.kind, self.product):
            self._text = FeatureText(vocabulary)
        self.own_names = {model.passage_field or model.field: "--passage-field" if model.passage_field else "--field"}
        if self.dense and model.dense_field:
            self.own_names[model.dense_field] = "--dense-field"
        self.own_names[HASH_FIELD] = "--field"

    def documents(self, skip: int, *, fresh: bool) -> Generator[EncodedDoc | BulkOutcome, None, None]:
        """The source's items from `skip` on, encoded, in order; those that need no sending come as their outcome.

        Args:
            skip: items to pass over.
            fresh: the index is empty, so that nothing can be unchanged.
        """
        with self.source.handing_on(raw_fields(self.vectors)):
            yield from self._documents(skip, fresh)

    def _documents(self, skip: int, fresh: bool) -> Iterator[EncodedDoc | BulkOutcome]:
        items = self.source.read(skip)
        number = skip
        while group := list(islice(items, BATCH if fresh else _LOOK)):
            before = self._sent_before(group, number)
            settled: dict[int, BulkOutcome] = {}
            found: dict[int, _Read] = {}
            for place, item in enumerate(group):
                if isinstance(item, DeadLetter):
                    settled[place] = _dead(item)
                elif item.op != "delete":
                    try:
                        if item.op == "index":
                            found[place] = self._read(item)
                        else:
                            self._check_update(item)
                    except DocumentError as error:
                        settled[place] = _refused(item, error)
            if not fresh:
                self._settle_unchanged(group, found, settled, before)
            for start in range(0, len(group), BATCH):
                places = range(start, min(start + BATCH, len(group)))
                encoded, effects = self._encoded({place: found[place] for place in places if place in found}, settled)
                if self.journal:
                    self.journal.intend(number + start, [place not in settled for place in places])
                for place in places:
                    self.effects.append(effects.get(place))
                    yield settled.get(place) or self._sent(group[place], encoded.get(place), place in before)
            number += len(group)

    def _sent(self, item: Item, encoded: EncodedDoc | None, before: bool) -> EncodedDoc:
        if encoded is None and isinstance(item, Doc):
            encoded = EncodedDoc(
                item.id or "", item.source, item.position, "", op=item.op, version=item.version,
                routing=item.routing, stored=item.stored,
            )  # fmt: skip
        if encoded is None:
            raise ValueError(f"{item.position}: a dead letter is settled, and not sent")
        return msgspec.structs.replace(encoded, sent_before=True) if before else encoded

    def body(self, document: EncodedDoc) -> Mapping[str, Any]:
        """What the engine gets as `_source`."""
        if document.op == "delete":
            return document.source
        model = self.model
        body = dict(document.source)
        if document.op == "update":
            # What is stored is no longer what any source gave: the next whole document of that id goes in.
            return body | {HASH_FIELD: None}
        if document.passages is not None and model.passage_field:
            body[model.passage_field] = [
                {"start": one.start, "end": one.end, model.field: self._value(one.vector)} for one in document.passages
            ]
        elif document.sparse is not None:
            body[model.field] = self._value(document.sparse)
        if document.dense is not None and model.dense_field:
            body[model.dense_field] = shortest(document.dense.values)
        body[HASH_FIELD] = document.content_hash
        return body

    def is_current(self, doc: Doc, stored: str | None) -> bool:
        """Whether a document whose content hash in the index is `stored` needs no other vector than it has."""
        try:
            return stored is not None and self._read(doc).digest == stored
        except DocumentError:
            return False

    def _value(self, vector: SparseVector | ReadyVector) -> dict[str, float] | msgspec.Raw:
        if isinstance(vector, ReadyVector):
            return ready_value(vector, self.product)
        return field_value(vector, self.model.kind, self.product)

    def _read(self, doc: Doc) -> _Read:
        if self.vectors is None:
            self._check_names(doc.source)
            try:
                text = text_of(doc.source, self.model.text_fields)
            except DocumentError:
                if looks_encoded(doc.source):
                    raise DocumentError(
                        "it is a document of a vector file whose FILE.meta.json is not beside it: whose vectors "
                        "these are is not known; copy that along"
                    ) from None
                raise
            # The text as well: other text fields make another vector of the same source.
            digest = self._digest({"source": doc.source, "text": text})
            return _Read(doc, text, digest, doc.source, self._titled(doc.source, text))
        given = self._stored(doc.source)
        kept = source_fields(doc.source)
        self._check_names(kept)
        text = ""
        if self.dense:
            try:
                text = text_of(kept, self.model.text_fields)
            except DocumentError as error:
                raise DocumentError(
                    f"its dense vector is of a text that the vector file has not kept: {error}"
                ) from None
        if isinstance(given, ReadyVector) and not (kept or self.dense or self.model.salt):
            digest = given.digest  # of all there is
        else:
            digest = self._digest(_content(given, doc.source, kept))
        return _Read(doc, given, digest, kept, self._titled(kept, text))

    def _stored(self, fields: Mapping[str, Any]) -> SparseVector | ReadyVector | Sequence[EncodedPassage]:
        """What a line of a vector file holds."""
        vocabulary = self.encoder.vocabulary
        listed = vocabulary if isinstance(vocabulary, TokenVocabulary) and not self.encoder.open_vocabulary else None
        if self.model.passages == "nested":
            return [EncodedPassage(*passage) for passage in read_passages(fields, listed)]
        if self.vectors and self.vectors.form == "engine" and not by_ids(self.model.kind, self.product):
            return read_ready(fields)
        return read_vector(fields, listed)

    def _digest(self, content: Mapping[str, Any]) -> str:
        """The hash of all that decides what is stored."""
        # As it ever was where there is neither: what such an index holds stays unchanged.
        if self.dense:
            content = {**content, "dense": self.dense.fingerprint}
        if self.model.salt:
            content = {**content, "salt": self.model.salt}
        return content_hash(content)

    def _titled(self, source: Mapping[str, Any], text: str) -> TitledText | None:
        """The text as the dense encoder wants it."""
        if self.dense is None:
            return None
        named = self.model.text_fields
        if not self.dense.recipe.titled or TITLE not in named:
            return text
        title = _text_or_nothing(source, [TITLE])
        return title, _text_or_nothing(source, [name for name in named if name != TITLE])

    def _encoded(
        self, found: Mapping[int, _Read], settled: dict[int, BulkOutcome]
    ) -> tuple[dict[int, EncodedDoc], dict[int, Effect]]:
        """The documents with their vectors; one that cannot be cut into passages is settled."""
        texts = {place: read.given for place, read in found.items() if isinstance(read.given, str)}
        prepared: dict[int, Prepared] = {}
        if texts:
            results = prepare(self.encoder, list(texts.values()), self.model.preparation)
            for place, result in zip(texts, results, strict=True):
                if isinstance(result, DocumentError):
                    settled[place] = _refused(found[place].doc, result)
                else:
                    prepared[place] = result
        dense = self._dense({place: read for place, read in found.items() if place not in settled})
        encoded: dict[int, EncodedDoc] = {}
        effects: dict[int, Effect] = {}
        vectors = {place: read.given for place, read in found.items() if isinstance(read.given, SparseVector)}
        vectors |= {place: one.vector for place, one in prepared.items() if one.vector is not None}
        written = self._written(vectors)
        pruned = self.model.preparation.pruning is not None
        for place, read in found.items():
            if place in settled:
                continue
            doc, passages = read.doc, None
            sparse: SparseVector | ReadyVector | None = written.get(place)
            if one := prepared.get(place):
                if one.vector is None:
                    passages = tuple(EncodedPassage(cut.start, cut.end, vector) for cut, vector in one.nested)
                mass = one.mass if pruned else 0.0
                effects[place] = Effect(one.passages, one.terms, mass, one.removed, one.removed_mass)
            elif isinstance(read.given, ReadyVector):
                sparse = read.given
            elif not isinstance(read.given, str | SparseVector):
                passages = tuple(read.given)
                effects[place] = Effect(len(passages), sum(len(cut.vector) for cut in passages), 0.0, 0, 0.0)
            encoded[place] = EncodedDoc(
                doc.id or "", read.source, doc.position, read.digest, sparse, dense.get(place), passages, doc.op,
                doc.version, doc.routing, doc.stored, line=doc.source if self.vectors else None,
            )  # fmt: skip
        return encoded, effects

    def _written(self, vectors: Mapping[int, SparseVector]) -> Mapping[int, SparseVector | ReadyVector]:
        """The vectors as the engine's field takes them, where that can be said of all at once."""
        if self._text is None:
            return vectors
        return dict(zip(vectors, self._text.of(list(vectors.values())), strict=True))

    def _dense(self, found: Mapping[int, _Read]) -> dict[int, DenseVector]:
        texts = {place: read.titled for place, read in found.items() if read.titled is not None}
        if self.dense is None or not texts:
            return {}
        return dict(zip(texts, map(DenseVector, self.dense.encode_document(list(texts.values()))), strict=True))

    def _sent_before(self, batch: list[Item], number: int) -> set[int]:
        """The places of those in `batch`, whose first has this number, that an interrupted run had sent.

        Of several of one id only the first: the others met it there in that run, too.
        """
        found: set[int] = set()
        if not self.journal or not self.journal.before:
            return found
        for place, item in enumerate(batch):
            if number + place in self.journal.before and item.id and item.id not in self.replayed:
                self.replayed.add(item.id)
                found.add(place)
        return found

    def _settle_unchanged(
        self,
        batch: list[Item],
        found: dict[int, _Read],
        settled: dict[int, BulkOutcome],
        before: set[int],
    ) -> None:
        stored = dict(self.hashes([read.doc.id for read in found.values() if read.doc.id and not read.doc.stored]))
        # What is read from the index itself has brought its hash along.
        stored |= {read.doc.id: read.doc.stored.digest for read in found.values() if read.doc.id and read.doc.stored}
        for place, item in enumerate(batch):
            if place in settled:
                continue
            name = item.id or ""
            # While an earlier document of that id may be under way, what is stored now is not what counts.
            if name not in self.sent and place in found and stored.get(name) == found[place].digest:
                settled[place] = BulkOutcome(item.position, name, "indexed" if place in before else "unchanged")
                del found[place]
            else:
                self.sent.pop(name, None)
                self.sent[name] = None
        while len(self.sent) > self.most_under_way:
            del self.sent[next(iter(self.sent))]

    def _check_update(self, doc: Doc) -> None:
        """Raises DocumentError where a partial update changes what is encoded."""
        if self.vectors is not None:
            raise DocumentError("a file of vectors holds whole documents, not updates of some fields")
        if doc.version is not None:
            raise DocumentError("a partial update cannot have an external version: engines take none there")
        heads = {name.partition(".")[0] for name in self.model.text_fields} | set(self.model.text_fields)
        if touched := [name for name in doc.source if name in heads]:
            raise DocumentError(
                f"a partial update of {touched[0]}, which is encoded, would leave the old vector: "
                "send the whole document"
            )
        self._check_names(doc.source)

    def _check_names(self, source: Mapping[str, Any]) -> None:
        if source.keys().isdisjoint(self.own_names):
            return
        name = next(name for name in self.own_names if name in source)
        raise DocumentError(
            f"it has a field {name} of its own, which the index keeps for the bridge; see {self.own_names[name]}"
        )


def _content(
    given: SparseVector | ReadyVector | Sequence[EncodedPassage], line: Mapping[str, Any], source: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What a vector file's line holds, for its hash; a plain vector in the form that is written fastest."""
    if isinstance(given, ReadyVector):
        return {"vector": given.digest, "source": source}
    if not isinstance(given, SparseVector):
        return line
    return {"source": source, "tokens": given.tokens, "weights": given.weights.tobytes()}


def _text_or_nothing(source: Mapping[str, Any], fields: Sequence[str]) -> str:
    try:
        return text_of(source, fields)
    except DocumentError:
        return ""


def _refused(doc: Doc, error: DocumentError) -> BulkOutcome:
    # A letter says what was asked for, so that trying it again asks for the same.
    document = {name: _plain(value) for name, value in doc.source.items()}
    if doc.op != "index":
        document["_op"] = doc.op
    return BulkOutcome(doc.position, doc.id, "dead", 0, str(error), document, doc.version, doc.routing)


def _plain(value: Any) -> Any:
    """A field of a line as a letter keeps it: parsed, as far as that can be done."""
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return bytes(value).decode("utf-8", "replace")


def _dead(letter: DeadLetter) -> BulkOutcome:
    return BulkOutcome(letter.position, letter.id, "dead", 0, letter.reason, letter.document)
