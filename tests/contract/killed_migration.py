"""`bridge`, ended by SIGKILL at a point of a migration: python -m tests.contract.killed_migration POINT ARGUMENTS...

What it was called with is what `bridge` takes. A process that never comes to the point ends by itself.
"""

from __future__ import annotations

import sys
from typing import Any

from bridge.cli import run
from bridge.engines.base import Engine
from bridge.migration import moving
from bridge.migration.copying import Copier
from bridge.migration.ledger import Ledger
from tests.faults.killed import end

POINTS = (
    "created",         # the new index is there, and empty
    "filling",         # some of its documents are there
    "filled",          # all of them, and nobody has written that down
    "one_pass",        # somebody has
    "before_swap",     # all is ready for the alias
    "after_swap",      # the alias has moved, and nobody has written that down
    "before_late",     # late documents have come, and nobody has written that down
    "before_block",    # the old index is about to be closed for writes
    "blocked",         # it is
    "unblocked",       # it no longer is, and nobody has written that down
    "done",            # somebody has
)  # fmt: skip


def arm(point: str) -> None:
    """Put the point into the bridge's own functions."""

    def here(name: str) -> None:
        if name == point:
            end()

    create, bulk, put_settings = Engine.create_index, Engine.bulk, Engine.put_settings
    update, changes = Ledger.update, Copier.changes
    move_alias, block_writes = moving.move_alias, moving.block_writes
    sent = [0]

    def armed_create(self: Engine, name: str, body: Any) -> None:
        create(self, name, body)
        if not name.startswith("."):
            here("created")

    def armed_bulk(self: Engine, name: str, *arguments: Any, **options: Any) -> Any:
        items = bulk(self, name, *arguments, **options)
        if not name.startswith("."):
            sent[0] += 1
            here("filling")
        return items

    def armed_changes(self: Copier, *arguments: Any, **options: Any) -> Any:
        done = changes(self, *arguments, **options)
        here("filled")
        return done

    def armed_update(self: Ledger, **values: Any) -> None:
        if values.get("phase") == "late":
            here("before_late")
        if values.get("blocked"):
            here("before_block")
        update(self, **values)
        here("one_pass")
        if values.get("phase") == "done":
            here("done")

    def armed_move(*arguments: Any, **options: Any) -> None:
        here("before_swap")
        move_alias(*arguments, **options)
        here("after_swap")

    def armed_block(*arguments: Any) -> None:
        block_writes(*arguments)
        here("blocked")

    def armed_settings(self: Engine, name: str, body: Any) -> None:
        put_settings(self, name, body)
        if moving.WRITE_BLOCK in body:
            here("unblocked")

    Engine.create_index = armed_create  # type: ignore[method-assign]
    Engine.bulk = armed_bulk  # type: ignore[method-assign, assignment]
    Engine.put_settings = armed_settings  # type: ignore[method-assign]
    Copier.changes = armed_changes  # type: ignore[method-assign]
    Ledger.update = armed_update  # type: ignore[method-assign]
    moving.move_alias = armed_move
    moving.block_writes = armed_block


if __name__ == "__main__":
    arm(sys.argv[1])
    sys.exit(run(sys.argv[2:]))
