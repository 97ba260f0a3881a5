"""The lexical model: a dot product of its two vectors is BM25, as a textbook would compute it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bridge.encode import Encoder, load_encoder
from bridge.encode.lexical import LexicalEncoder
from bridge.errors import ModelFormatError
from bridge.fit import FitOptions, fit
from bridge.tokens import dot

CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "a lazy afternoon with a dog and another dog and a third dog",
    "foxes are quick",
    "nothing of that kind here",
    "dog",
    "quick quick quick fox",
]
QUERIES = ["quick fox", "dog", "lazy dog nothing", "dog dog dog", "fox unheard", "kind of"]

Fitted = Callable[..., LexicalEncoder]


@pytest.fixture
def fitted(tmp_path: Path) -> Fitted:
    def call(texts: list[str] = CORPUS, **options: object) -> LexicalEncoder:
        how = {"language": "none", **options}
        return fit(texts, tmp_path / f"model{len(list(tmp_path.iterdir()))}", FitOptions(**how))  # type: ignore[arg-type]

    return call


def textbook_bm25(corpus: list[list[str]], query: set[str], document: list[str], k1: float, b: float) -> float:
    """Robertson and Zaragoza (2009), with Lucene's IDF; a word that the corpus lacks has a frequency of zero."""
    average = sum(map(len, corpus)) / len(corpus)
    score = 0.0
    for term in query & set(document):
        df = sum(term in other for other in corpus)
        idf = math.log(1 + (len(corpus) - df + 0.5) / (df + 0.5))
        tf = document.count(term)
        score += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(document) / average))
    return score


def score(encoder: Encoder, query: str, document: str) -> float:
    return dot(encoder.encode_query([query])[0].as_dict(), encoder.encode_document([document])[0].as_dict())


def weights(encoder: Encoder, text: str) -> dict[str, float]:
    return encoder.encode_document([text])[0].as_dict()


# --- Scores -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75), (2.0, 0.0), (0.5, 1.0), (0.0, 0.4)])
def test_the_dot_product_is_bm25(fitted: Fitted, k1: float, b: float) -> None:
    encoder = fitted(k1=k1, b=b)
    corpus = [text.split() for text in CORPUS]
    for query in QUERIES:
        for text in [*CORPUS, "a fox that is new to the corpus, quick as a dog"]:
            document = text.replace(",", "").split()
            expected = textbook_bm25(corpus, set(query.split()), document, k1, b)
            assert score(encoder, query, text) == pytest.approx(expected, rel=1e-6)


def test_word_pieces_give_bm25_over_pieces(fitted: Fitted, shared: Path) -> None:
    encoder = fitted(tokenizer=shared / "bert-uncased")
    assert not encoder.open_vocabulary
    corpus = [encoder.analyzer.terms([text])[0] for text in CORPUS]
    assert "lazy" in corpus[0]
    (query,) = encoder.analyzer.terms(["lazy foxes"])
    for text, document in zip(CORPUS, corpus, strict=True):
        expected = textbook_bm25(corpus, set(query), document, 0.9, 0.4)
        assert score(encoder, "lazy foxes", text) == pytest.approx(expected, rel=1e-6)


def test_a_stemmed_model_meets_other_forms(fitted: Fitted) -> None:
    encoder = fitted(language="en")
    assert encoder.card.stemmer == "english"
    assert score(encoder, "jumping foxes", CORPUS[0]) == pytest.approx(score(encoder, "jump fox", CORPUS[0]))
    assert score(encoder, "jumping foxes", CORPUS[0]) > 0


# --- Queries ------------------------------------------------------------------------------------------------


def test_a_querys_words_are_a_set(fitted: Fitted) -> None:
    encoder = fitted()
    repeated, once = encoder.encode_query(["dog fox dog", "fox dog"])
    assert (repeated.tokens, repeated.weights.tolist()) == (once.tokens, once.weights.tolist())
    assert len(once) == 2


def test_words_unseen_at_fit_are_asked_for_and_found(fitted: Fitted) -> None:
    encoder = fitted()
    assert encoder.open_vocabulary
    assert score(encoder, "zebra", "a zebra and a dog") > 0
    unheard = encoder.encode_query(["zebra"])[0].as_dict()["zebra"]
    assert unheard == np.float32(math.log(1 + (6 + 0.5) / 0.5))
    assert unheard > max(encoder.encode_query(["jumps"])[0].weights)


def test_new_words_do_not_stay_in_the_model(fitted: Fitted) -> None:
    encoder = fitted()
    size = len(encoder.vocabulary)
    vectors = encoder.encode_document([f"new{i} words{i}" for i in range(1000)])
    assert len(encoder.vocabulary) == size
    assert vectors[7].tokens == ("new7", "words7")


def test_function_words_ask_for_nothing_unless_nothing_else_is_asked(fitted: Fitted) -> None:
    english = fitted(language="en")
    assert set(english.encode_query(["what is the weather in the north"])[0].tokens) == {"weather", "north"}
    assert set(english.encode_query(["the who"])[0].tokens) == {"the", "who"}
    assert {"what", "is", "the"} <= set(fitted().encode_query(["what is the weather"])[0].tokens)


def test_documents_keep_their_function_words(fitted: Fitted) -> None:
    assert "the" in weights(fitted(language="en"), "the dog")


# --- Vectors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  ", "... !", "😀"])
def test_a_text_without_words_is_an_empty_vector(fitted: Fitted, text: str) -> None:
    encoder = fitted()
    assert weights(encoder, text) == {}
    assert len(encoder.encode_query([text])[0]) == 0


def test_encoding_alone_equals_encoding_in_a_batch(fitted: Fitted) -> None:
    encoder = fitted()
    texts = [*CORPUS, "", "zebra yak", "yak zebra quick"]
    assert [vector.as_dict() for vector in encoder.encode_document(texts)] == [weights(encoder, t) for t in texts]
    alone = [encoder.encode_query([text])[0].as_dict() for text in texts]
    assert [vector.as_dict() for vector in encoder.encode_query(texts)] == alone


def test_ids_ascend_and_match_tokens_and_weights(fitted: Fitted) -> None:
    encoder = fitted()
    for vector in (*encoder.encode_document(["zebra dog yak quick zebra"]), *encoder.encode_query(["zebra dog yak"])):
        assert np.all(np.diff(vector.ids) > 0)
        assert (vector.ids.dtype, vector.weights.dtype) == (np.int32, np.float32)
        assert len(vector.ids) == len(vector.weights) == len(vector.tokens) == len(set(vector.tokens))
    # Ids of words that the model lists are the model's own.
    (vector,) = encoder.encode_document(["dog quick"])
    assert encoder.vocabulary.tokens(vector.ids) == vector.tokens


@pytest.mark.parametrize("repeats", [1, 3, 50, 10_000])
def test_no_weight_passes_the_ceilings(fitted: Fitted, repeats: int) -> None:
    encoder = fitted(b=1.0)
    document_ceiling, query_ceiling = encoder.ceilings
    assert max(encoder.encode_document(["dog " * repeats])[0].weights) <= document_ceiling
    assert max(encoder.encode_query([" ".join(CORPUS)])[0].weights) <= np.float32(query_ceiling)


# --- Folders ------------------------------------------------------------------------------------------------


def test_a_folder_read_again_is_the_same_model(tmp_path: Path) -> None:
    made = fit(CORPUS, tmp_path / "model")
    read = load_encoder(tmp_path / "model")
    assert (read.fingerprint, read.space, read.name) == (made.fingerprint, made.space, "model")
    assert [vector.as_dict() for vector in read.encode_query(QUERIES)] == [
        vector.as_dict() for vector in made.encode_query(QUERIES)
    ]


def test_a_folder_can_be_moved(tmp_path: Path) -> None:
    made = fit(CORPUS, tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    assert load_encoder(tmp_path / "elsewhere").fingerprint == made.fingerprint


def test_another_fit_is_another_space(fitted: Fitted) -> None:
    one, other = fitted(), fitted([*CORPUS, "more"])
    assert one.space != other.space
    assert fitted().space == one.space
    assert fitted(k1=1.2).space != one.space


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"family": "other"},
        {"analyzer": "letters"},
        {"documents": "many"},
        {"average_length": None},
        {"more": 1},
    ],
)
def test_a_card_of_another_form_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    fit(CORPUS, tmp_path / "model")
    path = tmp_path / "model" / "bridge.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelFormatError, match="is not a fitted model's card"):
        load_encoder(tmp_path / "model")


@pytest.mark.parametrize("name", ["idf.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_says_which(tmp_path: Path, shared: Path, name: str) -> None:
    fit(CORPUS, tmp_path / "model", FitOptions(tokenizer=shared / "bert-uncased"))
    (tmp_path / "model" / name).unlink()
    with pytest.raises(ModelFormatError, match=name):
        load_encoder(tmp_path / "model")
