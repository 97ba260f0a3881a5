"""Texts ─▶ what is stored of them: passages of real texts, their maximum, pruning, and how it is remembered."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bridge.chunk import join, merge_max
from bridge.encode import Encoder
from bridge.encode.base import TokenVocabulary
from bridge.encode.lexical import LexicalEncoder
from bridge.encode.recipe import read_recipe
from bridge.encode.splade import SpladeEncoder
from bridge.errors import DocumentError, UsageError
from bridge.fit import FitOptions, fit
from bridge.prepare import WHOLE, Preparation, Prepared, parse_preparation, prepare
from bridge.prune import Pruning, parse_pruning
from bridge.records import SparseVector
from tests.models import sparse_folder, torch

EXACT = 1e-5
LENGTH = 192
LONG = 1200
"""Characters: more than the model reads, in any of the texts."""
TEXTS = ["The cat sat on the mat. It slept. " * 6, "dogs and cats sleep all day", "", "one two three four"]


@pytest.fixture(scope="module")
def long_texts(shared: Path) -> list[str]:
    """200 long texts, each several real documents: English documentation and Yoruba."""
    found = []
    for corpus, count in (("msdocs100k", 140), ("miracl_yo", 60)):
        with gzip.open(shared / "corpora" / corpus / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts = (json.loads(line)["text"] for line in lines)
            for n in range(count):
                text = next(texts)
                while len(text) < LONG:
                    text += (" ", "\n", "\n\n")[n % 3] + next(texts)
                found.append(text[: 2 * LONG])
    return found


@pytest.fixture(scope="module")
def folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = shared / "bert-uncased" / "tokenizer.json"
    target = tmp_path_factory.mktemp("models") / "neural"
    return sparse_folder(target, tokenizer, length=LENGTH, hidden_size=32, intermediate_size=64, num_hidden_layers=1)


@pytest.fixture(scope="module")
def neural(folder: Path) -> SpladeEncoder:
    return SpladeEncoder(folder)


@pytest.fixture(scope="module")
def lexical(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return fit(TEXTS, tmp_path_factory.mktemp("models") / "lexical", FitOptions(language="en"))


def table(vectors: Sequence[SparseVector], size: int) -> np.ndarray:
    found = np.zeros((len(vectors), size), np.float32)
    for row, vector in zip(found, vectors, strict=True):
        row[vector.ids] = vector.weights
    return found


def one(found: Prepared | DocumentError) -> Prepared:
    assert isinstance(found, Prepared)
    return found


# --- Long real texts ----------------------------------------------------------------------------------------


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads wait for each other longer than a small model computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_passages_of_real_texts_have_the_vectors_of_their_slices_alone(
    neural: SpladeEncoder, long_texts: list[str]
) -> None:
    size = len(neural.vocabulary)
    pieces = neural.passage_tokenizer
    nested = [one(found) for found in prepare(neural, long_texts, Preparation("nested", overlap=20))]
    merged = [one(found) for found in prepare(neural, long_texts, Preparation("merge", overlap=20))]
    assert len(nested) == 200
    for text, parts, whole in zip(long_texts, nested, merged, strict=True):
        passages = [passage for passage, _ in parts.nested]
        assert join(passages) == text
        assert parts.vector is None
        assert parts.passages == whole.passages == len(passages) > 1
        assert [text[passage.start : passage.end] for passage in passages] == [passage.text for passage in passages]
        # What the model is given: nothing of a passage is cut off.
        assert max(len(pieces.ids(passage.text)) + pieces.special for passage in passages) <= LENGTH
        vectors = table([vector for _, vector in parts.nested], size)
        alone = table([neural.encode_document([passage.text])[0] for passage in passages], size)
        assert np.abs(vectors - alone).max() <= EXACT
        assert whole.vector is not None
        assert np.abs(table([whole.vector], size)[0] - alone.max(axis=0)).max() <= EXACT
        assert whole.terms == len(whole.vector) > 0


def test_a_prompt_takes_its_part_of_a_passage(folder: Path, long_texts: list[str]) -> None:
    recipe = replace(read_recipe(folder), document_prompt="search document, as it stands: ")
    prompted = SpladeEncoder(folder, recipe=recipe)
    framed = prompted._pieces.tokenizer.encode
    for text, found in zip(long_texts[::10], prepare(prompted, long_texts[::10], Preparation("nested")), strict=True):
        passages = [passage for passage, _ in one(found).nested]
        assert join(passages) == text
        lengths = [len(framed(recipe.document_prompt + passage.text).ids) for passage in passages]
        assert lengths == [passage.tokens for passage in passages]
        assert LENGTH // 2 < max(lengths) <= LENGTH


# --- Pruning ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["whole", "merge", "nested"])
@pytest.mark.parametrize("method", ["top-k=9", "max-ratio=0.4", "alpha-mass=0.7", "threshold=0.8"])
def test_pruning_comes_last_and_is_accounted_for(
    neural: SpladeEncoder, long_texts: list[str], kind: str, method: str
) -> None:
    texts, pruning = long_texts[::40], parse_pruning(method)
    plain = [one(found) for found in prepare(neural, texts, Preparation(kind))]  # type: ignore[arg-type]
    pruned = [one(found) for found in prepare(neural, texts, Preparation(kind, pruning=pruning))]  # type: ignore[arg-type]
    for before, after in zip(plain, pruned, strict=True):
        whole, left = vectors_of(before), vectors_of(after)
        for vector, kept in zip(whole, left, strict=True):
            assert kept.ids.tolist() == pruning.apply(vector).vector.ids.tolist()
            assert len(kept) >= 1
        assert (before.removed, before.removed_mass) == (0, 0.0)
        assert after.terms == sum(map(len, left))
        assert after.removed == sum(map(len, whole)) - after.terms > 0
        assert after.mass + after.removed_mass == pytest.approx(before.mass)
        assert after.passages == before.passages


def vectors_of(found: Prepared) -> list[SparseVector]:
    return [found.vector] if found.vector is not None else [vector for _, vector in found.nested]


def test_the_maximum_is_taken_before_pruning(neural: SpladeEncoder, long_texts: list[str]) -> None:
    text, pruning = long_texts[0], Pruning(top_k=5)
    (nested,) = prepare(neural, [text], Preparation("nested"))
    (merged,) = prepare(neural, [text], Preparation("merge", pruning=pruning))
    expected = pruning.apply(merge_max(vectors_of(one(nested)))).vector
    assert vectors_of(one(merged))[0].as_dict() == expected.as_dict()


# --- Batches ------------------------------------------------------------------------------------------------


class Counting:
    """Encodes to the lengths of texts, and remembers each call."""

    name = "counting"
    vocabulary = TokenVocabulary(["length"])
    max_document_tokens = 4

    class Letters:
        special = 1

        def ids(self, text: str) -> list[int]:
            return [0] * len(self.starts(text))

        def starts(self, text: str) -> list[int]:
            # One letter takes more tokens than any passage has.
            return sorted([*range(len(text)), *(i for i, letter in enumerate(text) if letter == "ß" for _ in range(9))])

    passage_tokenizer = Letters()

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode_document(self, texts: Sequence[str]) -> list[SparseVector]:
        self.calls.append(list(texts))
        vectors = [(np.array([0], np.int32), np.array([len(text)], np.float32)) for text in texts]
        return [SparseVector(ids, weights, self.vocabulary) for ids, weights in vectors]


def test_the_passages_of_all_texts_are_encoded_in_one_call() -> None:
    encoder = Counting()
    found = prepare(encoder, ["abc def", "", "gh"], Preparation("nested"))  # type: ignore[arg-type]
    assert encoder.calls == [["abc", " de", "f", "", "gh"]] or encoder.calls == [["abc", " ", "def", "", "gh"]]
    assert [one(prepared).passages for prepared in found] == [3, 1, 1]


def test_a_text_that_cannot_be_cut_is_an_error_of_its_own() -> None:
    encoder = Counting()
    good, bad, last = prepare(encoder, ["ab", "aß", "c"], Preparation("merge"))  # type: ignore[arg-type]
    assert isinstance(bad, DocumentError)
    assert "takes 10 tokens" in str(bad)
    assert [one(good).mass, one(last).mass] == [2.0, 1.0]


def test_no_texts_are_nothing(neural: SpladeEncoder) -> None:
    assert prepare(neural, [], Preparation("merge")) == []


@pytest.mark.parametrize("kind", ["whole", "merge", "nested"])
def test_an_empty_text_is_an_empty_vector(neural: SpladeEncoder, lexical: Encoder, kind: str) -> None:
    for encoder in (neural, lexical):
        tokens = None if kind == "whole" else 32
        (found,) = prepare(encoder, [""], Preparation(kind, tokens, pruning=Pruning(top_k=3)))  # type: ignore[arg-type]
        assert [len(vector) for vector in vectors_of(one(found))] == [0]
        assert (one(found).passages, one(found).terms, one(found).mass) == (1, 0, 0.0)


# --- Lengths ------------------------------------------------------------------------------------------------


def test_the_length_is_the_models_own_unless_another_is_asked_for(neural: SpladeEncoder) -> None:
    assert Preparation("merge").resolved(neural) == Preparation("merge", LENGTH)
    assert Preparation("nested", 40, 8).resolved(neural) == Preparation("nested", 40, 8)
    assert Preparation(pruning=Pruning()).resolved(neural) == WHOLE


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Preparation("merge", LENGTH + 1), f"reads {LENGTH} tokens; a passage cannot have {LENGTH + 1}"),
        (Preparation("merge", 2), "leave no room for text"),
        (Preparation("nested", 32, 16), "overlap is 16"),
    ],
)
def test_a_length_that_the_model_cannot_do_is_refused(neural: SpladeEncoder, wanted: Preparation, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        wanted.resolved(neural)


def test_a_lexical_model_needs_a_length_and_counts_words(lexical: Encoder) -> None:
    with pytest.raises(UsageError, match="reads texts of any length; say how long a passage is with --passage-tokens"):
        Preparation("merge").resolved(lexical)
    (found,) = prepare(lexical, [TEXTS[0]], Preparation("nested", 8))
    passages = [passage for passage, _ in one(found).nested]
    assert [passage.text for passage in passages] == ["The cat sat on the mat. It slept. "] * 6
    assert [passage.tokens for passage in passages] == [8] * 6
    for passage, vector in one(found).nested:
        assert vector.as_dict() == lexical.encode_document([passage.text])[0].as_dict()


def test_characters_count_where_words_are_not_spaced(lexical: Encoder) -> None:
    text = "天気がいいから散歩しましょう。今日は晴れです。" * 3
    (found,) = prepare(lexical, [text], Preparation("nested", 23))
    passages = [passage for passage, _ in one(found).nested]
    assert join(passages) == text
    assert all(passage.text.endswith("。") for passage in passages)
    assert 3 <= len(passages) <= 4


def test_a_lexical_model_of_word_pieces_counts_these(shared: Path, tmp_path: Path) -> None:
    encoder = fit(TEXTS, tmp_path / "pieces", FitOptions(tokenizer=shared / "bert-uncased"))
    assert isinstance(encoder, LexicalEncoder)
    text = "unbelievably tokenized supercalifragilistic words " * 5
    (found,) = prepare(encoder, [text], Preparation("nested", 12))
    for passage, vector in one(found).nested:
        assert passage.tokens == len(encoder.passage_tokenizer.ids(passage.text)) <= 12
        assert vector.as_dict() == encoder.encode_document([passage.text])[0].as_dict()


def test_a_model_whose_tokens_are_nowhere_takes_texts_whole() -> None:
    class Bare:
        name = "bare"

    with pytest.raises(UsageError, match="where the tokens of model bare stand in a text is not known"):
        Preparation("merge", 30).resolved(Bare())  # type: ignore[arg-type]
    assert WHOLE.resolved(Bare()) is WHOLE  # type: ignore[arg-type]


# --- The canonical form -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preparation", "text"),
    [
        (WHOLE, "whole"),
        (Preparation("merge", 256, 32), "merge passage-tokens=256 overlap=32"),
        (Preparation("nested", 128), "nested passage-tokens=128"),
        (Preparation(pruning=Pruning(top_k=128, max_ratio=0.1)), "whole prune=top-k=128,max-ratio=0.1"),
        (Preparation("merge", 64, 0, Pruning(alpha_mass=0.9)), "merge passage-tokens=64 prune=alpha-mass=0.9"),
    ],
)
def test_the_canonical_form_reads_back(preparation: Preparation, text: str) -> None:
    assert str(preparation) == text
    assert parse_preparation(text) == preparation


@pytest.mark.parametrize(
    "text",
    ["", "half", "whole overlap=3", "merge tokens=3", "merge overlap=x", "merge overlap=1 overlap=1", "nested prune=x"],
)
def test_what_is_no_canonical_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_preparation(text)
