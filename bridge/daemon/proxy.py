"""The drop-in proxy: an application keeps its client and its plain queries.

Documents that it writes to the indices that are named gain vectors, and its questions to their text fields are asked of
those. Everything else passes, byte for byte.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import unquote

import aiohttp
import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.daemon.asks import Asks
from bridge.daemon.batching import Overloaded
from bridge.daemon.bodies import Gone
from bridge.daemon.forwarding import Forwarder, answered
from bridge.daemon.gate import Gate, Refused
from bridge.daemon.service import Service
from bridge.daemon.writes import Writes
from bridge.engines import Engine
from bridge.errors import BridgeError, DocumentError, RequestRejected, UsageError
from bridge.resolve import connect
from bridge.settings import Settings

_Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("bridge.proxy")


class Proxy:
    """What stands in front of an engine.

    Args:
        service: whose models encode.
        forwarder: what goes to the engine.
        indexes: the indices whose documents and questions are taken in hand.
        threads: what encodes runs on them.
    """

    def __init__(
        self, service: Service, forwarder: Forwarder, indexes: Collection[str], threads: ThreadPoolExecutor
    ) -> None:
        self._indexes = frozenset(indexes)
        self._forwarder = forwarder
        self._gate = Gate(service.settings, None)
        self._asks = Asks(service, forwarder, self._indexes, threads)
        self._writes = Writes(service, forwarder, self._indexes, threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False

        async def sending(message: Any) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            self._gate.check_host(dict(scope["headers"]))
            await (self._handler(scope) or self._forwarder.forward)(scope, receive, sending)
        except Gone:
            return
        except Exception as error:
            status, reason = _refusal(error)
            if status >= 500:
                _log.warning("%s %s: %s", scope["method"], scope["path"], str(error) or reason,
                             exc_info=error if status == 500 else None)  # fmt: skip
            # Half of an answer stays without its end, so that nobody takes it for a whole one.
            if not began:
                await _refuse(sending, status, reason)

    def _handler(self, scope: Scope) -> _Handler | None:
        """Who takes a request in hand; None where it passes as it is."""
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        parts = [unquote(part) for part in path.decode("latin-1").split("/") if part]
        if not parts or len(parts) > 3:
            return None
        index = None if parts[0].startswith("_") else parts[0]
        writes, asks = self._writes, self._asks
        match scope["method"], parts if index is None else parts[1:]:
            case "POST" | "PUT", ["_bulk"]:
                return partial(writes.bulk, index)
            case "GET" | "POST", ["_msearch"]:
                return partial(asks.msearch, index)
            case "GET" | "POST", ["_mget"]:
                return partial(asks.mget, index)
            case method, rest if index in self._indexes:
                return self._of_index(method, index, rest)
        return None

    def _of_index(self, method: str, index: str, rest: list[str]) -> _Handler | None:
        match method, rest:
            case ("POST", ["_doc"]) | ("POST" | "PUT", ["_doc" | "_create", _]):
                return partial(self._writes.document, index)
            case "POST", ["_update", name]:
                return partial(self._writes.update, index, name)
            case "GET" | "POST", ["_search"]:
                return partial(self._asks.search, index)
            case ("GET" | "POST", ["_count"]) | ("GET" | "POST", ["_explain", _]):
                return partial(self._asks.search, index, hits=False)
            case "GET" | "HEAD", ["_doc" | "_source", _]:
                return partial(self._asks.stored, index)
        return None


def _refusal(error: Exception) -> tuple[int, str]:
    """The status and the reason of an error; what concerns the hosts behind the proxy stands in its log alone."""
    match error:
        case Refused():
            return error.status, str(error)
        case aiohttp.ClientError() | TimeoutError():
            return 502, "the engine is not reached"
        case Overloaded():
            return 429, str(error)
        case DocumentError() | UsageError() | RequestRejected():
            return 400, str(error)
        case BridgeError():
            return 503, "the index's model is not to be had just now"
    return 500, "something went wrong in the proxy; its log says more"


async def _refuse(send: Send, status: int, reason: str) -> None:
    """An error as the engines answer it, so that their clients read it."""
    error = {"type": "bridge_exception", "reason": reason}
    body = msgspec.json.encode({"error": {"root_cause": [error], **error}, "status": status})
    await answered(send, status, [(b"content-type", b"application/json")], body)


def make_proxy(settings: Settings, upstream: str, connecting: Callable[[Settings], Engine] | None = None) -> ASGIApp:
    """The proxy in front of `upstream`, for the indices that the settings name.

    Args:
        settings: `serve.proxied` are the indices; `engine` is how the bridge itself asks the cluster for mappings and
            models. What an application sends goes on with its own credentials.
        upstream: the engine's URL.
        connecting: makes the bridge's own connection; `bridge.resolve.connect` by default.
    """
    service = Service(settings, connecting or (lambda one: connect(one, _log.info)))
    threads = ThreadPoolExecutor(settings.serve.limits.requests, thread_name_prefix="request")
    proxy: Proxy | None = None

    async def lifespan(receive: Receive, send: Send) -> None:
        nonlocal proxy
        await receive()
        # However long the engine takes: the application knows how long it waits, and that is noticed when it goes.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=_tls(settings)), timeout=timeout, auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(), max_line_size=65_536, max_field_size=65_536,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as session:  # fmt: skip
            proxy = Proxy(service, Forwarder(upstream, session), settings.serve.proxied, threads)
            await send({"type": "lifespan.startup.complete"})
            await receive()
        threads.shutdown(wait=True, cancel_futures=True)
        service.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif proxy is not None:
            await proxy(scope, receive, send)

    return app


def _tls(settings: Settings) -> ssl.SSLContext | bool:
    """How the engine's certificate is checked: as on the bridge's own connection."""
    engine = settings.engine
    if not engine.verify_tls:
        return False
    return ssl.create_default_context(cafile=engine.ca_file)
