"""The proxy between a client and an engine that the test plays: what is said over the wires, byte for byte."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.daemon.test_proxy import proxied

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@dataclass
class Engine:
    """Plays an engine: answers each request as it is told, and remembers what came."""

    answer: bytes | Callable[[bytes, bytes], bytes] = OK
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                self.bodies.append(await self._body(head.lower(), reader))
                self.came.set()
                answer = self.answer if isinstance(self.answer, bytes) else self.answer(head, self.bodies[-1])
                writer.write(answer)
                await writer.drain()
                if b"connection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()

    @staticmethod
    async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
        if b"transfer-encoding: chunked" not in head:
            _, found, rest = head.partition(b"content-length: ")
            return await reader.readexactly(int(rest.partition(b"\r\n")[0])) if found else b""
        parts: list[bytes] = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        return b"".join(parts)


@contextmanager
def playing(engine: Engine) -> Iterator[Engine]:
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(engine.serve, "127.0.0.1", 0))
    engine.url = "http://{}:{}".format(*server.sockets[0].getsockname())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def end() -> None:
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            await asyncio.wait([task])

    try:
        yield engine
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with playing(Engine()) as played:
        yield played


@pytest.fixture
def through(engine: Engine, tmp_path: Path) -> Iterator[str]:
    with proxied(tmp_path, engine.url, "articles") as url:
        yield url


def said(url: str, request: bytes, *, answers: int = 1, end: bool = False) -> bytes:
    """What is answered to bytes on a connection: until so many empty chunks, bodies of "{}" or the connection's end."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        found = b""
        while part := connection.recv(65_536):
            found += part
            if not end and found.count(b"{}") + found.count(b"\r\n0\r\n\r\n") >= answers:
                break
        return found


def test_headers_of_a_connection_stay_on_it(engine: Engine, through: str) -> None:
    engine.answer = (
        b"HTTP/1.1 200 OK\r\nX-Elastic-Product: Elasticsearch\r\nWarning: 299 a\r\nWarning: 299 b\r\n"
        b"Set-Cookie: session=of-this-client\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"content-type: application/vnd.elasticsearch+json;compatible-with=8\r\ncontent-length: 2\r\n\r\n{}"
    )
    request = (
        b"GET /_x HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-Opaque-Id: 7\r\n"
        b"Accept: application/vnd.elasticsearch+json; compatible-with=8\r\nAuthorization: Basic eDp5\r\n"
        b"TE: gzip\r\n\r\n"
    )
    answer = said(through, request)
    named = (b"warning", b"x-", b"keep", b"set")
    assert [line for line in answer.split(b"\r\n") if line.lower().startswith(named)] == [
        b"x-elastic-product: Elasticsearch", b"warning: 299 a", b"warning: 299 b",
        b"set-cookie: session=of-this-client",
    ]  # fmt: skip
    assert b"content-type: application/vnd.elasticsearch+json;compatible-with=8\r\n" in answer
    said(through, b"GET /_x HTTP/1.1\r\nHost: localhost\r\n\r\n")
    lines = engine.heads[0].lower().split(b"\r\n")
    assert b"x-opaque-id: 7" in lines
    assert b"authorization: basic edp5" in lines
    assert b"accept: application/vnd.elasticsearch+json; compatible-with=8" in lines
    assert not [line for line in lines if line.startswith((b"x-mine", b"te:", b"connection", b"user-agent"))]
    # Another client's request has nothing of it, nor has the proxy anything of its own to say.
    assert set(engine.heads[1].strip().lower().split(b"\r\n")[1:]) == {b"host: " + engine.url[7:].encode()}


def test_bodies_of_unknown_length_are_streams_both_ways(engine: Engine, through: str) -> None:
    engine.answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    request = (
        b"POST /_x?a=%2Fb HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    )
    answer = said(through, request)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    body = answer.split(b"\r\n\r\n", 2)[2]
    assert body.replace(b"\r\n", b"\n") in (b"3\nabc\n2\nde\n0\n\n", b"5\nabcde\n0\n\n")
    assert engine.bodies == [b"hello!"]
    assert engine.heads[0].startswith(b"POST /_x?a=%2Fb HTTP/1.1\r\n")


def test_answers_without_a_body(engine: Engine, through: str) -> None:
    engine.answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1234\r\n\r\n"
    answer = httpx.head(through + "/articles")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "1234", b"")
    engine.answer = b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n"
    answer = httpx.get(through + "/x")
    assert (answer.status_code, answer.headers["etag"], answer.content) == (304, "x", b"")


@pytest.mark.parametrize("offer", [b"h2c", b"TLS/1.2", b"websocket"])
def test_an_offer_of_another_protocol_is_not_taken(engine: Engine, through: str, offer: bytes) -> None:
    """As the clients of Java make it. Its body is read, and so are the requests after it."""
    head = b"POST /_x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n" \
           b"HTTP2-Settings: AAMAAABkAAQ\r\n" % offer  # fmt: skip
    chunked = b"POST /_y HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: upgrade\r\n" \
              b"Upgrade: h2c\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"  # fmt: skip
    requests = head + b"Content-Length: 5\r\n\r\nhello" + chunked + head + b"\r\n"
    answer = said(through, requests + b"GET /_z HTTP/1.1\r\nHost: localhost\r\n\r\n", answers=4)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert engine.bodies == [b"hello", b"abc", b"", b""]
    assert not [head for head in engine.heads if b"upgrade" in head.lower() or b"http2-settings" in head.lower()]


def test_half_an_answer_is_not_taken_for_a_whole_one(engine: Engine, through: str) -> None:
    for head in (b"content-length: 100", b"transfer-encoding: chunked"):
        engine.answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n%b\r\n\r\n3\r\nabc\r\n" % head
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(through + "/_x")
    engine.answer = b"connection: close"
    answer = httpx.get(through + "/_x")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (502, "the engine is not reached")
    # And it goes on.
    engine.answer = OK
    assert httpx.get(through + "/_x").json() == {}


def test_who_has_gone_is_worked_for_no_longer(engine: Engine, through: str) -> None:
    engine.answer = b""
    host, _, port = through.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET /_search?q=slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert engine.came.wait(30)
        assert not engine.gone.is_set()
    assert engine.gone.wait(30)
    # And with half of a body sent.
    engine.gone.clear()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /_x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
    engine.answer = OK
    assert httpx.get(through + "/_x").json() == {}
    assert len(engine.bodies) == 2


def test_a_body_that_does_not_go_on_is_not_waited_for(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text("[serve.limits]\nseconds = 2\n")
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    with proxied(tmp_path, engine.url, "articles") as url:
        # Passed on as it comes, and read first.
        for path in (b"/_x", b"/articles/_doc", b"/_bulk"):
            assert said(url, head % path + b"half", end=True) == b""
        assert engine.gone.wait(30)
        # One that goes on slowly, for longer than that in all.
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head % b"/_x")
            for _ in range(5):
                connection.sendall(b"a" * 20)
                time.sleep(0.8)
            assert connection.recv(65_536).endswith(b"{}")
        # And an engine that takes its time is no client that does not.
        engine.answer = lambda head, body: time.sleep(4) or OK  # type: ignore[func-returns-value]
        assert httpx.post(url + "/_x", content=b"a", timeout=30).json() == {}
    assert engine.bodies[-2:] == [b"a" * 100, b"a"]


def test_for_whom_a_request_is(engine: Engine, through: str) -> None:
    """A page of another site, whose name is made to point here, gets nothing."""
    answer = httpx.get(through + "/_search", headers={"host": "evil.example:80"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (421, "bridge_exception")
    assert engine.heads == []


def test_a_bulk_of_any_size_passes(engine: Engine, through: str) -> None:
    engine.answer = lambda head, body: OK
    line = b'{"index":{"_index":"other"}}\n{"text":"%b"}\n' % (b"x" * 1000)
    body = line * 25_000
    for raw, headers in ((body, {}), (gzip.compress(body, 1), {"content-encoding": "gzip"})):
        answer = httpx.post(through + "/_bulk", content=raw, timeout=60,
                            headers={"content-type": "application/x-ndjson", **headers})  # fmt: skip
        assert answer.json() == {}
        assert engine.bodies.pop() == body
        assert b"content-encoding" not in engine.heads.pop().lower()
    # A single line that is too large, and what is not packed as it says.
    answer = httpx.post(through + "/articles/_doc", content=b'{"text":"%b"}' % (b"x" * 21_000_000), timeout=60)
    assert (answer.status_code, answer.json()["status"]) == (413, 413)
    answer = httpx.post(through + "/_bulk", content=body, headers={"content-encoding": "gzip"}, timeout=60)
    assert answer.status_code == 400
    assert "not packed" in answer.json()["error"]["reason"]


def test_what_cannot_be_read_does_not_go_in_without_its_vector(engine: Engine, through: str) -> None:
    for headers in ({"content-type": "application/cbor"}, {"content-encoding": "br"}):
        for path in ("/articles/_doc/1", "/articles/_bulk"):
            answer = httpx.post(through + path, content=b"\xa0", headers=headers)
            assert answer.status_code == 415, (headers, path)
            assert "gain vectors here" in answer.json()["error"]["reason"]
    # Of other indices it is not the proxy's to say.
    assert httpx.post(through + "/other/_doc", content=b"\xa0", headers={"content-type": "application/cbor"}).is_success
    assert engine.bodies == [b"\xa0"]


def test_errors_are_those_of_an_engine(engine: Engine, through: str) -> None:
    """The bridge's own connection is not let in: the application hears nothing of that but that it cannot be."""
    engine.answer = b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    answer = httpx.post(through + "/articles/_search", json={"query": {"match": {"text": "x"}}})
    assert answer.status_code == 503
    assert json.loads(answer.content)["error"]["reason"] == "the index's model is not to be had just now"
