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
_SINGLE = {"function_score": "query", "script_score": "query", "boosting": "positive"}


def rewritten(query: Any, fields: Collection[str], vector: str, ask: Ask) -> Any:
    """`query` with its questions to the text `fields`, and to the field `vector`, asked of vectors; else as it is.

    A `match` that says more than a question and a boost (an operator, fuzziness) means words, and stays.
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
        return _asked(query, said, None, ask)
    if isinstance(said, dict) and set(said) <= {"query", "boost"} and isinstance(said.get("query"), str):
        return _asked(query, said["query"], said.get("boost"), ask)
    return query


def _multi_match(query: Query, how: Mapping[str, Any], fields: Collection[str], ask: Ask) -> Query:
    named = how.get("fields")
    named = [named] if isinstance(named, str) else named
    plain = set(how) <= {"query", "fields", "type", "boost"} and how.get("type") in (
        None, "best_fields", "most_fields", "cross_fields",
    )  # fmt: skip
    if not plain or not isinstance(how.get("query"), str) or not isinstance(named, list) or not named:
        return query
    if not all(isinstance(one, str) and one.partition("^")[0] in fields for one in named):
        return query
    return _asked(query, how["query"], how.get("boost"), ask)


def _neural(query: Query, how: Mapping[str, Any], vector: str, ask: Ask) -> Query:
    said = how.get(vector)
    if len(how) != 1 or not isinstance(said, dict) or not isinstance(said.get("query_text"), str):
        return query
    if set(said) - {"query_text", "boost"}:
        # A model or an analyzer is named: the cluster is to encode.
        return query
    return _asked(query, said["query_text"], said.get("boost"), ask)


def _asked(query: Query, text: str, boost: Any, ask: Ask) -> Query:
    if not text.strip() or not isinstance(boost, int | float | None) or isinstance(boost, bool):
        return query
    found = ask(text)
    return found if boost is None else {"bool": {"must": [found], "boost": boost}}
