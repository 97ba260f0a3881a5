"""Samples of sources: each item as likely as the other, and the number of all counted or well guessed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.records import Doc
from bridge.sampling import sample_of
from bridge.sources import Source, SourceOptions, open_source


class Ticking:
    """A clock whose time runs out after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> float:
        self.looks -= 1
        return 0.0 if self.looks >= 0 else 1e9


def rows(first: int, count: int) -> str:
    # The further on, the longer: a sample of the beginning alone would be wrong.
    return "".join(
        json.dumps({"_id": str(number), "text": "w" * (10 + number // 20)}) + "\n"
        for number in range(first, first + count)
    )


def corpus(folder: Path) -> list[str]:
    (folder / "a.jsonl").write_text(rows(0, 9000))
    return [str(folder / "a.jsonl")]


def several(folder: Path) -> list[str]:
    for part in range(9):
        (folder / f"{part}.jsonl").write_text(rows(1000 * part, 1000))
    return [str(folder / "*.jsonl")]


def packed(folder: Path) -> list[str]:
    for part in range(9):
        (folder / f"{part}.jsonl.gz").write_bytes(gzip.compress(rows(1000 * part, 1000).encode()))
    return [str(folder / "*.gz")]


def misnamed(folder: Path) -> list[str]:
    for part in range(9):
        (folder / f"{part}.jsonl").write_bytes(gzip.compress(rows(1000 * part, 1000).encode()))
    return [str(folder / "*.jsonl")]


def ids(source: Source, seconds: float, clock: Callable[[], float]) -> tuple[list[int], int, bool]:
    sample = sample_of(source, 500, seconds=seconds, clock=clock)
    found = [item for item in sample.items if isinstance(item, Doc)]
    assert len(found) == len(sample.items)
    return [int(item.id or "") for item in found], sample.count, sample.counted


@pytest.mark.parametrize("made", [corpus, several, packed])
def test_what_is_read_to_its_end_is_counted(made: Callable[[Path], list[str]], tmp_path: Path) -> None:
    with open_source(made(tmp_path)) as source:
        numbers, count, counted = ids(source, 1.0, Ticking(10_000))
    assert (len(numbers), count, counted) == (500, 9000, True)
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 500
    # Uniform over 0 to 8,999: mean 4,500, and the mean of 500 has a deviation of 116.
    assert 4000 < sum(numbers) / 500 < 5000


@pytest.mark.parametrize(("made", "near"), [(corpus, 0.02), (several, 0.02), (packed, 0.1), (misnamed, 0.1)])
def test_what_is_too_long_is_sampled_in_pieces(made: Callable[[Path], list[str]], near: float, tmp_path: Path) -> None:
    with open_source(made(tmp_path)) as source:
        numbers, count, counted = ids(source, 1.0, Ticking(2))
    assert not counted
    assert count == pytest.approx(9000, rel=near)
    assert 400 <= len(numbers) <= 600
    assert 4000 < sum(numbers) / len(numbers) < 5000
    # All nine tenths of it are in the sample.
    assert {number // 1000 for number in numbers} == set(range(9))


def test_a_condition_and_a_limit_count(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "".join(f'{{"_id": "{number}", "even": {number % 2}}}\n\n' for number in range(9000))
    )
    for options, count in ((SourceOptions(where="even == 0"), 4500), (SourceOptions(limit=4000), 4000)):
        with open_source([str(tmp_path / "a.jsonl")], options) as source:
            sample = sample_of(source, 500, clock=Ticking(2))
        assert not sample.counted
        assert sample.count == pytest.approx(count, rel=0.05)
        assert 400 <= len(sample.items) <= 600


def test_a_short_source_is_the_sample(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(rows(0, 3) + "nonsense\n")
    with open_source([str(tmp_path / "a.jsonl")]) as source:
        sample = sample_of(source, 500)
    assert (len(sample.items), sample.count, sample.counted) == (4, 4, True)


def test_an_empty_source(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with open_source([str(tmp_path / "a.jsonl")]) as source:
        assert sample_of(source, 500).count == 0
