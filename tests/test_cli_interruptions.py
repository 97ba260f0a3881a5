"""What stops a run from outside: Ctrl-C, and a disk that fills up. Nothing is lost, and the same command goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.engines import Engine

Bridge = Callable[..., tuple[int, str, str]]
Fails = Callable[..., str]

COMMAND = [sys.executable, "-c", "from bridge.cli import main; main()"]


def corpus(path: Path, good: int, bad_every: int = 0, width: int = 0) -> int:
    """`good` documents, every `bad_every`-th followed by one without text; the number of the bad ones."""
    bad = 0
    with path.open("w", encoding="utf-8") as file:
        for number in range(good):
            file.write(json.dumps({"_id": str(number), "text": f"document {number} of the moon and the sea"}) + "\n")
            if bad_every and number % bad_every == 0:
                file.write(json.dumps({"_id": f"bad {number}", "body": "x" * width}) + "\n")
                bad += 1
    return bad


# --- Ctrl-C -----------------------------------------------------------------------------------------

DOCUMENTS = 8_000


def test_an_interrupted_ingest_goes_on(
    bridge: Bridge, index: str, engine: Engine, opensearch_url: str, tmp_path: Path, home: Path
):
    bad = corpus(tmp_path / "a.jsonl", DOCUMENTS, bad_every=500)
    # Small requests: it must last until it has a place to go on from, which is written every second.
    arguments = ["ingest", index, "a.jsonl", "--json"]
    words = [*COMMAND, "--url", opensearch_url, *arguments, "--chunk-documents", "5"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            settled = wait_for_progress(home / "data" / "checkpoints", process)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "bridge: interrupted"
    assert "the same command goes on there" in err
    engine.refresh(index)
    assert settled <= engine.count(index) + bad
    assert engine.count(index) < DOCUMENTS

    code, out, err = bridge(*arguments, url=opensearch_url)
    assert code == 3
    assert "going on with an interrupted run at document" in err
    summary = json.loads(out)
    assert summary["source"] == DOCUMENTS + bad
    assert summary["source"] == sum(summary[part] for part in ("indexed", "unchanged", "deleted", "dead"))
    assert summary["dead"] == bad
    assert engine.count(index) == DOCUMENTS
    letters = (tmp_path / f"{index}.dead-letter.jsonl").read_text().splitlines()
    assert len({json.loads(letter)["id"] for letter in letters}) == len(letters) == bad
    assert list((home / "data" / "checkpoints").iterdir()) == [], "a finished run leaves no checkpoint"


def wait_for_progress(folder: Path, process: subprocess.Popen[str]) -> int:
    """Until the checkpoint has moved; how many documents it says are settled."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be interrupted"
        for path in folder.glob("*.json"):
            if settled := json.loads(path.read_text())["position"]:
                return int(settled)
        time.sleep(0.02)
    raise AssertionError("the checkpoint does not move")


def test_ctrl_c_at_once(tmp_path: Path, opensearch_url: str):
    """Also before anything was begun there is a line and no traceback."""
    read, write = os.pipe()  # a source that never comes
    words = [*COMMAND, "--url", opensearch_url, "ingest", "test-none", "-"]
    with subprocess.Popen(words, cwd=tmp_path, stdin=read, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    os.close(read)
    os.close(write)
    assert (process.returncode, out) == (130, b"")
    assert err.splitlines()[-1] == b"bridge: interrupted"
    assert b"Traceback" not in err


# --- a full disk ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """A small file system of its own."""

    folder: Path

    def resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True)

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Disk]:
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """64 KiB of room. Needs root, and a system that lets it mount."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    with mounted(tmp_path / "disk", "64k") as disk:
        yield disk


def test_no_room_for_dead_letters(
    fails: Fails, bridge: Bridge, disk: Disk, index: str, engine: Engine, opensearch_url: str, tmp_path: Path
):
    bad = corpus(tmp_path / "a.jsonl", 400, bad_every=4, width=5000)
    arguments = ["ingest", index, "a.jsonl", "--dead-letter", "disk/dead.jsonl"]
    line = fails(1, *arguments, url=opensearch_url)
    assert f"the dead-letter file {disk.folder}/dead.jsonl cannot be written: No space left on device" in line
    assert "make room" in line

    disk.resize("8m")
    code, out, err = bridge(*arguments, "--json", url=opensearch_url)
    assert code == 3
    assert "going on" in err
    summary = json.loads(out)
    assert (summary["source"], summary["dead"]) == (400 + bad, bad)
    assert engine.count(index) == 400
    letters = [json.loads(letter) for letter in (disk.folder / "dead.jsonl").read_text().splitlines()]
    assert len({letter["id"] for letter in letters}) == len(letters) == bad


def test_no_room_for_the_checkpoint(
    fails: Fails, bridge: Bridge, disk: Disk, index: str, opensearch_url: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    corpus(tmp_path / "a.jsonl", 10)
    monkeypatch.setenv("BRIDGE_DATA_DIR", str(disk.folder / "data"))
    disk.fill()
    line = fails(1, "ingest", index, "a.jsonl", url=opensearch_url)
    assert line.startswith(f"the checkpoint {disk.folder}/data/checkpoints/")
    assert "cannot be written: No space left on device" in line
    assert "BRIDGE_DATA_DIR" in line
    (disk.folder / "filler").unlink()
    code, out, _ = bridge("ingest", index, "a.jsonl", "--json", url=opensearch_url)
    assert code == 0
    assert json.loads(out)["source"] == 10


def test_no_room_for_a_model(fails: Fails, bridge: Bridge, disk: Disk, tmp_path: Path):
    rows = (json.dumps({"_id": str(number), "text": f"word{number} other{number}"}) for number in range(5_000))
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    line = fails(1, "fit", "a.jsonl", "-o", "disk/model")
    assert line.startswith("the model cannot be written to disk/model: No space left on device; make room")
    assert list(disk.folder.iterdir()) == [], "half a model is worse than none"
    disk.resize("8m")
    assert bridge("fit", "a.jsonl", "-o", "disk/model")[0] == 0


def test_no_room_in_the_model_cache(
    fails: Fails, bridge: Bridge, disk: Disk, index: str, engine: Engine, opensearch_url: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    corpus(tmp_path / "a.jsonl", 10)
    before = os.environ["BRIDGE_CACHE_DIR"]
    monkeypatch.setenv("BRIDGE_CACHE_DIR", str(disk.folder / "cache"))
    disk.fill()
    # For a model that is fitted …
    line = fails(1, "ingest", index, "a.jsonl", url=opensearch_url)
    assert f"the model cannot be written to {disk.folder}/cache/models: No space left on device" in line
    assert "BRIDGE_CACHE_DIR" in line
    assert engine.get_index(index) is None
    # … and for one that comes from the cluster.
    monkeypatch.setenv("BRIDGE_CACHE_DIR", before)
    assert bridge("ingest", index, "a.jsonl", url=opensearch_url)[0] == 0
    monkeypatch.setenv("BRIDGE_CACHE_DIR", str(disk.folder / "cache"))
    line = fails(1, "search", index, "moon", url=opensearch_url)
    assert "the model cannot be written to" in line
    assert "No space left on device" in line


def test_no_room_for_a_run(fails: Fails, bridge: Bridge, disk: Disk, index: str, opensearch_url: str, tmp_path: Path):
    corpus(tmp_path / "a.jsonl", 10)
    assert bridge("ingest", index, "a.jsonl", url=opensearch_url)[0] == 0
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("q\t1\t1\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "document 1"}\n')
    disk.fill()
    line = fails(1, "evaluate", index, ".", "--run", "disk/a.trec", url=opensearch_url)
    assert line.startswith("disk/a.trec: cannot be written: No space left on device")


def test_no_room_for_stdin(disk: Disk, opensearch_url: str, tmp_path: Path):
    corpus(tmp_path / "a.jsonl", 5_000)
    environment = {**os.environ, "TMPDIR": str(disk.folder)}
    words = [*COMMAND, "--url", opensearch_url, "ingest", "test-none", "-"]
    with (tmp_path / "a.jsonl").open("rb") as file:
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, stdin=file, capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"bridge: error: <stdin>: cannot be kept in {disk.folder}")
