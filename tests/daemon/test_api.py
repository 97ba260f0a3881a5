"""The daemon's operations on a real node, and what it refuses."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from bridge.daemon.app import make_app
from bridge.daemon.keys import KeyFile
from bridge.engines import Engine, open_engine
from bridge.errors import EngineUnreachable
from bridge.servesettings import DeclaredIndex, Limits, ServeSettings
from bridge.settings import EngineSettings, Settings

CORPUS = Path(__file__).parents[2] / "bridge" / "demo_data"
QUESTION = "why does my bread turn out heavy"

Bridge = Callable[..., tuple[int, str, str]]
Answer = dict[str, Any]


def served(url: str, tmp_path: Path, **options: Any) -> TestClient:
    """A daemon on this engine, in this process."""
    options = {"data": str(tmp_path / "serve")} | options
    settings = Settings(engine=EngineSettings(url=url), serve=ServeSettings(**options))
    return TestClient(make_app(settings, lambda one: open_engine(settings=one.engine)), base_url="http://localhost")


@pytest.fixture
def model(bridge: Bridge, tmp_path: Path) -> str:
    assert bridge("fit", str(CORPUS), "-o", "model")[0] == 0
    return str(tmp_path / "model")


@pytest.fixture
def client(opensearch_url: str, tmp_path: Path, model: str, shared: Path) -> Iterator[TestClient]:
    models = {"own": model, "bert": str(shared / "bert-uncased")}
    with served(opensearch_url, tmp_path, models=models, roots=(str(CORPUS.parent), str(tmp_path))) as one:
        yield one


def wait(client: TestClient, job: Answer, seconds: float = 60) -> Answer:
    deadline = time.monotonic() + seconds
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    return job


def ok(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def test_from_registering_to_measuring(client: TestClient, engine: Engine, index: str, bridge: Bridge) -> None:
    path = f"/v1/indexes/{index}"
    planned = ok(client.put(path, json={"model": "own"}, params={"dry_run": "true"}))
    assert (planned["dry_run"], engine.get_index(index)) == (True, None)
    made = ok(client.put(path, json={"model": "own"}))
    assert made["steps"]
    assert ok(client.put(path, json={"model": "own"}))["steps"] == []
    ingested = wait(client, ok(client.post("/v1/ingest", json={"index": index, "source": "demo_data"}), 202))
    assert (ingested["state"], ingested["error"]) == ("done", None)
    assert (ingested["result"]["indexed"], ingested["attempts"]) == (240, 1)
    assert ok(client.get(path))["documents"] == 240
    assert index in [one["name"] for one in ok(client.get("/v1/indexes"))["indexes"]]
    assert ok(client.get("/v1"))["engine"] == str(engine.info())

    # The same hits, query and figures as the command line's.
    found = ok(client.post("/v1/search", json={"index": index, "text": QUESTION, "explain": True}))
    words = ("search", index, QUESTION, "--explain", "--json")
    expected = json.loads(bridge(*words, url=engine.url)[1])
    assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in expected["hits"]]
    assert found["hits"] == expected["hits"]
    rewritten = ok(client.post("/v1/rewrite", json={"index": index, "text": QUESTION, "size": 3, "from": 2}))
    words = ("rewrite", QUESTION, "--index", index, "-n", "3", "--from", "2")
    assert rewritten["body"] == json.loads(bridge(*words, url=engine.url)[1])
    assert [hit["_id"] for hit in engine.search(index, rewritten["body"])["hits"]["hits"]] == [
        hit["id"] for hit in found["hits"]
    ][2:5]
    # By words alone: the same from both operations, with the terms that made the score.
    words_alone = {"index": index, "text": QUESTION, "ranked_by": "bm25", "size": 3, "explain": True}
    by_words = ok(client.post("/v1/search", json=words_alone))
    del words_alone["explain"]
    assert by_words["body"] == ok(client.post("/v1/rewrite", json=words_alone))["body"]
    assert [hit["id"] for hit in by_words["hits"]] == [
        hit["_id"] for hit in engine.search(index, by_words["body"])["hits"]["hits"]
    ]
    for hit in by_words["hits"]:
        assert sum(hit["tokens"].values()) == pytest.approx(hit["score"], rel=1e-5)
        assert any(token["words"] for token in hit["explanation"]["tokens"])
    plain = ok(client.post("/v1/search", json=words_alone))["hits"]
    assert plain == [{name: value for name, value in hit.items() if name != "explanation"} for hit in by_words["hits"]]
    measured = wait(client, ok(client.post("/v1/evaluate", json={"index": index, "folder": "demo_data"}), 202))
    assert measured["result"] == json.loads(bridge("evaluate", index, str(CORPUS), "--json", url=engine.url)[1])

    # An index that is made anew is noticed.
    engine.delete_index(index)
    time.sleep(5.1)
    gone = client.post("/v1/search", json={"index": index, "text": QUESTION})
    assert (gone.status_code, gone.json()["title"]) == (404, "IndexNotFound")


def test_documents_of_a_body(client: TestClient, engine: Engine, index: str) -> None:
    documents = [{"_id": str(n), "text": f"word{n} of the sea"} for n in range(20)]
    job = wait(
        client, ok(client.post("/v1/ingest", json={"index": index, "documents": [*documents, {"text": "x"}]}), 202)
    )
    assert (job["result"]["indexed"], job["result"]["dead"]) == (20, 1)
    letters = ok(client.get(f"/v1/jobs/{job['id']}/dead-letters"))
    assert (letters["total"], letters["letters"][0]["line"]) == (1, 21)
    assert "no id" in letters["letters"][0]["reason"]
    assert ok(client.get(f"/v1/jobs/{job['id']}/dead-letters", params={"from": 1}))["letters"] == []
    lines = "".join(json.dumps({"key": str(n), "text": f"more{n} of the sea"}) + "\n" for n in range(20, 30))
    job = wait(client, ok(client.post(
        "/v1/ingest", content=lines + "{broken\n", headers={"content-type": "application/x-ndjson"},
        params={"index": index, "id_field": "key"},
    ), 202))  # fmt: skip
    assert (job["result"]["indexed"], job["result"]["dead"]) == (10, 1)
    assert engine.count(index) == 30


def test_vectors(client: TestClient, shared: Path) -> None:
    from bridge import load_encoder

    texts = ["what is the weather in ny", "", "🙂 a dog"]
    encoder = load_encoder(shared / "bert-uncased")
    found = ok(client.post("/v1/encode", json={"texts": texts, "model": "bert", "as": "query"}))
    vectors = encoder.encode_query(texts)
    assert found["vectors"] == [vector.as_dict() for vector in vectors]
    assert found["model"] == encoder.query_fingerprint
    by_ids = ok(client.post("/v1/encode", json={"texts": texts, "model": "bert", "as": "query", "form": "ids"}))
    assert [list(one) for one in by_ids["vectors"]] == [list(map(str, vector.ids.tolist())) for vector in vectors]
    refused = client.post("/v1/encode", json={"texts": texts, "model": "bert"})
    assert (refused.status_code, "encodes queries only" in refused.json()["detail"]) == (400, True)


def test_a_conversation_offline(client: TestClient) -> None:
    turns = [{"question": "does vitamin d help", "answer": "bones"}, {"question": "and against colds"}]
    asked = {"model": "bert", "turns": turns, "conversation": "all", "engine": "elasticsearch", "version": "7.17.29"}
    body = ok(client.post("/v1/rewrite", json=asked))["body"]
    named = {clause["rank_feature"]["field"] for clause in body["query"]["bool"]["should"]}
    assert {"embedding.vitamin", "embedding.cold"} & named or "embedding.vitamin" in named


REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/v1/rewrite", {"text": "x"}, 400, "name an index, or one of the daemon's models"),
    ("POST", "/v1/rewrite", {"model": "bert"}, 400, "ask with text, or with turns"),
    ("POST", "/v1/rewrite", {"model": "bert", "text": "  "}, 400, "the query is empty"),
    ("POST", "/v1/rewrite", {"model": "/etc", "text": "x"}, 404, "the daemon has no model '/etc'"),
    ("POST", "/v1/rewrite", {"model": "bert", "text": "x", "size": -1}, 422, "`$.size`"),
    ("POST", "/v1/rewrite", {"model": "bert", "text": "x", "sise": 1}, 422, "unknown field `sise`"),
    ("POST", "/v1/rewrite", {"model": "bert", "text": "x", "hybrid": "magic"}, 400, "is no part of a hybrid search"),
    ("POST", "/v1/rewrite", {"model": "bert", "text": "x", "ranked_by": "magic"}, 422, "`$.ranked_by`"),
    (
        "POST",
        "/v1/rewrite",
        {"model": "bert", "text": "x", "ranked_by": "bm25", "prune": "top-k=1"},
        400,
        "prune is of vectors, and bm25 ranks by words alone",
    ),
    (
        "POST",
        "/v1/rewrite",
        {"model": "bert", "text": "x", "ranked_by": "bm25", "hybrid": "bm25"},
        400,
        "hybrid is of vectors",
    ),
    ("POST", "/v1/rewrite", {"model": "bert", "text": "x" * 2001}, 413, "a text has 2,001 characters"),
    ("POST", "/v1/search", {"index": "nowhere", "text": "x"}, 404, "there is no index nowhere"),
    ("POST", "/v1/search", {"index": "a,b", "text": "x"}, 400, "is not the name of an index"),
    ("POST", "/v1/encode", {"texts": ["a"]}, 400, "name an index, whose model encodes"),
    ("POST", "/v1/encode", {"texts": ["a"] * 9, "model": "bert"}, 413, "9 texts in one request; 8 are taken"),
    ("POST", "/v1/encode", {"texts": [], "model": "bert"}, 422, "length >= 1"),
    ("POST", "/v1/ingest", {"index": "a"}, 400, "documents, or a source"),
    ("POST", "/v1/ingest", {"index": "a", "source": "../../etc/passwd"}, 400, "a file under one of the daemon's roots"),
    ("POST", "/v1/ingest", {"index": "a", "source": "/etc/passwd"}, 400, "a file under one of the daemon's roots"),
    ("POST", "/v1/ingest", {"index": "a", "source": "link"}, 400, "a file under one of the daemon's roots"),
    ("POST", "/v1/ingest", {"index": "a", "documents": [{}], "model": "../x"}, 404, "has no model"),
    ("POST", "/v1/evaluate", {"index": "a", "folder": "gone"}, 400, "is not there"),
    ("GET", "/v1/jobs/0123", None, 404, "there is no job '0123'"),
    ("GET", "/v1/jobs?size=many", None, 422, "size is a whole number"),
    ("POST", "/v1/jobs/0123/cancel", None, 404, "there is no job"),
    ("PUT", "/v1/indexes/a", {"model": "/etc"}, 404, "has no model"),
    ("PUT", "/v1/indexes/a", {"model": "no\0name"}, 404, "has no model"),
    # A folder that is there, or would be a repository's name.
    ("PUT", "/v1/indexes/a", {"model": "bridge"}, 404, "has no model"),
    ("PUT", "/v1/indexes/a", {"model": "a" * 300}, 404, "has no model"),
    ("PUT", "/v1/indexes/a", {"model": "lexical-0123456789abcdef"}, 404, "has no model"),
    ("PUT", "/v1/indexes/a", {"model": "bert", "dense": "bridge"}, 404, "has no model"),
    ("GET", "/v1/nothing", None, 404, "/openapi.json says what there is"),
    ("DELETE", "/v1/rewrite", None, 405, "Method Not Allowed"),
]


@pytest.fixture
def offline(tmp_path: Path, shared: Path, opensearch_url: str) -> Iterator[TestClient]:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to("/etc/passwd")
    limits = Limits(text_characters=2000, texts=8, body_bytes=10_000)
    options: Any = {"models": {"bert": str(shared / "bert-uncased")}, "roots": (str(tmp_path / "root"),)}
    with served(opensearch_url, tmp_path, limits=limits, **options) as one:
        yield one


@pytest.mark.parametrize(("method", "path", "body", "status", "said"), REFUSED)
def test_what_is_refused(offline: TestClient, method: str, path: str, body: Any, status: int, said: str) -> None:
    answer = offline.request(method, path, json=body)
    problem = ok(answer, status)
    assert said in problem["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status


def test_bodies_that_are_none(offline: TestClient) -> None:
    def send(content: Any, **headers: str) -> tuple[int, str]:
        answer = offline.post("/v1/rewrite", content=content, headers={"content-type": "application/json"} | headers)
        return answer.status_code, answer.json()["detail"]

    assert send(b"{")[0] == 400
    assert send(b"\xff\xfe")[0] == 400
    assert send(b"")[0] == 400
    assert send(b"[" * 5000)[0] in (400, 422)
    assert send(b"{}", **{"content-type": "text/plain"}) == (
        415, "the body's content type is text/plain; it is to be application/json"
    )  # fmt: skip
    assert send(b"x" * 10_001) == (413, "the body has 10,001 bytes; 10,000 are taken")
    # Without a length it is counted as it comes.
    assert send(iter([b"x" * 6000, b"x" * 6000]))[0] == 413


def test_a_page_of_another_origin_changes_nothing(offline: TestClient) -> None:
    asked = {"model": "bert", "text": "x"}
    assert offline.post("/v1/rewrite", json=asked, headers={"origin": "http://evil.example"}).status_code == 403
    assert offline.post("/v1/rewrite", json=asked, headers={"origin": "http://localhost"}).status_code == 200
    answer = offline.post("/v1/rewrite", json=asked, headers={"host": "evil.example"})
    assert (answer.status_code, answer.json()["title"]) == (421, "MisdirectedRequest")


def test_an_engine_that_is_away_is_not_described(tmp_path: Path, shared: Path) -> None:
    def away(settings: Settings) -> Engine:
        raise EngineUnreachable("nothing answers at https://secret-host.internal:9200")

    settings = Settings(serve=ServeSettings(data=str(tmp_path / "serve")))
    with TestClient(make_app(settings, away), base_url="http://localhost") as client:
        answer = client.post("/v1/search", json={"index": "a", "text": "x"})
        assert (answer.status_code, "secret-host" in answer.text) == (502, False)
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"], "secret" in ready.text) == (503, "not ready", False)
        assert client.get("/health/live").status_code == 200


def test_ids_of_requests(offline: TestClient) -> None:
    assert offline.get("/health/live", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for wrong in ("a b", "x" * 65, 'a"b'):
        given = offline.get("/health/live", headers={"x-request-id": wrong}).headers["x-request-id"]
        assert given != wrong
    problem = offline.get("/v1/jobs/0123", headers={"x-request-id": "mine-2"}).json()
    assert problem["request_id"] == "mine-2"


def test_metrics(offline: TestClient) -> None:
    offline.post("/v1/rewrite", json={"model": "bert", "text": "x"})
    offline.post("/v1/rewrite", json={"model": "bert"})
    text = offline.get("/metrics").text
    assert 'bridge_requests_total{operation="rewrite",status="200"} 1.0' in text
    assert 'bridge_requests_total{operation="rewrite",status="400"} 1.0' in text
    assert 'bridge_request_seconds_count{operation="rewrite"} 2.0' in text
    assert 'bridge_jobs{state="done"} 0.0' in text


# --- keys


@pytest.fixture
def keyed(tmp_path: Path, shared: Path, opensearch_url: str) -> Iterator[tuple[TestClient, dict[str, str]]]:
    file = KeyFile(tmp_path / "keys.json")
    keys = {scope: file.add(scope, scope)[0] for scope in ("read", "write", "admin")}  # type: ignore[arg-type]
    options: Any = {"models": {"bert": str(shared / "bert-uncased")}, "keys_file": str(file.path)}
    with served(opensearch_url, tmp_path, host="0.0.0.0", **options) as one:
        yield one, keys


def test_who_may_do_what(keyed: tuple[TestClient, dict[str, str]], index: str, engine: Engine) -> None:
    client, keys = keyed
    ranks = ["read", "write", "admin"]
    calls = {
        "read": ("POST", "/v1/rewrite", {"model": "bert", "text": "x"}),
        "write": ("POST", "/v1/ingest", {"index": index, "documents": [{"_id": "1"}]}),
        "admin": ("PUT", f"/v1/indexes/{index}?dry_run=true", {"model": "bert"}),
    }
    for needed, (method, path, body) in calls.items():
        for scheme in ({}, {"authorization": "Bearer nsb_wrong"}, {"authorization": f"Basic {keys['admin']}"}):
            answer = client.request(method, path, json=body, headers=scheme)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for scope, key in keys.items():
            allowed = ranks.index(scope) >= ranks.index(needed)
            for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
                status = client.request(method, path, json=body, headers=headers).status_code
                assert (status == 403) is not allowed
                assert status < 500
    documents = client.post("/v1/encode", json={"texts": ["a"], "model": "bert"}, headers={"x-api-key": keys["read"]})
    assert documents.status_code == 403
    # Health is for whoever starts and stops it; what it is made of is no secret.
    assert client.get("/health/live").status_code == 200
    assert client.get("/metrics").status_code == 401
    assert client.get("/openapi.json").json()["paths"]["/v1/ingest"]["post"]["x-scope"] == "write"


def test_another_s_job_is_ended_by_admins_alone(keyed: tuple[TestClient, dict[str, str]], tmp_path: Path) -> None:
    client, keys = keyed
    other, _ = KeyFile(tmp_path / "keys.json").add("other", "write")
    time.sleep(2.1)
    made = client.post("/v1/ingest", json={"index": "0-no-index-Name", "documents": [{}]},
                       headers={"x-api-key": keys["write"]})  # fmt: skip
    path = f"/v1/jobs/{made.json()['id']}"
    while client.get(path, headers={"x-api-key": keys["read"]}).json()["state"] in ("queued", "running"):
        time.sleep(0.02)
    assert client.post(f"{path}/resume", headers={"x-api-key": other}).status_code == 403
    assert client.post(f"{path}/resume", headers={"x-api-key": keys["admin"]}).status_code == 202


# --- at the start


def test_declared_indexes_are_there(
    opensearch_url: str, tmp_path: Path, model: str, engine: Engine, index: str
) -> None:
    declared = (DeclaredIndex(name=index, model=model, shards=2),)
    with served(opensearch_url, tmp_path, indexes=declared) as client:
        assert ok(client.get(f"/v1/indexes/{index}"))["documents"] == 0
    assert engine.require_index(index).settings["index.number_of_shards"] == "2"


@pytest.mark.parametrize(("path", "files"), [("/docs", 6), ("/", 18)])
def test_the_pages_are_the_daemon_s_own(offline: TestClient, path: str, files: int) -> None:
    page = offline.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    texts, left = {path: page.text}, re.findall(r'(?:href|src)="(/pages/[^"]+)"', page.text)
    while left:
        answer = offline.get(name := left.pop())
        assert answer.status_code == 200, name
        assert answer.headers["content-security-policy"] == policy
        texts[name] = answer.text
        left += {f"/pages/{one}" for one in re.findall(r'from "\./([^"]+)"', answer.text)} - set(texts)
    assert len(texts) == files
    # Nothing is loaded from elsewhere; an SVG's namespace only looks like an address.
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", "".join(texts.values()))
    assert "style=" not in page.text
    for wrong in ("/pages/__init__.py", "/pages/gone.js", "/pages/..%2Fapp.py"):
        assert offline.get(wrong).status_code == 404


def test_the_description_is_of_what_is_there(offline: TestClient) -> None:
    described = offline.get("/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    page = (Path(__file__).parents[2] / "docs" / "daemon.md").read_text()
    for path, methods in described["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in page, f"docs/daemon.md does not say what {method} {path} is"
    refs = set(msgspec.json.encode(described).decode().split('"#/components/schemas/')[1:])
    assert {ref.split('"')[0] for ref in refs} <= set(described["components"]["schemas"])
