"""`_bulk` bodies, and what becomes of each of their lines."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.daemon.bodies import Unpacker, read_json
from bridge.daemon.bulkbody import BulkReader, embed, in_rounds, spliced, written
from bridge.daemon.bulkrounds import needs_rounds
from bridge.daemon.embedding import Embedding, PartialUpdate, WholeUpdate


class Lengths:
    """Gives a document the length of its text as its vector; every document is stored already, as `{"n": 0}`."""

    def added(self, documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{"v": len(one["text"])} if isinstance(one.get("text"), str) else {} for one in documents]

    def touches(self, change: Mapping[str, Any]) -> bool:
        return "text" in change

    def with_updates(self, updates: Sequence[PartialUpdate]) -> list[WholeUpdate | None]:
        return [WholeUpdate({"n": 0, **one.change, "v": len(one.change["text"])}, (7, 1)) for one in updates]


def of(index: str) -> Embedding | None:
    return cast("Embedding", Lengths()) if index == "b" else None


def made(raw: bytes, default: str | None = None, *, size: int | None = None) -> bytes:
    reader = BulkReader(default, of)
    parts = [raw[place : place + size] for place in range(0, len(raw), size)] if size else [raw]
    found = b""
    for part in parts:
        actions = reader.take(part)
        embed(actions)
        found += written(actions)
    return found + reader.rest


INDEX = b'{"index":{"_index":"b"}}\n'


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (INDEX + b'{"text":"ab"}\n', INDEX + b'{"text":"ab","v":2}\n'),
        (INDEX + b' { "text" : "ab" } \r\n', INDEX + b' { "text" : "ab","v":2}\n'),
        (INDEX + b'{"text":"ab","x":1.10,"y":12345678901234567890123}\n',
         INDEX + b'{"text":"ab","x":1.10,"y":12345678901234567890123,"v":2}\n'),
        (INDEX + b'{"text":"ab","x":NaN}\n', INDEX + b'{"text":"ab","x":NaN,"v":2}\n'),
        (b'\n{"create" : {"_index":"b"}}\n{"text":"a"}\n', b'\n{"create" : {"_index":"b"}}\n{"text":"a","v":1}\n'),
        # A line that is no document is that line's fault.
        (INDEX + b'{"text":\n' + INDEX + b'{"text":"a"}\n', INDEX + b'{"text":\n' + INDEX + b'{"text":"a","v":1}\n'),
        (INDEX + b"[1]\n" + INDEX + b'{"text":"a"}\n', INDEX + b"[1]\n" + INDEX + b'{"text":"a","v":1}\n'),
        (INDEX + b"\n" + INDEX + b'{"text":"a"}\n', INDEX + b"\n" + INDEX + b'{"text":"a","v":1}\n'),
        # What stands before a line that is no action has its vector; the engine says what it is.
        (INDEX + b'{"text":"a"}\n{"index":[]}\n{"text":"a"}\n',
         INDEX + b'{"text":"a","v":1}\n{"index":[]}\n{"text":"a"}\n'),
        # Without an end, the engine refuses it.
        (INDEX + b'{"text":"a"}', INDEX + b'{"text":"a"}'),
        (b'{"delete":{"_index":"b","_id":"1"}}\n' + INDEX + b'{"text":"a"}\n',
         b'{"delete":{"_index":"b","_id":"1"}}\n' + INDEX + b'{"text":"a","v":1}\n'),
        (b'{"update":{"_index":"b","_id":"1"}}\n{"doc":{"n":1.0}}\n',
         b'{"update":{"_index":"b","_id":"1"}}\n{"doc":{"n":1.0}}\n'),
        (b'{"update":{"_index":"b","_id":"1"}}\n{"script":"s","upsert":{"text":"a"}}\n',
         b'{"update":{"_index":"b","_id":"1"}}\n{"script":"s","upsert":{"text":"a","v":1}}\n'),
    ],
)  # fmt: skip
def test_lines(raw: bytes, expected: bytes) -> None:
    assert made(raw) == expected
    assert made(raw, size=3) == expected


def test_an_update_is_of_the_document_as_it_was_read() -> None:
    def head(target: str) -> Any:
        raw = b'{"update":{"_index":"b","_id":1%b}}\n{"doc":{"text":"abc"}}\n' % target.encode()
        first, second, _ = made(raw).split(b"\n")
        assert read_json(second)["script"]["params"]["whole"] == {"n": 0, "text": "abc", "v": 3}
        return read_json(first)["update"]

    assert head("") == {"_index": "b", "_id": 1, "if_seq_no": 7, "if_primary_term": 1}
    assert head(',"retry_on_conflict":3,"routing":"r"') == {**head(""), "routing": "r"}
    # Where the application says which one it means, it is that one.
    assert head(',"if_seq_no":5,"if_primary_term":1') == {**head(""), "if_seq_no": 5}


def test_rounds() -> None:
    def rounds(*lines: bytes) -> list[list[bytes]]:
        reader = BulkReader("b", of)
        actions = reader.take(b"".join(line + b"\n" for line in lines))
        found = in_rounds(actions)
        assert needs_rounds(actions) == (len(found) > 1)
        return [[one.head[:12] for one in actions] for actions in found]

    index, text, n = b'{"index":{"_id":"1"}}', b'{"doc":{"text":"x"}}', b'{"doc":{"n":1}}'
    update, other = b'{"update":{"_id":"1"}}', b'{"update":{"_id":"2"}}'
    delete = b'{"delete":{"_id":"1"}}'
    assert rounds(index, b"{}", other, text, update, n) == [[index[:12], other[:12], update[:12]]]
    assert rounds(index, b"{}", update, text, other, text) == [[index[:12], other[:12]], [update[:12]]]
    # What comes after it stays after it.
    assert rounds(index, b"{}", update, text, update, n, delete, other, n) == [
        [index[:12], other[:12]], [update[:12], update[:12], delete[:12]],
    ]  # fmt: skip
    assert rounds(update, text, update, text, update, text) == [[update[:12]]] * 3
    assert needs_rounds(BulkReader("b", of).take(b'{"update":{"_id":"1","retry_on_conflict":1}}\n' + text + b"\n"))


@given(st.binary(max_size=300))
def test_bytes_that_are_no_bulk_stay_as_they_are(raw: bytes) -> None:
    assert made(raw, "other") == raw
    assert made(raw, "other", size=7) == raw
    assert made(raw, "b") == raw


SOME = [
    INDEX, b'{"text":"a"}\n', b"\n", b"{", b"}", b'{"delete":{}}\n', b"[]\n", b'{"x":{}}\n', b'{"index":{}}\n',
    b'{"update":{"_id":"1"}}\n', b"null\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(SOME), max_size=8))
def test_in_one_piece_or_in_many_it_is_the_same(lines: list[bytes]) -> None:
    raw = b"".join(lines)
    assert made(raw, "b", size=5) == made(raw, "b")
    assert made(raw, "other").replace(b',"v":1}', b"}") == raw


def test_spliced() -> None:
    assert spliced(b"{}", {"v": 1}) == b'{"v":1}'
    assert spliced(b" {\n} \n", {"v": 1}) == b' {"v":1}'
    assert spliced(b'{"a": 1}', {}) == b'{"a": 1}'


def test_json_as_engines_read_it() -> None:
    assert read_json(b'{"a": Infinity}') == {"a": float("inf")}
    for raw in (b"", b"{", b'{"a": "\\ud800"}', b"\xff", b"[" * 100_000):
        with pytest.raises(ValueError):
            read_json(raw)


def test_unpacking_in_pieces() -> None:
    plain = b"ab" * 50_000
    twice = gzip.compress(plain[:7]) + gzip.compress(plain[7:])
    for raw, encoding in ((gzip.compress(plain), b"gzip"), (twice, b"x-gzip"), (zlib.compress(plain), b"deflate"),
                          (plain, b"identity")):  # fmt: skip
        unpacker = Unpacker(encoding)
        pieces = [piece for place in range(0, len(raw), 11) for piece in unpacker.take(raw[place : place + 11], 1000)]
        assert b"".join(pieces) == plain
        assert max(map(len, pieces)) <= 1000
        assert unpacker.whole
    unpacker = Unpacker(b"gzip")
    list(unpacker.take(gzip.compress(plain)[:-9], 1000))
    assert not unpacker.whole
