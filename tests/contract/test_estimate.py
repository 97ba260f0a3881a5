"""`bridge ingest --estimate`: near to what the load comes to, and nothing is left of it."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from bridge.engines import Engine
from bridge.estimate import _extrapolated

Bridge = Callable[..., tuple[int, str, str]]
Fails = Callable[..., str]

REAL = 20_000
KEYS = {
    "documents", "counted", "sample", "dead", "unchanged", "seconds", "fit_seconds", "documents_per_second",
    "encode_share", "engine_share", "bytes_per_document", "primary_bytes", "replicas", "disk_bytes", "model", "limit",
}  # fmt: skip


def write(path: Path, count: int, first: int = 0) -> Path:
    rows = (
        json.dumps({"_id": str(number), "text": f"word{number % 97} word{number % 89} of the moon {number}"}) + "\n"
        for number in range(first, first + count)
    )
    path.write_text("".join(rows))
    return path


def indices(engine: Engine) -> set[str]:
    return {row["index"] for row in engine.request("GET", "/_cat/indices", params={"format": "json", "h": "index"})}


def merged_bytes(engine: Engine, index: str) -> int:
    """What the index takes once its segments are merged into one."""
    engine.request("POST", f"/{index}/_forcemerge", params={"max_num_segments": "1"}, timeout=300)
    engine.refresh(index)
    shards = engine.request("GET", f"/{index}/_segments")["indices"][index]["shards"]
    segments = [segment for copies in shards.values() for copy in copies for segment in copy["segments"].values()]
    return sum(segment["size_in_bytes"] for segment in segments)


@pytest.fixture
def estimate(bridge: Bridge, index: str, opensearch_url: str) -> Callable[..., dict[str, Any]]:
    def call(*arguments: str) -> dict[str, Any]:
        code, out, err = bridge("ingest", index, *arguments, "--estimate", "--json", url=opensearch_url)
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        assert set(found) == KEYS
        return found

    return call


@pytest.mark.timeout(900)
def test_an_estimate_is_near_to_the_load(
    bridge: Bridge, estimate: Callable[..., dict[str, Any]], engine: Engine, index: str, opensearch_url: str,
    shared: Path, tmp_path: Path, record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    with gzip.open(shared / "corpora" / "msdocs100k" / "corpus.jsonl.gz", "rb") as file:
        (tmp_path / "a.jsonl").write_bytes(b"".join(islice(file, REAL)))
    found = estimate("a.jsonl")
    code, out, _ = bridge("ingest", index, "a.jsonl", "--json", url=opensearch_url)
    assert code == 0
    done = json.loads(out)
    size = merged_bytes(engine, index)
    print(
        f"\nestimated {found['seconds']:.1f} s, {found['primary_bytes']:,} bytes; "
        f"the load took {done['seconds']:.1f} s, {size:,} bytes"
    )
    record_property("estimated", found)
    record_property("loaded", {"seconds": done["seconds"], "bytes": size})
    assert (found["documents"], found["counted"]) == (REAL, True)
    assert found["primary_bytes"] == pytest.approx(size, rel=0.25)
    assert found["disk_bytes"] == found["primary_bytes"] * (1 + found["replicas"])


def test_nothing_is_left_of_an_estimate(
    estimate: Callable[..., dict[str, Any]], engine: Engine, index: str, home: Path, tmp_path: Path
) -> None:
    before = indices(engine)
    write(tmp_path / "a.jsonl", 600)
    found = estimate("a.jsonl")
    assert (found["documents"], found["sample"], found["dead"]) == (600, 600, 0)
    assert found["seconds"] > 0
    assert found["limit"] in ("encoding", "the engine")
    assert indices(engine) == before
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["a.jsonl"]


def test_an_index_that_is_there_is_not_touched(
    bridge: Bridge, estimate: Callable[..., dict[str, Any]], engine: Engine, index: str, opensearch_url: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    write(tmp_path / "a.jsonl", 300)
    assert bridge("ingest", index, "a.jsonl", url=opensearch_url)[0] == 0
    engine.put_settings(index, {"index.auto_expand_replicas": "false", "index.number_of_replicas": 2})
    before, there = engine.require_index(index), indices(engine)
    write(tmp_path / "b.jsonl", 400, first=200)
    found = estimate("b.jsonl")
    # 100 of 400 are there already.
    assert (found["sample"], found["unchanged"], found["replicas"]) == (400, 100, 2)
    assert found["disk_bytes"] == 3 * found["primary_bytes"]
    assert engine.require_index(index) == before
    assert engine.count(index) == 300
    assert indices(engine) == there
    assert estimate("a.jsonl")["primary_bytes"] == 0


def test_dead_documents_are_counted(estimate: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with write(tmp_path / "a.jsonl", 300).open("a") as file:
        file.write("nonsense\n" * 100)
    found = estimate("a.jsonl")
    assert (found["sample"], found["dead"]) == (400, 100)


def test_a_source_of_which_nothing_goes_in(
    bridge: Bridge, fails: Fails, engine: Engine, index: str, opensearch_url: str, tmp_path: Path
) -> None:
    write(tmp_path / "good.jsonl", 20)
    assert bridge("fit", "good.jsonl", "-o", "model")[0] == 0
    (tmp_path / "a.jsonl").write_text('{"text": "no id"}\n' * 30)
    before = indices(engine)
    line = fails(2, "ingest", index, "a.jsonl", "--model", "model", "--estimate", url=opensearch_url)
    assert line.startswith(
        f"no document of a sample of 30 would go into {index}; the first: a.jsonl:1: no id: field _id is missing"
    )
    assert indices(engine) == before
    (tmp_path / "a.jsonl").write_text("")
    line = fails(2, "ingest", index, "a.jsonl", "--model", "model", "--estimate", url=opensearch_url)
    assert line == "a.jsonl holds no document: there is nothing to estimate"


def test_finish_and_estimate_exclude_each_other(fails: Fails, opensearch_url: str) -> None:
    assert "name one of them" in fails(2, "ingest", "test-none", "--finish", "--estimate", url=opensearch_url)


def test_a_table_for_people(bridge: Bridge, index: str, opensearch_url: str, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 300)
    code, out, _ = bridge("ingest", index, "a.jsonl", "--estimate", url=opensearch_url)
    assert code == 0
    for words in ("a.jsonl into", "documents", "300", "counted", "is the limit", "primary shards", "MB", "replica"):
        assert words in out


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_estimate_leaves_nothing(
    engine: Engine, index: str, opensearch_url: str, tmp_path: Path, name: str
) -> None:
    write(tmp_path / "a.jsonl", 3000)
    before = indices(engine)
    words = [sys.executable, "-m", "bridge", "--url", opensearch_url, "ingest", index, "a.jsonl", "--estimate"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (made := indices(engine) - before):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "bridge: interrupted"
    assert {one.rpartition("-estimate-")[0] for one in made} == {index}
    assert indices(engine) == before


# --- the size of what is not measured -----------------------------------------------------------------------


def test_a_size_is_drawn_out_with_its_vocabulary() -> None:
    def size(documents: int) -> int:
        return round(100 * documents + 5000 * documents**0.5)

    sizes = [(count, size(count)) for count in (500, 2000)]
    assert _extrapolated(sizes, 1_000_000) == pytest.approx(size(1_000_000), rel=1e-3)


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(100, 5000), (200, 10_000)], 500_000),   # no vocabulary to speak of
        ([(100, 4000), (200, 10_000)], 500_000),   # more for each document, the more there are
        ([(200, 10_000)], 500_000),
        ([(0, 230), (200, 10_000)], 500_000),
        ([(0, 0)], 0),
    ],
)  # fmt: skip
def test_sizes_that_say_nothing_of_a_vocabulary(sizes: list[tuple[int, int]], size: float) -> None:
    assert _extrapolated(sizes, 10_000) == pytest.approx(size)
