"""What the daemon costs: `/v1/rewrite` beside an empty Starlette endpoint, and batches of many clients' texts.

    python benchmarks/serve.py                         two minutes on two cores
    python benchmarks/serve.py --seconds 1 --rounds 2  does it run
    python benchmarks/serve.py --model FOLDER          with a neural encoder: dynamic batching beside one by one

Everything is on the loopback address, and bounded in connections and time. The load comes from wrk where that is
installed (apt install wrk), over connections that are kept open, each with one request under way; otherwise from a
client here, which may be slower than what it asks. The empty endpoint is a Route of Starlette that answers
JSONResponse({}) and reads no body, on uvicorn with the daemon's settings and without an access log. It gets the same
requests, 5,000 distinct questions. All servers run at the same time and are asked in turn, so that all meet the same
machine. Then the daemon is asked at half of the rate that it has reached; p50 and p99 are of that. For this
each of wrk's 64 connections waits at random between an answer and the next request. Its clock counts whole
milliseconds, so requests come several at once; the client here spreads them evenly, but is itself busy for most of the
time at such rates, and what waits in it counts, too.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import shutil
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
PACED = 64
"""Connections that wait between requests."""

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
config = uvicorn.Config(
    Starlette(routes=[Route("/", empty, methods=["POST"])]), log_level="warning", access_log=False,
    server_header=False, date_header=False, proxy_headers=False,
)
uvicorn.Server(config).run(sockets=[found])
"""

LUA = """
local requests, place, longest = {}, 0, 0
function init(given)
  longest = tonumber(given[3])
  local headers = {["content-type"] = "application/json", ["host"] = given[2]}
  for line in io.lines(given[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, line)
  end
end
function request()
  place = place % #requests + 1
  return requests[place]
end
if PACED then
  function delay() return math.random(0, longest) end
end
function done(summary, latency)
  print(string.format("p50 %d p99 %d", latency:percentile(50), latency:percentile(99)))
end
"""


@contextmanager
def running(command: list[str], folder: Path, says: str = "serving at ") -> Iterator[str]:
    """A process that says on stderr where it serves; that URL."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENSEARCH_URL": "http://127.0.0.1:1"}
    # Its log goes into a file, as a service's does: a pipe that nobody reads would hold it up.
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, cwd=folder, env=environment, stderr=log) as process,
    ):
        deadline = time.monotonic() + 60
        url = None
        while url is None:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
            log.seek(0)
            url = next((line.removeprefix(says).split()[0] for line in log if line.startswith(says)), None)
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
    _, said, rest = head.lower().partition(b"content-length:")
    if said:
        await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
    else:
        # In pieces, as newer Elasticsearch answers.
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
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


def asked(
    url: str, bodies: list[dict[str, object]], seconds: float, folder: Path, rate: float | None = None
) -> tuple[float, float, float, int]:
    """Requests a second; p50 and p99 in milliseconds; how many were not answered 200.

    Args:
        rate: how many requests a second come, or nearly; as many as are answered by default.
    """
    if shutil.which("wrk"):
        return wrk(url, bodies, seconds, folder, rate)
    requests = [request_of(url, urlsplit(url).path, body) for body in bodies]
    reached, took, failed = asyncio.run(load(url, requests, seconds, rate=rate))
    p50, p99 = (statistics.quantiles(took, n=100)[place] for place in (49, 98))
    return reached, p50, p99, failed


def wrk(
    url: str, bodies: list[dict[str, object]], seconds: float, folder: Path, rate: float | None
) -> tuple[float, float, float, int]:
    """The same, by wrk."""
    connections, longest = CONNECTIONS, 0
    if rate:
        # Milliseconds between an answer and the next request; between two requests lies the answer, too.
        connections, longest = PACED, max(1, round(2 * (PACED / rate * 1e3 - 0.5)))
    (folder / "load.lua").write_text(LUA.replace("PACED", "true" if rate else "false"))
    (folder / "bodies.jsonl").write_text("".join(json.dumps(body) + "\n" for body in bodies))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", "load.lua", url, "--", "bodies.jsonl"]
    said = subprocess.run(
        [*command, urlsplit(url).netloc, str(longest)], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
    failed += sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", said)))
    ((p50, p99),) = re.findall(r"p50 (\d+) p99 (\d+)", said)
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0]), int(p50) / 1e3, int(p99) / 1e3, failed


def rewriting(seconds: int, rounds: int, folder: Path) -> None:
    bodies: list[dict[str, object]] = [{"model": "bert", "text": text} for text in islice(questions(), 5000)]
    serve = [sys.executable, "-m", "bridge", "serve", "--port", "0"]
    homes = [folder / name for name in ("with-log", "without-log")]
    for home in homes:
        home.mkdir()
        settings = f'[serve]\naccess_log = {str(home == homes[0]).lower()}\ndata = "{home}"\n'
        (home / "bridge.toml").write_text(f'{settings}[serve.models]\nbert = "{MODEL}"\n')
    with (
        running([sys.executable, "-c", EMPTY], folder) as empty,
        running(serve, homes[0]) as daemon,
        running(serve, homes[1]) as silent,
    ):
        servers = [
            ("empty Starlette endpoint", f"{empty}/"),
            ("/v1/rewrite", f"{daemon}/v1/rewrite"),
            ("/v1/rewrite, no access log", f"{silent}/v1/rewrite"),
        ]
        for _, url in servers:
            asked(url, bodies, min(1, seconds), folder)
        rates: dict[str, list[float]] = {name: [] for name, _ in servers}
        errors = 0
        for number in range(rounds):
            for name, url in servers if number % 2 else reversed(servers):
                rate, _, _, failed = asked(url, bodies, seconds, folder)
                rates[name].append(rate)
                errors += failed
        client = "wrk" if shutil.which("wrk") else "the client here"
        print(f"{CONNECTIONS} connections, {rounds} rounds of {seconds} s, {client}\n\n"
              "| | requests/s | of the empty endpoint |\n| --- | ---: | ---: |")  # fmt: skip
        for name, found in rates.items():
            ratio = statistics.median(a / b for a, b in zip(found, rates[servers[0][0]], strict=True))
            print(f"| {name} | {statistics.median(found):,.0f} | {ratio:.2f} |")
        half = statistics.median(rates["/v1/rewrite"]) / 2
        print(f"\n{errors} errors\n\n| asked {half:,.0f} times a second | requests/s | p50 ms | p99 ms | p99 / p50 |\n"
              "| --- | ---: | ---: | ---: | ---: |")  # fmt: skip
        for name, url in servers[:2]:
            reached, p50, p99, failed = asked(url, bodies, seconds * rounds / 2, folder, half)
            wrong = f" {failed} errors" if failed else ""
            print(f"| {name} | {reached:,.0f} | {p50:.2f} | {p99:.2f} | {p99 / p50:.1f} |{wrong}")


def batching(model: str, seconds: int, rounds: int, folder: Path) -> None:
    (folder / "bridge.toml").write_text(
        f'[serve]\ndata = "{folder / "serve-neural"}"\n[serve.models]\nneural = "{model}"\n'
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
    # What the client's own collector takes would be taken for the servers' latency.
    gc.disable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="of a round")
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
