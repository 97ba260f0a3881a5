"""The bodies of requests, as far as they are taken."""

from __future__ import annotations

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
