"""Fitting: what one pass over a corpus counts, keeps and writes."""

from __future__ import annotations

import gzip
import json
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import fit as fitting
from bridge.encode import load_encoder
from bridge.encode.lookup import Wordpieces
from bridge.errors import ModelError, ModelFormatError, SourceError, UsageError
from bridge.fit import FitOptions, detect_language, fit

CORPUS = ["red green", "red blue blue", "red"]
PLAIN = FitOptions(language="none")


def idf_table(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "idf.json").read_text("utf-8"))
    return found


def card(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "bridge.json").read_text("utf-8"))
    return found


def corpus_texts(folder: Path, count: int) -> list[str]:
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]


# --- What is counted ----------------------------------------------------------------------------------------


def test_the_folder_holds_the_counts(tmp_path: Path) -> None:
    fit(CORPUS, tmp_path / "model", PLAIN)
    assert card(tmp_path / "model") == {
        "family": "lexical",
        "format": 1,
        "analyzer": "words",
        "language": None,
        "stemmer": None,
        "k1": 0.9,
        "b": 0.4,
        "documents": 3,
        "average_length": 2.0,
        "unseen_weight": pytest.approx(math.log(1 + 3.5 / 0.5)),
    }
    assert idf_table(tmp_path / "model") == {
        "red": pytest.approx(math.log(1 + 0.5 / 3.5)),
        "blue": pytest.approx(math.log(1 + 2.5 / 1.5)),
        "green": pytest.approx(math.log(1 + 2.5 / 1.5)),
    }


@pytest.mark.parametrize("count", [1, 499, 500, 501, 1000, 1500])
def test_every_document_is_counted_once_across_sample_and_batches(tmp_path: Path, count: int) -> None:
    encoder = fit((f"word{i} common" for i in range(count)), tmp_path / "model", PLAIN)
    assert (encoder.card.documents, encoder.card.average_length) == (count, 2.0)
    assert len(idf_table(tmp_path / "model")) == count + 1


def test_texts_without_words_count_for_nothing(tmp_path: Path) -> None:
    encoder = fit(["", *CORPUS, "...", " "], tmp_path / "model", PLAIN)
    assert (encoder.card.documents, encoder.card.average_length) == (3, 2.0)


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = fit(CORPUS, tmp_path / "one", PLAIN), fit(CORPUS[::-1], tmp_path / "two", PLAIN)
    assert one.fingerprint == two.fingerprint
    for name in ("bridge.json", "idf.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_word_pieces_get_a_table_over_the_whole_vocabulary(tmp_path: Path, shared: Path) -> None:
    options = FitOptions(tokenizer=shared / "bert-uncased")
    encoder = fit(["the red fox", "the blue fox"], tmp_path / "model", options)
    table = idf_table(tmp_path / "model")
    assert len(table) == 30_522 - 5
    assert not {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} & set(table)
    assert table["zebra"] == encoder.card.unseen_weight > table["red"] > table["fox"]
    assert (tmp_path / "model" / "tokenizer.json").read_bytes() == (
        shared / "bert-uncased" / "tokenizer.json"
    ).read_bytes()


def test_a_word_piece_model_does_not_stem(tmp_path: Path, shared: Path) -> None:
    texts = corpus_texts(shared / "corpora" / "scifact", 20)
    encoder = fit(texts, tmp_path / "model", FitOptions(tokenizer=shared / "bert-uncased"))
    assert (encoder.card.language, encoder.card.stemmer, encoder.card.analyzer) == ("en", None, "wordpieces")


# --- Memory -------------------------------------------------------------------------------------------------


def test_past_the_limit_the_rarest_terms_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MAX_TERMS", 1000)
    texts = (f"often{i % 50} once{i} again{i // 2}" for i in range(20_000))
    encoder = fit(texts, tmp_path / "model", PLAIN)
    table = idf_table(tmp_path / "model")
    assert len(table) <= 1000
    assert encoder.card.documents == 20_000
    frequent = [table[f"often{i}"] for i in range(50)]
    assert frequent == pytest.approx([math.log(1 + (20_000 - 400 + 0.5) / 400.5)] * 50)
    # What was forgotten weighs as what was never seen: a little more than it would have.
    forgotten = encoder.encode_query(["once0"])[0].as_dict()["once0"]
    assert forgotten == np.float32(encoder.card.unseen_weight)
    assert forgotten == pytest.approx(math.log(1 + (20_000 - 1 + 0.5) / 1.5), rel=0.12)


def test_memory_does_not_grow_with_the_number_of_distinct_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "MAX_TERMS", 1000)
    peaks = []
    for count in (5_000, 50_000):
        tracemalloc.start()
        fitting._Counts().read(NoMemory(), (f"new{i} newer{i}" for i in range(count)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


class NoMemory:
    """An analyzer that remembers no word."""

    def terms(self, texts: Any) -> list[list[str]]:
        return [text.split() for text in texts]


def test_texts_are_read_once_and_not_kept(tmp_path: Path) -> None:
    alive: list[int] = []

    def texts() -> Iterator[str]:
        for i in range(5000):
            alive.append(i)
            yield f"word{i % 7} " + "x" * 2000

    tracemalloc.start()
    fit(texts(), tmp_path / "model", PLAIN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert alive == list(range(5000))
    assert peak < 5000 * 2000 / 2


# --- Language -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The committee will discuss the results of the study at its next meeting.", "en"),
        ("Der Ausschuss wird die Ergebnisse der Untersuchung in der nächsten Sitzung besprechen.", "de"),
        ("Le comité examinera les résultats de l'étude lors de sa prochaine réunion.", "fr"),
    ],
)
def test_the_language_of_most_texts_is_found(text: str, language: str) -> None:
    assert detect_language([text] * 7 + ["", "12345"]) == language


def test_without_a_majority_there_is_no_language() -> None:
    english = "The committee will discuss the results of the study at its next meeting."
    german = "Der Ausschuss wird die Ergebnisse der Untersuchung in der nächsten Sitzung besprechen."
    assert detect_language([english, german] * 10) is None
    assert detect_language([]) is None
    assert detect_language(["", "  "]) is None


def test_a_corpus_in_a_language_is_stemmed_for_it(tmp_path: Path, shared: Path) -> None:
    encoder = fit(corpus_texts(shared / "corpora" / "scifact", 100), tmp_path / "model")
    assert (encoder.card.language, encoder.card.stemmer) == ("en", "english")


def test_a_language_without_a_stemmer_is_kept_as_it_is_written(tmp_path: Path) -> None:
    encoder = fit(["ẹ̀kọ́ ni"], tmp_path / "model", FitOptions(language="yo"))
    assert (encoder.card.language, encoder.card.stemmer) == ("yo", None)


@pytest.mark.parametrize("language", ["english", "e", "", "de-AT", "日本"])
def test_a_language_that_is_no_code_is_refused(tmp_path: Path, language: str) -> None:
    with pytest.raises(UsageError, match="is not an ISO 639-1 code"):
        fit(CORPUS, tmp_path / "model", FitOptions(language=language))


# --- Refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [[], [""], ["...", "!!!"]])
def test_a_corpus_without_any_word_is_refused(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(SourceError, match="nothing to fit on"):
        fit(texts, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "options",
    [{"k1": -0.1}, {"k1": math.inf}, {"k1": math.nan}, {"b": -0.1}, {"b": 1.1}, {"b": math.nan}],
    ids=str,
)
def test_parameters_that_bm25_does_not_have_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must"):
        FitOptions(**options)


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not empty"):
        fit(CORPUS, tmp_path, PLAIN)
    with pytest.raises(UsageError, match="exists and is not empty"):
        fit(CORPUS, tmp_path / "keep.txt", PLAIN)
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


def test_an_empty_folder_is_written_to_and_nothing_else_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    fit(CORPUS, tmp_path / "model", PLAIN)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"bridge.json", "idf.json"}
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["model"]


def test_a_folder_that_cannot_be_made_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be written to"):
        fit(CORPUS, tmp_path / "file" / "model", PLAIN)


def test_a_tokenizer_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"has no tokenizer\.json"):
        fit(CORPUS, tmp_path / "model", FitOptions(tokenizer=tmp_path))


# --- The cache ----------------------------------------------------------------------------------------------


def test_without_a_folder_the_model_is_in_the_cache_under_its_fingerprint(home: Path) -> None:
    encoder = fit(CORPUS, options=PLAIN)
    assert (home / "cache" / "models" / encoder.fingerprint / "idf.json").is_file()
    assert load_encoder(encoder.fingerprint).fingerprint == encoder.fingerprint
    assert fit(CORPUS, options=PLAIN).fingerprint == encoder.fingerprint
    assert [path.name for path in (home / "cache" / "models").iterdir()] == [encoder.fingerprint]


def test_a_fitted_folder_over_word_pieces_is_a_lookup_model_for_other_readers(tmp_path: Path, shared: Path) -> None:
    """`tokenizer.json` and `idf.json` are OpenSearch's own form of a query model: both give the same queries."""
    options = FitOptions(language="none", tokenizer=shared / "bert-uncased")
    encoder = fit(corpus_texts(shared / "corpora" / "scifact", 50), tmp_path / "model", options)
    (tmp_path / "model" / "bridge.json").unlink()
    lookup = load_encoder(tmp_path / "model")
    for query in ("the weather in ny", "zebra crossing", "cell cell biology"):
        assert lookup.encode_query([query])[0].as_dict() == encoder.encode_query([query])[0].as_dict()
    assert len(Wordpieces(tmp_path / "model").vocabulary) == 30_522
