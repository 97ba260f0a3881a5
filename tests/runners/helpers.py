"""What the runners' tests do: encode, compare, look at processes.

BRIDGE_TEST_FULL=1 takes 20,000 passages instead of 1,000.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from bridge import load_encoder
from bridge.encodefile import EncodeOptions, EncodeSummary, encode_file
from bridge.runners.work import Encoded, Reading, Runner, Work
from bridge.sources import open_source

Bridge = Callable[..., tuple[int, str, str]]
Fails = Callable[..., str]

FULL = bool(os.environ.get("BRIDGE_TEST_FULL"))
WORKERS = 2


def write(corpus: Path, output: Path, model: Path, runner: Runner | None = None, **options: Any) -> EncodeSummary:
    with open_source([str(corpus)]) as source:
        return encode_file(source, output, load_encoder(model), EncodeOptions(**options), runner=runner)


def same_file(one: Path, other: Path) -> float:
    """Same ids in the same order with the same tokens; the largest difference of two weights."""
    worst = 0.0
    with one.open("rb") as left, other.open("rb") as right:
        for a, b in zip(left, right, strict=True):
            if a == b:
                continue
            a, b = json.loads(a), json.loads(b)
            assert a["id"] == b["id"]
            weights: dict[str, float] = dict(zip(a["tokens"], a["weights"], strict=True))
            others: dict[str, float] = dict(zip(b["tokens"], b["weights"], strict=True))
            for token in weights.keys() | others.keys():
                worst = max(worst, abs(weights.get(token, 0.0) - others.get(token, 0.0)))
    assert (
        one.with_name(f"{one.name}.dead-letter.jsonl").read_bytes()
        == other.with_name(f"{other.name}.dead-letter.jsonl").read_bytes()
    )
    return worst


def same_totals(one: EncodeSummary, other: EncodeSummary) -> None:
    names = ("source", "encoded", "dead", "model")
    assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    assert one.active_terms == pytest.approx(other.active_terms, abs=0.02)


def running(word: str) -> list[int]:
    """The processes whose command line holds `word`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                word.encode() in (folder / "cmdline").read_bytes()
                and "Z" not in (folder / "stat").read_text().split()[2]
            ):
                found.append(int(folder.name))
    return found


def children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{parent}\n" in (folder / "status").read_text():
                found.append(int(folder.name))
    return found


def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


class After:
    """A runner during whose work something happens, after so many batches."""

    def __init__(self, runner: Runner, batches: int, happens: Callable[[], None]) -> None:
        self.runner, self.batches, self.happens = runner, batches, happens

    def run(self, reading: Reading, work: Work) -> Generator[Encoded, None, None]:
        with contextlib.closing(self.runner.run(reading, work)) as results:
            for number, encoded in enumerate(results):
                if number == self.batches:
                    self.happens()
                yield encoded
