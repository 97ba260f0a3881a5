"""What an item of a `_bulk` answer means: one verdict a class of failure.

Engines answer a bulk request with 200 and put what went wrong into its items; what is to be done about an
item stands partly in its status, partly in its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from bridge.engines.answers import error_of_status, reason_of
from bridge.errors import EngineError


class Verdict(Enum):
    """What to do about an item."""

    DONE = "done"
    """It took effect."""
    AGAIN = "again"
    """The engine asks to wait: a full queue, a shard that is moving."""
    THROTTLED = "throttled"
    """A refusal whose reason speaks of a rate: most likely passing, though its status says otherwise."""
    BLOCKED = "blocked"
    """The index takes no writes for now: a disk is full, or an administrator closed it."""
    EXISTS = "exists"
    """A `create` met a document of that id, or a versioned write a newer one."""
    ENDS = "ends"
    """Every other document would fare the same."""
    DEAD = "dead"
    """This document cannot go in."""


_AGAIN = frozenset({429, 502, 503, 504})

_THROTTLED = re.compile(
    r"too many requests|throttl|rate.?limit|rate (?:is )?exceeded|quota|circuit.?break|rejected.?execution"
    r"|status code:? *(?:429|503)",
    re.IGNORECASE,
)
_OF_THE_DOCUMENT = re.compile(r"pars|mapper|mapping|strict_dynamic|version_conflict|immense|field_limit")
"""Types of errors that a document has of itself; their reasons may quote its text, whatever that says."""

_BLOCK = re.compile(r"blocked by: \[(?:FORBIDDEN|TOO_MANY_REQUESTS)/")
_FULL_DISK = re.compile(r"read-only-allow-delete|read_only_allow_delete|disk usage exceeded flood-stage")


def judge(status: int, error: Any) -> Verdict:
    """The verdict on an item with HTTP `status` and the engine's `error` object, as it came."""
    if 200 <= status < 300:
        return Verdict.DONE
    reason = reason_of({"error": error})
    if _BLOCK.search(reason):
        return Verdict.BLOCKED
    if status in _AGAIN:
        return Verdict.AGAIN
    if status == 409:
        return Verdict.EXISTS
    kind = str(error.get("type", "")) if isinstance(error, Mapping) else ""
    if status in (401, 403) or "index_not_found" in kind or "index_closed" in kind:
        return Verdict.ENDS
    if status in (400, 500) and not _OF_THE_DOCUMENT.search(kind) and _THROTTLED.search(f"{kind} {reason}"):
        return Verdict.THROTTLED
    return Verdict.DEAD


def full_disk(error: Any) -> bool:
    """Whether a block is the one that engines put on by themselves when a disk is full, and lift again."""
    return bool(_FULL_DISK.search(reason_of({"error": error})))


def failure(status: int, error: Any, document: str) -> EngineError:
    """The error of an item that ends the run."""
    # Items carry no status line of their own; a missing index says 404, a closed one 400.
    return error_of_status(404 if status == 400 else status, {"error": error}, f"document {document!r}")
