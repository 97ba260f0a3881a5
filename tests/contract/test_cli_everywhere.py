"""The commands on every engine alike: what works on OpenSearch works on Elasticsearch."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge import register
from bridge.engines import Engine

Bridge = Callable[..., tuple[int, str, str]]

CORPUS = Path(register.__file__).parent / "demo_data"

pytestmark = [
    pytest.mark.node,
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]


@pytest.fixture
def index(any_engine: Engine) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    for one in (name, f"{name}-again"):
        if any_engine.get_index(one):
            any_engine.delete_index(one)


def test_register_ingest_search_evaluate_and_doctor(
    bridge: Bridge, any_engine: Engine, index: str, tmp_path: Path
) -> None:
    url = any_engine.url

    def run(*arguments: str, code: int = 0) -> str:
        found, out, err = bridge(*arguments, url=url)
        assert found == code, err
        return out

    assert f"{any_engine.info()}" in run("doctor")
    run("fit", str(CORPUS), "-o", "model")
    planned = run("register", index, "--model", "model", "--dry-run")
    assert any_engine.get_index(index) is None
    assert planned
    run("register", index, "--model", "model")
    assert json.loads(run("ingest", index, str(CORPUS), "--json"))["indexed"] == 240
    assert json.loads(run("ingest", index, str(CORPUS), "--json"))["unchanged"] == 240
    asked = ["search", index, "why does my bread turn out heavy", "--json"]
    (best, *_) = json.loads(run(*asked))["hits"]
    assert sum(best["tokens"].values()) == pytest.approx(best["score"], rel=1e-6)
    by_engine = json.loads(run(*asked, "--explain", "--explained-by", "engine"))["hits"][0]
    assert by_engine["tokens"] == pytest.approx(best["tokens"], rel=1e-6)
    body = json.loads(run("rewrite", "why does my bread turn out heavy", "--index", index))
    assert any_engine.search(index, body)["hits"]["hits"][0]["_id"] == best["id"]
    narrowed = json.loads(run(*asked, "--filter", json.dumps({"ids": {"values": [best["id"]]}})))["hits"]
    assert [hit["id"] for hit in narrowed] == [best["id"]]
    plain = json.loads(run("evaluate", index, str(CORPUS), "--json", "--run", "plain.trec"))
    assert plain["ndcg@10"] > 0.6
    hybrid = json.loads(run("evaluate", index, str(CORPUS), "--json", "--hybrid", "bm25", "--compare", "plain.trec"))
    assert hybrid["compare"]["queries"] == plain["queries"]
    boosted = json.loads(run("evaluate", index, str(CORPUS), "--json", "--field", "embedding^2"))
    assert boosted == plain
    phases = json.loads(run("evaluate", index, str(CORPUS), "--json", "--two-phase"))
    # Where every document is within the window, the second phase undoes what the first has left out.
    assert phases["ndcg@10"] == pytest.approx(plain["ndcg@10"], abs=0.02)
    run("evaluate", index, str(CORPUS), "--field", "nowhere", code=2)
    # Into another index from this one, and what cannot go in is kept.
    assert json.loads(run("ingest", f"{index}-again", f"index:{index}", "--model", "model", "--json"))["indexed"] == 240
    (tmp_path / "wrong.jsonl").write_text('{"_id": "x"}\n')
    assert json.loads(run("ingest", index, "wrong.jsonl", "--json", code=3))["dead"] == 1
    assert "x" in run("dead-letter", "show", f"{index}.dead-letter.jsonl")
