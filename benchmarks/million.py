"""A load of a million documents: does it end, does memory stay flat, does it keep its pace.

    python benchmarks/million.py                       on the embedded OpenSearch node; 11 to 60 minutes on two cores
    python benchmarks/million.py --documents 100000    a tenth of it
    python benchmarks/million.py --apart               engine and clients on processors of their own

Documents are passages of msdocs100k, recombined: the first half of one and the second half of another, cut between
words, since halves of words would be a vocabulary that no language has. They go in as
`bridge ingest` takes them without a model: a lexical model is fitted on the source first. Memory is the peak of the
bridge's process, beside that of a load of a tenth of the documents. Then the same documents go in a second time, as
ready-made bodies (the raw replay of `ingest.py`), into a new index of the same mapping: so the last tenth of both meets
an engine with as many documents, and as many segments still to be merged. When an engine merges large ones is chance,
which takes a sixth of a pace or gives it: both are done several times, in turn. It needs gigabytes of disk.

Where they share their processors, what the client does for a document is taken from the engine, and the more so the
faster the engine is. --apart is how it is where each has a machine of its own (Linux).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import count as numbers
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.ingest import INDEX, SHARED, engine_at, into, peak_memory, replay, send_to

POINTS, SHOWN = 100, 20
"""How many times the pace is noted, and shown."""


CORPUS = SHARED / "data" / "corpora" / "msdocs100k" / "corpus.jsonl.gz"


def recombined() -> Iterator[dict[str, str]]:
    """Documents without end, the same ones each time."""
    with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    choose = random.Random(0)
    for number in numbers():
        first, second = choose.choice(texts), choose.choice(texts)
        yield {"_id": f"m{number}", "text": f"{first[: _middle(first)]} {second[_middle(second) :].lstrip()}"}


def _middle(text: str) -> int:
    """The first blank of its second half, or its end."""
    place = text.find(" ", len(text) // 2)
    return len(text) if place < 0 else place


def write(path: Path, documents: Iterator[dict[str, str]], count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for document in islice(documents, count):
            file.write(json.dumps(document, ensure_ascii=False) + "\n")


def work(url: str, source: Path, documents: int, model: str | None) -> None:
    """One load, with `model` or one that is fitted first.

    Prints when how many documents were settled, and the peak of memory.
    """
    from bridge.ingest import IngestOptions, ingest
    from bridge.records import Progress
    from bridge.register import RegisterOptions
    from bridge.sources import open_source

    engine = engine_at(url)
    if engine.get_index(INDEX):
        engine.delete_index(INDEX)
    started = time.perf_counter()
    seen: list[tuple[int, float]] = []

    def report(progress: Progress) -> None:
        if progress.stage == "ingest" and progress.documents >= (len(seen) + 1) * documents / POINTS:
            seen.append((progress.documents, time.perf_counter() - started))

    letters = source.parent / "dead-letter.jsonl"
    how = RegisterOptions(shards=1, replicas=0)
    options = IngestOptions(model=model, dead_letter=letters, fresh=True, register=how)
    with open_source([str(source)]) as opened:
        summary = ingest(engine, INDEX, opened, options, report=report)
    seen.append((summary.source, time.perf_counter() - started))
    print(json.dumps({
        "seen": seen, "peak": peak_memory(), "indexed": summary.indexed, "dead": summary.dead, "model": summary.model,
        "count": engine.count(INDEX),
    }))  # fmt: skip


def load(url: str, source: Path, documents: int, model: str | None = None) -> dict[str, Any]:
    """Run `work` in a process."""
    found = worker(__file__, url, source, str(documents), *([model] if model else []))
    found["seen"] = [(0, 0.0), *map(tuple, found["seen"])]
    if found["indexed"] != documents or found["count"] != documents:
        raise RuntimeError(f"{found['indexed']} of {documents} documents were indexed, {found['count']} are there")
    return found


def worker(script: str, url: str, source: Path, *arguments: str) -> dict[str, Any]:
    """Run the `--worker` of a script in a process; what it printed last."""
    environment = os.environ | {"BRIDGE_DATA_DIR": os.environ.get("BRIDGE_DATA_DIR", str(source.parent / "data"))}
    done = subprocess.run(
        [sys.executable, script, "--worker", url, str(source), *arguments],
        stdout=subprocess.PIPE, text=True, check=True, env=environment,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_bodies(source: Path, model: str, folder: Path) -> None:
    """Ready-made `_bulk` bodies of a source's documents, as the bridge would send them with that model, a file each."""
    from bridge import load_encoder
    from bridge.sources import open_source

    with open_source([str(source)]) as opened:
        send_to(into(folder), opened, load_encoder(model), "opensearch")


def replayed(url: str, folder: Path, connections: int) -> list[tuple[int, float]]:
    """When how many documents of these bodies were in a new index, as `work` tells it."""
    engine = engine_at(url)
    mappings = engine.require_index(INDEX).mappings
    engine.delete_index(INDEX)
    settings = {"index.number_of_shards": 1, "index.number_of_replicas": 0, "index.refresh_interval": "-1"}
    engine.create_index(INDEX, {"mappings": mappings, "settings": settings})
    paths = sorted(folder.iterdir())
    seen: list[tuple[int, float]] = [(0, 0.0)]
    lock, started = threading.Lock(), time.perf_counter()

    def told(body: bytes) -> None:
        with lock:
            seen.append((seen[-1][0] + body.count(b"\n") // 2, time.perf_counter() - started))

    replay(url, paths, connections, told)
    engine.refresh(INDEX)
    # A load of the bridge has ended when all of it can be found: so has this one.
    done = seen[-1][0]
    seen[-1] = done, time.perf_counter() - started
    if engine.count(INDEX) != done:
        raise RuntimeError(f"of {done} documents replayed {engine.count(INDEX)} are there")
    return seen


@contextmanager
def kept_apart(engine: Any) -> Iterator[None]:
    """Meanwhile the engine's process has one half of the processors, and this one with all that it starts the other."""
    whole = os.sched_getaffinity(0)
    if len(whole) < 2:
        sys.exit("there is one processor: nothing can be kept apart")
    asked = engine.request("GET", "/_nodes/_local/process", params={"filter_path": "nodes.*.process.id"})
    ((node,),) = (nodes.values() for nodes in asked.values())
    threads = Path(f"/proc/{node['process']['id']}/task")

    def give(processors: set[int]) -> None:
        for thread in threads.iterdir():
            os.sched_setaffinity(int(thread.name), processors)

    own = set(sorted(whole)[len(whole) // 2 :])
    give(whole - own)
    os.sched_setaffinity(0, own)
    try:
        yield
    finally:
        os.sched_setaffinity(0, whole)
        give(whole)


def pace(seen: list[tuple[int, float]], start: float, end: float) -> float:
    """Documents a second between two shares of the whole: between the last points before the one and the other."""
    whole = seen[-1][0]
    (first, began), (last, ended) = at(seen, start * whole), at(seen, end * whole)
    return (last - first) / (ended - began)


def at(seen: list[tuple[int, float]], documents: float) -> tuple[int, float]:
    """The last point before so many documents."""
    return max(point for point in seen if point[0] <= documents)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=3, help="of the raw replay")
    parser.add_argument("--rounds", type=int, default=3, help="loads and replays, in turn")
    parser.add_argument("--apart", action="store_true", help="engine and clients on processors of their own")
    options = parser.parse_args()
    from bridge.resolve import connect
    from bridge.settings import load_settings

    documents, tenth = options.documents, options.documents // 10
    with (
        tempfile.TemporaryDirectory() as home,
        connect(load_settings(url=options.url), lambda line: print(line, file=sys.stderr)) as engine,
    ):
        url, folder = engine.url, Path(home) / "bodies"
        few, source = Path(home) / "few.jsonl", Path(home) / "documents.jsonl"
        folder.mkdir()
        write(few, recombined(), tenth)
        write(source, recombined(), documents)
        with kept_apart(engine) if options.apart else nullcontext():
            small = load(url, few, tenth)
            found = load(url, source, documents)
            write_bodies(source, found["model"], folder)
            rounds = [(found["seen"], replayed(url, folder, options.connections))]
            for _ in range(1, options.rounds):
                seen = load(url, source, documents, found["model"])["seen"]
                rounds.append((seen, replayed(url, folder, options.connections)))
        engine.delete_index(INDEX)
    seen = found["seen"]
    print("\n| documents | after | documents/s since the line above |\n| ---: | ---: | ---: |")
    for (before, began), (now, ended) in pairwise(at(seen, part * documents / SHOWN) for part in range(SHOWN + 1)):
        if now > before:
            print(f"| {now:,} | {ended:.0f} s | {(now - before) / (ended - began):,.0f} |")
    print(f"\npeak memory: {small['peak'] / 1e6:.0f} MB at {tenth:,} documents, {found['peak'] / 1e6:.0f} MB at "
          f"{documents:,} ({found['peak'] / small['peak']:.3f} times)")  # fmt: skip
    print("\n| documents/s (of those of the raw replay) |" + "".join(f" round {n} |" for n in range(1, len(rounds) + 1))
          + " median of the ratios |\n| --- |" + " ---: |" * (len(rounds) + 1))  # fmt: skip
    for name, start, end in (("second fifth", 0.2, 0.4), ("from there to the end", 0.4, 1.0), ("last tenth", 0.9, 1.0)):
        paces = [(pace(ours, start, end), pace(theirs, start, end)) for ours, theirs in rounds]
        cells = "".join(f" {ours:,.0f} ({ours / theirs:.3f}) |" for ours, theirs in paces)
        print(f"| {name} |{cells} {statistics.median(ours / theirs for ours, theirs in paces):.3f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5] if len(sys.argv) > 5 else None)
    else:
        main()
