"""Pruning against a plain reference, and what it promises whatever the settings."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest

from bridge.encode.base import TokenVocabulary
from bridge.errors import UsageError
from bridge.prune import Pruning, parse_pruning
from bridge.records import SparseVector

VOCABULARY = TokenVocabulary([f"token{i}" for i in range(30_000)])
STRENGTHS: dict[str, list[float]] = {
    "top_k": [1, 2, 17, 128, 100_000],
    "max_ratio": [0.0, 0.05, 0.1, 0.4, 0.7, 1.0],
    "alpha_mass": [1e-9, 0.1, 0.5, 0.9, 0.999, 1.0],
    "threshold": [0.0, 0.1, 0.7, 1.3, 2.5, 1e6],
}


def random_vector(random: np.random.Generator, *, ties: bool = False, size: int | None = None) -> SparseVector:
    """Weights like a learned-sparse document's; with `ties`, many are equal."""
    size = int(random.integers(1, 300)) if size is None else size
    ids = np.sort(random.choice(len(VOCABULARY), size, replace=False)).astype(np.int32)
    weights = np.log1p(random.gamma(1.0, 1.0, size)).astype(np.float32)
    if ties:
        weights = np.maximum(np.round(weights, 1), np.float32(0.1))
    return SparseVector(ids, weights, VOCABULARY)


def reference(method: str, value: float, vector: SparseVector) -> dict[int, float]:
    ranked = sorted(as_pairs(vector).items(), key=lambda pair: (-pair[1], pair[0]))
    heaviest = ranked[0][1]
    if method == "top_k":
        kept = ranked[: int(value)]
    elif method == "max_ratio":
        kept = [pair for pair in ranked if pair[1] >= np.float32(value) * np.float32(heaviest)]
    elif method == "threshold":
        kept = [pair for pair in ranked if pair[1] >= np.float32(value)]
    else:
        sums = list(accumulate(weight for _, weight in ranked))
        kept = ranked[: 1 + next(n for n, mass in enumerate(sums) if mass >= value * sums[-1])]
    return dict(kept or ranked[:1])


def as_pairs(vector: SparseVector) -> dict[int, float]:
    return dict(zip(vector.ids.tolist(), vector.weights.tolist(), strict=True))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("method", STRENGTHS)
def test_each_method_equals_the_reference(method: str, ties: bool) -> None:
    random = np.random.default_rng(7)
    for _ in range(100):
        vector = random_vector(random, ties=ties)
        for value in STRENGTHS[method]:
            pruned = Pruning(**{method: value if method != "top_k" else int(value)}).apply(vector)
            assert as_pairs(pruned.vector) == reference(method, value, vector)
            assert pruned.vector.vocabulary is VOCABULARY
            assert pruned.vector.ids.dtype == np.int32
            assert pruned.vector.weights.dtype == np.float32
            assert np.all(np.diff(pruned.vector.ids) > 0)
            assert pruned.removed == len(vector) - len(pruned.vector)
            total = float(vector.weights.sum(dtype=np.float64))
            left = float(pruned.vector.weights.sum(dtype=np.float64))
            assert pruned.removed_mass == pytest.approx(total - left, abs=1e-9)


def test_combined_methods_apply_in_the_documented_order() -> None:
    random = np.random.default_rng(11)
    order = ("threshold", "max_ratio", "alpha_mass", "top_k")
    for _ in range(100):
        vector = random_vector(random, ties=True)
        settings = {"threshold": 0.2, "max_ratio": 0.15, "alpha_mass": 0.8, "top_k": 40}
        step_by_step, removed = vector, 0
        for method in order:
            pruned = Pruning(**{method: settings[method]}).apply(step_by_step)
            step_by_step, removed = pruned.vector, removed + pruned.removed
        at_once = Pruning(**settings).apply(vector)
        assert as_pairs(at_once.vector) == as_pairs(step_by_step)
        assert at_once.removed == removed


def test_the_order_matters_where_it_is_said_to() -> None:
    vector = SparseVector(np.arange(4, dtype=np.int32), np.array([4, 3, 2, 1], np.float32), VOCABULARY)
    # Of the 9 that threshold leaves, 4 + 3 are 0.75; of all 10 they would be only 0.7.
    assert Pruning(threshold=2, alpha_mass=0.75).apply(vector).vector.ids.tolist() == [0, 1]
    assert Pruning(alpha_mass=0.75).apply(vector).vector.ids.tolist() == [0, 1, 2]


def test_among_equal_weights_the_lower_id_stays() -> None:
    vector = SparseVector(np.array([3, 5, 8, 9], np.int32), np.array([1, 2, 1, 1], np.float32), VOCABULARY)
    assert Pruning(top_k=2).apply(vector).vector.ids.tolist() == [3, 5]
    assert Pruning(alpha_mass=0.7).apply(vector).vector.ids.tolist() == [3, 5, 8]


def test_a_vector_that_had_tokens_keeps_its_heaviest() -> None:
    random = np.random.default_rng(3)
    for size in (1, 2, 50):
        vector = random_vector(random, size=size)
        pruned = Pruning(threshold=1e9, max_ratio=1.0, alpha_mass=1e-12, top_k=1).apply(vector)
        assert pruned.vector.ids.tolist() == [int(vector.ids[np.argmax(vector.weights)])]
        assert pruned.removed == size - 1


def test_a_weight_that_prints_as_the_threshold_is_not_below_it() -> None:
    vector = SparseVector(np.arange(2, dtype=np.int32), np.array([1.0, 0.7], np.float32), VOCABULARY)
    assert Pruning(threshold=0.7).apply(vector).removed == 0
    assert Pruning(max_ratio=0.7).apply(vector).removed == 0


def test_all_of_the_mass_is_all_of_the_tokens() -> None:
    vector = SparseVector(np.arange(3, dtype=np.int32), np.array([1e8, 1.0, 1e-30], np.float32), VOCABULARY)
    assert Pruning(alpha_mass=1.0).apply(vector).removed == 0


def test_nothing_to_remove_is_the_same_vector() -> None:
    vector = random_vector(np.random.default_rng(5))
    assert Pruning().apply(vector).vector is vector
    assert Pruning(top_k=10_000).apply(vector).vector is vector
    empty = SparseVector(np.zeros(0, np.int32), np.zeros(0, np.float32), VOCABULARY)
    pruned = Pruning(top_k=1, threshold=3).apply(empty)
    assert (len(pruned.vector), pruned.removed, pruned.removed_mass) == (0, 0, 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top-k"),
        ({"top_k": 2.5}, "top-k"),
        ({"top_k": True}, "top-k"),
        ({"max_ratio": -0.1}, "max-ratio"),
        ({"max_ratio": 1.1}, "max-ratio"),
        ({"alpha_mass": 0.0}, "alpha-mass"),
        ({"alpha_mass": 1.5}, "alpha-mass"),
        ({"threshold": -1.0}, "threshold"),
        ({"threshold": float("inf")}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
    ],
)
def test_values_outside_their_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message} is "):
        Pruning(**settings)  # type: ignore[arg-type]


def test_the_command_line_form() -> None:
    assert parse_pruning("top-k=128,max-ratio=0.1") == Pruning(top_k=128, max_ratio=0.1)
    assert parse_pruning(" alpha_mass = 0.9 , threshold=0.05 ") == Pruning(alpha_mass=0.9, threshold=0.05)
    for pruning in (Pruning(top_k=1), Pruning(top_k=9, max_ratio=0.25, alpha_mass=1.0, threshold=1e-3)):
        assert parse_pruning(str(pruning)) == pruning
    assert str(Pruning()) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not METHOD=VALUE"),
        ("top-k", "is not METHOD=VALUE"),
        ("top-k=3,", "is not METHOD=VALUE"),
        ("best=3", "'best=3' is not METHOD=VALUE"),
        ("top-k=3,top_k=4", "twice"),
        ("top-k=1.5", "whole number"),
        ("max-ratio=a", "not a number"),
        ("max-ratio=", "not a number"),
        ("max-ratio=7", "between 0 and 1"),
    ],
)
def test_what_the_command_line_form_is_not(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_pruning(text)
