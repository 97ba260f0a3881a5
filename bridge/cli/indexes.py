"""Indices as sources: where ``index:NAME`` and ``index:NAME@URL`` are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.cli.common import State

if TYPE_CHECKING:
    from bridge.engines import Engine
    from bridge.sources.index import IndexReader, Opener


def index_opener(state: State, /) -> Opener:
    """Opens such sources, each over a connection of its own: nothing is connected to where there is none."""

    def connection(url: str | None) -> tuple[Engine, bool]:
        if url is None:
            return state.connect(), True
        from bridge.engines import open_engine
        from bridge.settings import load_settings

        return open_engine(settings=load_settings(url=url, file=state.config).engine), True

    def opened(spec: str) -> IndexReader:
        from bridge.indexsource import opener

        return opener(connection)(spec)

    return opened
