"""However a load ends, the index gets its own settings back: at once, or with what comes next."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.engines import Engine
from tests.faults.corpus import State, state_of, write_corpus
from tests.faults.running import COUNTED, ROOT, Load, is_restored, load, refresh_interval, slowed

DOCUMENTS = 6000


@pytest.fixture
def loading(tmp_path: Path, engine: Engine, index: str) -> Iterator[Load]:
    """A load that is under way: its checkpoint has moved, and the index does not refresh."""
    write_corpus(tmp_path / "corpus.jsonl", DOCUMENTS)
    with slowed(engine) as url, load(tmp_path, engine, index, url=url) as one:
        one.start()
        one.wait(one.position)
        assert refresh_interval(engine, index) == "-1"
        yield one


def finish(one: Load) -> subprocess.CompletedProcess[str]:
    """`bridge ingest INDEX --finish`."""
    words = [sys.executable, "-m", "bridge", "--url", one.url, "--json", "ingest", one.index, "--finish"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=one.folder, env=environment, capture_output=True, text=True, check=False)


def test_done_with_dead_letters(loading: Load, engine: Engine, index: str) -> None:
    done = loading.end()
    assert done.code == 3, done.err
    assert is_restored(engine, index)


def test_done(tmp_path: Path, engine: Engine, index: str) -> None:
    write_corpus(tmp_path / "corpus.jsonl", 50)
    with load(tmp_path, engine, index) as one:
        assert one.run().code == 0
    assert is_restored(engine, index)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal(loading: Load, engine: Engine, index: str, name: str) -> None:
    loading.signal(getattr(signal, name))
    done = loading.end()
    assert (done.code, done.out) == (130, "")
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1] == "bridge: interrupted"
    assert is_restored(engine, index)
    assert loading.run().code == 3
    assert is_restored(engine, index)


def test_a_signal_that_nohup_ignores(tmp_path: Path, engine: Engine, index: str) -> None:
    write_corpus(tmp_path / "corpus.jsonl", DOCUMENTS)

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with slowed(engine) as url, load(tmp_path, engine, index, before=ignore, url=url) as one:
        one.start()
        one.wait(one.position)
        one.signal(signal.SIGHUP)
        assert one.end().code == 3


def test_a_kill_and_finish(loading: Load, engine: Engine, index: str) -> None:
    loading.signal(signal.SIGKILL)
    assert loading.end().code == -signal.SIGKILL
    assert refresh_interval(engine, index) == "-1"
    done = finish(loading)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"index": index, "restored": True})
    assert is_restored(engine, index)
    # The place is kept all the same.
    again = loading.run()
    assert again.code == 3, again.err
    assert "going on with an interrupted run" in again.err
    assert is_restored(engine, index)


def test_a_kill_and_the_next_run(loading: Load, engine: Engine, index: str) -> None:
    loading.signal(signal.SIGKILL)
    loading.end()
    assert loading.run().code == 3
    assert is_restored(engine, index)


def test_an_error_of_the_engine(loading: Load, engine: Engine, index: str) -> None:
    engine.request("POST", f"/{index}/_close")
    done = loading.end()
    assert done.code == 1
    assert "closed" in done.error
    engine.request("POST", f"/{index}/_open", params={"wait_for_active_shards": "1"})
    assert is_restored(engine, index)
    assert loading.run().code == 3


def test_an_error_of_the_source(tmp_path: Path, engine: Engine, index: str) -> None:
    whole = gzip.compress(write_corpus(tmp_path / "whole.jsonl", DOCUMENTS).read_bytes())
    (tmp_path / "corpus.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with load(tmp_path, engine, index, corpus="corpus.jsonl.gz") as one:
        done = one.run()
    assert done.code == 1
    assert done.error == "corpus.jsonl.gz: the gzip data ends too early; the file is cut off"
    assert is_restored(engine, index)


def test_a_source_of_which_most_is_dead(tmp_path: Path, engine: Engine, index: str) -> None:
    good = {"_id": "1", "text": "word1 word2"}
    with (tmp_path / "corpus.jsonl").open("w") as file:
        for number in range(3000):
            file.write(json.dumps({"_id": str(number), "body": "word"} if number % 4 else good) + "\n")
    with load(tmp_path, engine, index) as one:
        done = one.run()
    assert done.code == 1
    assert "stopped, since the rest will fare no better" in done.error
    assert is_restored(engine, index)


@pytest.mark.parametrize("made_anew", [False, True])
def test_an_index_that_is_deleted_meanwhile(loading: Load, engine: Engine, index: str, made_anew: bool) -> None:
    # Held meanwhile: a request of its own must not make the index anew in between.
    loading.signal(signal.SIGSTOP)
    time.sleep(0.5)
    engine.delete_index(index)
    if made_anew:
        engine.create_index(index, {"settings": {"index.refresh_interval": "7s"}})
    loading.signal(signal.SIGCONT)
    done = loading.end()
    assert done.code == 1
    # Whoever meets it first: the sender, or the one who looks whether the index is still the same.
    assert re.search(r"while documents were sent to it|no such index", done.error)
    assert "settings of a load" not in done.err
    if made_anew:
        assert is_restored(engine, index)


def test_every_ending_can_be_gone_on_from(tmp_path: Path, engine: Engine, index: str) -> None:
    """One load, ended by each signal in turn, comes to what one comes to that is left alone."""
    write_corpus(tmp_path / "corpus.jsonl", 3 * DOCUMENTS)
    with load(tmp_path, engine, f"{index}-alone") as alone:
        said = alone.run()
        state = state_of(engine, alone.index, alone.letters)
        engine.delete_index(alone.index)
    with slowed(engine, 300) as url, load(tmp_path, engine, index, url=url) as one:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            reached = one.position()
            one.start()
            one.wait(lambda reached=reached: one.position() > reached)  # type: ignore[misc]
            one.signal(number)
            one.end()
        done = one.run()
        assert done.totals == said.totals
        assert set(done.totals) == set(COUNTED)
        found: State = state_of(engine, index, one.letters)
    assert found == state
    assert is_restored(engine, index)
