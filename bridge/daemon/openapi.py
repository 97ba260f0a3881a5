"""The description of the interface (OpenAPI 3.1), made from the table of operations and their messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from bridge.daemon.endpoint import JSON, NDJSON, PROBLEM, Operation
from bridge.daemon.messages import Problem

_REF = "#/components/schemas/{name}"


def describe(operations: Iterable[Operation], version: str, *, keys: bool) -> dict[str, Any]:
    """The whole document; `keys` is whether API keys are asked for."""
    listed = list(operations)
    messages = [one for operation in listed for one in (operation.takes, operation.gives) if one]
    unique = list(dict.fromkeys([*messages, Problem]))
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REF)
    refs = dict(zip(unique, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in listed:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, refs, keys=keys)
    schemes = {"key": {"type": "http", "scheme": "bearer"}, "header": {"type": "apiKey", "in": "header",
               "name": "X-API-Key"}}  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Neural Sparse Bridge",
            "version": version,
            "description": "Learned-sparse search on OpenSearch and Elasticsearch.",
        },
        "paths": paths,
        "components": {"schemas": components} | ({"securitySchemes": schemes} if keys else {}),
    }


def _operation(operation: Operation, refs: dict[Any, Any], *, keys: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": operation.name, "summary": operation.says}
    if operation.parameters:
        found["parameters"] = [
            {"name": one.name, "in": one.place, "description": one.says, "schema": dict(one.schema)}
            | ({"required": True} if one.place == "path" else {})
            for one in operation.parameters
        ]
    if operation.takes:
        content: dict[str, Any] = {JSON: {"schema": refs[operation.takes]}}
        if operation.lines:
            content[NDJSON] = {"schema": {"type": "string"}}
        found["requestBody"] = {"required": True, "content": content}
    problem = {"description": "What went wrong.", "content": {PROBLEM: {"schema": refs[Problem]}}}
    if operation.gives:
        answer: dict[str, Any] = {JSON: {"schema": refs[operation.gives]}}
    else:
        answer = {"text/plain": {"schema": {"type": "string"}}}
    found["responses"] = {str(operation.status): {"description": operation.says, "content": answer}}
    if operation.name == "ready":
        found["responses"]["503"] = {"description": "It cannot.", "content": answer}
    found["responses"]["default"] = problem
    if keys and operation.scope:
        found["security"] = [{"key": []}, {"header": []}]
        found["x-scope"] = operation.scope
    return found
