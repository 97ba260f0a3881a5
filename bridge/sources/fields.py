"""A document's fields by their names: dotted paths through objects, and through lists of objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bridge.errors import DocumentError


def reach(node: Any, path: str) -> Iterator[Any]:
    """The values at `path` in `node`; several where the path leads through a list, none where it leads nowhere."""
    if isinstance(node, list | tuple):
        for member in node:
            yield from reach(member, path)
    elif isinstance(node, Mapping):
        head, tail = _step(node, path)
        if head in node:
            yield from reach(node[head], tail) if tail else (node[head],)


def _step(node: Mapping[str, Any], path: str) -> tuple[str, str]:
    """The name in `node` that `path` begins with, and what is left of the path."""
    # A field's own name may hold dots, as engines allow: the longest name that is there wins.
    head, tail = path, ""
    while head not in node and "." in head:
        head, _, step = head.rpartition(".")
        tail = f"{step}.{tail}" if tail else step
    return head, tail


def strings(name: str, value: Any) -> Iterator[str]:
    """The texts of a field's value: lists member by member, numbers and booleans as in JSON, nothing that is blank.

    Raises:
        DocumentError: the value of the field, which is called `name`, is an object.
    """
    match value:
        case str():
            if value and not value.isspace():
                yield value
        case None:
            return
        case bool():
            yield "true" if value else "false"
        case Mapping():
            raise DocumentError(f"the text field {name} is an object; name a field in it, as {name}.x")
        case list() | tuple():
            for member in value:
                yield from strings(name, member)
        case _:
            yield str(value)


def put(fields: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`fields` with `value` at `path`; objects on the way are made where they are missing, and none is changed.

    Raises:
        DocumentError: something on the way is there and is no object.
    """
    head, tail = _step(fields, path)
    if head not in fields:
        # Nothing of it is there: nested objects, as a path means them.
        head, _, tail = path.partition(".")
    if not tail:
        return {**fields, head: value}
    inner = fields.get(head)
    if inner is None:
        inner = {}
    elif not isinstance(inner, Mapping):
        raise DocumentError(f"field {path} cannot be set: {head} is {kind(inner)}, not an object")
    return {**fields, head: put(inner, tail, value)}


def without(node: Any, path: str) -> Any:
    """`node` without what is at `path`; nothing is changed in place."""
    if isinstance(node, list | tuple):
        return [without(member, path) for member in node]
    if not isinstance(node, Mapping):
        return node
    head, tail = _step(node, path)
    if head not in node:
        return node
    if tail:
        return {**node, head: without(node[head], tail)}
    return {name: value for name, value in node.items() if name != head}


def kind(value: object) -> str:
    """The JSON word for `value`, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case _:
            return "an array"
