"""Ask an index, and show which tokens made each score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from bridge.dialects.passages import INNER_HITS
from bridge.engines import Engine
from bridge.explain import from_engine, known_text
from bridge.hybrid import Asked, fuse
from bridge.records import EncodedQuery, Hit, PassageHit, TokenScore
from bridge.rewrite import Explain, QueryRewriter, Text
from bridge.targets import Target
from bridge.tokens import by_ids, document_weights


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first; `body` is what was asked, `took` the engine's own milliseconds.

    Where the parts of a hybrid search were fused here, `body` holds the search of each under ``parts``.
    """

    query: EncodedQuery
    body: Mapping[str, Any]
    hits: tuple[Hit, ...]
    took: int


def search(
    engine: Engine,
    index: str,
    rewriter: QueryRewriter,
    text: Text,
    *,
    size: int = 10,
    start: int = 0,
    min_score: float | None = None,
    filter: Mapping[str, Any] | None = None,  # noqa: A002
    matches: bool = True,
    fields: bool = True,
    passages: int = 0,
    collapse: str | None = None,
    rewritten: str | None = None,
    explained_by: Explain | None = None,
) -> SearchResult:
    """Rewrite `text`, run it, and (with `matches`) read the stored vectors of the hits to explain them.

    Args:
        size: hits wanted.
        start: how many of the best hits to pass over.
        min_score: hits below it are left out.
        filter: a query clause that hits must match.
        matches: fill each hit's `matches`. Where documents keep passages, those are of the best one, which comes
            along.
        fields: fill each hit's `source`.
        explained_by: what `matches` are read off: the stored ``vectors``, which cost their transfer, or the
            ``engine``'s own explanation, which costs it time and needs no stored vectors. By default the engine where
            the cluster encodes the query, else the vectors.
        passages, collapse, rewritten: see `QueryRewriter.rewrite`; passages fill each hit's `passages`, with their
            text where `fields` are read and the text fields known.

    Raises:
        UsageError: see `QueryRewriter.rewrite`.
        EngineError: as the engine answers.
    """
    encoded = rewriter.beside(rewriter.encode(text, rewritten=rewritten), filter)
    explain: Explain | None = (explained_by or ("vectors" if rewriter.encoder else "engine")) if matches else None
    if explain and rewriter.nested_path:
        passages = passages or 1
    if hybrid := rewriter.hybrid:
        rewriter.check_hybrid(min_score=min_score, collapse=collapse)
        page: dict[str, Any] = {"size": size, "start": start, "filter": filter}
        ranked, body, took = _ranked(engine, index, rewriter, hybrid, encoded, page)
        explain = explain if "sparse" in hybrid.how.names else None
        best = [Hit(name, score, {}) for name, score in ranked]
        if ranked and (fields or explain):
            shown = {"passages": passages, "explain": explain}
            best, more = _shown(engine, index, replace(rewriter, hybrid=None), encoded, ranked, shown)
            took += more
        return SearchResult(encoded, body, tuple(best), took)
    how: dict[str, Any] = {
        "size": size, "start": start, "min_score": min_score, "filter": filter, "passages": passages,
        "collapse": collapse,
    }  # fmt: skip
    asked = rewriter.body(encoded, explain=explain, **how)
    if not fields:
        # Whether vectors may come at all is said here for the passages, too.
        vectors = [target.path for target in rewriter.targets if not target.nested_path]
        nothing = asked["_source"] | {"excludes": ["*"]} if explain else False
        asked["_source"] = vectors if explain == "vectors" and vectors else nothing
    answer = engine.search(index, asked)
    asking = Asking(encoded, rewriter)
    hits = tuple(_hit(found, asking) for found in answer["hits"]["hits"])
    return SearchResult(encoded, rewriter.body(encoded, **how), hits, int(answer.get("took", 0)))


def _ranked(
    engine: Engine, index: str, rewriter: QueryRewriter, hybrid: Asked, encoded: EncodedQuery, page: dict[str, Any]
) -> tuple[list[tuple[str, float]], dict[str, Any], int]:
    """The page's ids and scores, what was asked, and the engine's milliseconds."""
    if hybrid.by_engine:
        body = rewriter.body(encoded, **page)
        answer = engine.search(index, body | {"_source": False})
        return _ranking(answer), body, int(answer.get("took", 0))
    parts = rewriter.parts(encoded, **page)
    answers = engine.msearch(index, parts)
    start, end = page["start"], page["start"] + page["size"]
    took = max((int(answer.get("took", 0)) for answer in answers), default=0)
    return fuse(list(map(_ranking, answers)), hybrid.how)[start:end], {"parts": parts}, took


def _shown(
    engine: Engine,
    index: str,
    rewriter: QueryRewriter,
    encoded: EncodedQuery,
    ranked: list[tuple[str, float]],
    how: dict[str, Any],
) -> tuple[list[Hit], int]:
    """The hits of a ranking with their documents, asked for in one request more, and its milliseconds."""
    ids = {"ids": {"values": [name for name, _ in ranked]}}
    body = rewriter.body(encoded, size=len(ranked), filter=ids, **how)
    # Also those that no sparse field has found.
    body["query"]["bool"]["minimum_should_match"] = 0
    answer = engine.search(index, body)
    asking = Asking(encoded, rewriter)
    found = {one["_id"]: _hit(one, asking) for one in answer["hits"]["hits"]}
    hits = [structs.replace(found[name], score=score) for name, score in ranked if name in found]
    return hits if how["explain"] else [structs.replace(hit, matches=()) for hit in hits], int(answer.get("took", 0))


def _ranking(answer: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(hit["_id"], float(hit["_score"] or 0.0)) for hit in answer["hits"]["hits"]]


class Asking:
    """A query's weights, to tell what each token made of a score: by the engine's explanation, or by stored vectors."""

    def __init__(self, encoded: EncodedQuery, rewriter: QueryRewriter) -> None:
        self.rewriter = rewriter
        vector = encoded.sparse
        self._names: tuple[str, ...] = vector.tokens if vector else ()
        self._ids = list(map(str, vector.ids.tolist())) if vector else []
        self._weights: list[float] = vector.weights.tolist() if vector else []

    def scores(
        self, found: Mapping[str, Any], held: Iterable[tuple[Target, Mapping[str, Any] | None]]
    ) -> tuple[TokenScore, ...]:
        """The tokens of a hit, or of an inner hit: as the engine explains it, else as `matches` has it."""
        if explanation := found.get("_explanation"):
            return from_engine(explanation, dict(zip(self._names, self._weights, strict=True)))
        return self.matches(held)

    def matches(self, held: Iterable[tuple[Target, Mapping[str, Any] | None]]) -> tuple[TokenScore, ...]:
        """The tokens that the stored values of these fields share with the query, the heaviest part first.

        A token's document weight is the sum of what the fields hold, each with its boost.
        """
        found: dict[str, float] = {}
        for target, value in held:
            stored = document_weights(value or {}, target.kind, self.rewriter.engine)
            keys = self._ids if by_ids(target.kind, self.rewriter.engine) else self._names
            for key, name in zip(keys, self._names, strict=True):
                if key in stored:
                    found[name] = found.get(name, 0.0) + target.boost * stored[key]
        pairs = zip(self._names, self._weights, strict=True)
        scores = [TokenScore(name, weight, found[name]) for name, weight in pairs if name in found]
        return tuple(sorted(scores, key=lambda score: -score.contribution))

    def in_document(self, source: dict[str, Any], apart: Mapping[str, Any]) -> list[tuple[Target, Any]]:
        """The vector fields of a document, taken out of its `source`, or from the `fields` that came `apart`."""
        own = [target for target in self.rewriter.targets if not target.nested_path]
        return [(target, taken(source, target.path) or (apart.get(target.path) or [None])[0]) for target in own]

    def in_passage(self, source: Mapping[str, Any]) -> list[tuple[Target, Any]]:
        """The vector fields of one of the passages that `rewriter` shows."""
        path = self.rewriter.nested_path
        return [(target, source.get(target.name)) for target in self.rewriter.targets if target.nested_path == path]


def taken(source: dict[str, Any], path: str) -> Any:
    """The value at `path`, taken out of `source`; None where there is none."""
    if path in source:
        return source.pop(path)
    head, _, rest = path.partition(".")
    inner = source.get(head)
    return taken(inner, rest) if rest and isinstance(inner, dict) else None


def _hit(found: Mapping[str, Any], asking: Asking) -> Hit:
    inner = found.get("inner_hits", {}).get(INNER_HITS, {}).get("hits", {}).get("hits", [])
    source, rewriter = dict(found.get("_source") or {}), asking.rewriter
    held = asking.in_document(source, {})
    if rewriter.nested_path:
        text = known_text(source, rewriter.text_fields)
        passages = tuple(_passage(one, text, asking) for one in inner)
        if inner:
            held += asking.in_passage(inner[0].get("_source") or {})
    else:
        passages = tuple(_document(one, asking) for one in inner)
    return Hit(found["_id"], float(found["_score"] or 0.0), source, asking.scores(found, held), passages)


def _passage(found: Mapping[str, Any], text: str | None, asking: Asking) -> PassageHit:
    """A passage inside of a document, whose encoded text is `text`."""
    source = found.get("_source") or {}
    start, end = source.get("start"), source.get("end")
    piece = None if text is None or start is None or end is None else text[start:end]
    return PassageHit(
        float(found["_score"] or 0.0), piece, start, end, matches=asking.scores(found, asking.in_passage(source))
    )


def _document(found: Mapping[str, Any], asking: Asking) -> PassageHit:
    """A passage that is a document of its own."""
    source = dict(found.get("_source") or {})
    matches = asking.scores(found, asking.in_document(source, found.get("fields") or {}))
    score = float(found["_score"] or 0.0)
    return PassageHit(score, known_text(source, asking.rewriter.text_fields), id=found["_id"], matches=matches)


def sample_vectors(engine: Engine, index: str, rewriter: QueryRewriter, size: int = 1000) -> Iterator[dict[str, float]]:
    """The stored vectors of up to `size` documents, drawn at random with a fixed seed: token (or id) ─▶ weight.

    Where documents keep passages, each passage's.
    """
    drawn = {"query": {"match_all": {}}, "random_score": {"seed": 20_240_229, "field": "_seq_no"}}
    step = 200
    for start in range(0, size, step):
        body = {
            "size": min(step, size - start),
            "from": start,
            "query": {"function_score": drawn},
            "_source": [rewriter.field],
        }
        found = engine.search(index, body)["hits"]["hits"]
        for hit in found:
            for value in _stored(hit.get("_source") or {}, rewriter):
                yield document_weights(value, rewriter.kind, rewriter.engine)
        if len(found) < step:
            return


def _stored(source: Mapping[str, Any], rewriter: QueryRewriter) -> list[Mapping[str, Any]]:
    """The values of the vector field; one even where there is none."""
    first = rewriter.targets[0]
    if not first.nested_path:
        return [taken(dict(source), first.path) or {}]
    kept = source.get(first.nested_path) or []
    return [one.get(first.name) or {} for one in ([kept] if isinstance(kept, dict) else kept)]
