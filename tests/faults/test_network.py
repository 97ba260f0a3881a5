"""A load through a proxy that breaks requests ends exactly like one without it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.bulk import BulkOptions
from bridge.engines import Engine, open_engine
from bridge.ingest import IngestOptions, IngestSummary, ingest
from bridge.settings import EngineSettings
from bridge.sources import open_source
from tests.faults.corpus import State, register_for_poison, state_of, write_corpus
from tests.faults.engines import ENGINES
from tests.faults.proxy import FAULTS, FaultProxy, fault_proxy, seeded_plan

# A test node without security says so in a header of every answer, which the client turns into a warning.
pytestmark = pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning")

COUNT = 1500
CHUNKS = BulkOptions(chunk_documents=100)


def load(engine: Engine, index: str, corpus: Path, letters: Path) -> IngestSummary:
    options = IngestOptions(model=str(corpus.parent / "model"), dead_letter=letters, bulk=CHUNKS)
    with open_source([str(corpus)]) as source:
        return ingest(engine, index, source, options)


@pytest.fixture(scope="module")
def undisturbed(
    placed: Engine, module_home: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, State, tuple[int, ...]]]:
    """The corpus, and what a run without faults leaves behind."""
    from bridge.fit import fit

    folder = tmp_path_factory.mktemp("undisturbed")
    corpus = write_corpus(folder / "corpus.jsonl", COUNT)
    fit((f"word{i} word{i + 1}" for i in range(3000)), folder / "model")
    register_for_poison(placed, "undisturbed", folder / "model")
    summary = load(placed, "undisturbed", corpus, folder / "dead.jsonl")
    yield corpus, state_of(placed, "undisturbed", folder / "dead.jsonl"), totals(summary)
    placed.delete_index("undisturbed")


@pytest.fixture
def target(placed: Engine) -> Iterator[str]:
    """A name for an index; what is there under it afterwards is deleted."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    if placed.get_index(name):
        placed.delete_index(name)


def totals(summary: IngestSummary) -> tuple[int, ...]:
    return summary.source, summary.indexed, summary.unchanged, summary.deleted, summary.dead


def told(summary: IngestSummary, proxy: FaultProxy) -> tuple[int, ...]:
    """The totals; what the engine got twice without the bridge knowing is `unchanged` the second time."""
    source, indexed, unchanged, deleted, dead = totals(summary)
    if proxy.done["twice_sent"]:
        return source, indexed + unchanged, 0, deleted, dead
    return source, indexed, unchanged, deleted, dead


@pytest.mark.parametrize("place", ENGINES, indirect=True, scope="module")
def test_the_poison_is_what_is_dead(undisturbed: tuple[Path, State, tuple[int, ...]]) -> None:
    _, state, counts = undisturbed
    assert counts == (COUNT, COUNT - 15, 0, 0, 15)
    assert len(state.documents) == COUNT - 15
    assert len({reason.split(":")[0][:12] for _, _, reason in state.dead}) >= 4


def load_through(
    plan: Iterator[str | None], undisturbed: tuple[Path, State, tuple[int, ...]], place: str, placed: Engine,
    target: str, letters: Path,
) -> FaultProxy:  # fmt: skip
    """A load through a proxy with that plan must end like one without; the proxy, for what it did."""
    corpus, state, counts = undisturbed
    register_for_poison(placed, target, corpus.parent / "model")
    with fault_proxy(place, plan) as proxy, open_engine(settings=EngineSettings(url=proxy.url)) as through:
        summary = load(through, target, corpus, letters)
    assert state_of(placed, target, letters) == state
    assert told(summary, proxy) == counts
    return proxy


@pytest.mark.parametrize("place", ENGINES, indirect=True, scope="module")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_load_through_a_fault_ends_like_one_without(
    fault: str, undisturbed: tuple[Path, State, tuple[int, ...]], place: str, placed: Engine, target: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    plan = seeded_plan(7, 0.35, (fault,))
    assert load_through(plan, undisturbed, place, placed, target, tmp_path / "dead.jsonl").done[fault] >= 2


@pytest.mark.parametrize("place", ENGINES, indirect=True, scope="module")
@pytest.mark.parametrize("seed", range(3))
def test_a_load_through_all_faults_ends_like_one_without(
    seed: int, undisturbed: tuple[Path, State, tuple[int, ...]], place: str, placed: Engine, target: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    done = load_through(seeded_plan(seed, 0.4), undisturbed, place, placed, target, tmp_path / "dead.jsonl").done
    assert sum(done.values()) >= 5
