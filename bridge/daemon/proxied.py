"""What the proxy makes of plain queries. Pure functions: bodies in, bodies out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

Query = dict[str, Any]
Ask = Callable[[str], Query]
"""A question ─▶ the clause that asks for it."""

_SCORING = ("must", "should")
"""Of a `bool`. What stands under `filter` and `must_not` says which documents may come, and goes on meaning words."""

_LISTS = {"dis_max": "queries"}
_BESIDE = {"hybrid": "queries"}
"""A `match` in these is meant to find words, beside what finds by vectors."""
_SINGLE = {"function_score": "query", "script_score": "query", "boosting": "positive"}

_DEFAULTS: dict[str, Any] = {
    "operator": "or", "slop": 0, "prefix_length": 0, "max_expansions": 50, "fuzzy_transpositions": True,
    "lenient": False, "zero_terms_query": "none", "auto_generate_synonyms_phrase_query": True,
}  # fmt: skip
"""What says nothing: Java's clients write out all of it."""


def rewritten(query: Any, fields: Collection[str], vector: str, ask: Ask) -> Any:
    """`query` with its questions to the text `fields`, and to the field `vector`, asked of vectors; else as it is.

    A `match` that says more than a question, a boost and a name (an operator, fuzziness) means words, and stays.
    """
    if not isinstance(query, dict) or len(query) != 1:
        return query
    ((kind, how),) = query.items()
    if not isinstance(how, dict):
        return query
    if kind == "match":
        return _match(query, how, fields, ask)
    if kind == "multi_match":
        return _multi_match(query, how, fields, ask)
    if kind == "neural_sparse":
        return _neural(query, how, vector, ask)
    if kind == "bool":
        return {kind: {name: _each(value, fields, vector, ask) if name in _SCORING else value
                       for name, value in how.items()}}  # fmt: skip
    if (name := _LISTS.get(kind)) and name in how:
        return {kind: how | {name: _each(how[name], fields, vector, ask)}}
    if (name := _BESIDE.get(kind)) and name in how:
        return {kind: how | {name: _each(how[name], (), vector, ask)}}
    if (name := _SINGLE.get(kind)) and name in how:
        return {kind: how | {name: rewritten(how[name], fields, vector, ask)}}
    return query


def _each(value: Any, fields: Collection[str], vector: str, ask: Ask) -> Any:
    if isinstance(value, list):
        return [rewritten(one, fields, vector, ask) for one in value]
    return rewritten(value, fields, vector, ask)


def _match(query: Query, how: Mapping[str, Any], fields: Collection[str], ask: Ask) -> Query:
    if len(how) != 1:
        return query
    ((field, said),) = how.items()
    if field not in fields:
        return query
    if isinstance(said, str):
        return _asked(query, {"query": said}, ask)
    return _asked(query, said, ask) if isinstance(said, dict) else query


def _multi_match(query: Query, how: Mapping[str, Any], fields: Collection[str], ask: Ask) -> Query:
    named = how.get("fields")
    named = [named] if isinstance(named, str) else named
    if how.get("type") not in (None, "best_fields", "most_fields", "cross_fields"):
        return query
    if (
        not isinstance(named, list)
        or not named
        or not all(isinstance(one, str) and one.partition("^")[0] in fields for one in named)
    ):
        return query
    return _asked(query, {key: value for key, value in how.items() if key not in ("fields", "type")}, ask)


def _neural(query: Query, how: Mapping[str, Any], vector: str, ask: Ask) -> Query:
    said = how.get(vector)
    if len(how) != 1 or not isinstance(said, dict) or set(said) - {"query_text", "boost", "_name"}:
        # A model or an analyzer is named: the cluster is to encode.
        return query
    return _asked(query, {"query": said.get("query_text")} | {k: v for k, v in said.items() if k != "query_text"}, ask)


def _asked(query: Query, said: Mapping[str, Any], ask: Ask) -> Query:
    """What is said as a question, where it is nothing but one."""
    text, boost, name = said.get("query"), said.get("boost", 1.0), said.get("_name")
    more = {key: value for key, value in said.items() if key not in ("query", "boost", "_name")}
    if any(key not in _DEFAULTS or _lower(value) != _DEFAULTS[key] for key, value in more.items()):
        return query
    if not isinstance(text, str) or not text.strip():
        return query
    if not isinstance(boost, int | float) or isinstance(boost, bool) or not isinstance(name, str | None):
        return query
    around: Query = ({} if boost == 1 else {"boost": boost}) | ({} if name is None else {"_name": name})
    found = ask(text)
    return {"bool": {"must": [found], **around}} if around else found


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value
