"""What all requests share: the engine, the models, and a rewriter for each way of asking an index."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from bridge.clauses import most_tokens
from bridge.daemon.batching import SharedEncoder
from bridge.daemon.messages import Asking, Rewrite, Rewritten
from bridge.daemon.written import Written
from bridge.dialects import NEWEST
from bridge.dialects.inside import inside_of
from bridge.dialects.opensearch import SEISMIC
from bridge.dialects.seismic import parse_seismic
from bridge.encode import Encoder, load_encoder
from bridge.encode.dense import DenseEncoder
from bridge.encode.load import cached_model
from bridge.engines import Engine, IndexState
from bridge.engines.base import path_part
from bridge.errors import ModelNotFound, RequestRejected, UsageError
from bridge.hybrid import Hybrid, read_hybrid
from bridge.indexmodel import IndexModel
from bridge.modelstore import find_dense, find_model
from bridge.prune import parse_pruning
from bridge.records import EncodedQuery
from bridge.rewrite import QueryRewriter
from bridge.servesettings import ServeSettings
from bridge.settings import Settings
from bridge.tokens import by_ids
from bridge.twophase import TwoPhase

FRESH = 5.0
"""Seconds for which an index is taken to be as it was; after a migration others ask with the old model so long."""

MOST_REWRITERS = 256
"""Ways of asking that are kept; each is small, its model is shared."""

MOST_INDEXES = 1_024
"""Indexes that are known without asking the engine."""

_FINGERPRINT = re.compile(r"[a-z][a-z-]{0,30}-[0-9a-f]{16}")

_Value = TypeVar("_Value")


@dataclass(slots=True)
class Way:
    """A way of asking an index."""

    rewriter: QueryRewriter
    light: bool
    """Whether a short question is encoded in less time than it takes to hand it to another thread."""
    uuid: str
    meta: dict[str, Any]
    until: float
    written: Written | None = None
    """Writes the answers to plain questions, where all of what they ask is looked up."""


class Service:
    """The daemon's own state. Every method may be called from any thread; those that say so wait for the engine."""

    def __init__(self, settings: Settings, connect: Callable[[Settings], Engine]) -> None:
        self.settings: ServeSettings = settings.serve
        self._all = settings
        self._connect = connect
        self._engine: Engine | None = None
        self._connecting = threading.Lock()
        self._encoders = _Once()
        self._models: dict[str, tuple[IndexModel | None, float]] = {}
        self._rewriters: OrderedDict[Hashable, Way] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def engine(self) -> Engine:
        """The connection; made by whoever needs it first, and again after it could not be.

        Raises:
            EngineError: it cannot be made.
        """
        engine = self._engine
        if engine is None:
            with self._connecting:
                engine = self._engine
                if engine is None:
                    engine = self._engine = self._connect(self._all)
        return engine

    def ready(self) -> str:
        """Why requests cannot be served just now; nothing where they can. Waits for the engine.

        Raises:
            EngineError: it is not reached.
        """
        health = self.engine.health()
        return "" if health in ("green", "yellow") else f"the cluster is {health}"

    def close(self) -> None:
        """Give back what is held."""
        for encoder in self._encoders.values():
            if isinstance(encoder, SharedEncoder):
                encoder.close()
        if self._engine is not None:
            self._engine.close()

    # Models

    def model(self, name: str) -> Encoder:
        """One of the models of the settings, by its name there; loaded once.

        Raises:
            ModelNotFound: the settings have no such model.
        """
        where = self.settings.models.get(name)
        if where is None:
            known = ", ".join(self.settings.models) or "none"
            raise ModelNotFound(f"the daemon has no model {name!r}; its settings ([serve.models]) have: {known}")
        return self._encoders.get(("model", where), lambda: self._shared(load_encoder(where)))

    def model_place(self, name: str) -> str:
        """The folder or id of a model that a request names: one of the settings', or an index's fingerprint."""
        if name in self.settings.models:
            return self.settings.models[name]
        # Whoever asks is not to name a folder where the daemon was started, nor a repository that it would fetch.
        if not _FINGERPRINT.fullmatch(name) or not cached_model(name).is_dir():
            raise ModelNotFound(
                f"the daemon has no model {name!r}: only those of its settings, and fitted ones by their fingerprint, "
                "can be named"
            )
        return name

    def model_of(self, index: str, *, now: bool = False) -> IndexModel | None:
        """What an index says of itself; None where it says nothing, or is not there. May wait for the engine.

        Args:
            index: its name, or an alias of it.
            now: as it is now, for what is to be written; a few seconds ago is soon enough for what is asked.
        """
        kept = self._models.get(index)
        if kept is None or now or time.monotonic() >= kept[1]:
            kept = self._model_of(index), time.monotonic() + FRESH
            if len(self._models) >= MOST_INDEXES:
                # Names that are none fill it, too, and whoever asks may think of any number of them.
                self._models.clear()
            self._models[index] = kept
        return kept[0]

    def _model_of(self, index: str) -> IndexModel | None:
        try:
            state = self.engine.get_index(index)
        except RequestRejected:
            # An alias of several indices: where none of them is the bridge's, there is nothing to be told apart.
            shown = {"filter_path": "*.mappings._meta.bridge"}
            if self.engine.request("GET", f"/{path_part(index)}/_mapping", params=shown):
                raise
            return None
        return IndexModel.of(state) if state else None

    def known_model(self, index: str) -> IndexModel | None:
        """The same, where it is at hand: without waiting for anything."""
        kept = self._models.get(index)
        return kept[0] if kept is not None and time.monotonic() < kept[1] else None

    def index_model(self, index: str) -> Encoder:
        """The document encoder of an index. Waits for the engine.

        Raises:
            IndexNotFound, UsageError: there is none, or the bridge did not make it.
        """
        state = self.engine.require_index(index)
        there = IndexModel.of(state)
        if there is None or not there.document_encoder:
            raise UsageError(f"index {index} names no document model (_meta.bridge): name one of the daemon's models")
        return self.stored(there.document_encoder)

    def stored_dense(self, fingerprint: str | None) -> DenseEncoder | None:
        """The dense encoder of that fingerprint, loaded once; none of none."""
        if fingerprint is None:
            return None
        return self._encoders.get(("dense", fingerprint), lambda: find_dense(self.engine, fingerprint))

    def stored(self, fingerprint: str) -> Encoder:
        """The model of that fingerprint, from this machine or from the cluster, loaded once."""
        return self._encoders.get(("stored", fingerprint), lambda: self._shared(find_model(self.engine, fingerprint)))

    def _shared(self, encoder: Encoder) -> Encoder:
        """With its calls put together, where that helps: what only looks words up is as fast alone."""
        if is_light(encoder):
            return encoder
        limits = self.settings.limits
        return SharedEncoder(encoder, tokens=limits.batch_tokens, queued=limits.queued_texts)

    # Indexes

    def indexes(self) -> list[tuple[str, dict[str, Any], int]]:
        """Name, `_meta.bridge` and number of documents of each index that the bridge has made. Waits for the engine."""
        found = self.engine.request("GET", "/*/_mapping", params={"filter_path": "*.mappings._meta.bridge"})
        metas = {name: state["mappings"]["_meta"]["bridge"] for name, state in (found or {}).items()}
        return [(name, metas[name], self.engine.count(name)) for name in sorted(metas)]

    # Rewriters

    def way(self, asking: Asking, index: str) -> Way:
        """What turns such questions into queries for an index. Waits for the engine.

        Raises:
            BridgeError: see `QueryRewriter.for_index`.
        """
        key = (index, *_options(asking))
        state = self.engine.require_index(index)
        kept = self._known(key)
        if kept is None or (kept.uuid, kept.meta) != (state.uuid, state.meta):
            kept = _as_way(self._made(asking, index, state), state.uuid, state.meta)
        kept.until = time.monotonic() + FRESH
        return self._keep(key, kept)

    def known_way(self, asking: Asking, index: str) -> Way | None:
        """The same, where it is at hand: without waiting for anything."""
        kept = self._known((index, *_options(asking)))
        return kept if kept is not None and time.monotonic() < kept.until else None

    def offline(self, asked: Rewrite, name: str) -> Way:
        """What turns questions into queries of one of the settings' models, for an index that is not asked."""
        version = asked.version or NEWEST[asked.engine]
        rewriter = QueryRewriter.load(
            None, encoder=self.model(name), engine=asked.engine, version=version, kind=asked.kind,
            nested_path=asked.nested_path, **_how(asked),
        )  # fmt: skip
        return self._keep(_offline_key(asked, name), _as_way(rewriter, "", {}))

    def known_offline(self, asked: Rewrite, name: str) -> Way | None:
        """The same, where it is at hand."""
        return self._known(_offline_key(asked, name))

    def _known(self, key: Hashable) -> Way | None:
        with self._lock:
            found = self._rewriters.get(key)
            if found is not None:
                self._rewriters.move_to_end(key)
            return found

    def _keep(self, key: Hashable, kept: Way) -> Way:
        with self._lock:
            self._rewriters[key] = kept
            self._rewriters.move_to_end(key)
            if len(self._rewriters) > MOST_REWRITERS:
                self._rewriters.popitem(last=False)
        return kept

    def _made(self, asking: Asking, index: str, state: IndexState) -> QueryRewriter:
        there, how = IndexModel.of(state), _how(asking)
        hybrid: Hybrid | None = how["hybrid"]
        if there and not how["inside"]:
            how["encoder"] = self.stored(there.query_encoders[0])
        if there and hybrid and "dense" in hybrid.names:
            how["dense"] = self.stored_dense(there.dense_encoder)
        return QueryRewriter.for_index(self.engine, index, **how)


def _as_way(rewriter: QueryRewriter, uuid: str, meta: dict[str, Any]) -> Way:
    light = rewriter.hybrid is None and (rewriter.encoder is None or is_light(rewriter.encoder))
    return Way(rewriter, light, uuid, meta, 0.0, _written(rewriter))


def _written(rewriter: QueryRewriter) -> Written | None:
    from bridge.encode.lookup import LookupEncoder

    encoder = rewriter.encoder
    if not isinstance(encoder, LookupEncoder) or rewriter.hybrid or rewriter.pruning or rewriter.two_phase:
        return None
    if any(by_ids(one.kind, rewriter.engine) for one in rewriter.targets):
        # How far such a search looks depends on how many tokens it has.
        return None

    def write(query: EncodedQuery, size: int) -> bytes:
        return msgspec.json.encode(Rewritten(body=rewriter.body(query, size=size), dropped=0, pruned=0))

    return Written(encoder, most_tokens(len(rewriter.targets)), write)


def is_light(encoder: Encoder) -> bool:
    """Whether its queries are looked up in a table, in less time than it takes to hand them to another thread."""
    from bridge.encode.lexical import LexicalEncoder
    from bridge.encode.lookup import LookupEncoder

    return isinstance(encoder, LookupEncoder | LexicalEncoder)


def _options(asking: Asking) -> tuple[Hashable, ...]:
    """All of a request that decides which rewriter it needs."""
    return (
        tuple(asking.fields), asking.dialect, asking.prune, asking.conversation, asking.two_phase, asking.seismic,
        asking.analyzer, asking.model_id, asking.inference_id, asking.hybrid, asking.fusion, asking.fuse, asking.depth,
        asking.rank_constant, asking.pipeline,
    )  # fmt: skip


def _offline_key(asked: Rewrite, name: str) -> tuple[Hashable, ...]:
    return ("", name, asked.engine, asked.version, asked.kind, asked.nested_path, *_options(asked))


def _hybrid(asking: Asking) -> Hybrid | None:
    if not asking.hybrid:
        return None
    return read_hybrid(
        asking.hybrid, fusion=asking.fusion, where=asking.fuse, depth=asking.depth,
        rank_constant=asking.rank_constant, pipeline=asking.pipeline,
    )  # fmt: skip


def _how(asking: Asking) -> dict[str, Any]:
    """What `QueryRewriter.for_index` and `load` take."""
    return {
        "fields": asking.fields,
        "dialect": asking.dialect,
        "pruning": parse_pruning(asking.prune) if asking.prune else None,
        "conversation": asking.conversation,
        "inside": inside_of(asking.analyzer, asking.model_id, asking.inference_id),
        "two_phase": TwoPhase() if asking.two_phase else None,
        "seismic": parse_seismic(asking.seismic) if asking.seismic else SEISMIC,
        "hybrid": _hybrid(asking),
    }


class _Once:
    """Values that are made once, however many ask for them at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._made: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._made:
                self._made[key] = make()
            found: _Value = self._made[key]
            return found

    def values(self) -> list[Any]:
        return list(self._made.values())
