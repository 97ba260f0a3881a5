"""Settings of an index for the length of a load, and what they were before.

While documents stream in, each refresh makes a small segment that is merged again; an index that nobody asks yet
needs none. Copies of shards are faster made once, of the whole index, than document by document. What a setting was
stands in the mapping's ``_meta.bridge_load``, written before the setting is changed, so that any machine can put it
back after a crash: the next run does, and ``bridge ingest INDEX --finish``.

The translog's durability is ``request`` for the length of a load, also a fast one: with ``async`` a node that dies
and comes back has lost what it acknowledged last, and neither it nor the bridge would know.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bridge.engines import Engine, IndexState

LOAD_KEY = "bridge_load"
REFRESH = "index.refresh_interval"
REPLICAS = "index.number_of_replicas"
AUTO_REPLICAS = "index.auto_expand_replicas"
DURABILITY = "index.translog.durability"

GREEN_PATIENCE = 600.0
"""Seconds to wait for the copies of shards after a fast load."""

_STALLED = 10.0
"""Seconds after which copies that no node is making are not waited for: there are too few nodes."""

_FRESH, _IN_USE = "-1", "30s"
"""An empty index is not asked; one in use shows new documents somewhat later."""


def begin_load(engine: Engine, index: str, *, fresh: bool, fast: bool = False) -> None:
    """Let `index` refresh seldom, or, if it is `fresh`, not at all; what it was is kept.

    Args:
        engine: where the index is.
        index: its name, or an alias of it.
        fresh: it is empty.
        fast: also without replicas.

    A load that crashed has left its mark: then what was kept stays, and replicas that a fast one took away come back
    unless this one is fast as well.
    """
    state = engine.require_index(index)
    meta = _meta(state)
    found = meta.get(LOAD_KEY)
    there: dict[str, Any] = found if isinstance(found, dict) else {}
    wanted = {REFRESH: _FRESH if fresh else _IN_USE}
    if state.settings.get(DURABILITY, "request") != "request" or DURABILITY in there:
        wanted[DURABILITY] = "request"
    if fast:
        wanted |= {AUTO_REPLICAS: "false", REPLICAS: "0"}
    kept = {name: state.settings.get(name) for name in wanted} | there
    if kept != there:
        _put_meta(engine, state, {**meta, LOAD_KEY: kept})
    engine.put_settings(state.name, ({} if fast else _copies(kept)) | wanted)


def finish_load(engine: Engine, index: str) -> bool:
    """Put back what `begin_load` has changed; False where there was nothing to put back, or is no such index."""
    state = engine.get_index(index)
    kept = _meta(state).get(LOAD_KEY) if state else None
    if state is None or not isinstance(kept, dict):
        return False
    # null brings the engine's own default back.
    plain = {name: value for name, value in kept.items() if name not in (REPLICAS, AUTO_REPLICAS)}
    engine.put_settings(state.name, plain | _copies(kept))
    _put_meta(engine, state, {key: value for key, value in _meta(state).items() if key != LOAD_KEY})
    return True


def await_copies(
    engine: Engine,
    index: str,
    say: Callable[[str], None],
    *,
    patience: float = GREEN_PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until every copy of the index's shards is there; False, and said, where they do not come.

    Args:
        engine: where the index is.
        index: its name, or an alias of it.
        say: gets lines for the user.
        patience: seconds to wait at most.
        sleep: waits that many seconds.
    """
    started = time.monotonic()
    stalled = started
    said = False
    while (health := engine.index_health(index)).get("status") != "green":
        now = time.monotonic()
        missing = int(health.get("unassigned_shards", 0)) + int(health.get("initializing_shards", 0))
        if health.get("initializing_shards") or health.get("delayed_unassigned_shards"):
            stalled = now
        if now - stalled > _STALLED:
            say(f"{index} is {health.get('status')}: no node takes {missing} of its copies; add one, or fewer replicas")
            return False
        if now - started > patience:
            say(f"{index} is still {health.get('status')} after {patience:.0f} s: {missing} copies are being made")
            return False
        if not said:
            say(f"the documents are in; waiting for {missing} copies of the shards of {index}")
            said = True
        sleep(0.5)
    return True


def has_copies(state: IndexState) -> bool:
    """Whether the index wants replicas, of a number or as many as there are nodes."""
    auto = state.settings.get(AUTO_REPLICAS, "false")
    return auto != "false" or state.settings.get(REPLICAS, "0") != "0"


def _copies(kept: dict[str, Any]) -> dict[str, Any]:
    """The settings that bring the replicas back, where a fast load has taken them away."""
    if AUTO_REPLICAS not in kept:
        return {}
    if kept[AUTO_REPLICAS] not in (None, "false"):
        # The engine chooses the number.
        return {AUTO_REPLICAS: kept[AUTO_REPLICAS]}
    return {AUTO_REPLICAS: kept[AUTO_REPLICAS], REPLICAS: kept.get(REPLICAS)}


def _meta(state: IndexState) -> dict[str, Any]:
    return dict(state.mappings.get("_meta") or {})


def _put_meta(engine: Engine, state: IndexState, meta: dict[str, Any]) -> None:
    engine.put_mapping(state.name, {"_meta": meta})
