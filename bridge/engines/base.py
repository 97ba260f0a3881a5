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

from bridge.errors import (
    EngineBusy,
    EngineError,
    EngineForbidden,
    EngineTimeout,
    EngineTlsError,
    EngineUnreachable,
    IndexNotFound,
    IndexReadOnly,
    NotAnEngine,
    RequestRejected,
    RequestTooLarge,
    UsageError,
)
from bridge.settings import EngineSettings, Product

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

    def health(self) -> str:
        """``green``, ``yellow`` or ``red``."""
        return str(self.request("GET", "/_cluster/health").get("status", "unknown"))

    # Indices

    def get_index(self, name: str) -> IndexState | None:
        """The index of that name, or behind that alias; None where there is none.

        Raises:
            UsageError: `name` is no name but a pattern, a list, or nothing.
            RequestRejected: the alias stands for several indices.
        """
        check_index_name(name)
        try:
            found = self.request("GET", f"/{_part(name)}", params={"flat_settings": "true"})
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
        self.request("PUT", f"/{_part(name)}", body=encode(body))

    def delete_index(self, name: str) -> None:
        self.request("DELETE", f"/{_part(name)}")

    def put_mapping(self, name: str, body: Json) -> None:
        self.request("PUT", f"/{_part(name)}/_mapping", body=encode(body))

    def put_settings(self, name: str, body: Json) -> None:
        self.request("PUT", f"/{_part(name)}/_settings", body=encode(body))

    def refresh(self, name: str) -> None:
        self.request("POST", f"/{_part(name)}/_refresh")

    def count(self, name: str) -> int:
        return int(self.request("GET", f"/{_part(name)}/_count")["count"])

    def get_search_pipeline(self, name: str) -> Json | None:
        try:
            found: Json = self.request("GET", f"/_search/pipeline/{_part(name)}")
        except IndexNotFound:
            return None
        return found.get(name)

    def put_search_pipeline(self, name: str, body: Json) -> None:
        self.request("PUT", f"/_search/pipeline/{_part(name)}", body=encode(body))

    # Documents

    def bulk(self, name: str, body: bytes, *, refresh: bool = False) -> list[Json]:
        """Send one `_bulk` body; one item an action, in order: ``{"create": {"_id", "status", "error"?}}``."""
        params = {"filter_path": "items.*._id,items.*.status,items.*.error"}
        if refresh:
            params["refresh"] = "true"
        answer = self.request("POST", f"/{_part(name)}/_bulk", params=params, body=body, ndjson=True)
        return list(answer.get("items", []))

    def get_sources(self, name: str, ids: Sequence[str], fields: Iterable[str]) -> dict[str, Json]:
        """id ─▶ the asked-for fields, of those documents that exist (also ones not yet searchable)."""
        if not ids:
            return {}
        answer = self.request(
            "POST",
            f"/{_part(name)}/_mget",
            params={"_source_includes": ",".join(fields)},
            body=encode({"ids": list(ids)}),
        )
        return {doc["_id"]: doc.get("_source") or {} for doc in answer["docs"] if doc.get("found")}

    def search(self, name: str, body: Json, params: Mapping[str, str] | None = None) -> Json:
        answer: Json = self.request("POST", f"/{_part(name)}/_search", params=params, body=encode(body))
        return answer


def basic_token(settings: EngineSettings) -> str:
    """User name and password as RFC 7617 wants them; the clients take Latin-1 or ASCII in the place of UTF-8."""
    return base64.b64encode(f"{settings.username}:{settings.password or ''}".encode()).decode()


def encode(body: Json) -> bytes:
    return msgspec.json.encode(body)


def _part(name: str) -> str:
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


def not_an_engine(url: str, why: str) -> NotAnEngine:
    return NotAnEngine(
        f"what answers at {url} is neither OpenSearch nor Elasticsearch ({why}); check the URL's host, port and path"
    )


def unreachable(url: str, error: object) -> EngineUnreachable:
    """No connection, or a broken one; `error` is what the client's transport said."""
    hint = "is the engine running there?"
    text = str(error)
    if url.startswith("http:") and re.search(r"closed connection|reset by peer|BadStatusLine|EOF", text):
        hint = "if the engine speaks TLS, write https://"
    return EngineUnreachable(f"cannot reach {url}: {_bare(text)}; {hint}")


def timed_out(url: str, what: str, seconds: float) -> EngineTimeout:
    return EngineTimeout(f"{what}: {url} did not answer in {seconds:g} s; BRIDGE_TIMEOUT gives it longer")


def tls_failed(url: str, error: object) -> EngineTlsError:
    """The handshake failed; `error` is what the TLS library said."""
    text = _bare(str(error))
    hint = "name the certificate authority's PEM file with BRIDGE_CA_FILE"
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        hint = "what listens there speaks no TLS: write http:// if that is meant"
    return EngineTlsError(f"the TLS handshake with {url} failed: {text}; {hint}")


def _bare(text: str) -> str:
    """What a transport says, without the Python objects that it prints around it."""
    _, _, reason = text.partition("): ")
    text = reason or text
    # ('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))
    inner = re.fullmatch(r"\('[^']*', \w+\((?:\d+, )?['\"](.*)['\"]\)\)", text)
    return inner[1] if inner else text


def error_of_status(status: int, answer: Any, what: str) -> EngineError:
    """The leaf of the tree that an HTTP status and its body mean; `what` names the request."""
    reason = reason_of(answer) or f"HTTP {status}"
    if status in (401, 403):
        if "blocked by: [FORBIDDEN/" in reason:
            return IndexReadOnly(f"{what}: the index is blocked for writing: {reason}", status=status)
        hint = (
            "set OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD (ELASTICSEARCH_… alike) or BRIDGE_API_KEY"
            if status == 401
            else "the user lacks a permission"
        )
        return EngineForbidden(
            f"{what}: the engine refused the credentials ({status}): {reason}; {hint}", status=status
        )
    if status == 404 and not isinstance(answer, dict):
        # An engine explains in JSON what it did not find; a web server has a page for it.
        return NotAnEngine(
            f"{what}: what answers is not an engine but says (404): {reason}; check the URL's host, port and path"
        )
    if 300 <= status < 400:
        return NotAnEngine(f"{what}: what answers redirects ({status}); check the URL: is it that of a login page?")
    if status == 404:
        return IndexNotFound(f"{what}: not found: {reason}", status=status)
    if status == 413:
        return RequestTooLarge(f"{what}: the body is larger than the engine takes", status=status)
    if status in (429, 502, 503, 504):
        if "read_only_allow_delete" in reason or "read-only-allow-delete" in reason:
            return IndexReadOnly(f"{what}: the index is blocked for writing: {reason}", status=status)
        return EngineBusy(f"{what}: the engine asks to wait ({status}): {reason}", status=status)
    return RequestRejected(f"{what}: the engine refused it ({status}): {reason}", status=status)


def reason_of(answer: Any) -> str:
    """The most telling line of an error answer: the innermost cause, in the engine's words."""
    if isinstance(answer, (bytes, str)):
        text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
        return " ".join(text.split())[:300]
    # Gateways in front of an engine (AWS's, say) answer with a message alone.
    error = answer.get("error", answer.get("message", answer)) if isinstance(answer, dict) else None
    if isinstance(error, str):
        return error[:500]
    if not isinstance(error, dict):
        return ""
    parts: list[str] = []
    while isinstance(error, dict):
        reason = error.get("reason")
        if isinstance(reason, str) and reason not in parts:
            parts.append(reason)
        error = error.get("caused_by")
    return ": ".join(" ".join(part.split()) for part in parts)[:500]
