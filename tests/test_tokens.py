"""Tokens and weights between an encoder and an engine: keys, precision, limits."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from bridge.encode.base import OverlayVocabulary, TokenVocabulary
from bridge.encode.lookup import Wordpieces
from bridge.errors import DocumentError
from bridge.records import SparseVector
from bridge.tokens import (
    MAX_SEISMIC_ID,
    SMALLEST_WEIGHT,
    document_weights,
    dot,
    engine_weights,
    feature_key,
    field_value,
    heaviest,
    query_keys,
    rank_features_value,
    seismic_value,
    shortest,
    store_precision,
    token_of_key,
)
from tests.vectors import sparse_vector

DOT, ESCAPE = "\u2024", "\u2025"
SHORT_STRINGS = ["".join(letters) for length in range(7) for letters in product(f".a{DOT}{ESCAPE}", repeat=length)]


def vector(weights: dict[str, float]) -> SparseVector:
    return sparse_vector(enumerate(weights.values()), TokenVocabulary(tuple(weights)))


# --- Keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "key"),
    [
        ("weather", "weather"),
        (".", DOT),
        ("...", DOT * 3),
        ("##.", f"##{DOT}"),
        ("a.b", f"a{DOT}b"),
        ("", ESCAPE),
        (" ", " "),
        (DOT, ESCAPE + DOT),
        (ESCAPE, ESCAPE * 2),
        ("%2E", "%2E"),
    ],
)
def test_a_key_spells_dots_and_the_two_leaders_anew(token: str, key: str) -> None:
    assert feature_key(token) == key
    assert token_of_key(key) == token


def test_keys_of_all_strings_of_dots_and_leaders_differ_and_lead_back() -> None:
    keys = {feature_key(token) for token in SHORT_STRINGS}
    assert len(SHORT_STRINGS) == len(keys) == sum(4**n for n in range(7))
    assert [token for token in SHORT_STRINGS if token_of_key(feature_key(token)) != token] == []


def test_no_key_has_a_dot_or_is_empty() -> None:
    assert [token for token in SHORT_STRINGS if "." in feature_key(token) or not feature_key(token)] == []


def test_keys_of_the_bert_vocabulary_differ_and_only_three_tokens_are_spelt_anew(shared: Path) -> None:
    vocabulary = Wordpieces(shared / "bert-uncased").vocabulary
    tokens = [vocabulary.token(i) for i in range(len(vocabulary))]
    assert len({feature_key(token) for token in tokens}) == len(set(tokens)) == 30_522
    assert [token for token in tokens if feature_key(token) != token] == [".", "...", "##."]
    assert all(token_of_key(feature_key(token)) == token for token in tokens)


# --- Precision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "kept"),
    [(1.1, 1.09765625), (2.5, 2.5), (1.0, 1.0), (3.1415927, 3.140625), (SMALLEST_WEIGHT, SMALLEST_WEIGHT)],
)
def test_store_precision_clears_the_low_15_bits(weight: float, kept: float) -> None:
    assert store_precision(np.array([weight], np.float32)).tolist() == [kept]


def test_store_precision_loses_less_than_a_256th_and_never_rounds_up() -> None:
    weights = np.random.default_rng(4).lognormal(sigma=20, size=10_000).astype(np.float32)
    lost = 1 - store_precision(weights).astype(np.float64) / weights.astype(np.float64)
    assert lost.min() >= 0
    assert 2**-9 < lost.max() < 2**-8


def test_store_precision_is_idempotent_keeps_order_and_leaves_its_argument_alone() -> None:
    weights = np.sort(np.random.default_rng(5).lognormal(size=1000).astype(np.float32))
    before = weights.copy()
    once = store_precision(weights)
    assert np.array_equal(store_precision(once), once)
    assert np.all(np.diff(once) >= 0)
    assert np.array_equal(weights, before)


@pytest.mark.parametrize("weight", [0.0, -1.0, -0.0, 1e-39, float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_the_engines_refuse_is_a_document_error(weight: float) -> None:
    with pytest.raises(DocumentError, match="the model gave a weight"):
        engine_weights(np.array([1.0, weight], np.float32))


def test_weights_for_an_engine_are_at_store_precision_and_short() -> None:
    weights = np.concatenate(
        [
            np.random.default_rng(7).lognormal(sigma=9, size=2000).astype(np.float32),
            np.array([SMALLEST_WEIGHT, np.finfo(np.float32).max, 1, 0.1], np.float32),
        ]
    )
    found = engine_weights(weights)
    assert np.array_equal(np.array(found, np.float32), store_precision(weights))
    assert found == shortest(store_precision(weights))
    assert engine_weights(np.array([0.1], np.float32)) == [0.099853516]
    assert engine_weights(np.array([0.3], np.float32)) == [0.2998047]


def test_shortest_floats_read_back_to_the_same_bits() -> None:
    weights = np.random.default_rng(6).lognormal(size=1000).astype(np.float32)
    assert np.array_equal(np.array(shortest(weights), np.float32), weights)
    assert shortest(np.array([0.1, 5.7729], np.float32)) == [0.1, 5.7729]


# --- Document fields ----------------------------------------------------------------------------------------


def test_opensearch_documents_carry_a_dotted_token_raw_and_spelt_anew() -> None:
    assert rank_features_value(vector({"a": 1.0, "##.": 2.0, "a.b": 0.5}), "opensearch") == {
        "a": 1.0, f"##{DOT}": 2.0, "##.": 2.0, f"a{DOT}b": 0.5, "a.b": 0.5,
    }  # fmt: skip


def test_elasticsearch_documents_have_no_dotted_name() -> None:
    value = rank_features_value(vector({"a": 1.0, "##.": 2.0, "a.b": 0.5}), "elasticsearch")
    assert value == {"a": 1.0, f"##{DOT}": 2.0, f"a{DOT}b": 0.5}


def test_raw_and_respelt_names_of_all_short_strings_never_meet() -> None:
    value = rank_features_value(vector({token: 1.0 + i for i, token in enumerate(SHORT_STRINGS)}), "opensearch")
    dotted = [token for token in SHORT_STRINGS if "." in token]
    assert len(value) == len(SHORT_STRINGS) + len(dotted)


@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
def test_document_weights_undo_the_field(engine: str) -> None:
    weights = {token: 1.0 + i for i, token in enumerate(["a", ".", "...", "##.", "", " ", DOT, ESCAPE, f"a.{DOT}"])}
    value = field_value(vector(weights), "rank_features", engine)  # type: ignore[arg-type]
    assert document_weights(value, "rank_features", engine) == weights  # type: ignore[arg-type]


def test_seismic_documents_have_ids_for_names() -> None:
    value = field_value(vector({"a": 1.5, ".": 2.0}), "sparse_vector", "opensearch")
    assert value == {"0": 1.5, "1": 2.0}
    assert document_weights(value, "sparse_vector", "opensearch") == value


def test_seismic_refuses_ids_that_would_wrap_around() -> None:
    vocabulary = TokenVocabulary(["x"] * (MAX_SEISMIC_ID + 2))
    assert seismic_value(sparse_vector({MAX_SEISMIC_ID: 1.0}, vocabulary)) == {"32767": 1.0}
    with pytest.raises(DocumentError, match="32768 is past 32767"):
        seismic_value(sparse_vector({MAX_SEISMIC_ID + 1: 1.0}, vocabulary))


def test_an_empty_vector_is_an_empty_field() -> None:
    assert field_value(vector({}), "rank_features", "opensearch") == {}
    assert field_value(vector({}), "sparse_vector", "opensearch") == {}


# --- Queries ------------------------------------------------------------------------------------------------


def test_heaviest_keeps_the_heaviest_and_says_how_many_went() -> None:
    kept, dropped = heaviest(vector({"a": 1.0, "b": 3.0, "c": 2.0, "d": 0.5}), 2)
    assert (kept.as_dict(), dropped) == ({"b": 3.0, "c": 2.0}, 2)
    assert kept.ids.tolist() == [1, 2]


def test_heaviest_prefers_the_lower_id_among_equals() -> None:
    kept, dropped = heaviest(vector(dict.fromkeys("abcd", 1.0)), 3)
    assert (kept.tokens, dropped) == (("a", "b", "c"), 1)


def test_heaviest_leaves_a_short_vector_alone() -> None:
    whole = vector({"a": 1.0, "b": 2.0})
    assert heaviest(whole, 2) == (whole, 0)


def test_query_keys_keep_the_order_and_the_short_weights() -> None:
    assert list(query_keys(vector({"b": 0.1, ".": 2.0})).items()) == [("b", 0.1), (DOT, 2.0)]


def test_dot_sums_over_shared_tokens() -> None:
    assert dot({"a": 2.0, "b": 3.0, "x": 9.0}, {"b": 0.5, "a": 1.0, "y": 9.0}) == 3.5


# --- Vectors ------------------------------------------------------------------------------------------------


def test_a_sparse_vector_has_ascending_ids_and_positive_weights() -> None:
    found = sparse_vector({3: 1.0, 1: 2.0, 2: 0.0, 0: -1.0}, TokenVocabulary("abcd"))
    assert (found.ids.tolist(), found.weights.tolist(), found.tokens) == ([1, 3], [2.0, 1.0], ("b", "d"))
    assert (found.ids.dtype, found.weights.dtype) == (np.int32, np.float32)


def test_new_words_live_after_the_base_vocabulary_and_leave_it_alone() -> None:
    base = TokenVocabulary(["a", "b"])
    overlay = OverlayVocabulary(base)
    assert [overlay.id_of(token) for token in ("b", "new", "a", "newer", "new")] == [1, 2, 0, 3, 2]
    assert overlay.tokens(np.array([0, 2, 3], np.int32)) == ("a", "new", "newer")
    assert (len(overlay), len(base)) == (4, 2)
