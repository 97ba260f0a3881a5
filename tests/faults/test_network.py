"""A load through a proxy that breaks requests ends exactly like one without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.bulk import BulkOptions
from bridge.engines import Engine, open_engine
from bridge.ingest import IngestOptions, IngestSummary, ingest
from bridge.settings import EngineSettings
from bridge.sources import open_source
from tests.faults.corpus import State, register_for_poison, state_of, write_corpus
from tests.faults.proxy import FAULTS, FaultProxy, fault_proxy, seeded_plan

COUNT = 1500
CHUNKS = BulkOptions(chunk_documents=100)


def load(engine: Engine, index: str, corpus: Path, letters: Path) -> IngestSummary:
    options = IngestOptions(model=str(corpus.parent / "model"), dead_letter=letters, bulk=CHUNKS)
    with open_source([str(corpus)]) as source:
        return ingest(engine, index, source, options)


@pytest.fixture(scope="module")
def undisturbed(
    module_engine: Engine, module_home: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, State, tuple[int, ...]]]:
    """The corpus, and what a run without faults leaves behind."""
    from bridge.fit import fit

    folder = tmp_path_factory.mktemp("undisturbed")
    corpus = write_corpus(folder / "corpus.jsonl", COUNT)
    fit((f"word{i} word{i + 1}" for i in range(3000)), folder / "model")
    register_for_poison(module_engine, "undisturbed", folder / "model")
    summary = load(module_engine, "undisturbed", corpus, folder / "dead.jsonl")
    yield corpus, state_of(module_engine, "undisturbed", folder / "dead.jsonl"), totals(summary)
    module_engine.delete_index("undisturbed")


def totals(summary: IngestSummary) -> tuple[int, ...]:
    return summary.source, summary.indexed, summary.unchanged, summary.deleted, summary.dead


def told(summary: IngestSummary, proxy: FaultProxy) -> tuple[int, ...]:
    """The totals; what the engine got twice without the bridge knowing is `unchanged` the second time."""
    source, indexed, unchanged, deleted, dead = totals(summary)
    if proxy.done["twice_sent"]:
        return source, indexed + unchanged, 0, deleted, dead
    return source, indexed, unchanged, deleted, dead


def test_the_poison_is_what_is_dead(undisturbed: tuple[Path, State, tuple[int, ...]]) -> None:
    _, state, counts = undisturbed
    assert counts == (COUNT, COUNT - 15, 0, 0, 15)
    assert len(state.documents) == COUNT - 15
    assert len({reason.split(":")[0][:12] for _, _, reason in state.dead}) >= 4


@pytest.mark.parametrize("fault", FAULTS)
def test_a_load_through_a_fault_ends_like_one_without(
    fault: str, undisturbed: tuple[Path, State, tuple[int, ...]], opensearch_url: str, engine: Engine, index: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    corpus, state, counts = undisturbed
    register_for_poison(engine, index, corpus.parent / "model")
    with fault_proxy(opensearch_url, seeded_plan(7, 0.35, (fault,))) as proxy:
        with open_engine(settings=EngineSettings(url=proxy.url)) as through:
            summary = load(through, index, corpus, tmp_path / "dead.jsonl")
        assert proxy.done[fault] >= 2
    assert state_of(engine, index, tmp_path / "dead.jsonl") == state
    assert told(summary, proxy) == counts


@pytest.mark.parametrize("seed", range(3))
def test_a_load_through_all_faults_ends_like_one_without(
    seed: int, undisturbed: tuple[Path, State, tuple[int, ...]], opensearch_url: str, engine: Engine, index: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    corpus, state, counts = undisturbed
    register_for_poison(engine, index, corpus.parent / "model")
    with fault_proxy(opensearch_url, seeded_plan(seed, 0.4)) as proxy:
        with open_engine(settings=EngineSettings(url=proxy.url)) as through:
            summary = load(through, index, corpus, tmp_path / "dead.jsonl")
        assert sum(proxy.done.values()) >= 5
    assert state_of(engine, index, tmp_path / "dead.jsonl") == state
    assert told(summary, proxy) == counts
