"""What the adapters share: a search, as texts with what is known of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.engines import Engine
from bridge.explain import known_text
from bridge.rewrite import QueryRewriter, Text
from bridge.search import search


@dataclass(frozen=True, slots=True)
class Found:
    """A text that was found: a document's, or with passages one of its passages'.

    Attributes:
        id: the document's.
        text: what was encoded; of an index whose text fields are not known, all its strings.
        fields: the document's other fields.
        score: as the engine gives it, or as it was fused.
        place: of a passage, the offsets of its first character and past its last in the document's text.
    """

    id: str
    text: str
    fields: dict[str, Any]
    score: float
    place: tuple[int, int] | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """The other fields, with ``_id``, and of a passage ``_start`` and ``_end``."""
        where = {"_start": self.place[0], "_end": self.place[1]} if self.place else {}
        return self.fields | {"_id": self.id} | where


def found(
    engine: Engine,
    index: str,
    rewriter: QueryRewriter,
    text: Text,
    *,
    size: int,
    filter: Mapping[str, Any] | None = None,  # noqa: A002
    passages: int = 0,
) -> Iterator[Found]:
    """The best hits, best first; with `passages` so many of each hit's instead of it, where it has some.

    Raises:
        UsageError, EngineError: see `bridge.search.search`.
    """
    result = search(engine, index, rewriter, text, size=size, filter=filter, matches=False, passages=passages)
    for hit in result.hits:
        names = rewriter.text_fields or tuple(name for name, value in hit.source.items() if isinstance(value, str))
        others = {name: value for name, value in hit.source.items() if name not in names}
        whole = known_text(hit.source, names) or ""
        pieces = [one for one in hit.passages if one.text is not None and one.start is not None]
        for piece in pieces:
            yield Found(hit.id, piece.text or "", others, piece.score, (piece.start or 0, piece.end or 0))
        if not pieces:
            yield Found(hit.id, whole, others, hit.score)
