"""A node that dies in the middle of a load and comes back: the load ends like one that was left alone."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge import node
from bridge.engines import Engine, open_engine
from bridge.settings import EngineSettings
from tests.conftest import NODE_CACHE
from tests.faults.corpus import State, state_of, write_corpus
from tests.faults.engines import ENGINES, only_torture
from tests.faults.running import Done, Load, is_restored, load
from tests.nodes import kill_node, open_folder, start_node, stop_node

DOCUMENTS = 20_000
KILLS = 5
"""Of the node, during one load."""

SEED = 20_261_121

# A test node without security says so in a header of every answer, which the client turns into a warning.
pytestmark = pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning")


@dataclass(frozen=True, slots=True)
class Mortal:
    """A node of its own, on a data folder that outlives it."""

    name: str
    folder: Path

    def start(self) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BRIDGE_CACHE_DIR", str(NODE_CACHE))
            if self.name == "opensearch":
                return node.start(paths=self.paths).url
            return start_node(self.name, self.folder)

    @property
    def paths(self) -> node.NodePaths:
        return node.NodePaths(NODE_CACHE, self.folder)

    def kill(self) -> None:
        kill_node(self.paths)


@pytest.fixture(scope="module")
def mortal(request: pytest.FixtureRequest) -> Iterator[Mortal]:
    with open_folder() as folder:
        found = Mortal(request.param, folder)
        try:
            yield found
        finally:
            stop_node(folder)


@pytest.fixture(scope="module")
def undisturbed(mortal: Mortal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Engine, State, Done]]:
    """A folder with a corpus and its model, a connection, and what a load that is left alone comes to."""
    folder = tmp_path_factory.mktemp("mortal")
    write_corpus(folder / "corpus.jsonl", DOCUMENTS)
    with open_engine(settings=EngineSettings(url=mortal.start())) as engine:
        with load(folder, engine, "undisturbed", options=()) as one:
            done = one.run()
        assert done.code == 3, done.err
        yield folder, engine, state_of(engine, one.index, one.letters), done


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("options", [(), ("--fast-load",)], ids=["plain", "fast"])
@only_torture
@pytest.mark.parametrize("mortal", ENGINES, indirect=True, scope="module")
def test_a_node_that_is_killed_and_comes_back(
    mortal: Mortal, undisturbed: tuple[Path, Engine, State, Done], options: tuple[str, ...]
) -> None:
    folder, engine, state, said = undisturbed
    chosen = random.Random(SEED)
    places = sorted(chosen.randrange(DOCUMENTS // 20, DOCUMENTS * 3 // 4) for _ in range(KILLS))
    name = "killed-" + ("fast" if options else "plain")
    with load(folder, engine, name, options=("--chunk-documents", "50", *options)) as one:
        one.start()
        for place in places:
            one.wait(lambda place=place: documents(engine, one) >= place)  # type: ignore[misc]
            mortal.kill()
            # A client is not told how long a node is away.
            time.sleep(chosen.uniform(0, 3))
            assert mortal.start() == one.url
        done = one.end(600)
    assert done.code == 3, done.err
    assert "trying again" in done.err
    assert done.totals == said.totals
    assert is_restored(engine, one.index)
    assert state_of(engine, one.index, one.letters) == state


def documents(engine: Engine, one: Load) -> int:
    """How many the index holds; looked at now and then, for a look is a refresh."""
    time.sleep(0.2)
    engine.refresh(one.index)
    return engine.count(one.index)
