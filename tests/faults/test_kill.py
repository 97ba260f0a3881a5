"""A load that is killed anywhere, and resumed until it is done, ends exactly like one that was left alone.

Ten kills on OpenSearch and a few on the other engines; `make torture` makes a hundred, and ten.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.engines import Engine, open_engine
from bridge.fit import fit
from bridge.settings import EngineSettings
from tests.faults.conftest import running
from tests.faults.corpus import POISON, State, register_for_poison, state_of, write_corpus
from tests.faults.engines import ENGINES, runs
from tests.faults.killed import POINTS

# A test node without security says so in a header of every answer, which the client turns into a warning.
pytestmark = pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning")

ROOT = Path(__file__).parents[2]
DOCUMENTS = 20_000
COUNTED = ("source", "indexed", "unchanged", "deleted", "dead")


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
            # A step that comes to every point, and to points of each kind in a few runs.
            point = POINTS[:-1][seed // 2 * 5 % (len(POINTS) - 1)]
            most = {"letter": DOCUMENTS // POISON, "bulk": DOCUMENTS // 500}.get(point.split("_")[1], 4)
            yield seed, point, source.randint(1, most)
        else:
            yield seed, "acknowledged", source.randint(1, DOCUMENTS)


ALL = [(name, *kill) for name in ENGINES for kill in kills(runs(name))]


@dataclass(frozen=True, slots=True)
class Site:
    """An engine, and what a load that is left alone leaves behind there and says."""

    home: Home
    engine: Engine
    state: State
    said: dict[str, Any]


@contextlib.contextmanager
def prepared(name: str, opensearch_url: str, folder: Path) -> Iterator[Site]:
    write_corpus(folder / "corpus.jsonl", DOCUMENTS)
    fit((f"word{i} word{i + 1}" for i in range(3000)), folder / "model")
    with running(name, opensearch_url) as url, open_engine(settings=EngineSettings(url=url)) as engine:
        home = Home(folder, url)
        register_for_poison(engine, "undisturbed-whole", folder / "model")
        done = home.bridge("undisturbed-whole")
        assert done.returncode == 3, done.stderr
        state = state_of(engine, "undisturbed-whole", home.letters("undisturbed-whole"))
        engine.delete_index("undisturbed-whole")
        yield Site(home, engine, state, json.loads(done.stdout))


@pytest.fixture(scope="module")
def site_of(opensearch_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Site]]:
    """Name ─▶ its site. One engine at a time: another name ends the one before."""
    made: dict[str, Site] = {}
    with contextlib.ExitStack() as stack:

        def found(name: str) -> Site:
            if name not in made:
                stack.pop_all().close()
                made.clear()
                folder = tmp_path_factory.mktemp("torture")
                made[name] = stack.enter_context(prepared(name, opensearch_url, folder))
            return made[name]

        yield found


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "seed", "point", "count"), ALL)
def test_a_killed_load_that_is_resumed_ends_like_one_that_was_left_alone(
    name: str, seed: int, point: str, count: int, site_of: Callable[[str], Site]
) -> None:
    site = site_of(name)
    index = f"killed-{uuid.uuid4().hex[:12]}"
    register_for_poison(site.engine, index, site.home.folder / "model")
    try:
        killed = site.home.bridge(index, kill=(point, count))
        # A run may be over before it comes to its point so often: then there was nothing to resume.
        assert killed.returncode in (-signal.SIGKILL, 3), killed.stderr
        done = killed
        source = random.Random(seed)
        for _ in range(source.randint(0, 2) if killed.returncode else 0):
            if done.returncode == -signal.SIGKILL:
                done = site.home.bridge(index, kill=("acknowledged", source.randint(1, DOCUMENTS)))
        if done.returncode == -signal.SIGKILL:
            done = site.home.bridge(index)
        assert done.returncode == 3, done.stderr
        assert {key: json.loads(done.stdout)[key] for key in COUNTED} == {key: site.said[key] for key in COUNTED}
        assert state_of(site.engine, index, site.home.letters(index)) == site.state
        dead = DOCUMENTS // POISON
        assert [site.said[key] for key in COUNTED] == [DOCUMENTS, DOCUMENTS - dead, 0, 0, dead]
        assert (len(site.state.documents), len(site.state.dead)) == (DOCUMENTS - dead, dead)
    finally:
        site.engine.delete_index(index)
