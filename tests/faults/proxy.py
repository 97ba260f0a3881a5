"""A reverse proxy between the bridge and a real node that breaks `_bulk` requests, as networks and gateways do.

Each fault is drawn from a seeded plan, one entry a `_bulk` request; everything else passes through. The proxy speaks
HTTP/1.1 with bodies of known length, which is what both clients send.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

FAULTS = (
    "latency",              # the answer comes late
    "lost_request",         # the connection is reset before the engine sees the request
    "lost_answer",          # … after the engine has done it
    "half_answer",          # … in the middle of the answer
    "short_answer",         # the connection is closed in the middle of the answer, without a reset
    "busy",                 # 429, not forwarded
    "unavailable",          # 503, not forwarded
    "too_large",            # 413, not forwarded, for more than a few documents
    "gateway_page",         # 502 with a page of HTML
    "cut_json",             # 200 with half of the JSON, its length to match
    "twice_sent",           # the engine gets the request twice
    "twice_answered",       # the answer comes twice on the same connection
    "items_429",            # some items rejected by a full queue, the others done
    "items_400",            # some items throttled, which says 400
)  # fmt: skip

QUEUE_FULL = {"type": "es_rejected_execution_exception", "reason": "rejected execution of primary operation"}
THROTTLED = {"type": "status_exception", "reason": "Error from remote service: Too many requests, rate exceeded"}


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer: its first line, headers and body."""

    start: str
    headers: list[tuple[str, str]]
    body: bytes

    def raw(self) -> bytes:
        head = [self.start, *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join([*head, "", ""]).encode("latin-1") + self.body

    @property
    def is_bulk(self) -> bool:
        return "/_bulk" in self.start.split(" ")[1]


@dataclass
class FaultProxy:
    """`url` is the proxy's own; `done` counts the faults that were committed."""

    upstream: str
    plan: Iterator[str | None]
    url: str = ""
    done: Counter[str] = field(default_factory=Counter)
    bulks: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the client, until it or a fault closes it."""
        try:
            while (request := await read_message(reader)) is not None:
                fault = None
                if request.is_bulk:
                    self.bulks += 1
                    fault = next(self.plan, None)
                if fault:
                    self.done[fault] += 1
                if not await self._answer(request, fault, writer):
                    return
        except (OSError, asyncio.IncompleteReadError):
            reset(writer)
        except asyncio.CancelledError:
            # The proxy ends; a stream's task must not end with this, or asyncio reports it.
            return
        finally:
            writer.close()

    async def _answer(self, request: Message, fault: str | None, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is over."""
        if fault == "latency":
            await asyncio.sleep(0.3)
        if fault == "lost_request":
            return reset(writer)
        if fault == "too_large" and request.body.count(b"\n") <= 20:
            fault = None
        if fault in REFUSALS:
            writer.write(REFUSALS[fault].raw())
            await writer.drain()
            return True
        if fault in ("items_429", "items_400"):
            answer = await self._partly(request, QUEUE_FULL if fault == "items_429" else THROTTLED)
        else:
            answer = await self._forward(request)
            if fault == "twice_sent":
                answer = await self._forward(request)
        if fault == "lost_answer":
            return reset(writer)
        if fault in ("half_answer", "short_answer"):
            raw = answer.raw()
            writer.write(raw[: len(raw) - len(answer.body) // 2 - 1])
            await writer.drain()
            return reset(writer) if fault == "half_answer" else False
        if fault == "cut_json":
            answer = with_body(answer, answer.body[: len(answer.body) // 2])
        writer.write(answer.raw() * (2 if fault == "twice_answered" else 1))
        await writer.drain()
        return True

    async def _forward(self, request: Message) -> Message:
        parts = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(request.raw())
            await writer.drain()
            answer = await read_message(reader)
        finally:
            writer.close()
        if answer is None:
            raise ConnectionResetError
        return answer

    async def _partly(self, request: Message, error: Mapping[str, Any]) -> Message:
        """Forward two documents of three, and refuse the third."""
        actions = list(split_actions(request.body))
        kept = [lines for place, lines in enumerate(actions) if place % 3]
        items = iter([])
        if kept:
            answer = await self._forward(with_body(request, b"".join(kept)))
            content = json.loads(answer.body)
            if "items" not in content:
                return answer
            items = iter(content["items"])
        merged = []
        for place, lines in enumerate(actions):
            ((operation, target),) = json.loads(lines.split(b"\n", 1)[0]).items()
            if place % 3:
                merged.append(next(items))
            else:
                status = 429 if error is QUEUE_FULL else 400
                merged.append({operation: {"_id": target["_id"], "status": status, "error": dict(error)}})
        return json_answer("200 OK", {"took": 1, "errors": True, "items": merged})


def split_actions(body: bytes) -> Iterator[bytes]:
    """The lines of each action of a `_bulk` body."""
    lines = iter(body.split(b"\n")[:-1])
    for line in lines:
        yield line + b"\n" + (b"" if line.startswith(b'{"delete"') else next(lines) + b"\n")


def with_body(message: Message, body: bytes) -> Message:
    kept = [(name, value) for name, value in message.headers if name.lower() != "content-length"]
    return Message(message.start, [*kept, ("content-length", str(len(body)))], body)


def json_answer(status: str, content: Any) -> Message:
    body = json.dumps(content).encode()
    # Elasticsearch's client looks for the product's name.
    headers = [("content-type", "application/json"), ("X-elastic-product", "Elasticsearch"), ("x-test", "proxy")]
    return with_body(Message(f"HTTP/1.1 {status}", headers, b""), body)


REFUSALS = {
    "busy": json_answer("429 Too Many Requests", {"error": QUEUE_FULL, "status": 429}),
    "unavailable": json_answer("503 Service Unavailable", {"error": {"reason": "no master"}, "status": 503}),
    "too_large": json_answer("413 Request Entity Too Large", {"error": {"reason": "too large"}, "status": 413}),
    "gateway_page": with_body(
        Message("HTTP/1.1 502 Bad Gateway", [("content-type", "text/html")], b""), b"<html>bad gateway</html>"
    ),
}


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """A request or an answer; None where the connection is at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    start, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    known = {name.lower(): value for name, value in headers}
    if known.get("transfer-encoding", "").lower() == "chunked":
        body = await read_chunks(reader)
        headers = [(name, value) for name, value in headers if name.lower() != "transfer-encoding"]
        return with_body(Message(start, headers, b""), body)
    return Message(start, headers, await reader.readexactly(int(known.get("content-length", 0))))


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


def reset(writer: asyncio.StreamWriter) -> bool:
    """End the connection as a crashed peer does; always False."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        # SO_LINGER of zero seconds: what is not sent is thrown away, and the peer gets a reset.
        import socket

        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def seeded_plan(seed: int, rate: float = 0.3, faults: tuple[str, ...] = FAULTS) -> Iterator[str | None]:
    """One entry a `_bulk` request, forever: a fault at `rate`, else None. Never the same fault for ever."""
    source = random.Random(seed)
    while True:
        yield source.choice(faults) if source.random() < rate else None


@contextmanager
def fault_proxy(upstream: str, plan: Iterator[str | None]) -> Iterator[FaultProxy]:
    """A running proxy in front of `upstream`, on a free port of the loopback address."""
    proxy = FaultProxy(upstream, plan)
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def start() -> asyncio.Server:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 26)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        return server

    def run() -> None:
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(start())
        loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run, name="fault-proxy", daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
