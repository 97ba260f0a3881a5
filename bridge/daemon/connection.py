"""One connection of a client: uvicorn's, with limits on what a client may make the daemon keep for it.

Let go is who sends a request's head byte by byte, or without an end; who asks and reads no answers; and who asks
thousands of times before reading one.

A request that is here as a whole, and whose answer waits for nothing, is answered where it arrives. What an application
needs around it (a task, events, messages to and fro) takes as long as such an answer does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, cast

from bridge.daemon.protocol import Protocol

HEAD_BYTES = 65_536
"""Of a request: its line and its headers. As much may stand between the parts of a body, and after it."""
HEADERS = 256
"""Of a request."""
HEAD_SECONDS = 30.0
"""From the first byte of a request's head to its last; and in which a piece of an answer that lies here unread is to be
read."""
PIPELINED = 64
"""Requests that a connection may send before the first of them is answered."""

AtOnce = Callable[[Sequence[tuple[bytes, bytes]], bytes], bytes | None]
"""A request's headers and body ─▶ the whole answer, head and all; None where the application is to answer."""

_PIECE = 65_536
"""Bytes; more is not gathered before it is written."""


class Connection(Protocol):
    """What uvicorn makes of each client that connects.

    Args:
        most: how many may be connected at once.
        at_once: method and path ─▶ what may answer without waiting.
        patience: seconds in the place of `HEAD_SECONDS`.
        idle: seconds for which a connection may stay open with nothing said.
        bodies: whether a body of which nothing more comes is waited for no longer than `patience`, too; else the
            application looks to that itself.
        arguments, named: uvicorn's.
    """

    def __init__(
        self,
        *arguments: Any,
        most: int,
        at_once: Mapping[tuple[bytes, bytes], AtOnce] = MappingProxyType({}),
        patience: float = HEAD_SECONDS,
        idle: float = HEAD_SECONDS,
        bodies: bool = False,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._most, self._at_once, self._patience, self._idle = most, at_once, patience, idle
        self._bodies = bodies
        self._silent_since: float | None = None
        """Since when nothing has come of a body; None while none is on its way."""
        self._asked: AtOnce | None = None
        """Of the request that is read, as long as the application does not know of it."""
        self._body = b""
        self._waits_since: float | None = None
        """For a request, or for the rest of one; None while one is answered."""
        self._between = True
        """No request has begun that has not ended."""
        self._came = 0
        """Bytes since the last end of a head or a part of a body."""
        self._unread = 0
        self._unread_since: float | None = None
        self._gathering: _Gathering
        self._looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathering = _Gathering(transport, self.loop)
        super().connection_made(cast("asyncio.Transport", self._gathering))
        self._waits_since = self.loop.time()
        self._look_again()
        if len(self.connections) > self._most:
            self._refuse(503, "too many are connected; try again in a moment")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)
        # What waits there names this connection: together they would stay until the collector finds them.
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._came += len(data)
        super().data_received(data)
        if self._asked is not None:
            # The rest of it is still to come.
            self._let_application_answer()
        if self._came > HEAD_BYTES:
            self._refuse(431, f"a request's head has more than {HEAD_BYTES:,} bytes")

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    # What the parser finds; it stops at an exception, and uvicorn answers 400.

    def on_message_begin(self) -> None:
        if self._body_only:
            # The application has the head already.
            return
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests before an answer")
        self._between = False
        if self._waits_since is not None:
            self._waits_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._body_only:
            return
        if len(self.headers) > HEADERS:
            raise ValueError("too many headers")
        self._waits_since, self._came = None, 0
        self._silent_since = self.loop.time()
        parser = self.parser
        asked = self._at_once.get((parser.get_method(), self.url))
        if (
            asked is None or self._is_busy or self.expect_100_continue
            or not parser.should_keep_alive() or parser.should_upgrade()
        ):  # fmt: skip
            super().on_headers_complete()
        else:
            self._asked, self._body = asked, b""

    def on_body(self, body: bytes) -> None:
        self._came, self._silent_since = 0, self.loop.time()
        if self._asked is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        self._came, self._between, self._silent_since = 0, True, None
        if self._asked is not None:
            answer = self._asked(self.headers, self._body)
            if answer is not None:
                self._asked, self._waits_since = None, self.loop.time()
                self._gathering.write_now(answer)
                return
            self._let_application_answer()
        super().on_message_complete()

    def _let_application_answer(self) -> None:
        self._asked = None
        if not self.transport.is_closing():
            super().on_headers_complete()
            if self._body:
                super().on_body(self._body)

    @property
    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._gathering.flush()
        if not self._is_busy:
            self._waits_since = self.loop.time()

    @property
    def _takes_no_body(self) -> bool:
        """Whether it is not the client's fault that nothing comes."""
        cycle = self.cycle
        return self.flow.read_paused or (cycle is not None and cycle.waiting_for_100_continue)

    def _look_again(self) -> None:
        # One timer that goes on costs less than one for each request.
        self._looking = self.loop.call_later(self._patience / 6, self._look)

    def _look(self) -> None:
        """End the connection if its client has had its time."""
        now, closing = self.loop.time(), self.transport.is_closing()
        waited = 0.0 if self._waits_since is None or closing else now - self._waits_since
        if waited > (self._idle if self._between and not self._came else self._patience):
            if self._came:
                self._refuse(408, "the request's head did not come in time")
            else:
                self.transport.close()
        if self._bodies and self._silent_since is not None and not closing:
            if self._takes_no_body:
                self._silent_since = now
            elif now - self._silent_since > self._patience:
                # The application hears that its client has gone, and breaks off what it was doing for it.
                self._refuse(408, "the request's body did not come in time")
        unread = self._gathering.get_write_buffer_size()
        if not unread and not closing:
            self._unread_since = None
        elif self._unread_since is None:
            self._unread, self._unread_since = unread, now
        elif now - self._unread_since > self._patience:
            if closing or unread > self._unread - _PIECE:
                self._gathering.abort()
                return
            self._unread, self._unread_since = unread, now
        self._look_again()

    def _refuse(self, status: int, why: str) -> None:
        """Say why, and close; where an answer is under way, only that."""
        if not self._is_busy:
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            self.transport.write(f"{head}content-length: {len(why)}\r\nconnection: close\r\n\r\n{why}".encode())
        self.transport.close()


class _Gathering:
    """A transport that writes in one piece what is written in one turn of the event loop.

    An answer's head and body come apart, and each write is a call of the system and wakes the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []
        self._size = 0
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > _PIECE:
            self.flush()

    def write_now(self, data: bytes) -> None:
        """Write all of an answer."""
        self._parts.append(data)
        self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
        if self._parts:
            parts, self._parts, self._size = self._parts, [], 0
            # uvloop takes nothing any more once it closes, which may be before anybody has heard of that.
            if not self._transport.is_closing():
                self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._parts.clear()
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return self._size + self._transport.get_write_buffer_size()
