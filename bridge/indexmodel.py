"""What an index says of itself: the mapping's `_meta.bridge`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from bridge.encode.base import Encoder
from bridge.engines import Engine, IndexState
from bridge.errors import ModelMismatch, UsageError
from bridge.prepare import Passages, Preparation
from bridge.prune import parse_pruning
from bridge.records import HASH_FIELD
from bridge.tokens import Kind

META_FORMAT = 1


Hashes = Callable[[Sequence[str]], Mapping[str, str | None]]
"""Ids ─▶ the stored content hash of those that exist."""


def content_hashes(engine: Engine, state: IndexState) -> Hashes:
    """What tells the content hashes of an index's documents, the way that is fast there."""
    properties = state.mappings.get("properties") or {}
    if (properties.get(HASH_FIELD) or {}).get("store"):
        return lambda ids: engine.get_stored(state.name, ids, HASH_FIELD)

    def of_sources(ids: Sequence[str]) -> dict[str, str | None]:
        found = engine.get_sources(state.name, ids, [HASH_FIELD])
        return {name: fields.get(HASH_FIELD) for name, fields in found.items()}

    return of_sources


def attached_name(index: str) -> str:
    """What `bridge attach` calls all that it puts for an index; its ingest pipeline among it."""
    return f"bridge-{index}"


def encodes_itself(state: IndexState) -> bool:
    """Whether the index's own pipeline gives documents their vectors, so that those which have some go round it."""
    return state.settings.get("index.default_pipeline") == attached_name(state.name)


@dataclass(frozen=True, slots=True)
class IndexModel:
    """What an index says of itself in `_meta.bridge`: which vectors it holds, and who may ask it."""

    space: str
    document_encoder: str | None
    query_encoders: tuple[str, ...]
    kind: Kind
    field: str
    text_fields: tuple[str, ...]
    dense_field: str | None = None
    dense_encoder: str | None = None
    passages: Passages = "whole"
    """Whether `field` holds a vector of the whole text, the maximum of its passages', or stands in each of them."""
    passage_field: str | None = None
    """The nested field that holds the passages, `field` among its own; None where nothing is nested."""
    passage_tokens: int | None = None
    passage_overlap: int = 0
    pruning: str | None = None
    """As `bridge.prune.parse_pruning` reads it."""
    salt: str | None = None
    """Part of every content hash: what another index's writers bring here by mistake is not taken for its own."""

    @property
    def path(self) -> str:
        """The vector field's full path: ``embedding``, or ``passages.embedding`` where passages are nested."""
        return f"{self.passage_field}.{self.field}" if self.passage_field else self.field

    @property
    def own_fields(self) -> tuple[str, ...]:
        """What the bridge keeps in a document, and its writer did not put there."""
        dense = (self.dense_field,) if self.dense_field and self.dense_encoder else ()
        return (self.passage_field or self.field, *dense, HASH_FIELD)

    @property
    def preparation(self) -> Preparation:
        """How texts become the vectors of this index."""
        pruning = parse_pruning(self.pruning) if self.pruning else None
        return Preparation(self.passages, self.passage_tokens, self.passage_overlap, pruning)

    @classmethod
    def of(cls, state: IndexState) -> IndexModel | None:
        """None for an index that the bridge did not make.

        Raises:
            ModelMismatch: the entry is of a form that this release does not know.
        """
        if not state.meta:
            return None
        if state.meta.get("format") != META_FORMAT:
            raise ModelMismatch(
                f"index {state.name} was registered by another release of the bridge "
                f"(format {state.meta.get('format')}, this one knows {META_FORMAT})"
            )
        # What is None is not written; an index that no document model was named for has no such entry.
        known = {"document_encoder": None} | {key: value for key, value in state.meta.items() if key != "format"}
        try:
            found = msgspec.convert(known, cls)
            _ = found.preparation
        except (msgspec.ValidationError, UsageError) as error:
            raise ModelMismatch(f"index {state.name} has an unreadable _meta.bridge: {error}") from error
        return found

    def as_meta(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        plain = {"passages": "whole", "passage_overlap": 0}
        left = {key: value for key, value in found.items() if value is not None and plain.get(key) != value}
        return {"format": META_FORMAT, **left}

    def check_query_encoder(self, encoder: Encoder, index: str) -> None:
        """Raises ModelMismatch unless the index lists `encoder`, in the same space."""
        if encoder.space != self.space or encoder.query_fingerprint not in self.query_encoders:
            raise ModelMismatch(
                f"index {index} holds vectors of {self.document_encoder or self.space} and is asked by "
                f"{', '.join(self.query_encoders)}; the model {encoder.name} is {encoder.query_fingerprint}. "
                "Use the index's own model (leave --model out), or ingest into a new index"
            )

    def check_document_encoder(self, encoder: Encoder, index: str) -> None:
        """Raises ModelMismatch unless the index holds vectors of `encoder`."""
        if encoder.fingerprint != self.document_encoder:
            raise ModelMismatch(
                f"index {index} holds vectors of {self.document_encoder or self.space}; the model {encoder.name} "
                f"is {encoder.fingerprint}, and mixed vectors cannot be compared. Use the index's own model "
                "(leave --model out), or ingest into a new index"
            )
