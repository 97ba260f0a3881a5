"""Encoding with several processes gives the file that one writes."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.errors import BridgeError, MissingExtra, ModelMismatch, SourceError
from bridge.fit import fit
from bridge.prepare import Preparation
from bridge.prune import parse_pruning
from bridge.runners import worker
from bridge.runners.processes import Processes
from bridge.runners.work import ModelSpec
from tests.runners import dying
from tests.runners.helpers import (
    WORKERS,
    After,
    Bridge,
    Fails,
    children,
    running,
    same_file,
    same_totals,
    until,
    write,
)


def spawned() -> list[int]:
    """The worker processes of this one."""
    mine = set(children(os.getpid()))
    return [pid for pid in running("multiprocessing.spawn") if pid in mine]


class TestProcesses:
    """Several processes on this machine."""

    def test_same_file(self, corpus: Path, model: Path, tmp_path: Path, plain: Any) -> None:
        whole, expected = plain(model)
        summary = write(corpus, tmp_path / whole.name, model, Processes(ModelSpec(str(model)), WORKERS))
        worst = same_file(whole, tmp_path / whole.name)
        assert worst <= (0 if model.name == "lexical" else 1e-5)
        same_totals(summary, expected)
        assert spawned() == []

    def test_each_worker_works(self, corpus: Path, lexical: Path, tmp_path: Path) -> None:
        seen: set[int] = set()
        runner = After(Processes(ModelSpec(str(lexical)), 3), 1, lambda: seen.update(spawned()))
        write(corpus, tmp_path / "v.jsonl", lexical, runner)
        assert len(seen) == 3

    def test_a_worker_that_dies_leaves_a_run_that_goes_on(
        self, corpus: Path, lexical: Path, tmp_path: Path, plain: Any
    ) -> None:
        whole, expected = plain(lexical)
        output = tmp_path / whole.name

        def kill() -> None:
            for pid in spawned():
                os.kill(pid, signal.SIGKILL)

        runner = Processes(ModelSpec(str(lexical)), WORKERS)
        with pytest.raises(BridgeError, match=r"a worker process ended before .*; the same command goes on there"):
            write(corpus, output, lexical, After(runner, 1, kill))
        assert not output.exists()
        same_totals(write(corpus, output, lexical, runner), expected)
        assert same_file(whole, output) == 0
        assert whole.read_bytes() == output.read_bytes()

    @pytest.mark.timeout(60)
    def test_a_worker_that_dies_in_the_midst_of_an_answer(
        self, corpus: Path, lexical: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The pool waits for the rest of it, which nobody is there to write."""
        monkeypatch.setattr(worker, "encode", dying.half_an_answer)
        with pytest.raises(BridgeError, match=r"a worker process ended before .*; the same command goes on there"):
            write(corpus, tmp_path / "v.jsonl", lexical, Processes(ModelSpec(str(lexical)), WORKERS))
        assert spawned() == []

    def test_a_process_that_is_killed_takes_its_workers_along(
        self, corpus: Path, splade: Path, tmp_path: Path, plain: Any
    ) -> None:
        whole, _ = plain(splade)
        output = tmp_path / whole.name
        words = ["encode", str(corpus), "-o", str(output), "--model", str(splade), "--device", "cpu", "--workers", "2"]
        with subprocess.Popen([sys.executable, "-m", "bridge", *words], stderr=subprocess.DEVNULL) as process:
            part = output.with_name(f"{output.name}.part")
            until(lambda: part.is_file() and part.stat().st_size)
            workers = [pid for pid in children(process.pid) if pid in running("spawn_main")]
            assert len(workers) == WORKERS
            process.kill()
        until(lambda: not set(workers) & set(running("spawn_main")))
        assert not output.exists()
        write(corpus, output, splade)
        assert same_file(whole, output) <= 1e-5

    def test_an_interruption_ends_the_workers_at_once(self, corpus: Path, splade: Path, tmp_path: Path) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write(corpus, tmp_path / "v.jsonl", splade, After(Processes(ModelSpec(str(splade)), 2), 0, interrupt))
        assert spawned() == []

    def test_another_model_under_that_name(self, corpus: Path, lexical: Path, tmp_path: Path) -> None:
        fit(["another model"], tmp_path / "other")
        with pytest.raises(ModelMismatch, match=r"lexical-\w+ for a worker, and lexical-\w+ where"):
            write(corpus, tmp_path / "v.jsonl", lexical, Processes(ModelSpec(str(tmp_path / "other")), 2))

    def test_passages_and_pruning(self, corpus: Path, splade: Path, tmp_path: Path) -> None:
        head = tmp_path / "head.jsonl"
        head.write_bytes(b"".join(corpus.read_bytes().splitlines(keepends=True)[:120]))
        preparation = Preparation("nested", 24, 4, parse_pruning("top-k=20"))
        one = write(head, tmp_path / "one.jsonl", splade, preparation=preparation)
        two = write(head, tmp_path / "two.jsonl", splade, Processes(ModelSpec(str(splade)), 2), preparation=preparation)
        assert (one.passages, one.pruned_terms) == (two.passages, two.pruned_terms)
        assert one.passages > 2 * one.encoded
        with (tmp_path / "one.jsonl").open() as left, (tmp_path / "two.jsonl").open() as right:
            for a, b in zip(map(json.loads, left), map(json.loads, right), strict=True):
                assert a["id"] == b["id"]
                for first, second in zip(a["passages"], b["passages"], strict=True):
                    assert (first["start"], first["end"]) == (second["start"], second["end"])
                    assert np.allclose(first["weights"], second["weights"], atol=1e-5, rtol=0)

    def test_an_error_of_the_source_comes_after_what_was_read(self, lexical: Path, tmp_path: Path) -> None:
        lines = b"".join(b'{"_id": "%d", "text": "rain in %d"}\n' % (i, i) for i in range(3000))
        (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-200])
        summaries = []
        for runner in (None, Processes(ModelSpec(str(lexical)), 2)):
            output = tmp_path / f"{type(runner).__name__}.jsonl"
            with pytest.raises(SourceError, match="ends too early"):
                write(tmp_path / "cut.jsonl.gz", output, lexical, runner)
            summaries.append(output.with_name(f"{output.name}.part").read_bytes())
        assert summaries[0] == summaries[1]
        assert summaries[0].count(b"\n") >= 1000

    def test_errors_come_through(self) -> None:
        for error in (MissingExtra("encoding", "encode"), ModelMismatch("no"), SourceError("gone")):
            again = pickle.loads(pickle.dumps(error))
            assert (type(again), str(again)) == (type(error), str(error))

    def test_devices_in_turn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loading = pytest.importorskip("bridge.encode.torch_load")
        monkeypatch.setattr(loading, "gpu_count", lambda: 2)
        assert [worker.device_of("auto", number) for number in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
        assert worker.device_of("cuda", 3) == "cuda:1"
        assert worker.device_of("cuda:1", 0) == "cuda:1"
        assert worker.device_of("cpu", 1) == "cpu"
        monkeypatch.setattr(loading, "gpu_count", lambda: 1)
        assert worker.device_of("auto", 1) == "auto"


class TestCommand:
    """`bridge encode --workers N`."""

    def test_a_fitted_model_is_found_by_the_workers(self, bridge: Bridge, corpus: Path, tmp_path: Path) -> None:
        for words in ([], ["--workers", "2"]):
            code, _, err = bridge("encode", str(corpus), "-o", f"v{len(words)}.jsonl", *words)
            assert code == 3, err
        assert (tmp_path / "v0.jsonl").read_bytes() == (tmp_path / "v2.jsonl").read_bytes()

    def test_an_error_of_a_worker_is_one_line(self, fails: Fails, corpus: Path, splade: Path, tmp_path: Path) -> None:
        words = ["encode", str(corpus), "-o", "v.jsonl", "--model", str(splade), "--workers", "2", "--device"]
        assert "no GPU is to be had here" in fails(2, *words, "cuda:0")

    def test_refused(self, fails: Fails, corpus: Path, lexical: Path) -> None:
        words = ["encode", str(corpus), "-o", "v.jsonl", "--model", str(lexical)]
        assert "goes with --runner ray" in fails(2, *words, "--ray-address", "auto")


WITHOUT_RAY = """
import importlib.machinery, sys
real = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] == "ray" else real(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
from bridge.cli import main
main()
"""


def test_the_extra_is_named_where_ray_is_missing(corpus: Path, lexical: Path, tmp_path: Path) -> None:
    words = ["encode", str(corpus), "-o", "v.jsonl", "--model", str(lexical), "--runner", "ray"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_RAY, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'bridge: error: --runner ray needs the extra "ray": pip install "neural-sparse-bridge[ray]"\n'
