"""An index as a source, and vectors in place: on the embedded node, and in a small form on the other engines."""

from __future__ import annotations

import json
import pickle
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bridge import indexsource, inplace
from bridge.batches import Batches
from bridge.bulk import BulkOptions
from bridge.encode import Encoder, load_encoder
from bridge.engines import Engine
from bridge.engines.base import encode
from bridge.errors import SourceError, UnsupportedByEngine, UsageError
from bridge.fit import fit
from bridge.indexmodel import IndexModel
from bridge.indexsource import IndexReader, IndexSpec, opener
from bridge.ingest import IngestOptions, IngestSummary, ingest
from bridge.records import HASH_FIELD, DeadLetter, Doc
from bridge.sources import Source, SourceOptions, content_hash, open_source
from bridge.sources.streams import Cursor
from bridge.tokens import field_value

Bridge = Callable[..., tuple[int, str, str]]
Record = dict[str, Any]

VOCABULARY = [f"word{number}" for number in range(400)]

pytestmark = [
    pytest.mark.node,
    # A test node without security says so in a header of every answer, which the client turns into a warning.
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]


def document(number: int, seed: int = 0) -> Record:
    """A document of some words and other fields."""
    source = random.Random(f"{number} {seed}")
    words = " ".join(source.choices(VOCABULARY, k=source.randint(3, 20)))
    return {"title": f"Document {number}", "text": words, "n": number, "x": 0.25 * number, "deep": {"a": [1, None]}}


def write(engine: Engine, index: str, records: dict[str, Record], routing: str | None = None) -> None:
    """Index `records` as a writer does that knows nothing of the bridge."""
    target = {"routing": routing} if routing else {}
    lines = [encode(line) for name, record in records.items()
             for line in ({"index": {"_id": name, **target}}, record)]  # fmt: skip
    items = engine.bulk(index, b"\n".join(lines) + b"\n")
    assert [item["index"].get("error") for item in items] == [None] * len(records)


def make(engine: Engine, index: str, count: int, shards: int = 2) -> dict[str, Record]:
    """A plain index of `count` documents, some of them routed."""
    engine.create_index(index, {"settings": {"number_of_shards": shards, "number_of_replicas": 0}})
    records = {f"d{number}": document(number) for number in range(count)}
    routed = {name: record for name, record in records.items() if record["n"] % 10 == 3}
    write(engine, index, {name: record for name, record in records.items() if name not in routed})
    if routed:
        write(engine, index, routed, routing="somewhere")
    engine.refresh(index)
    return records


def all_hits(engine: Engine, index: str) -> dict[str, Record]:
    """id ─▶ hit, vectors and all, read by other means than the bridge's."""
    engine.refresh(index)
    chosen: Any = {"exclude_vectors": False} if engine.info().capabilities.hidden_vectors else True
    body = {"size": 10_000, "_source": chosen, "seq_no_primary_term": True, "version": True}
    return {hit["_id"]: hit for hit in engine.search(index, body)["hits"]["hits"]}


def plain(engine: Engine, index: str) -> dict[str, Record]:
    """id ─▶ the user's own fields."""
    return {name: {key: value for key, value in hit["_source"].items() if key not in ("embedding", HASH_FIELD)}
            for name, hit in all_hits(engine, index).items()}  # fmt: skip


def check_vectors(engine: Engine, index: str, encoder: Encoder) -> None:
    """Every document's stored vector is that of its text, and its hash the content's."""
    state = engine.require_index(index)
    model = IndexModel.of(state)
    assert model is not None
    hits = all_hits(engine, index)
    texts = {name: f"{hit['_source']['title']}\n{hit['_source']['text']}" for name, hit in hits.items()}
    vectors = encoder.encode_document(list(texts.values()))
    for (name, text), vector in zip(texts.items(), vectors, strict=True):
        source = dict(hits[name]["_source"])
        stored, digest = source.pop("embedding"), source.pop(HASH_FIELD)
        expected = field_value(vector, model.kind, engine.product)
        assert stored == pytest.approx(expected, rel=1e-6), name
        assert digest == content_hash({"source": source, "text": text} | ({"salt": model.salt} if model.salt else {}))


def index_source(engine: Engine, spec: str, options: SourceOptions | None = None) -> Source:
    return open_source([spec], options or SourceOptions(), indexes=opener(lambda url: (engine, False)))


def items(source: Source, skip: int = 0) -> list[Doc | DeadLetter]:
    return list(source.read(skip))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "words"
    fit((f"{first} {second}" for first, second in pairwise(VOCABULARY)), folder)
    return folder


@pytest.fixture
def encoder(model: Path) -> Encoder:
    return load_encoder(model)


@pytest.fixture
def name(any_engine: Engine) -> Iterator[str]:
    index = f"test-{uuid.uuid4().hex[:12]}"
    yield index
    if any_engine.get_index(index):
        any_engine.delete_index(index)


def load(engine: Engine, index: str, spec: str, model: Path | None, folder: Path, **options: Any) -> IngestSummary:
    chosen = IngestOptions(model=str(model) if model else None, dead_letter=folder / "dead.jsonl", **options)
    with index_source(engine, spec) as source:
        return ingest(engine, index, source, chosen)


def counts(summary: IngestSummary) -> tuple[int, int, int, int, int]:
    found = (summary.source, summary.indexed, summary.unchanged, summary.deleted, summary.dead)
    assert found[0] == sum(found[1:])
    return found


# --- On every engine ----------------------------------------------------------------------------------------


def test_an_index_is_read_whole_in_one_order(any_engine: Engine, name: str) -> None:
    records = make(any_engine, name, 333, shards=3)
    with index_source(any_engine, f"index:{name}") as source:
        once, again = items(source), items(source)
        rest = {skip: items(source, skip) for skip in (1, 100, 250, 333, 400)}
        assert source.bytes_total
        assert source.bytes_read == source.bytes_total
    assert once == again
    docs = [item for item in once if isinstance(item, Doc)]
    assert {doc.id: doc.source for doc in docs} == records
    assert len(docs) == 333
    assert [doc.position.line for doc in docs] == list(range(1, 334))
    assert {doc.position.file for doc in docs} == {f"index:{name}"}
    assert {doc.routing for doc in docs if doc.source["n"] % 10 == 3} == {"somewhere"}
    assert {doc.routing for doc in docs if doc.source["n"] % 10 != 3} == {None}
    for skip, found in rest.items():
        assert found == once[skip:]


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_slices_are_disjoint_and_complete_and_stay(any_engine: Engine, name: str, parts: int) -> None:
    records = make(any_engine, name, 200)
    specs = [f"index:{name}#{part}/{parts}" for part in range(1, parts + 1)]

    def slices() -> list[list[str | None]]:
        return [[item.id for item in items(index_source(any_engine, spec))] for spec in specs]

    before = slices()
    found = [name for one in before for name in one]
    assert len(found) == len(records)
    assert set(found) == set(records)
    # Merging moves documents within the index, and writes nothing.
    any_engine.request("POST", f"/{name}/_forcemerge", params={"max_num_segments": "1"})
    assert slices() == before


def test_an_index_goes_into_another_and_back_in_place(
    any_engine: Engine, name: str, model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    records = make(any_engine, name, 150)
    other = f"{name}-other"
    try:
        assert counts(load(any_engine, other, f"index:{name}", model, tmp_path)) == (150, 150, 0, 0, 0)
        assert plain(any_engine, other) == records
        check_vectors(any_engine, other, encoder)
        # What has vectors is read without them.
        with index_source(any_engine, f"index:{other}") as source:
            assert {item.id: item.source for item in items(source) if isinstance(item, Doc)} == records
        assert all_hits(any_engine, name)["d7"]["_source"] == records["d7"]
    finally:
        if any_engine.get_index(other):
            any_engine.delete_index(other)


def test_vectors_in_place(any_engine: Engine, name: str, model: Path, encoder: Encoder, tmp_path: Path) -> None:
    records = make(any_engine, name, 150)
    assert counts(load(any_engine, name, f"index:{name}", model, tmp_path)) == (150, 150, 0, 0, 0)
    assert plain(any_engine, name) == records
    check_vectors(any_engine, name, encoder)
    before = {key: hit["_seq_no"] for key, hit in all_hits(any_engine, name).items()}
    # Another writer brings whole documents, which have no vectors then; the index knows its model.
    changed = {f"d{number}": document(number, seed=1) for number in (1, 5, 77)}
    write(any_engine, name, changed | {"new": document(1000)})
    records |= changed | {"new": document(1000)}
    assert counts(load(any_engine, name, f"index:{name}", None, tmp_path)) == (151, 4, 147, 0, 0)
    assert plain(any_engine, name) == records
    check_vectors(any_engine, name, encoder)
    after = {key: hit["_seq_no"] for key, hit in all_hits(any_engine, name).items()}
    assert {key for key in before if before[key] != after[key]} == set(changed)


def test_a_stale_vector_is_replaced_and_not_added_to(
    any_engine: Engine, name: str, model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    make(any_engine, name, 20)
    load(any_engine, name, f"index:{name}", model, tmp_path)
    # A partial update of another writer leaves the vector of the old text.
    lines = [encode({"update": {"_id": "d7"}}), encode({"doc": {"text": "word1 word2 word3"}})]
    any_engine.bulk(name, b"\n".join(lines) + b"\n")
    stale = all_hits(any_engine, name)["d7"]["_source"]["embedding"]
    assert counts(load(any_engine, name, f"index:{name}", None, tmp_path)) == (20, 1, 19, 0, 0)
    assert set(all_hits(any_engine, name)["d7"]["_source"]["embedding"]) != set(stale)
    check_vectors(any_engine, name, encoder)


# --- Under way, on the embedded node ------------------------------------------------------------------------


class Writer(threading.Thread):
    """Changes, adds and deletes documents until it is stopped; `now` is what it has had acknowledged."""

    def __init__(self, engine: Engine, index: str, records: dict[str, Record], seed: int) -> None:
        super().__init__(daemon=True)
        self.engine, self.index, self.now = engine, index, dict(records)
        self.random = random.Random(seed)
        self.stopped = threading.Event()
        self.writes = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopped.is_set():
                self.write_one()
                time.sleep(0.002)
        except BaseException as failure:
            self.failure = failure

    def write_one(self) -> None:
        number = self.random.randrange(2000)
        name = f"d{number}"
        if self.random.random() < 0.1 and name in self.now:
            self.engine.request("DELETE", f"/{self.index}/_doc/{name}")
            del self.now[name]
        else:
            record = document(number, seed=self.random.randrange(1 << 30))
            self.engine.request("PUT", f"/{self.index}/_doc/{name}", body=encode(record))
            self.now[name] = record
        self.writes += 1

    def stop(self) -> dict[str, Record]:
        self.stopped.set()
        self.join(30)
        assert self.failure is None
        return self.now


def test_in_place_loses_no_write_of_others(
    engine: Engine, index: str, model: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.create_index(index, {"settings": {"number_of_shards": 2, "number_of_replicas": 0}})
    records = {f"d{number}": document(number) for number in range(1000)}
    write(engine, index, records)
    writer = Writer(engine, index, records, seed=1)
    real = Batches.documents

    def slowly(self: Batches, skip: int, *, fresh: bool) -> Any:
        for count, item in enumerate(real(self, skip, fresh=fresh)):
            if count % 100 == 0:
                time.sleep(0.1)
            yield item

    monkeypatch.setattr(Batches, "documents", slowly)
    writer.start()
    small = BulkOptions(chunk_documents=50, in_flight=2)
    summary = load(engine, index, f"index:{index}", model, tmp_path, bulk=small)
    during = writer.writes
    records = writer.stop()
    assert during > 50
    assert counts(summary)[4] == 0
    # More was read than there was at first: what changed was read again.
    assert summary.source > 1000
    assert plain(engine, index) == records
    # What came after the last round has no vector yet.
    load(engine, index, f"index:{index}", None, tmp_path)
    assert plain(engine, index) == records
    check_vectors(engine, index, encoder)


def test_what_changes_whenever_it_is_encoded_is_dead_at_last(
    engine: Engine, index: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(engine, index, 10, shards=1)
    real, changes = Batches.documents, [0]

    def meddling(self: Batches, skip: int, *, fresh: bool) -> Any:
        for item in real(self, skip, fresh=fresh):
            if item.id == "d4":
                changes[0] += 1
                write(engine, index, {"d4": document(4, seed=changes[0])})
            yield item

    monkeypatch.setattr(Batches, "documents", meddling)
    summary = load(engine, index, f"index:{index}", model, tmp_path)
    assert changes[0] == inplace.ROUNDS
    assert counts(summary) == (9 + inplace.ROUNDS, 9, inplace.ROUNDS - 1, 0, 1)
    (letter,) = (json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines())
    assert (letter["id"], letter["file"]) == ("d4", f"index:{index}")
    assert "changed" in letter["reason"]
    assert letter["document"] == document(4, seed=inplace.ROUNDS - 1)
    stored = all_hits(engine, index)
    assert stored["d4"]["_source"] == document(4, seed=inplace.ROUNDS)
    assert sum("embedding" in hit["_source"] for hit in stored.values()) == 9


def test_an_interrupted_load_in_place_goes_on(
    engine: Engine, index: str, model: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = make(engine, index, 700)
    with monkeypatch.context() as patch:
        real = Batches.documents

        def interrupted(self: Batches, skip: int, *, fresh: bool) -> Any:
            for count, item in enumerate(real(self, skip, fresh=fresh)):
                if count == 400:
                    raise KeyboardInterrupt
                yield item

        patch.setattr(Batches, "documents", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(engine, index, f"index:{index}", model, tmp_path, bulk=BulkOptions(chunk_documents=50, in_flight=1))
    done = sum("embedding" in hit["_source"] for hit in all_hits(engine, index).values())
    assert 0 < done < 700
    summary = load(engine, index, f"index:{index}", model, tmp_path)
    assert counts(summary) == (700, 700 - done, done, 0, 0)
    assert plain(engine, index) == records
    check_vectors(engine, index, encoder)


def test_a_point_in_time_that_is_gone_is_opened_again(
    engine: Engine, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = make(engine, index, 300)
    monkeypatch.setattr(indexsource, "_LARGEST_PAGE", 20)
    source = index_source(engine, f"index:{index}")
    reading = source.read()
    first = [next(reading) for _ in range(50)]
    engine.request("DELETE", "/_search/point_in_time/_all")
    found = [*first, *reading]
    assert [item.id for item in found] == [item.id for item in items(source)]
    assert {item.id for item in found} == set(records)


def test_an_index_that_changed_without_its_point_in_time_ends_the_reading(
    engine: Engine, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(engine, index, 300)
    monkeypatch.setattr(indexsource, "_LARGEST_PAGE", 20)
    reading = index_source(engine, f"index:{index}").read()
    for _ in range(50):
        next(reading)
    engine.request("DELETE", "/_search/point_in_time/_all")
    write(engine, index, {f"late{number}": document(number) for number in range(10)})
    with pytest.raises(SourceError, match=r"was written to while it was read.*--fresh"):
        list(reading)


def test_a_reader_leaves_no_point_in_time_behind(engine: Engine, index: str) -> None:
    make(engine, index, 300)

    def open_points() -> int:
        stats = engine.request("GET", f"/{index}/_stats/search")
        return int(stats["_all"]["total"]["search"]["point_in_time_current"])

    source = index_source(engine, f"index:{index}")
    assert len(items(source)) == 300
    reading = source.read()
    next(reading)
    assert open_points() == 1
    reading.close()  # type: ignore[attr-defined]
    assert open_points() == 0


def test_a_resumed_load_refuses_a_changed_index(
    engine: Engine, index: str, model: Path, tmp_path: Path, bridge: Bridge, fails: Callable[..., str],
    opensearch_url: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    records = make(engine, index, 600)
    target = f"{index}-target"
    command = ("ingest", target, f"index:{index}", "--model", str(model), "--dead-letter", str(tmp_path / "d.jsonl"))
    try:
        with monkeypatch.context() as patch:
            real = Source.read

            def interrupted(self: Source, skip: int = 0) -> Iterator[Any]:
                for count, item in enumerate(real(self, skip)):
                    if count == 300:
                        raise KeyboardInterrupt
                    yield item

            patch.setattr(Source, "read", interrupted)
            assert bridge(*command, url=opensearch_url)[0] == 130
        write(engine, index, {"late": document(9999)})
        said = fails(1, *command, url=opensearch_url)
        assert "the source has changed" in said
        assert "--fresh" in said
        code, out, _ = bridge(*command, "--fresh", "--json", url=opensearch_url)
        assert code == 0
        assert json.loads(out)["source"] == 601
        assert plain(engine, target) == records | {"late": document(9999)}
    finally:
        if engine.get_index(target):
            engine.delete_index(target)


def test_pages_hold_so_many_bytes(engine: Engine, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.create_index(index, {"settings": {"number_of_shards": 1, "number_of_replicas": 0}})
    write(engine, index, {f"d{number}": {"text": "x" * 10_000} for number in range(300)})
    engine.refresh(index)
    monkeypatch.setattr(indexsource, "PAGE_BYTES", 100_000)
    sizes = [len(page) for page in indexsource.pages(engine, index, 0, True)]
    assert sum(sizes) == 300
    # The first is read without knowing the documents.
    assert sizes[0] == 32
    assert set(sizes[1:-1]) == {9}


# --- Commands -----------------------------------------------------------------------------------------------


def test_the_commands_take_an_index(
    bridge: Bridge, engine: Engine, index: str, opensearch_url: str, model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    records = make(engine, index, 60)
    code, _, err = bridge("fit", f"index:{index}", "-o", "fitted", url=opensearch_url)
    assert code == 0, err
    code, _, err = bridge("encode", f"index:{index}", "-o", "v.jsonl", "--model", str(model), url=opensearch_url)
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    vectors = encoder.encode_document([f"{record['title']}\n{record['text']}" for record in records.values()])
    expected = {name: vector.as_dict() for name, vector in zip(records, vectors, strict=True)}
    assert {line["id"]: dict(zip(line["tokens"], line["weights"], strict=True)) for line in lines} == {
        name: pytest.approx(vector, rel=1e-6) for name, vector in expected.items()
    }
    # By the URL of another cluster, which is this one here; only its host is said.
    code, out, err = bridge(
        "ingest", f"{index}-x", f"index:{index}@{opensearch_url}#1/1", "--model", str(model), "--json",
        url=opensearch_url,
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["indexed"] == 60
    engine.delete_index(f"{index}-x")
    code, out, err = bridge("ingest", index, f"index:{index}", "--model", str(model), "--json", url=opensearch_url)
    assert code == 0, err
    assert json.loads(out)["indexed"] == 60
    check_vectors(engine, index, encoder)


def test_a_document_without_text_is_a_dead_letter(
    bridge: Bridge, engine: Engine, index: str, opensearch_url: str, model: Path, tmp_path: Path
) -> None:
    make(engine, index, 20)
    write(engine, index, {"none": {"n": 1}})
    code, out, err = bridge(
        "ingest", index, f"index:{index}", "--model", str(model), "--json", "--dead-letter", "dead.jsonl",
        url=opensearch_url,
    )  # fmt: skip
    assert code == 3, err
    summary = json.loads(out)
    assert [summary[name] for name in ("source", "indexed", "dead")] == [21, 20, 1]
    (letter,) = (json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines())
    assert (letter["id"], letter["file"], letter["document"]) == ("none", f"index:{index}", {"n": 1})
    assert 1 <= letter["line"] <= 21
    assert all_hits(engine, index)["none"]["_source"] == {"n": 1}


def test_what_cannot_be_read_or_written_back_is_said_before(
    engine: Engine, index: str, fails: Callable[..., str], opensearch_url: str, model: Path
) -> None:
    command = ("ingest", index, f"index:{index}", "--model", str(model))
    assert "there is no index" in fails(1, *command, url=opensearch_url)
    engine.create_index(index, {"mappings": {"_source": {"enabled": False}}})
    assert "keeps no _source" in fails(1, *command, url=opensearch_url)
    engine.delete_index(index)
    engine.create_index(index, {"mappings": {"_source": {"excludes": ["secret"]}}})
    before = engine.require_index(index)
    assert "would lose" in fails(1, *command, url=opensearch_url)
    assert engine.require_index(index) == before
    engine.delete_index(index)
    engine.create_index(index, {"mappings": {"properties": {"embedding": {"type": "keyword"}}}})
    assert "another kind" in fails(1, *command, url=opensearch_url)
    for spec in ("index:", "index:a#0/3", "index:a#4/3", "index:a#x/y"):
        assert "is no index" in fails(1, "ingest", index, spec, "--model", str(model), url=opensearch_url)
    engine.delete_index(index)
    engine.create_index(index, {})
    assert "in place" in fails(2, *command, "--drop", "n", url=opensearch_url)


def test_foreign_vectors_of_the_same_field_are_not_overwritten(
    engine: Engine, index: str, model: Path, tmp_path: Path
) -> None:
    engine.create_index(index, {"mappings": {"properties": {"embedding": {"type": "rank_features"}}}})
    write(engine, index, {"theirs": {"text": "word1", "embedding": {"a": 1.5}}, "plain": {"text": "word2"}})
    engine.refresh(index)
    assert counts(load(engine, index, f"index:{index}", model, tmp_path)) == (2, 1, 0, 0, 1)
    assert all_hits(engine, index)["theirs"]["_source"] == {"text": "word1", "embedding": {"a": 1.5}}


def test_an_ingest_pipeline_does_not_work_twice(engine: Engine, index: str, model: Path, tmp_path: Path) -> None:
    engine.request(
        "PUT", "/_ingest/pipeline/bridge-test-count",
        body=encode({"processors": [{"append": {"field": "seen", "value": "i"}}]}),
    )  # fmt: skip
    try:
        engine.create_index(index, {"settings": {"index.default_pipeline": "bridge-test-count"}})
        write(engine, index, {"a": {"text": "word1"}})
        assert all_hits(engine, index)["a"]["_source"]["seen"] == ["i"]
        for _ in range(2):
            load(engine, index, f"index:{index}", model, tmp_path)
        lines = [encode({"update": {"_id": "a"}}), encode({"doc": {"text": "word2"}})]
        engine.bulk(index, b"\n".join(lines) + b"\n")
        assert counts(load(engine, index, f"index:{index}", None, tmp_path)) == (1, 1, 0, 0, 0)
        assert all_hits(engine, index)["a"]["_source"]["seen"] == ["i"]
    finally:
        engine.delete_index(index)
        engine.request("DELETE", "/_ingest/pipeline/bridge-test-count")


def test_an_index_among_other_sources_is_no_load_in_place(
    engine: Engine, index: str, model: Path, tmp_path: Path
) -> None:
    make(engine, index, 5)
    (tmp_path / "a.jsonl").write_text('{"_id": "x", "text": "word1"}\n')
    specs = [f"index:{index}", str(tmp_path / "a.jsonl")]
    with (
        open_source(specs, indexes=opener(lambda url: (engine, False))) as source,
        pytest.raises(UsageError, match="a source alone"),
    ):
        ingest(engine, index, source, IngestOptions(model=str(model), dead_letter=tmp_path / "dead.jsonl"))
    assert IndexModel.of(engine.require_index(index)) is None


def test_a_url_is_shown_without_its_credentials(engine: Engine, index: str) -> None:
    make(engine, index, 1, shards=1)
    reader = IndexReader(engine, IndexSpec(index, "https://user:secret@host:9200/path", (1, 2)))
    assert reader.name == f"index:{index}@host:9200#1/2"
    cursor = Cursor()
    assert len(list(reader.read(cursor))) <= 1


def test_another_process_reads_the_same(engine: Engine, index: str) -> None:
    """As Ray's do; the connection is not sent along."""
    make(engine, index, 50)
    with index_source(engine, f"index:{index}#2/3") as source:
        (file,) = source.files
        with Source([pickle.loads(pickle.dumps(file))], source.options) as copy:
            assert items(copy) == items(source)


def test_an_index_that_is_closed_for_writes_is_read(engine: Engine, index: str) -> None:
    records = make(engine, index, 20)
    engine.put_settings(index, {"index.blocks.read_only": True})
    try:
        assert {item.id for item in items(index_source(engine, f"index:{index}"))} == set(records)
    finally:
        engine.put_settings(index, {"index.blocks.read_only": None})


def test_an_engine_without_points_in_time_is_refused(
    engine: Engine, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(engine, index, 1, shards=1)
    old = engine.capabilities((2, 3, 0), None)
    info = engine.info()
    monkeypatch.setattr(engine, "_info", type(info)(info.product, (2, 3, 0), info.cluster, info.cluster_uuid, old))
    with pytest.raises(UnsupportedByEngine, match=r"OpenSearch 2.4"):
        IndexReader(engine, IndexSpec(index))
