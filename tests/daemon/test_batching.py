"""Texts of many threads in one batch: nobody gets another's vector, nobody waits for others to come."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bridge.daemon.batching import Batcher, Overloaded
from bridge.encode.base import TokenVocabulary
from bridge.records import SparseVector

VOCABULARY = TokenVocabulary([f"t{i}" for i in range(1000)])


def vector_of(text: str) -> SparseVector:
    return SparseVector(np.array([int(text)], np.int32), np.array([1.0 + int(text)], np.float32), VOCABULARY)


class Model:
    """Encodes numbers; may be held."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Semaphore(0)

    def __call__(self, texts: Sequence[str]) -> list[SparseVector]:
        self.batches.append(list(texts))
        self.entered.release()
        assert self.go.wait(30)
        if "666" in texts:
            raise ValueError("no such number")
        return list(map(vector_of, texts))


def test_every_text_gets_its_own_vector() -> None:
    model = Model()
    batcher = Batcher(model, tokens=64, queued=10_000, name="test")
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: batcher([str(n), str(n + 1)]), range(0, 600, 2)))
    batcher.close()
    assert [[int(one.ids[0]) for one in pair] for pair in found] == [[n, n + 1] for n in range(0, 600, 2)]
    assert sum(map(len, model.batches)) == 600
    assert (batcher.texts, batcher.batches) == (600, len(model.batches))


def test_what_comes_while_it_is_busy_is_one_batch() -> None:
    model = Model()
    model.go.clear()
    batcher = Batcher(model, tokens=1000, queued=100, name="test")
    first = batcher.submit(["1"])
    assert model.entered.acquire(timeout=10)
    others = [batcher.submit([str(n)]) for n in range(2, 8)]
    assert batcher.waiting == 6
    model.go.set()
    assert [int(future.result(10).ids[0]) for (future,) in (first, *others)] == list(range(1, 8))
    batcher.close()
    # The first did not wait for the others; these came together.
    assert model.batches == [["1"], ["2", "3", "4", "5", "6", "7"]]


def test_a_batch_is_no_larger_than_allowed() -> None:
    model = Model()
    model.go.clear()
    batcher = Batcher(model, tokens=9, queued=100, name="test")
    futures = batcher.submit(["1"])
    assert model.entered.acquire(timeout=10)
    # Two tokens each, and one that is longer than all that is allowed: it goes alone.
    futures += batcher.submit([str(n) for n in range(2, 10)])
    futures += batcher.submit(["0" * 99 + "7"])
    model.go.set()
    for future in futures:
        future.result(10)
    batcher.close()
    assert [len(batch) for batch in model.batches] == [1, 4, 4, 1]


def test_more_than_may_wait_is_refused_whole() -> None:
    model = Model()
    model.go.clear()
    batcher = Batcher(model, tokens=1000, queued=3, name="test")
    futures = batcher.submit(["1"])
    assert model.entered.acquire(timeout=10)
    futures += batcher.submit(["2", "3"])
    with pytest.raises(Overloaded, match="2 texts wait"):
        batcher.submit(["4", "5"])
    futures += batcher.submit(["4"])
    model.go.set()
    assert [int(future.result(10).ids[0]) for future in futures] == [1, 2, 3, 4]
    batcher.close()


def test_an_error_is_of_those_who_were_in_the_batch() -> None:
    model = Model()
    batcher = Batcher(model, tokens=1000, queued=100, name="test")
    with pytest.raises(ValueError, match="no such number"):
        batcher(["666"])
    assert int(batcher(["5"])[0].ids[0]) == 5
    batcher.close()


def test_what_nobody_waits_for_any_more_is_not_encoded() -> None:
    model = Model()
    model.go.clear()
    batcher = Batcher(model, tokens=1000, queued=100, name="test")
    (first,) = batcher.submit(["1"])
    assert model.entered.acquire(timeout=10)
    (gone,) = batcher.submit(["2"])
    assert gone.cancel()
    model.go.set()
    first.result(10)
    batcher.close()
    assert model.batches == [["1"]]


def test_after_its_end_it_takes_nothing() -> None:
    batcher = Batcher(Model(), tokens=1000, queued=100, name="test")
    batcher.close()
    with pytest.raises(Overloaded, match="shutting down"):
        batcher.submit(["1"])
