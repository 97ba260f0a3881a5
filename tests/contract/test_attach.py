"""A cluster with the ml plugin calls the daemon: for documents, and for queries.

What it stores must be what `bridge ingest` stores, and what it finds must be what `bridge search` finds; also when the
daemon is away for a while, is slow, or is busy.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.attaching import Daemon, opensearch, wanted
from bridge.daemon.keys import KeyFile
from bridge.encode import load_encoder
from bridge.encode.load import ModelOrigin
from bridge.engines import Engine
from bridge.engines.base import encode
from bridge.errors import EngineError, RequestRejected, UsageError
from bridge.fit import FitOptions, fit
from bridge.ingest import IngestOptions, ingest
from bridge.modelstore import save_model
from bridge.records import HASH_FIELD
from bridge.register import RegisterOptions, apply, plan
from bridge.rewrite import QueryRewriter
from bridge.search import search
from bridge.sources import SourceOptions, open_source
from bridge.tokens import Kind
from tests.daemon.running import serving

pytestmark = pytest.mark.node

Json = dict[str, Any]

KINDS: tuple[Kind, ...] = ("rank_features", "sparse_vector")
FIELDS = ("title", "text", "more.words")
ODD: list[Json] = [
    {"_id": "odd-1", "title": None, "text": "only a text ... with dots. and a ##. piece"},
    {"_id": "odd-2", "title": ["several", " ", "titles", ["nested", 7, True]], "text": 12.5},
    {"_id": "odd-3", "more": [{"words": "one"}, {"words": "two"}, {"other": "three"}], "text": "  "},
    {"_id": "odd-4", "more.words": "a name with a dot"},
]


@dataclass
class House:
    """The cluster, the folder that the daemon runs in, and where it listens."""

    engine: Engine
    folder: Path
    port: int
    key: str
    documents: list[Json]
    queries: list[str]

    @property
    def daemon(self) -> Daemon:
        return Daemon(f"http://127.0.0.1:{self.port}", self.key)

    @contextmanager
    def serving(self, **environment: str) -> Iterator[subprocess.Popen[str]]:
        words = ("--url", self.engine.url, "serve", "--port", str(self.port), "--keys", "keys.json")
        with serving(self.folder, *words, **environment) as (_, process, _):
            yield process

    def refused(self) -> float:
        """How often the daemon has answered 429; asked again while it does so."""
        deadline = time.monotonic() + 10
        headers = {"authorization": f"Bearer {self.key}"}
        while (answer := httpx.get(f"{self.daemon.url}/metrics", headers=headers)).status_code != 200:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
        lines = [line for line in answer.text.splitlines() if 'status="429"' in line and "_total" in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@pytest.fixture(scope="module")
def house(ml_engine: Engine, module_home: None, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> House:
    corpus = shared / "corpora" / "scifact"
    with gzip.open(corpus / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in islice(lines, 600)]
    documents += ODD
    with (corpus / "queries.jsonl").open(encoding="utf-8") as lines:
        queries = [json.loads(line)["text"] for line in islice(lines, 40)]
    folder = tmp_path_factory.mktemp("daemon")
    fit([one.get("text") for one in documents[:600]], folder / "model", FitOptions(tokenizer=shared / "bert-uncased"))
    (folder / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents), encoding="utf-8")
    encoder = load_encoder(folder / "model")
    save_model(ml_engine, encoder, ModelOrigin.of(str(folder / "model")))
    for kind in KINDS:
        for name in (f"by-cluster-{kind}", f"by-bridge-{kind}"):
            apply(ml_engine, plan(ml_engine, name, encoder, RegisterOptions(kind=kind, text_fields=FIELDS)))
        with open_source([str(folder / "corpus.jsonl")], SourceOptions()) as source:
            done = ingest(ml_engine, f"by-bridge-{kind}", source, IngestOptions(dead_letter=folder / "dead.jsonl"))
        assert (done.indexed, done.dead) == (len(documents), 0)
    key, _ = KeyFile(folder / "keys.json").add("cluster", "write", None)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    (folder / "bridge.toml").write_text(f'[serve]\nlog = "error"\ndata = "{folder / "jobs"}"\n')
    return House(ml_engine, folder, port, key, documents, queries)


def index_all(house: House, index: str, pipeline: str | None) -> list[Json]:
    """One `_bulk` request with all documents; its items."""
    lines = []
    for one in house.documents:
        lines += [encode({"index": {"_id": one["_id"]}}), encode({k: v for k, v in one.items() if k != "_id"})]
    found = house.engine.bulk(index, b"\n".join(lines) + b"\n", pipeline=pipeline, refresh=True)
    return [next(iter(item.values())) for item in found]


def vectors(engine: Engine, index: str) -> dict[str, Json]:
    engine.refresh(index)
    hits = engine.search(index, {"size": 2000, "query": {"match_all": {}}})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def sources(found: dict[str, Json]) -> dict[str, Json]:
    """Without the hash, which only a load knows; the cluster's processor makes objects of names with dots."""
    own = {HASH_FIELD, "more", "more.words"}
    return {name: {k: v for k, v in one.items() if k not in own} for name, one in found.items()}


def hits(engine: Engine, index: str, body: Json) -> list[tuple[str, float]]:
    return [(one["_id"], one["_score"]) for one in engine.search(index, body)["hits"]["hits"]]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_documents_and_queries_are_the_bridges(house: House, kind: Kind) -> None:
    engine, index = house.engine, f"by-cluster-{kind}"
    with house.serving():
        made = opensearch.attach(engine, wanted(engine, index), house.daemon)
        assert len(made.steps) == 7
        items = index_all(house, index, made.pipeline)
        assert [item["status"] for item in items if item["status"] != 201] == []
        ours, theirs = vectors(engine, f"by-bridge-{kind}"), vectors(engine, index)
        assert len(theirs) == len(house.documents)
        assert sources(theirs) == sources(ours)
        rewriter = QueryRewriter.for_index(engine, f"by-bridge-{kind}")
        for text in house.queries:
            clause: Json = {"query_text": text, "model_id": made.names["query_model"]}
            if kind == "sparse_vector":
                clause["method_parameters"] = {"k": 20, "top_n": 10_000, "heap_factor": 1.0}
            body = {"size": 20, "query": {"neural_sparse": {"embedding": clause}}}
            found = hits(engine, index, body)
            wanted_hits = [
                (hit.id, hit.score) for hit in search(engine, f"by-bridge-{kind}", rewriter, text, size=20).hits
            ]
            assert [score for _, score in found] == pytest.approx([score for _, score in wanted_hits], rel=1e-6)
            assert dict(found).keys() == dict(wanted_hits).keys()
        again = opensearch.attach(engine, wanted(engine, index), house.daemon)
        assert again.steps == []
        assert again.names == made.names


@pytest.mark.timeout(300)
def test_another_place_and_the_default_pipeline(house: House) -> None:
    """A daemon that has moved is found again by the same models; a plain write gains a vector."""
    engine, index = house.engine, "by-cluster-rank_features"
    first = opensearch.attach(engine, wanted(engine, index), Daemon("http://127.0.0.1:1", house.key))
    with pytest.raises(EngineError):
        engine.request("PUT", f"/{index}/_doc/x?pipeline={first.pipeline}", body=encode({"text": "not now"}))
    with house.serving():
        planned = opensearch.attach(engine, wanted(engine, index), house.daemon, default=True, dry_run=True)
        made = opensearch.attach(engine, wanted(engine, index), house.daemon, default=True)
        assert made.names == first.names
        assert planned.steps
        assert [step for step in made.steps if step.startswith("change connector")]
        engine.request("PUT", f"/{index}/_doc/plain", body=encode({"title": "Vitamin D", "text": "and bones"}))
        assert "vitamin" in vectors(engine, index)["plain"]["embedding"]
        engine.request("PUT", f"/{index}/_doc/blank", body=encode({"title": "  "}))
        assert "embedding" not in vectors(engine, index)["blank"]
        # Whoever reads a document and writes it back brings a vector along, whose tokens may hold dots.
        brought = {"title": "no ... dots", "embedding": {".": 1.5, "old": 2.0}, HASH_FIELD: "x"}
        engine.request("PUT", f"/{index}/_doc/brought", body=encode(brought))
        stored = vectors(engine, index)["brought"]
        assert stored.keys() == {"title", "embedding"}
        assert "dots" in stored["embedding"]
        assert "old" not in stored["embedding"]
        engine.request("PUT", f"/{index}/_doc/brought", body=encode({"text": " ", "embedding": {"old": 2.0}}))
        assert "embedding" not in vectors(engine, index)["brought"]
        with pytest.raises(RequestRejected, match="a text field is an object"):
            engine.request("PUT", f"/{index}/_doc/object", body=encode({"title": {"x": "y"}}))
        # A load of the bridge goes round the pipeline.
        with open_source([str(house.folder / "corpus.jsonl")]) as source:
            done = ingest(engine, index, source, IngestOptions(dead_letter=house.folder / "dead.jsonl"))
        assert done.indexed == len(house.documents)


@pytest.mark.timeout(300)
def test_a_daemon_that_is_away_loses_nothing(house: House) -> None:
    """What cannot be encoded is refused, document by document, and goes in when it is sent again."""
    engine, index = house.engine, "by-cluster-rank_features"
    made = opensearch.attach(engine, wanted(engine, index), house.daemon)
    engine.request("POST", f"/{index}/_delete_by_query?refresh=true", body=encode({"query": {"match_all": {}}}))
    items = index_all(house, index, made.pipeline)
    assert {item["status"] >= 400 for item in items} == {True}
    assert engine.count(index) == 0
    with house.serving():
        items = index_all(house, index, made.pipeline)
        assert {item["status"] for item in items} == {201}
    # Restarted at the same place: nothing has to be attached again.
    with house.serving():
        assert sources(vectors(engine, index)) == sources(vectors(engine, "by-bridge-rank_features"))
        assert {item["status"] for item in index_all(house, index, made.pipeline)} == {200}


@pytest.mark.timeout(300)
def test_a_daemon_that_is_slow_is_waited_for(house: House) -> None:
    engine, index = house.engine, "by-cluster-rank_features"
    made = opensearch.attach(engine, wanted(engine, index), house.daemon)
    with house.serving() as process, ThreadPoolExecutor(1) as pool:
        index_all(house, index, made.pipeline)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            writing = pool.submit(index_all, house, index, made.pipeline)
            time.sleep(3)
            assert not writing.done()
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert {item["status"] for item in writing.result(60)} == {200}
        assert sources(vectors(engine, index)) == sources(vectors(engine, "by-bridge-rank_features"))


@pytest.mark.timeout(300)
def test_a_daemon_that_is_busy_is_asked_again(house: House) -> None:
    """Many ask one that takes one request at once: it answers 429, and all of them get what they want."""
    engine, index = house.engine, "by-cluster-rank_features"
    made = opensearch.attach(engine, wanted(engine, index), house.daemon)
    settings = house.folder / "bridge.toml"
    plain = settings.read_text()
    settings.write_text(plain + "[serve.limits]\nrequests = 1\n")
    clause = {"query_text": house.queries[0], "model_id": made.names["query_model"]}
    body = {"size": 20, "query": {"neural_sparse": {"embedding": clause}}}
    try:
        with house.serving(), ThreadPoolExecutor(8) as pool:
            expected = hits(engine, index, body)
            writes = [pool.submit(index_all, house, index, made.pipeline) for _ in range(4)]
            asked = [pool.submit(hits, engine, index, body) for _ in range(40)]
            for one in writes:
                assert {item["status"] for item in one.result()} == {200}
            for two in asked:
                assert {name for name, _ in two.result()} == {name for name, _ in expected}
            assert house.refused() > 0
    finally:
        settings.write_text(plain)


@pytest.mark.timeout(300)
def test_it_is_taken_away_whole(house: House) -> None:
    engine = house.engine
    for kind in KINDS:
        index = f"by-cluster-{kind}"
        opensearch.attach(engine, wanted(engine, index), house.daemon, default=True)
        assert opensearch.detach(engine, wanted(engine, index), dry_run=True)
        assert len(opensearch.detach(engine, wanted(engine, index))) == 8
        assert opensearch.detach(engine, wanted(engine, index)) == []
        engine.request("PUT", f"/{index}/_doc/after", body=encode({"title": "no vector"}))
        assert "embedding" not in vectors(engine, index)["after"]


def test_what_a_cluster_cannot_encode(house: House) -> None:
    engine = house.engine
    encoder = load_encoder(house.folder / "model")
    options = RegisterOptions(passages="nested", passage_tokens=64)
    apply(engine, plan(engine, "by-passages", encoder, options))
    with pytest.raises(UsageError, match="a vector for each passage"):
        wanted(engine, "by-passages")
    engine.create_index("foreign", {})
    with pytest.raises(UsageError, match="names no document model"):
        wanted(engine, "foreign")
