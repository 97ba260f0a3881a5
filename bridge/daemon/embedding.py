"""Documents that come from elsewhere than a load ─▶ the same documents with an index's vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.batches import Batches
from bridge.encode import Encoder
from bridge.encode.dense import DenseEncoder
from bridge.engines import Engine
from bridge.indexmodel import IndexModel
from bridge.records import HASH_FIELD, BulkOutcome, Doc, Position
from bridge.sources import Item, Source, SourceOptions
from bridge.templates import merge

_NOWHERE = Position("request", 0)


class _Given(Source):
    """Documents that are at hand."""

    def __init__(self, documents: Sequence[Mapping[str, Any]]) -> None:
        super().__init__((), SourceOptions())
        self._documents = documents

    def read(self, skip: int = 0) -> Iterator[Item]:
        for number, document in enumerate(self._documents[skip:], skip):
            yield Doc(str(number), document, _NOWHERE)


@dataclass(frozen=True, slots=True)
class PartialUpdate:
    """Fields of a document that are to be changed."""

    id: str
    routing: str | None
    change: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WholeUpdate:
    """A document as it will be stored; `stored` is its sequence number and primary term, None where it is not there."""

    document: Mapping[str, Any]
    stored: tuple[int, int] | None

    @property
    def body(self) -> dict[str, Any]:
        """Of an update request."""
        if self.stored is None:
            return {"doc": self.document, "doc_as_upsert": True}
        return {
            "script": {"lang": "painless", "source": "ctx._source = params.whole", "params": {"whole": self.document}}
        }


@dataclass(frozen=True, slots=True)
class Embedding:
    """How documents of one index get their vectors: as `bridge ingest` gives them."""

    engine: Engine
    index: str
    model: IndexModel
    encoder: Encoder
    dense: DenseEncoder | None = None

    @property
    def own_fields(self) -> tuple[str, ...]:
        """What the bridge keeps in a document, and its writer did not put there."""
        return self.model.own_fields

    def added(self, documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The fields that each document gains, in order; none where it has no text, or cannot be encoded."""
        batches = Batches(
            _Given(documents), self.encoder, self.model, self.engine.product, lambda ids: {}, 1, self.dense
        )
        found: list[dict[str, Any]] = []
        for document, item in zip(documents, batches.documents(0, fresh=True), strict=True):
            made = {} if isinstance(item, BulkOutcome) else batches.body(item)
            found.append({name: value for name, value in made.items() if name not in document})
        return found

    def with_updates(self, updates: Sequence[PartialUpdate]) -> list[WholeUpdate | None]:
        """What each partial update comes to, with the vector of what will be stored; None where it needs none.

        Engines merge objects, and a vector is one: it would keep the tokens of the text before. So the document is
        replaced whole, if it is still as it was read.
        """
        touching = [place for place, one in enumerate(updates) if self.touches(one.change)]
        found: list[WholeUpdate | None] = [None] * len(updates)
        if not touching:
            return found
        stored = self._stored([updates[place] for place in touching])
        befores = [stored.get(updates[place].id) for place in touching]
        # Engines merge what is changed just so.
        merged = [
            merge((before or {}).get("_source") or {}, updates[place].change)
            for place, before in zip(touching, befores, strict=True)
        ]
        for place, before, made, fields in zip(touching, befores, merged, self.added(merged), strict=True):
            if before and self._texts(made) == self._texts(before.get("_source") or {}):
                continue
            # It is what no source gave: the next whole document of that id is encoded anew.
            whole = {**made, **fields, HASH_FIELD: None}
            place_in_time = (int(before["_seq_no"]), int(before["_primary_term"])) if before else None
            found[place] = WholeUpdate(whole, place_in_time)
        return found

    def touches(self, change: Mapping[str, Any]) -> bool:
        """Whether a change may be one of encoded text."""
        return any(name in change or name.partition(".")[0] in change for name in self.model.text_fields)

    def _texts(self, document: Mapping[str, Any]) -> list[Any]:
        return [document.get(name, document.get(name.partition(".")[0])) for name in self.model.text_fields]

    def _stored(self, wanted: Sequence[PartialUpdate]) -> dict[str, dict[str, Any]]:
        docs = [{"_id": one.id} | ({"routing": one.routing} if one.routing else {}) for one in wanted]
        return self.engine.get_documents(self.index, {"docs": docs}, {"_source_excludes": ",".join(self.own_fields)})
