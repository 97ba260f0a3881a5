"""A load that is killed anywhere, and resumed until it is done, ends exactly like one that was left alone.

Ten kills here; `make torture` makes a hundred, and says so with BRIDGE_TORTURE.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.engines import Engine
from tests.faults.corpus import POISON, State, register_for_poison, state_of, write_corpus
from tests.faults.killed import POINTS

ROOT = Path(__file__).parents[2]
RUNS = int(os.environ.get("BRIDGE_TORTURE", "10"))
DOCUMENTS = 20_000
COUNTED = ("source", "indexed", "unchanged", "deleted", "dead")
TRIES = 5


@dataclass(frozen=True, slots=True)
class Home:
    """A folder with a corpus, its model, and the environment of the processes."""

    folder: Path
    url: str

    def bridge(self, index: str, *, kill: tuple[str, int] | None = None) -> subprocess.CompletedProcess[str]:
        """`bridge ingest` of the corpus; with `kill`, until it comes to that point so often."""
        module = ["tests.faults.killed", kill[0], str(kill[1])] if kill else ["bridge"]
        command = [
            *(sys.executable, "-m", *module, "--url", self.url, "--json", "ingest", index),
            *(str(self.folder / "corpus.jsonl"), "--model", str(self.folder / "model")),
            *("--dead-letter", str(self.letters(index))),
        ]
        folders = {"BRIDGE_CACHE_DIR": str(self.folder / "cache"), "BRIDGE_DATA_DIR": str(self.folder / "data")}
        environment = os.environ | folders | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def letters(self, index: str) -> Path:
        return self.folder / f"{index}.dead-letter.jsonl"


def kills(runs: int) -> Iterator[tuple[int, str, int]]:
    """Seed, point and count of each run: half at counts of acknowledged documents, half at the named points."""
    source = random.Random(20_261_121)
    for seed in range(runs):
        if seed % 2:
            point = POINTS[:-1][seed // 2 % (len(POINTS) - 1)]
            most = {"letter": DOCUMENTS // POISON, "bulk": DOCUMENTS // 500}.get(point.split("_")[1], 4)
            yield seed, point, source.randint(1, most)
        else:
            yield seed, "acknowledged", source.randint(1, DOCUMENTS)


@pytest.fixture(scope="module")
def home(opensearch_url: str, tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("torture")
    write_corpus(folder / "corpus.jsonl", DOCUMENTS)
    from bridge.fit import fit

    fit((f"word{i} word{i + 1}" for i in range(3000)), folder / "model")
    return Home(folder, opensearch_url)


@pytest.fixture(scope="module")
def undisturbed(home: Home, module_engine: Engine) -> Iterator[tuple[State, dict[str, Any]]]:
    """What a run that is left alone leaves behind, and what it says."""
    register_for_poison(module_engine, "undisturbed-whole", home.folder / "model")
    done = home.bridge("undisturbed-whole")
    assert done.returncode == 3, done.stderr
    yield state_of(module_engine, "undisturbed-whole", home.letters("undisturbed-whole")), json.loads(done.stdout)
    module_engine.delete_index("undisturbed-whole")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("seed", "point", "count"), list(kills(RUNS)))
def test_a_killed_load_that_is_resumed_ends_like_one_that_was_left_alone(
    seed: int, point: str, count: int, home: Home, undisturbed: tuple[State, dict[str, Any]], engine: Engine, index: str
) -> None:
    state, said = undisturbed
    register_for_poison(engine, index, home.folder / "model")
    killed = home.bridge(index, kill=(point, count))
    # A run may be over before it comes to its point so often: then there was nothing to resume.
    assert killed.returncode in (-signal.SIGKILL, 3), killed.stderr
    done = killed
    source = random.Random(seed)
    for _ in range(source.randint(0, 2) if killed.returncode else 0):
        if done.returncode == -signal.SIGKILL:
            done = home.bridge(index, kill=("acknowledged", source.randint(1, DOCUMENTS)))
    if done.returncode == -signal.SIGKILL:
        done = home.bridge(index)
    assert done.returncode == 3, done.stderr
    assert {key: json.loads(done.stdout)[key] for key in COUNTED} == {key: said[key] for key in COUNTED}
    assert state_of(engine, index, home.letters(index)) == state


def test_the_undisturbed_run_is_what_the_corpus_says(undisturbed: tuple[State, dict[str, Any]]) -> None:
    state, said = undisturbed
    assert [said[key] for key in COUNTED] == [DOCUMENTS, DOCUMENTS - DOCUMENTS // POISON, 0, 0, DOCUMENTS // POISON]
    assert len(state.documents) == said["indexed"]
    assert len(state.dead) == said["dead"]
