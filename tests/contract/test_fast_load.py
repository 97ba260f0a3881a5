"""Loads without replicas: the copies are gone for their length, come back whatever ends them, and are waited for."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.engines import Engine, IndexState
from bridge.errors import EngineBusy, EngineForbidden
from bridge.loadsettings import (
    AUTO_REPLICAS,
    DURABILITY,
    LOAD_KEY,
    REFRESH,
    REPLICAS,
    await_copies,
    begin_load,
    finish_load,
    has_copies,
)
from tests.contract.conftest import module_engine, module_home
from tests.faults.corpus import state_of, write_corpus
from tests.faults.running import Load, load

__all__ = ["module_engine", "module_home"]

Bridge = Callable[..., tuple[int, str, str]]
SETTINGS = (REFRESH, REPLICAS, AUTO_REPLICAS, DURABILITY)


def settings(engine: Engine, index: str) -> dict[str, str | None]:
    state = engine.require_index(index)
    return {name: state.settings.get(name) for name in SETTINGS}


@pytest.fixture(
    params=[
        {},
        {"number_of_replicas": 2},
        {"auto_expand_replicas": "0-1"},
        {"number_of_replicas": 0, "refresh_interval": "7s", "translog.durability": "async"},
    ],
    ids=["default", "number", "auto", "none"],
)
def made(request: pytest.FixtureRequest, engine: Engine, index: str) -> str:
    """An index with settings of its own."""
    engine.create_index(index, {"settings": {"index": request.param}, "mappings": {"_meta": {"other": 1}}})
    return index


def test_settings_are_changed_and_put_back(engine: Engine, made: str) -> None:
    before = settings(engine, made)
    begin_load(engine, made, fresh=True, fast=True)
    during = settings(engine, made)
    assert (during[REFRESH], during[REPLICAS], during[AUTO_REPLICAS]) == ("-1", "0", "false")
    assert during[DURABILITY] in (None, "request")
    assert finish_load(engine, made)
    after = settings(engine, made)
    assert {name: value or "default" for name, value in after.items()} == {
        name: value or "default" for name, value in before.items()
    } or after == before | {AUTO_REPLICAS: "false"}
    assert engine.require_index(made).mappings["_meta"] == {"other": 1}
    assert not finish_load(engine, made)


def test_a_load_after_a_crashed_fast_one_brings_the_replicas_back_at_once(engine: Engine, made: str) -> None:
    before = settings(engine, made)
    begin_load(engine, made, fresh=True, fast=True)
    begin_load(engine, made, fresh=False)
    during = settings(engine, made)
    assert (during[REFRESH], during[REPLICAS]) == ("30s", before[REPLICAS])
    finish_load(engine, made)
    assert settings(engine, made)[REPLICAS] == before[REPLICAS]


def test_a_fast_load_after_a_crashed_one_keeps_what_was_kept(engine: Engine, made: str) -> None:
    before = settings(engine, made)
    for fast in (False, True, True):
        begin_load(engine, made, fresh=True, fast=fast)
    finish_load(engine, made)
    after = settings(engine, made)
    assert (after[REFRESH], after[REPLICAS], after[DURABILITY]) == (
        before[REFRESH],
        before[REPLICAS],
        before[DURABILITY],
    )


def test_an_index_that_is_gone_has_nothing_to_put_back(engine: Engine, index: str) -> None:
    assert not finish_load(engine, index)


# --- waiting for the copies ---------------------------------------------------------------------------------


def test_a_green_index_is_not_waited_for(engine: Engine, index: str) -> None:
    engine.create_index(index, {"settings": {"number_of_replicas": 0}})
    said: list[str] = []
    assert await_copies(engine, index, said.append)
    assert said == []


def test_copies_that_no_node_takes_are_not_waited_for_long(
    engine: Engine, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.create_index(index, {"settings": {"number_of_replicas": 2}})
    monkeypatch.setattr("bridge.loadsettings._STALLED", 0.5)
    said: list[str] = []
    assert not await_copies(engine, index, said.append)
    assert said == [
        f"the documents are in; waiting for 2 copies of the shards of {index}",
        f"{index} is yellow: no node takes 2 of its copies; add one, or fewer replicas",
    ]


class Recovering:
    """An engine whose copies are being made: one that answers as a cluster of several nodes does."""

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        self.answers = answers

    def index_health(self, name: str) -> dict[str, Any]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


COPYING = {"status": "yellow", "initializing_shards": 1, "unassigned_shards": 0}


def test_copies_that_are_being_made_are_waited_for() -> None:
    engine: Any = Recovering([COPYING, COPYING, {"status": "green"}])
    waited: list[float] = []
    assert await_copies(engine, "a", lambda line: None, sleep=waited.append)
    assert len(waited) == 2


def test_there_is_an_end_to_patience() -> None:
    said: list[str] = []
    engine: Any = Recovering([COPYING])
    assert not await_copies(engine, "a", said.append, patience=0.0, sleep=lambda seconds: None)
    assert said[-1] == "a is still yellow after 0 s: 1 copies are being made"


@pytest.mark.parametrize(
    ("there", "wanted"),
    [({}, False), ({REPLICAS: "0"}, False), ({REPLICAS: "1"}, True), ({REPLICAS: "0", AUTO_REPLICAS: "0-1"}, True)],
)
def test_whether_there_are_copies_to_do_without(there: dict[str, str], wanted: bool) -> None:
    assert has_copies(IndexState("a", "u", {}, there)) == wanted


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def one(tmp_path: Path, engine: Engine, index: str) -> Iterator[Load]:
    write_corpus(tmp_path / "corpus.jsonl", 6000)
    with load(tmp_path, engine, index) as found:
        engine.put_settings(index, {AUTO_REPLICAS: "false", REPLICAS: "1"})
        yield found


def test_a_fast_load_that_is_killed_and_gone_on_with(
    one: Load, engine: Engine, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(one.folder, engine, f"{index}-alone") as alone:
        said = alone.run()
        state = state_of(engine, alone.index, alone.letters)
        engine.delete_index(alone.index)
    one.start("--fast-load")
    one.wait(lambda: engine.refresh(index) or engine.count(index) > 1500)  # type: ignore[func-returns-value]
    assert "it has no replicas (--fast-load)" in one.said()
    assert settings(engine, index)[REPLICAS] == "0"
    one.signal(signal.SIGKILL)
    one.end()
    # Nothing was flushed, so the checkpoint has not moved; the journal knows what was sent.
    assert one.position() == 0
    done = one.run("--fast-load")
    assert done.totals == said.totals
    assert state_of(engine, index, one.letters) == state
    assert settings(engine, index)[REPLICAS] == "1"
    assert LOAD_KEY not in engine.require_index(index).mappings["_meta"]
    assert f"{index} is yellow: no node takes 1 of its copies; add one, or fewer replicas" in done.err


def test_a_fast_load_that_is_interrupted_keeps_its_place(one: Load, engine: Engine, index: str) -> None:
    one.start("--fast-load")
    one.wait(lambda: engine.refresh(index) or engine.count(index) > 1500)  # type: ignore[func-returns-value]
    one.signal(signal.SIGINT)
    assert one.end().code == 130
    # It was flushed on the way out.
    assert one.position() > 1000
    assert settings(engine, index)[REPLICAS] == "1"


def test_an_index_in_use_is_said_to_be(one: Load, engine: Engine, index: str) -> None:
    engine.request("PUT", f"/{index}/_doc/there", body=b'{"text": "x"}', params={"refresh": "true"})
    done = one.run("--fast-load")
    assert f"{index} is in use; until this load ends, it has no replicas (--fast-load)" in done.err


def test_a_checkpoint_stays_where_it_is_while_nothing_can_be_flushed(
    engine: Engine, index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridge.ingest import IngestOptions, ingest
    from bridge.sources import open_source

    monkeypatch.setattr("bridge.keeper.FLUSH_SECONDS", 0.0)
    write_corpus(tmp_path / "corpus.jsonl", 400)
    written: list[int] = []
    flushed: list[bool] = []

    def flush(name: str) -> None:
        flushed.append(len(flushed) % 2 == 0)
        if not flushed[-1]:
            raise EngineBusy("not now")

    monkeypatch.setattr(engine, "flush", flush)
    monkeypatch.setattr("bridge.keeper.write_checkpoint", lambda path, place: written.append(place.position))
    with open_source([str(tmp_path / "corpus.jsonl")]) as source:
        summary = ingest(engine, index, source, IngestOptions(fast_load=True, dead_letter=tmp_path / "dead"))
    assert summary.source == 400
    # One flush more at the end, tried until it succeeds.
    assert len(written) == sum(flushed[:400])

    def refused(name: str) -> None:
        raise EngineForbidden("never")

    monkeypatch.setattr(engine, "flush", refused)
    with open_source([str(tmp_path / "corpus.jsonl")]) as source, pytest.raises(EngineForbidden):
        ingest(engine, index, source, IngestOptions(fast_load=True, dead_letter=tmp_path / "dead"))


def test_json_says_where_the_time_went(bridge: Bridge, index: str, opensearch_url: str, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", 400)
    code, out, _ = bridge("ingest", index, "corpus.jsonl", "--json", url=opensearch_url)
    said = json.loads(out)
    assert code == 3
    assert 0 < said["encode_seconds"] < said["seconds"]
    assert 0 < said["engine_seconds"] < said["seconds"]
    assert said["encode_seconds"] + said["engine_seconds"] <= said["seconds"]
