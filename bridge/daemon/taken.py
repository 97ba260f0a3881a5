"""A request that the proxy takes in hand: its body and its parameters, before anything is changed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from bridge.daemon.bodies import PACKINGS, Unpacker, whole_body
from bridge.daemon.forwarding import Forwarder, Headers, Other
from bridge.daemon.gate import Refused
from bridge.daemon.service import Service

_Value = TypeVar("_Value")


class Taker:
    """What takes requests for `indexes` in hand; of a body it keeps no more at once than the settings' limit."""

    def __init__(
        self, service: Service, forwarder: Forwarder, indexes: Collection[str], threads: ThreadPoolExecutor
    ) -> None:
        self._service, self._forwarder, self._indexes, self._threads = service, forwarder, indexes, threads
        self._most = service.settings.limits.body_bytes

    async def _aside(self, work: Callable[..., _Value], *arguments: Any) -> _Value:
        """What waits for the engine, or for a model, does so on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


@dataclass(frozen=True, slots=True)
class Taken:
    """What came."""

    raw: bytes
    """The body as it came."""
    plain: bytes | None
    """Before its content encoding; None where it is not JSON, or packed in a way that is not read."""
    packed: tuple[bytes, ...]
    """The headers that speak of that encoding."""

    def other(self, body: bytes | None, query: bytes | None = None, headers: Headers = ()) -> Other:
        """What is sent in its place: another `body`, or this one as it came."""
        if body is None or body == self.plain:
            return Other(self.raw, query)
        return Other(body, query, (*self.packed, *(name for name, _ in headers)), headers)


async def take(scope: Scope, receive: Receive, most: int) -> Taken:
    """Read a request's body.

    Raises:
        Refused: it is too large.
        Gone: the client has.
    """
    raw = await whole_body(receive, most)
    if raw is None:
        raise too_large(most)
    encoding = encoding_of(scope)
    if encoding not in PACKINGS or not is_json(scope):
        return Taken(raw, None, ())
    if encoding == b"identity":
        return Taken(raw, raw, ())
    return Taken(raw, unpacked((raw,), encoding, most), (b"content-encoding",))


def unpacked(parts: Sequence[bytes], encoding: bytes, most: int) -> bytes | None:
    """A body before its content encoding; None where it is not packed so.

    Raises:
        Refused: it is too large.
    """
    unpacker = Unpacker(encoding)
    found: list[bytes] = []
    size = 0
    try:
        for part in parts:
            for piece in unpacker.take(part, most + 1):
                found.append(piece)
                size += len(piece)
                if size > most:
                    raise too_large(most)
    except zlib.error:
        return None
    return b"".join(found) if unpacker.whole else None


def too_large(most: int) -> Refused:
    return Refused(413, f"the body has more than {most:,} bytes, which is all that is taken")


def header(scope: Scope, name: bytes, default: bytes = b"") -> bytes:
    """A header's value in lower case, without parameters."""
    found: bytes = next((value for key, value in scope["headers"] if key == name), default)
    return found.split(b";", 1)[0].strip().lower()


def encoding_of(scope: Scope) -> bytes:
    return header(scope, b"content-encoding", b"identity")


def is_json(scope: Scope) -> bool:
    """Whether a body may be JSON: engines read CBOR, SMILE and YAML too, by the content type."""
    kind = header(scope, b"content-type")
    return not any(other in kind for other in (b"cbor", b"smile", b"yaml"))


def pairs(scope: Scope) -> list[tuple[str, str]]:
    """The parameters of a request, in order."""
    return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True) if scope["query_string"] else []


def with_more(query: bytes, more: bytes) -> bytes | None:
    """A query string with something at its end; None where there is nothing to add."""
    return (b"%b&%b" % (query, more) if query else more) if more else None
