"""What the daemon costs: `/v1/rewrite` beside an empty Starlette endpoint, and batches of many clients' texts.

    python benchmarks/serve.py                         about five minutes on two cores
    python benchmarks/serve.py --seconds 1 --rounds 2  does it run
    python benchmarks/serve.py --model FOLDER          with a neural encoder: dynamic batching beside one by one

Everything is on the loopback address, and bounded in connections and time. Requests come from connections that are
kept open, each with one request under way, sent and read as bytes: the client costs next to nothing and is the same for
both. The daemon and the empty endpoint run at the same time and are asked in turn, so that both meet the same machine.
Then the daemon is asked at half of the rate that it has reached, and the latencies of that are its p50 and p99.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.encode import ROOT, SHARED
from benchmarks.rewrite import questions

MODEL = SHARED / "data" / "bert-uncased"
CONNECTIONS = 16

EMPTY = """
import socket, sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def empty(request):
    return JSONResponse({})

found = socket.socket()
found.bind(("127.0.0.1", 0))
print(f"serving at http://127.0.0.1:{found.getsockname()[1]}", file=sys.stderr, flush=True)
config = uvicorn.Config(Starlette(routes=[Route("/", empty, methods=["POST"])]), log_level="warning", access_log=False)
uvicorn.Server(config).run(sockets=[found])
"""


@contextmanager
def running(command: list[str], folder: Path, says: str = "serving at ") -> Iterator[str]:
    """A process that says on stderr where it serves; that URL."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENSEARCH_URL": "http://127.0.0.1:1"}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        url = next(line.removeprefix(says).split()[0] for line in process.stderr if line.startswith(says))
        try:
            yield url
        finally:
            process.terminate()


def request_of(url: str, path: str, body: dict[str, object]) -> bytes:
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw


async def answer_of(reader: asyncio.StreamReader) -> int:
    """Reads one answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    await reader.readexactly(length)
    return int(head[9:12])


async def load(
    url: str, requests: list[bytes], seconds: float, *, connections: int = CONNECTIONS, rate: float | None = None
) -> tuple[float, list[float], int]:
    """Requests a second, the latency of each in milliseconds, and how many were not answered 200."""
    parts = urlsplit(url)
    took: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        pause = connections / rate if rate else 0.0
        # Spread over the pause, so that the connections do not ask all at once.
        due = time.perf_counter() + pause * number / connections
        place = number
        while (now := time.perf_counter()) < end:
            if rate:
                if due > now:
                    await asyncio.sleep(due - now)
                due += pause
            started = time.perf_counter()
            writer.write(requests[place % len(requests)])
            failed += await answer_of(reader) != 200
            took.append((time.perf_counter() - started) * 1e3)
            place += connections
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(connections)))
    return len(took) / (time.perf_counter() - started), took, failed


def rewriting(seconds: float, rounds: int, folder: Path) -> None:
    (folder / "bridge.toml").write_text(
        f'[serve]\nlog = "error"\ndata = "{folder / "serve"}"\n[serve.models]\nbert = "{MODEL}"\n'
    )
    texts = list(islice(questions(), 5000))
    with (
        running([sys.executable, "-m", "bridge", "serve", "--port", "0"], folder) as daemon,
        running([sys.executable, "-c", EMPTY], folder) as empty,
    ):
        asked = [request_of(daemon, "/v1/rewrite", {"model": "bert", "text": text}) for text in texts]
        plain = [request_of(empty, "/", {"model": "bert", "text": text}) for text in texts]
        for url, requests in ((daemon, asked), (empty, plain)):
            asyncio.run(load(url, requests, min(1.0, seconds)))
        rates: dict[str, list[float]] = {"empty Starlette endpoint": [], "/v1/rewrite": []}
        errors = 0
        for number in range(rounds):
            pair = [("empty Starlette endpoint", empty, plain), ("/v1/rewrite", daemon, asked)]
            for name, url, requests in pair if number % 2 else reversed(pair):
                rate, _, failed = asyncio.run(load(url, requests, seconds))
                rates[name].append(rate)
                errors += failed
        ratio = statistics.median(a / b for b, a in zip(*rates.values(), strict=True))
        print(f"{CONNECTIONS} connections, {rounds} rounds of {seconds:g} s\n\n| | requests/s |\n| --- | ---: |")
        for name, found in rates.items():
            print(f"| {name} | {statistics.median(found):,.0f} |")
        half = statistics.median(rates["/v1/rewrite"]) / 2
        _, took, failed = asyncio.run(load(daemon, asked, seconds * rounds / 2, rate=half))
        p50, p99 = (statistics.quantiles(took, n=100)[place] for place in (49, 98))
        print(f"\nratio {ratio:.2f}; {errors + failed} errors\nat half load ({half:,.0f} a second): p50 {p50:.2f} ms, "
              f"p99 {p99:.2f} ms ({p99 / p50:.1f} times)")  # fmt: skip


def batching(model: str, seconds: float, rounds: int, folder: Path) -> None:
    (folder / "bridge.toml").write_text(
        f'[serve]\nlog = "error"\ndata = "{folder / "serve-neural"}"\n[serve.models]\nneural = "{model}"\n'
    )
    words = " ".join(islice(questions(), 20)).split()
    with running([sys.executable, "-m", "bridge", "serve", "--port", "0"], folder) as url:
        print("\n| tokens, about | one client, texts/s | 32 clients, texts/s | ratio |\n| ---: | ---: | ---: | ---: |")
        for length in (8, 128):
            texts = [" ".join(words[place : place + length]) for place in range(len(words) - length)]
            bodies = ({"model": "neural", "texts": [text], "as": "query"} for text in texts)
            asked = [request_of(url, "/v1/encode", body) for body in bodies]
            asyncio.run(load(url, asked, min(1.0, seconds), connections=1))
            alone: list[float] = []
            together: list[float] = []
            for _ in range(rounds):
                alone.append(asyncio.run(load(url, asked, seconds, connections=1))[0])
                together.append(asyncio.run(load(url, asked, seconds, connections=32))[0])
            ratio = statistics.median(b / a for a, b in zip(alone, together, strict=True))
            print(f"| {length} | {statistics.median(alone):.1f} | {statistics.median(together):.1f} | {ratio:.2f} |")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", help="a neural encoder's folder or id: measure batching with it, too")
    options = parser.parse_args()
    if not MODEL.is_dir():
        sys.exit(f"the shared data is not at {SHARED} (set BRIDGE_SHARED)")
    with tempfile.TemporaryDirectory() as folder:
        rewriting(options.seconds, options.rounds, Path(folder))
        if options.model:
            batching(str(Path(options.model).resolve()), options.seconds, options.rounds, Path(folder))


if __name__ == "__main__":
    main()
