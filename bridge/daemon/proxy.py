"""The drop-in proxy: an application keeps its client and its plain queries.

Documents that it writes to the indices that are named gain vectors, and its questions to their text fields are asked of
those. Everything else passes, byte for byte.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode

import aiohttp
import msgspec
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from bridge.daemon.bodies import Gone, whole_body
from bridge.daemon.bulkbody import with_vectors
from bridge.daemon.embedding import Embedding
from bridge.daemon.forwarding import Forwarder
from bridge.daemon.messages import Asking
from bridge.daemon.proxied import rewritten
from bridge.daemon.service import Service
from bridge.engines import Engine
from bridge.errors import BridgeError, EngineBusy, EngineUnreachable
from bridge.resolve import connect
from bridge.settings import Settings

_Value = TypeVar("_Value")

_log = logging.getLogger("bridge.proxy")

_BULK = re.compile(r"/(?:([^/_][^/]*)/)?_bulk/?")
_WRITE = re.compile(r"/([^/_][^/]*)/(_doc|_create)(?:/([^/]+))?/?")
_UPDATE = re.compile(r"/([^/_][^/]*)/_update/([^/]+)/?")
_READ = re.compile(r"/([^/_][^/]*)/(_doc|_source)/([^/]+)/?")
_SEARCH = re.compile(r"/([^/_][^/]*)/_search/?")
_MSEARCH = re.compile(r"/(?:([^/_][^/]*)/)?_msearch/?")

_SOURCE = ("_source", "_source_includes", "_source_excludes", "_source_include", "_source_exclude")


class _Changed(NamedTuple):
    """A request's body, and its query where that is another, too."""

    body: bytes
    query: bytes | None = None


class Proxy:
    """An ASGI application in front of an engine.

    Args:
        service: whose models encode.
        forwarder: what goes to the engine.
        indexes: the indices whose documents and questions are taken in hand.
        threads: what encodes runs on them.
    """

    def __init__(
        self, service: Service, forwarder: Forwarder, indexes: Collection[str], threads: ThreadPoolExecutor
    ) -> None:
        self._service, self._forwarder = service, forwarder
        self._indexes = frozenset(indexes)
        self._threads = threads
        self._most = service.settings.limits.body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False

        async def sending(message: Any) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._serve(scope, receive, sending)
        except Gone:
            return
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.warning("%s %s: the engine is not reached: %s", scope["method"], scope["path"], error)
            if began:
                raise
            await _refuse(sending, 502, "the engine is not reached")
        except BridgeError as error:
            _log.warning("%s %s: %s", scope["method"], scope["path"], error)
            status = 503 if isinstance(error, EngineBusy | EngineUnreachable) else 400
            await _refuse(
                sending, status, str(error) if status == 400 else "the index's model is not to be had just now"
            )

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD") and (found := _READ.fullmatch(scope["path"])):
            query = await self._thread(self._unseen, scope, found[1]) if found[1] in self._indexes else None
            await self._forwarder.forward(scope, receive, send, query=query)
            return
        change = self._change(scope)
        if change is None:
            await self._forwarder.forward(scope, receive, send)
            return
        raw = await whole_body(receive, self._most)
        if raw is None:
            await _refuse(send, 413, f"the body has more than {self._most:,} bytes, which is all that is taken")
            return
        plain, left = _unpacked(scope, raw, self._most)
        if plain is None:
            await self._forwarder.forward(scope, receive, send, body=raw)
            return
        made = await self._thread(change, plain)
        if made.body == plain:
            await self._forwarder.forward(scope, receive, send, body=raw)
        else:
            await self._forwarder.forward(scope, receive, send, body=made.body, query=made.query, without=left)

    async def _thread(self, work: Callable[..., _Value], *arguments: Any) -> _Value:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _change(self, scope: Scope) -> Callable[[bytes], _Changed] | None:
        """What is done to a request's body; None where it passes as it is."""
        method, path = scope["method"], scope["path"]
        if method in ("PUT", "POST"):
            if found := _BULK.fullmatch(path):
                return partial(self._bulk, found[1])
            if (found := _WRITE.fullmatch(path)) and found[1] in self._indexes:
                return partial(self._document, found[1])
            if (found := _UPDATE.fullmatch(path)) and found[1] in self._indexes:
                return partial(self._update, found[1], unquote(found[2]), scope)
        if method in ("GET", "POST"):
            if (found := _SEARCH.fullmatch(path)) and found[1] in self._indexes:
                return partial(self._search, found[1], scope)
            if found := _MSEARCH.fullmatch(path):
                return partial(self._msearch, found[1])
        return None

    # Writing

    def _embedding(self, index: str) -> Embedding | None:
        if index not in self._indexes:
            return None
        service = self._service
        model = service.model_of(index)
        if model is None or not model.document_encoder:
            return None
        encoder, dense = service.stored(model.document_encoder), service.stored_dense(model.dense_encoder)
        return Embedding(service.engine, index, model, encoder, dense)

    def _bulk(self, index: str | None, raw: bytes) -> _Changed:
        return _Changed(with_vectors(raw, index, self._embedding))

    def _document(self, index: str, raw: bytes) -> _Changed:
        embedding, document = self._embedding(index), _json(raw)
        if embedding is None or not isinstance(document, dict):
            return _Changed(raw)
        return _Changed(msgspec.json.encode(embedding.with_vectors([document])[0]))

    def _update(self, index: str, name: str, scope: Scope, raw: bytes) -> _Changed:
        content = _json(raw)
        if not isinstance(content, dict):
            return _Changed(raw)
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        target = {"_id": name} | {key: value for key, value in asked if key == "routing"}
        lines = b"\n".join((msgspec.json.encode({"update": target}), msgspec.json.encode(content), b""))
        head, body, _ = with_vectors(lines, index, self._embedding).split(b"\n")
        if body == lines.split(b"\n")[1]:
            return _Changed(raw)
        made = msgspec.json.decode(head)["update"]
        stored = {key: made[key] for key in ("if_seq_no", "if_primary_term") if key in made}
        left = [(key, value) for key, value in asked if not (stored and key == "retry_on_conflict")]
        return _Changed(body, urlencode([*left, *stored.items()]).encode())

    # Asking

    def _search(self, index: str, scope: Scope, raw: bytes) -> _Changed:
        body = _json(raw) if raw.strip() else {}
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if not isinstance(body, dict) or "q" in query or "source" in query:
            return _Changed(raw)
        made = self._asked(body, index, shown=not any(name in query for name in _SOURCE))
        return _Changed(raw if made == body else msgspec.json.encode(made))

    def _msearch(self, default: str | None, raw: bytes) -> _Changed:
        lines = raw.split(b"\n")
        made: list[bytes] = []
        place = 0
        while place < len(lines):
            head = lines[place]
            made.append(head)
            place += 1
            if place >= len(lines) or (not head.strip() and place == len(lines)):
                continue
            said, body = _json(head) if head.strip() else {}, _json(lines[place])
            index = said.get("index", default) if isinstance(said, dict) else None
            index = index[0] if isinstance(index, list) and len(index) == 1 else index
            line = lines[place]
            if isinstance(body, dict) and isinstance(index, str) and index in self._indexes:
                asked = self._asked(body, index, shown=True)
                line = line if asked == body else msgspec.json.encode(asked)
            made.append(line)
            place += 1
        return _Changed(b"\n".join(made))

    def _asked(self, body: dict[str, Any], index: str, *, shown: bool) -> dict[str, Any]:
        """A search body, asked of vectors; what the bridge keeps in documents comes along only where it is named."""
        model = self._service.model_of(index)
        if model is None:
            return body
        wanted = _whole(body.get("size", 10)) + _whole(body.get("from", 0))

        def ask(text: str) -> dict[str, Any]:
            way = self._service.known_way(_PLAIN, index) or self._service.way(_PLAIN, index)
            return way.rewriter.query(way.rewriter.encode(text), size=max(1, wanted))

        made = body
        if "query" in body:
            made = body | {"query": rewritten(body["query"], model.text_fields, model.path, ask)}
        if shown and "_source" not in body:
            made = made | {"_source": {"excludes": list(model.own_fields)}}
        return made

    def _unseen(self, scope: Scope, index: str) -> bytes | None:
        """The query of a request for a document, so that what the bridge keeps in it does not come along."""
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(name in _SOURCE or name == "stored_fields" for name, _ in asked):
            return None
        model = self._service.model_of(index)
        if model is None:
            return None
        return urlencode([*asked, ("_source_excludes", ",".join(model.own_fields))]).encode()


_PLAIN = Asking()


def _json(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value <= 10_000 else 10


def _unpacked(scope: Scope, raw: bytes, most: int) -> tuple[bytes | None, tuple[bytes, ...]]:
    """A body as it is before its content encoding, and the headers that speak of that; None where that is not known."""
    encoding = dict(scope["headers"]).get(b"content-encoding", b"identity").strip().lower()
    if encoding == b"identity":
        return raw, ()
    if encoding != b"gzip":
        return None, ()
    try:
        with gzip.GzipFile(fileobj=BytesIO(raw)) as file:
            plain = file.read(most + 1)
    except (OSError, EOFError, zlib.error):
        return None, ()
    return (plain if len(plain) <= most else None), (b"content-encoding",)


async def _refuse(send: Send, status: int, reason: str) -> None:
    """An error as the engines answer it, so that their clients read it."""
    error = {"type": "bridge_exception", "reason": reason}
    body = msgspec.json.encode({"error": {"root_cause": [error], **error}, "status": status})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def make_proxy(settings: Settings, upstream: str, connecting: Callable[[Settings], Engine] | None = None) -> Starlette:
    """The proxy in front of `upstream`, for the indices that the settings name.

    Args:
        settings: `serve.proxied` are the indices; `engine` is how the bridge itself asks the cluster for mappings and
            models. What an application sends goes on with its own credentials.
        upstream: the engine's URL.
        connecting: makes the bridge's own connection; `bridge.resolve.connect` by default.
    """
    service = Service(settings, connecting or (lambda one: connect(one, _log.info)))
    threads = ThreadPoolExecutor(settings.serve.limits.requests, thread_name_prefix="request")
    state: dict[str, Proxy] = {}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=settings.engine.timeout)
        connector = aiohttp.TCPConnector(limit=0, ssl=_tls(settings))
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as session:  # fmt: skip
            state["proxy"] = Proxy(service, Forwarder(upstream, session), settings.serve.proxied, threads)
            yield
        threads.shutdown(wait=True, cancel_futures=True)
        service.close()

    async def ask(scope: Scope, receive: Receive, send: Send) -> None:
        await state["proxy"](scope, receive, send)

    return Starlette(routes=[Mount("/", app=ask)], lifespan=lifespan)


def _tls(settings: Settings) -> ssl.SSLContext | bool:
    """How the engine's certificate is checked: as on the bridge's own connection."""
    engine = settings.engine
    if not engine.verify_tls:
        return False
    return ssl.create_default_context(cafile=engine.ca_file)
