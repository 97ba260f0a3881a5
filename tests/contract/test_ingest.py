"""Ingesting: every document ends as exactly one thing, and what breaks off goes on."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from bridge.bulk import BulkOptions
from bridge.checkpoint import read_checkpoint
from bridge.engines import Engine
from bridge.errors import IndexConflict, IndexReadOnly, ModelFormatError
from bridge.ingest import IngestOptions, IngestSummary, ingest
from bridge.loadsettings import begin_load
from bridge.modelstore import MODELS_INDEX, find_model
from bridge.records import HASH_FIELD
from bridge.sources import open_source
from tests.interrupted import Interrupted

Bridge = Callable[..., tuple[int, str, str]]
Record = dict[str, Any]

COUNTS = ("source", "indexed", "unchanged", "deleted", "dead")
SMALL_CHUNKS = BulkOptions(chunk_documents=10, in_flight=1)
COMMAND = [sys.executable, "-c", "from bridge.cli import main; main()"]


def jsonl(path: Path, records: list[Record]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def numbered(count: int) -> list[Record]:
    return [{"_id": str(i), "title": f"Document {i}", "text": f"word{i % 97} and word{i % 89}"} for i in range(count)]


def counts(out: str) -> dict[str, int]:
    """The counts of `--json`, checked to add up."""
    summary = json.loads(out.splitlines()[-1])
    assert summary["source"] == sum(summary[name] for name in COUNTS[1:])
    return {name: summary[name] for name in COUNTS if summary[name] or name == "source"}


def letters(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def stored(engine: Engine, index: str) -> dict[str, Record]:
    """id ─▶ source, of every document of the index."""
    engine.refresh(index)
    found: dict[str, Record] = {}
    body: Record = {"size": 1000, "sort": [{"_seq_no": "asc"}], "_source": {"excludes": ["embedding"]}}
    while hits := engine.search(index, body)["hits"]["hits"]:
        found |= {hit["_id"]: hit["_source"] for hit in hits}
        body["search_after"] = hits[-1]["sort"]
    return found


def break_off(engine: Engine, index: str, path: Path, after: int, options: IngestOptions) -> None:
    with open_source([str(path)]) as source:
        interrupted = Interrupted(source.files, source.options)
        interrupted.after = after
        with pytest.raises(KeyboardInterrupt):
            ingest(engine, index, interrupted, options)


def go_on(engine: Engine, index: str, path: Path, options: IngestOptions) -> IngestSummary:
    with open_source([str(path)]) as source:
        return ingest(engine, index, source, options)


@pytest.fixture
def model(bridge: Bridge, tmp_path: Path) -> str:
    """A model's folder; its fingerprint is of this test alone."""
    corpus = jsonl(tmp_path / "fit.jsonl", [*numbered(50), {"_id": "x", "text": uuid.uuid4().hex}])
    assert bridge("fit", str(corpus), "-o", "model", "--language", "none")[0] == 0
    return str(tmp_path / "model")


@pytest.fixture
def load(bridge: Bridge, opensearch_url: str, index: str, model: str) -> Bridge:
    """`bridge ingest` of these arguments into the index, as JSON."""

    def call(*arguments: str) -> tuple[int, str, str]:
        return bridge("ingest", index, *arguments, "--model", model, "--json", url=opensearch_url)

    return call


# --- Counting -----------------------------------------------------------------------------------------------


def test_totals_add_up_and_a_second_run_changes_nothing(
    load: Bridge, engine: Engine, index: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(300))
    code, out, _ = load(str(path))
    assert (code, counts(out)) == (0, {"source": 300, "indexed": 300})
    before = stored(engine, index)
    code, out, _ = load(str(path))
    assert (code, counts(out)) == (0, {"source": 300, "unchanged": 300})
    assert stored(engine, index) == before
    assert len(before) == 300


def test_the_source_is_kept_as_it_was(load: Bridge, engine: Engine, index: str, tmp_path: Path) -> None:
    record = {
        "title": "é 日本",
        "text": "words",
        "n": 1,
        "x": 0.5,
        "deep": {"list": [1, None, 2], "objects": [{"a": "b"}]},
        "empty": "",
    }
    load(str(jsonl(tmp_path / "a.jsonl", [{"_id": "é/ü ?#", **record}])))
    (found,) = stored(engine, index).items()
    assert found[0] == "é/ü ?#"
    assert {name: value for name, value in found[1].items() if name != HASH_FIELD} == record


def test_only_a_changed_document_is_indexed_again(load: Bridge, engine: Engine, index: str, tmp_path: Path) -> None:
    records = numbered(200)
    load(str(jsonl(tmp_path / "a.jsonl", records)))
    records[7]["text"] = "another text"
    records[8]["tag"] = "a field that is not encoded"
    code, out, _ = load(str(jsonl(tmp_path / "a.jsonl", [*records, {"_id": "new", "text": "new"}])))
    assert (code, counts(out)) == (0, {"source": 201, "indexed": 3, "unchanged": 198})
    now = stored(engine, index)
    assert (now["7"]["text"], now["8"]["tag"], now["new"]["text"]) == (
        "another text",
        "a field that is not encoded",
        "new",
    )


def test_other_text_fields_make_other_vectors_of_the_same_documents(
    load: Bridge, engine: Engine, index: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"_id": "1", "title": "red", "text": "blue"}, {"_id": "2", "text": "green"}])
    load(str(path))
    code, out, _ = load(str(path), "--text-field", "text")
    assert (code, counts(out)) == (0, {"source": 2, "indexed": 1, "unchanged": 1})
    assert set(engine.get_sources(index, ["1"], ["embedding"])["1"]["embedding"]) == {"blue"}


def test_deletions_are_counted_and_done_also_of_what_is_not_there(
    load: Bridge, engine: Engine, index: str, tmp_path: Path
) -> None:
    load(str(jsonl(tmp_path / "a.jsonl", numbered(3))))
    delete = [{"_id": "1", "_op": "delete"}, {"_id": "never", "_op": "delete"}]
    code, out, _ = load(str(jsonl(tmp_path / "b.jsonl", [*delete, *numbered(1)])))
    assert (code, counts(out)) == (0, {"source": 3, "deleted": 2, "unchanged": 1})
    assert set(stored(engine, index)) == {"0", "2"}


def test_a_document_deleted_and_given_again_in_one_source_is_there(
    load: Bridge, engine: Engine, index: str, tmp_path: Path
) -> None:
    load(str(jsonl(tmp_path / "a.jsonl", numbered(3))))
    delete = [{"_id": "1", "_op": "delete"}, {"_id": "2", "_op": "delete"}]
    again = numbered(2)[1:]
    _, out, _ = load(str(jsonl(tmp_path / "b.jsonl", [*delete, *again])))
    assert counts(out) == {"source": 3, "indexed": 1, "deleted": 2}
    assert set(stored(engine, index)) == {"0", "1"}


def test_a_document_changed_and_changed_back_in_one_source_is_as_it_was(
    load: Bridge, engine: Engine, index: str, tmp_path: Path
) -> None:
    (record,) = numbered(1)
    load(str(jsonl(tmp_path / "a.jsonl", [record])))
    load(str(jsonl(tmp_path / "b.jsonl", [{**record, "text": "other"}, *numbered(600)[1:], record])))
    assert stored(engine, index)["0"]["text"] == record["text"]


def test_on_a_fresh_index_a_repeated_document_is_unchanged_and_a_second_one_of_its_id_is_dead(
    load: Bridge, engine: Engine, index: str, tmp_path: Path
) -> None:
    first = {"_id": "a", "text": "first"}
    path = jsonl(tmp_path / "a.jsonl", [first, {"_id": "b", "text": "b"}, first, {"_id": "a", "text": "second"}])
    code, out, err = load(str(path), "--dead-letter", "dead.jsonl")
    assert (code, counts(out)) == (3, {"source": 4, "indexed": 2, "unchanged": 1, "dead": 1})
    assert letters(tmp_path / "dead.jsonl") == [
        {
            "file": str(path),
            "line": 4,
            "id": "a",
            "reason": "duplicate id 'a': another document of this load has it, with other content",
            "document": {"text": "second"},
        }
    ]
    assert stored(engine, index)["a"]["text"] == "first"
    assert "dead.jsonl" in out + err


# --- Dead letters -------------------------------------------------------------------------------------------


def test_dead_letters_say_where_which_and_why(load: Bridge, engine: Engine, index: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"_id": "good", "text": "good"}\n'
        '{"text": "has no id"}\n'
        '{"_id": "no text", "body": "x"}\n'
        '{"_id": "blank", "text": " "}\n'
        "not json\n"
        '{"_id": "own", "text": "x", "embedding": {}}\n'
    )
    code, out, _ = load(str(path))
    assert (code, counts(out)) == (3, {"source": 6, "indexed": 1, "dead": 5})
    found = letters(tmp_path / f"{index}.dead-letter.jsonl")
    assert [list(letter) for letter in found] == [["file", "line", "id", "reason", "document"]] * 5
    assert {letter["file"] for letter in found} == {str(path)}
    hint = "name another with --id-field, or use --id-from content"
    assert [(letter["line"], letter["id"], letter["reason"], letter["document"]) for letter in found] == [
        (2, None, f"no id: field _id is missing ({hint})", {"text": "has no id"}),
        (3, "no text", "none of the text fields title, text is there; it has: body", {"body": "x"}),
        (4, "blank", "its text is empty (text)", {"text": " "}),
        (5, None, found[3]["reason"], "not json"),
        (6, "own", found[4]["reason"], {"text": "x", "embedding": {}}),
    ]
    assert found[3]["reason"].startswith("not JSON: ")
    assert "has a field embedding of its own" in found[4]["reason"]
    assert set(stored(engine, index)) == {"good"}


def test_what_the_engine_refuses_is_dead_with_its_reason_and_the_rest_goes_in(
    load: Bridge, engine: Engine, index: str, tmp_path: Path
) -> None:
    records = [
        {"_id": "1", "text": "a", "meta": {"author": "x"}},
        {"_id": "2", "text": "b", "meta": "a text here"},
        {"_id": "3", "text": "c", "meta": {"author": "y"}},
    ]
    path = jsonl(tmp_path / "a.jsonl", records)
    code, out, _ = load(str(path), "--dead-letter", "dead.jsonl")
    assert (code, counts(out)) == (3, {"source": 3, "indexed": 2, "dead": 1})
    (letter,) = letters(tmp_path / "dead.jsonl")
    assert (letter["file"], letter["line"], letter["id"]) == (str(path), 2, "2")
    assert letter["reason"].startswith("the engine refused it (400): object mapping for [meta] tried to parse")
    assert letter["document"] == {"text": "b", "meta": "a text here"}
    assert set(stored(engine, index)) == {"1", "3"}


def test_a_write_blocked_index_is_waited_for(load: Bridge, engine: Engine, index: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(20))
    load(str(jsonl(tmp_path / "b.jsonl", [{"_id": "x", "text": "x"}])))
    engine.put_settings(index, {"index.blocks.write": True})
    unblock = threading.Timer(2.0, engine.put_settings, (index, {"index.blocks.write": None}))
    unblock.start()
    code, out, err = load(str(path))
    unblock.join()
    assert (code, counts(out)) == (0, {"source": 20, "indexed": 20})
    assert f"the index takes no writes: index [{index}] blocked by: [FORBIDDEN/8/index write (api)]" in err
    assert not (tmp_path / f"{index}.dead-letter.jsonl").exists()


def test_a_write_block_that_stays_ends_the_run_without_a_dead_letter(
    load: Bridge, engine: Engine, index: str, model: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(20))
    load(str(jsonl(tmp_path / "b.jsonl", [{"_id": "x", "text": "x"}])))
    engine.put_settings(index, {"index.blocks.write": True})
    options = IngestOptions(model=model, bulk=BulkOptions(patience=0.1))
    with open_source([str(path)]) as source, pytest.raises(IndexReadOnly, match="goes on where this one stopped"):
        ingest(engine, index, source, options)
    assert not (tmp_path / f"{index}.dead-letter.jsonl").exists()
    engine.put_settings(index, {"index.blocks.write": None})
    code, out, _ = load(str(path))
    assert (code, counts(out)) == (0, {"source": 20, "indexed": 20})


# --- The index while documents are sent to it ---------------------------------------------------------------


def refresh_interval(engine: Engine, index: str) -> str | None:
    return engine.require_index(index).settings.get("index.refresh_interval")


def test_the_refresh_interval_is_put_back_whatever_ends_the_load(
    load: Bridge, engine: Engine, index: str, model: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(400))
    seen = []

    class Looking(Interrupted):
        def read(self, skip: int = 0) -> Any:
            for item in super().read(skip):
                if not seen:
                    seen.append(refresh_interval(engine, index))
                yield item

    with open_source([str(path)]) as source:
        interrupted = Looking(source.files, source.options)
        interrupted.after = 200
        with pytest.raises(KeyboardInterrupt):
            ingest(engine, index, interrupted, IngestOptions(model=model, bulk=SMALL_CHUNKS))
    assert (seen, refresh_interval(engine, index)) == (["-1"], None)
    engine.put_settings(index, {"index.refresh_interval": "7s"})
    assert load(str(path))[0] == 0
    assert refresh_interval(engine, index) == "7s"


def test_what_a_crashed_load_has_left_is_put_back_by_finish(
    load: Bridge, bridge: Bridge, engine: Engine, index: str, tmp_path: Path, opensearch_url: str
) -> None:
    load(str(jsonl(tmp_path / "a.jsonl", numbered(20))))
    engine.put_settings(index, {"index.refresh_interval": "7s"})
    begin_load(engine, index, fresh=True)
    assert refresh_interval(engine, index) == "-1"
    code, out, _ = bridge("ingest", index, "--finish", url=opensearch_url)
    assert (code, out) == (0, f"{index} has its settings back\n")
    assert refresh_interval(engine, index) == "7s"
    assert (
        bridge("ingest", index, "--finish", url=opensearch_url)[1] == f"{index} has its own settings: nothing to do\n"
    )


def test_an_index_that_is_replaced_meanwhile_ends_the_run(
    engine: Engine, index: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.keeper.CHECKPOINT_SECONDS", 0.0)
    path = jsonl(tmp_path / "a.jsonl", numbered(400))

    class Replacing(Interrupted):
        def read(self, skip: int = 0) -> Any:
            for count, item in enumerate(super().read(skip)):
                if count == 200:
                    engine.delete_index(index)
                    engine.create_index(index, {})
                yield item

    with open_source([str(path)]) as source:
        replacing = Replacing(source.files, source.options)
        replacing.after = 10_000
        with pytest.raises(IndexConflict, match="is another one now"):
            ingest(engine, index, replacing, IngestOptions(model=model, bulk=SMALL_CHUNKS))


def test_a_source_of_which_most_is_dead_is_given_up_early(load: Bridge, index: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"_id": str(i), "text": "x" if i % 3 == 0 else ""} for i in range(3000)])
    code, out, err = load(str(path))
    assert (code, out) == (1, "")
    assert "of the first 1,0" in err
    assert "--error-budget 1 goes on all the same" in err
    code, out, _ = load(str(path), "--error-budget", "1")
    assert (code, counts(out)) == (3, {"source": 3000, "indexed": 1000, "dead": 2000})


# --- Dead letters ---------------------------------------------------------------------------------------------


def test_dead_letters_are_shown_and_tried_again(
    load: Bridge, bridge: Bridge, engine: Engine, index: str, model: str, tmp_path: Path, opensearch_url: str
) -> None:
    documents = [*numbered(20), {"_id": "late", "text": ""}, {"_id": "never", "text": " "}, {"text": "no id"}]
    path = jsonl(tmp_path / "a.jsonl", documents)
    with path.open("a") as file:
        file.write("not json\n")
    assert load(str(path))[0] == 3
    letters = tmp_path / f"{index}.dead-letter.jsonl"
    code, out, err = bridge("dead-letter", "show", str(letters))
    assert code == 0
    assert "no id: no id: field _id is missing" in out
    assert "4 documents in" in err
    # Mended by hand, as a user would.
    mended = letters.read_text().replace(
        '"id":"late","reason":"its text is empty (text)","document":{"text":""}',
        '"id":"late","reason":"its text is empty (text)","document":{"text":"now"}',
    )
    letters.write_text(mended)
    code, out, _ = bridge("dead-letter", "retry", str(letters), "--model", model, "--json", url=opensearch_url)
    assert (code, counts(out)) == (3, {"source": 4, "indexed": 1, "dead": 3})
    left = [json.loads(line) for line in letters.read_text().splitlines()]
    assert [(letter["id"], letter["line"]) for letter in left] == [("never", 22), (None, 23), (None, 24)]
    assert left[2]["document"] == "not json"
    assert not letters.with_name(letters.name + ".rest").exists()
    engine.refresh(index)
    assert engine.count(index) == 21


def test_a_file_of_something_else_is_no_dead_letter(fails: Callable[..., str], tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"_id": "x", "text": "x"}])
    assert "is not a dead letter" in fails(1, "dead-letter", "show", str(path))
    assert "name it with --index" in fails(2, "dead-letter", "retry", str(path))


# --- Sources through the command line -----------------------------------------------------------------------


def csv_file(folder: Path, records: list[Record]) -> Path:
    path = folder / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["_id", "title", "text"])
        writer.writeheader()
        writer.writerows(records)
    return path


def parquet_file(folder: Path, records: list[Record]) -> Path:
    parquet.write_table(pa.Table.from_pylist(records), folder / "a.parquet")
    return folder / "a.parquet"


def gz_file(folder: Path, records: list[Record]) -> Path:
    path = folder / "a.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl(folder / "plain.jsonl", records).read_bytes()))
    return path


@pytest.mark.parametrize("write", [csv_file, parquet_file, gz_file])
def test_every_format_brings_in_the_same_documents(
    load: Bridge, engine: Engine, index: str, tmp_path: Path, write: Callable[[Path, list[Record]], Path]
) -> None:
    records = numbered(120)
    code, out, _ = load(str(write(tmp_path, records)))
    assert (code, counts(out)) == (0, {"source": 120, "indexed": 120})
    code, out, _ = load(str(jsonl(tmp_path / "same.jsonl", records)))
    assert (code, counts(out)) == (0, {"source": 120, "unchanged": 120})


def test_documents_come_from_stdin(engine: Engine, index: str, model: str, tmp_path: Path, opensearch_url: str) -> None:
    content = jsonl(tmp_path / "a.jsonl", numbered(120)).read_bytes()
    command = [*COMMAND, "--url", opensearch_url, "ingest", index, "-", "--model", model, "--json", "-q"]
    run = subprocess.run(command, input=content, capture_output=True, cwd=tmp_path, check=False)
    assert (run.returncode, run.stderr) == (0, b"")
    assert counts(run.stdout.decode()) == {"source": 120, "indexed": 120}
    assert len(stored(engine, index)) == 120


def test_ids_can_be_another_field_or_come_from_the_content(
    load: Bridge, engine: Engine, index: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"key": 7, "text": "a"}, {"key": 8, "text": "b"}])
    load(str(path), "--id-field", "key")
    assert set(stored(engine, index)) == {"7", "8"}
    _, out, _ = load(str(path), "--id-from", "content")
    assert counts(out) == {"source": 2, "indexed": 2}
    _, out, _ = load(str(path), "--id-from", "content")
    assert counts(out) == {"source": 2, "unchanged": 2}
    assert len(stored(engine, index)) == 4


# --- Going on -----------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_loses_and_doubles_nothing(
    engine: Engine, index: str, home: Path, tmp_path: Path, opensearch_url: str
) -> None:
    records = numbered(5000)
    without_id = [i for i in range(5000) if i % 50 == 25]
    for i in without_id:
        del records[i]["_id"]
    path = jsonl(tmp_path / "a.jsonl", records)
    command = [*COMMAND, "--url", opensearch_url, "ingest", index, str(path), "--chunk-documents", "4", "--json"]

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path)
    position = wait_for_checkpoint(process, home)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    engine.refresh(index)
    assert 0 < position <= engine.count(index) + len(without_id) < 5000

    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert again.returncode == 3, again.stderr
    assert "going on with an interrupted run at document" in again.stderr
    total = counts(again.stdout)
    assert (total["source"], total["dead"]) == (5000, len(without_id))
    # What was sent after the last checkpoint is met again, and is recognised.
    assert total["indexed"] > position - len(without_id)
    found = stored(engine, index)
    assert set(found) == {record["_id"] for record in records if "_id" in record}
    assert engine.count(index) == len(found)
    written = letters(tmp_path / f"{index}.dead-letter.jsonl")
    assert [letter["line"] for letter in written] == [i + 1 for i in without_id]
    assert list((home / "data" / "checkpoints").iterdir()) == []


def wait_for_checkpoint(process: subprocess.Popen[bytes], home: Path) -> int:
    """The position of the run's checkpoint, once it has moved."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, (process.stderr or sys.stdin).read()
        for path in (home / "data").glob("checkpoints/*.json"):
            if (there := read_checkpoint(path)) and there.position:
                return there.position
        time.sleep(0.01)
    raise AssertionError("the checkpoint did not move")


def test_an_interrupted_run_goes_on_where_it_stopped(engine: Engine, index: str, model: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(400))
    options = IngestOptions(model=model, bulk=SMALL_CHUNKS, dead_letter=tmp_path / "dead.jsonl")
    break_off(engine, index, path, 300, options)
    summary = go_on(engine, index, path, options)
    assert (summary.source, summary.indexed + summary.unchanged, summary.dead) == (400, 400, 0)
    # No more than the chunks that were under way is met again.
    assert summary.unchanged <= 2 * SMALL_CHUNKS.chunk_documents
    assert len(stored(engine, index)) == 400


def test_a_source_that_changed_since_is_refused_and_fresh_starts_over(
    load: Bridge, engine: Engine, index: str, model: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(400))
    break_off(engine, index, path, 300, IngestOptions(model=model, bulk=SMALL_CHUNKS))
    engine.refresh(index)
    there = engine.count(index)
    assert 0 < there < 300
    jsonl(path, [*numbered(400), {"_id": "late", "text": "late"}])
    code, out, err = load(str(path))
    assert (code, out) == (1, "")
    assert "the source has changed" in err
    assert "--fresh" in err
    code, out, _ = load(str(path), "--fresh")
    assert (code, counts(out)) == (0, {"source": 401, "indexed": 401 - there, "unchanged": there})


def test_an_index_that_was_made_anew_since_is_refused(
    load: Bridge, engine: Engine, index: str, model: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(400))
    break_off(engine, index, path, 300, IngestOptions(model=model, bulk=SMALL_CHUNKS))
    engine.delete_index(index)
    code, _, err = load(str(path))
    assert (code, "the index is another" in err) == (1, True)
    code, out, _ = load(str(path), "--fresh")
    assert (code, counts(out)) == (0, {"source": 400, "indexed": 400})


def test_a_damaged_checkpoint_is_one_clear_line_and_fresh_recovers(
    load: Bridge, engine: Engine, index: str, model: str, home: Path, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(400))
    break_off(engine, index, path, 300, IngestOptions(model=model, bulk=SMALL_CHUNKS))
    (checkpoint,) = (home / "data" / "checkpoints").glob("*.json")
    checkpoint.write_bytes(checkpoint.read_bytes()[:20])
    code, out, err = load(str(path))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"bridge: error: the checkpoint {checkpoint} is damaged")
    assert "--fresh" in err
    code, out, _ = load(str(path), "--fresh")
    assert (code, counts(out)["source"]) == (0, 400)
    assert len(stored(engine, index)) == 400


# --- The model ----------------------------------------------------------------------------------------------


def test_without_a_model_one_is_fitted_on_the_source_and_kept_for_later_runs(
    bridge: Bridge, engine: Engine, index: str, tmp_path: Path, opensearch_url: str
) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(100))
    code, _, err = bridge("ingest", index, str(path), url=opensearch_url)
    fingerprint = engine.require_index(index).meta["document_encoder"]
    assert code == 0
    assert f"fitted {fingerprint} on the source itself" in err
    more = jsonl(tmp_path / "b.jsonl", [{"_id": "new", "text": "entirely different words"}])
    code, _, err = bridge("ingest", index, str(more), url=opensearch_url)
    assert code == 0
    assert f"using the index's own model {fingerprint}" in err
    assert engine.require_index(index).meta["document_encoder"] == fingerprint


def test_another_model_than_the_indexs_is_refused_before_anything_is_written(
    load: Bridge, bridge: Bridge, engine: Engine, index: str, tmp_path: Path, opensearch_url: str
) -> None:
    load(str(jsonl(tmp_path / "a.jsonl", numbered(5))))
    other = jsonl(tmp_path / "b.jsonl", [{"_id": "1", "text": "other words"}])
    bridge("fit", str(other), "-o", "other")
    code, out, err = bridge("ingest", index, str(other), "--model", "other", url=opensearch_url)
    assert (code, out) == (5, "")
    assert "mixed vectors cannot be compared" in err
    assert stored(engine, index)["1"]["title"] == "Document 1"


def test_a_fitted_model_travels_with_its_index(
    load: Bridge,
    bridge: Bridge,
    index: str,
    tmp_path: Path,
    opensearch_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load(str(jsonl(tmp_path / "a.jsonl", numbered(50))))
    here = bridge("search", index, "word7 document", "--json", url=opensearch_url)
    (tmp_path / "model").rename(tmp_path / "gone")
    monkeypatch.setenv("BRIDGE_CACHE_DIR", str(tmp_path / "elsewhere"))
    there = bridge("search", index, "word7 document", "--json", url=opensearch_url)
    assert (here[0], there[0]) == (0, 0)
    assert hits_of(there[1]) == hits_of(here[1]) != []


def hits_of(out: str) -> list[tuple[str, float]]:
    return [(hit["id"], hit["score"]) for hit in json.loads(out)["hits"]]


@pytest.mark.parametrize("data", ["", "AAAA", "no base64!", None], ids=["empty", "not gzip", "not base64", "gone"])
def test_a_damaged_stored_model_is_noticed_and_mended_by_the_folder(
    load: Bridge, engine: Engine, index: str, model: str, tmp_path: Path, home: Path, data: str | None
) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(5))
    load(str(path))
    fingerprint = engine.require_index(index).meta["document_encoder"]
    part = f"{fingerprint}/idf.json/0"
    lines = b'{"delete": {"_id": "%s"}}\n' % part.encode()
    if data is not None:
        lines = b'{"index": {"_id": "%s"}}\n{"data": "%s"}\n' % (part.encode(), data.encode())
    engine.bulk(MODELS_INDEX, lines)
    with pytest.raises(ModelFormatError, match=r"damaged|missing.*with the model's folder again"):
        find_model(engine, fingerprint)
    assert not (home / "cache" / "models" / fingerprint).exists()
    load(str(path))
    assert find_model(engine, fingerprint).fingerprint == fingerprint


def test_a_stored_part_of_another_model_is_noticed(
    load: Bridge, engine: Engine, index: str, tmp_path: Path, bridge: Bridge, opensearch_url: str
) -> None:
    load(str(jsonl(tmp_path / "a.jsonl", numbered(5))))
    fingerprint = engine.require_index(index).meta["document_encoder"]
    card = engine.get_sources(MODELS_INDEX, [f"{fingerprint}/bridge.json/0"], ["data"])
    body = json.dumps(card[f"{fingerprint}/bridge.json/0"]).encode()
    engine.bulk(MODELS_INDEX, b'{"index": {"_id": "%s/idf.json/0"}}\n%s\n' % (fingerprint.encode(), body))
    code, out, err = bridge("search", index, "word7", url=opensearch_url)
    assert (code, out) == (1, "")
    assert f"idf.json of model {fingerprint}" in err
    assert "is damaged" in err
