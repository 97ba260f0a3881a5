"""`bridge`, ended by SIGKILL at a named point: python -m tests.faults.killed POINT COUNT ARGUMENTS...

The process ends when it comes to POINT for the COUNT-th time (for `acknowledged`: when the engine has acknowledged
COUNT documents). What it was called with is what `bridge` takes. A process that never comes there ends by itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge import deadletter, keeper
from bridge.cli import run
from bridge.engines.base import Engine

POINTS = (
    "before_bulk",          # a chunk is ready, the engine has not seen it
    "after_bulk",           # the engine has answered, nobody has read the answer
    "before_letter",        # a document is known to be dead, its letter is not written
    "half_letter",          # half of the letter's line is in the file
    "after_letter",         # the letter is in the file, not yet in the checkpoint
    "before_checkpoint",    # nothing of the new checkpoint is on the disk
    "half_checkpoint",      # half of it, under its provisional name
    "before_rename",        # all of it, under its provisional name
    "after_rename",         # it is the checkpoint, and the journal still holds what is settled
    "half_journal",         # half of the shorter journal, under its provisional name
    "before_journal",       # all of it, under its provisional name
    "after_journal",        # it is the journal
    "acknowledged",
)  # fmt: skip

REPLACED = {
    ".json": ("half_checkpoint", "before_rename", "after_rename"),
    ".sent": ("half_journal", "before_journal", "after_journal"),
}
"""The points of what is written aside and renamed, by its suffix."""


class Killer:
    """Counts how often the point was reached; the last time is the end."""

    def __init__(self, point: str, count: int) -> None:
        self._point, self._left = point, count
        self._lock = threading.Lock()

    def at(self, point: str, amount: int = 1) -> bool:
        """Come to `point`; True where the process must end here, for a caller that leaves something half done."""
        if point != self._point:
            return False
        with self._lock:
            self._left -= amount
            return self._left <= 0

    def pass_by(self, point: str, amount: int = 1) -> None:
        if self.at(point, amount):
            end()


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(killer: Killer) -> None:
    """Put the points into the bridge's own functions."""
    bulk: Callable[..., Any] = Engine.bulk
    append = deadletter.DeadLetterFile.append
    replace, write_checkpoint = Path.replace, keeper.write_checkpoint

    def armed_bulk(self: Engine, *arguments: Any, **options: Any) -> Any:
        killer.pass_by("before_bulk")
        items = bulk(self, *arguments, **options)
        killer.pass_by("after_bulk")
        killer.pass_by("acknowledged", len(items))
        return items

    def armed_append(self: deadletter.DeadLetterFile, outcome: Any) -> None:
        killer.pass_by("before_letter")
        if killer.at("half_letter"):
            with self.path.open("ab") as file:
                file.write(b'{"file":"half of a letter')
            end()
        append(self, outcome)
        if killer.at("after_letter"):
            self.sync()
            end()

    def armed_replace(self: Path, target: Any) -> Path:
        points = REPLACED.get(Path(target).suffix) if self.parent.name == "checkpoints" else None
        if points is None:
            return replace(self, target)
        half, before, after = points
        if killer.at(half):
            content = self.read_bytes()
            self.write_bytes(content[: min(40, len(content) // 2)])
            end()
        killer.pass_by(before)
        found = replace(self, target)
        killer.pass_by(after)
        return found

    def armed_checkpoint(*arguments: Any) -> None:
        killer.pass_by("before_checkpoint")
        write_checkpoint(*arguments)

    Engine.bulk = armed_bulk  # type: ignore[method-assign]
    deadletter.DeadLetterFile.append = armed_append  # type: ignore[method-assign]
    Path.replace = armed_replace  # type: ignore[method-assign, assignment]
    keeper.write_checkpoint = armed_checkpoint  # type: ignore[assignment]


if __name__ == "__main__":
    arm(Killer(sys.argv[1], int(sys.argv[2])))
    sys.exit(run(sys.argv[3:]))
