"""An alias moves to another model's index while it is searched and written to, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bridge import register as registering
from bridge.batches import Batches
from bridge.encode import load_encoder
from bridge.engines import Engine
from bridge.engines.base import encode
from bridge.engines.shards import aliases_of
from bridge.errors import IndexConflict, IndexNotFound, ModelMismatch, RequestRejected, UnsupportedByEngine
from bridge.fit import fit
from bridge.indexmodel import IndexModel
from bridge.ingest import IngestOptions, ingest
from bridge.migrate import MigrateOptions, MigrateSummary, migrate, plan
from bridge.migration import ledger as ledgers
from bridge.migration import moving
from bridge.migration.back import roll_back
from bridge.migration.copying import Copier
from bridge.migration.ledger import KEY, entry_of
from bridge.prune import parse_pruning
from bridge.records import HASH_FIELD
from bridge.register import RegisterOptions
from bridge.sources import open_source
from tests.contract.killed_migration import POINTS
from tests.contract.test_index_source import (
    VOCABULARY,
    all_hits,
    check_vectors,
    document,
    plain,
    write,
)

ROOT = Path(__file__).parents[2]
Bridge = Callable[..., tuple[int, str, str]]
Record = dict[str, Any]

pytestmark = [
    pytest.mark.node,
    # A test node without security says so in a header of every answer, which the client turns into a warning.
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]


@dataclass(slots=True)
class House:
    """An alias of an index that the bridge has filled with one model, and another model."""

    engine: Engine
    base: str
    before: Path
    after: Path
    folder: Path
    records: dict[str, Record] = field(default_factory=dict)

    @property
    def alias(self) -> str:
        return f"{self.base}-alias"

    @property
    def old(self) -> str:
        return f"{self.base}-1"

    @property
    def new(self) -> str:
        return f"{self.base}-2"

    def build(self, count: int, *, body: Record | None = None, alias: Record | None = None) -> None:
        """Fill the old index with `count` documents of the first model, and give it the alias."""
        engine = self.engine
        engine.create_index(self.old, body or {"settings": {"number_of_shards": 2, "number_of_replicas": 0}})
        self.records = {f"d{number}": document(number) for number in range(count)}
        path = self.folder / "corpus.jsonl"
        path.write_text("".join(json.dumps({"_id": name, **record}) + "\n" for name, record in self.records.items()))
        with open_source([str(path)]) as source:
            options = IngestOptions(model=str(self.before), dead_letter=self.folder / "dead.jsonl")
            assert ingest(engine, self.old, source, options).indexed == count
        engine.request("PUT", f"/{self.old}/_alias/{self.alias}", body=encode(alias or {}))

    def migrate(self, say: Callable[[str], None] = lambda line: None, **options: Any) -> MigrateSummary:
        chosen = {"model": str(self.after), "dead_letter": self.folder / "dead.jsonl", **options}
        return migrate(self.engine, self.alias, MigrateOptions(**chosen), say=say)

    @property
    def serves(self) -> str:
        """The index behind the alias."""
        (name,) = aliases_of(self.engine, self.alias)
        return name

    def check(self) -> None:
        """The alias serves all documents as they should be, with the new model's vectors."""
        assert plain(self.engine, self.alias) == self.records
        check_vectors(self.engine, self.alias, load_encoder(self.after))

    def clean(self) -> None:
        found = self.engine.request("GET", f"/{self.base}*", params={"filter_path": "*.aliases"})
        for name in found or {}:
            self.engine.delete_index(name)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of other weights."""
    folder = tmp_path_factory.mktemp("models")
    fit((f"{first} {second}" for first, second in pairwise(VOCABULARY)), folder / "before")
    fit((f"{first} {first} {second} extra" for first, second in pairwise(VOCABULARY[:50])), folder / "after")
    return folder / "before", folder / "after"


@pytest.fixture
def house(engine: Engine, models: tuple[Path, Path], tmp_path: Path) -> Iterator[House]:
    found = House(engine, f"test-{uuid.uuid4().hex[:10]}", *models, tmp_path)
    yield found
    found.clean()


@pytest.fixture
def any_house(any_engine: Engine, models: tuple[Path, Path], tmp_path: Path) -> Iterator[House]:
    found = House(any_engine, f"test-{uuid.uuid4().hex[:10]}", *models, tmp_path)
    yield found
    found.clean()


# --- Under load ---------------------------------------------------------------------------------------------


class Client(threading.Thread):
    """Does something through the alias until it is stopped; what fails is kept."""

    def __init__(self, engine: Engine, alias: str, pause: float) -> None:
        super().__init__(daemon=True)
        self.engine, self.alias, self.pause = engine, alias, pause
        self.stopped = threading.Event()
        self.done = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self.stopped.wait(self.pause):
            try:
                self.act()
                self.done += 1
            except Exception as failure:
                self.failures.append(f"{type(failure).__name__}: {failure}")

    def act(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        self.stopped.set()
        self.join(60)


@contextmanager
def running(*clients: Client) -> Iterator[None]:
    """They act, and nothing that they do fails."""
    for client in clients:
        client.start()
    try:
        yield
    finally:
        for client in clients:
            client.stop()
    assert [failure for client in clients for failure in client.failures] == []


class Writer(Client):
    """Creates, replaces, changes and deletes documents of its own; `now` is what was acknowledged.

    A field of a document is changed only where the document was not written in this test before: one that was, in the
    moment before the alias moves, is not in the new index yet for an engine to change.
    """

    def __init__(self, house: House, number: int, pause: float = 0.002) -> None:
        super().__init__(house.engine, house.alias, pause)
        self.random = random.Random(number)
        mine = [name for place, name in enumerate(house.records) if place % 2 == number]
        self.kept, self.deletable, self.touched = mine[:-300], mine[-300:-100], mine[-100:]
        self.created: list[str] = []
        self.not_found: list[str] = []
        self.number = number
        self.now = {name: house.records[name] for name in mine}

    def act(self) -> None:
        chosen = self.random.random()
        if chosen < 0.25:
            name = f"new-{self.number}-{len(self.created)}"
            self.created.append(name)
            self.put(name)
        elif chosen < 0.35 and self.created:
            # Right after its creation as well: what is late must not come back.
            name = self.created[-1] if self.random.random() < 0.5 else self.random.choice(self.created)
            if name in self.now:
                self.delete(name)
        elif chosen < 0.40 and self.deletable:
            self.delete(self.deletable.pop())
        elif chosen < 0.45 and self.touched:
            name = self.touched.pop()
            change = {"title": f"Changed {self.done}"}
            self.change(name, change)
            self.now[name] = self.now[name] | change
        else:
            self.put(self.random.choice(self.kept))

    def put(self, name: str) -> None:
        record = document(self.random.randrange(10_000), seed=self.random.randrange(1 << 30))
        record["initial"] = name.startswith("d")
        self.engine.request("PUT", f"/{self.alias}/_doc/{name}", body=encode(record))
        self.now[name] = record

    def change(self, name: str, change: dict[str, Any]) -> None:
        """As any writer that is not alone; and once more where the alias moved in the midst of it.

        An engine reads the document from the old index then and writes it to the new one, with the old one's sequence
        number: a conflict, which its own tries, that keep to the old index, cannot end. Nothing of it was written.
        """
        path = f"/{self.alias}/_update/{name}"
        for left in (1, 0):
            try:
                self.engine.request("POST", path, params={"retry_on_conflict": "3"}, body=encode({"doc": change}))
            except RequestRejected as error:
                if error.status != 409 or not left:
                    raise
            else:
                return

    def delete(self, name: str) -> None:
        try:
            self.engine.request("DELETE", f"/{self.alias}/_doc/{name}")
        except IndexNotFound:
            # One that was created in the moment before the alias moved: the deletion counts all the same.
            self.not_found.append(name)
        del self.now[name]


class Searcher(Client):
    """Asks for documents that are never deleted; each search has to find all of them."""

    def __init__(self, house: House, kept: list[str], pause: float = 0.01) -> None:
        super().__init__(house.engine, house.alias, pause)
        self.random, self.kept = random.Random(0), kept

    def act(self) -> None:
        some = self.random.sample(self.kept, 300)
        body = {"size": 0, "track_total_hits": True, "query": {"ids": {"values": some}}}
        found = self.engine.search(self.alias, body)
        assert found["_shards"]["failed"] == 0
        assert found["hits"]["total"]["value"] == 300, "a search found an index that is not whole"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(int(os.environ.get("BRIDGE_TORTURE", "10")) // 10))
def test_no_search_and_no_write_is_lost(
    seed: int, house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    house.build(5000)
    writers = [Writer(house, number) for number in (0, 1)]
    for writer in writers:
        writer.random.seed(f"{seed} {writer.number}")
    searcher = Searcher(house, [name for writer in writers for name in writer.kept])
    behind: list[int] = []
    real = moving.move_alias

    def counted(*arguments: Any, **options: Any) -> None:
        # As many documents as were acknowledged, but for those of the last pass's moments.
        for name in (house.old, house.new):
            house.engine.refresh(name)
        behind.append(len(set(all_ids(house.engine, house.old)) - set(all_ids(house.engine, house.new))))
        real(*arguments, **options)

    monkeypatch.setattr(moving, "move_alias", counted)
    threads: list[Client] = [*writers, searcher]
    with running(*threads):
        summary = house.migrate()
        assert house.serves == house.new
        time.sleep(1)
    house.records = {name: record for writer in writers for name, record in writer.now.items()}
    assert min(thread.done for thread in threads) > 100
    assert summary.moved
    assert (summary.dead, summary.missing) == (0, 0)
    assert summary.source == summary.indexed + summary.unchanged + summary.deleted
    assert summary.late > 0
    assert behind[0] <= 200
    assert sum(len(writer.not_found) for writer in writers) <= 20
    assert plain(house.engine, house.alias) == house.records
    # What plain writers brought after the alias had moved has no vectors; the rest has the new model's.
    hits = all_hits(house.engine, house.alias)
    without = {name for name, hit in hits.items() if HASH_FIELD not in hit["_source"]}
    assert all(hits[name]["_version"] > 0 for name in without)
    with open_source([f"index:{house.alias}"], indexes=_opener(house.engine)) as source:
        done = ingest(house.engine, house.alias, source, IngestOptions(dead_letter=tmp_path / "dead.jsonl"))
    assert done.indexed >= len(without)
    house.check()
    state = house.engine.require_index(house.old)
    assert "index.blocks.write" not in state.settings


def _opener(engine: Engine) -> Any:
    from bridge.indexsource import opener

    return opener(lambda url: (engine, False))


def all_ids(engine: Engine, index: str) -> list[str]:
    body = {"size": 10_000, "_source": False}
    return [hit["_id"] for hit in engine.search(index, body)["hits"]["hits"]]


# --- Every engine -------------------------------------------------------------------------------------------


def test_a_migration_while_others_write(any_house: House, tmp_path: Path) -> None:
    house = any_house
    house.build(1000)
    writers = [Writer(house, number, pause=0.005) for number in (0, 1)]
    searcher = Searcher(house, [name for writer in writers for name in writer.kept])
    with running(*writers, searcher):
        summary = house.migrate()
    house.records = {name: record for writer in writers for name, record in writer.now.items()}
    assert (summary.moved, summary.dead, house.serves) == (True, 0, house.new)
    assert plain(house.engine, house.alias) == house.records
    with open_source([f"index:{house.alias}"], indexes=_opener(house.engine)) as source:
        ingest(house.engine, house.alias, source, IngestOptions(dead_letter=tmp_path / "dead.jsonl"))
    house.check()


def test_settings_mappings_and_the_alias_go_along_and_back(any_house: House) -> None:
    house = any_house
    body = {
        "settings": {
            "number_of_shards": 3,
            "number_of_replicas": 0,
            "refresh_interval": "3s",
            "analysis": {"filter": {"less": {"type": "stop", "stopwords": ["word1", "word2"]}},
                         "analyzer": {"mine": {"tokenizer": "standard", "filter": ["lowercase", "less"]}}},
        },
        "mappings": {
            "_meta": {"theirs": [1]},
            "dynamic_templates": [{"keys": {"match": "k_*", "mapping": {"type": "keyword"}}}],
            "properties": {"text": {"type": "text", "analyzer": "mine"}, "n": {"type": "long"}},
        },
    }  # fmt: skip
    alias = {
        "filter": {"range": {"n": {"gte": 5}}},
        "index_routing": "a",
        "search_routing": "a",
        "is_write_index": True,
    }
    house.build(20, body=body, alias=alias)
    before = aliases_of(house.engine, house.alias)[house.old]
    write(house.engine, house.old, {"routed": document(7)}, routing="a")
    summary = house.migrate()
    assert (summary.indexed, summary.moved) == (21, True)
    assert aliases_of(house.engine, house.alias) == {house.new: before}
    old, new = house.engine.require_index(house.old), house.engine.require_index(house.new)
    assert new.mappings["dynamic_templates"] == old.mappings["dynamic_templates"]
    assert new.mappings["_meta"]["theirs"] == [1]
    for name in ("text", "n", "title"):
        assert new.mappings["properties"][name] == old.mappings["properties"][name]
    for name, value in old.settings.items():
        if name.startswith(("index.analysis.", "index.number_of", "index.refresh")):
            assert new.settings[name] == value
    model = IndexModel.of(new)
    assert model is not None
    assert model.document_encoder == load_encoder(house.after).fingerprint
    assert all_hits(house.engine, house.new)["routed"]["_routing"] == "a"
    back = roll_back(house.engine, house.alias, agreed=False)
    assert (back.done, back.moved, back.written, back.deleted) == (True, True, 0, 0)
    assert aliases_of(house.engine, house.alias) == {house.old: before}


# --- The rest, on the embedded node -------------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_migration_leaves_a_whole_index_and_goes_on(
    point: str, house: House, opensearch_url: str, home: Path, tmp_path: Path
) -> None:
    house.build(300)
    arguments = ["--url", opensearch_url, "--json", "migrate", house.alias, "--model", str(house.after),
                 "--dead-letter", str(tmp_path / "letters.jsonl")]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-m", "tests.contract.killed_migration", point, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    moved = POINTS.index(point) >= POINTS.index("after_swap")
    assert house.serves == (house.new if moved else house.old)
    assert plain(house.engine, house.alias) == house.records
    # Writers go on, to whichever index it is.
    changes = {f"d{number}": document(number, seed=2) for number in (3, 4)} | {"new": document(900)}
    write(house.engine, house.alias, changes)
    house.engine.request("DELETE", f"/{house.alias}/_doc/d5")
    house.records = {name: record for name, record in (house.records | changes).items() if name != "d5"}
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["moved"]
    assert house.serves == house.new
    assert plain(house.engine, house.alias) == house.records
    with open_source([f"index:{house.alias}"], indexes=_opener(house.engine)) as source:
        ingest(house.engine, house.alias, source, IngestOptions(dead_letter=tmp_path / "dead.jsonl"))
    house.check()
    assert house.engine.require_index(house.old).settings.get("index.blocks.write") in (None, "false")
    entry = entry_of(house.engine.require_index(house.new).mappings["_meta"])
    assert entry is not None
    assert entry.phase == "done"
    # Killed after the last word, it had no more to say.
    assert point == "done" or entry.lease is None


def test_what_is_late_does_not_undo_what_is_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes to the old index after the last pass, and then to the new one before they are brought."""
    house.build(50)
    engine, real = house.engine, moving.move_alias
    late = {name: document(number, seed=3) for number, name in enumerate(("d1", "d2", "d3", "n1", "n2", "n3", "n4"))}
    later = {name: document(number, seed=4) for number, name in enumerate(("d2", "n2", "n4"))}

    def meddled(*arguments: Any, **options: Any) -> None:
        write(engine, house.alias, late)
        engine.request("DELETE", f"/{house.alias}/_doc/d10")
        engine.request("DELETE", f"/{house.alias}/_doc/d11")
        real(*arguments, **options)
        write(engine, house.alias, later | {"d11": document(11, seed=5)})
        # Of one that the new index has, of two that are late, and again one that was written here in between.
        for name in ("d3", "n3", "n4", "d20"):
            engine.request("DELETE", f"/{house.alias}/_doc/{name}") if name != "n3" else delete_absent(name)
        engine.refresh(house.new)

    def delete_absent(name: str) -> None:
        lines = encode({"delete": {"_id": name}}) + b"\n"
        assert engine.bulk(house.alias, lines)[0]["delete"]["status"] == 404

    monkeypatch.setattr(moving, "move_alias", meddled)
    summary = house.migrate()
    gone = {"d3", "n3", "n4", "d10", "d20"}
    everything = house.records | late | later | {"d11": document(11, seed=5)}
    house.records = {name: record for name, record in everything.items() if name not in gone}
    assert plain(engine, house.alias) == house.records
    assert summary.superseded >= 4
    assert (summary.dead, summary.missing) == (0, 0)
    back = roll_back(engine, house.alias, agreed=False)
    assert not back.done
    # d2, n2 and d11 were written here since; d3, n3, n4 and d20 are in the old index.
    assert (back.written, back.deleted) == (3, 4)
    assert house.serves == house.new
    assert roll_back(engine, house.alias, agreed=True).moved
    assert house.serves == house.old
    assert plain(engine, house.alias)["d2"] == late["d2"]


def test_a_write_through_a_stale_alias_comes_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.build(30)
    real = moving.block_writes

    def slow(*arguments: Any) -> None:
        write(house.engine, house.old, {"stale": document(77)})
        real(*arguments)

    monkeypatch.setattr(moving, "block_writes", slow)
    summary = house.migrate()
    house.records["stale"] = document(77)
    assert summary.late >= 1
    house.check()


def test_vectors_of_the_old_model_are_made_anew(house: House) -> None:
    """Also those that a writer with the old model brings after the alias has moved."""
    house.build(40)
    encoder = load_encoder(house.before)
    stale = all_hits(house.engine, house.old)["d9"]["_source"]
    house.migrate()
    house.check()
    write(house.engine, house.alias, {"d9": stale})
    assert all_hits(house.engine, house.alias)["d9"]["_source"] == stale
    with open_source([f"index:{house.alias}"], indexes=_opener(house.engine)) as source:
        done = ingest(house.engine, house.alias, source, IngestOptions(dead_letter=house.folder / "dead.jsonl"))
    assert (done.indexed, done.unchanged) == (1, 39)
    house.check()
    with pytest.raises(ModelMismatch), open_source([str(house.folder / "corpus.jsonl")]) as source:
        ingest(house.engine, house.alias, source, IngestOptions(model=str(house.before)))
    assert encoder.fingerprint != load_encoder(house.after).fingerprint


def test_the_same_corpus_is_unchanged_after_a_migration(house: House) -> None:
    house.build(40)
    house.migrate()
    with open_source([str(house.folder / "corpus.jsonl")]) as source:
        done = ingest(house.engine, house.alias, source, IngestOptions(dead_letter=house.folder / "dead.jsonl"))
    assert (done.unchanged, done.indexed) == (40, 0)


def test_an_index_without_vectors_gets_them(house: House, tmp_path: Path) -> None:
    house.engine.create_index(house.old, {"settings": {"number_of_replicas": 0}, "aliases": {house.alias: {}}})
    house.records = {f"d{number}": document(number) for number in range(30)}
    write(house.engine, house.old, house.records)
    summary = house.migrate()
    assert (summary.indexed, summary.late) == (30, 0)
    house.check()


def test_passages_and_kind_of_the_old_index_are_kept_or_changed(house: House) -> None:
    house.build(20)
    options = RegisterOptions(passages="nested", passage_tokens=6, field="vector")
    house.migrate(register=options)
    found = all_hits(house.engine, house.alias)
    assert all(set(hit["_source"]) >= {"passages", HASH_FIELD} for hit in found.values())
    assert all("embedding" not in hit["_source"] for hit in found.values())
    model = IndexModel.of(house.engine.require_index(house.new))
    assert model is not None
    assert (model.path, model.passage_tokens) == ("passages.vector", 6)
    # Back to whole texts, and the same model: another preparation is another index.
    again = house.migrate(register=RegisterOptions(passages="whole", field="embedding"))
    assert again.new == f"{house.base}-3"
    third = IndexModel.of(house.engine.require_index(f"{house.base}-3"))
    assert third is not None
    assert third.path == "vector"


def test_documents_that_cannot_go_in_keep_the_alias_where_it_is(
    house: House, bridge: Bridge, opensearch_url: str, tmp_path: Path
) -> None:
    house.build(40)
    write(house.engine, house.old, {"none": {"n": 1}})
    command = ("migrate", house.alias, "--model", str(house.after), "--json", "--dead-letter", "letters.jsonl")
    for _ in range(2):
        code, out, err = bridge(*command, url=opensearch_url)
        assert code == 3, err
        assert "1 of its documents, 'none' first" in err
        summary = json.loads(out)
        assert (summary["moved"], summary["missing"]) == (False, 1)
        assert house.serves == house.old
    (letter,) = (json.loads(line) for line in (tmp_path / "letters.jsonl").read_text().splitlines())
    assert (letter["id"], letter["file"], letter["document"]) == ("none", f"index:{house.old}", {"n": 1})
    code, out, err = bridge(*command, "--accept-dead", "--delete-old", url=opensearch_url)
    assert code == 3, err
    assert house.serves == house.new
    assert plain(house.engine, house.alias) == house.records
    # It alone has that document.
    assert house.engine.get_index(house.old) is not None
    # Mended there, it goes in.
    assert bridge("migrate", house.alias, "--rollback", "--yes", url=opensearch_url)[0] == 0
    write(house.engine, house.alias, {"none": document(1)})
    assert bridge(*command, "--delete-old", url=opensearch_url)[0] == 0
    house.records["none"] = document(1)
    house.check()
    assert house.engine.get_index(house.old) is None


def test_a_mended_document_lets_an_unfinished_migration_go_on(house: House) -> None:
    house.build(40)
    write(house.engine, house.old, {"none": {"n": 1}})
    assert not house.migrate().moved
    write(house.engine, house.alias, {"none": document(1)})
    summary = house.migrate()
    assert (summary.moved, summary.new, summary.missing) == (True, house.new, 0)
    house.records["none"] = document(1)
    house.check()


def test_a_second_migrate_is_refused_while_one_works(
    house: House, fails: Callable[..., str], opensearch_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.build(60)
    command = ("migrate", house.alias, "--model", str(house.after))
    said: list[str] = []
    real = Copier.changes

    def interrupted(self: Copier, *arguments: Any, **options: Any) -> Any:
        if not said:
            said.append(fails(1, *command, url=opensearch_url))
            said.append(fails(1, "migrate", house.alias, "--rollback", url=opensearch_url))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Copier, "changes", interrupted)
    assert house.migrate().moved
    assert all("another `bridge migrate" in line for line in said)
    house.check()


def test_a_migration_that_was_taken_over_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.build(60)
    real = Copier.changes

    def taken(self: Copier, *arguments: Any, **options: Any) -> Any:
        done = real(self, *arguments, **options)
        entry = entry_of(house.engine.require_index(house.new).mappings["_meta"])
        assert entry is not None
        meta = house.engine.require_index(house.new).mappings["_meta"]
        lease = {"holder": "another", "place": "elsewhere", "pid": 1, "until": time.time() + 2}
        house.engine.put_mapping(house.new, {"_meta": meta | {KEY: meta[KEY] | {"lease": lease}}})
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Copier, "changes", taken)
        with pytest.raises(IndexConflict, match="has taken over"):
            house.migrate()
    # The other's lease holds until its time is over.
    with pytest.raises(IndexConflict, match="try again in"):
        house.migrate()
    time.sleep(2)
    assert house.migrate().moved
    house.check()


def test_the_lease_is_renewed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.build(30)
    monkeypatch.setattr(ledgers, "RENEW_SECONDS", 0.05)
    times: list[float] = []
    real = Batches.documents

    def slow(self: Batches, *arguments: Any, **options: Any) -> Any:
        for _ in range(3):
            time.sleep(0.3)
            entry = entry_of(house.engine.require_index(house.new).mappings["_meta"])
            assert entry is not None
            assert entry.lease is not None
            times.append(entry.lease.until)
        yield from real(self, *arguments, **options)

    monkeypatch.setattr(Batches, "documents", slow)
    assert house.migrate().moved
    assert times[0] < times[1] < times[2]
    house.check()


def test_another_model_is_not_mixed_into_an_unfinished_migration(
    house: House, monkeypatch: pytest.MonkeyPatch, models: tuple[Path, Path], tmp_path: Path
) -> None:
    house.build(30)

    def stopped(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(moving, "move_alias", stopped)
        with pytest.raises(KeyboardInterrupt):
            house.migrate()
    third = tmp_path / "third"
    fit(["something else"], third)
    with pytest.raises(ModelMismatch, match="under way"):
        house.migrate(model=str(third))
    # Given up, it leaves nothing.
    back = roll_back(house.engine, house.alias, agreed=False)
    assert (back.done, back.moved, house.serves) == (True, False, house.old)
    assert house.engine.get_index(house.new) is None
    house.migrate(model=str(third))
    check_vectors(house.engine, house.alias, load_encoder(third))


def test_wrong_vectors_are_found_before_the_alias_moves(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.build(30)
    real = Copier.changes

    def spoilt(self: Copier, *arguments: Any, **options: Any) -> Any:
        done = real(self, *arguments, **options)
        lines = [encode({"update": {"_id": "d4"}}), encode({"doc": {"embedding": {"word1": 9.5}}})]
        house.engine.bulk(house.new, b"\n".join(lines) + b"\n", refresh=True)
        return done

    monkeypatch.setattr(Copier, "changes", spoilt)
    with pytest.raises(IndexConflict, match="hold other vectors"):
        house.migrate()
    assert house.serves == house.old


def test_dry_run_and_the_second_time_change_nothing(house: House, bridge: Bridge, opensearch_url: str) -> None:
    house.build(30)
    command = ("migrate", house.alias, "--model", str(house.after))
    code, out, err = bridge(*command, "--dry-run", url=opensearch_url)
    assert code == 0, err
    assert f"would create index {house.new}" in err
    assert f"move the alias {house.alias} from {house.old} to {house.new}" in err
    assert '"rank_features"' in out
    assert house.engine.get_index(house.new) is None
    planned = plan(house.engine, house.alias, MigrateOptions(str(house.after)))
    assert (planned.documents, planned.new) == (30, house.new)
    code, out, err = bridge(*command, url=opensearch_url)
    assert code == 0, err
    assert "30 indexed" in out
    code, out, err = bridge(*command, "--json", url=opensearch_url)
    assert code == 0, err
    assert json.loads(out)["source"] == 0
    assert house.engine.get_index(f"{house.base}-3") is None
    code, out, err = bridge(*command, "--dry-run", url=opensearch_url)
    assert "nothing to do" in out
    code, out, err = bridge(*command, "--delete-old", url=opensearch_url)
    assert code == 0, err
    assert house.engine.get_index(house.old) is None
    house.check()


def test_pipelines_do_not_work_twice_and_go_along(house: House) -> None:
    engine = house.engine
    body = encode({"processors": [{"append": {"field": "seen", "value": "i"}}]})
    engine.request("PUT", "/_ingest/pipeline/bridge-test-seen", body=body)
    try:
        settings = {"index.default_pipeline": "bridge-test-seen", "index.number_of_replicas": 0}
        engine.create_index(house.old, {"settings": settings, "aliases": {house.alias: {}}})
        write(engine, house.old, {"a": document(1)})
        house.migrate()
        write(engine, house.alias, {"b": document(2)})
        assert [hit["_source"]["seen"] for hit in all_hits(engine, house.alias).values()] == [["i"], ["i"]]
        assert engine.require_index(house.new).settings["index.default_pipeline"] == "bridge-test-seen"
    finally:
        house.clean()
        engine.request("DELETE", "/_ingest/pipeline/bridge-test-seen")


def test_a_pipeline_of_the_old_model_stays_behind(house: House) -> None:
    """The one of `bridge attach`: it would give later documents the vectors that the new index does not hold."""
    house.build(10)
    house.engine.put_settings(house.old, {"index.default_pipeline": f"bridge-{house.old}"})
    warning = f"leave the pipeline of {house.old} behind"
    steps = plan(house.engine, house.alias, MigrateOptions(str(house.after))).steps
    assert [step for step in steps if step.startswith(warning)]
    said: list[str] = []
    house.migrate(say=said.append)
    assert [line for line in said if line.startswith(warning)]
    house.check()
    assert "index.default_pipeline" not in house.engine.require_index(house.new).settings


@pytest.mark.parametrize("kind", ["_index_template", "_template"])
def test_a_template_that_gives_the_alias_too_early_is_found(house: House, kind: str) -> None:
    house.build(10)
    path, given = f"/{kind}/{house.base}", {"aliases": {house.alias: {}}}
    body = {"index_patterns": [f"{house.base}-*"], **({"template": given} if kind == "_index_template" else given)}
    house.engine.request("PUT", path, body=encode(body))
    try:
        with pytest.raises(IndexConflict, match="as soon as it is made"):
            house.migrate()
        assert house.serves == house.old
        assert house.engine.get_index(house.new) is None
    finally:
        house.engine.request("DELETE", path)
    house.migrate()
    house.check()


def test_what_the_old_index_was_registered_with_goes_along(house: House) -> None:
    options = RegisterOptions(
        two_phase=True, passages="merge", passage_tokens=5, overlap=2, pruning=parse_pruning("top-k=4"), field="v"
    )
    registering.apply(house.engine, registering.plan(house.engine, house.old, load_encoder(house.before), options))
    house.engine.request("PUT", f"/{house.old}/_alias/{house.alias}")
    write(house.engine, house.old, {"a": document(1)})
    house.migrate(register=RegisterOptions(passage_tokens=6))
    new = house.engine.require_index(house.new)
    assert new.settings["index.search.default_pipeline"] == f"{house.new}-two-phase"
    assert house.engine.get_search_pipeline(f"{house.new}-two-phase")
    model = IndexModel.of(new)
    assert model is not None
    assert (model.field, str(model.preparation)) == ("v", "merge passage-tokens=6 overlap=2 prune=top-k=4")
    assert len(all_hits(house.engine, house.new)["a"]["_source"]["v"]) <= 4


def test_an_own_write_block_of_the_old_index_stays(house: House) -> None:
    house.build(10)
    house.engine.put_settings(house.old, {"index.blocks.write": True})
    house.migrate()
    assert house.engine.require_index(house.old).settings["index.blocks.write"] == "true"
    assert "index.blocks.write" not in house.engine.require_index(house.new).settings
    house.check()


def test_what_cannot_be_migrated_is_said(house: House, fails: Callable[..., str], opensearch_url: str) -> None:
    house.build(5)
    model = ("--model", str(house.after))
    assert "there is no alias" in fails(1, "migrate", "nothing-of-that-name", *model, url=opensearch_url)
    said = fails(2, "migrate", house.old, *model, url=opensearch_url)
    assert "is an index, not an alias" in said
    assert f"PUT /{house.old}/_alias/NAME" in said
    assert "--model" in fails(2, "migrate", house.alias, url=opensearch_url)
    assert "--yes goes with" in fails(2, "migrate", house.alias, *model, "--yes", url=opensearch_url)
    assert "no way back" in fails(2, "migrate", house.alias, "--rollback", url=opensearch_url)
    assert "is not the name" in fails(2, "migrate", "a*", *model, url=opensearch_url)
    house.engine.create_index(f"{house.base}-x", {"aliases": {house.alias: {}}})
    assert "2 indices" in fails(2, "migrate", house.alias, *model, url=opensearch_url)
    house.engine.delete_index(f"{house.base}-x")
    house.engine.create_index(
        f"{house.base}-y", {"mappings": {"_source": {"excludes": ["secret"]}}, "aliases": {f"{house.base}-ya": {}}}
    )
    with pytest.raises(UnsupportedByEngine, match="would lose"):
        migrate(house.engine, f"{house.base}-ya", MigrateOptions(str(house.after)))
    mappings = {"properties": {"embedding": {"type": "keyword"}}}
    house.engine.create_index(f"{house.base}-z", {"mappings": mappings, "aliases": {f"{house.base}-za": {}}})
    with pytest.raises(IndexConflict, match="of its own"):
        migrate(house.engine, f"{house.base}-za", MigrateOptions(str(house.after)))


def test_rollback_needs_the_old_index(house: House) -> None:
    house.build(5)
    house.migrate(delete_old=True)
    with pytest.raises(IndexConflict, match="no way back"):
        roll_back(house.engine, house.alias, agreed=True)
