"""Neural Sparse Bridge: learned-sparse search on the OpenSearch or Elasticsearch you already run.

The public names are imported on first use, so that ``import bridge`` costs nothing::

    from bridge import load_encoder, open_engine, QueryRewriter

Functions that are named like their module are imported from it: ``from bridge.ingest import ingest``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge.encode import Encoder, load_encoder
    from bridge.engines import Engine, open_engine
    from bridge.errors import BridgeError
    from bridge.fit import FitOptions
    from bridge.ingest import IngestOptions, IngestSummary
    from bridge.records import Hit, SparseVector, Turn
    from bridge.register import RegisterOptions
    from bridge.rewrite import QueryRewriter
    from bridge.search import SearchResult
    from bridge.sources import SourceOptions, open_source

_HOMES = {
    "BridgeError": "bridge.errors",
    "Encoder": "bridge.encode",
    "Engine": "bridge.engines",
    "FitOptions": "bridge.fit",
    "Hit": "bridge.records",
    "IngestOptions": "bridge.ingest",
    "IngestSummary": "bridge.ingest",
    "QueryRewriter": "bridge.rewrite",
    "RegisterOptions": "bridge.register",
    "SearchResult": "bridge.search",
    "SourceOptions": "bridge.sources",
    "SparseVector": "bridge.records",
    "Turn": "bridge.records",
    "load_encoder": "bridge.encode",
    "open_engine": "bridge.engines",
    "open_source": "bridge.sources",
}

__all__ = [
    "BridgeError",
    "Encoder",
    "Engine",
    "FitOptions",
    "Hit",
    "IngestOptions",
    "IngestSummary",
    "QueryRewriter",
    "RegisterOptions",
    "SearchResult",
    "SourceOptions",
    "SparseVector",
    "Turn",
    "load_encoder",
    "open_engine",
    "open_source",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
