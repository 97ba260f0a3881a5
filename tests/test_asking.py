"""`bridge rewrite`, `search` and `encode`: conversations, pruning and passages on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Bridge = Callable[..., tuple[int, str, str]]
Fails = Callable[..., str]

TURNS = ("--turn", "weather in ny", "--turn", "Sunny.", "--turn", "and rain?")


@pytest.fixture
def model(shared: Path) -> str:
    return str(shared / "bert-uncased")


def tokens(out: str) -> set[str]:
    return set(json.loads(out)["query"]["neural_sparse"]["embedding"]["query_tokens"])


@pytest.mark.parametrize(
    ("form", "asked"),
    [
        ("auto", {"tomorrow"}),
        ("last", {"tomorrow"}),
        ("all", {"weather", "in", "ny", "and", "rain", "?", "tomorrow"}),
        ("disco", {"weather", "in", "ny", "sunny", ".", "and", "rain", "?", "tomorrow"}),
    ],
)
def test_turns(bridge: Bridge, model: str, form: str, asked: set[str]) -> None:
    code, out, err = bridge("rewrite", "tomorrow", *TURNS, "--conversation", form, "--model", model, "--json")
    assert (code, err) == (0, "")
    assert tokens(out) == asked
    words = ["encode", "--text", "tomorrow", "--query", *TURNS, "--conversation", form, "--model", model, "--json"]
    assert set(json.loads(bridge(*words)[1])["tokens"]) == asked


def test_turns_are_of_queries(fails: Fails, model: str) -> None:
    assert "--turn goes with --query" in fails(2, "encode", "--text", "a", "--turn", "b", "--model", model)


def test_pruning_says_what_went(bridge: Bridge, fails: Fails, model: str) -> None:
    code, out, err = bridge("rewrite", "the weather in ny", "--prune", "top-k=2", "--model", model, "--json")
    assert code == 0
    assert tokens(out) == {"weather", "ny"}
    assert err.startswith("pruning took 2 of 4 tokens, ")
    assert err.endswith(" % of the weight\n")
    assert "METHOD=VALUE" in fails(2, "rewrite", "a", "--prune", "best=2", "--model", model)


def test_nested_and_collapsed_bodies(bridge: Bridge, fails: Fails, model: str) -> None:
    arguments = ["rewrite", "weather", "--model", model, "--json"]
    nested = json.loads(bridge(*arguments, "--nested-path", "passages", "--passages", "2")[1])["query"]["nested"]
    assert (nested["path"], nested["score_mode"], nested["inner_hits"]["size"]) == ("passages", "max", 2)
    collapsed: Any = json.loads(bridge(*arguments, "--collapse", "document")[1])
    assert collapsed["collapse"] == {"field": "document"}
    assert "keeps no passages" in fails(2, *arguments[:-1], "--passages", "2")
    assert "leave it out" in fails(2, "rewrite", "a", "--index", "x", "--nested-path", "p")


def test_search(bridge: Bridge, index: str, opensearch_url: str, tmp_path: Path) -> None:
    rows = [{"_id": "1", "text": "Sun in the morning."}, {"_id": "2", "text": "Rain in the evening."}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert bridge("ingest", index, "a.jsonl", url=opensearch_url)[0] == 0
    asked = ["search", index, "sun", "--turn", "rain in the evening", "--conversation", "all"]
    found = json.loads(bridge(*asked, "--json", url=opensearch_url)[1])
    assert ({hit["id"] for hit in found["hits"]}, found["pruned"]) == ({"1", "2"}, 0)
    found = json.loads(bridge(*asked, "--prune", "top-k=1", "--json", url=opensearch_url)[1])
    assert (len(found["hits"]), found["pruned"]) == (1, 2)
    code, _, err = bridge(*asked, "--prune", "top-k=1", url=opensearch_url)
    assert code == 0
    assert "pruning took 2 of 3 tokens" in err
    assert "--turn 'rain in the evening'" in err


def test_a_hybrid_body(bridge: Bridge, fails: Fails, model: str) -> None:
    arguments = ["rewrite", "weather in ny", "--model", model, "--json"]
    code, out, err = bridge(*arguments, "--hybrid", "bm25^2", "--depth", "40", "--text-field", "body")
    body = json.loads(out)
    sparse, words = body["query"]["hybrid"]["queries"]
    assert (code, err, body["query"]["hybrid"]["pagination_depth"]) == (0, "", 40)
    assert set(sparse["neural_sparse"]["embedding"]["query_tokens"]) == {"weather", "in", "ny"}
    assert (words["multi_match"]["query"], words["multi_match"]["fields"]) == ("weather in ny", ["body"])
    (processor,) = body["search_pipeline"]["phase_results_processors"]
    weights = processor["normalization-processor"]["combination"]["parameters"]["weights"]
    assert weights == pytest.approx([1 / 3, 2 / 3])
    # Of a conversation the other parts read words: the last question.
    talked = json.loads(bridge(*arguments, "--hybrid", "bm25", *TURNS, "--conversation", "disco")[1])
    assert talked["query"]["hybrid"]["queries"][1]["multi_match"]["query"] == "weather in ny"
    arguments.pop()
    assert "name its parts with --hybrid" in fails(2, *arguments, "--pipeline", "own")
    assert "name it with --dense" in fails(2, *arguments, "--hybrid", "dense")
    assert "is no part of a hybrid search" in fails(2, *arguments, "--hybrid", "lexical")
    assert "bridge search" in fails(1, *arguments, "--hybrid", "bm25", "--fuse", "client")


def test_a_hybrid_search_and_its_figures(bridge: Bridge, index: str, opensearch_url: str, tmp_path: Path) -> None:
    rows = [{"_id": "1", "text": "Sun in the morning."}, {"_id": "2", "text": "Rain in the evening, no sun."}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert bridge("ingest", index, "a.jsonl", url=opensearch_url)[0] == 0
    for fuse in ("engine", "client"):
        asked = ["search", index, "evening rain", "--hybrid", "bm25", "--fusion", "rrf", "--fuse", fuse]
        (hit,) = json.loads(bridge(*asked, "--json", url=opensearch_url)[1])["hits"]
        assert (hit["id"], hit["score"], set(hit["tokens"])) == (
            "2",
            pytest.approx(2 / 61, rel=1e-5),
            {"evening", "rain"},
        )
    (tmp_path / "judged" / "qrels").mkdir(parents=True)
    (tmp_path / "judged" / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "rain"}) + "\n")
    (tmp_path / "judged" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t2\t1\n")
    measured = ["evaluate", index, "judged", "--hybrid", "bm25", "--json"]
    assert json.loads(bridge(*measured, url=opensearch_url)[1])["ndcg@10"] == 1
