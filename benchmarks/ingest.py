"""How fast documents whose vectors are there already go into an engine, beside the engine's own limit and its clients.

    python benchmarks/ingest.py                        on the embedded OpenSearch node, which is started if need be
    python benchmarks/ingest.py --url URL              on another engine: Elasticsearch has its own client's helpers
    python benchmarks/ingest.py --encode MODEL         also with that model in front: text ─▶ vectors ─▶ engine
    python benchmarks/ingest.py --quick                few documents, one round: does it run

The raw replay posts ready-made `_bulk` bodies, those that the bridge itself would send, over as many connections as
turn out best: nothing that makes these bodies can be faster. Every way has a process and a new index of its own;
rounds go over all of them in turn, so that what else the machine does falls on all alike. A load is timed from its
beginning until everything is searchable; figures are medians, ratios medians of the ratios within a round. Documents
have 120 tokens of a word-piece vocabulary, drawn as words are (by Zipf's law), with log-normal weights.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SHARED = Path(os.environ.get("BRIDGE_SHARED", ROOT.parent / "shared"))
TOKENS, CHUNK = 120, 500
INDEX = "benchmark-ingest"
WAYS = {
    "raw": "ready-made bodies, replayed",
    "ready": "bridge ingest, a file of the engine form",
    "bridge": "bridge ingest, a file of the jsonl form",
    "parallel_bulk": "the client's parallel_bulk, 4 threads",
    "streaming_bulk": "the client's streaming_bulk",
}


# --- what is sent -------------------------------------------------------------------------------------------------


def write_vectors(folder: Path, count: int) -> None:
    """Vector files as `bridge encode` writes them, in two forms."""
    import numpy as np

    from bridge.encode.base import TokenVocabulary
    from bridge.records import SparseVector
    from bridge.vectorfile import VectorMeta, line_of, write_meta

    random = np.random.default_rng(0)
    vocabulary = json.loads((SHARED / "data" / "bert-uncased" / "tokenizer.json").read_text())["model"]["vocab"]
    words = [word for word in sorted(vocabulary, key=vocabulary.get) if not word.startswith("[")]
    share = 1 / (np.arange(len(words)) + 10.0)
    share /= share.sum()
    listed = TokenVocabulary(tuple(words))
    with (folder / "vectors.jsonl").open("wb") as plain, (folder / "ready.jsonl").open("wb") as ready:
        for number in range(count):
            ids = np.sort(random.choice(len(words), TOKENS, replace=False, p=share)).astype(np.int32)
            vector = SparseVector(ids, random.lognormal(-1, 0.7, TOKENS).astype(np.float32), listed)
            plain.write(line_of("jsonl", f"d{number}", vector, ""))
            ready.write(line_of("engine", f"d{number}", vector, ""))
    for form, name in (("jsonl", "vectors.jsonl"), ("engine", "ready.jsonl")):
        meta = VectorMeta(
            form=form, model="benchmark", space="benchmark", document_encoder="benchmark-1", documents=count,
            query_encoders=("benchmark-1",), vocabulary=None, ceilings=(3.0, 3.0), text_fields=("title", "text"),
        )  # fmt: skip
        write_meta(folder / name, meta)


def index_of(encoder: Any) -> Any:
    """What an index of the encoder's vectors says of itself."""
    from bridge.indexmodel import IndexModel

    return IndexModel(
        encoder.space, encoder.fingerprint, (encoder.query_fingerprint,), "rank_features", "embedding",
        ("title", "text"),
    )  # fmt: skip


def send_to(keep: Callable[[bytes], object], source: Any, encoder: Any, product: Any, vectors: Any = None) -> None:
    """Give `keep` the `_bulk` bodies that the bridge would send of a source's documents."""
    from bridge.batches import Batches
    from bridge.bulk import BulkOptions, BulkSender

    def send(body: bytes) -> list[dict[str, Any]]:
        keep(body)
        heads = [json.loads(line) for line in body.split(b"\n")[0:-1:2]]
        return [{"create": {"_id": head["create"]["_id"], "status": 201}} for head in heads]

    run = Batches(source, encoder, index_of(encoder), product, lambda ids: {}, 10_000, None, vectors)
    options = BulkOptions(operation="create", in_flight=1, chunk_documents=CHUNK)
    for _ in BulkSender(send, run.body, lambda ids: {}, options).run(run.documents(0, fresh=True)):
        run.effects.popleft()


def into(folder: Path) -> Callable[[bytes], object]:
    """Keeps bodies there, a file each, in their order."""
    numbers = itertools.count()
    return lambda body: (folder / f"{next(numbers):06d}").write_bytes(body)


def write_bodies(vectors: Path, folder: Path, product: Any) -> None:
    """The `_bulk` bodies of a vector file, a file each."""
    from bridge.sources import SourceOptions, open_source
    from bridge.vectorfile import StoredEncoder, read_meta

    meta = read_meta(vectors)
    assert meta is not None
    with open_source([str(vectors)], SourceOptions(id_field="id")) as source:
        send_to(into(folder), source, StoredEncoder(meta), product, meta)


# --- one way, in a process of its own -----------------------------------------------------------------------------


def engine_at(url: str) -> Any:
    from bridge.engines import open_engine
    from bridge.settings import load_settings

    return open_engine(settings=load_settings(url=url).engine)


def new_index(engine: Any, vectors: Path) -> None:
    """An empty index for a vector file."""
    from bridge import register
    from bridge.vectorfile import StoredEncoder, read_meta

    if engine.get_index(INDEX):
        engine.delete_index(INDEX)
    meta = read_meta(vectors)
    assert meta is not None
    wanted = register.RegisterOptions(kind="rank_features", shards=1, replicas=0, text_fields=meta.text_fields)
    register.apply(engine, register.plan(engine, INDEX, StoredEncoder(meta), wanted))


def replay(
    url: str, bodies: Sequence[bytes | Path], connections: int, told: Callable[[bytes], object] = lambda body: None
) -> None:
    """Post them all; `told` is given each once it is in."""
    import urllib3

    pool = urllib3.connection_from_url(url, maxsize=connections)
    waiting: queue.SimpleQueue[bytes | Path] = queue.SimpleQueue()
    for body in bodies:
        waiting.put(body)
    failed: list[str] = []

    def work() -> None:
        while not failed:
            try:
                found = waiting.get_nowait()
            except queue.Empty:
                return
            body = found if isinstance(found, bytes) else found.read_bytes()
            path = f"/{INDEX}/_bulk?filter_path=errors"
            answer = pool.request("POST", path, body=body, headers={"content-type": "application/x-ndjson"})
            if answer.data != b'{"errors":false}':
                failed.append(answer.data[:300].decode(errors="replace"))
            else:
                told(body)

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(failed[0])


def actions(vectors: Path) -> Iterator[dict[str, Any]]:
    """What somebody would give to a client's helper."""
    with vectors.open("rb") as lines:
        for line in lines:
            one = json.loads(line)
            names = (token.replace(".", "\u2024") for token in one["tokens"])
            yield {
                "_op_type": "create", "_index": INDEX, "_id": one["id"],
                "_source": {"embedding": dict(zip(names, one["weights"], strict=True))},
            }  # fmt: skip


def helper(url: str, product: str, way: str, vectors: Path) -> None:
    """A load by a client's own helper."""
    if product == "opensearch":
        import opensearchpy as client
        from opensearchpy import helpers

        connected: Any = client.OpenSearch([url])
    else:
        import elasticsearch as client
        from elasticsearch import helpers

        connected = client.Elasticsearch([url])
    options: dict[str, Any] = {"chunk_size": CHUNK}
    if way == "parallel_bulk":
        options["thread_count"] = 4
    for _ in getattr(helpers, way)(connected, actions(vectors), **options):
        pass


def ingest_file(url: str, source: Path, model: str | None = None, threads: int | None = None) -> None:
    """A load by the bridge."""
    from bridge.ingest import IngestOptions, ingest
    from bridge.sources import SourceOptions, open_source
    from bridge.vectorfile import read_meta

    meta = read_meta(source)
    options = IngestOptions(
        vectors=meta, model=model, fresh=True, dead_letter=source.parent / "dead-letter.jsonl",
        run={"threads": threads} if model and threads else {},
    )  # fmt: skip
    with open_source([str(source)], SourceOptions(id_field="id")) as opened:
        summary = ingest(engine_at(url), INDEX, opened, options)
    if summary.dead:
        raise RuntimeError(f"{summary.dead} documents did not go in: {summary.first_dead}")


def encode_only(source: Path, model: str, threads: int | None) -> None:
    """What a load does before it sends, and no more."""
    from bridge import load_encoder
    from bridge.batches import Batches
    from bridge.collector import collecting_seldom
    from bridge.sources import SourceOptions, open_source

    encoder = load_encoder(model, threads=threads)
    with open_source([str(source)], SourceOptions(id_field="id")) as opened:
        run = Batches(opened, encoder, index_of(encoder), "opensearch", lambda ids: {}, 10_000)
        with collecting_seldom():
            for document in run.documents(0, fresh=True):
                run.effects.popleft()
                run.body(document)  # type: ignore[arg-type]


def peak_memory() -> int:
    """Bytes, of this program alone: what `getrusage` says begins with the process that started it."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def work(task: dict[str, Any]) -> None:
    """One load; prints its seconds and the processor's."""
    url, folder, way = task["url"], Path(task["folder"]), task["way"]
    source = folder / task.get("source", "ready.jsonl" if way == "ready" else "vectors.jsonl")
    os.environ["BRIDGE_DATA_DIR"] = str(folder / "data")
    engine = engine_at(url)
    product = engine.info().product
    if way != "encode":
        if task.get("model") and engine.get_index(INDEX):
            engine.delete_index(INDEX)
        if not task.get("model"):
            new_index(engine, source)
    bodies = [path.read_bytes() for path in sorted((folder / "bodies").iterdir())] if way == "raw" else []
    if way == "raw":
        bodies = bodies[: task.get("bodies")]
        engine.put_settings(INDEX, {"index.refresh_interval": "-1"})
    spent, started = time.process_time(), time.perf_counter()
    ways: dict[str, Callable[[], None]] = {
        "raw": lambda: replay(url, bodies, task["connections"]),
        "ready": lambda: ingest_file(url, source),
        "bridge": lambda: ingest_file(url, source, task.get("model"), task.get("threads")),
        "encode": lambda: encode_only(source, task["model"], task.get("threads")),
    }
    ways.get(way, lambda: helper(url, product, way, source))()
    if way != "encode":
        engine.refresh(INDEX)
    seconds, spent = time.perf_counter() - started, time.process_time() - spent
    count = 0
    if way != "encode":
        count = engine.count(INDEX)
        engine.delete_index(INDEX)
    print(json.dumps({"seconds": seconds, "cpu": spent, "count": count, "peak": peak_memory()}))


def load(**task: Any) -> dict[str, Any]:
    """Run `work` in a process."""
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(task)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{task['way']}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- all of them --------------------------------------------------------------------------------------------------


def best_connections(url: str, folder: Path, bodies: int) -> int:
    """How many connections a replay is fastest over."""
    took = {}
    for connections in (1, 2, 3, 4, 6, 8):
        runs = [load(url=url, folder=str(folder), way="raw", connections=connections, bodies=bodies) for _ in range(2)]
        took[connections] = min(run["seconds"] for run in runs)
    print("raw replay, seconds by connections:", {key: round(value, 2) for key, value in took.items()})
    return min(took, key=lambda connections: took[connections])


def compare(url: str, product: str, count: int, rounds: int, names: list[str]) -> None:
    """All ways, in turn."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        (folder / "bodies").mkdir()
        write_vectors(folder, count)
        write_bodies(folder / "vectors.jsonl", folder / "bodies", product)
        connections = best_connections(url, folder, max(1, min(count // CHUNK, 12)))
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(rounds):
            # Forwards and backwards, so that none is always the one after a certain other.
            for name in names if number % 2 == 0 else reversed(names):
                one = load(url=url, folder=home, way=name, connections=connections)
                if one["count"] != count:
                    raise RuntimeError(f"{name}: {one['count']} of {count} documents are there")
                found[name].append(one)
    print(f"\n{product}: {count:,} documents of {TOKENS} tokens, {rounds} rounds, {connections} connections for the raw"
          " replay\n\n| | documents/s | of raw replay | lowest, highest | client µs a document | peak memory |\n"
          "| --- | ---: | ---: | ---: | ---: | ---: |")  # fmt: skip
    for name, runs in found.items():
        shares = [raw["seconds"] / run["seconds"] for raw, run in zip(found["raw"], runs, strict=True)]
        middle = statistics.median(run["seconds"] for run in runs)
        cpu = statistics.median(run["cpu"] for run in runs) / count * 1e6
        peak = max(run["peak"] for run in runs) / 1e6
        print(f"| {WAYS[name]} | {count / middle:,.0f} | {statistics.median(shares):.3f} "
              f"| {min(shares):.3f}, {max(shares):.3f} | {cpu:.0f} | {peak:.0f} MB |")  # fmt: skip


def with_encoder(url: str, model: str, count: int, rounds: int, threads: int | None) -> None:
    """Text through an encoder into the engine, against the slower of the two halves alone."""
    corpus = SHARED / "data" / "corpora" / "msdocs100k" / "corpus.jsonl.gz"
    with tempfile.TemporaryDirectory() as home, gzip.open(corpus, "rt", encoding="utf-8") as lines:
        folder = Path(home)
        with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
            for line in itertools.islice(lines, count):
                one = json.loads(line)
                file.write(json.dumps({"id": one["_id"], "title": one.get("title", ""), "text": one["text"]}) + "\n")
        encode = [sys.executable, "-m", "bridge", "-q", "encode", str(folder / "texts.jsonl"), "-o",
                  str(folder / "vectors.jsonl"), "--model", model, "--id-field", "id"]  # fmt: skip
        subprocess.run(encode, check=True, cwd=ROOT)
        ratios, table = [], []
        more = {"url": url, "folder": home, "threads": threads}
        for _ in range(rounds):
            alone = load(**more, way="encode", source="texts.jsonl", model=model)["seconds"]
            bulk = load(**more, way="bridge")["seconds"]
            both = load(**more, way="bridge", source="texts.jsonl", model=model)["seconds"]
            ratios.append(both / max(alone, bulk))
            table.append((alone, bulk, both))
    alone, bulk, both = (statistics.median(column) for column in zip(*table, strict=True))
    print(f"\n{count:,} texts with {model} in front, {rounds} rounds: encode alone {alone:.2f} s, bulk alone "
          f"{bulk:.2f} s, together {both:.2f} s: {statistics.median(ratios):.3f} × the slower one "
          f"({min(ratios):.3f} to {max(ratios):.3f})")  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--documents", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--encode", metavar="MODEL", help="only this: a model's folder or id, in front of the engine")
    parser.add_argument("--threads", type=int, help="of the encoder, where its runtime takes that")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if not (SHARED / "data").is_dir():
        sys.exit(f"the shared data is not at {SHARED} (set BRIDGE_SHARED)")
    from bridge.resolve import connect
    from bridge.settings import load_settings

    with connect(load_settings(url=options.url), lambda line: print(line, file=sys.stderr)) as engine:
        url, product = engine.url, engine.info().product
    count, rounds = (2000, 1) if options.quick else (options.documents, options.rounds)
    if options.encode:
        with_encoder(url, options.encode, count, rounds, options.threads)
        return
    names = ["raw", *(name for name in WAYS if name in options.ways and name != "raw")]
    compare(url, product, count, rounds, names)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
    else:
        main()
