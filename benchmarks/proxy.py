"""What `bridge proxy` costs: requests that only pass through it, beside the same ones asked directly; and a `match`.

    python benchmarks/proxy.py                  about a minute on two cores, on the embedded OpenSearch node
    python benchmarks/proxy.py --seconds 1      does it run

The client is bytes on a connection that is kept open: it costs next to nothing, so that a ratio says all that the proxy
adds. Each request is asked directly and through the proxy in turn, one at a time, on two connections that live as long
as the run. An application's own client takes time of its own, on both ways: its ratio is lower (opensearch-py, below).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))

from elasticsearch import Elasticsearch
from opensearchpy import OpenSearch

from benchmarks.encode import ROOT
from benchmarks.serve import answer_of, running
from bridge.cli import run
from bridge.engines import Engine
from bridge.resolve import connect
from bridge.rewrite import QueryRewriter
from bridge.settings import load_settings

CORPUS = ROOT / "bridge" / "demo_data"
PLAIN, BRIDGED = "proxy-benchmark-plain", "proxy-benchmark-bridged"
QUESTION = "why does my bread turn out heavy"
WARM = 200


def request_of(url: str, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """A whole request, as bytes."""
    head = f"{method} {path} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n"
    if body:
        head += f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def documents() -> list[dict[str, Any]]:
    with (CORPUS / "corpus.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def bulk_of(index: str, count: int) -> bytes:
    lines: list[dict[str, Any]] = []
    for document in documents()[:count]:
        lines += ({"index": {"_index": index, "_id": document["_id"]}}, {"text": document["text"]})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def in_turn(ways: list[tuple[str, bytes]], seconds: float) -> list[list[float]]:
    """The latencies of each way (URL, request) in milliseconds; they are asked in turn, one request at a time."""
    ends = [await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port) for url, _ in ways]
    took: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < WARM or time.perf_counter() < end:
        places = range(len(ways)) if rounds % 2 else reversed(range(len(ways)))
        for place in places:
            reader, writer = ends[place]
            started = time.perf_counter()
            writer.write(ways[place][1])
            status = await answer_of(reader)
            elapsed = (time.perf_counter() - started) * 1e3
            if status != 200:
                sys.exit(f"{ways[place][0]} answered {status}")
            if rounds >= WARM:
                took[place].append(elapsed)
        rounds += 1
        if rounds == WARM:
            end = time.perf_counter() + seconds
    for _, writer in ends:
        writer.close()
    return took


def called(ways: list[Callable[[], Any]], seconds: float) -> list[list[float]]:
    """The same of calls."""
    took: list[list[float]] = [[] for _ in ways]
    for rounds in range(WARM):
        ways[rounds % len(ways)]()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for place, way in enumerate(ways):
            started = time.perf_counter()
            way()
            took[place].append((time.perf_counter() - started) * 1e3)
    return took


def row(name: str, direct: list[float], through: list[float]) -> None:
    (a50, a99), (b50, b99) = ([statistics.quantiles(one, n=100)[place] for place in (49, 98)]
                              for one in (direct, through))  # fmt: skip
    print(f"| {name} | {a50:.2f} | {b50:.2f} | {b50 / a50:.2f} | {a99:.2f} | {b99:.2f} | {b99 / a99:.2f} |", flush=True)


@contextmanager
def indices(engine: Engine, folder: Path) -> Iterator[None]:
    """The two indices, the same documents in both, deleted at the end."""
    for name in (PLAIN, BRIDGED):
        if engine.get_index(name):
            engine.delete_index(name)
    model = str(folder / "model")
    url = engine.url
    if run(["fit", str(CORPUS), "-o", model]) or run(["--url", url, "ingest", BRIDGED, str(CORPUS), "--model", model]):
        sys.exit("the indices could not be made")
    engine.create_index(PLAIN, {"mappings": {"properties": {"text": {"type": "text"}}}})
    try:
        engine.bulk(PLAIN, bulk_of(PLAIN, 1000), refresh=True)
        yield
    finally:
        engine.delete_index(PLAIN)
        engine.delete_index(BRIDGED)


def measure(engine: Engine, proxy: str, seconds: float) -> None:
    direct = engine.url
    match = json.dumps({"query": {"match": {"text": QUESTION}}}).encode()
    first = documents()[0]["_id"]
    print("| | direct p50 ms | proxy p50 ms | ratio | direct p99 ms | proxy p99 ms | ratio |\n"
          "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")  # fmt: skip
    for name, method, path, body, kind in (
        ("get a document", "GET", f"/{PLAIN}/_doc/{first}", b"", ""),
        ("search, ten hits", "POST", f"/{PLAIN}/_search", match, "application/json"),
        ("bulk, 100 documents", "POST", f"/{PLAIN}/_bulk", bulk_of(PLAIN, 100), "application/x-ndjson"),
    ):
        ways = [(url, request_of(url, method, path, body, kind)) for url in (direct, proxy)]
        row(name, *asyncio.run(in_turn(ways, seconds)))
    client_of: Any = OpenSearch
    named = "opensearch-py"
    if engine.product == "elasticsearch":
        client_of, named = Elasticsearch, "elasticsearch-py"
    with client_of(direct) as here, client_of(proxy) as there:
        ways_of = [lambda client=client: client.get(index=PLAIN, id=first) for client in (here, there)]
        row(f"{named}: get a document", *called(ways_of, seconds))
        asked = {"query": {"match": {"text": QUESTION}}}
        ways_of = [lambda client=client: client.search(index=PLAIN, body=asked) for client in (here, there)]
        row(f"{named}: search, ten hits", *called(ways_of, seconds))
    # The same sparse query, sent ready-made: what is left is what the proxy does.
    ready = QueryRewriter.for_index(engine, BRIDGED).rewrite(QUESTION)
    ways = [(direct, request_of(direct, "POST", f"/{BRIDGED}/_search", json.dumps(ready).encode())),
            (proxy, request_of(proxy, "POST", f"/{BRIDGED}/_search", match))]  # fmt: skip
    row("`match` on a bridged index; direct: its sparse query", *asyncio.run(in_turn(ways, seconds)))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each row")
    parser.add_argument("--url", help="an engine; the embedded OpenSearch node by default")
    options = parser.parse_args()
    with connect(load_settings(url=options.url), print) as engine, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "bridge", "proxy", "--upstream", engine.url, "--port", "0", "--index", BRIDGED]
        with indices(engine, folder), running(command, folder, says="passing ") as proxy:
            measure(engine, proxy, options.seconds)


if __name__ == "__main__":
    main()
