"""A cluster of two nodes, one of which holds data only: that one is killed in the middle of a load, and comes back.

The load goes on meanwhile, or waits where a shard has no other copy, and ends like one that was left alone: in every
copy of every shard.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.engines import Engine, open_engine
from bridge.errors import DownloadFailed
from bridge.register import RegisterOptions
from bridge.rewrite import QueryRewriter
from bridge.settings import EngineSettings
from tests.conftest import NODE_CACHE
from tests.faults.corpus import POISON, State, state_of, write_corpus
from tests.faults.engines import only_torture
from tests.faults.proxy import fault_proxy
from tests.faults.running import Done, is_restored, load
from tests.nodes import open_folder
from tests.nodes.cluster import Member, running_cluster

DOCUMENTS = 20_000
SHARDS = 4
"""So many that each node has primaries, and copies of the other's."""

SEED = 20_261_122
MANAGER, DATA = "manager", "data"
COPIES = ("_primary", "_replica")
QUESTIONS = ("word7 word8", "word1200 word31 word2", "word2999")

_TOGETHER = {
    "cluster.name": "two",
    "cluster.initial_cluster_manager_nodes": MANAGER,
    "discovery.seed_hosts": f"{MANAGER},{DATA}",
}
SETTINGS = {
    MANAGER: {**_TOGETHER, "node.roles": "cluster_manager,data,ingest"},
    DATA: {**_TOGETHER, "node.roles": "data"},
}


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster, and what a load that is left alone leaves behind in each copy, finds there and says."""

    engine: Engine
    data: Member
    folder: Path
    state: State
    found: list[dict[str, float]]
    said: Done


@pytest.fixture(scope="module")
def site(module_home: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("cluster")
    write_corpus(folder / "corpus.jsonl", DOCUMENTS)
    try:
        with open_folder() as data, running_cluster(SETTINGS, data, NODE_CACHE) as members:
            url = members[MANAGER].start()
            with open_engine(settings=EngineSettings(url=url)) as engine:
                registered = RegisterOptions(shards=SHARDS, replicas=1)
                with load(folder, engine, "undisturbed", options=(), registered=registered) as one:
                    said = one.run()
                assert said.code == 3, said.err
                wait_for_copies(engine, one.index)
                state, other = (state_of(engine, one.index, one.letters, copies) for copies in COPIES)
                assert state == other
                yield Site(engine, members[DATA], folder, state, found(engine, one.index), said)
    except DownloadFailed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no real node to be had here: {error}")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("replicas", "options"),
    [
        pytest.param(1, (), id="replicas"),
        pytest.param(None, (), id="as-many-as-there-are-nodes", marks=only_torture),
        pytest.param(1, ("--fast-load",), id="none-until-it-is-over", marks=only_torture),
    ],
)
def test_a_data_node_that_is_killed_and_comes_back(site: Site, replicas: int | None, options: tuple[str, ...]) -> None:
    engine = site.engine
    chosen = random.Random(SEED)
    place = chosen.randrange(DOCUMENTS // 20, DOCUMENTS // 10)
    alone = chosen.randrange(200, 1000)
    index = f"killed-{uuid.uuid4().hex[:12]}"
    registered = RegisterOptions(shards=SHARDS, replicas=replicas)
    words = ("--chunk-documents", "20", *options)
    back = threading.Event()
    # Each request takes a while until the node is back: the load must not be over before, on fast machines neither.
    slow = iter(lambda: None if back.is_set() else "latency", "never")
    with (
        fault_proxy(engine.url, slow) as proxy,
        load(site.folder, engine, index, url=proxy.url, options=words, registered=registered) as one,
    ):
        one.start()
        one.wait(lambda: one.position() >= place)
        assert set(primaries(engine, index)) == {MANAGER, DATA}
        site.data.kill()
        if options:
            # Half of the documents have nowhere to go until it is back.
            one.wait(lambda: "trying again" in one.said())
        else:
            there = one.position()
            one.wait(lambda: one.position() >= there + alone)
            assert set(primaries(engine, index)) == {MANAGER}
        site.data.start()
        assert one.process
        assert one.process.poll() is None, "the load was over before the node was back"
        back.set()
        done = one.end(300)
    assert done.code == 3, done.err
    # What the lost node had acknowledged to the other one only is met by the engine's own second try: it is there then.
    totals = done.totals | {"indexed": done.totals["indexed"] + done.totals["unchanged"], "unchanged": 0}
    assert totals == site.said.totals
    assert done.totals["dead"] == DOCUMENTS // POISON
    wait_for_copies(engine, index)
    assert is_restored(engine, index)
    for copies in COPIES:
        assert state_of(engine, index, one.letters, copies) == site.state
    assert found(engine, index) == site.found


def primaries(engine: Engine, index: str) -> list[str]:
    """The node of each shard's primary copy, of those that have one."""
    rows = engine.request("GET", f"/_cat/shards/{index}", params={"format": "json"})
    return [row["node"] for row in rows if row["prirep"] == "p" and row["node"]]


def wait_for_copies(engine: Engine, index: str) -> None:
    """Until each shard has its copy on the other node."""
    deadline = time.monotonic() + 180
    while (health := engine.index_health(index))["status"] != "green":
        assert time.monotonic() < deadline, json.dumps(health)
        time.sleep(0.2)
    assert health["active_shards"] == 2 * SHARDS


def found(engine: Engine, index: str) -> list[dict[str, float]]:
    """Each question's hits and their scores: the same in both copies, of which a search takes either."""
    rewriter = QueryRewriter.for_index(engine, index)
    answers = []
    for question in QUESTIONS:
        body = rewriter.rewrite(question) | {"size": 10_000, "_source": False}
        one, other = (engine.search(index, body, {"preference": copies}) for copies in COPIES)
        scores, again = ({hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]} for answer in (one, other))
        assert scores == again
        assert scores
        answers.append(scores)
    return answers
