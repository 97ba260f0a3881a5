"""Conversations with judgements: their file's form, and the figures of each way to ask them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import EvaluationError, UsageError
from bridge.judged import Asked, read_conversations, read_turns
from bridge.records import Turn

Bridge = Callable[..., tuple[int, str, str]]
Fails = Callable[..., str]

ROWS = (
    {"query_id": "1", "question": "why does the sea rise", "history": [], "rewrite": "why does the sea rise"},
    {
        "query_id": "2",
        "question": "and bread?",
        "history": [{"question": "why does the sea rise", "answer": "The moon."}, {"question": "what of rain?"}],
        "rewrite": "what is bread made of, flour?",
        "turn": 2,
    },
    {"query_id": "unjudged", "question": "and?"},
)
DOCUMENTS = (
    {"_id": "moon", "text": "The moon pulls the sea, and the sea rises."},
    {"_id": "bread", "text": "Bread is flour, water, salt and yeast."},
    {"_id": "rain", "text": "Rain falls when the drops in a cloud grow heavy."},
)
FORMS = ("last", "all", "rewrite")


def write(folder: Path, rows: Any = ROWS) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\tmoon\t1\n2\tbread\t1\n")
    (folder / "conversations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS))
    return folder


def test_conversations_are_read(tmp_path: Path) -> None:
    found = read_conversations(write(tmp_path / "folder"))
    earlier = (Turn("why does the sea rise", "The moon."), Turn("what of rain?", None))
    assert found.queries == {
        "1": Asked((Turn("why does the sea rise"),), "why does the sea rise"),
        "2": Asked((*earlier, Turn("and bread?")), "what is bread made of, flour?"),
    }
    assert found.qrels == {"1": {"moon": 1}, "2": {"bread": 1}}
    asked = found.as_queries(lambda asked: str(len(asked.turns)))
    assert asked.queries == {"1": "1", "2": "3"}


def test_a_question_that_cannot_be_asked_is_named(tmp_path: Path) -> None:
    def refuse(asked: Asked) -> str:
        raise UsageError("there is no rewrite of the question")

    with pytest.raises(EvaluationError, match="the question 1: there is no rewrite"):
        read_conversations(write(tmp_path / "folder")).as_queries(refuse)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query_id": "1"}, r"conversations.jsonl:1: not a turn of a conversation: .*question"),
        ({"query_id": "1", "question": 3}, r":1: not a turn of a conversation"),
        ({"query_id": "1", "question": "a", "history": [{"answer": "b"}]}, r":1: not a turn of a conversation"),
        ({"question": "a"}, r":1: .*query_id"),
        ({"query_id": "1", "question": "a"}, r"lacks judged queries of .*test.tsv: 2"),
    ],
)
def test_ill_formed_conversations(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        read_conversations(write(tmp_path / "folder", [row]))


def test_the_published_conversations(shared: Path) -> None:
    found = read_conversations(shared / "corpora" / "mtrag_human")
    assert len(found.queries) == 179
    for name, asked in (
        ("queries", lambda one: one.rewritten),
        ("queries_lastturn", lambda one: one.turns[-1].question),
    ):
        lines = (shared / "corpora" / "mtrag_human" / f"{name}.jsonl").read_text("utf-8").splitlines()
        texts = {row["_id"]: " ".join(row["text"].split()) for row in map(json.loads, lines)}
        assert {query: " ".join(asked(one).split()) for query, one in found.queries.items()} == texts
    turns = read_turns(shared / "corpora" / "cast2019" / "conversations.jsonl")
    assert len(turns) == 479
    assert [turn.question for turn in turns["31_2"].turns] == ["What is throat cancer?", "Is it treatable?"]


def test_a_row_for_each_form(bridge: Bridge, fails: Fails, index: str, opensearch_url: str, tmp_path: Path) -> None:
    write(tmp_path / "folder")
    assert bridge("ingest", index, "folder", url=opensearch_url)[0] == 0
    found: dict[str, Any] = {}
    for form in FORMS:
        code, out, err = bridge("evaluate", index, "folder", "--conversations", form, "--json", url=opensearch_url)
        assert code == 0, err
        found[form] = json.loads(out)
    # The history of the second question asks for the sea and the rain, too.
    assert [found[form]["active_terms"]["query"] for form in FORMS] == [1.5, 3.0, 2.5]
    assert [found[form]["ndcg@10"] for form in ("last", "rewrite")] == [1.0, 1.0]
    assert found["all"]["queries"] == 2
    several = [word for form in FORMS for word in ("--conversations", form)]
    code, out, err = bridge("evaluate", index, "folder", *several, "--json", url=opensearch_url)
    assert json.loads(out) == {"conversations": found}
    code, out, err = bridge("evaluate", index, "folder", *several, url=opensearch_url)
    assert [line.split()[0] for line in out.splitlines() if line.split()[:1] and line.split()[0] in FORMS] == list(
        FORMS
    )
    pruned = ["evaluate", index, "folder", "--conversations", "all", "--prune", "top-k=1", "--json"]
    figures = json.loads(bridge(*pruned, url=opensearch_url)[1])
    assert (figures["active_terms"]["query"], figures["pruned_terms"]) == (1.0, 2.0)
    line = fails(2, "evaluate", index, "folder", *several, "--run", "a.trec", url=opensearch_url)
    assert "name one form with --conversations" in line
