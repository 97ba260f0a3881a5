"""What an interrupted run had handed to the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import CheckpointError
from bridge.journal import Journal


def test_what_was_intended_after_the_checkpoint_is_known_to_the_run_that_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.sent")
    journal.intend(0, [True, False, True])
    journal.intend(3, [True, True])
    journal.settled(3)
    journal.intend(5, [False, False, True])
    journal.close()
    assert Journal(tmp_path / "run.sent").before == {3, 4, 7}


def test_a_second_kill_forgets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.sent"
    first = Journal(path)
    first.intend(0, [True] * 6)
    first.intend(6, [False] * 2)
    first.close()
    second = Journal(path)
    second.intend(2, [True] * 2)
    second.settled(4)
    second.close()
    assert Journal(path).before == {0, 1, 2, 3, 4, 5}


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.sent"
    path.write_bytes(b"0 3\n128 ff")
    assert Journal(path).before == {0, 1}


def test_the_end_of_a_run_takes_it_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.sent")
    journal.intend(0, [True])
    journal.remove()
    assert list(tmp_path.iterdir()) == []
    assert Journal(tmp_path / "run.sent").before == frozenset()


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot be (read|written)"):
        Journal(tmp_path / "file" / "run.sent").intend(0, [True])
