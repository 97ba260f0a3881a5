"""BM25 alone on every engine: the same hits as a plain `match`, terms that sum to the score, words where they stand."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.baseline import baseline, baseline_body
from bridge.engines import Engine
from bridge.engines.base import encode
from bridge.errors import UsageError
from bridge.fit import FitOptions, fit
from bridge.ingest import IngestOptions, ingest, texts_of
from bridge.records import TEXT_FIELDS, Turn
from bridge.register import RegisterOptions
from bridge.rewrite import QueryRewriter
from bridge.sources import open_source

CORPUS = str(Path(__file__).parents[2] / "bridge" / "demo_data")
QUESTION = "Why does my BREAD turn out heavy?"
FOX = {"title": "🦊🦊 a quixotic fox", "text": "The fox 🦊 and the quixotic hound"}
OTHERS = {
    "fox": FOX,
    "list": {"title": "Several", "text": ["nothing here", "a quixotic end"]},
    "blank": {"title": "  ", "text": ["", "a quixotic blank"]},
    "untitled": {"text": "quixotic alone"},
}

pytestmark = [
    pytest.mark.node,
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]


@pytest.fixture(scope="module")
def asked(any_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, QueryRewriter]]:
    """An index with the demo corpus and a few documents more, one of them with a routing of its own."""
    index, folder = f"test-{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, open_source([CORPUS]) as source:
        patch.setenv("BRIDGE_CACHE_DIR", str(folder / "cache"))
        patch.setenv("BRIDGE_DATA_DIR", str(folder / "data"))
        fit(texts_of(source, TEXT_FIELDS, lambda progress: None), folder / "model", FitOptions(language="en"))
        options = IngestOptions(
            model=str(folder / "model"), dead_letter=folder / "dead", register=RegisterOptions(shards=3)
        )
        assert ingest(any_engine, index, source, options).indexed == 240
    for name, fields in OTHERS.items():
        any_engine.request("PUT", f"/{index}/_doc/{name}", params={"refresh": "true"}, body=encode(fields))
    any_engine.request("PUT", f"/{index}/_doc/away", params={"refresh": "true", "routing": "elsewhere"},
                       body=encode({"text": "a quixotic routing"}))  # fmt: skip
    yield index, QueryRewriter.for_index(any_engine, index, model=str(folder / "model"))
    any_engine.delete_index(index)


def test_the_hits_are_those_of_a_plain_match(any_engine: Engine, asked: tuple[str, QueryRewriter]) -> None:
    index, rewriter = asked
    found, _ = baseline(any_engine, index, rewriter, QUESTION, size=7, start=2)
    clause = {"multi_match": {"query": QUESTION, "fields": ["title", "text"], "type": "most_fields"}}
    plain = any_engine.search(index, {"query": clause, "size": 7, "from": 2})["hits"]["hits"]
    assert [(hit.id, hit.score) for hit in found.hits] == [(hit["_id"], hit["_score"]) for hit in plain]
    assert len(plain) == 7
    assert found.body == baseline_body(rewriter, QUESTION, size=7, start=2)
    assert found.body["query"] == clause
    # What is shown is what can be sent as it is; vectors and hashes do not come along.
    sent = any_engine.search(index, dict(found.body))["hits"]["hits"]
    assert [hit["_id"] for hit in sent] == [hit.id for hit in found.hits]
    assert {name for hit in found.hits for name in hit.source} == {"title", "text", "subject"}


@pytest.mark.parametrize("narrowed", [None, {"term": {"subject": "cooking"}}, {"match": {"text": "heavy bread"}}])
def test_the_terms_of_a_hit_make_its_score(
    any_engine: Engine, asked: tuple[str, QueryRewriter], narrowed: dict[str, object] | None
) -> None:
    found, why = baseline(any_engine, asked[0], asked[1], QUESTION, filter=narrowed, explain=True)
    assert found.hits
    for hit, explained in zip(found.hits, why, strict=True):
        assert sum(match.contribution for match in hit.matches) == pytest.approx(hit.score, rel=1e-5)
        assert {match.token for match in hit.matches} <= {"why", "does", "my", "bread", "turn", "out", "heavy"}
        assert explained.marks
        assert explained.text == f"{hit.source['title']}\n{hit.source['text']}"
        for mark in explained.marks:
            assert explained.text[mark.start : mark.end].lower() in {token.token for token in mark.tokens}


def test_words_are_marked_where_they_stand(any_engine: Engine, asked: tuple[str, QueryRewriter]) -> None:
    """Beyond the basic plane, in lists, beside fields that are missing or blank, and in documents with a routing."""
    found, why = baseline(any_engine, asked[0], asked[1], "quixotic fox", explain=True)
    assert {hit.id for hit in found.hits} == {*OTHERS, "away"}
    words = {
        hit.id: [one.text[mark.start : mark.end] for mark in one.marks if one.text]
        for hit, one in zip(found.hits, why, strict=True)
    }
    # Blank members of a list are not in the text, so that places in it are not known.
    expected = {name: ["quixotic"] for name in words} | {"fox": ["quixotic", "fox", "fox", "quixotic"], "blank": []}
    assert words == expected


def test_a_conversation_is_asked_as_words(asked: tuple[str, QueryRewriter]) -> None:
    turns = [Turn("does bread rise", "with yeast"), Turn("and in the cold?")]
    rewriter = asked[1]
    assert json.dumps(baseline_body(rewriter, turns)).count("and in the cold?") == 1
    assert "bread in the cold" in json.dumps(baseline_body(rewriter, turns, rewritten="bread in the cold"))
    with pytest.raises(UsageError, match="the query is empty"):
        baseline_body(rewriter, "  ")
