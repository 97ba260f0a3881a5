"""Settings of an index for the length of a load, and what they were before.

While documents stream in, each refresh makes a small segment that is merged again; an index that nobody asks yet
needs none. What a setting was stands in the mapping's ``_meta.bridge_load``, written before the setting is changed,
so that any machine can put it back after a crash: the next run does, and ``bridge ingest INDEX --finish``.
"""

from __future__ import annotations

from typing import Any

from bridge.engines import Engine, IndexState

LOAD_KEY = "bridge_load"
REFRESH = "index.refresh_interval"

_FRESH, _IN_USE = "-1", "30s"
"""An empty index is not asked; one in use shows new documents somewhat later."""


def begin_load(engine: Engine, index: str, *, fresh: bool) -> None:
    """Let `index` refresh seldom, or, if it is `fresh`, not at all; what it was is kept.

    A load that crashed has left its mark: then what was kept stays.
    """
    state = engine.require_index(index)
    if LOAD_KEY not in _meta(state):
        _put_meta(engine, state, {**_meta(state), LOAD_KEY: {REFRESH: state.settings.get(REFRESH)}})
    engine.put_settings(state.name, {REFRESH: _FRESH if fresh else _IN_USE})


def finish_load(engine: Engine, index: str) -> bool:
    """Put back what `begin_load` has changed; False where there was nothing to put back."""
    state = engine.require_index(index)
    kept = _meta(state).get(LOAD_KEY)
    if not isinstance(kept, dict):
        return False
    # null brings the engine's own default back.
    engine.put_settings(state.name, {REFRESH: kept.get(REFRESH)})
    _put_meta(engine, state, {key: value for key, value in _meta(state).items() if key != LOAD_KEY})
    return True


def _meta(state: IndexState) -> dict[str, Any]:
    return dict(state.mappings.get("_meta") or {})


def _put_meta(engine: Engine, state: IndexState, meta: dict[str, Any]) -> None:
    engine.put_mapping(state.name, {"_meta": meta})
