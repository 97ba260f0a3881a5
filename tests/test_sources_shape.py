"""Which documents of a source are read, and in what shape: conditions, limits, templates, versions, deletions."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from bridge.errors import UsageError
from bridge.records import DeadLetter, Doc, Position
from bridge.sources import Item, SourceOptions, content_hash, open_letters, open_source
from bridge.sources.where import parse_where

Bridge = Callable[..., tuple[int, str, str]]
Fields = dict[str, Any]


def jsonl(folder: Path, *records: Fields | str, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), "utf-8")
    return path


def items(path: Path, skip: int = 0, **options: Any) -> list[Item]:
    with open_source([str(path)], SourceOptions(**options)) as source:
        return list(source.read(skip))


def only(path: Path, **options: Any) -> Any:
    (item,) = items(path, **options)
    return item


def shaped(folder: Path, record: Fields, *assign: str, drop: tuple[str, ...] = ()) -> Fields:
    item = only(jsonl(folder, {"_id": "1", **record}), assign=assign, drop=drop)
    assert isinstance(item, Doc), item
    return dict(item.source)


# --- conditions ---------------------------------------------------------------------------------------------

BOOK = {
    "lang": "en",
    "year": 2021,
    "price": 9.5,
    "text": "war and peace",
    "tags": ["old", "long"],
    "none": None,
    "no": False,
    "yes": True,
    "zero": 0,
    "blank": "",
    "void": [],
    "date": "2024-03-01",
    "count": "17",
    "meta": {"site": "a", "deep": {"n": 3}, "dotted.name": "x"},
    "authors": [{"name": "Leo"}, {"name": "Ann", "age": 40}],
    "content-type": "text/html",
    "content type": "odd",
    "in": "keyword",
    "größe": 12,
}


@pytest.mark.parametrize(
    "condition",
    [
        'lang == "en"',
        "lang == 'en'",
        'lang == "en" and year >= 2020',
        'lang == "de" or year == 2021',
        'lang == "de" and year == 1 or year == 2021',
        'not (lang == "de" or year == 1)',
        'not lang == "de"',
        'lang != "de"',
        'missing != "de"',
        "missing == null",
        "none == null",
        "void == null",
        "text",
        "zero",
        "yes",
        "not no",
        "not blank",
        "not missing",
        "not none",
        "not void",
        "meta",
        "yes == true",
        "no == false",
        "price > 9 and price < 10",
        "year > 2020.5",
        "price == 9.50",
        "zero == -0",
        'lang in ["de", "en"]',
        'lang in ("de", "en")',
        'lang not in ["de", "fr"]',
        "year in [2020, 2021]",
        '"old" in tags',
        '"war" in text',
        '"new" not in tags',
        'lang in "en,de"',
        'text contains "and p"',
        'tags contains "old"',
        'tags not contains "ol"',
        'tags == "long"',
        'tags != "short"',
        'date >= "2024-02" and date < "2025"',
        "count > 9",
        "count == 17",
        '"17" == count',
        "17 <= count",
        'meta.site == "a"',
        "meta.deep.n == 3",
        'meta.dotted.name == "x"',
        'authors.name == "Ann"',
        "authors.age > 39",
        'authors.name contains "nn"',
        'content-type == "text/html"',
        '`content type` == "odd"',
        '`in` == "keyword"',
        "größe == 12",
        'lang == "en" AND NOT year == 1 Or false == true',
        "year > zero",
        "meta.`site` == 'a'",
    ],
)
def test_a_condition_that_holds(condition: str) -> None:
    assert parse_where(condition).holds(BOOK)
    assert not parse_where(f"not ({condition})").holds(BOOK)


@pytest.mark.parametrize(
    "condition",
    [
        'lang == "EN"',
        "missing > 0",
        "missing < 0",
        "none >= null",
        'year > "later"',
        "lang > 5",
        "yes == 1",
        "zero == false",
        "yes > 0",
        "tags > 1",
        'missing contains "x"',
        'missing == "x"',
        'year contains "2021"',
        "meta == 3",
        "void",
        'authors.missing == "x"',
        'count == "017"',
    ],
)
def test_a_condition_that_does_not_hold(condition: str) -> None:
    assert not parse_where(condition).holds(BOOK)


def test_strings_in_a_condition() -> None:
    record = {"a": 'say "hi"\n\\ it\'s'}
    assert parse_where(r'a == "say \"hi\"\n\\ it\'s"').holds(record)
    assert parse_where(r"""a == 'say "hi"\n\\ it\'s'""").holds(record)
    assert parse_where('a == ""').holds({"a": ""})


def test_big_numbers_compare_exactly() -> None:
    assert parse_where("n == 9007199254740993").holds({"n": 2**53 + 1})
    assert not parse_where("n == 9007199254740993").holds({"n": 2**53})
    assert parse_where("n > 9007199254740992").holds({"n": str(2**53 + 1)})


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("", "at character 1, expected a field or a value: ▸"),
        ("lang ==", "at character 8, expected a value: lang ==▸"),
        ('lang = "en"', 'at character 6, not understood; == is meant?: lang ▸= "en"'),
        ("a == 1 && b == 2", "at character 8, not understood; and is meant?: a == 1 ▸&& b == 2"),
        ("a == 1 || b", "at character 8, not understood; or is meant?: a == 1 ▸|| b"),
        ("!a", "at character 1, not understood; not is meant?: ▸!a"),
        ("a <> 1", "at character 3, not understood; != is meant?: a ▸<> 1"),
        ('lang == "en', 'at character 9, the quote is not closed: lang == ▸"en'),
        ("lang == `en", "at character 9, the quote is not closed: lang == ▸`en"),
        ("(a and b", "at character 9, expected ): (a and b▸"),
        ("a b", "at character 3, expected and, or, or the end: a ▸b"),
        ("1 < a < 5", "at character 7, expected and, or, or the end: 1 < a ▸< 5"),
        ('"en"', 'at character 5, expected ==, !=, <, <=, >, >=, in or contains: "en"▸'),
        ("a in 5", "at character 6, expected a list or a field: a in ▸5"),
        ("a not b", "at character 7, expected in or contains after not: a not ▸b"),
        ("a in [1 2]", "at character 9, expected ,: a in [1 ▸2]"),
        ("a in [1,", "at character 9, expected a value: a in [1,▸"),
        ("a == and", "at character 6, expected a value (a field of that name is written in backticks): a == ▸and"),
        ("a == 2020-01-01", "at character 6, not understood; a text is put in quotes, an unusual field name in"),
        ("a == 12b", "at character 6, not understood; a text is put in quotes"),
        ("a # b", "at character 3, not understood"),
        ("(" * 60 + "a" + ")" * 60, "at character 51, nested deeper than 50 levels"),
        ("not " * 60 + "a", "nested deeper than 50 levels"),
    ],
)
def test_a_condition_that_cannot_be_understood_is_shown_where(condition: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        SourceOptions(where=condition)
    assert str(error.value).startswith("the condition cannot be understood ")
    assert message in str(error.value)


@pytest.mark.parametrize("code", ["__import__('os').system('true')", "a.__class__()", "a[0]", "a + b", "lambda: 1"])
def test_a_condition_is_no_code(code: str) -> None:
    with pytest.raises(UsageError):
        parse_where(code)


RECORDS = [{"_id": str(n), "n": n, "lang": "en" if n % 3 else "de", "text": f"words {n}"} for n in range(30)]


def test_documents_that_do_not_match_are_not_the_source_s(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *RECORDS[:10], "broken", *RECORDS[10:])
    with open_source([str(path)], SourceOptions(where='lang == "de"')) as source:
        found = list(source.read())
        assert source.matched == (10, 30)
    assert [item.id for item in found] == ["0", "3", "6", "9", None, "12", "15", "18", "21", "24", "27"]
    assert [item.position.line for item in found] == [1, 4, 7, 10, 11, 14, 17, 20, 23, 26, 29]
    assert isinstance(found[4], DeadLetter)
    with open_source([str(path)]) as source:
        list(source.read())
        assert source.matched is None


def test_what_does_not_match_needs_no_id(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"lang": "de"}, {"_id": "1", "lang": "en"})
    assert [item.id for item in items(path, where='lang == "en"')] == ["1"]


def mixed(folder: Path) -> list[str]:
    """The same documents in three forms."""
    jsonl(folder, *RECORDS, "broken", name="a.jsonl")
    header = "_id,n,lang,text\n"
    rows = "".join(f"{r['_id']}b,{r['n']},{r['lang']},{r['text']}\n" for r in RECORDS)
    (folder / "b.csv").write_text(header + rows)
    columns = {name: [record[name] for record in RECORDS] for name in RECORDS[0]}
    parquet.write_table(pa.table(columns | {"_id": [f"{n}c" for n in range(30)]}), folder / "c.parquet")
    return [str(folder / name) for name in ("a.jsonl", "b.csv", "c.parquet")]


@pytest.mark.parametrize("readers", [1, 3])
@pytest.mark.parametrize("limit", [None, 1, 9, 10, 11, 25, 100])
def test_skipping_counts_what_the_source_has(tmp_path: Path, limit: int | None, readers: int) -> None:
    names = mixed(tmp_path)
    options = SourceOptions(where='lang == "de" and n < 28', limit=limit, readers=readers)
    with open_source(names, options) as source:
        whole = list(source.read())
        assert len(whole) == min(31, limit or 31)
        for skip in range(len(whole) + 2):
            assert list(source.read(skip)) == whole[skip:]


def test_a_limit_alone(tmp_path: Path) -> None:
    names = mixed(tmp_path)
    with open_source(names) as source:
        whole = list(source.read())
    for limit in (1, 30, 31, 32, 60, 61, 62, 91, 200):
        with open_source(names, SourceOptions(limit=limit)) as source:
            assert list(source.read()) == whole[:limit]
            for skip in (0, 1, limit - 1, limit, limit + 1):
                assert list(source.read(skip)) == whole[skip:limit]


def test_csv_numbers_compare_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("_id,year\n1,999\n2,2020\n3,\n4,2021\n")
    assert [item.id for item in items(path, where="year >= 2020")] == ["2", "4"]


# --- fingerprints -------------------------------------------------------------------------------------------


def test_what_chooses_or_changes_documents_is_in_the_fingerprint(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *RECORDS)

    def fingerprint(**options: Any) -> str:
        with open_source([str(path)], SourceOptions(**options)) as source:
            return source.fingerprint()

    plain = fingerprint()
    assert fingerprint(readers=4) == plain
    assert fingerprint(id_field="_id", drop=()) == plain
    others: list[Fields] = [
        {"where": "n > 1"},
        {"where": "n > 2"},
        {"limit": 3},
        {"limit": 4},
        {"drop": ("n",)},
        {"assign": ("n={text}",)},
        {"assign": ("n={lang}",)},
        {"assign": ("n={text}", "m={text}")},
        {"assign": ("m={text}", "n={text}")},
        {"id_template": "{n}"},
        {"id_field": "n"},
        {"id_from": "content"},
        {"version_field": "n"},
        {"delete_field": "n"},
    ]
    found = [fingerprint(**other) for other in others]
    assert len({plain, *found}) == 1 + len(others)
    assert [fingerprint(**other) for other in others] == found


def test_options_travel_to_other_processes() -> None:
    options = SourceOptions(where="a > 1 and not b", assign=("x={a}. {b}",), drop=("c",), id_template="{a}-{b}")
    again = pickle.loads(pickle.dumps(options))
    assert again == options
    assert again.condition.holds({"a": 2})
    assert again.shape.of({"a": 2, "b": "y"}, {"c": 1}) == {"x": "2. y"}


# --- templates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "assign", "made"),
    [
        ({"h": "A"}, "title={h}", {"h": "A", "title": "A"}),
        ({"h": ["a", 1]}, "title={h}", {"h": ["a", 1], "title": ["a", 1]}),
        ({"h": {"x": 1}}, "title={h}", {"h": {"x": 1}, "title": {"x": 1}}),
        ({"h": 7}, "title={h}", {"h": 7, "title": 7}),
        ({"h": False}, "title={h}", {"h": False, "title": False}),
        ({"h": "A", "b": "B"}, "text={h}. {b}", {"h": "A", "b": "B", "text": "A. B"}),
        ({"h": "A"}, "text={h}. {b}", {"h": "A", "text": "A. "}),
        ({"h": None}, "text={h}. {b}", {"h": None}),
        ({"h": None}, "text={h}", {"h": None}),
        ({}, "text={h}. {b}", {}),
        ({"text": "own"}, "text={h}", {"text": "own"}),
        ({"text": "own", "h": "H"}, "text={h}: {text}", {"text": "H: own", "h": "H"}),
        ({"n": 1.5, "b": True}, "text={n}/{b}", {"n": 1.5, "b": True, "text": "1.5/true"}),
        ({"t": ["x", None, ["y"]]}, "text=[{t}]", {"t": ["x", None, ["y"]], "text": "[x\ny]"}),
        ({"a": {"b": "deep"}}, "text={a.b}", {"a": {"b": "deep"}, "text": "deep"}),
        ({"a": [{"b": 1}, {"b": 2}]}, "text={a.b}", {"a": [{"b": 1}, {"b": 2}], "text": [1, 2]}),
        ({"a": {"x": 1}}, "a.b={a.x}", {"a": {"x": 1, "b": 1}}),
        ({"x": 1}, "a.b.c={x}", {"x": 1, "a": {"b": {"c": 1}}}),
        ({"a.b": 1}, "a.b=new", {"a.b": "new"}),
        ({}, "kind=news", {"kind": "news"}),
        ({}, "kind=", {"kind": ""}),
        ({"x": 1}, "text={{{x}}} {{}}", {"x": 1, "text": "{1} {}"}),
        ({"x": "a=b"}, "text=1={x}", {"x": "a=b", "text": "1=a=b"}),
        ({"_op": "index", "x": "1"}, "op={_op}", {"x": "1", "op": "index"}),
        ({"x": "1"}, "id={_id}", {"x": "1", "id": "1"}),
    ],
)
def test_a_template_sets_a_field(tmp_path: Path, record: Fields, assign: str, made: Fields) -> None:
    assert shaped(tmp_path, record, assign) == made


def test_templates_see_the_document_as_it_was(tmp_path: Path) -> None:
    assert shaped(tmp_path, {"a": 1, "b": 2}, "a={b}", "b={a}") == {"a": 2, "b": 1}
    assert shaped(tmp_path, {"title": "old", "h": "new"}, "title={h}", drop=("title", "h")) == {"title": "new"}
    assert shaped(tmp_path, {"title": "old"}, "title={h}", drop=("title",)) == {}


@pytest.mark.parametrize(
    ("record", "drop", "left"),
    [
        ({"a": 1, "b": 2}, ("a",), {"b": 2}),
        ({"a": {"x": 1, "y": 2}}, ("a.x",), {"a": {"y": 2}}),
        ({"a": [{"x": 1, "y": 2}, 5]}, ("a.x",), {"a": [{"y": 2}, 5]}),
        ({"a.x": 1, "a": {"x": 2}}, ("a.x",), {"a": {"x": 2}}),
        ({"a": 1}, ("b", "a.x"), {"a": 1}),
    ],
)
def test_a_field_is_dropped(tmp_path: Path, record: Fields, drop: tuple[str, ...], left: Fields) -> None:
    assert shaped(tmp_path, record, drop=drop) == left


def test_a_template_that_does_not_go_with_a_document(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"_id": "1", "a": {"x": 1}}, {"_id": "2", "a": "x"})
    dead, doc = items(path, assign=("text=A {a}",))
    assert dead == DeadLetter(
        Position(str(path), 1),
        None,
        "the template 'A {a}': a is an object; name a field in it",
        {"_id": "1", "a": {"x": 1}},
    )
    assert isinstance(doc, Doc)
    blocked, _ = items(path, assign=("a.y=1",), where='_id == "2" or true == true')
    assert isinstance(blocked, Doc)
    (dead,) = items(path, assign=("a.y=1",), where='_id == "2"')
    assert isinstance(dead, DeadLetter)
    assert dead.reason == "field a.y cannot be set: a is a string, not an object"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assign": ("title",)}, "'title' sets no field; write FIELD=TEMPLATE, as in 'title={headline}'"),
        ({"assign": ("={x}",)}, "sets no field"),
        ({"assign": ("_id={x}",)}, "an id is made with --id-template"),
        ({"assign": ("_op=delete",)}, "_op cannot be set"),
        ({"assign": ("a={x}", "a={y}")}, "field a is set twice"),
        ({"assign": ("a={x",)}, "the template '{x': the brace at character 1 is not closed; a brace in the text is"),
        ({"assign": ("a=x}",)}, "the template 'x}': the brace at character 2 closes nothing; "),
        ({"assign": ("a=b {}",)}, "the template 'b {}': the braces at character 3 name no field"),
        ({"drop": ("",)}, "the name of a field to leave out is empty"),
        ({"id_template": "all"}, "names no field: every document would have that id"),
        ({"id_template": "{a}", "id_field": "b"}, "from a template, a field or the content: name one of the three"),
        ({"id_template": "{a}", "id_from": "content"}, "name one of the three"),
        ({"id_from": "content", "delete_field": "x"}, "--delete-field needs ids from a field"),
        ({"limit": 0}, "at least one document"),
        ({"readers": 0}, "at least one reader"),
    ],
)
def test_options_that_cannot_be(options: Fields, message: str) -> None:
    with pytest.raises(UsageError) as error:
        SourceOptions(**options)
    assert message in str(error.value)


def test_ids_of_several_fields(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        {"site": "a", "n": 1, "_id": "x"},
        {"site": "b", "n": "2"},
        {"site": "", "n": 3},
        {"n": 4},
        {"site": "c", "n": 1.5},
        {"site": ["c"], "n": 1},
        {"site": None, "n": 1},
        {"site": "c", "n": True},
    )
    found = items(path, id_template="{site}-{n}")
    assert [item.id for item in found] == ["a-1", "b-2", *[None] * 6]
    assert isinstance(found[0], Doc)
    assert found[0].source == {"site": "a", "n": 1}
    assert [item.reason for item in found if isinstance(item, DeadLetter)] == [
        f"no id: field {name} of the template '{{site}}-{{n}}' is {what}"
        for name, what in (
            ("site", "empty, not a string or a whole number"),
            ("site", "missing"),
            ("n", "1.5, not a string or a whole number"),
            ("site", "an array, not a string or a whole number"),
            ("site", "null, not a string or a whole number"),
            ("n", "a boolean, not a string or a whole number"),
        )
    ]


def test_an_id_of_a_field_that_is_dropped(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"meta": {"key": "k"}, "text": "t"})
    doc = only(path, id_template="{meta.key}", drop=("meta",))
    assert (doc.id, doc.source) == ("k", {"text": "t"})


def test_ids_from_the_content_are_of_its_final_shape(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"h": "A", "x": 1})
    doc = only(path, id_from="content", assign=("title={h}",), drop=("h",))
    assert doc.id == content_hash({"x": 1, "title": "A"})


def test_parquet_columns_that_are_dropped_need_no_form_in_json(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {"_id": ["1", "2"], "raw": pa.array([b"\x00", b"\x01"]), "a.b": ["x", "y"], "text": ["t", "u"]}
    parquet.write_table(pa.table(columns), path)
    assert [type(item) for item in items(path)] == [DeadLetter, DeadLetter]
    assert [item.source for item in items(path, drop=("raw",)) if isinstance(item, Doc)] == [
        {"a.b": "x", "text": "t"},
        {"a.b": "y", "text": "u"},
    ]
    assert [type(item) for item in items(path, drop=("raw",), assign=("x={raw}",))] == [DeadLetter, DeadLetter]
    everything = items(path, drop=("raw", "a.b", "text"), id_template="{_id}")
    assert [(item.id, item.source) for item in everything if isinstance(item, Doc)] == [("1", {}), ("2", {})]


# --- operations and versions --------------------------------------------------------------------------------


def test_an_update_is_an_operation(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"_id": "1", "_op": "update", "price": 3})
    doc = only(path)
    assert (doc.op, doc.id, doc.source) == ("update", "1", {"price": 3})
    dead = only(path, id_from="content")
    assert dead.reason == "an update is of a document that is there, and an id from this content is of another"


@pytest.mark.parametrize(
    ("value", "op"),
    [
        *[(value, "delete") for value in (True, 1, 0.5, "true", "True", "1", "yes", "2024-01-01T00:00:00Z", {"x": 1})],
        *[(value, "index") for value in (False, 0, 0.0, None, "", " ", "false", "FALSE", "0", "f", "n", "no", "off")],
        *[(value, "index") for value in ("null", "None", [], {})],
    ],
)
def test_a_delete_field(tmp_path: Path, value: Any, op: str) -> None:
    path = jsonl(tmp_path, {"_id": "1", "after": {"deleted": value}}, {"_id": "2"}, {"_id": "3", "_op": "delete"})
    assert [item.op for item in items(path, delete_field="after.deleted") if isinstance(item, Doc)] == [
        op,
        "index",
        "delete",
    ]


@pytest.mark.parametrize(
    ("record", "version"),
    [
        ({"v": 0}, 0),
        ({"v": 2**63 - 1}, 2**63 - 1),
        ({"v": "12"}, 12),
        ({"v": 2**63}, "its version (field v) is 9223372036854775808, engines take 0 to 9223372036854775807"),
        ({"v": -1}, "its version (field v) is -1, engines take 0 to 9223372036854775807"),
        ({"v": 1.0}, "its version (field v) is 1.0, not a whole number"),
        ({"v": True}, "its version (field v) is true, not a whole number"),
        ({"v": "1.5"}, 'its version (field v) is "1.5", not a whole number'),
        ({"v": "-1"}, 'its version (field v) is "-1", not a whole number'),
        ({"v": "²"}, 'its version (field v) is "²", not a whole number'),
        ({"v": [1]}, "its version (field v) is [1], not a whole number"),
        ({"v": None}, "no version: field v is null"),
        ({"v": ""}, "no version: field v is empty"),
        ({}, "no version: field v is missing"),
    ],
)
def test_a_version(tmp_path: Path, record: Fields, version: int | str) -> None:
    item = only(jsonl(tmp_path, {"_id": "1", **record}), version_field="v")
    if isinstance(version, int):
        assert (item.version, item.source) == (version, record)
    else:
        assert (item.id, item.reason, item.document) == ("1", version, {"_id": "1", **record})


def test_a_nested_version_of_a_deletion(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"_id": "1", "m": {"v": 5}, "gone": True})
    doc = only(path, version_field="m.v", delete_field="gone", drop=("m", "gone"))
    assert doc == Doc("1", {}, Position(str(path), 1), "delete", 5)


def test_without_a_version_field_there_is_none(tmp_path: Path) -> None:
    assert only(jsonl(tmp_path, {"_id": "1", "version": 5})).version is None


def test_a_dead_letter_is_shaped_once(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"sku": "1", "h": "A", "text": "B", "_op": "update"})
    dead = only(path, id_field="sku", assign=("text={h}. {text}",), drop=("h",), version_field="v")
    assert dead.document == {"sku": "1", "_op": "update", "text": "A. B"}
    letters = tmp_path / "x.dead-letter.jsonl"
    letter = {"file": "a", "line": 1, "id": dead.id, "reason": dead.reason, "document": dead.document | {"v": 3}}
    letters.write_text(json.dumps(letter) + "\n")
    with open_letters(letters, SourceOptions(id_field="sku", version_field="v")) as source:
        assert list(source.read()) == [Doc("1", {"text": "A. B", "v": 3}, Position("a", 1), "update", 3)]


# --- the command line ---------------------------------------------------------------------------------------


def test_fit_and_encode_take_the_options(bridge: Bridge, tmp_path: Path) -> None:
    jsonl(tmp_path, *({"key": r["_id"], "lang": r["lang"], "h": f"word{r['n']}", "b": "same"} for r in RECORDS))
    chosen = ("--where", 'lang == "de"', "--id-template", "{lang}-{key}", "--set", "text={h}. {b}", "--drop", "h")
    code, out, err = bridge("fit", "a.jsonl", "-o", "model", *chosen, "--json")
    assert code == 0, err
    assert json.loads(out)["documents"] == 10
    assert "10 of 30 documents match the condition" in err
    words = ("encode", "a.jsonl", "-o", "v.jsonl", "--model", "model", "--keep-source", *chosen, "--limit", "4")
    code, out, err = bridge(*words, "--readers", "2", "--json")
    assert code == 0, err
    assert json.loads(out)["source"] == 4
    assert "4 of 10 documents match the condition" in err
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["de-0", "de-3", "de-6", "de-9"]
    assert lines[1]["source"] == {"key": "3", "lang": "de", "b": "same", "text": "word3. same"}


def test_slips_are_one_line_with_exit_code_2(fails: Callable[..., str], tmp_path: Path) -> None:
    jsonl(tmp_path, *RECORDS)
    for arguments, message in (
        (["--where", "lang = 1"], "the condition cannot be understood at character 6, not understood; == is meant?"),
        (["--set", "text={x"], "is not closed"),
        (["--id-template", "x"], "names no field"),
    ):
        for command in (["fit", "a.jsonl", "-o", "m"], ["encode", "a.jsonl", "-o", "v.jsonl"]):
            assert message in fails(2, *command, *arguments)
        assert message in fails(2, "ingest", "index", "a.jsonl", *arguments)


def test_an_update_has_no_vector(bridge: Bridge, tmp_path: Path) -> None:
    jsonl(tmp_path, {"_id": "1", "text": "words"}, {"_id": "2", "_op": "update", "n": 1})
    code, out, _ = bridge("encode", "a.jsonl", "-o", "v.jsonl", "--json")
    assert (code, json.loads(out)["dead"]) == (3, 1)
    (letter,) = (tmp_path / "v.jsonl.dead-letter.jsonl").read_text().splitlines()
    assert json.loads(letter)["reason"].startswith("an update of some fields has no vector")
