"""The node's log, for people: its last lines, and the few that say why a start failed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from bridge.node.paths import NodePaths

_TELLING = re.compile(r"ERROR|FATAL|Exception|Caused by|Error:|refused|denied|Unrecognized")
_WIDTH = 240


def log_lines(paths: NodePaths, lines: int) -> list[str]:
    """The last lines of the node's log; of its console while it has not logged anything yet."""
    for name in ("node.log", "console.log"):
        found = _tail(paths.logs / name, lines)
        if found:
            return found
    return []


def follow_log(paths: NodePaths, pause: Callable[[float], object]) -> Iterator[str]:
    """What is added to the node's log from now on, line by line, without end.

    `pause` is called with a number of seconds while there is nothing new; a rolled-over log is taken up
    from its beginning.
    """
    position = log_size(paths)
    rest = ""
    while True:
        size = log_size(paths)
        if size < position:
            position, rest = 0, ""
        if size > position:
            with (paths.logs / "node.log").open("rb") as stream:
                stream.seek(position)
                added = stream.read(size - position)
            position += len(added)
            *whole, rest = (rest + added.decode(errors="replace")).split("\n")
            yield from whole
        else:
            pause(0.5)


def meaningful_lines(paths: NodePaths, since: int, most: int = 3) -> list[str]:
    """The last lines that say what went wrong, shortened; without stack frames.

    `since` is the size in bytes that the log had before this start: what an earlier one said is over.
    """
    recent = [*_tail(paths.logs / "node.log", 200, since), *_tail(paths.logs / "console.log", 200)]
    said = [line.strip() for line in recent if line.strip() and not line.lstrip().startswith(("at ", "..."))]
    telling = [line for line in said if _TELLING.search(line)] or said
    return [line[:_WIDTH] for line in telling[-most:]]


def log_size(paths: NodePaths) -> int:
    """Bytes in the node's log so far."""
    try:
        return (paths.logs / "node.log").stat().st_size
    except OSError:
        return 0


def _tail(path: Path, lines: int, since: int = 0) -> list[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            # A log that became smaller was rolled over since: then all of it is new.
            stream.seek(since if since <= path.stat().st_size else 0)
            return [line.rstrip("\n") for line in deque(stream, maxlen=max(lines, 0))]
    except OSError:
        return []
