"""What an application writes ─▶ the same, with vectors."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.types import Receive, Scope, Send

from bridge.daemon.bodies import PACKINGS, Unpacker, parts_of, read_json
from bridge.daemon.bulkbody import BulkReader, embed, spliced, written
from bridge.daemon.bulkrounds import needs_rounds, send_in_rounds
from bridge.daemon.embedding import Embedding
from bridge.daemon.forwarding import AS_IT_CAME, Other, answered
from bridge.daemon.gate import Refused
from bridge.daemon.taken import Taker, encoding_of, header, is_json, pairs, take, unpacked

_PLACE = ("if_seq_no", "if_primary_term")
_BLOCK = 1_000_000
"""Bytes of a large `_bulk` body that are looked at together."""


class Writes(Taker):
    """Takes in hand what is written to `indexes`."""

    def _embedding(self, index: str) -> Embedding | None:
        """How an index's documents get vectors, as it is now: its alias may have moved to another model's index."""
        if index not in self._indexes:
            return None
        service = self._service
        model = service.model_of(index, now=True)
        if model is None or not model.document_encoder:
            return None
        encoder, dense = service.stored(model.document_encoder), service.stored_dense(model.dense_encoder)
        return Embedding(service.engine, index, model, encoder, dense)

    def _refuse_unread(self, scope: Scope, index: str | None) -> None:
        """What cannot be read does not go into an index that is bridged."""
        if index in self._indexes:
            encoding = encoding_of(scope)
            what = (header(scope, b"content-type") if encoding in PACKINGS else encoding).decode("latin-1")
            raise Refused(415, f"documents of {index} gain vectors here, and are read as JSON: not as {what}")

    async def document(self, index: str, scope: Scope, receive: Receive, send: Send) -> None:
        """`_doc` and `_create`."""
        came = await take(scope, receive, self._most)
        plain = came.plain
        if plain is None:
            self._refuse_unread(scope, index)

        def made() -> bytes | None:
            try:
                document = read_json(plain or b"")
            except ValueError:
                return None
            embedding = self._embedding(index) if isinstance(document, dict) else None
            return spliced(plain or b"", embedding.added([document])[0]) if embedding else None

        await self._forwarder.forward(scope, receive, send, came.other(await self._aside(made)))

    async def update(self, index: str, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """`_update`."""
        came = await take(scope, receive, self._most)
        if came.plain is None:
            self._refuse_unread(scope, index)
        asked = pairs(scope)
        target: dict[str, Any] = {"_id": name} | {key: value for key, value in asked if key == "routing"}
        target |= {key: int(value) for key, value in asked if key in _PLACE and value.isdigit()}
        again = next((int(value) for key, value in asked if key == "retry_on_conflict" and value.isdigit()), 0)
        lines = b"%b\n%b\n" % (msgspec.json.encode({"update": target}), b" ".join((came.plain or b"").splitlines()))

        def made() -> tuple[bytes, ...]:
            actions = BulkReader(index, self._embedding).take(lines)
            return actions[0].made or () if len(actions) == 1 and embed(actions) else ()

        while found := await self._aside(made):
            said = msgspec.json.decode(found[0])["update"]
            place = {key: value for key, value in said.items() if key in _PLACE}
            # Asked again by the engine, it would still be as it was read.
            kept = [(key, value) for key, value in asked if not place or key not in ("retry_on_conflict", *_PLACE)]
            other = came.other(found[1], urlencode([*kept, *place.items()]).encode())
            if not (place and again):
                await self._forwarder.forward(scope, receive, send, other)
                return
            answer = await self._forwarder.ask(scope, other)
            if answer[0] != 409:
                await answered(send, *answer)
                return
            again -= 1
        await self._forwarder.forward(scope, receive, send, came.other(None))

    async def bulk(self, index: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """`_bulk`: whole, or in blocks where it is larger than what is kept at once."""
        encoding = encoding_of(scope)
        if encoding not in PACKINGS or not is_json(scope):
            self._refuse_unread(scope, index)
            await self._forwarder.forward(scope, receive, send, AS_IT_CAME)
            return
        reader = BulkReader(index, self._embedding)
        left = () if encoding == b"identity" else (b"content-encoding",)
        parts = parts_of(receive)
        begun: list[bytes] = []
        size = 0
        async for part in parts:
            begun.append(part)
            size += len(part)
            if size > self._most:
                break
        plain: bytes | None = None
        large = size > self._most
        if not large:
            try:
                plain = unpacked(begun, encoding, self._most)
            except Refused:
                large = True
        if large:
            blocks = self._blocks(reader, Unpacker(encoding), begun, parts)
            await self._forwarder.forward(scope, receive, send, Other(blocks, without=left))
            return
        actions = await self._aside(reader.take, plain) if plain else []
        if needs_rounds(actions):
            answer = await send_in_rounds(self._forwarder, scope, actions, reader.rest, left, self._aside)
            await answered(send, *answer)
            return
        changed = any(one.embedding for one in actions) and await self._aside(embed, actions)
        other = Other(written(actions) + reader.rest, without=left) if changed else Other(b"".join(begun))
        await self._forwarder.forward(scope, receive, send, other)

    async def _blocks(
        self, reader: BulkReader, unpacker: Unpacker, begun: Sequence[bytes], rest: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        seen: set[tuple[str, str]] = set()

        def made(part: bytes) -> bytes:
            actions = reader.take(part)
            if len(reader.rest) > self._most:
                raise Refused(413, f"a document has more than {self._most:,} bytes, which is all that is taken")
            for one in actions:
                if one.change is not None and (one.index, one.id) in seen:
                    raise Refused(413, f"the body has more than {self._most:,} bytes, writes {one.id} and then changes "
                                       "its text: send that in two requests")  # fmt: skip
                if one.embedding and one.id:
                    seen.add((one.index, one.id))
            embed(actions)
            return written(actions)

        async def packed() -> AsyncIterator[bytes]:
            for part in begun:
                yield part
            async for part in rest:
                yield part

        waiting: list[bytes] = []
        size = 0
        try:
            async for part in packed():
                for piece in unpacker.take(part, _BLOCK):
                    waiting.append(piece)
                    size += len(piece)
                    if size >= _BLOCK:
                        yield await self._aside(made, b"".join(waiting))
                        waiting, size = [], 0
        except zlib.error:
            raise Refused(400, "the body is not packed as its content encoding says") from None
        if not unpacker.whole:
            raise Refused(400, "the body's end is missing")
        yield await self._aside(made, b"".join(waiting))
        yield reader.rest
