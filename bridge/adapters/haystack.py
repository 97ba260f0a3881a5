"""An index as a Haystack 2 component.

>>> pipeline.add_component("retriever", BridgeRetriever("articles", top_k=5))       # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

from bridge.adapters.found import Found, found
from bridge.engines import Engine, open_engine
from bridge.errors import MissingExtra, UsageError
from bridge.rewrite import QueryRewriter
from bridge.settings import load_settings

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError:
    raise MissingExtra("the Haystack component", "haystack") from None


@component
class BridgeRetriever:
    """The best documents of an index, or the best passages of its documents.

    A document's text is its `content`; `meta` holds its other fields, ``_id``, and of a passage ``_start`` and
    ``_end``. It connects, and loads the query's model, when it is warmed up or first run. Credentials come from the
    environment or the settings file, and are not part of a saved pipeline.

    Args:
        index: its name, or an alias.
        url: the engine; by default that of the environment or the settings file.
        top_k: hits wanted.
        filters: which documents, in Haystack's form; see `as_clause`.
        passages: how many passages of each hit are documents of their own, instead of the whole; for indices that
            hold them.
        options: those of `QueryRewriter.for_index`, as plain values: ``model``, ``fields``, ``dialect``, ``hybrid``
            (like ``"bm25,dense"``), ``dense``, ``device`` and the rest.
    """

    def __init__(
        self,
        index: str,
        *,
        url: str | None = None,
        top_k: int = 10,
        filters: dict[str, Any] | None = None,
        passages: int = 0,
        options: dict[str, Any] | None = None,
    ) -> None:
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}; it is one or more")
        self.index, self.url, self.top_k = index, url, top_k
        self.filters, self.passages, self.options = filters, passages, dict(options or {})
        self._ready: tuple[Engine, QueryRewriter] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a saved pipeline holds of it."""
        plain = {name: getattr(self, name) for name in ("index", "url", "top_k", "filters", "passages", "options")}
        found: dict[str, Any] = default_to_dict(self, **plain)
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BridgeRetriever:
        """The component of a saved pipeline."""
        found: BridgeRetriever = default_from_dict(cls, data)
        return found

    def warm_up(self) -> None:
        """Connect, and load the query's model.

        Raises:
            UsageError, EngineError, ModelMismatch: see `QueryRewriter.for_index`.
        """
        if self._ready is None:
            engine = open_engine(settings=load_settings(url=self.url).engine)
            try:
                self._ready = engine, QueryRewriter.for_index(engine, self.index, **self.options)
            except BaseException:
                engine.close()
                raise

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None) -> dict[str, Any]:
        """The documents of a question, best first; `top_k` and `filters` count for this call alone.

        Raises:
            UsageError, EngineError: see `bridge.search.search`, and `as_clause`.
        """
        self.warm_up()
        assert self._ready is not None  # noqa: S101
        engine, rewriter = self._ready
        chosen = self.filters if filters is None else filters
        hits = found(
            engine, self.index, rewriter, query,
            size=self.top_k if top_k is None else top_k,
            filter=as_clause(chosen) if chosen else None,
            passages=self.passages,
        )  # fmt: skip
        return {"documents": list(map(_document, hits))}


def _document(hit: Found) -> Document:
    # Haystack takes documents of one id for one.
    name = f"{hit.id}:{hit.place[0]}" if hit.place else hit.id
    return Document(id=name, content=hit.text, meta=hit.metadata, score=hit.score)


_RANGES = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def as_clause(filters: dict[str, Any]) -> dict[str, Any]:
    """Haystack's filters as a query clause.

    ``{"field": "meta.lang", "operator": "==", "value": "en"}``, or several ``conditions`` under the operator ``AND``,
    ``OR`` or ``NOT`` (not all of them). ``meta.`` may be left out. A text is compared as a keyword field has it.

    Raises:
        UsageError: no such operator, or a part of it is missing.
    """
    operator = filters.get("operator")
    if "conditions" in filters:
        clauses = [as_clause(one) for one in filters["conditions"]]
        if operator == "AND":
            return {"bool": {"filter": clauses}}
        if operator == "OR":
            return {"bool": {"should": clauses, "minimum_should_match": 1}}
        if operator == "NOT":
            return {"bool": {"must_not": [{"bool": {"filter": clauses}}]}}
        raise UsageError(f"the operator {operator!r} of conditions is none of AND, OR, NOT")
    if not {"field", "operator", "value"} <= set(filters):
        raise UsageError(f"a filter has field, operator and value, or operator and conditions; this one: {filters!r}")
    field, value = str(filters["field"]).removeprefix("meta."), filters["value"]
    if operator in _RANGES:
        return {"range": {field: {_RANGES[operator]: value}}}
    listed = list(value) if isinstance(value, list | tuple | set) else None
    if operator in ("in", "not in") and listed is not None:
        clause: dict[str, Any] = {"terms": {field: listed}}
    elif operator in ("==", "!=") and listed is None:
        clause = {"exists": {"field": field}} if value is None else {"term": {field: value}}
        if value is None:
            operator = "!=" if operator == "==" else "=="
    else:
        raise UsageError(
            f"the operator {operator!r} does not take {value!r}; known are ==, !=, >, >=, <, <=, in, not in"
        )
    return clause if operator in ("==", "in") else {"bool": {"must_not": [clause]}}
