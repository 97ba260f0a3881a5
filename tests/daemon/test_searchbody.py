"""Bodies of searches, and what becomes of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from bridge.daemon.searchbody import Asked, fields_of, mget, msearch
from bridge.indexmodel import IndexModel

MODEL = IndexModel("space", "d", ("q",), "rank_features", "embedding", ("title", "text"))
OWN = ["embedding", "bridge_content_hash"]


def ask(text: str, size: int) -> dict[str, Any]:
    return {"asked": [text, size]}


def of(index: str) -> Asked | None:
    return Asked(MODEL, ask) if index == "b" else None


def searched(body: Any) -> Any:
    fields = fields_of(json.dumps(body).encode())
    assert fields is not None
    return json.loads(msgspec.json.encode(Asked(MODEL, ask).search(fields)))


A = {"match": {"text": "a"}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"query": A}, {"query": {"asked": ["a", 10]}}),
        ({"query": A, "size": 5, "from": 20, "aggs": {"x": 1.50}},
         {"query": {"asked": ["a", 25]}, "size": 5, "from": 20, "aggs": {"x": 1.50}}),
        ({"query": A, "size": 0}, {"query": {"asked": ["a", 1]}, "size": 0}),
        ({"query": A, "size": "x"}, {"query": {"asked": ["a", 10]}, "size": "x"}),
        # The words that were asked for are marked, and not the tokens of a vector.
        ({"query": A, "highlight": {"fields": {"text": {}}}},
         {"query": {"asked": ["a", 10]}, "highlight": {"fields": {"text": {}}, "highlight_query": A}}),
        ({"query": A, "highlight": {"highlight_query": 1}},
         {"query": {"asked": ["a", 10]}, "highlight": {"highlight_query": 1}}),
        ({"query": {"match_all": {}}, "highlight": {}}, {"query": {"match_all": {}}, "highlight": {}}),
        ({"size": 3}, {"size": 3}),
    ],
)  # fmt: skip
def test_a_body(body: Any, expected: Any) -> None:
    assert searched(body) == expected


def test_what_is_none_is_left_to_the_engine() -> None:
    for raw in (b"[]", b"{", b'{"query": ', b"\xff", b'{"a":1} {'):
        assert fields_of(raw) is None
    for raw in (
        b'{"query": {"match": {"text": "a" "b"}}}',
        b'{"query":' + b'{"bool":{"must":' * 3000 + b"1" + b"}}" * 3001,
    ):
        fields = fields_of(raw)
        assert fields is None or Asked(MODEL, ask).search(fields) is fields


def test_msearch() -> None:
    body = b'{"query":{"match":{"text":"a"}}}'
    asked = b'{"query":{"asked":["a",10]},"_source":{"excludes":["embedding","bridge_content_hash"]}}'
    plain = b'{ "query":{"match_all":{}} }'
    for raw, default, expected in (
        (b'{"index":"b"}\n' + body + b"\n", None, b'{"index":"b"}\n' + asked + b"\n"),
        (b'{"index":["b"]}\n' + body + b"\n{}\n" + plain + b"\n", "o",
         b'{"index":["b"]}\n' + asked + b"\n{}\n" + plain + b"\n"),
        (b"\n" + body + b"\n", "b", b"\n" + body + b"\n"),
        (b"\n\n" + body + b"\n", "b", b"\n\n" + asked + b"\n"),
        (b"{}\n" + body + b"\n\n" + body + b"\n", "b", b"{}\n" + asked + b"\n\n" + asked + b"\n"),
        (b'{"index":"o"}\n' + body + b"\n", "b", b'{"index":"o"}\n' + body + b"\n"),
        (b'{"index":"b,o"}\n' + body + b"\n", None, b'{"index":"b,o"}\n' + body + b"\n"),
        (b"{}\n" + body, "b", b"{}\n" + body),
        (b"{}\n{broken\n{}\n" + body + b"\n", "b", b"{}\n{broken\n{}\n" + asked + b"\n"),
        (b"", "b", b""),
    ):  # fmt: skip
        assert msearch(raw, default, of) == expected, raw


def test_mget() -> None:
    def made(body: Any, default: str | None = None) -> Any:
        return json.loads(mget(json.dumps(body).encode(), default, of))

    hidden = {"_source": {"excludes": OWN}}
    assert made({"docs": [{"_index": "b", "_id": "1"}, {"_index": "o", "_id": "1"}]}) == {
        "docs": [{"_index": "b", "_id": "1", **hidden}, {"_index": "o", "_id": "1"}]
    }
    shown = {"docs": [{"_id": "1", "_source": True}, {"_id": "2", "stored_fields": ["x"]}]}
    assert made(shown, "b") == shown
    assert made({"ids": ["1"]}, "b") == {"ids": ["1"]}
    raw = b'{ "docs": [{"_id":1}] }'
    assert mget(raw, "o", of) == raw
    assert mget(b"{", "b", of) == b"{"
