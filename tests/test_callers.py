"""`bridge.encode.callers`: batches side by side."""

from __future__ import annotations

import threading

import pytest

from bridge.encode.callers import Callers


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
