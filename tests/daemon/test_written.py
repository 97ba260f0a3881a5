"""Answers that are put together: byte for byte those that are written in full."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.daemon import written
from bridge.daemon.messages import Rewritten
from bridge.daemon.service import _as_way
from bridge.daemon.written import Written
from bridge.encode.lookup import LookupEncoder
from bridge.prune import Pruning
from bridge.rewrite import QueryRewriter
from bridge.twophase import TwoPhase

WORDS = (
    "the",
    "sea",
    "bread",
    "don't",
    "u.s.",
    "a.b.c",
    '"quoted"',
    "back\\slash",
    "caf\u00e9",
    "\u4e2d\u6587",
    "...",
    "<b>",
    "x" * 70,
)
WAYS = {
    "neural_sparse": {"dialect": "neural_sparse"},
    "rank_feature": {"dialect": "rank_feature"},
    "boosted": {"dialect": "neural_sparse", "fields": ["embedding^2.5"]},
    "nested": {"nested_path": "passages"},
    "elasticsearch-7": {"engine": "elasticsearch", "version": "7.17.29"},
    "elasticsearch-9": {"engine": "elasticsearch", "version": "9.2.0", "kind": "sparse_vector"},
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder(shared: Path) -> LookupEncoder:
    return LookupEncoder(shared / "bert-uncased")


def full(rewriter: QueryRewriter, question: str, size: int = 10) -> bytes:
    encoded = rewriter.encode(question)
    body = rewriter.body(encoded, size=size)
    return msgspec.json.encode(Rewritten(body=body, dropped=encoded.dropped, pruned=encoded.pruned))


def made(rewriter: QueryRewriter) -> Written | None:
    return _as_way(rewriter, "", {}).written


@pytest.mark.parametrize("way", WAYS)
def test_any_question(encoder: LookupEncoder, way: str) -> None:
    rewriter = QueryRewriter.load(encoder=encoder, **WAYS[way])
    answers = made(rewriter)
    assert answers is not None

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.sampled_from(WORDS) | st.text(), max_size=12).map(" ".join), st.sampled_from([0, 10, 10_000]))
    def check(question: str, size: int) -> None:
        found = answers.answer(question, size)
        if encoder.query_ids(question):
            assert found == full(rewriter, question, size)
        else:
            assert found is None

    check()


def test_it_is_what_is_answered_and_not_always_the_full_way(encoder: LookupEncoder) -> None:
    rewriter = QueryRewriter.load(encoder=encoder)
    asked = []
    answers = Written(encoder, 1000, lambda query, size: asked.append(query) or full(rewriter, "bread", size))
    # One that always writes the same has no place for a token.
    assert answers.answer("the sea", 10) is None
    assert len(asked) == 3
    assert answers.answer("the sea", 10) is None
    assert len(asked) == 3


def test_what_cannot_be_put_together(encoder: LookupEncoder) -> None:
    for options in (
        {"pruning": Pruning(top_k=3)},
        {"two_phase": TwoPhase()},
        {"hybrid": "bm25"},
        {"kind": "sparse_vector"},
    ):
        assert made(QueryRewriter.load(encoder=encoder, **options)) is None, options  # type: ignore[arg-type]
    several = made(QueryRewriter.load(encoder=encoder, fields=["one", "other"]))
    assert several is not None
    assert several.answer("the sea", 10) is None


def test_more_tokens_than_an_engine_takes(encoder: LookupEncoder) -> None:
    rewriter = QueryRewriter.load(encoder=encoder)
    answers = made(rewriter)
    assert answers is not None
    tokens = map(encoder.vocabulary.token, encoder.some_ids(len(encoder.vocabulary)))
    words = [token for token in tokens if token.isalpha() and token.isascii()][:1200]
    assert answers.answer(" ".join(words[:1000]), 10) == full(rewriter, " ".join(words[:1000]))
    assert answers.answer(" ".join(words[:1001]), 10) is None
    assert rewriter.encode(" ".join(words[:1001])).dropped == 1


def heavy(folder: Path, shared: Path) -> LookupEncoder:
    """Some weights are more than `neural_sparse` takes: a boost stands around the whole query then."""
    (folder / "tokenizer.json").write_bytes((shared / "bert-uncased" / "tokenizer.json").read_bytes())
    (folder / "idf.json").write_text(json.dumps({"sea": 1.5, "bread": 100.25, "the": 64.0, "wind": 0.1}))
    return LookupEncoder(folder)


def test_a_weight_that_changes_what_stands_around(tmp_path: Path, shared: Path) -> None:
    encoder = heavy(tmp_path, shared)
    rewriter = QueryRewriter.load(encoder=encoder)
    answers = made(rewriter)
    assert answers is not None
    assert answers.answer("the sea wind", 10) == full(rewriter, "the sea wind")
    assert answers.answer("the bread", 10) is None
    assert b'"boost"' in full(rewriter, "the bread")
    assert answers.answer("the sea", 10) == full(rewriter, "the sea")


def test_it_begins_anew_when_it_is_full(encoder: LookupEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "MOST_PIECES", 8)
    monkeypatch.setattr(written, "MOST_SIZES", 3)
    rewriter = QueryRewriter.load(encoder=encoder)
    answers = made(rewriter)
    assert answers is not None
    words = ("sea", "bread", "wind", "house", "tree", "stone", "river", "night", "day", "moon")
    for number in range(40):
        question = " ".join((words[number % 10], words[number // 4], "and", "the"))
        assert answers.answer(question, number % 5) == full(rewriter, question, number % 5)
        assert len(answers._pieces) <= 8
        assert len(answers._frames) <= 3
