"""`bridge.encode.callers`: batches side by side."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from bridge.encode.callers import Callers, _malloc_trim, _trim


def test_batches_of_several_run_at_once_with_one_thread_each() -> None:
    together = threading.Barrier(2, timeout=10)
    done: dict[int, int] = {}

    def work(rows: list[int], threads: int) -> None:
        together.wait()
        done[rows[0]] = threads

    Callers(2).each(work, [[1, 2], [3]])
    assert done == {1: 1, 3: 1}


def test_a_lone_batch_is_shared_out_and_a_lone_row_gets_all_threads() -> None:
    seen: list[tuple[list[int], int]] = []
    callers = Callers(3)
    callers.each(lambda rows, threads: seen.append((rows, threads)), [[7, 5, 3, 1]])
    assert sorted(seen) == [([3, 1], 1), ([7, 5], 1)]
    seen.clear()
    callers.each(lambda rows, threads: seen.append((rows, threads)), [[4]])
    callers.each(lambda rows, threads: seen.append((rows, threads)), [])
    assert seen == [([4], 3)]


def test_one_thread_works_in_order_on_the_thread_that_asks() -> None:
    seen: list[tuple[list[int], int]] = []
    Callers(1).each(lambda rows, threads: seen.append((rows, threading.get_ident())), [[1, 2], [3]])
    assert seen == [([1, 2], threading.get_ident()), ([3], threading.get_ident())]


def test_each_thread_begins_once_and_what_fails_is_raised() -> None:
    begun: list[int] = []
    callers = Callers(2, lambda: begun.append(threading.get_ident()))

    def work(rows: list[int], threads: int) -> None:
        if rows == [13]:
            raise ValueError("thirteen")

    for _ in range(3):
        callers.each(work, [[1], [2], [3], [4]])
    assert len(begun) == len(set(begun)) == 2
    with pytest.raises(ValueError, match="thirteen"):
        callers.each(work, [[1], [13]])


@pytest.mark.parametrize("count", [1, 2])
def test_freed_memory_goes_back_every_few_batches(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[None] = []
    monkeypatch.setattr("bridge.encode.callers._trim", lambda: trimmed.append(None))
    Callers(count).each(lambda rows, threads: None, [[row] for row in range(20)])
    assert len(trimmed) == 2
    Callers(count).each(lambda rows, threads: None, [[1]])
    assert len(trimmed) == 2  # a query does not wait for it


@pytest.mark.skipif(not sys.platform.startswith("linux") or _malloc_trim() is None, reason="not Linux with glibc")
def test_trimming_gives_the_system_what_was_freed() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    held = [bytes(20_000) for _ in range(5_000)]
    keeps_the_heap_from_shrinking = bytes(20_000)
    peak = resident()
    del held
    _trim()
    assert peak - resident() > 50_000_000
    assert keeps_the_heap_from_shrinking
