"""`bridge ingest` as a process of its own, watched while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

from bridge.engines import Engine
from bridge.fit import fit
from bridge.loadsettings import LOAD_KEY
from bridge.register import RegisterOptions
from tests.faults.corpus import register_for_poison
from tests.faults.proxy import fault_proxy

ROOT = Path(__file__).parents[2]
COUNTED = ("source", "indexed", "unchanged", "deleted", "dead")
REFRESH = "7s"
"""What the index's refresh interval is before a load."""


@dataclass(frozen=True, slots=True)
class Done:
    """A process that has ended."""

    code: int
    out: str
    err: str

    @property
    def totals(self) -> dict[str, int]:
        said = json.loads(self.out)
        return {name: said[name] for name in COUNTED}

    @property
    def error(self) -> str:
        """The one line that says what went wrong; nothing follows it, and there is no traceback."""
        assert "Traceback" not in self.err, self.err
        lines = self.err.splitlines()
        assert [line for line in lines if line.startswith("bridge: error: ")] == lines[-1:], self.err
        return lines[-1].removeprefix("bridge: error: ")


@dataclass(slots=True)
class Load:
    """One corpus into one index; `folder` holds the corpus, its model, and what the bridge remembers."""

    folder: Path
    url: str
    index: str
    corpus: str = "corpus.jsonl"
    options: tuple[str, ...] = ("--chunk-documents", "20")
    """Small requests: a load must last until something happens to it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    registered: RegisterOptions | None = None
    """What the index is to be like."""
    before: Callable[[], None] | None = None
    """Is done in the new process, before it begins."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def letters(self) -> Path:
        return self.folder / f"{self.index}.dead-letter.jsonl"

    @property
    def data(self) -> Path:
        return Path(self.environment.get("BRIDGE_DATA_DIR", self.folder / "data"))

    def prepare(self, engine: Engine) -> None:
        """The model and the index, whose refresh interval is an administrator's own."""
        if not (self.folder / "model").is_dir():
            fit((f"word{i} word{i + 1}" for i in range(3000)), self.folder / "model")
        register_for_poison(engine, self.index, self.folder / "model", self.registered)
        engine.put_settings(self.index, {"index.refresh_interval": REFRESH})

    def start(self, *more: str) -> None:
        command = [
            *(sys.executable, "-m", "bridge", "--url", self.url, "--json", "ingest", self.index, self.corpus),
            *("--model", "model", "--dead-letter", str(self.letters), *self.options, *more),
        ]
        folders = {"BRIDGE_CACHE_DIR": str(self.folder / "cache"), "BRIDGE_DATA_DIR": str(self.folder / "data")}
        environment = {**os.environ, **folders, "PYTHONPATH": str(ROOT), **self.environment}
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=out, stderr=err, preexec_fn=self.before
            )

    def said(self) -> str:
        return (self.folder / "err").read_text("utf-8")

    def position(self) -> int:
        """How many documents are settled, as the checkpoint says."""
        for path in self.data.glob("checkpoints/*.json"):
            try:
                return int(json.loads(path.read_bytes())["position"])
            except FileNotFoundError:
                pass
        return 0

    def wait(self, until: Callable[[], Any], seconds: float = 120) -> None:
        """Until something is so; the process must not end before."""
        assert self.process
        deadline = time.monotonic() + seconds
        while not until():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def end(self, seconds: float = 180) -> Done:
        """Its end, and what it said."""
        assert self.process
        code = self.process.wait(seconds)
        self.process = None
        return Done(code, (self.folder / "out").read_text("utf-8"), self.said())

    def run(self, *more: str) -> Done:
        self.start(*more)
        return self.end()

    def kill(self) -> None:
        """Leave no process behind, whatever a test came to."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@contextmanager
def load(folder: Path, engine: Engine, index: str, **options: Any) -> Iterator[Load]:
    """A load that is prepared, and over at the end."""
    one = Load(folder, options.pop("url", engine.url), index, **options)
    one.prepare(engine)
    try:
        yield one
    finally:
        one.kill()


@contextmanager
def slowed(engine: Engine, requests: int = 100) -> Iterator[str]:
    """A URL of the engine by which the first requests of a load take seconds, however fast the machine is."""
    with fault_proxy(engine.url, repeat("latency", requests)) as proxy:
        yield proxy.url


def refresh_interval(engine: Engine, index: str) -> str | None:
    return engine.require_index(index).settings.get("index.refresh_interval")


def is_restored(engine: Engine, index: str) -> bool:
    """Whether the index has its own settings, and nothing speaks of a load."""
    state = engine.require_index(index)
    return refresh_interval(engine, index) == REFRESH and LOAD_KEY not in (state.mappings.get("_meta") or {})
