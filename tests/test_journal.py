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


def test_what_is_added_after_half_a_line_is_not_taken_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "run.sent"
    path.write_bytes(b"0 3\n128 ff")
    journal = Journal(path)
    journal.intend(128, [True])
    journal.intend(129, [True])
    journal.close()
    assert Journal(path).before == {0, 1, 128, 129}


def test_a_kill_while_it_is_made_shorter_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.sent"
    journal = Journal(path)
    for first in range(0, 30, 3):
        journal.intend(first, [True] * 3)

    class Killed(BaseException):
        pass

    def killed(self: Path, target: Path) -> Path:
        assert (self, target) == (tmp_path / "run.sent.part", path)
        self.write_bytes(self.read_bytes()[:5])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            journal.settled(27)
    journal.close()
    # Nothing is forgotten, and half of the shorter one is no obstacle.
    again = Journal(path)
    assert again.before == set(range(30))
    again.settled(27)
    again.intend(30, [True])
    again.close()
    assert Journal(path).before == {27, 28, 29, 30}
    again.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run.sent")
    journal.intend(0, [True])
    journal.close()
    journal._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    with pytest.raises(CheckpointError, match="No space left on device; make room"):
        journal.intend(1, [True])
    journal.close()


def test_what_a_disk_takes_only_half_of_is_an_error(tmp_path: Path) -> None:
    class Half:
        def write(self, line: bytes) -> int:
            return len(line) // 2

    journal = Journal(tmp_path / "run.sent")
    journal.intend(0, [True])
    journal.close()
    journal._file = Half()  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match="No space left on device"):
        journal.intend(1, [True])
