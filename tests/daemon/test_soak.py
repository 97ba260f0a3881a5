"""The daemon under clients that behave, that vanish, that send slowly and that send rubbish: it keeps nothing of them.

Forty seconds; ten minutes with BRIDGE_TORTURE (`make torture`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.daemon.running import serving

SECONDS = 600.0 if os.environ.get("BRIDGE_TORTURE") else 40.0
PATIENCE = 8.0
"""Seconds that a request may take, and a head to come."""
LET_GO = PATIENCE * 3
"""Seconds after which a client that does not behave has been let go for certain, on a busy machine too."""
BODY = 200_000
FLAT = 0.05 if SECONDS > 60 else 0.15
"""How much memory may change after the warm-up, either way; that is not quite over after a few seconds."""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process holds is read off /proc")


@dataclass
class Soak:
    """What clients know of the daemon, and what became of them."""

    host: str
    port: int
    index: str
    until: float
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.until and len(self.wrong) < 10

    def expect(self, so: bool, says: str) -> None:
        if not so:
            self.wrong.append(says)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, limit=2**22)

    def head(self, method: str, path: str, length: int | str | None = None, *more: str) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"host: {self.host}:{self.port}", "content-type: application/json", *more]
        if length is not None:
            lines.append(f"content-length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def request(self, method: str, path: str, body: Any = None, *more: str) -> bytes:
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.head(method, path, len(raw), *more) + raw


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer: status, headers, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drip: bytes = b"") -> bool:
    """Whether the daemon closes the connection in time, while `drip` is sent to it again and again."""
    deadline = time.monotonic() + LET_GO
    with suppress(ConnectionError):
        while time.monotonic() < deadline:
            if drip:
                writer.write(drip)
                await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    if not await reader.read(65_536):
                        return True
        return False
    return True


# --- clients that behave

WORDS = ("bread", "oven", "tomato", "sea", "winter", "harbour", "paper", "engine", "river", "glass", "music", "stone")


async def polite(soak: Soak, chance: random.Random, numbers: Iterator[int]) -> None:
    """Asks all sorts of things over connections that it keeps for a while; every answer is as it should be."""

    def text() -> str:
        return " ".join(chance.choices(WORDS, k=6)) + f" {chance.randrange(2_000)}"

    def documents() -> list[dict[str, str]]:
        return [{"_id": str(next(numbers) % 500), "text": text()} for _ in range(5)]

    index = soak.index
    asked: list[tuple[int, Callable[[], tuple[str, str, Any]], int]] = [
        (30, lambda: ("POST", "/v1/rewrite", {"index": index, "text": text()}), 200),
        (30, lambda: ("POST", "/v1/rewrite", {"model": "own", "text": text(), "size": chance.randrange(50)}), 200),
        (10, lambda: ("POST", "/v1/search", {"index": index, "text": text()}), 200),
        (10, lambda: ("POST", "/v1/encode", {"model": "own", "texts": [text(), text()], "as": "query"}), 200),
        (5, lambda: ("POST", "/v1/encode", {"index": index, "texts": [text()]}), 200),
        (3, lambda: ("GET", "/v1/indexes", None), 200),
        (3, lambda: ("GET", f"/v1/indexes/{index}", None), 200),
        (1, lambda: ("POST", "/v1/ingest", {"index": index, "documents": documents()}), 202),
        (3, lambda: ("GET", "/v1/jobs?size=20", None), 200),
        (3, lambda: ("GET", "/metrics", None), 200),
        (2, lambda: ("GET", "/health/ready", None), 200),
        (2, lambda: ("POST", "/v1/search", {"index": f"gone-{chance.randrange(10**9)}", "text": text()}), 404),
        (2, lambda: ("GET", f"/v1/{chance.randrange(10**9)}", None), 404),
        (2, lambda: ("POST", "/v1/rewrite", b'{"text": '), 400),
        (2, lambda: ("POST", "/v1/rewrite", {"model": "own", "text": "x", f"f{chance.randrange(10**9)}": 1}), 422),
        (2, lambda: ("POST", "/v1/rewrite", {"model": f"m{chance.randrange(10**9)}", "text": "x"}), 404),
    ]
    weights = [one[0] for one in asked]
    while soak.goes_on:
        reader, writer = await soak.open()
        for _ in range(chance.randrange(1, 100)):
            ((_, make, status),) = chance.choices(asked, weights)
            method, path, body = make()
            writer.write(soak.request(method, path, body))
            found, headers, content = await answer_of(reader)
            soak.expect(found == status, f"{method} {path} {body}: {found} {content[:300]!r}")
            soak.expect("x-request-id" in headers or found == 404, f"{path}: no request id")
            soak.ended[f"answered {found}"] += 1
            await asyncio.sleep(0.002)
            if not soak.goes_on:
                break
        writer.close()


# --- clients that do not; each does its worst once, and says how the daemon is to take it


async def vanishes_in_a_request(soak: Soak, chance: random.Random) -> None:
    _, writer = await soak.open()
    whole = soak.request("POST", "/v1/search", {"index": soak.index, "text": "bread " * 50})
    writer.write(whole[: chance.randrange(len(whole))])
    await writer.drain()
    writer.transport.abort()


async def vanishes_in_an_answer(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    encode = {"model": "own", "texts": ["bread " * 200] * 100, "as": "query"}
    asked = [("/v1/search", {"index": soak.index, "text": "bread"}), ("/v1/encode", encode)]
    writer.write(soak.request("POST", *chance.choice(asked)))
    await writer.drain()
    if chance.random() < 0.5:
        await reader.read(10)
    writer.transport.abort()


async def sends_nothing(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    soak.expect(await closed(reader, writer), "a client that sends nothing is kept")
    writer.close()


async def sends_a_head_slowly(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    writer.write(b"POST /v1/rewrite HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
    soak.expect(await closed(reader, writer, b"a"), "a slow head is waited for")
    writer.close()


async def sends_a_body_slowly(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    path = chance.choice(["/v1/rewrite", "/v1/ingest", "/v1/nothing"])
    writer.write(soak.head("POST", path, 5_000) + b"{")
    soak.expect(await closed(reader, writer, b" "), f"a slow body for {path} is waited for")
    writer.close()


async def sends_a_trailer_slowly(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    writer.write(soak.head("POST", "/v1/rewrite", None, "transfer-encoding: chunked") + b"2\r\n{}\r\n0\r\nx-slow: ")
    soak.expect(await closed(reader, writer, b"a"), "a slow trailer is waited for")
    writer.close()


async def sends_lines_after_an_answer(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    writer.write(soak.request("GET", "/health/live"))
    soak.expect((await answer_of(reader))[0] == 200, "the daemon does not live")
    soak.expect(await closed(reader, writer, b"\r\n"), "empty lines keep a connection")
    writer.close()


async def sends_rubbish(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    writer.write(chance.randbytes(chance.randrange(1, 3_000)))
    soak.expect(await closed(reader, writer), "rubbish is waited for")
    writer.close()


async def sends_a_head_without_end(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    start = chance.choice([b"GET /" + b"a" * 1000, b"GET / HTTP/1.1\r\nx-long: ", b"GET / HTTP/1.1\r\n"])
    drip = b"a" * 30_000 if not start.endswith(b"\n") else b"x-more: b\r\n" * 3_000
    writer.write(start)
    began = time.monotonic()
    soak.expect(await closed(reader, writer, drip), "a head without end is taken")
    soak.expect(time.monotonic() - began < PATIENCE * 2, "a head without end is taken for long")
    writer.close()


async def sends_wrong_lengths(soak: Soak, chance: random.Random) -> None:
    good = json.dumps({"model": "own", "text": "bread"}).encode()
    for raw, statuses in (
        (soak.head("POST", "/v1/rewrite", "abc") + good, {400}),
        (soak.head("POST", "/v1/rewrite", "-5") + good, {400}),
        (soak.head("POST", "/v1/rewrite", "9" * 30) + good, {400}),
        (soak.head("POST", "/v1/rewrite", len(good) - 3) + good, {400}),
        (soak.head("POST", "/v1/rewrite", len(good), "content-length: 3") + good, {400}),
        (soak.head("POST", "/v1/rewrite", len(good), "transfer-encoding: chunked") + good, {400}),
        (soak.head("POST", "/v1/rewrite", None, "transfer-encoding: chunked") + b"zz\r\n" + good, {400}),
        (soak.request("POST", "/v1/rewrite", good, *(f"x-{n}: 1" for n in range(400))), {400}),
        (soak.head("POST", "/v1/rewrite", BODY + 1), {413}),
        (soak.head("POST", "/v1/ingest", 10**15), {413}),
    ):
        reader, writer = await soak.open()
        writer.write(raw)
        found = (await answer_of(reader))[0]
        soak.expect(found in statuses, f"{raw[:200]!r}: {found}")
        writer.close()


async def sends_too_much(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    writer.write(soak.head("POST", "/v1/ingest", None, "transfer-encoding: chunked"))
    found = None
    for _ in range(200):
        writer.write(b"%x\r\n%b\r\n" % (20_000, b"a" * 20_000))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                found = (await answer_of(reader))[0]
                break
    soak.expect(found == 413, f"too much of a body: {found}")
    soak.expect(await closed(reader, writer, b"a"), "the rest of a body that is too large is taken for ever")
    writer.close()


async def sends_many_at_once(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    bodies = [{"model": "own", "text": f"bread {n}"} if n % 3 else {"index": soak.index, "text": "bread"}
              for n in range(30)]  # fmt: skip
    paths = ["/v1/rewrite" if n % 3 else "/v1/search" for n in range(30)]
    writer.write(b"".join(
        soak.request("POST", path, body, f"x-request-id: {n}")
        for n, (path, body) in enumerate(zip(paths, bodies, strict=True))
    ))  # fmt: skip
    for number in range(30):
        status, headers, _ = await answer_of(reader)
        soak.expect((status, headers["x-request-id"]) == (200, str(number)), f"{number}: {status} {headers}")
    writer.close()


async def sends_far_too_many_at_once(soak: Soak, chance: random.Random) -> None:
    reader, writer = await soak.open()
    slow = soak.request("POST", "/v1/search", {"index": soak.index, "text": "bread"})
    writer.write(slow * 5_000)
    soak.expect(await closed(reader, writer), "any number of requests is taken before an answer")
    writer.close()


async def reads_nothing(soak: Soak, chance: random.Random) -> None:
    _, writer = await asyncio.open_connection(soak.host, soak.port, limit=1)
    deadline = time.monotonic() + LET_GO
    with suppress(ConnectionError):
        while time.monotonic() < deadline and not writer.transport.is_closing():
            writer.write(soak.request("GET", "/openapi.json") * 20)
            async with asyncio.timeout(LET_GO):
                await writer.drain()
            await asyncio.sleep(0.05)
    soak.expect(time.monotonic() < deadline, "answers that nobody reads are kept")
    writer.transport.abort()


RUDE: tuple[Callable[[Soak, random.Random], Awaitable[None]], ...] = (
    vanishes_in_a_request, vanishes_in_an_answer, sends_nothing, sends_a_head_slowly, sends_a_body_slowly,
    sends_a_trailer_slowly, sends_lines_after_an_answer, sends_rubbish, sends_a_head_without_end, sends_wrong_lengths,
    sends_too_much, sends_many_at_once, sends_far_too_many_at_once, reads_nothing,
)  # fmt: skip


async def rude(soak: Soak, does: Callable[[Soak, random.Random], Awaitable[None]], chance: random.Random) -> None:
    while soak.goes_on:
        # What the daemon does to such a client may reach it in the middle of anything.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await does(soak, chance)
            soak.ended[does.__name__] += 1
        await asyncio.sleep(0.05)


# --- what the daemon holds


def held(process: int) -> tuple[float, int]:
    """Megabytes in memory, and open descriptors."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (resident,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return resident / 1024, len(list(Path(f"/proc/{process}/fd").iterdir()))


async def watch(soak: Soak, process: int) -> list[tuple[float, int]]:
    samples = []
    while soak.goes_on:
        samples.append(held(process))
        await asyncio.sleep(0.25)
    return samples


async def run(soak: Soak, process: int) -> list[tuple[float, int]]:
    numbers = count()
    watching = asyncio.create_task(watch(soak, process))
    async with asyncio.TaskGroup() as group:
        for seed in range(4):
            group.create_task(polite(soak, random.Random(seed), numbers))
        for seed, does in enumerate(RUDE):
            group.create_task(rude(soak, does, random.Random(seed)))
    return await watching


def part(samples: Sequence[float], start: float, end: float) -> float:
    """The mean of the samples between two shares of the time."""
    return fmean(samples[int(len(samples) * start) : int(len(samples) * end)])


@pytest.mark.timeout(int(SECONDS) + 300)
def test_clients_of_all_sorts(
    bridge: Callable[..., tuple[int, str, str]], index: str, opensearch_url: str, tmp_path: Path
) -> None:
    corpus = Path(__file__).parents[2] / "bridge" / "demo_data"
    assert bridge("fit", str(corpus), "-o", "model")[0] == 0
    (tmp_path / "bridge.toml").write_text(
        f'[serve]\ndata = "{tmp_path / "serve"}"\n[serve.models]\nown = "{tmp_path / "model"}"\n'
        f'[[serve.indexes]]\nname = "{index}"\nmodel = "own"\n'
        f"[serve.limits]\nbody_bytes = {BODY}\nseconds = {PATIENCE}\n"
    )
    words = ("--url", opensearch_url, "serve", "--port", "0")
    with serving(tmp_path, *words) as (url, process, said), httpx.Client(base_url=url, timeout=60) as client:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        # A node that has just begun takes its time for the first questions; and what is kept of questions is full soon.
        for number in range(1_100):
            for asked in ({"index": index}, {"model": "own"}):
                client.post("/v1/rewrite", json=asked | {"text": f"{' '.join(WORDS[:6])} {number}"})
        for _ in range(3):
            assert client.post("/v1/search", json={"index": index, "text": "bread"}).status_code in (200, 504)
        soak = Soak(parts.hostname, parts.port, index, time.monotonic() + SECONDS)
        samples = asyncio.run(run(soak, process.pid))
        assert soak.wrong == []
        assert set(soak.ended) >= {does.__name__ for does in RUDE}, soak.ended
        memory, files = [one[0] for one in samples], [float(one[1]) for one in samples]
        print(f"{soak.ended}\nmemory {[round(part(memory, n / 6, (n + 1) / 6), 1) for n in range(6)]}, "
              f"files {[round(part(files, n / 6, (n + 1) / 6), 1) for n in range(6)]}")  # fmt: skip
        assert part(memory, 2 / 3, 1) == pytest.approx(part(memory, 1 / 6, 1 / 3), rel=FLAT)
        assert part(files, 2 / 3, 1) < part(files, 1 / 6, 1 / 3) + 8
        # It goes on as if nothing had been.
        assert client.get("/health/ready").json()["status"] == "ok"
        assert client.post("/v1/search", json={"index": index, "text": "bread"}).status_code == 200
        failed = [line for line in client.get("/metrics").text.splitlines() if 'status="5' in line]
        assert all('status="504"' in line for line in failed), failed
        # Only bodies that came too slowly were not answered in time.
        assert all('"ingest"' in line or '"rewrite"' in line for line in failed), failed
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not [line for line in said if "Traceback" in line or '"level":"error"' in line]
