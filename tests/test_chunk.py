"""Passages of long texts: they cover the text, fit the model, and end where sentences do."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from bridge.chunk import Passage, chunk, join, merge_max
from bridge.encode.base import OverlayVocabulary, TokenVocabulary
from bridge.errors import DocumentError, UsageError
from bridge.offsets import TokenizerOffsets, TokenOffsets
from bridge.records import SparseVector


class Pieces:
    """A tokenizer of our own: a token is what `pattern` finds. Counts the characters that it reads."""

    def __init__(self, pattern: str = r"\S+", special: int = 0) -> None:
        self._pattern = regex.compile(pattern)
        self.special = special
        self.read = 0

    def ids(self, text: str) -> list[int]:
        return [0] * len(self.starts(text))

    def starts(self, text: str) -> list[int]:
        self.read += len(text)
        return [found.start() for found in self._pattern.finditer(text)]


class Contrary(Pieces):
    """A tokenizer whose slices have little to do with the whole: only what starts with # is read by words."""

    def starts(self, text: str) -> list[int]:
        return super().starts(text) if text.startswith("#") else self._characters(text)

    def _characters(self, text: str) -> list[int]:
        self.read += len(text)
        return list(range(len(text)))


class Stubborn(Pieces):
    """A tokenizer that finds a token too many in all but short texts, and always at their very end."""

    def starts(self, text: str) -> list[int]:
        self.read += len(text)
        return [0] * 100 + ([len(text) - 1] if len(text) > 50 else [])


@pytest.fixture(scope="module")
def bert(shared: Path) -> Tokenizer:
    return Tokenizer.from_file(str(shared / "bert-uncased" / "tokenizer.json"))


@pytest.fixture(scope="module")
def offsets(bert: Tokenizer) -> TokenizerOffsets:
    return TokenizerOffsets(bert)


def trained(kind: str) -> Tokenizer:
    """A small tokenizer of another make, trained on the spot."""
    corpus = ["The weather is sunny today. It was rainy yesterday, and the day before! Ẹ kú àárọ̀."] * 5
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, initial_alphabet=alphabet)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=60, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"]
        )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def check(text: str, passages: list[Passage], tokenizer: TokenOffsets, max_tokens: int) -> None:
    """What holds for every text, tokenizer and setting."""
    assert join(passages) == text
    assert [p.text for p in passages] == [text[p.start : p.end] for p in passages]
    for passage in passages:
        assert passage.tokens == len(tokenizer.ids(passage.text)) + tokenizer.special <= max_tokens
    for one, other in pairwise(passages):
        assert one.start < other.start <= one.end < other.end


# --- Real texts ---------------------------------------------------------------------------------------------


def long_texts(shared: Path, corpus: str, count: int, parts: int) -> Iterator[str]:
    """`count` texts, each of `parts` passages of a corpus, joined in different ways."""
    with gzip.open(shared / "corpora" / corpus / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = (json.loads(line)["text"] for line in lines)
        for n in range(count):
            yield (" ", "\n", "\n\n", "\r\n")[n % 4].join(islice(texts, parts))


@pytest.mark.parametrize(("corpus", "parts"), [("msdocs100k", 12), ("miracl_yo", 20)])
def test_long_real_texts(shared: Path, bert: Tokenizer, offsets: TokenizerOffsets, corpus: str, parts: int) -> None:
    settings = [(512, 0), (128, 0), (256, 64), (64, 20), (144, 71)]
    ends = clean = repeated = asked = 0
    for n, text in enumerate(long_texts(shared, corpus, 100, parts)):
        max_tokens, overlap = settings[n % len(settings)]
        passages = chunk(text, offsets, max_tokens=max_tokens, overlap=overlap)
        check(text, passages, offsets, max_tokens)
        # As the model itself will count it.
        assert [len(encoding.ids) for encoding in bert.encode_batch([p.text for p in passages])] == [
            p.tokens for p in passages
        ]
        total = len(offsets.ids(text))
        assert len(passages) >= total / (max_tokens - 2)
        again = sum(p.tokens - 2 for p in passages) - total
        assert again <= (overlap + 2) * len(passages)
        if not overlap:
            # Nothing is cut inside a word, so no token changes.
            assert again == 0
            # Two neighbours would not fit into one.
            assert len(passages) <= 1 + 2 * total / (max_tokens - 2)
        else:
            repeated, asked = repeated + again, asked + overlap * (len(passages) - 1)
        ends += len(passages) - 1
        clean += sum(p.text.rstrip(" \"')]”’")[-1] in ".!?…:;\n" for p in passages[:-1])
    assert clean > 0.85 * ends
    assert repeated > asked / 2


# --- Borders ------------------------------------------------------------------------------------------------


SENTENCES = [
    'He asked "Why?" ', "It is 3.14, e.g. about three. ", "J. S. Bach wrote it… ", "Nobody knows!!! ", "ОК. ",
    "明日は雨です。", "「本当ですか？」", "我不知道！", "क्या यह सच है? ", "यह सच है। ", "هل هذا صحيح؟ ", "It was.\n\n",
    "Ẹ kú àárọ̀. ", "(A note.) ", "*Bold.* ", "As of Windows 8. ", "12. Twelfth. ", "հա։ ", "እሺ። ",
    "first item\r\n", "the end",
]  # fmt: skip


@pytest.mark.parametrize("overlap", [0, 3])
@pytest.mark.parametrize("max_tokens", [30, 40, 80])
def test_passages_end_where_sentences_do(max_tokens: int, overlap: int) -> None:
    text = "".join(SENTENCES)
    ends = {sum(map(len, SENTENCES[: n + 1])) for n in range(len(SENTENCES))}
    tokenizer = Pieces(r"\S")
    passages = chunk(text, tokenizer, max_tokens=max_tokens, overlap=overlap)
    check(text, passages, tokenizer, max_tokens)
    assert {p.end for p in passages} <= ends
    assert len(passages) > 2


def test_sentences_fill_a_passage() -> None:
    text = "One two three. Four five. Six seven eight nine. Ten."
    assert [p.text for p in chunk(text, Pieces(special=2), max_tokens=7)] == [
        "One two three. Four five. ",
        "Six seven eight nine. Ten.",
    ]


@pytest.mark.parametrize("line", ["\n", "\r\n", "\u2028"])
def test_abbreviations_and_wrapped_lines_are_no_border(line: str) -> None:
    text = f"It is long, e.g. as{line}long as this line by P. Smith. Then{line}more of it comes."
    assert [p.text for p in chunk(text, Pieces(), max_tokens=12)] == [
        f"It is long, e.g. as{line}long as this line by P. Smith. ",
        f"Then{line}more of it comes.",
    ]
    assert chunk(f"Aa bb. Cc dd{line}ee ff gg hh", Pieces(), max_tokens=5)[0].text == "Aa bb. "
    assert chunk(f"one two{line}{line}three four", Pieces(), max_tokens=3)[0].text == f"one two{line}{line}"


def test_a_long_sentence_ends_at_a_line_then_at_a_word_then_at_a_token() -> None:
    assert [p.text for p in chunk("a b c\nd e f g h", Pieces(), max_tokens=5)] == ["a b c\n", "d e f g h"]
    assert [p.text for p in chunk("a b c d e f g h", Pieces(), max_tokens=5)] == ["a b c d e ", "f g h"]
    assert [p.text for p in chunk("abcdefgh ij", Pieces(r"\S\S?"), max_tokens=3)] == ["abcdef", "gh ij"]


def test_white_space_at_the_start_is_no_passage() -> None:
    assert [p.text for p in chunk("\n \na b c d e f g h", Pieces(), max_tokens=5)] == ["\n \na b c d e ", "f g h"]


def test_tokens_that_begin_with_a_space_do_not_hide_a_border() -> None:
    assert [p.text for p in chunk("One two. Three four", Pieces(r"\s?\S+"), max_tokens=2)] == [
        "One two. ",
        "Three four",
    ]


def test_characters_keep_their_marks() -> None:
    word = "e\u0301\u0323" * 10
    for passage in chunk(word, Pieces(r"."), max_tokens=4):
        assert passage.text == "e\u0301\u0323"
    family = "👨‍👩‍👧" * 6
    for passage in chunk(family, Pieces(r"."), max_tokens=7):
        assert passage.text == "👨‍👩‍👧"
    # A character with more marks than fit must be torn.
    check("e" + "\u0301" * 50, chunk("e" + "\u0301" * 50, Pieces(r"."), max_tokens=7), Pieces(r"."), 7)


# --- Overlap ------------------------------------------------------------------------------------------------


def test_overlap_is_whole_sentences_where_they_fit() -> None:
    text = "A b. Cc d e f. Gg h. Ii j k l. Mm n."
    assert [p.text for p in chunk(text, Pieces(), max_tokens=8, overlap=2)] == [
        "A b. Cc d e f. Gg h. ",
        "Gg h. Ii j k l. Mm n.",
    ]


def test_overlap_is_words_where_no_sentence_fits() -> None:
    text = " ".join(f"w{n}" for n in range(20))
    passages = chunk(text, Pieces(), max_tokens=8, overlap=3)
    assert [p.text.split()[0] for p in passages] == ["w0", "w5", "w10", "w15"]
    assert [p.text.split()[-1] for p in passages] == ["w7", "w12", "w17", "w19"]


def test_overlap_gives_way_to_a_sentence_that_fits_whole() -> None:
    text = "A b c d e f. Gg h i j k l m n. Oo p q."
    assert [p.text for p in chunk(text, Pieces(), max_tokens=8, overlap=4)] == [
        "A b c d e f. ",
        "Gg h i j k l m n. ",
        "k l m n. Oo p q.",
    ]


# --- Adversarial --------------------------------------------------------------------------------------------

_noise = random.Random(5)
ADVERSARIAL = {
    "empty": "",
    "one character": "a",
    "no spaces": "abcdefghij" * 300,
    "noise without spaces": "".join(_noise.choices("abcdefghijklmnopqrstuvwxyz0123456789+/", k=3000)),
    "words longer than the tokenizer reads": " ".join("x" * 150 for _ in range(30)),
    "Han": "今天天气很好我们去公园" * 100,
    "Han with stops": "今天天气很好。我们去公园！好吗？" * 100,
    "Kana": "テスト文字列ばかりのながいぶんしょう" * 60,
    "Thai": "สวัสดีครับวันนี้อากาศดีมาก" * 60,
    "Devanagari": "यह एक परीक्षण है। क्या यह काम करता है? " * 60,
    "Arabic with marks": "هَذَا نَصٌّ طَوِيلٌ جِدًّا. هل تفهم؟ " * 80,
    "Hebrew and English": "שלום עולם hello world, זה מבחן. " * 80,
    "combining marks": "Ẹ̀kọ́ ń ṣe dáadáa. a\u0301\u0323\u0300" * 80,
    "marks alone": "\u0301" * 500,
    "emoji": "👨‍👩‍👧‍👦🇳🇬🏳️‍🌈🤷🏽‍♀️" * 100,
    "CRLF": "First line.\r\nsecond line\r\n\r\nThird one!\r\n" * 60,
    "separators": "One\u2028two\u2029Three\x85four\x0bFive\x0csix\u00a0seven\u3000eight\u200bnine" * 40,
    "white space alone": " \n\t\r\n" * 800,
    "white space within": ("word" + " " * 400) * 20,
    "stops": "." * 2000,
    "stops and spaces": "! ? . … " * 400,
    "controls": "a\x00b\x01c\ufffdd\ue000e\u200ff " * 150,
    "special tokens as text": "[CLS] [SEP][SEP] [MASK] [PAD]x[UNK] " * 100,
    "code": "def f(x):\n    return {k: v for k, v in x.items() if k.startswith('_')}\n\n\n" * 40,
    "a very long sentence between short ones": "Short one. " + "and so on " * 900 + "at last. Short one.",
}
# Of these, NFD makes several letters of one character: no budget of 1 holds it.
HANGUL = "안녕하세요 세계. " * 60


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize(("budget", "overlap"), [(1, 0), (2, 1), (7, 3), (100, 0), (100, 50)])
def test_adversarial_texts(offsets: TokenizerOffsets, name: str, budget: int, overlap: int) -> None:
    text = ADVERSARIAL[name]
    if budget < 7:
        text = text[:600]
    check(text, chunk(text, offsets, max_tokens=budget + 2, overlap=overlap), offsets, budget + 2)


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize(("budget", "overlap"), [(4, 0), (9, 4), (60, 20)])
def test_tokenizers_of_other_makes(kind: str, budget: int, overlap: int) -> None:
    # `special` says what the model adds, whatever the tokenizer itself would.
    tokenizer = TokenizerOffsets(trained(kind), special=3)
    for text in (*ADVERSARIAL.values(), HANGUL):
        start = text[: 60 * budget]
        check(start, chunk(start, tokenizer, max_tokens=budget + 3, overlap=overlap), tokenizer, budget + 3)


@pytest.mark.parametrize("overlap", [0, 4])
def test_a_tokenizer_that_reads_slices_differently(overlap: int) -> None:
    tokenizer = Contrary()
    text = "# " + "some words. And more of them " * 200
    check(text, chunk(text, tokenizer, max_tokens=9, overlap=overlap), tokenizer, 9)


def test_an_empty_text_has_no_passages(offsets: TokenizerOffsets) -> None:
    assert chunk("", offsets, max_tokens=512) == []
    assert join([]) == ""


def test_a_text_that_fits_is_one_passage(offsets: TokenizerOffsets) -> None:
    text = "  A short text. With two sentences.\n"
    (passage,) = chunk(text, offsets, max_tokens=512, overlap=64)
    assert (passage.text, passage.start, passage.end, passage.tokens) == (text, 0, len(text), 10)
    assert chunk(text, offsets, max_tokens=10) == [passage]
    assert len(chunk(text, offsets, max_tokens=9)) == 2


def test_a_character_that_cannot_fit_is_an_error(offsets: TokenizerOffsets) -> None:
    with pytest.raises(DocumentError, match=r"'안' \(U\+C548\) takes 3 tokens, more than the 1 "):
        chunk(HANGUL, offsets, max_tokens=3)
    check(HANGUL, chunk(HANGUL, offsets, max_tokens=5), offsets, 5)
    with pytest.raises(DocumentError, match="takes 4 tokens"):
        chunk("a 🙂", TokenizerOffsets(trained("bytes"), special=0), max_tokens=3)


@pytest.mark.parametrize(
    "text",
    [
        "some words and more of them. " * 4000,
        "nothingbutletters" * 7000,
        "word" + " " * 100_000 + "word",
        ("Short. " + " " * 3000) * 40,
        "y. " * 40_000,
    ],
    ids=["words", "no spaces", "white space", "gaps", "short sentences"],
)
@pytest.mark.parametrize(("max_tokens", "overlap"), [(100, 0), (100, 50)])
@pytest.mark.parametrize("make", [Pieces, Contrary])
def test_the_work_grows_with_the_length_only(
    make: Callable[[], Pieces], text: str, max_tokens: int, overlap: int
) -> None:
    tokenizer = make()
    check(text, chunk(text, tokenizer, max_tokens=max_tokens, overlap=overlap), make(), max_tokens)
    # With half of each passage repeated, and each read twice with and without its overlap.
    assert tokenizer.read < 25 * len(text)


def test_the_search_for_an_end_is_short() -> None:
    tokenizer, text = Stubborn(), "x" * 6000
    check(text, chunk(text, tokenizer, max_tokens=100), tokenizer, 100)
    assert tokenizer.read < 100 * len(text)


def test_settings_that_cannot_be(offsets: TokenizerOffsets) -> None:
    with pytest.raises(UsageError, match="2 special tokens leave no room"):
        chunk("a", offsets, max_tokens=2)
    for overlap in (-1, 5, 100):
        with pytest.raises(UsageError, match=f"overlap is {overlap}; it lies between 0 and half of the 8"):
            chunk("a", offsets, max_tokens=10, overlap=overlap)


def test_passages_of_different_texts_do_not_join() -> None:
    with pytest.raises(UsageError, match="characters 2 to 3"):
        join([Passage("ab", 0, 2, 1), Passage("d", 3, 4, 1)])


def test_another_one_s_truncation_does_not_reach_in(shared: Path) -> None:
    tokenizer = Tokenizer.from_file(str(shared / "bert-uncased" / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    offsets = TokenizerOffsets(tokenizer)
    tokenizer.enable_padding()
    assert len(offsets.ids("one two three four five six")) == 6
    assert offsets.starts("one two three") == [0, 4, 8]
    assert tokenizer.truncation["max_length"] == 4


# --- Merging ------------------------------------------------------------------------------------------------


def test_merge_max_equals_the_maximum() -> None:
    numbers = np.random.default_rng(9)
    vocabulary = TokenVocabulary([f"t{i}" for i in range(500)])
    for _ in range(50):
        table = np.maximum(numbers.normal(-1, 1, (int(numbers.integers(1, 9)), 500)), 0).astype(np.float32)
        rows = [np.flatnonzero(row).astype(np.int32) for row in table]
        vectors = [SparseVector(ids, row[ids], vocabulary) for ids, row in zip(rows, table, strict=True)]
        merged = merge_max(vectors)
        dense = np.zeros(500, np.float32)
        dense[merged.ids] = merged.weights
        assert np.array_equal(dense, table.max(axis=0))
        assert np.all(merged.weights > 0)
        assert np.all(np.diff(merged.ids) > 0)
        assert merged.vocabulary is vocabulary
        assert (merged.ids.dtype, merged.weights.dtype) == (np.int32, np.float32)


def test_merge_max_by_token_where_vocabularies_differ() -> None:
    base = TokenVocabulary(["a", "b", "c"])
    one, other = OverlayVocabulary(base), OverlayVocabulary(base)
    # Both give the id 3 to a word of their own.
    first = one.vector(["a", "x"], np.array([1.0, 2.0]))
    second = other.vector(["b", "y", "a", "x"], np.array([3.0, 4.0, 5.0, 1.0]))
    merged = merge_max([first, second])
    assert merged.as_dict() == {"a": 5.0, "b": 3.0, "x": 2.0, "y": 4.0}
    assert dict(zip(merged.ids.tolist(), merged.tokens, strict=True)) == {0: "a", 1: "b", 3: "x", 5: "y"}
    assert len(merged.vocabulary) == 6
    assert merge_max([second, first]).as_dict() == merged.as_dict()
    # Merged vectors are vectors: they merge again.
    assert merge_max([merged, first]).as_dict() == merged.as_dict()


def test_merge_max_of_two_copies_of_a_vocabulary_keeps_the_ids() -> None:
    vectors = [
        SparseVector(np.array(ids, np.int32), np.ones(len(ids), np.float32), TokenVocabulary(["a", "b", "c", "d"]))
        for ids in ([0, 3], [1, 3], [])
    ]
    merged = merge_max(vectors)
    assert merged.ids.tolist() == [0, 1, 3]
    assert merged.tokens == ("a", "b", "d")
    assert len(merged.vocabulary) == 4


def test_merge_max_of_nothing() -> None:
    vocabulary = TokenVocabulary(["a"])
    empty = SparseVector(np.zeros(0, np.int32), np.zeros(0, np.float32), vocabulary)
    assert len(merge_max([empty, empty])) == 0
    assert merge_max([empty]).vocabulary is vocabulary
    with pytest.raises(UsageError, match="no vectors"):
        merge_max([])
