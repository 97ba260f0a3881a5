"""Vectors written a batch at a time: byte for byte what each is alone."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.encode.base import OverlayVocabulary, TokenVocabulary
from bridge.errors import DocumentError
from bridge.featuretext import FeatureText
from bridge.readyfile import ready_value
from bridge.records import Product, ReadyVector, SparseVector
from bridge.tokens import SMALLEST_WEIGHT, field_value

TOKENS = [
    ".",
    "sea",
    "##.",
    "a.b",
    "",
    "\u2024",
    "\u2025x",
    '"',
    "\\",
    "caf\u00e9",
    "\u4e2d",
    "\n",
    "\ud800",
    *(f"t{i}" for i in range(40)),
]
SURROGATE = TOKENS.index("\ud800")
VOCABULARY = TokenVocabulary(TOKENS)

Weight = st.floats(SMALLEST_WEIGHT, 2.0**127, width=32) | st.floats(2.0**-10, 10, width=32)
Entries = st.dictionaries(st.integers(0, len(TOKENS) - 1).filter(lambda i: i != SURROGATE), Weight, max_size=30)


def vector(entries: dict[int, float], vocabulary: TokenVocabulary | OverlayVocabulary = VOCABULARY) -> SparseVector:
    ids = np.array(sorted(entries), dtype=np.int32)
    return SparseVector(ids, np.array([entries[i] for i in ids.tolist()], dtype=np.float32), vocabulary)


def alone(one: SparseVector, product: Product) -> bytes:
    return msgspec.json.encode(field_value(one, "rank_features", product))


def check(vectors: list[SparseVector]) -> None:
    for one, written in zip(vectors, FeatureText(VOCABULARY, start=0).of(vectors), strict=True):
        if not len(one):
            assert written is one
            continue
        assert isinstance(written, ReadyVector)
        for product in ("opensearch", "elasticsearch"):
            assert bytes(ready_value(written, product)) == alone(one, product)


@settings(deadline=None)
@given(st.lists(Entries, max_size=20))
def test_any_vectors(batch: list[dict[int, float]]) -> None:
    check(list(map(vector, batch)))


@pytest.mark.parametrize("weight", [0.0, -1.0, SMALLEST_WEIGHT / 2, np.inf, -np.inf, np.nan])
def test_a_weight_that_no_engine_takes_is_refused_as_ever_and_spoils_no_other(weight: float) -> None:
    vectors = [vector({1: 2.0, 5: 0.5}), vector({0: 1.0, 7: weight, 9: 1.0}), vector({13: 0.25})]
    written = FeatureText(VOCABULARY, start=0).of(vectors)
    assert written[1] is vectors[1]
    with pytest.raises(DocumentError, match="weight"):
        alone(vectors[1], "opensearch")
    for place in (0, 2):
        one = written[place]
        assert isinstance(one, ReadyVector)
        assert bytes(ready_value(one, "opensearch")) == alone(vectors[place], "opensearch")


@settings(deadline=None)
@given(st.lists(st.tuples(Entries, st.dictionaries(st.sampled_from(["new", "néw", "\u2024", "x\u2025"]), Weight))))
def test_tokens_that_lie_over_the_vocabulary(batch: list[tuple[dict[int, float], dict[str, float]]]) -> None:
    overlay = OverlayVocabulary(VOCABULARY)
    vectors = [
        vector(listed | {overlay.id_of(token): weight for token, weight in new.items()}, overlay)
        for listed, new in batch
    ]
    check(vectors)


def test_what_is_written_in_another_way_is_left_as_it_is() -> None:
    overlay = OverlayVocabulary(VOCABULARY)
    dotted, unwritable = overlay.id_of("new.one"), overlay.id_of("new\ud800")
    vectors = [
        vector({0: 1.0, dotted: 2.0}, overlay),
        vector({0: 1.0, unwritable: 2.0}, overlay),
        vector({0: 1.0, 1: 2.0}, overlay),
        vector({0: 1.0}, TokenVocabulary(["other"])),
        vector({0: 1.0, SURROGATE: 1.0}),
        vector({}),
    ]
    written = FeatureText(VOCABULARY, start=0).of(vectors)
    same = [one is given for one, given in zip(written, vectors, strict=True)]
    assert same == [True, True, False, True, True, True]
    one = written[2]
    assert isinstance(one, ReadyVector)
    assert bytes(ready_value(one, "opensearch")) == alone(vectors[2], "opensearch")


def test_few_vectors_are_not_worth_a_table() -> None:
    text = FeatureText(VOCABULARY, start=3)
    batch = [vector({0: 1.0}), vector({1: 1.0})]
    assert text.of(batch) == batch
    assert text.of(batch) == batch
    assert text._table is None
    assert all(isinstance(one, ReadyVector) for one in text.of(batch))
    assert text.of([]) == []
