"""Encoding over Ray gives the file that one process writes, whatever dies meanwhile.

BRIDGE_TEST_FULL=1 takes 20,000 passages instead of 1,000.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

from bridge import load_encoder  # noqa: E402
from bridge.encodefile import encode_file  # noqa: E402
from bridge.errors import BridgeError, ModelMismatch, SourceError, UsageError  # noqa: E402
from bridge.fit import fit  # noqa: E402
from bridge.runners.cluster import MAX_ATTEMPTS, RayActors  # noqa: E402
from bridge.runners.work import ModelSpec  # noqa: E402
from bridge.sources import open_source  # noqa: E402
from tests.faults.engines import only_torture  # noqa: E402
from tests.runners.helpers import WORKERS, After, Fails, running, same_file, same_totals, until, write  # noqa: E402

ACTOR = "ray::MapWorker"


def actors() -> list[int]:
    return running(ACTOR)


def listening() -> set[str]:
    """The addresses that Ray's processes listen on."""
    sockets: dict[str, str] = {}
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A":
                # The last four bytes, the lowest first, whether IPv4 or IPv4 mapped to IPv6.
                sockets[inode] = socket.inet_ntoa(bytes.fromhex(local.partition(":")[0][-8:])[::-1])
    found = set()
    for pid in running("ray/core/src/ray/") + running("ray::"):
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                name = str(descriptor.readlink())
                found |= {sockets[inode] for inode in sockets if name == f"socket:[{inode}]"}
    return found


def test_same_file_though_an_actor_is_killed(corpus: Path, model: Path, tmp_path: Path, plain: Any) -> None:
    whole, expected = plain(model)
    killed: list[int] = []
    addresses: set[str] = set()

    def kill() -> None:
        addresses.update(listening())
        killed.append(until(actors)[0])
        os.kill(killed[0], signal.SIGKILL)

    runner = After(RayActors(ModelSpec(str(model)), WORKERS), 2, kill)
    summary = write(corpus, tmp_path / whole.name, model, runner)
    assert len(killed) == 1
    assert addresses == {"127.0.0.1"}
    assert same_file(whole, tmp_path / whole.name) <= (0 if model.name == "lexical" else 1e-5)
    same_totals(summary, expected)
    until(lambda: not running("ray::"))
    assert not ray.is_initialized()


@only_torture
def test_a_killed_driver_s_run_goes_on(corpus: Path, splade: Path, tmp_path: Path, plain: Any) -> None:
    whole, expected = plain(splade)
    output = tmp_path / whole.name
    words = ["encode", str(corpus), "-o", str(output), "--model", str(splade), "--device", "cpu", "--runner", "ray"]
    with subprocess.Popen([sys.executable, "-m", "bridge", *words], stderr=subprocess.DEVNULL) as process:
        part = output.with_name(f"{output.name}.part")
        until(lambda: part.is_file() and part.stat().st_size, 120)
        process.kill()
    assert not output.exists()
    # What was started for the run ends with it; Ray's own agents take a minute to notice.
    until(lambda: not actors())
    same_totals(write(corpus, output, splade, RayActors(ModelSpec(str(splade)), 1)), expected)
    assert same_file(whole, output) <= 1e-5


def at_work() -> list[int]:
    """Actors that have begun with a batch of a neural model: nothing else loads torch."""
    found = []
    for pid in actors():
        with contextlib.suppress(OSError):
            if "libtorch" in Path(f"/proc/{pid}/maps").read_text():
                found.append(pid)
    return found


@only_torture
def test_a_batch_that_kills_every_actor_ends_the_run(corpus: Path, splade: Path, tmp_path: Path, plain: Any) -> None:
    done = threading.Event()
    killed: set[int] = set()

    def slaughter() -> None:
        while not done.is_set():
            for pid in at_work():
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    killer = threading.Thread(target=slaughter)
    whole, _ = plain(splade)
    output = tmp_path / whole.name
    killer.start()
    try:
        said = f"{MAX_ATTEMPTS} workers died over the same documents .*; the same command goes on there"
        with pytest.raises(BridgeError, match=said):
            write(corpus, output, splade, RayActors(ModelSpec(str(splade)), 1))
    finally:
        done.set()
        killer.join()
    # More may have died before they began a batch; those do not count.
    assert len(killed) >= MAX_ATTEMPTS
    write(corpus, output, splade)
    assert whole.read_bytes() == output.read_bytes()


def test_stdin_and_a_stream_that_is_cut_off(lexical: Path, tmp_path: Path) -> None:
    lines = [b'{"_id": "%d", "text": "rain in %d"}\n' % (i, i) for i in range(1000)]
    files = []
    for name, runner in (("one", None), ("ray", RayActors(ModelSpec(str(lexical)), 1))):
        with open_source(["-"], stdin=io.BytesIO(b"".join(lines))) as source:
            summary = encode_file(source, tmp_path / f"{name}.jsonl", load_encoder(lexical), runner=runner)
        assert summary.encoded == 1000
        files.append((tmp_path / f"{name}.jsonl").read_bytes())
    assert files[0] == files[1]


def test_errors_of_a_reader_and_of_an_actor(
    corpus: Path, lexical: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b"".join(b'{"_id": "%d", "text": "rain in %d"}\n' % (i, i) for i in range(3000))
    # A name that is relative to this process's folder.
    monkeypatch.chdir(tmp_path)
    Path("cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-200])
    parts = []
    for runner in (None, RayActors(ModelSpec(str(lexical)), 1)):
        output = Path(f"{type(runner).__name__}.jsonl")
        with pytest.raises(SourceError, match="ends too early"):
            write(Path("cut.jsonl.gz"), output, lexical, runner)
        parts.append(Path(f"{output}.part").read_bytes())
    assert parts[0] == parts[1]
    assert parts[0].count(b"\n") >= 100
    fit(["another model"], tmp_path / "other")
    with pytest.raises(ModelMismatch, match="for a worker"):
        write(corpus, tmp_path / "v.jsonl", lexical, RayActors(ModelSpec(str(tmp_path / "other")), 1))


def test_nothing_of_ray_s_is_on_the_screen(corpus: Path, splade: Path, tmp_path: Path) -> None:
    """Not even of an actor that died."""
    words = ["encode", str(corpus), "-o", "v.jsonl", "--model", str(splade), "--device", "cpu", "--runner", "ray"]
    command = [sys.executable, "-m", "bridge", *words, "--json", "-q"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        os.kill(until(at_work, 120)[0], signal.SIGKILL)
        out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (3, "")
    (line,) = out.splitlines()
    assert line.startswith('{"source":')


def test_refused(fails: Fails, corpus: Path, lexical: Path) -> None:
    words = ["encode", str(corpus), "-o", "v.jsonl", "--model", str(lexical), "--runner", "ray"]
    assert "Ray hands the GPUs out itself" in fails(2, *words, "--device", "cuda:1")
    assert "from outside" in fails(2, *words, "--ray-address", "ray://10.0.0.1:10001")


def test_a_gpu_that_no_machine_has(corpus: Path, lexical: Path, tmp_path: Path) -> None:
    if os.environ.get("CUDA_VISIBLE_DEVICES") or Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match="no machine of the Ray cluster has a GPU"):
        write(corpus, tmp_path / "v.jsonl", lexical, RayActors(ModelSpec(str(lexical), {"device": "cuda"}), 1))
