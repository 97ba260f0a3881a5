"""Conversations as encoder input, against the formula of the DiSCo models' cards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from bridge.conversation import flatten, plain
from bridge.errors import UsageError
from bridge.offsets import TokenizerOffsets
from bridge.records import Turn

LENGTH = 512

CARD = [
    Turn("what's the weather like today?", "it's sunny."),
    Turn("should I wear sunscreen?", "yes, UV index is high."),
    Turn("do I need sunglasses?", None),
    Turn("how much do they cost?"),
]


@pytest.fixture(scope="module")
def bert(shared: Path) -> Tokenizer:
    return Tokenizer.from_file(str(shared / "bert-uncased" / "tokenizer.json"))


def card_text(pairs: list[tuple[str, str | None]]) -> str:
    """The card's formula, written from the input format that it states."""
    newest, *older = pairs[::-1]
    text = newest[0]
    for question, answer in older:
        if answer:
            text += " [SEP] " + answer
        if question:
            text += " [SEP] " + question
    return text


def card_ids(tokenizer: Tokenizer, pairs: list[tuple[str, str | None]], length: int = LENGTH) -> list[int]:
    """What the tokenizer gives for the card's text when it truncates by itself."""
    tokenizer.enable_truncation(length)
    try:
        ids: list[int] = tokenizer.encode(card_text(pairs)).ids
    finally:
        tokenizer.no_truncation()
    return ids


def conversations(shared: Path, name: str) -> Iterator[dict[str, Any]]:
    with (shared / "corpora" / name / "conversations.jsonl").open() as lines:
        yield from map(json.loads, lines)


def pairs_of(row: dict[str, Any]) -> list[tuple[str, str | None]]:
    # The answer to the last question is in the data, too; a query does not have it.
    return [(turn["question"], turn["answer"]) for turn in row["history"]] + [(row["question"], row["answer"])]


def turns_of(pairs: list[tuple[str, str | None]]) -> list[Turn]:
    return [Turn(*pair) for pair in pairs]


def test_the_form_of_the_card() -> None:
    assert flatten(CARD) == (
        "how much do they cost? [SEP] do I need sunglasses? [SEP] yes, UV index is high. [SEP] "
        "should I wear sunscreen? [SEP] it's sunny. [SEP] what's the weather like today?"
    )
    assert flatten(CARD[:1]) == "what's the weather like today?"
    assert flatten(CARD[:2], separator="</s>") == (
        "should I wear sunscreen?</s>it's sunny.</s>what's the weather like today?"
    )


def test_blank_turns_leave_no_empty_separator() -> None:
    turns = [Turn("a", ""), Turn("b", "  \n"), Turn(" ", "c"), Turn("", None), Turn("d", "not known yet")]
    assert flatten(turns) == "d [SEP] c [SEP] b [SEP] a"


def test_mtrag_turns_with_answers_have_the_ids_of_the_card(shared: Path, bert: Tokenizer) -> None:
    offsets = TokenizerOffsets(bert)
    rows = [row for row in conversations(shared, "mtrag_human") if any(turn["answer"] for turn in row["history"])]
    assert len(rows) == 132
    long = 0
    for row in rows:
        pairs = pairs_of(row)
        whole, cut = flatten(turns_of(pairs)), flatten(turns_of(pairs), max_tokens=LENGTH, tokenizer=offsets)
        expected = card_ids(bert, pairs)
        long += len(bert.encode(whole).ids) > LENGTH
        assert whole == card_text(pairs)
        assert whole.startswith(cut)
        assert bert.encode(cut).ids == expected
    # Some must be beyond the model's length, or this says nothing of the truncation.
    assert long >= 20


def test_cast_turns_have_the_ids_of_the_card(shared: Path, bert: Tokenizer) -> None:
    offsets = TokenizerOffsets(bert)
    rows = list(islice((row for row in conversations(shared, "cast2019") if row["history"]), 100))
    assert len(rows) == 100
    for row in rows:
        pairs = pairs_of(row)
        cut = flatten(turns_of(pairs), max_tokens=LENGTH, tokenizer=offsets)
        assert bert.encode(cut).ids == card_ids(bert, pairs)
        assert cut == card_text(pairs)


@pytest.mark.parametrize("length", [3, 4, 17, 64, 511, 512, 513])
def test_beyond_the_length_the_newest_is_kept(shared: Path, bert: Tokenizer, length: int) -> None:
    offsets = TokenizerOffsets(bert)
    by_conversation = {row["conversation_id"]: row for row in conversations(shared, "mtrag_human")}
    longest = sorted(by_conversation.values(), key=lambda row: len(json.dumps(row["history"])), reverse=True)[:10]
    for row in longest:
        pairs = [(question, answer or f"I do not know: {question}" * 3) for question, answer in pairs_of(row)] * 3
        pairs.append((row["question"], None))
        cut = flatten(turns_of(pairs), max_tokens=length, tokenizer=offsets)
        encoded = bert.encode(cut)
        assert len(bert.encode(card_text(pairs)).ids) > 513
        assert encoded.ids == card_ids(bert, pairs, length)
        assert len(encoded.ids) == length
        assert cut.startswith(row["question"]) or row["question"].startswith(cut)
        # What was cut is an end: everything that is left stands where it stood.
        assert card_text(pairs).startswith(cut)


def test_a_tokenizer_that_merges_whole_words_still_starts_with_the_reference() -> None:
    bytewise = Tokenizer(models.BPE())
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    corpus = ["the weather in new york is sunny, they say; whether it weathers is unknown"] * 5
    trainer = trainers.BpeTrainer(
        vocab_size=330, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bytewise.train_from_iterator(corpus, trainer)
    offsets = TokenizerOffsets(bytewise)
    turns = [Turn("weathers unweathered weather?", "sunnily sunnier"), Turn("whetherweather new yorkers?")]
    everything = bytewise.encode(flatten(turns)).ids
    for length in range(1, len(everything) + 3):
        cut = flatten(turns, max_tokens=length, tokenizer=offsets)
        assert bytewise.encode(cut).ids[:length] == everything[:length]
        assert len(cut.split()) <= len(bytewise.decode(everything[:length]).split())


def test_plain_forms() -> None:
    assert plain(CARD) == "how much do they cost?"
    assert plain(CARD, "all") == (
        "what's the weather like today? should I wear sunscreen? do I need sunglasses? how much do they cost?"
    )
    assert plain(CARD, "rewrite", rewrite="how much do sunglasses cost?") == "how much do sunglasses cost?"
    assert plain([], "rewrite", rewrite="a question") == "a question"
    assert plain([Turn(" "), Turn("b")], "all") == "b"


def test_all_questions_lose_the_oldest_first(bert: Tokenizer) -> None:
    offsets = TokenizerOffsets(bert)
    turns = [Turn("one two three"), Turn("four five"), Turn("six")]
    for length, expected in [
        (8, "one two three four five six"),
        (7, "four five six"),
        (5, "four five six"),
        (4, "six"),
        (3, "six"),
    ]:
        assert plain(turns, "all", max_tokens=length, tokenizer=offsets) == expected
    # The last question is never left out; the encoder cuts it.
    assert plain([Turn("a"), Turn("b c d")], "all", max_tokens=3, tokenizer=offsets) == "b c d"


def test_mtrag_plain_forms(shared: Path) -> None:
    for row in islice(conversations(shared, "mtrag_human"), 100):
        turns = turns_of(pairs_of(row))
        assert plain(turns, "last") == row["question"]
        assert plain(turns, "rewrite", rewrite=row["rewrite"]) == row["rewrite"]
        assert plain(turns, "all") == " ".join([turn["question"] for turn in row["history"]] + [row["question"]])


def test_what_cannot_be_asked(bert: Tokenizer) -> None:
    offsets = TokenizerOffsets(bert)
    for turns in ([], [Turn("")], [Turn("a", "b"), Turn("  ")]):
        for call in (flatten, plain):
            with pytest.raises(UsageError, match="no last question"):
                call(turns)
    with pytest.raises(UsageError, match="needs the model's tokenizer"):
        flatten(CARD, max_tokens=5)
    with pytest.raises(UsageError, match="2 special tokens leave no room"):
        flatten(CARD, max_tokens=2, tokenizer=offsets)
    with pytest.raises(UsageError, match="no rewrite"):
        plain(CARD, "rewrite", rewrite=" ")
    with pytest.raises(UsageError, match="'first' is not known"):
        plain(CARD, "first")  # type: ignore[arg-type]
