"""BM25 alone: what the words of an index's text fields find, to compare its vectors with."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from bridge.dialects.hybrid import words as _words
from bridge.engines import Engine
from bridge.engines.base import encode, path_part
from bridge.errors import DocumentError
from bridge.explain import Explained, known_text, marks
from bridge.offsets import Span
from bridge.records import EncodedQuery, Hit, TokenScore
from bridge.rewrite import QueryRewriter, Text
from bridge.search import SearchResult
from bridge.sources import text_of
from bridge.sources.fields import reach

# As Lucene names what BM25 has scored: weight(FIELD:TERM in DOCUMENT) [SIMILARITY], …
_WEIGHT = re.compile(r"weight\((.+) in \d+\) \[\w+\], .*", re.DOTALL)
_FIELD = re.compile(r"(?:^|(?<=[ (]))[^\s:()]+:")


def baseline_body(
    rewriter: QueryRewriter,
    text: Text,
    *,
    size: int = 10,
    start: int = 0,
    min_score: float | None = None,
    filter: Mapping[str, Any] | None = None,  # noqa: A002
    rewritten: str | None = None,
) -> dict[str, Any]:
    """The search body that asks the text fields of `rewriter` alone; arguments as for `QueryRewriter.rewrite`.

    Raises:
        UsageError: there is no question, or the page is out of range.
    """
    words = rewriter.words(text, rewritten=rewritten)
    body = replace(rewriter, hybrid=None).body(EncodedQuery(words), size=size, start=start, min_score=min_score)
    return body | _words(words, rewriter.text_fields, filter)


def baseline(
    engine: Engine, index: str, rewriter: QueryRewriter, text: Text, *, explain: bool = False, **how: Any
) -> tuple[SearchResult, list[Explained]]:
    """Ask an index so; a hit's `matches` are the terms that made its score, as the engine explains it.

    Args:
        explain: say of each hit, in the second list, where its text has those terms, as the engine analyses it.
        how: as for `baseline_body`.

    Raises:
        UsageError: see `baseline_body`.
        EngineError: as the engine answers.
    """
    body = baseline_body(rewriter, text, **how)
    answer = engine.search(index, body | {"explain": True})
    found = answer["hits"]["hits"]
    hits = tuple(map(_hit, found))
    query = EncodedQuery(rewriter.words(text, rewritten=how.get("rewritten")))
    explained = _explained(engine, index, rewriter.text_fields, found, hits) if explain and hits else []
    return SearchResult(query, body, hits, int(answer.get("took", 0))), explained


def _explained(
    engine: Engine, index: str, fields: Sequence[str], found: Sequence[Mapping[str, Any]], hits: Sequence[Hit]
) -> list[Explained]:
    wanted = [
        {"_id": one["_id"], "fields": list(fields)} | ({"routing": one["_routing"]} if "_routing" in one else {})
        for one in found
    ]
    how = {"offsets": True, "positions": False, "payloads": False, "field_statistics": False}
    body = encode({"docs": [one | how for one in wanted]})
    # As of the last refresh: the documents that the search has seen.
    docs = engine.request("POST", f"/{path_part(index)}/_mtermvectors", params={"realtime": "false"}, body=body)["docs"]
    explained = []
    for hit, held in zip(hits, docs, strict=True):
        spans = _spans(hit.source, fields, held.get("term_vectors", {}))
        text = known_text(hit.source, fields)
        explained.append(Explained(hit.score, tuple(hit.matches), text, marks(spans, hit.matches)))
    return explained


def _spans(source: Mapping[str, Any], fields: Sequence[str], held: Mapping[str, Any]) -> Iterator[Span]:
    """Where terms stand in the text that `fields` make together: one after the other, with a line's end between."""
    begin = 0
    for field in fields:
        try:
            text = text_of(source, [field])
        except DocumentError:
            continue
        place = _places(text)
        for term, where in held.get(field, {}).get("terms", {}).items():
            for one in () if _has_blanks(source, field) else where.get("tokens", ()):
                yield Span(term, begin + place(one["start_offset"]), begin + place(one["end_offset"]))
        begin += len(text) + 1


def _has_blanks(source: Mapping[str, Any], field: str) -> bool:
    """Whether some of several values are blank: the engine counts them, and the text is without."""
    values = (one for value in reach(source, field) for one in (value if isinstance(value, list) else [value]))
    return any(isinstance(one, str) and not one.strip() for one in values)


def _places(text: str) -> Callable[[int], int]:
    """The engines' offsets, in UTF-16, as places in `text`."""
    if text.isascii() or max(text) <= "\uffff":
        return lambda offset: offset
    starts = [0, *accumulate(1 + (character > "\uffff") for character in text)]
    return lambda offset: bisect_left(starts, offset)


def _hit(found: Mapping[str, Any]) -> Hit:
    terms = _terms(found.get("_explanation") or {})
    return Hit(found["_id"], float(found["_score"] or 0.0), dict(found.get("_source") or {}), terms)


def _terms(explanation: Mapping[str, Any]) -> tuple[TokenScore, ...]:
    """Each term with what all fields together give for it, heaviest first."""
    made: dict[str, float] = {}
    rarity: dict[str, float] = {}
    left = [explanation]
    while left:
        node = left.pop()
        value = float(node.get("value", 0.0))
        found = _WEIGHT.fullmatch(str(node.get("description")))
        if value and found:
            term = _FIELD.sub("", found[1])
            made[term] = made.get(term, 0.0) + value
            rarity.setdefault(term, _rarity(node) or 1.0)
        elif value:
            # What counts nothing is a filter's.
            left += node.get("details") or []
    scores = [TokenScore(term, rarity[term], value / rarity[term]) for term, value in made.items()]
    return tuple(sorted(scores, key=lambda score: -score.contribution))


def _rarity(node: Mapping[str, Any]) -> float:
    """What a term is worth before the document is looked at: its inverse document frequency."""
    left = [node]
    while left:
        one = left.pop()
        if str(one.get("description")).startswith("idf"):
            return float(one["value"])
        left += one.get("details") or []
    return 0.0
