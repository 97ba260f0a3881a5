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


def test_attach_says_what_a_cluster_without_remote_models_lacks(
    bridge: Bridge, fails: Callable[..., str], any_engine: Engine, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engines here have neither the ml plugin nor inference endpoints: what would be put is printed, or refused."""
    url, info = any_engine.url, any_engine.info()
    daemon = ("--daemon", "http://127.0.0.1:1")
    bridge("fit", str(CORPUS), "-o", "model")
    assert bridge("register", index, "--model", "model", url=url)[0] == 0
    other = "elasticsearch" if info.product == "opensearch" else "opensearch"
    assert f"which is no {other}" in fails(2, "attach", other, index, *daemon, url=url)
    assert "one of the two" in fails(2, "attach", info.product, index, url=url)
    assert "no URL of a daemon" in fails(2, "attach", info.product, index, "--daemon", "bridge:8090", url=url)
    assert "no index nowhere" in fails(1, "attach", info.product, "nowhere", *daemon, url=url)
    monkeypatch.setenv("BRIDGE_DAEMON_KEY", "hunter2")
    refused = fails(2, "attach", info.product, index, *daemon, url=url)
    assert "the daemon's key has not the form" in refused
    assert "hunter2" not in refused
    key = "nsb_0123456789ab_" + "x" * 43
    monkeypatch.setenv("BRIDGE_DAEMON_KEY", key)
    if info.product == "opensearch":
        assert "no ml plugin" in fails(1, "attach", "opensearch", index, *daemon, url=url)
    elif info.version < (8, 19, 0):
        assert "no inference service" in fails(1, "attach", "elasticsearch", index, *daemon, url=url)
    else:
        code, out, err = bridge("attach", "elasticsearch", index, *daemon, "--json", url=url)
        assert code == 0, err
        assert "nothing was put" in err
        assert key not in out + err
        (endpoint, pipeline) = json.loads(out)["requests"].items()
        assert endpoint[0] == f"/_inference/sparse_embedding/bridge-{index}"
        assert pipeline[0] == f"/_ingest/pipeline/bridge-{index}"
        assert endpoint[1]["service_settings"]["url"] == f"http://127.0.0.1:1/v1/indexes/{index}/inference"
        (inference,) = [one["inference"] for one in pipeline[1]["processors"] if "inference" in one]
        assert inference["model_id"] == f"bridge-{index}"
