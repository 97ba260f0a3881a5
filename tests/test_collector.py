"""How often the process looks for cycles while loads run."""

from __future__ import annotations

import gc
import weakref

import pytest

from bridge.collector import collecting_seldom


def test_cycles_are_looked_for_seldom_while_a_load_runs_and_as_before_after_it() -> None:
    before = gc.get_threshold()

    def load() -> None:
        with collecting_seldom():
            assert gc.get_threshold()[0] > before[0]
            raise InterruptedError("broke off")

    with pytest.raises(InterruptedError):
        load()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_of_loads_side_by_side_the_last_to_end_puts_the_thresholds_back() -> None:
    before = gc.get_threshold()
    first, second = collecting_seldom(), collecting_seldom()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] > before[0]
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before


def test_what_a_load_leaves_behind_is_gone_with_it() -> None:
    class Leaf:
        pass

    with collecting_seldom():
        leaf = Leaf()
        leaf.itself = leaf  # type: ignore[attr-defined]
        left = weakref.ref(leaf)
        del leaf
        assert left() is not None
    assert left() is None
