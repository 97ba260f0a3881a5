"""Loads of chosen and reshaped documents, on a real engine; interrupted, they end as an undisturbed one does."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.engines import Engine
from bridge.errors import CheckpointError
from bridge.ingest import IngestOptions, IngestSummary, ingest
from bridge.sources import Item, SourceOptions, open_source
from tests.interrupted import Interrupted

Bridge = Callable[..., tuple[int, str, str]]
Fields = dict[str, Any]


@pytest.fixture
def model(bridge: Bridge, tmp_path: Path) -> str:
    """A model's folder."""
    (tmp_path / "fit.jsonl").write_text("".join(f'{{"_id": "{n}", "text": "word{n} words"}}\n' for n in range(50)))
    assert bridge("fit", "fit.jsonl", "-o", "model", "--language", "none")[0] == 0
    return str(tmp_path / "model")


def stored(engine: Engine, index: str) -> dict[str, Fields]:
    """id ─▶ source without what the bridge keeps, of every document."""
    engine.refresh(index)
    body = {"size": 5_000, "_source": {"excludes": ["embedding", "bridge_content_hash"]}, "version": True}
    hits = engine.search(index, body)["hits"]["hits"]
    return {hit["_id"]: {**hit["_source"], "version of it": hit["_version"]} for hit in hits}


def files(folder: Path) -> str:
    """Six files of four hundred documents; some cannot be read, some have no id."""
    for part in range(6):
        records = [
            f'{{"key": "{n}", "lang": "{"de" if n % 3 else "en"}", "h": "word{n % 50}", "body": "words", "year": {n}}}'
            if n % 97
            else ("{broken" if n % 2 else '{"lang": "de", "h": "no id"}')
            for n in range(400 * part, 400 * part + 400)
        ]
        (folder / f"part-{part}.jsonl.gz").write_bytes(gzip.compress("\n".join(records).encode()))
    return str(folder / "part-*.jsonl.gz")


CHOSEN = SourceOptions(
    id_template="{lang}-{key}",
    where='lang == "de" and year < 2000',
    limit=1_000,
    assign=("title={h}", "text={h}. {body}"),
    drop=("h", "body"),
)


@pytest.mark.parametrize("readers", [1, 4])
def test_an_interrupted_load_of_chosen_documents(
    engine: Engine, index: str, model: str, tmp_path: Path, readers: int
) -> None:
    spec = files(tmp_path)
    options = IngestOptions(model=model, dead_letter=tmp_path / "dead.jsonl")
    reading = SourceOptions(
        **{
            **{name: getattr(CHOSEN, name) for name in ("id_template", "where", "limit", "assign", "drop")},
            "readers": readers,
        }
    )
    with open_source([spec], CHOSEN) as source:
        expected = list(source.read())
    assert len(expected) == 1_000
    for after in (0, 300, 450):
        with open_source([spec], reading) as source:
            interrupted = Interrupted(source.files, source.options)
            interrupted.after = after
            with pytest.raises(KeyboardInterrupt):
                ingest(engine, index, interrupted, options)
    other = SourceOptions(where="year < 5")
    with open_source([spec], other) as source, pytest.raises(CheckpointError, match="the source has changed since"):
        ingest(engine, index, source, options)
    with open_source([spec], reading) as source:
        summary = ingest(engine, index, source, options)
    assert_as_expected(summary, expected, stored(engine, index))
    letters = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert [(letter["file"], letter["line"]) for letter in letters] == [
        (item.position.file, item.position.line) for item in expected if hasattr(item, "reason")
    ]


def assert_as_expected(summary: IngestSummary, expected: list[Item], found: dict[str, Fields]) -> None:
    documents = {item.id: dict(item.source) for item in expected if not hasattr(item, "reason")}
    dead = len(expected) - len(documents)
    assert dead > 5
    assert (summary.source, summary.indexed, summary.dead) == (len(expected), len(documents), dead)
    assert {
        name: {key: value for key, value in fields.items() if key != "version of it"} for name, fields in found.items()
    } == documents
    assert all(fields["text"] == f"{fields['title']}. words" for fields in found.values())


def test_a_feed_of_changes(
    bridge: Bridge, engine: Engine, index: str, model: str, tmp_path: Path, opensearch_url: str
) -> None:
    def feed(name: str, *records: Fields) -> Fields:
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
        words = ("ingest", index, name, "--model", model, "--version-field", "v", "--delete-field", "gone", "--json")
        code, out, err = bridge(*words, url=opensearch_url)
        assert code in (0, 3), err
        return {
            key: value for key, value in json.loads(out).items() if key in ("indexed", "unchanged", "deleted", "dead")
        }

    first = [{"_id": str(n), "text": f"word{n}", "v": 10} for n in range(5)]
    assert feed("a.jsonl", *first) == {"indexed": 5, "unchanged": 0, "deleted": 0, "dead": 0}
    found = feed(
        "b.jsonl",
        {"_id": "0", "text": "word8 newer", "v": 11},
        {"_id": "1", "text": "word8 older", "v": 9},
        {"_id": "2", "v": 12, "gone": "true"},
        {"_id": "3", "text": "word8", "v": "later"},
        {"_id": "4", "text": "word8", "gone": False},
    )
    assert (found["deleted"], found["dead"], found["indexed"]) == (1, 2, 1)
    now = stored(engine, index)
    assert {name: (fields["text"], fields["version of it"]) for name, fields in now.items()} == {
        "0": ("word8 newer", 11),
        "1": ("word1", 10),
        "3": ("word3", 10),
        "4": ("word4", 10),
    }
    reasons = [
        json.loads(line)["reason"] for line in (tmp_path / f"{index}.dead-letter.jsonl").read_text().splitlines()
    ]
    assert reasons == ['its version (field v) is "later", not a whole number', "no version: field v is missing"]


def test_an_update_leaves_the_rest(
    bridge: Bridge, engine: Engine, index: str, model: str, tmp_path: Path, opensearch_url: str
) -> None:
    def load(*records: Fields) -> tuple[int, Fields]:
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        code, out, err = bridge("ingest", index, "a.jsonl", "--model", model, "--fresh", "--json", url=opensearch_url)
        assert out, err
        return code, json.loads(out)

    assert load({"_id": "1", "text": "word1", "price": 1})[0] == 0
    code, summary = load({"_id": "1", "_op": "update", "price": 2}, {"_id": "1", "_op": "update", "text": "word2"})
    assert (code, summary["indexed"], summary["dead"]) == (3, 1, 1)
    assert stored(engine, index)["1"].items() >= {"text": "word1", "price": 2}.items()


def test_a_letter_keeps_its_version_and_its_routing(
    bridge: Bridge, engine: Engine, index: str, model: str, tmp_path: Path, opensearch_url: str
) -> None:
    """Tried again, an old document replaces nothing newer, and a routed one goes where it was."""

    def run(*words: str, code: int = 0) -> Fields:
        found, out, err = bridge(*words, "--json", url=opensearch_url)
        assert found == code, err
        result: Fields = json.loads(out)
        return result

    def feed(record: Fields, code: int = 0) -> Fields:
        (tmp_path / "feed.jsonl").write_text(json.dumps(record) + "\n")
        return run("ingest", index, "feed.jsonl", "--model", model, "--version-field", "v", "--fresh", code=code)

    feed({"_id": "a", "text": "word1", "day": 1, "v": 1})
    feed({"_id": "b", "text": "word2", "day": "a Tuesday", "v": 5}, code=3)
    letters = tmp_path / f"{index}.dead-letter.jsonl"
    (letter,) = map(json.loads, letters.read_text().splitlines())
    assert (letter["id"], letter["version"]) == ("b", 5)
    assert "routing" not in letter
    feed({"_id": "b", "text": "word3", "day": 2, "v": 6})
    letters.write_text(json.dumps(letter | {"document": letter["document"] | {"day": 3}}) + "\n")
    assert run("dead-letter", "retry", letters.name)["unchanged"] == 1
    assert stored(engine, index)["b"]["version of it"] == 6
    assert not letters.exists()

    # Of an index, whose documents have versions and routings of their own.
    other = f"{index}-routed"
    engine.create_index(other, {"settings": {"number_of_replicas": 0}})
    try:
        body = {"text": "word4", "day": "Wednesday"}
        lines = (json.dumps({"index": {"_id": "c", "routing": "here"}}), json.dumps(body), "")
        assert engine.bulk(other, "\n".join(lines).encode())[0]["index"]["status"] == 201
        assert run("ingest", index, f"index:{other}", "--model", model, code=3)["dead"] == 1
    finally:
        engine.delete_index(other)
    (letter,) = map(json.loads, letters.read_text().splitlines())
    assert (letter["id"], letter["routing"]) == ("c", "here")
    letters.write_text(json.dumps(letter | {"document": body | {"day": 4}}) + "\n")
    assert run("dead-letter", "retry", letters.name)["indexed"] == 1
    engine.refresh(index)
    (hit,) = engine.search(index, {"query": {"ids": {"values": ["c"]}}})["hits"]["hits"]
    assert hit["_routing"] == "here"
