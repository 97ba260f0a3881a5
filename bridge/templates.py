"""Finds and fills the JSON templates under mappings/ and pipelines/, and compares them with what is there.

A template is plain JSON. ``"${slot}"`` is a whole key or a whole value, never a part of one, so that
every template stays valid JSON and a filled value keeps its type. A value slot filled with None takes
its key away.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bridge.errors import BridgeError

_SLOT = re.compile(r"\$\{([a-z_]+)\}")
_PACKAGE = Path(__file__).parent


def template_folder(kind: str) -> Path:
    """The folder ``mappings`` or ``pipelines``.

    A wheel carries them inside of the package; an editable install has them beside it, in the checkout.
    """
    for parent in (_PACKAGE, _PACKAGE.parent):
        if (parent / kind / "opensearch").is_dir():
            return parent / kind
    raise BridgeError(f"the folder {kind}/ is missing from this installation; install the package again")


def load_template(kind: str, product: str, name: str) -> dict[str, Any]:
    """The parsed template, slots and all; `kind` is ``mappings`` or ``pipelines``."""
    path = template_folder(kind) / product / f"{name}.json"
    try:
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise BridgeError(f"the template {path} cannot be read: {error}") from error
    return found


def fill(template: Any, slots: Mapping[str, Any]) -> Any:
    """`template` with every slot replaced; a slot that `slots` lacks is an error.

    >>> fill({"${field}": {"dims": "${dimension}", "x": "${gone}"}}, {"field": "v", "dimension": 3, "gone": None})
    {'v': {'dims': 3}}
    """
    if isinstance(template, dict):
        filled = ((_slot(key, slots), fill(value, slots)) for key, value in template.items())
        return {key: value for key, value in filled if value is not None}
    if isinstance(template, list):
        return [fill(value, slots) for value in template]
    return _slot(template, slots) if isinstance(template, str) else template


def _slot(text: str, slots: Mapping[str, Any]) -> Any:
    match = _SLOT.fullmatch(text)
    if not match:
        return text
    try:
        return slots[match[1]]
    except KeyError:
        raise BridgeError(f"a template has the slot {text}, which nothing fills") from None


def merge(base: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `extra` laid over it, objects merged key by key; neither is changed."""
    merged = dict(base)
    for key, value in extra.items():
        there = merged.get(key)
        merged[key] = merge(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return merged


def covers(there: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; the engine may add defaults of its own."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(key in there and covers(there[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(there, list) and len(there) == len(wanted) and all(map(covers, there, wanted))
    if isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
        return isinstance(there, (int, float)) and abs(there - wanted) <= 1e-6 * max(1.0, abs(wanted))
    return bool(there == wanted)


def line(value: Any) -> str:
    """`value` as JSON in one line, for messages."""
    return msgspec.json.encode(value).decode()


def diff(index: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    """A unified diff of the two bodies, keys sorted; empty where they are the same."""
    old, new = (
        msgspec.json.format(msgspec.json.encode(body, order="deterministic"), indent=2).decode().splitlines()
        for body in (before, after)
    )
    return "\n".join(difflib.unified_diff(old, new, f"{index} (there)", f"{index} (wanted)", lineterm=""))
