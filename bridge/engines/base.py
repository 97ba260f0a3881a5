"""What the bridge asks of an engine, in REST terms that both products share.

The twins (`opensearch.py`, `elasticsearch.py`) carry the bytes over their official clients and say
what their versions can do; everything else is here once. Retrying is not done at this level: only
the caller knows what may be sent twice.
"""

from __future__ import annotations

import base64
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from bridge.engines.answers import error_of_status, not_an_engine
from bridge.errors import EngineBusy, EngineForbidden, IndexNotFound, RequestRejected, UsageError
from bridge.records import Product
from bridge.settings import EngineSettings

Json = dict[str, Any]

MAX_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this product and version can do."""

    rank_features: bool = True
    neural_sparse: bool = False
    """`neural_sparse` takes raw `query_tokens` (OpenSearch 2.14)."""
    seismic: bool = False
    """`sparse_vector` fields with SEISMIC (OpenSearch 3.3)."""
    sparse_vector_field: bool = False
    """Elasticsearch's `sparse_vector` field (8.11; the type of the same name in 7.x is another)."""
    sparse_vector_query: bool = False
    """Elasticsearch's `sparse_vector` query with a `query_vector` (8.15)."""
    search_pipelines: bool = False
    two_phase: bool = False
    dense: bool = False
    """`knn_vector` or `dense_vector` fields are to be had."""
    hybrid: bool = False
    """Parts of a hybrid search are fused by the engine: OpenSearch 2.19; Elasticsearch 8.18, where its licence is."""
    points_in_time: bool = False
    """An index can be read as it was at one moment (OpenSearch 2.4, Elasticsearch 7.10)."""
    remote_models: bool = False
    """The ml plugin is there, whose models may be called elsewhere (OpenSearch)."""
    hidden_vectors: bool = False
    """`_source` comes without vectors unless they are asked for (Elasticsearch 9.2)."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What answers at the URL."""

    product: Product
    version: tuple[int, int, int]
    cluster: str
    cluster_uuid: str
    capabilities: Capabilities

    @property
    def number(self) -> str:
        return ".".join(map(str, self.version))

    def __str__(self) -> str:
        return f"{'OpenSearch' if self.product == 'opensearch' else 'Elasticsearch'} {self.number}"


@dataclass(frozen=True, slots=True)
class IndexState:
    """An index as the engine shows it; `settings` are flat (``index.number_of_shards``)."""

    name: str
    uuid: str
    mappings: Json
    settings: dict[str, str]

    @property
    def meta(self) -> Json:
        """What the bridge wrote into the mapping's `_meta`; empty for a foreign index."""
        found = (self.mappings.get("_meta") or {}).get("bridge")
        return found if isinstance(found, dict) else {}


class Engine(ABC):
    """One connection to one cluster; safe to share between threads."""

    product: ClassVar[Product]

    def __init__(self, settings: EngineSettings) -> None:
        self.url = settings.shown_url
        self._settings = settings
        self._info: EngineInfo | None = None

    @property
    def settings(self) -> EngineSettings:
        """What the connection was opened with, secrets included: for another connection to the same place."""
        return self._settings

    @abstractmethod
    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        ndjson: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """One HTTP request: the decoded JSON answer.

        Raises:
            EngineError: a leaf of it, as `bridge.errors` draws; never a client's own exception.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the connections back."""

    @abstractmethod
    def open_point(self, index: str, shard: int, keep_alive: str) -> str:
        """A point in time of one shard, which searches read as it is now, however it changes; its id.

        Searches may prolong it; without any it is gone after `keep_alive` (``15m``), as after a restart of its node.
        """

    @abstractmethod
    def close_point(self, point: str) -> None:
        """Give a point in time back, before its time is over."""

    @staticmethod
    @abstractmethod
    def capabilities(version: tuple[int, int, int], plugins: frozenset[str] | None) -> Capabilities:
        """What a version can do; `plugins` are those installed, None where that is not to be known."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is there

    def info(self) -> EngineInfo:
        """Product, version and abilities; asked once."""
        if self._info is None:
            root = self.request("GET", "/")
            version = parse_version(root, self.url)
            self._info = EngineInfo(
                product=self.product,
                version=version,
                cluster=str(root.get("cluster_name", "")),
                cluster_uuid=str(root.get("cluster_uuid", "")),
                capabilities=self.capabilities(version, self._plugins()),
            )
        return self._info

    def _plugins(self) -> frozenset[str] | None:
        try:
            rows = self.request("GET", "/_cat/plugins", params={"format": "json", "h": "component"})
        except (RequestRejected, EngineForbidden, IndexNotFound):
            return None
        return frozenset(str(row.get("component")) for row in rows) if isinstance(rows, list) else None

    def fuses(self) -> bool:
        """Whether the parts of a hybrid search may be fused here: what the version can, the licence may forbid."""
        return self.info().capabilities.hybrid

    def health(self) -> str:
        """``green``, ``yellow`` or ``red``."""
        return str(self.request("GET", "/_cluster/health").get("status", "unknown"))

    def index_health(self, name: str) -> Json:
        """``status`` (``green``, ``yellow`` or ``red``) of one index, and its numbers of shards."""
        health: Json = self.request("GET", f"/_cluster/health/{path_part(name)}")
        return health

    # Indices

    def get_index(self, name: str) -> IndexState | None:
        """The index of that name, or behind that alias; None where there is none.

        Raises:
            UsageError: `name` is no name but a pattern, a list, or nothing.
            RequestRejected: the alias stands for several indices.
        """
        check_index_name(name)
        try:
            found = self.request("GET", f"/{path_part(name)}", params={"flat_settings": "true"})
        except IndexNotFound:
            return None
        if not (isinstance(found, dict) and all(isinstance(state, dict) for state in found.values())):
            raise not_an_engine(self.url, f"its answer to GET /{name} describes no index")
        if len(found) != 1:
            raise RequestRejected(f"{name} stands for {len(found)} indices ({', '.join(sorted(found))}); name one")
        ((concrete, state),) = found.items()
        settings = {key: str(value) for key, value in state.get("settings", {}).items()}
        return IndexState(
            name=concrete,
            uuid=settings.get("index.uuid", ""),
            mappings=state.get("mappings") or {},
            settings=settings,
        )

    def require_index(self, name: str) -> IndexState:
        """Like `get_index`.

        Raises:
            IndexNotFound: there is none.
        """
        state = self.get_index(name)
        if state is None:
            raise IndexNotFound(f"there is no index {name} at {self.url}", status=404)
        return state

    def create_index(self, name: str, body: Json) -> None:
        self.request("PUT", f"/{path_part(name)}", body=encode(body))

    def delete_index(self, name: str) -> None:
        self.request("DELETE", f"/{path_part(name)}")

    def put_mapping(self, name: str, body: Json) -> None:
        self.request("PUT", f"/{path_part(name)}/_mapping", body=encode(body))

    def put_settings(self, name: str, body: Json) -> None:
        self.request("PUT", f"/{path_part(name)}/_settings", body=encode(body))

    def refresh(self, name: str) -> None:
        self.request("POST", f"/{path_part(name)}/_refresh")

    def flush(self, name: str) -> None:
        """Write what the index has taken into segments on the disk.

        Raises:
            EngineBusy: some shard was not to be had.
        """
        answer = self.request("POST", f"/{path_part(name)}/_flush")
        if failed := answer["_shards"]["failed"]:
            raise EngineBusy(f"POST /{name}/_flush: {failed} shards could not be flushed; try again")

    def count(self, name: str) -> int:
        return int(self.request("GET", f"/{path_part(name)}/_count")["count"])

    def get_search_pipeline(self, name: str) -> Json | None:
        try:
            found: Json = self.request("GET", f"/_search/pipeline/{path_part(name)}")
        except IndexNotFound:
            return None
        return found.get(name)

    def put_search_pipeline(self, name: str, body: Json) -> None:
        self.request("PUT", f"/_search/pipeline/{path_part(name)}", body=encode(body))

    # Documents

    def bulk(self, name: str, body: bytes, *, refresh: bool = False, pipeline: str | None = None) -> list[Json]:
        """Send one `_bulk` body; one item an action, in order: ``{"create": {"_id", "status", "error"?}}``.

        `pipeline` names another ingest pipeline than the index's own; ``_none`` is none.
        """
        params = {"filter_path": "items.*._id,items.*.status,items.*.error"}
        if refresh:
            params["refresh"] = "true"
        if pipeline is not None:
            params["pipeline"] = pipeline
        answer = self.request("POST", f"/{path_part(name)}/_bulk", params=params, body=body, ndjson=True)
        return list(answer.get("items", []))

    def get_sources(self, name: str, ids: Sequence[str], fields: Iterable[str]) -> dict[str, Json]:
        """id ─▶ the asked-for fields, of those documents that exist (also ones not yet searchable)."""
        found = self._get(name, ids, {"_source_includes": ",".join(fields)})
        return {key: doc.get("_source") or {} for key, doc in found.items()}

    def get_stored(self, name: str, ids: Sequence[str], field: str) -> dict[str, Any]:
        """id ─▶ the value of a field that is stored (``"store": true``), or None: several times as fast."""
        found = self._get(name, ids, {"_source": "false", "stored_fields": field})
        return {key: next(iter(doc.get("fields", {}).get(field, [])), None) for key, doc in found.items()}

    def _get(self, name: str, ids: Sequence[str], params: Mapping[str, str]) -> dict[str, Json]:
        return self.get_documents(name, {"ids": list(ids)}, params) if ids else {}

    def get_documents(self, name: str, wanted: Json, params: Mapping[str, str]) -> dict[str, Json]:
        """id ─▶ what `_mget` answers of it, of those documents of `wanted` (its body) that exist.

        Raises:
            EngineError: of some document it is not to be known.
        """
        answer = self.request("POST", f"/{path_part(name)}/_mget", params=params, body=encode(wanted))
        for doc in answer["docs"]:
            # A shard that is on its way back: its documents are not known to be missing.
            if error := doc.get("error"):
                status = 404 if "index_not_found" in str(error.get("type")) else 503
                raise error_of_status(status, {"error": error}, f"POST /{name}/_mget")
        return {doc["_id"]: doc for doc in answer["docs"] if doc.get("found")}

    def search(self, name: str, body: Json, params: Mapping[str, str] | None = None) -> Json:
        answer: Json = self.request("POST", f"/{path_part(name)}/_search", params=params, body=encode(body))
        return answer

    def msearch(self, name: str, bodies: Iterable[Json]) -> list[Json]:
        """Several searches of one index in one request; their answers, in order.

        Raises:
            EngineError: one of them was refused.
        """
        lines = b"".join(b"{}\n%b\n" % encode(body) for body in bodies)
        answer = self.request("POST", f"/{path_part(name)}/_msearch", body=lines, ndjson=True)
        found: list[Json] = answer["responses"]
        for one in found:
            if "error" in one:
                raise error_of_status(int(one.get("status", 500)), one, f"POST /{name}/_msearch")
        return found


def basic_token(settings: EngineSettings) -> str:
    """User name and password as RFC 7617 wants them; the clients take Latin-1 or ASCII in the place of UTF-8."""
    return base64.b64encode(f"{settings.username}:{settings.password or ''}".encode()).decode()


def encode(body: Json) -> bytes:
    return msgspec.json.encode(body)


def path_part(name: str) -> str:
    """`name` as a part of a request's path."""
    return quote(name, safe="")


def parse_version(root: Any, url: str) -> tuple[int, int, int]:
    """The version in the answer to ``GET /``.

    Raises:
        RequestRejected: it is not the answer of an OpenSearch or Elasticsearch.
    """
    number = (root.get("version") or {}).get("number") if isinstance(root, dict) else None
    try:
        # A qualifier follows a dash: 3.0.0-beta1, 8.19.0-SNAPSHOT.
        parts = [int(part) for part in str(number).split("-")[0].split(".")]
        return (parts[0], parts[1], parts[2] if len(parts) > 2 else 0)
    except (ValueError, IndexError):
        raise not_an_engine(url, "its root says no version") from None


_NOT_IN_A_NAME = re.compile(r"""^[-_+]|[\\/*?"<>|,#\s\ud800-\udfff]""")


def check_index_name(name: str) -> None:
    """Raises UsageError for what names no single index: engines take patterns, lists and ``_all`` in its place."""
    found = _NOT_IN_A_NAME.search(name)
    if found or name in ("", ".", ".."):
        what = f"{found[0]!r} cannot be in it" if found else "it is a folder's" if name else "it is empty"
        if found and found[0] in "-_+":
            what = f"{found[0]!r} cannot stand first"
        raise UsageError(f"{name!r} is not the name of an index: {what}; name one index, or an alias of one")
