"""One operation: key, limits, body ─▶ handler ─▶ answer, with a measure and a line in the log.

An ASGI application of its own, not a function behind Starlette's `Request`: what a rewrite costs is of the order of
what the objects around a request cost.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import GenericAlias
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from bridge.daemon.batching import Overloaded
from bridge.daemon.bodies import Gone, whole_body
from bridge.daemon.deadlines import Deadlines
from bridge.daemon.gate import Gate, Refused
from bridge.daemon.keys import Key
from bridge.daemon.keys import Scope as KeyScope
from bridge.daemon.logs import AccessLog
from bridge.daemon.messages import Problem
from bridge.daemon.metrics import Metrics
from bridge.errors import (
    BridgeError,
    CheckpointError,
    DocumentError,
    EngineBusy,
    EngineError,
    EngineForbidden,
    EngineTimeout,
    EngineUnreachable,
    IndexConflict,
    IndexNotFound,
    IndexReadOnly,
    MissingExtra,
    ModelMismatch,
    ModelNotFound,
    RequestRejected,
    SourceError,
    UnsupportedByEngine,
    UsageError,
)

JSON = "application/json"
NDJSON = "application/x-ndjson"
PROBLEM = "application/problem+json"

_JSON = JSON.encode()

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_PROCESS = secrets.token_hex(4)
_numbers = count()
"""The two make a request's id: other than any other, and no secret."""

_log = logging.getLogger("bridge.daemon")

_STATUS: tuple[tuple[type[BridgeError], int], ...] = (
    (Overloaded, 429),
    (EngineTimeout, 504),
    (EngineForbidden, 502),
    (EngineUnreachable, 502),
    (EngineBusy, 503),
    (IndexReadOnly, 503),
    (IndexNotFound, 404),
    (IndexConflict, 409),
    (ModelMismatch, 409),
    (ModelNotFound, 404),
    (UnsupportedByEngine, 400),
    (RequestRejected, 400),
    (CheckpointError, 409),
    (UsageError, 400),
    (DocumentError, 400),
    (SourceError, 400),
    (MissingExtra, 501),
)
"""What kind of error ─▶ status; the first that fits."""

_INNER = "the engine cannot be asked just now; the daemon's log says more"
"""In place of a message that names hosts, and what went wrong with them."""


class Call(msgspec.Struct, frozen=True):
    """A request as a handler sees it."""

    body: Any
    """The decoded message; bytes where an operation takes them as they are; None where it takes none."""
    path: Mapping[str, str]
    query: Mapping[str, str]
    key: Key
    kind: str
    """The body's media type."""
    id: str


class Reply(msgspec.Struct, frozen=True):
    """An answer with a status of its own, or of another form than JSON."""

    body: Any
    status: int = 200
    kind: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a path or query, as the description of the interface has it."""

    name: str
    place: str
    """``path`` or ``query``."""
    says: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    name: str
    scope: KeyScope | None
    """What a key must allow; None where nobody needs one."""
    handler: Handler
    says: str
    takes: type | None = None
    """The message that the body holds."""
    lines: bool = False
    """The body may also be NDJSON; the handler gets bytes then."""
    gives: type | GenericAlias | None = None
    status: int = 200
    parameters: tuple[Parameter, ...] = ()
    on_busy: tuple[tuple[str, str], ...] = ()
    """Headers of an answer 429, beside Retry-After."""
    at_once: Callable[[Call], Any] | None = None
    """The answer, or its JSON, if it is to be had without waiting for anything; otherwise None: `handler` is asked."""


class Endpoint:
    """An operation as an ASGI application."""

    def __init__(
        self, operation: Operation, gate: Gate, metrics: Metrics, deadlines: Deadlines, access: AccessLog | None
    ) -> None:
        self.operation = operation
        self._gate = gate
        self._measure = metrics.measure(operation.name)
        takes: Any = operation.takes
        self._decode: Callable[[bytes], Any] | None = msgspec.json.Decoder(takes).decode if takes else None
        self._encode = msgspec.json.Encoder().encode
        self._deadlines = deadlines
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = dict(scope["headers"])
        identity = _request_id(headers)
        status, name = 500, ""
        entered = False
        task = self._deadlines.begin()
        try:
            try:
                if self.operation.scope is not None:
                    # Whether the daemon lives can be asked, however much it has to do.
                    self._gate.enter()
                    entered = True
                reply, name = await self._answer(scope, headers, receive, identity)
                body = reply.body if isinstance(reply.body, bytes) else self._encode(reply.body)
            except Gone:
                status = 499
                return
            except asyncio.CancelledError:
                if not self._deadlines.end(task):
                    raise
                reply, body = self._problem(TimeoutError(), identity)
            except Exception as error:
                reply, body = self._problem(error, identity)
            finally:
                self._deadlines.end(task)
            status = reply.status
            await _send(send, reply, body, identity)
        finally:
            if entered:
                self._gate.leave()
            self._count(scope["path"], status, identity, name, time.perf_counter() - started)

    def at_once(self, listed: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes | None:
        """The whole answer to a request with these headers and this body, as it is sent; see `Operation.at_once`.

        None also where something is wrong with the request: what is said then is said in one place.
        """
        operation, gate = self.operation, self._gate
        started = time.perf_counter()
        headers = dict(listed)
        if operation.at_once is None or gate.is_full or headers.get(b"content-type") != _JSON:
            return None
        try:
            key = gate.check(operation.scope, {"method": operation.method}, headers)
            identity = _request_id(headers)
            call = Call(self._decode(body) if self._decode else None, {}, {}, key, JSON, identity)
            found = operation.at_once(call)
            if found is None:
                return None
            content = found if isinstance(found, bytes) else self._encode(found)
        except Exception:
            # The application comes to the same end, and says so.
            return None
        answer = _AT_ONCE % (operation.status, identity.encode(), len(content), content)
        self._count(operation.path, operation.status, identity, key.name, time.perf_counter() - started)
        return answer

    def _count(self, path: str, status: int, identity: str, name: str, seconds: float) -> None:
        self._measure(status, seconds)
        if self._access is not None:
            self._access(self.operation.method, path, status, identity, name, seconds)

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, identity: str
    ) -> tuple[Reply, str]:
        operation = self.operation
        key = self._gate.check(operation.scope, scope, headers)
        body: Any = None
        given = headers.get(b"content-type", b"")
        kind = JSON if given == _JSON else given.split(b";", 1)[0].strip().lower().decode("latin-1")
        if self._decode is not None:
            raw = await self._body(headers, receive)
            lines = operation.lines and kind in (NDJSON, "application/jsonl")
            if not lines and kind != JSON:
                # A page of another site can send forms and plain text without being asked, but not this.
                wanted = f"{JSON} or {NDJSON}" if operation.lines else JSON
                raise Refused(415, f"the body's content type is {kind or 'not given'}; it is to be {wanted}")
            body = raw if lines else self._decoded(raw)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"))) if scope["query_string"] else {}
        call = Call(body, scope.get("path_params") or {}, query, key, kind, identity)
        found = await operation.handler(call)
        return found if isinstance(found, Reply) else Reply(found, operation.status), key.name

    def _decoded(self, raw: bytes) -> Any:
        decode = self._decode
        if decode is None:
            return None
        try:
            return decode(raw)
        except msgspec.ValidationError as error:
            raise Refused(422, f"the body is not what {self.operation.path} takes: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, f"the body is not JSON: {error}") from None

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        most = self._gate.limits.body_bytes
        length = headers.get(b"content-length", b"")
        if length.isdigit() and len(length) < 20 and int(length) > most:
            raise Refused(413, f"the body has {int(length):,} bytes; {most:,} are taken")
        body = await whole_body(receive, most)
        if body is None:
            raise Refused(413, f"the body has more than {most:,} bytes, which is all that is taken")
        return body

    def _problem(self, error: Exception, identity: str) -> tuple[Reply, bytes]:
        detail = str(error)
        headers: tuple[tuple[str, str], ...] = ()
        title = type(error).__name__
        if isinstance(error, Refused):
            status, title, headers = error.status, error.title, error.headers
        elif isinstance(error, TimeoutError):
            status, title = 504, "Timeout"
            detail = f"the request was not answered within {self._gate.limits.seconds:g} seconds"
        elif isinstance(error, BridgeError):
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
            if status >= 500 and isinstance(error, EngineError):
                _log.warning("%s: %s", title, detail, extra={"request_id": identity})
                detail = _INNER
            elif status == 500:
                _log.error("%s: %s", title, detail, extra={"request_id": identity})
        else:
            status, title, detail = 500, "InternalError", "something went wrong here; the daemon's log says more"
            _log.error("unexpected %s", type(error).__name__, exc_info=error, extra={"request_id": identity})
        if status in (429, 503) and not headers:
            headers = (("retry-after", "1"),)
        if status == 429:
            headers += self.operation.on_busy
        problem = Problem(title=title, status=status, detail=detail, request_id=identity)
        return Reply(problem, status, PROBLEM, headers), self._encode(problem)


def _request_id(headers: dict[bytes, bytes]) -> str:
    """The client's own, where it is one that can stand in a log."""
    given = headers.get(b"x-request-id")
    if given is not None and _ID.fullmatch(found := given.decode("latin-1")):
        return found
    return f"{_PROCESS}{next(_numbers):08x}"


_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))

_AT_ONCE = (
    b"HTTP/1.1 %d OK\r\n"
    + b"".join(b"%b: %b\r\n" % pair for pair in ((b"content-type", _JSON), *_ALWAYS))
    + b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
)


async def _send(send: Send, reply: Reply, body: bytes, identity: str) -> None:
    headers = [
        (b"content-type", reply.kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", identity.encode()),
        *_ALWAYS,
    ]
    if reply.headers:
        headers += [(name.encode(), value.encode()) for name, value in reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
