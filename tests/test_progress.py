"""What a user sees of a load while it runs."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from itertools import repeat
from pathlib import Path

import pytest

from bridge.cli.progress import Speed, lines
from bridge.engines import Engine
from bridge.records import Effort, Progress
from tests.faults.proxy import fault_proxy

LINE = re.compile(
    r"ingest: [\d,]+ documents, \d+ % of the source, [\d,.]+/s, \d+:\d\d:\d\d left, encoding [\d.]+ s, "
    r"engine [\d.]+ s \((encoding|the engine) is the limit\), [\d,]+ sent again, [\d,]+ queued, \d requests under way"
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def progress(documents: int, read: int, encode: float, engine: float, total: int | None = 1000) -> Progress:
    return Progress("ingest", documents, read, total, Effort(encode, engine, 3, 40, 2))


def test_a_rate_the_time_left_and_what_is_the_limit() -> None:
    clock = Clock()
    speed = Speed(clock)
    assert speed.add(progress(0, 0, 0.0, 0.0)).startswith("encoding 0.0 s, engine 0.0 s, 3 sent again")
    clock.now += 4
    said = speed.add(progress(200, 500, 1.0, 2.5))
    # 200 documents are half of the bytes, so as many are left.
    assert said == (
        "50/s, 0:00:04 left, encoding 1.0 s, engine 2.5 s (the engine is the limit), 3 sent again, 40 queued, "
        "2 requests under way"
    )
    clock.now += 12
    said = speed.add(progress(224, 560, 12.0, 2.6))
    # What is older than the window counts no longer.
    assert said.startswith("2.0/s, 0:01:28 left, encoding 12.0 s, engine 2.6 s (encoding is the limit)")


def test_a_source_of_unknown_length_and_another_stage() -> None:
    clock = Clock()
    speed = Speed(clock)
    speed.add(Progress("fit", 5000, 10, None))
    clock.now += 1
    assert speed.add(Progress("fit", 6000, 20, None)) == "1,000/s"
    clock.now += 1
    assert "/s" not in speed.add(progress(0, 0, 0.0, 0.0))


def test_lines_come_every_few_seconds() -> None:
    clock = Clock()
    said: list[str] = []
    report = lines(said.append, 5, clock)
    report(progress(0, 0, 0.0, 0.0))
    clock.now += 2
    report(progress(100, 100, 1.0, 0.5))
    assert said == []
    clock.now += 4
    report(progress(400, 500, 2.0, 0.5))
    (line,) = said
    assert line.startswith("ingest: 400 documents, 50 % of the source, 67/s, 0:00:06 left, encoding 2.0 s")
    assert LINE.fullmatch(line)


# --- a real load --------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "bridge"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    rows = (f'{{"_id": "{number}", "text": "document {number} of the moon and the sea"}}\n' for number in range(9000))
    path.write_text("".join(rows))
    return path


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "160", "TERM": "xterm"}


def test_a_load_says_a_line_now_and_then(engine: Engine, index: str, opensearch_url: str, corpus: Path) -> None:
    # Slow answers, so that no machine is done before the first line is due.
    with fault_proxy(opensearch_url, repeat("latency")) as slow:
        words = [*COMMAND, "--url", slow.url, "ingest", index, str(corpus), "--chunk-documents", "90"]
        done = subprocess.run(words, env=environment(), cwd=corpus.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("ingest: ")]
    assert said
    assert all(LINE.fullmatch(line) for line in said), said


def test_a_load_on_a_terminal_is_watched_live(engine: Engine, index: str, opensearch_url: str, corpus: Path) -> None:
    ours, theirs = pty.openpty()
    shown = bytearray()

    def listen() -> None:
        # The terminal is gone when the process is: then reading fails.
        try:
            while chunk := os.read(ours, 65536):
                shown.extend(chunk)
        except OSError:
            pass

    words = [*COMMAND, "--url", opensearch_url, "ingest", index, str(corpus), "--chunk-documents", "20"]
    listener = threading.Thread(target=listen)
    with subprocess.Popen(
        words, env=environment(), cwd=corpus.parent, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        listener.start()
        out = process.communicate(timeout=120)[0]
    listener.join(10)
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"ingest .* \d+% .*documents", text), text
    assert re.search(r"[\d,.]+/s, .*encoding [\d.]+ s, engine [\d.]+ s \((encoding|the engine) is the limit\)", text), (
        text
    )
    assert "requests under way" in text
    assert b"9,000 indexed" in out
