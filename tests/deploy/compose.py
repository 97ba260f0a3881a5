"""`docker/compose.yaml` as Compose reads it: merged, with the variables of its environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker" / "compose.yaml"

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-?])([^}]*))?\})")


class Missing(Exception):
    """A variable that has to be set is not."""


def raw() -> dict[str, Any]:
    """The file with its anchors merged, and its variables as they are written."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return found


def services(environment: Mapping[str, str]) -> dict[str, Any]:
    """The services, with every variable replaced. Raises Missing."""
    found: dict[str, Any] = filled(raw()["services"], environment)
    return found


def filled(value: Any, environment: Mapping[str, str]) -> Any:
    """`value` with the variables of all strings in it replaced, as Compose does. Raises Missing."""
    if isinstance(value, dict):
        return {key: filled(one, environment) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, environment) for one in value]
    if not isinstance(value, str):
        return value

    def one(found: re.Match[str]) -> str:
        dollar, name, kind, other = found.groups()
        if dollar:
            return "$"
        given = environment.get(name, "")
        if kind == "?" and not given:
            raise Missing(f"{name}: {other}")
        return given or (other if kind == "-" else "")

    return _VARIABLE.sub(one, value)


def variables(value: Any) -> set[tuple[str, str]]:
    """Name and kind (`?`, `-`, or nothing) of every variable."""
    if isinstance(value, dict):
        return {found for one in value.values() for found in variables(one)}
    if isinstance(value, list):
        return {found for one in value for found in variables(one)}
    found = _VARIABLE.findall(value) if isinstance(value, str) else []
    return {(name, kind) for dollar, name, kind, _ in found if not dollar}


def node_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What the engines' images make settings of: variables of two words or more, with dots, in lower case."""
    return {key: value for key, value in environment.items() if re.match(r"[a-z0-9_]+\.[a-z0-9_]+", key)}
