"""Plain queries, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.daemon.proxied import rewritten


def ask(text: str) -> dict[str, Any]:
    return {"asked": {"text": text}}


def made(query: Any) -> Any:
    return rewritten(query, ("title", "text"), "embedding", ask)


A = {"match": {"text": "a"}}
ASKED = {"asked": {"text": "a"}}
TERM = {"term": {"lang": "en"}}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (A, ASKED),
        ({"match": {"text": {"query": "a"}}}, ASKED),
        ({"match": {"title": {"query": "a", "boost": 2}}}, {"bool": {"must": [ASKED], "boost": 2}}),
        # As Java's clients write it.
        ({"match": {"text": {"query": "a", "operator": "OR", "prefix_length": 0, "max_expansions": 50, "boost": 1.0,
                             "fuzzy_transpositions": True, "lenient": False, "zero_terms_query": "NONE",
                             "auto_generate_synonyms_phrase_query": True}}}, ASKED),
        ({"match": {"text": {"query": "a", "_name": "n"}}}, {"bool": {"must": [ASKED], "_name": "n"}}),
        ({"hybrid": {"queries": [A, {"neural_sparse": {"embedding": {"query_text": "a"}}}]}},
         {"hybrid": {"queries": [A, ASKED]}}),
        ({"multi_match": {"query": "a", "fields": ["title^3", "text"]}}, ASKED),
        ({"multi_match": {"query": "a", "fields": ["text^1.0"], "type": "best_fields", "operator": "OR", "slop": 0,
                          "boost": 2}}, {"bool": {"must": [ASKED], "boost": 2}}),
        ({"multi_match": {"query": "a", "fields": "text", "type": "most_fields"}}, ASKED),
        ({"neural_sparse": {"embedding": {"query_text": "a"}}}, ASKED),
        ({"bool": {"must": A, "filter": [TERM]}}, {"bool": {"must": ASKED, "filter": [TERM]}}),
        ({"bool": {"should": [A, TERM], "boost": 3}}, {"bool": {"should": [ASKED, TERM], "boost": 3}}),
        ({"bool": {"must": [{"bool": {"should": [A]}}]}}, {"bool": {"must": [{"bool": {"should": [ASKED]}}]}}),
        ({"dis_max": {"queries": [A, TERM]}}, {"dis_max": {"queries": [ASKED, TERM]}}),
        ({"function_score": {"query": A, "boost": 5}}, {"function_score": {"query": ASKED, "boost": 5}}),
        ({"boosting": {"positive": A, "negative": A, "negative_boost": 0.5}},
         {"boosting": {"positive": ASKED, "negative": A, "negative_boost": 0.5}}),
    ],
)  # fmt: skip
def test_a_question_is_asked_of_vectors(query: Any, expected: Any) -> None:
    before = repr(query)
    assert made(query) == expected
    assert repr(query) == before


@pytest.mark.parametrize(
    "query",
    [
        TERM,
        {"match": {"lang": "en"}},
        {"match": {"text": {"query": "a", "operator": "and"}}},
        {"match": {"text": {"query": "a", "fuzziness": 1}}},
        {"match": {"text": {"query": "a", "lenient": True}}},
        {"match": {"text": {"query": "a", "_name": 5}}},
        {"match": {"text": {"boost": 2}}},
        {"multi_match": {"query": "a", "fields": ["text"], "operator": "and"}},
        {"match": {"text": {"query": 5}}},
        {"match": {"text": 5}},
        {"match": {"text": "  "}},
        {"match": {"text": {"query": "a", "boost": "x"}}},
        {"match": {"text": "a", "title": "a"}},
        {"match_phrase": {"text": "a b"}},
        {"multi_match": {"query": "a", "fields": ["text", "lang"]}},
        {"multi_match": {"query": "a"}},
        {"multi_match": {"query": "a", "fields": ["text"], "type": "phrase"}},
        {"multi_match": {"query": "a", "fields": [5]}},
        {"neural_sparse": {"other": {"query_text": "a"}}},
        {"neural_sparse": {"embedding": {"query_text": "a", "model_id": "m"}}},
        {"neural_sparse": {"embedding": {"query_tokens": {"a": 1.0}}}},
        {"bool": {"filter": [A], "must_not": A}},
        {"nested": {"path": "p", "query": A}},
        {"constant_score": {"filter": A}},
        {"bool": 5},
        {"match": A, "term": TERM},
        [],
        None,
        "match",
    ],
)
def test_what_means_words_stays(query: Any) -> None:
    assert made(query) == query
