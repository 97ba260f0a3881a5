"""Reading sources: what becomes a document, what becomes a dead letter, and what stops the reading."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tracemalloc
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from bridge.errors import DocumentError, SourceError
from bridge.records import DeadLetter, Doc, Position
from bridge.sources import FORMS, Item, SourceOptions, content_hash, open_source, text_of
from bridge.sources.streams import MAX_LINE_BYTES, Overlong, lines

BY_FIELD = SourceOptions()
CONTENT = SourceOptions(id_from="content")


def items(path: Path | str, options: SourceOptions = BY_FIELD, skip: int = 0) -> list[Item]:
    with open_source([str(path)], options) as source:
        return list(source.read(skip))


def only(path: Path, options: SourceOptions = BY_FIELD) -> Any:
    (item,) = items(path, options)
    return item


def jsonl(folder: Path, *records: bytes | str | dict[str, Any], name: str = "a.jsonl") -> Path:
    encoded = [
        record if isinstance(record, bytes) else (record if isinstance(record, str) else json.dumps(record)).encode()
        for record in records
    ]
    path = folder / name
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def numbered(count: int) -> bytes:
    return b"".join(b'{"_id": "%d", "text": "document %d"}\n' % (n, n) for n in range(count))


def ids(found: list[Item]) -> list[str | None]:
    return [item.id for item in found]


# --- JSON Lines ---------------------------------------------------------------------------------------------


def test_jsonl_gives_documents_without_their_id(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"_id": "a", "title": "T", "n": [1, {"x": None}]}, "", "  \t\r", {"_id": 7})
    assert items(path) == [
        Doc("a", {"title": "T", "n": [1, {"x": None}]}, Position(str(path), 1)),
        Doc("7", {}, Position(str(path), 4)),
    ]


def test_last_line_needs_no_newline_and_crlf_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"_id": "1"}\r\n{"_id": "2"}')
    assert ids(items(path)) == ["1", "2"]


def test_empty_file_has_no_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.touch()
    assert items(path) == []


def test_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    path = jsonl(tmp_path, b'\xef\xbb\xbf{"_id": "1"}')
    assert ids(items(path)) == ["1"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"_id" 1}', "not JSON: expected ':' (column 8)"),
        (b'{"_id": 1', "not JSON: it ends too early (column 10)"),
        (b'{"_id": 1} x', "not JSON: trailing characters (column 12)"),
        (b'{"a": NaN}', "not JSON: invalid character (column 7)"),
        (b"[1, 2]", "not a JSON object but an array"),
        (b'"text"', "not a JSON object but a string"),
        (b"12", "not a JSON object but a number"),
        (b"null", "not a JSON object but null"),
        (b"true", "not a JSON object but a boolean"),
        (b'{"_id": "1", "a": "x\xffy"}', "not UTF-8: byte 0xff at column 21"),
        (b'{"_id": "\xed\xa0\x80"}', "not UTF-8: byte 0xed at column 10"),
        (b'{"a": 1e400}', "not JSON that can be kept: a number is out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON that can be kept: a number is out of range"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "it is nested deeper than 100 levels"),
        (b'{"a": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", "it is nested deeper than 100 levels"),
    ],
)
def test_a_line_that_is_no_document_is_a_dead_letter_and_the_rest_goes_on(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = jsonl(tmp_path, {"_id": "before"}, line, {"_id": "after"})
    before, dead, after = items(path)
    assert (before.id, after.id) == ("before", "after")
    assert isinstance(dead, DeadLetter)
    assert (dead.position, dead.id, dead.reason) == (Position(str(path), 2), None, reason)
    assert dead.document[:50] == line.decode(errors="replace")[:50]


@pytest.mark.parametrize(
    ("text", "column"),
    [
        (r"\ud800", 7),
        (r"x\udc00 y", 8),
        (r"\ud800A", 7),
        (r"\ud800\ud800\udc00", 7),
        (r"\\\udfff", 9),
        (r"\ud83d\ude00\uD800", 19),
    ],
)
def test_a_lone_surrogate_is_a_dead_letter(tmp_path: Path, text: str, column: int) -> None:
    dead = only(jsonl(tmp_path, f'{{"a": "{text}"}}'), CONTENT)
    assert "is half a character, a lone surrogate" in dead.reason
    assert dead.reason.endswith(f"(column {column + 1})")


def test_paired_surrogates_are_one_character(tmp_path: Path) -> None:
    assert only(jsonl(tmp_path, r'{"_id": "1", "a": "\ud83d\ude00 \\ud800"}')).source == {"a": r"😀 \ud800"}


def test_numbers_survive(tmp_path: Path) -> None:
    numbers = {
        "big": 2**70,
        "negative": -(2**80),
        "max": 2**64 - 1,
        "tiny": 5e-324,
        "third": 1 / 3,
        "zero": -0.0,
    }
    source = only(jsonl(tmp_path, {"_id": "1", **numbers})).source
    assert source == numbers
    assert msgspec.json.decode(msgspec.json.encode(source)) == numbers


def test_nesting_up_to_the_limit_survives(tmp_path: Path) -> None:
    doc = only(jsonl(tmp_path, b'{"_id": "1", "a": ' + b"[" * 99 + b"]" * 99 + b"}"))
    assert isinstance(doc, Doc)
    assert content_hash(doc.source)


def test_raw_text_of_a_dead_letter_is_cut_and_says_so(tmp_path: Path) -> None:
    dead = only(jsonl(tmp_path, b"x" * 20_000))
    assert dead.document == "x" * 10_000 + "… [cut at 10,000 characters, 20,000 bytes in all]"


def test_a_json_array_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = jsonl(tmp_path, "", "[", '  {"_id": 1},', "]", name="a.json")
    with pytest.raises(SourceError, match=r"is one JSON array.*jq"):
        items(path)


def test_lines_hold_no_more_than_the_limit() -> None:
    chunks = [b"ab\nlong", b"er than", b" ten\n", b"", b"c", b"d\n\nend"]
    assert list(lines(chunks, limit=10)) == [
        b"ab\n",
        Overlong(b"longer than", 16),
        b"cd\n",
        b"\n",
        b"end",
    ]
    assert list(lines([b"x" * 5, b"y" * 6], limit=10)) == [Overlong(b"xxxxxyyyyyy", 11)]
    assert list(lines([b"x" * 9 + b"\n"], limit=10)) == [b"x" * 9 + b"\n"]


def test_a_line_over_the_limit_is_a_dead_letter(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"_id": "1"}\n{"_id": "2", "a": "')
        for _ in range(101):
            file.write(b"z" * 1_000_000)
        file.write(b'"}\n{"_id": "3"}\n')
    tracemalloc.start()
    try:
        found = items(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ids(found) == ["1", None, "3"]
    dead = found[1]
    assert isinstance(dead, DeadLetter)
    assert dead.reason == "the line has 101,000,022 bytes, at most 100,000,000 are read"
    assert dead.document.startswith('{"_id": "2", "a": "zzz')
    assert dead.document.endswith("… [cut at 10,000 characters, 101,000,022 bytes in all]")
    assert peak < 1.3 * MAX_LINE_BYTES


# --- ids and operations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"a": 1}, "no id: field _id is missing (name another with --id-field, or use --id-from content)"),
        ({"_id": None}, "no id: field _id is null (name another with --id-field, or use --id-from content)"),
        ({"_id": ""}, "no id: field _id is empty (name another with --id-field, or use --id-from content)"),
        ({"_id": True}, "its id (field _id) is a boolean, not a string or a whole number"),
        ({"_id": 1.0}, "its id (field _id) is 1.0, not a string or a whole number"),
        ({"_id": {"$oid": "1"}}, "its id (field _id) is an object, not a string or a whole number"),
        ({"_id": ["1"]}, "its id (field _id) is an array, not a string or a whole number"),
    ],
)
def test_an_id_that_cannot_be_one_is_a_dead_letter(tmp_path: Path, record: dict[str, Any], reason: str) -> None:
    path = jsonl(tmp_path, record)
    assert items(path) == [DeadLetter(Position(str(path), 1), None, reason, record)]


def test_an_id_has_at_most_512_bytes(tmp_path: Path) -> None:
    fits, over = "é" * 256, "é" * 256 + "x"
    doc, dead = items(jsonl(tmp_path, {"_id": fits}, {"_id": over}))
    assert doc.id == fits
    assert isinstance(doc, Doc)
    assert dead == DeadLetter(dead.position, over, "its id has 513 bytes of UTF-8, the engines take 512", {"_id": over})


def test_ids_are_kept_as_they_are(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"_id": " a b "}, {"_id": 0}, {"_id": 2**70}, {"_id": "né😀"})
    assert ids(items(path)) == [" a b ", "0", str(2**70), "né😀"]


def test_another_id_field(tmp_path: Path) -> None:
    doc = only(jsonl(tmp_path, {"sku": 5, "_id": "x"}), SourceOptions(id_field="sku"))
    assert (doc.id, doc.source) == ("5", {"_id": "x"})


def test_id_from_content_is_the_hash_without_the_id(tmp_path: Path) -> None:
    one, two = items(jsonl(tmp_path, {"_id": "1", "a": 1, "b": 2}, {"b": 2, "a": 1}), CONTENT)
    assert one.id == two.id == content_hash({"a": 1, "b": 2})
    assert isinstance(one, Doc)
    assert one.source == {"a": 1, "b": 2}


def test_delete_is_an_operation(tmp_path: Path) -> None:
    deleted, indexed, dead = items(
        jsonl(
            tmp_path,
            {"_id": "1", "_op": "delete"},
            {"_id": "2", "_op": "index"},
            {"_id": "3", "_op": "upsert"},
        )
    )
    assert isinstance(deleted, Doc)
    assert isinstance(indexed, Doc)
    assert (deleted.op, deleted.source) == ("delete", {})
    assert (indexed.op, indexed.source) == ("index", {})
    assert dead == DeadLetter(
        dead.position, "3", 'its _op is "upsert", not "index", "update" or "delete"', {"_id": "3", "_op": "upsert"}
    )


# --- text and hash ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "fields", "text"),
    [
        ({"title": "A", "text": "b"}, ("title", "text"), "A\nb"),
        ({"title": "A", "text": "b"}, ("text", "title"), "b\nA"),
        ({"title": " ", "text": "b"}, ("title", "text"), "b"),
        ({"text": "b"}, ("title", "text"), "b"),
        ({"text": ["a", None, ["b", ""]]}, ("text",), "a\nb"),
        ({"n": 12, "x": 1.5, "b": True}, ("n", "x", "b"), "12\n1.5\ntrue"),
        ({"a": {"b": {"c": "deep"}}}, ("a.b.c",), "deep"),
        ({"a": {"b.c": "deep"}}, ("a.b.c",), "deep"),
        ({"a.b": {"c": "deep"}}, ("a.b.c",), "deep"),
        ({"a": [{"b": "1"}, {"c": "2"}, {"b": "3"}]}, ("a.b",), "1\n3"),
    ],
)
def test_text_of(source: dict[str, Any], fields: tuple[str, ...], text: str) -> None:
    assert text_of(source, fields) == text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"a": 1, "b": 2}, "none of the text fields title, text is there; it has: a, b"),
        ({}, "none of the text fields title, text is there; it has: no field"),
        (
            {f"f{n}": 1 for n in range(14)},
            "none of the text fields title, text is there; it has: "
            "f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11 and 2 more",
        ),
        ({"title": "", "text": " \n"}, "its text is empty (title, text)"),
        ({"text": None, "a": "x"}, "its text is empty (text)"),
        ({"text": []}, "its text is empty (text)"),
        ({"text": {"a": "x"}}, "the text field text is an object; name a field in it, as text.x"),
    ],
)
def test_text_that_is_not_there(source: dict[str, Any], reason: str) -> None:
    with pytest.raises(DocumentError) as error:
        text_of(source, ("title", "text"))
    assert str(error.value) == reason


def test_content_hash_is_stable() -> None:
    assert content_hash({"b": "é", "a": [1, {"y": 1, "x": 2.5}]}) == content_hash(
        {"a": [1, {"x": 2.5, "y": 1}], "b": "é"}
    )
    assert content_hash({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad808"
    assert content_hash({"a": 1}) != content_hash({"a": "1"})


# --- CSV and TSV --------------------------------------------------------------------------------------------


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'\xef\xbb\xbf"_id",title,text\r\n1,T,"one\r\ntwo, ""quoted"""\r\n\r\n2,,b\n3,short\n4,a,b,c\n5,x,"y\nz"'
    )
    name = str(path)
    assert items(path) == [
        Doc("1", {"title": "T", "text": 'one\r\ntwo, "quoted"'}, Position(name, 2)),
        Doc("2", {"title": "", "text": "b"}, Position(name, 5)),
        DeadLetter(Position(name, 6), None, "it has 2 cells where the header has 3", "3,short\n"),
        DeadLetter(Position(name, 7), None, "it has 4 cells where the header has 3", "4,a,b,c\n"),
        Doc("5", {"title": "x", "text": "y\nz"}, Position(name, 8)),
    ]
    assert items(path, skip=2) == items(path)[2:]


def test_tsv_with_operations(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('_id\t_op\ttext\n1\t\ta, 5" wide\n2\tdelete\t\n')
    first, second = items(path)
    assert isinstance(first, Doc)
    assert isinstance(second, Doc)
    assert (first.op, first.source) == ("index", {"text": 'a, 5" wide'})
    assert (second.op, second.id) == ("delete", "2")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"_id,a,b,a\n1,2,3,4\n", "{}:1: the header names a column twice: a"),
        (b"_id,,b\n", "{}:1: column 2 of the header has no name"),
        (b"_id,\xff\n", "{}:1: the header cannot be read: not UTF-8: byte 0xff at column 5 of line 1"),
        (b"", "{}: is empty; its first line must name the columns"),
        (b"\n\n", "{}: is empty; its first line must name the columns"),
    ],
)
def test_a_header_that_cannot_be_used(tmp_path: Path, header: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(header)
    with pytest.raises(SourceError) as error:
        items(path)
    assert str(error.value) == message.format(path)


def test_csv_records_that_do_not_parse(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'_id,a\n1,"x\ny\xffz"\n2,b\n3,"p"q\n4,mac\rline\n5,c\n6,"open\nand\nnever closed\n7,d\n')
    found = items(path)
    assert ids(found) == [None, "2", None, None, "5", None]
    assert [(item.position.line, item.reason) for item in found if isinstance(item, DeadLetter)] == [
        (2, "not UTF-8: byte 0xff at column 2 of line 3"),
        (5, "line 5: not well-formed: ',' expected after '\"'"),
        (6, "line 6: not well-formed: a carriage return stands outside quotes"),
        (8, "lines 8 to 11, read as one record: a quote is not closed"),
    ]
    assert isinstance(found[0], DeadLetter)
    assert found[0].document == '1,"x\ny\ufffdz"\n'


def test_csv_fields_over_pythons_default_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("_id,a\n1," + "x" * 300_000 + "\n")
    assert len(only(path).source["a"]) == 300_000
    assert csv.field_size_limit() >= 300_000


def test_a_csv_record_over_the_limit_is_a_dead_letter(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'_id,a\n1,"' + b"x" * 26_000_000 + b'"\n2,b\n3,"' + (b"y" * 999_999 + b"\n") * 26)
    found = items(path)
    assert ids(found)[:2] == [None, "2"]
    one, three = found[0], found[2]
    assert isinstance(one, DeadLetter)
    assert isinstance(three, DeadLetter)
    assert one.reason == "line 2: 26,000,005 bytes, at most 25,000,000 are read; is a quote not closed?"
    assert three.reason == (
        "lines 4 to 28, read as one record: 25,000,003 bytes, at most 25,000,000 are read; is a quote not closed?"
    )
    assert [item.position.line for item in found] == [2, 3, 4, 29]


# --- Parquet ------------------------------------------------------------------------------------------------


def table(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(pa.table(columns), path, **options)
    return path


def test_parquet(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", {"_id": [1, 2, None], "text": ["a", None, "c"], "_op": [None, "delete", None]})
    name = str(path)
    assert items(path) == [
        Doc("1", {"text": "a"}, Position(name, 1)),
        Doc("2", {"text": None}, Position(name, 2), "delete"),
        DeadLetter(
            Position(name, 3),
            None,
            "no id: field _id is null (name another with --id-field, or use --id-from content)",
            {"_id": None, "text": "c"},
        ),
    ]


def test_parquet_types_keep_what_they_say(tmp_path: Path) -> None:
    moment = datetime(2024, 2, 29, 23, 59, 1, 500, tzinfo=UTC)
    nanos = 1_709_251_141_000_000_001
    identity = uuid.UUID(int=5)
    columns = {
        "_id": pa.array(["1"]),
        "us": pa.array([moment.replace(tzinfo=None)], pa.timestamp("us")),
        "zoned": pa.array([moment], pa.timestamp("us", tz="America/New_York")),
        "ns": pa.array([nanos], pa.timestamp("ns")),
        "old": pa.array([-1], pa.timestamp("ms")),
        "day": pa.array([date(1969, 12, 31)]),
        "day64": pa.array([date(2024, 2, 29)], pa.date64()),
        "time": pa.array([time(1, 2, 3, 4)]),
        "span": pa.array([timedelta(seconds=-90, microseconds=0)], pa.duration("ns")),
        "decimal": pa.array([Decimal("12345678901234567890.1200")]),
        "small": pa.array([Decimal("1E-7")], pa.decimal128(20, 10)),
        "nested": pa.array([{"when": [moment.replace(tzinfo=None), None], "n": None}]),
        "map": pa.array([[("k", date(2024, 1, 2))]], pa.map_(pa.string(), pa.date32())),
        "category": pa.array(["x"]).dictionary_encode(),
        "float": pa.array([1.5], pa.float32()),
        "big": pa.array([2**64 - 1], pa.uint64()),
        "uuid": pa.array([identity.bytes], pa.uuid()),
        "none": pa.nulls(1),
    }
    doc = only(table(tmp_path / "a.parquet", columns))
    assert doc.source == {
        "us": "2024-02-29T23:59:01.0005",
        "zoned": "2024-02-29T23:59:01.0005Z",
        "ns": "2024-02-29T23:59:01.000000001",
        "old": "1969-12-31T23:59:59.999",
        "day": "1969-12-31",
        "day64": "2024-02-29",
        "time": "01:02:03.000004",
        "span": "PT-90S",
        "decimal": "12345678901234567890.1200",
        "small": "0.0000001000",
        "nested": {"when": ["2024-02-29T23:59:01.0005", None], "n": None},
        "map": {"k": "2024-01-02"},
        "category": "x",
        "float": 1.5,
        "big": 2**64 - 1,
        "uuid": str(identity),
        "none": None,
    }
    assert content_hash(doc.source)


def test_parquet_values_without_a_form_in_json(tmp_path: Path) -> None:
    columns = {
        "_id": ["1", "2", "3", "4", "5"],
        "bytes": pa.array([b"\x00", None, None, None, None]),
        "x": [0.5, float("nan"), float("-inf"), None, 0.0],
        "when": pa.array([None, None, None, 2**62, None], pa.timestamp("ms")),
    }
    found = items(table(tmp_path / "a.parquet", columns))
    assert [item.reason if isinstance(item, DeadLetter) else item.id for item in found] == [
        "field bytes: a value of type binary has no form in JSON",
        "field x: nan is not a number in JSON",
        "field x: -inf is not a number in JSON",
        "field when: 4611686018427387904 ms from 1970 is outside the years 1 to 9999",
        "5",
    ]
    assert isinstance(found[0], DeadLetter)
    assert found[0].id == "1"
    assert found[0].document == {"_id": "1", "bytes": "b'\\x00'", "x": 0.5, "when": None}


def test_parquet_strings_that_are_not_utf8(tmp_path: Path) -> None:
    text = pa.array([b"good", b"b\xffd", b"good too"]).view(pa.string())
    one, dead, three = items(table(tmp_path / "a.parquet", {"_id": ["1", "2", "3"], "text": text}))
    assert isinstance(one, Doc)
    assert isinstance(three, Doc)
    assert (one.source, three.source) == ({"text": "good"}, {"text": "good too"})
    assert isinstance(dead, DeadLetter)
    assert dead.reason.startswith("field text cannot be read: 'utf-8' codec can't decode byte 0xff")


def test_parquet_is_skipped_by_row_groups(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", {"_id": list(range(2500))}, row_group_size=1000)
    whole = items(path)
    assert len(whole) == 2500
    for skip in (0, 1, 999, 1000, 1001, 2499, 2500):
        assert items(path, skip=skip) == whole[skip:]


@pytest.mark.parametrize("keep", [0, 3, 400])
def test_cut_off_parquet(tmp_path: Path, keep: int) -> None:
    path = table(tmp_path / "a.parquet", {"_id": list(range(1000))})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceError, match=r"a\.parquet: not Parquet, or damaged or cut off: ") as error:
        items(path)
    assert "\n" not in str(error.value)


# --- compression --------------------------------------------------------------------------------------------


def compress(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    return zstandard.ZstdCompressor().compress(data) if suffix == ".zst" else data


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("form", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_form_may_be_compressed(tmp_path: Path, form: str, suffix: str) -> None:
    path = tmp_path / f"A{form}{suffix}".upper()
    if form == ".parquet":
        data = table(tmp_path / "plain.parquet", {"_id": ["1", "2"], "a": ["x", "y"]}).read_bytes()
    else:
        data = b"_id,a\n1,x\n2,y\n" if form == ".csv" else b'{"_id":"1","a":"x"}\n{"_id":"2","a":"y"}\n'
    path.write_bytes(compress(data, suffix))
    with open_source([str(path)]) as source:
        found = list(source.read())
        assert [(item.id, item.source) for item in found if isinstance(item, Doc)] == [
            ("1", {"a": "x"}),
            ("2", {"a": "y"}),
        ]
        assert source.bytes_read == source.bytes_total == path.stat().st_size


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_concatenated_streams_are_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(compress(numbered(2), suffix) + compress(b"", suffix) + compress(b'{"_id": "x"}', suffix))
    assert ids(items(path)) == ["0", "1", "x"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_data_without_its_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(compress(numbered(3), suffix))
    assert ids(items(path)) == ["0", "1", "2"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_stream_that_is_cut_off_gives_what_came_before(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.jsonl{suffix}"
    # Random text, so that the stream has many blocks.
    data = b"".join(b'{"_id": "%d", "text": "%s"}\n' % (n, os.urandom(50).hex().encode()) for n in range(20_000))
    whole.write_bytes(compress(data, suffix))
    cut = tmp_path / f"cut.jsonl{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    found: list[Item] = []
    with pytest.raises(SourceError) as error:
        found.extend(open_source([str(cut)]).read())
    kind = "gzip" if suffix == ".gz" else "zstd"
    assert str(error.value) == f"{cut}: the {kind} data ends too early; the file is cut off"
    assert len(found) > 10_000
    assert ids(found) == [str(n) for n in range(len(found))]
    assert all(isinstance(item, Doc) for item in found)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(("data", "message"), [(b"", "ends too early"), (b'{"_id": 1}\n', "is damaged")])
def test_a_suffix_that_lies(tmp_path: Path, suffix: str, data: bytes, message: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=message):
        items(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damage_inside(tmp_path: Path, suffix: str) -> None:
    data = bytearray(compress(os.urandom(50_000).hex().encode(), suffix))
    data[-3 if suffix == ".gz" else 5] ^= 0xFF
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"is damaged|cut off"):
        items(path)


# --- what can be named --------------------------------------------------------------------------------------


def test_a_glob_is_read_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", ".hidden.jsonl", "sub/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        jsonl(tmp_path, {"_id": name}, name=name)
    source = open_source([str(tmp_path / "*.jsonl")])
    assert [item.position.file for item in source.read()] == [str(tmp_path / n) for n in ("a.jsonl", "b.jsonl")]
    assert source.name == "a.jsonl and 1 more"
    assert len(open_source([str(tmp_path / "**" / "*.jsonl")]).files) == 3


def test_a_name_that_looks_like_a_glob_is_read_as_itself(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"_id": "1"}, name="a[1].jsonl")
    assert ids(items(path)) == ["1"]


def test_files_named_twice_are_read_once(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"_id": "1"})
    assert len(open_source([str(path), str(tmp_path / "*.jsonl")]).files) == 1


def test_relative_paths_stay_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path, {"_id": "1"})
    assert [item.position.file for item in items("./a.jsonl")] == ["./a.jsonl"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_beir_folder(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"corpus.jsonl{suffix}").write_bytes(compress(numbered(3), suffix))
    jsonl(tmp_path, {"_id": "q"}, name="queries.jsonl")
    found = items(tmp_path)
    assert ids(found) == ["0", "1", "2"]
    assert found[0].position.file == str(tmp_path / f"corpus.jsonl{suffix}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gone.jsonl", "gone.jsonl: no such file or folder"),
        ("gone/a.jsonl", "gone/a.jsonl: no such file or folder"),
        ("*.parquet", "*.parquet: no file matches"),
        ("folder", "folder: is a folder without corpus.jsonl, corpus.jsonl.gz or corpus.jsonl.zst"),
        ("notes.txt", f"notes.txt: of no known form; understood are {FORMS}"),
        ("notes.gz", f"notes.gz: of no known form; understood are {FORMS}"),
        ("index:books", "index:books: an index cannot be a source here; give a file"),
        ("pipe", "pipe: is not a regular file; pipe it in, and name the source -"),
        ("a\0b", "a\0b: cannot be read: embedded null byte"),
        ("", "a source's name is empty"),
    ],
)
def test_what_cannot_be_opened_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("notes.txt", "notes.gz"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError) as error:
        open_source([spec])
    assert str(error.value) == message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"_id": "1"})
    path.chmod(0)
    with pytest.raises(SourceError, match="cannot be read: Permission denied"):
        open_source([str(path)])


def test_no_source_and_stdin_twice() -> None:
    with pytest.raises(SourceError, match="no source is named"):
        open_source([])
    with pytest.raises(SourceError, match="named twice"):
        open_source(["-", "-"])


def test_a_file_that_vanishes_between_passes(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"_id": "1"})
    source = open_source([str(path)])
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        list(source.read())


# --- stdin --------------------------------------------------------------------------------------------------


class OnePass(io.BytesIO):
    """Bytes that, like a pipe, cannot be read again."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation("seek")


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_stdin_can_be_read_twice(suffix: str) -> None:
    stored = compress(numbered(50_000), suffix)
    with open_source(["-"], stdin=OnePass(stored)) as source:
        assert source.name == "<stdin>"
        before = source.bytes_total
        first = list(source.read())
        assert before is None
        assert source.bytes_total == source.bytes_read == len(stored)
        assert first[1] == Doc("1", {"text": "document 1"}, Position("<stdin>", 2))
        assert len(first) == 50_000
        assert list(source.read()) == first
        assert list(source.read(skip=49_999)) == first[49_999:]


def test_stdin_is_read_again_after_a_pass_that_stopped() -> None:
    with open_source(["-"], stdin=OnePass(numbered(50_000))) as source:
        assert next(source.read()).id == "0"
        fingerprint = source.fingerprint()
        assert len(list(source.read())) == 50_000
        assert source.fingerprint() == fingerprint


def test_the_copy_of_stdin_goes_with_the_source() -> None:
    source = open_source(["-"], stdin=OnePass(numbered(3)))
    assert len(list(source.read())) == 3
    del source  # a file left open would warn here, and warnings are errors


def test_stdin_among_files(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"_id": "f"})
    with open_source([str(path), "-"], stdin=OnePass(b'{"_id": "s"}\n')) as source:
        assert ids(list(source.read())) == ["f", "s"]


# --- resuming, progress, memory -----------------------------------------------------------------------------


def test_skip_counts_items_across_files(tmp_path: Path) -> None:
    jsonl(tmp_path, {"_id": "1"}, "", "broken", {"_id": "2"}, name="a.jsonl")
    (tmp_path / "b.csv").write_text("_id,x\n3,a\n4\n5,b\n")
    table(tmp_path / "c.parquet", {"_id": ["6", "7"]})
    source = open_source([str(tmp_path / "*")])
    whole = list(source.read())
    assert ids(whole) == ["1", None, "2", "3", None, "5", "6", "7"]
    for skip in range(len(whole) + 2):
        assert list(source.read(skip)) == whole[skip:]


def test_bytes_read_grows_to_the_total(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(numbered(30_000))
    table(tmp_path / "b.parquet", {"_id": list(range(5_000))})
    source = open_source([str(tmp_path / "*")])
    seen = []
    for _ in source.read():
        seen.append(source.bytes_read)
    assert seen == sorted(seen)
    assert len(set(seen)) > 5
    assert source.bytes_read == source.bytes_total == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_fingerprint_changes_with_the_source(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    data = numbered(20_000)
    prints = set()
    for content in (data, data[:-2] + b"?\n", b" " + data[1:], data + b"\n"):
        path.write_bytes(content)
        prints.add(open_source([str(path)]).fingerprint())
    path = path.rename(tmp_path / "b.jsonl")
    prints.add(open_source([str(path)]).fingerprint())
    assert len(prints) == 5
    path = path.rename(tmp_path / "a.jsonl")
    path.write_bytes(data)
    os.utime(path, (0, 0))
    assert open_source([str(path)]).fingerprint() in prints
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "a.jsonl")
    assert open_source([str(moved)]).fingerprint() in prints


@pytest.mark.parametrize(("suffix", "total"), [("", 200_000), (".gz", 50_000), (".zst", 50_000)])
def test_memory_stays_small(tmp_path: Path, suffix: str, total: int) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(compress(numbered(total), suffix))
    source = open_source([str(path)])
    tracemalloc.start()
    try:
        count = sum(1 for _ in source.read())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == total
    assert peak < 3_000_000
