"""The cluster itself calls the daemon's encoders: what its ingest pipelines and its own queries need for that.

`opensearch.py` and `elasticsearch.py` are twins: each says what is there and what is wanted, and puts the difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bridge import templates
from bridge.engines import Engine, IndexState
from bridge.engines.base import path_part
from bridge.errors import IndexNotFound, UsageError
from bridge.indexmodel import IndexModel, attached_name, encodes_itself
from bridge.records import HASH_FIELD, Product

__all__ = ["Attachment", "Daemon", "Steps", "Wanted", "wanted"]

_DEFAULT = "index.default_pipeline"

_KEY = re.compile(r"nsb_([0-9a-f]{12})_[\w-]{43}")


@dataclass(frozen=True, slots=True)
class Daemon:
    """Where the cluster finds the daemon.

    Args:
        url: as the cluster's nodes reach it.
        key: an API key with the scope ``write``; None where the daemon asks for none.

    Raises:
        UsageError: the URL or the key is none.
    """

    url: str
    key: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise UsageError(f"{self.url!r} is no URL of a daemon: it looks like http://bridge.example.org:8090")
        if self.key is not None and not _KEY.fullmatch(self.key):
            raise UsageError("the daemon's key has not the form of one that bridge keys add printed")

    def __repr__(self) -> str:
        return f"Daemon({self.url!r}, {self.key_id})"

    @property
    def key_id(self) -> str:
        """Which key it is; what lists show."""
        found = _KEY.fullmatch(self.key) if self.key else None
        return f"key {found[1]}" if found else "no key"

    def at(self, path: str) -> str:
        """The URL of one of its operations."""
        return self.url.rstrip("/") + path


@dataclass(frozen=True, slots=True)
class Wanted:
    """An index, and what is to encode for it."""

    state: IndexState
    model: IndexModel

    @property
    def name(self) -> str:
        """What all that is put for this index is called by."""
        return attached_name(self.state.name)


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done, one thing after another; or said only, where nothing is to be changed."""

    dry_run: bool
    done: list[str] = field(default_factory=list)

    def do(self, what: str, work: Callable[..., object], *arguments: Any, **named: Any) -> None:
        self.done.append(what)
        if not self.dry_run:
            work(*arguments, **named)

    def make_default(self, engine: Engine, asked: Wanted) -> None:
        """The pipeline is that of all documents which name none."""
        if not encodes_itself(asked.state):
            what = f"make {asked.name} the default pipeline of index {asked.state.name}"
            self.do(what, engine.put_settings, asked.state.name, {_DEFAULT: asked.name})

    def delete_pipeline(self, engine: Engine, asked: Wanted) -> None:
        """It is nobody's default any more, and gone."""
        if encodes_itself(asked.state):
            what = f"index {asked.state.name} has no default pipeline any more"
            self.do(what, engine.put_settings, asked.state.name, {_DEFAULT: None})
        if get_pipeline(engine, asked) is not None:
            self.do(f"delete ingest pipeline {asked.name}", engine.request, "DELETE", pipeline_path(asked))


def pipeline_path(asked: Wanted) -> str:
    """Where the ingest pipeline is put, and asked for."""
    return f"/_ingest/pipeline/{path_part(asked.name)}"


def get_pipeline(engine: Engine, asked: Wanted) -> dict[str, Any] | None:
    """The ingest pipeline that is there; None where there is none."""
    try:
        found = engine.request("GET", pipeline_path(asked))
    except IndexNotFound:
        return None
    there: dict[str, Any] | None = found.get(asked.name)
    return there


def pipeline(product: Product, asked: Wanted, model: str, **slots: Any) -> dict[str, Any]:
    """The ingest pipeline that is wanted: the text fields, joined, are encoded by `model`.

    Args:
        slots: what the product's template wants besides.
    """
    body: dict[str, Any] = templates.fill(
        templates.load_template("pipelines", product, "attached"),
        {
            "text_fields": list(asked.model.text_fields),
            "model": model,
            "field": asked.model.field,
            "hash_field": HASH_FIELD,
            **slots,
        },
    )
    return body


@dataclass(frozen=True, slots=True)
class Attachment:
    """What there is now, or would be."""

    steps: list[str]
    """What was done, in order; nothing where all was there."""
    pipeline: str
    """The ingest pipeline."""
    names: dict[str, str]
    """Under which names queries and pipelines reach the encoders: ``document_model``, ``query_model``, …"""


def wanted(engine: Engine, index: str) -> Wanted:
    """What an index needs so that the cluster can encode for it.

    Raises:
        IndexNotFound: there is no such index.
        UsageError: the bridge did not make it, or one vector a text is not what it holds.
    """
    state = engine.require_index(index)
    model = IndexModel.of(state)
    if model is None or not model.document_encoder:
        raise UsageError(f"index {index} names no document model (_meta.bridge): register it with bridge register")
    if model.passage_field:
        raise UsageError(
            f"index {index} keeps a vector for each passage, and a cluster's own processors make one for a text; "
            "bring its documents in with bridge ingest, or through bridge proxy"
        )
    return Wanted(state, model)
