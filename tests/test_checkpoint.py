"""The checkpoint and the dead-letter file: what an interrupted run leaves, and what the next makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from bridge.checkpoint import Checkpoint, check_same_run, read_checkpoint, write_checkpoint
from bridge.deadletter import DeadLetterFile
from bridge.errors import CheckpointError, SourceError
from bridge.records import BulkOutcome, Position

RUN = Checkpoint(
    source="s",
    model="m",
    index_uuid="u",
    operation="create",
    position=7,
    indexed=4,
    unchanged=1,
    deleted=1,
    dead=1,
    dead_letter="/tmp/letters.jsonl",
    dead_letter_bytes=99,
)


def dead(line: int) -> BulkOutcome:
    return BulkOutcome(Position("c.jsonl", line), None, "dead", reason="no id: é", document={"text": "x"})


def lines(path: Path) -> list[int]:
    return [json.loads(line)["line"] for line in path.read_text("utf-8").splitlines()]


# --- Checkpoint ---------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "run.json"
    write_checkpoint(path, RUN)
    assert read_checkpoint(path) == RUN


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "run.json") is None


def test_writing_replaces_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_checkpoint(path, RUN)
    later = msgspec.structs.replace(RUN, position=8)
    write_checkpoint(path, later)
    assert read_checkpoint(path) == later
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_crash_before_the_replacement_leaves_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_checkpoint(path, RUN)
    path.with_suffix(".part").write_bytes(b'{"half')
    assert read_checkpoint(path) == RUN
    write_checkpoint(path, RUN)
    assert read_checkpoint(path) == RUN


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\0\0",
        b"\xff\xfe",
        b"[]",
        b"{}",
        msgspec.json.encode(RUN)[:-10],
        msgspec.json.encode(RUN).replace(b'"position":7', b'"position":"7"'),
        msgspec.json.encode(RUN).replace(b'"position"', b'"positron"'),
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_names_it_and_the_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the checkpoint .*run\.json is damaged .*--fresh"):
        read_checkpoint(path)


def test_a_checkpoint_that_cannot_be_read_or_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_checkpoint(path, RUN)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("source", "the source has changed"), ("model", "the model is another"), ("index_uuid", "the index is another")],
)
def test_another_run_is_refused_and_says_what_differs(tmp_path: Path, name: str, reason: str) -> None:
    now = msgspec.structs.replace(RUN, **{name: "another"})
    with pytest.raises(CheckpointError, match=f"document 7: {reason}.*--fresh"):
        check_same_run(RUN, now, tmp_path / "run.json")


def test_the_same_run_at_its_beginning_is_accepted(tmp_path: Path) -> None:
    now = Checkpoint(source="s", model="m", index_uuid="u", operation="index", dead_letter="/elsewhere")
    check_same_run(RUN, now, tmp_path / "run.json")


# --- Dead letters -------------------------------------------------------------------------------------------


def test_a_letter_is_one_line_of_five_keys(tmp_path: Path) -> None:
    letters = DeadLetterFile(tmp_path / "new" / "dead.jsonl", 0)
    letters.append(dead(3))
    assert letters.sync() == letters.path.stat().st_size
    letters.close()
    text = letters.path.read_text("utf-8")
    assert text == '{"file":"c.jsonl","line":3,"id":null,"reason":"no id: é","document":{"text":"x"}}\n'


def test_without_letters_there_is_no_file(tmp_path: Path) -> None:
    letters = DeadLetterFile(tmp_path / "dead.jsonl", 0)
    assert letters.sync() == 0
    letters.close()
    assert not letters.path.exists()


def test_letters_of_earlier_runs_stay(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    for line in (1, 2):
        letters = DeadLetterFile(path, path.stat().st_size if path.exists() else 0)
        letters.append(dead(line))
        letters.close()
    assert lines(path) == [1, 2]


def test_what_was_written_past_the_checkpoint_is_not_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    letters = DeadLetterFile(path, 0)
    letters.append(dead(1))
    checkpointed = letters.sync()
    letters.append(dead(2))
    letters.close()
    again = DeadLetterFile(path, checkpointed)
    again.append(dead(2))
    again.append(dead(3))
    assert again.sync() == path.stat().st_size
    again.close()
    assert lines(path) == [1, 2, 3]


def test_the_length_counts_what_is_not_yet_on_the_disk(tmp_path: Path) -> None:
    letters = DeadLetterFile(tmp_path / "dead.jsonl", 0)
    assert letters.length == 0
    letters.append(dead(1))
    before = letters.length
    assert before > 0
    letters.append(dead(2))
    assert letters.length > before
    assert letters.length == letters.sync() == letters.path.stat().st_size
    letters.close()


def test_letters_that_another_run_wrote_since_stay(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    interrupted = DeadLetterFile(path, 0)
    interrupted.append(dead(1))
    checkpointed = interrupted.sync()
    interrupted.close()
    between = DeadLetterFile(path, checkpointed)
    between.append(dead(100))
    between.close()
    resumed = DeadLetterFile(path, checkpointed)
    resumed.append(dead(2))
    resumed.close()
    assert lines(path) == [1, 100, 2]


def test_two_equal_letters_of_one_run_are_two(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    for _ in range(2):
        letters = DeadLetterFile(path, 0)
        letters.append(dead(1))
        letters.append(dead(1))
        letters.close()
    assert lines(path) == [1, 1]


def test_a_letter_cut_off_in_its_middle_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    letters = DeadLetterFile(path, 0)
    letters.append(dead(1))
    checkpointed = letters.sync()
    letters.close()
    with path.open("ab") as file:
        file.write(b'{"file":"c.jso')
    DeadLetterFile(path, checkpointed).close()
    assert lines(path) == [1]


def test_a_file_that_the_user_took_away_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    letters = DeadLetterFile(path, 5000)
    letters.append(dead(9))
    assert letters.sync() == path.stat().st_size
    letters.close()
    assert lines(path) == [9]


def test_a_dead_letter_file_that_cannot_be_written_ends_the_run_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    letters = DeadLetterFile(tmp_path / "file" / "dead.jsonl", 0)
    with pytest.raises(SourceError, match=r"cannot be written.*--dead-letter"):
        letters.append(dead(1))
