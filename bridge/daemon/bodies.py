"""The bodies of requests, as far as they are taken."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from starlette.types import Receive


class Gone(Exception):
    """The client has gone."""


async def whole_body(receive: Receive, most: int) -> bytes | None:
    """A request's body; None where it has more than `most` bytes.

    Raises:
        Gone: the client has, before its end.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def parts_of(receive: Receive) -> AsyncIterator[bytes]:
    """A request's body as it comes.

    Raises:
        Gone: the client has, before its end.
    """
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        if part := message.get("body", b""):
            yield part
        if not message.get("more_body"):
            return


class Unpacker:
    """A body as it is before its content encoding, piece by piece."""

    def __init__(self, encoding: bytes) -> None:
        self._new = _WINDOWS[encoding]
        self._inflating = self._fresh()

    def _fresh(self) -> Any:
        return zlib.decompressobj(self._new) if self._new is not None else None

    def take(self, part: bytes, most: int) -> Iterator[bytes]:
        """What a part holds, in pieces of `most` bytes at the most.

        Raises:
            zlib.error: it is not packed that way.
        """
        if self._inflating is None:
            yield part
            return
        while part:
            if plain := self._inflating.decompress(part, most):
                yield plain
            part = self._inflating.unconsumed_tail
            if self._inflating.eof and (part := self._inflating.unused_data):
                # Packed in several runs, one after the other.
                self._inflating = self._fresh()

    @property
    def whole(self) -> bool:
        """Whether nothing is missing at its end."""
        return self._inflating is None or self._inflating.eof


_WINDOWS = {b"identity": None, b"gzip": 31, b"x-gzip": 31, b"deflate": 15}

PACKINGS = frozenset(_WINDOWS)
"""The content encodings that are read."""


def read_json(raw: bytes) -> Any:
    """JSON as engines read it: with NaN, which some clients write.

    Raises:
        ValueError: it is none.
    """
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise ValueError("too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            found = json.loads(raw)
            # Half a character that is written as an escape is no text.
            json.dumps(found, ensure_ascii=False).encode()
        except RecursionError:
            raise ValueError("too deep") from None
        return found
