"""Inference-free queries over the real tokenizer and IDF table, and over small ones made here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from bridge.encode import Encoder, load_encoder
from bridge.encode.lookup import LookupEncoder, Wordpieces
from bridge.errors import ModelFormatError, ModelNotFound, UsageError

WEATHER = "What's the weather in ny now?"


@pytest.fixture(scope="module")
def bert(shared: Path) -> Encoder:
    return load_encoder(shared / "bert-uncased")


def query(encoder: Encoder, text: str) -> dict[str, float]:
    return encoder.encode_query([text])[0].as_dict()


def small_folder(folder: Path, idf: dict[str, float] | None = None) -> Path:
    """A model of six tokens, whose tokenizer splits at spaces, truncates and pads."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "red": 3, "blue": 4, "green": 5}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = [token for token in vocabulary if token.startswith("[")]
    added = [{"id": vocabulary[token], "content": token, "special": True, **plain} for token in special]
    tokenizer = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if idf is not None:
        (folder / "idf.json").write_text(json.dumps(idf))
    return folder


# --- The published example ----------------------------------------------------------------------------------


def test_the_weights_of_the_published_example(bert: Encoder) -> None:
    found = query(bert, WEATHER)
    golden = {"ny": 5.7729, "weather": 4.5684, "now": 3.5895}
    assert {token: round(found[token], 4) for token in golden} == golden
    assert round(query(bert, "york")["york"], 4) == 4.5798


def test_the_example_has_just_its_own_tokens(bert: Encoder) -> None:
    assert set(query(bert, WEATHER)) == {"what", "'", "s", "the", "weather", "in", "ny", "now", "?"}


def test_every_weight_is_the_tables(bert: Encoder, shared: Path) -> None:
    table = json.loads((shared / "bert-uncased" / "idf.json").read_text("utf-8"))
    assert all(weight == np.float32(table[token]) for token, weight in query(bert, WEATHER).items())


# --- Rules --------------------------------------------------------------------------------------------------


def test_repeated_tokens_count_once_and_order_does_not_matter(bert: Encoder) -> None:
    assert query(bert, "weather now weather WEATHER now") == query(bert, "now weather")


def test_special_tokens_and_the_unknown_token_are_left_out(bert: Encoder) -> None:
    assert set(query(bert, "[CLS] weather [SEP] [MASK] [PAD] [UNK] \U0001f9ff")) == {"weather"}


def test_a_token_that_the_table_lacks_weighs_one(tmp_path: Path) -> None:
    encoder = load_encoder(small_folder(tmp_path / "small", {"red": 2.5}))
    assert query(encoder, "red blue") == {"red": 2.5, "blue": 1.0}


def test_a_table_entry_that_the_tokenizer_lacks_is_passed_over(tmp_path: Path) -> None:
    encoder = load_encoder(small_folder(tmp_path / "small", {"red": 2.5, "mauve": 9.0}))
    assert query(encoder, "mauve red") == {"red": 2.5}


def test_a_token_of_weight_zero_asks_for_nothing(tmp_path: Path) -> None:
    encoder = load_encoder(small_folder(tmp_path / "small", {"red": 0.0, "blue": 2.0}))
    assert query(encoder, "red blue") == {"blue": 2.0}


def test_a_tokenizers_own_truncation_and_padding_are_off(tmp_path: Path) -> None:
    encoder = load_encoder(small_folder(tmp_path / "small", {}))
    assert set(query(encoder, "red blue green mauve")) == {"red", "blue", "green"}


@pytest.mark.parametrize("text", ["", " ", "\n", "[CLS]"])
def test_a_query_without_tokens_is_an_empty_vector(bert: Encoder, text: str) -> None:
    assert query(bert, text) == {}


def test_encoding_alone_equals_encoding_in_a_batch(bert: Encoder) -> None:
    texts = [WEATHER, "", "a much longer query about the history of new york " * 20, "now"]
    together = [vector.as_dict() for vector in bert.encode_query(texts)]
    assert together == [query(bert, text) for text in texts]


def test_vectors_have_ascending_int32_ids_float32_weights_and_their_tokens(bert: Encoder, shared: Path) -> None:
    (vector,) = bert.encode_query([WEATHER])
    vocabulary = json.loads((shared / "bert-uncased" / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    assert (vector.ids.dtype, vector.weights.dtype) == (np.int32, np.float32)
    assert np.all(np.diff(vector.ids) > 0)
    assert [vocabulary[token] for token in vector.tokens] == vector.ids.tolist()
    assert len(vector.ids) == len(vector.weights) == len(vector.tokens) == 9


def test_the_vocabulary_is_the_tokenizers(shared: Path) -> None:
    pieces = Wordpieces(shared / "bert-uncased")
    assert len(pieces.vocabulary) == 30_522
    assert {pieces.vocabulary.token(i) for i in pieces.special} == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


# --- Identity -----------------------------------------------------------------------------------------------


def test_another_table_is_another_encoder_of_the_same_space(tmp_path: Path) -> None:
    one = LookupEncoder(small_folder(tmp_path / "one", {"red": 1.0}))
    same = LookupEncoder(small_folder(tmp_path / "same", {"red": 1.0}))
    other = LookupEncoder(small_folder(tmp_path / "other", {"red": 2.0}))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.space == other.space


def test_documents_are_refused_with_the_way_out(bert: Encoder) -> None:
    assert not bert.encodes_documents
    with pytest.raises(UsageError, match=r"encodes queries only.*bridge fit"):
        bert.encode_document(["a text"])


# --- Folders ------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFormatError, match=r"it has no tokenizer\.json"):
        load_encoder(tmp_path / "empty")
    with pytest.raises(ModelFormatError, match=r"has a tokenizer\.json but no idf\.json.*bridge fit"):
        load_encoder(small_folder(tmp_path / "no-table"))
    with pytest.raises(ModelNotFound, match="no model nothing-here"):
        load_encoder("nothing-here")
    with pytest.raises(ModelFormatError, match="is a file; a model is a folder"):
        load_encoder(small_folder(tmp_path / "a") / "tokenizer.json")


@pytest.mark.parametrize("table", ['{"red": "heavy"}', "[1, 2]", "{", '{"red": null}', ""])
def test_a_table_that_is_none_is_refused(tmp_path: Path, table: str) -> None:
    folder = small_folder(tmp_path / "small")
    (folder / "idf.json").write_text(table)
    with pytest.raises(ModelFormatError, match="is not a JSON object of token weights"):
        load_encoder(folder)


@pytest.mark.parametrize("content", ["{}", "[]", "no json", ""])
def test_a_tokenizer_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    folder = small_folder(tmp_path / "small", {})
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelFormatError, match="is not a tokenizer"):
        load_encoder(folder)


def bert_pieces(shared: Path) -> Tokenizer:
    return Tokenizer.from_file(str(shared / "bert-uncased" / "tokenizer.json"))


def with_added(shared: Path) -> Tokenizer:
    tokenizer = bert_pieces(shared)
    tokenizer.add_tokens(["entirely-new", "dog"])
    tokenizer.add_special_tokens(["[Q]"])
    return tokenizer


def unigrams(shared: Path) -> Tokenizer:
    return Tokenizer(models.Unigram([("<unk>", 0.0), ("▁red", -1.0), ("▁blue", -2.0)], unk_id=0))


@pytest.mark.parametrize("make", [bert_pieces, with_added, unigrams])
def test_the_vocabulary_is_the_tokenizers_own(shared: Path, tmp_path: Path, make: Callable[[Path], Tokenizer]) -> None:
    make(shared).save(str(tmp_path / "tokenizer.json"))
    listed = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab(with_added_tokens=True)
    vocabulary = Wordpieces(tmp_path).vocabulary
    assert dict(vocabulary.index) == listed
    assert [vocabulary.token(i) for i in listed.values()] == list(listed)
