"""What goes wrong on the client's side, or between it and the engine, in the middle of a load.

Each ends with one clear line and its exit code, loses nothing, and a later run comes to what an undisturbed one does.
"""

from __future__ import annotations

import gzip
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.engines import Engine
from tests.contract import test_connections as connections
from tests.contract.test_connections import USER, Guard, serving
from tests.faults.corpus import KINDS, State, state_of, write_corpus
from tests.faults.running import Done, Load, is_restored, load, slowed
from tests.test_cli_interruptions import Disk, mounted

DOCUMENTS = 6000
NO_DUPLICATES = tuple(kind for kind in KINDS if kind != "duplicate")
"""A second run into an index that is not empty lets a later document of an id replace the first."""

LETTER = 200
"""Bytes of a letter in the dead-letter file, at least."""


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a load comes to that is left alone."""

    folder: Path
    state: State
    totals: dict[str, int]

    def check(self, done: Done, one: Load, engine: Engine) -> None:
        """`done` went on with a load that broke off, and came to the same."""
        assert done.code == 3, done.err
        assert "going on with an interrupted run" in done.err
        assert done.totals == self.totals
        assert state_of(engine, one.index, one.letters) == self.state
        assert is_restored(engine, one.index)

    def check_again(self, done: Done, one: Load, engine: Engine) -> None:
        """`done` started over: what was in the index already is unchanged."""
        assert done.code == 3, done.err
        totals = done.totals
        assert totals | {"indexed": totals["indexed"] + totals["unchanged"], "unchanged": 0} == self.totals
        assert totals["unchanged"] > 0
        found = state_of(engine, one.index, one.letters)
        assert found.documents == self.state.documents
        # Letters of the run before stay.
        assert set(found.dead) >= set(self.state.dead)
        assert is_restored(engine, one.index)


@pytest.fixture(scope="module")
def undisturbed(module_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_corpus(folder / "corpus.jsonl", DOCUMENTS, kinds=NO_DUPLICATES)
    with load(folder, module_engine, "undisturbed-client", options=()) as one:
        done = one.run()
        assert done.code == 3, done.err
        state = state_of(module_engine, one.index, one.letters)
    assert (len(state.documents), len(state.dead)) == (DOCUMENTS - DOCUMENTS // 100, DOCUMENTS // 100)
    yield Undisturbed(folder, state, done.totals)
    module_engine.delete_index("undisturbed-client")


@pytest.fixture
def one(undisturbed: Undisturbed, tmp_path: Path, engine: Engine, index: str) -> Iterator[Load]:
    """The same load, not yet begun."""
    (tmp_path / "corpus.jsonl").write_bytes((undisturbed.folder / "corpus.jsonl").read_bytes())
    with slowed(engine) as url, load(tmp_path, engine, index, url=url) as found:
        yield found


def under_way(one: Load) -> None:
    one.start()
    one.wait(one.position)


# --- a full disk ------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if sys.platform != "linux":
        pytest.skip("only Linux can mount a small file system in memory")
    with mounted(tmp_path / "disk", "256k") as found:
        yield found


def test_no_room_for_checkpoint_and_journal(undisturbed: Undisturbed, one: Load, engine: Engine, disk: Disk) -> None:
    one.environment = {"BRIDGE_DATA_DIR": str(disk.folder / "data")}
    # Checkpoints are a second apart: one must still come.
    one.options = ("--chunk-documents", "4")
    under_way(one)
    disk.fill()
    done = one.end()
    assert done.code == 1
    assert done.out == ""
    assert f"{disk.folder}/data/checkpoints/" in done.error
    assert "cannot be written: No space left on device" in done.error
    assert "make room" in done.error
    assert is_restored(engine, one.index)
    (disk.folder / "filler").unlink()
    undisturbed.check(one.run(), one, engine)
    assert list((disk.folder / "data" / "checkpoints").iterdir()) == []


def test_no_room_for_dead_letters(undisturbed: Undisturbed, one: Load, engine: Engine, disk: Disk) -> None:
    (one.folder / one.letters.name).symlink_to(disk.folder / "letters")
    under_way(one)
    disk.fill()
    done = one.end()
    assert done.code == 1
    assert "the dead-letter file" in done.error
    assert "cannot be written: No space left on device" in done.error
    (disk.folder / "filler").unlink()
    undisturbed.check(one.run(), one, engine)


def limited(size: int) -> Callable[[], None]:
    """Lets no file of the process grow past so many bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_dead_letter_file_that_may_not_grow(undisturbed: Undisturbed, one: Load, engine: Engine) -> None:
    one.before = limited(LETTER * DOCUMENTS // 100 // 2)
    done = one.run()
    assert done.code == 1
    assert "the dead-letter file" in done.error
    assert "cannot be written: File too large" in done.error
    one.before = None
    undisturbed.check(one.run(), one, engine)


def test_a_checkpoint_that_may_not_be_written(undisturbed: Undisturbed, one: Load, engine: Engine) -> None:
    # Less than a checkpoint has, and more than what is said about it.
    one.before = limited(400)
    done = one.run()
    assert done.code == 1
    assert done.error.startswith("the checkpoint ")
    assert "cannot be written: File too large" in done.error
    one.before = None
    done = one.run()
    assert done.totals == undisturbed.totals
    assert state_of(engine, one.index, one.letters) == undisturbed.state


# --- an index that takes no writes ------------------------------------------------------------------

BLOCKS = ("index.blocks.write", "index.blocks.read_only_allow_delete", "index.blocks.read_only")


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_waited_for(undisturbed: Undisturbed, one: Load, engine: Engine, block: str) -> None:
    under_way(one)
    engine.put_settings(one.index, {block: True})
    one.wait(lambda: "the index takes no writes" in one.said())
    engine.put_settings(one.index, {block: None})
    done = one.end()
    assert done.code == 3, done.err
    assert done.totals == undisturbed.totals
    assert state_of(engine, one.index, one.letters) == undisturbed.state
    assert is_restored(engine, one.index)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_that_nobody_waits_for(undisturbed: Undisturbed, one: Load, engine: Engine, block: str) -> None:
    under_way(one)
    engine.put_settings(one.index, {block: True})
    one.wait(lambda: "the index takes no writes" in one.said())
    one.signal(signal.SIGTERM)
    done = one.end()
    assert done.code == 130
    assert "Traceback" not in done.err
    # Some blocks are of settings, too; then it says what puts them back.
    assert is_restored_once_open(engine, one, block) or "--finish puts them back" in done.err
    undisturbed.check(one.run(), one, engine)


def is_restored_once_open(engine: Engine, one: Load, block: str) -> bool:
    engine.put_settings(one.index, {block: None})
    return is_restored(engine, one.index)


# --- a password that is no longer good --------------------------------------------------------------


def test_a_revoked_password(
    undisturbed: Undisturbed, one: Load, engine: Engine, opensearch_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = Guard(node=opensearch_url)
    with serving(guard.handler()) as one.url:
        one.environment = {"OPENSEARCH_USERNAME": USER, "OPENSEARCH_PASSWORD": connections.PASSWORD}
        under_way(one)
        monkeypatch.setattr(connections, "PASSWORD", "another-password")
        done = one.end()
        assert done.code == 4
        assert "the engine refused the credentials (401)" in done.error
        assert "pw-" not in done.err
        assert "--finish puts them back" in done.err
        assert not is_restored(engine, one.index)
        one.environment = {"OPENSEARCH_USERNAME": USER, "OPENSEARCH_PASSWORD": "another-password"}
        undisturbed.check(one.run(), one, engine)


# --- a source, and a checkpoint, that are cut off ---------------------------------------------------


def test_a_source_that_ends_in_the_middle_of_a_line(undisturbed: Undisturbed, one: Load, engine: Engine) -> None:
    path = one.folder / "corpus.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b'"text"')])
    done = one.run()
    assert done.code == 3
    assert done.totals["source"] == DOCUMENTS
    assert done.totals["dead"] == undisturbed.totals["dead"] + 1
    last = max(state_of(engine, one.index, one.letters).dead, key=lambda letter: letter[1])
    assert last[1:] == (
        DOCUMENTS,
        f"not JSON: it ends too early (column {len(path.read_bytes().splitlines()[-1].rstrip()) + 1})",
    )
    path.write_bytes(whole)
    undisturbed.check_again(one.run(), one, engine)


def test_a_compressed_source_that_is_cut_off(undisturbed: Undisturbed, one: Load, engine: Engine) -> None:
    one.corpus = "corpus.jsonl.gz"
    path = one.folder / one.corpus
    whole = gzip.compress((one.folder / "corpus.jsonl").read_bytes())
    path.write_bytes(whole[: len(whole) // 2])
    done = one.run()
    assert done.code == 1
    assert done.error == "corpus.jsonl.gz: the gzip data ends too early; the file is cut off"
    path.write_bytes(whole)
    done = one.run()
    assert done.code == 1
    assert "the source has changed" in done.error
    assert "--fresh" in done.error
    undisturbed.check_again(one.run("--fresh"), one, engine)


def test_a_checkpoint_that_is_cut_off(undisturbed: Undisturbed, one: Load, engine: Engine) -> None:
    under_way(one)
    one.signal(signal.SIGKILL)
    one.end()
    (path,) = one.data.glob("checkpoints/*.json")
    path.write_bytes(path.read_bytes()[:40])
    done = one.run()
    assert done.code == 1
    assert "is damaged" in done.error
    assert "--fresh" in done.error
    undisturbed.check_again(one.run("--fresh"), one, engine)
