"""A request, sent on to the engine as it came; its answer, as it comes. Both are streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import aiohttp
from starlette.types import Receive, Scope, Send
from yarl import URL

from bridge.daemon.bodies import Gone, parts_of

Headers = Sequence[tuple[bytes, bytes]]

_OWN = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade host expect".split()
)
"""Headers of one connection, and not of what is said over it (RFC 9110, 7.6.1); `connection` may name more."""


@dataclass(frozen=True, slots=True)
class Other:
    """What is sent in the place of what came."""

    body: bytes | AsyncIterator[bytes] | None = None
    query: bytes | None = None
    without: Collection[bytes] = ()
    """Headers that are left out."""
    headers: Headers = field(default=())
    """Headers that are added."""


AS_IT_CAME = Other()


class Forwarder:
    """Sends requests on.

    Args:
        upstream: the engine's URL, without a path of its own or with one that goes before every request's.
        session: whose connections are used; it must not decompress, keep cookies, nor add headers of its own.
    """

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream.rstrip("/")
        self._session = session

    async def forward(self, scope: Scope, receive: Receive, send: Send, other: Other = AS_IT_CAME) -> None:
        """Send a request on, and its answer back. What the engine does for a client that has gone is broken off.

        Raises:
            aiohttp.ClientError, TimeoutError: the engine is not reached, or lost in the middle of its answer.
            Gone: the client has.
            Exception: what an iterator that is `other.body` raises.
        """
        watch = _Watch(receive)
        body: _Body | bytes | None = None
        if isinstance(other.body, bytes):
            body = other.body
        elif other.body is not None:
            body = _Body(other.body, watch)
        elif _has_body(scope):
            body = _Body(parts_of(receive), watch)
        if not isinstance(body, _Body):
            watch.start()
        try:
            async with self._request(scope, other, body) as answer:
                head = {"type": "http.response.start", "status": answer.status, "headers": _passed(answer.raw_headers)}
                await send(head)
                content, more = answer.content, True
                while more:
                    part = await content.readany()
                    more = not content.at_eof()
                    if not more:
                        watch.stop()
                    await send({"type": "http.response.body", "body": part, "more_body": more})
        except asyncio.CancelledError:
            if not watch.gone:
                raise
            watch.forgive()
            raise Gone from None
        except aiohttp.ClientError:
            # The client wraps what ended the body.
            if isinstance(body, _Body) and body.error is not None:
                raise body.error from None
            raise
        finally:
            watch.stop()

    async def ask(self, scope: Scope, other: Other) -> tuple[int, Headers, bytes]:
        """Send a request on: its answer, whole."""
        body = other.body if isinstance(other.body, bytes) else None
        async with self._request(scope, other, body) as answer:
            return answer.status, _passed(answer.raw_headers), await answer.read()

    def _request(self, scope: Scope, other: Other, body: _Body | bytes | None) -> aiohttp.client._RequestContextManager:
        path = scope.get("raw_path") or scope["path"].encode()
        query = scope["query_string"] if other.query is None else other.query
        target = path + b"?" + query if query else path
        url = URL(self._upstream + target.decode("latin-1"), encoded=True)
        left = _left_out(scope["headers"])
        if other is not AS_IT_CAME:
            left = left.union(other.without)
            if other.body is not None:
                left = left | {b"content-length"}
        pairs = [*(pair for pair in scope["headers"] if pair[0] not in left), *other.headers]
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]
        return self._session.request(scope["method"], url, headers=headers, data=body, allow_redirects=False)


async def answered(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send an answer that is whole; its length is that of `body`."""
    pairs = [*(pair for pair in headers if pair[0] != b"content-length"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


_SOON = 0.05
"""Seconds; what is answered sooner is not worth watching over."""


class _Watch:
    """Ends the task that asks the engine when the client goes: the engine notices, and works for nobody no longer."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._over = False
        self.gone = False

    def start(self) -> None:
        """From here on; the request's body is read, and nothing but the client's end can come."""
        if not self._over:
            self._later = asyncio.get_running_loop().call_later(_SOON, self._begin)

    def stop(self) -> None:
        """What comes now comes too late."""
        self._over = True
        if self._later is not None:
            self._later.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def forgive(self) -> None:
        """The task was ended by this, and by nobody else."""
        if self._task is not None:
            self._task.uncancel()

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._task is not None:
            self._task.cancel()


class _Body:
    """A request's body, which remembers what ended it."""

    def __init__(self, parts: AsyncIterator[bytes], watch: _Watch) -> None:
        self._parts, self._watch = parts, watch
        self.error: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._parts:
                yield part
        except Exception as error:
            self.error = error
            raise
        self._watch.start()


def _left_out(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The names of the headers that are of this connection."""
    for name, value in headers:
        if name == b"connection" and (value := value.lower()) not in (b"keep-alive", b"close"):
            return _OWN.union(one.strip() for one in value.split(b","))
    return _OWN


def _passed(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    found = [(name.lower(), value) for name, value in raw]
    left = _left_out(found)
    return [pair for pair in found if pair[0] not in left]


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
