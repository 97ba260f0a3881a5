"""Words whose ids are known: the ids of a text are always the tokenizer's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bridge.encode import knownwords
from bridge.encode.knownwords import KnownWords
from bridge.encode.lookup import Wordpieces, load_tokenizer

PRINTABLE = "".join(map(chr, range(32, 127)))


@pytest.fixture(scope="module")
def file(shared: Path) -> Path:
    return shared / "bert-uncased" / "tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer(file: Path) -> Tokenizer:
    return load_tokenizer(file)


@pytest.fixture(scope="module")
def known(file: Path, tokenizer: Tokenizer) -> KnownWords:
    return KnownWords(tokenizer, json.loads(file.read_bytes()))


def own(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from(PRINTABLE + "aeiou   ")))
def test_plain_texts(known: KnownWords, tokenizer: Tokenizer, text: str) -> None:
    # Twice: from the tokenizer, and from what is known.
    for _ in range(2):
        found = known.ids(text)
        assert found is None if "[" in text else found == own(tokenizer, text)


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text(known: KnownWords, tokenizer: Tokenizer, text: str) -> None:
    assert known.ids(text) in (None, own(tokenizer, text))


@pytest.mark.parametrize("text", ["[SEP] red", "a[MASK]b", "caf\u00e9", "red\tblue", "a\x00b", "x" * 65, "a " * 1001])
def test_what_the_tokenizer_is_asked_itself(known: KnownWords, text: str) -> None:
    assert known.ids(text) is None


def test_a_real_text_again_and_again(shared: Path, tokenizer: Tokenizer) -> None:
    pieces = Wordpieces(shared / "bert-uncased")
    for text in ("what's the weather in ny now?", "e-mail: someone@example.org", "", "  ", "[SEP] x", "\u00dcber uns"):
        for _ in range(2):
            assert pieces.all_ids([text]) == [own(tokenizer, text)]


def test_it_begins_anew_when_it_is_full(file: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knownwords, "MOST_WORDS", 10)
    small = KnownWords(tokenizer, json.loads(file.read_bytes()))
    for number in range(50):
        text = f"the word{number} of number{number} again"
        assert small.ids(text) == own(tokenizer, text)
        assert len(small._ids) <= 10


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", {"type": "Lowercase"}),
        ("normalizer", None),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("model", {"type": "Unigram"}),
        ("added_tokens", [{"content": "new york"}]),
        ("added_tokens", [{"content": " "}]),
        ("added_tokens", [{"content": "\u00fc"}]),
    ],
)
def test_other_tokenizers_are_always_asked(file: Path, tokenizer: Tokenizer, part: str, value: object) -> None:
    content = json.loads(file.read_bytes()) | {part: value}
    assert KnownWords(tokenizer, content).ids("red") is None
