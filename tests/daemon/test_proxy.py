"""The proxy on a real node: official clients, unchanged, through it."""

from __future__ import annotations

import gzip
import json
import re
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opensearchpy import ConflictError, OpenSearch, helpers

from bridge import load_encoder
from bridge.engines import Engine
from bridge.indexmodel import IndexModel
from bridge.rewrite import QueryRewriter
from tests.daemon.running import ROOT, serving

CORPUS = ROOT / "bridge" / "demo_data"
QUESTION = "why does my bread turn out heavy"
JSON = "application/json"
VECTORS = {"embedding", "bridge_content_hash"}

Bridge = Callable[..., tuple[int, str, str]]


def documents() -> list[dict[str, Any]]:
    with (CORPUS / "corpus.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@contextmanager
def proxied(folder: Path, upstream: str, *indexes: str) -> Iterator[str]:
    """`bridge proxy` on a free port; its URL."""
    words = [word for index in indexes for word in ("--index", index)]
    command = ("proxy", "--upstream", upstream, "--port", "0", *words)
    with serving(folder, *command, says=r"passing (\S+) on to") as (url, process, said):
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, "".join(said)
        assert not [line for line in said if "Traceback" in line], "".join(said)


@pytest.fixture
def registered(bridge: Bridge, engine: Engine, index: str, tmp_path: Path) -> str:
    """An index, made for a model that is fitted on the corpus, and empty."""
    assert bridge("fit", str(CORPUS), "-o", "model")[0] == 0
    assert bridge("register", index, "--model", "model", url=engine.url)[0] == 0
    return index


def sources(engine: Engine, index: str) -> dict[str, Any]:
    engine.refresh(index)
    hits = engine.search(index, {"size": 1000})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def test_an_application_s_own_client(
    registered: str, bridge: Bridge, engine: Engine, opensearch_url: str, tmp_path: Path
) -> None:
    index = registered
    loaded = f"{index}-loaded"
    with proxied(tmp_path, opensearch_url, index) as url, OpenSearch(url) as client:
        actions = [{"_index": index, "_id": one["_id"], "_source": {k: v for k, v in one.items() if k != "_id"}}
                   for one in documents()]  # fmt: skip
        assert helpers.bulk(client, actions, chunk_size=50) == (240, [])
        client.indices.refresh(index=index)
        try:
            # The same documents as a load makes of them, vectors and all.
            assert bridge("ingest", loaded, str(CORPUS), "--model", "model", url=opensearch_url)[0] == 0
            assert sources(engine, index) == sources(engine, loaded)
        finally:
            engine.delete_index(loaded)
        # A plain query finds what a sparse one does; and what the bridge keeps does not show.
        rewriter = QueryRewriter.for_index(engine, index)
        expected = engine.search(index, rewriter.rewrite(QUESTION))["hits"]["hits"]
        plain = client.search(index=index, body={"query": {"match": {"text": QUESTION}}})["hits"]["hits"]
        assert [(hit["_id"], hit["_score"]) for hit in plain] == [(hit["_id"], hit["_score"]) for hit in expected]
        assert not VECTORS & set(plain[0]["_source"])
        best = plain[0]["_id"]
        assert set(client.get(index=index, id=best)["_source"]) == set(plain[0]["_source"])
        assert set(client.get(index=index, id=best, _source_includes="*")["_source"]) >= VECTORS
        both = client.msearch(body=[{"index": index}, {"query": {"match": {"text": QUESTION}}, "size": 3},
                                    {"index": index}, {"query": {"match_all": {}}, "size": 1}])  # fmt: skip
        assert [hit["_id"] for hit in both["responses"][0]["hits"]["hits"]] == [hit["_id"] for hit in expected[:3]]
        assert not VECTORS & set(both["responses"][1]["hits"]["hits"][0]["_source"])


def test_every_way_of_writing(registered: str, engine: Engine, opensearch_url: str, tmp_path: Path) -> None:
    index = registered
    state = engine.require_index(index)
    model = IndexModel.of(state)
    assert model is not None
    encoder = load_encoder(str(tmp_path / "model"))

    def check(name: str, text: str, **fields: Any) -> None:
        found = sources(engine, index)[name]
        kept = found.pop("embedding")
        found.pop("bridge_content_hash")
        assert found == {"text": text, **fields}
        (vector,) = encoder.encode_document([text])
        assert set(kept) == {token.replace(".", "․") for token in vector.tokens}

    with proxied(tmp_path, opensearch_url, index) as url, OpenSearch(url) as client:
        client.index(index=index, id="a", body={"text": "bread and butter"})
        check("a", "bread and butter")
        client.create(index=index, id="b", body={"text": "heavy dough", "n": 1})
        check("b", "heavy dough", n=1)
        name = client.index(index=index, body={"text": "an oven"})["_id"]
        check(name, "an oven")
        # A part of a document: its vector is of what is stored then.
        client.update(index=index, id="b", body={"doc": {"n": 2}})
        check("b", "heavy dough", n=2)
        client.update(index=index, id="b", body={"doc": {"text": "light dough"}})
        check("b", "light dough", n=2)
        client.update(index=index, id="c", body={"doc": {"text": "a crust"}, "doc_as_upsert": True})
        check("c", "a crust")
        client.update(index=index, id="d", body={"script": "ctx.op = 'none'", "upsert": {"text": "a crumb"}})
        check("d", "a crumb")
        lines = [{"update": {"_index": index, "_id": "a"}}, {"doc": {"text": "bread alone"}},
                 {"delete": {"_index": index, "_id": "d"}},
                 {"index": {"_index": index, "_id": "e"}}, {"n": 5},
                 {"create": {"_index": index, "_id": "e"}}, {"text": "twice"}]  # fmt: skip
        items = client.bulk(body=lines)["items"]
        assert [next(iter(item.values()))["status"] for item in items] == [200, 200, 201, 409]
        check("a", "bread alone")
        found = sources(engine, index)
        # Without text there is nothing to encode: the document is as it was sent.
        assert found["e"] == {"n": 5}
        assert "d" not in found


def vectors(engine: Engine, index: str) -> dict[str, set[str]]:
    """The tokens of each document's vector."""
    return {name: set(source.get("embedding", ())) for name, source in sources(engine, index).items()}


def test_what_is_hard_to_write(registered: str, engine: Engine, opensearch_url: str, tmp_path: Path) -> None:
    index = registered
    encoder = load_encoder(str(tmp_path / "model"))

    def tokens(text: str) -> set[str]:
        return set(encoder.encode_document([text])[0].tokens)

    with proxied(tmp_path, opensearch_url, index) as url, OpenSearch(url) as client, httpx.Client(base_url=url) as raw:
        # Names that have to be escaped; one of them looks as if it were already.
        for name in ("a/b", "c%2Fd", "e f", "ü"):
            client.index(index=index, id=name, body={"text": "heavy bread"})
            client.update(index=index, id=name, body={"doc": {"text": "light butter"}})
            assert vectors(engine, index)[name] == tokens("light butter"), name
            assert set(client.get(index=index, id=name)["_source"]) == {"text"}
        # Written, changed and changed again in one request: each change is of what is there by then.
        x = {"update": {"_id": "x"}}
        lines = [{"index": {"_id": "x"}}, {"text": "bread"}, x, {"doc": {"text": "butter", "n": 1}},
                 {"delete": {"_id": "no-such"}}, x, {"doc": {"n": 2}}, x, {"doc": {"text": "an oven"}},
                 {"update": {"_id": "y"}}, {"doc": {"text": "z"}}]  # fmt: skip
        answer = client.bulk(index=index, body=lines, refresh=True)
        items = [next(iter(item.items())) for item in answer["items"]]
        assert [(kind, item["_id"], item["status"]) for kind, item in items] == [
            ("index", "x", 201), ("update", "x", 200), ("delete", "no-such", 404), ("update", "x", 200),
            ("update", "x", 200), ("update", "y", 404),
        ]  # fmt: skip
        assert answer["errors"] is True
        assert {key: sources(engine, index)["x"][key] for key in ("text", "n")} == {"text": "an oven", "n": 2}
        assert vectors(engine, index)["x"] == tokens("an oven")
        # A line that is none is that line's fault; digits stay as they were written.
        head = b'{"index":{"_index":"%b","_id":"%%b"}}\n' % index.encode()
        body = head % b"1" + b'{"text": "bread", "x": 1.10}\n' + head % b"2" + b'{"text": \n'
        body += head % b"3" + b'{"text": "oven"}\n'
        sent = raw.post("/_bulk", content=body, headers={"content-type": "application/x-ndjson"})
        assert [item["index"]["status"] for item in sent.json()["items"]] == [201, 400, 201]
        found = httpx.get(f"{opensearch_url}/{index}/_source/1").content
        assert found.startswith(b'{"text": "bread", "x": 1.10,"embedding":{')
        assert vectors(engine, index)["3"] == tokens("oven")
        # Whoever says which version of a document is meant is refused when it is not that one any longer.
        there = client.get(index=index, id="x")
        client.update(index=index, id="x", body={"doc": {"text": "dough"}})
        old = {"if_seq_no": there["_seq_no"], "if_primary_term": there["_primary_term"]}
        with pytest.raises(ConflictError):
            client.update(index=index, id="x", body={"doc": {"text": "old"}}, params=old)
        same = client.update(index=index, id="x", body={"doc": {"text": "dough"}})
        assert (same["result"], vectors(engine, index)["x"]) == ("noop", tokens("dough"))

        # Writers at the same time, who ask to be tried again: none is refused, and the vector is the last one's.
        def write(number: int) -> None:
            change = {"doc": {"text": f"bread number {number}"}}
            if number % 2:
                client.update(index=index, id="x", body=change, params={"retry_on_conflict": 50})
            else:
                lines = [{"update": {"_id": "x", "retry_on_conflict": 50}}, change]
                assert client.bulk(index=index, body=lines)["errors"] is False

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(write, range(24)))
        last = sources(engine, index)["x"]
        assert set(last["embedding"]) == tokens(last["text"])


def test_an_alias_that_moves(
    bridge: Bridge, registered: str, engine: Engine, opensearch_url: str, tmp_path: Path
) -> None:
    """What is written through it has the vectors of the index that it stands for, from then on."""
    other, alias = f"{registered}-other", f"{registered}-alias"
    (tmp_path / "other.jsonl").write_text('{"_id": "1", "text": "quite another vocabulary"}\n')
    assert bridge("fit", "other.jsonl", "-o", "other-model")[0] == 0
    try:
        assert bridge("register", other, "--model", "other-model", url=engine.url)[0] == 0
        with proxied(tmp_path, opensearch_url, alias) as url, OpenSearch(url) as client:
            for index, model in ((registered, "model"), (other, "other-model")):
                client.indices.update_aliases(body={"actions": [
                    {"remove": {"index": "*", "alias": alias, "must_exist": False}},
                    {"add": {"index": index, "alias": alias}},
                ]})  # fmt: skip
                client.index(index=alias, id="1", body={"text": "bread and vocabulary"})
                (vector,) = load_encoder(str(tmp_path / model)).encode_document(["bread and vocabulary"])
                stored = sources(engine, index)["1"]["embedding"]
                assert stored == {token: pytest.approx(weight, rel=0.01)
                                  for token, weight in zip(vector.tokens, vector.weights, strict=True)}  # fmt: skip
    finally:
        engine.delete_index(other)


def test_every_way_of_asking(registered: str, engine: Engine, opensearch_url: str, tmp_path: Path) -> None:
    index = registered
    match = {"query": {"match": {"text": QUESTION}}}
    with (
        proxied(tmp_path, opensearch_url, index) as url,
        OpenSearch(url) as client,
        OpenSearch(url, send_get_body_as="source") as by_url,
        httpx.Client(base_url=url) as raw,
    ):
        helpers.bulk(client, ({"_index": index, **one} for one in documents()), refresh=True)
        expected = engine.search(index, QueryRewriter.for_index(engine, index).rewrite(QUESTION))["hits"]
        ids = [hit["_id"] for hit in expected["hits"]]

        def check(found: dict[str, Any]) -> None:
            assert [hit["_id"] for hit in found["hits"]["hits"]] == ids
            assert not VECTORS & set(found["hits"]["hits"][0]["_source"])

        check(by_url.search(index=index, body=match))
        # With nothing that says what kind of a body it is, and none.
        check(raw.get(f"/{index}/_search", params={"source": json.dumps(match), "source_content_type": JSON}).json())
        for path in ("", "?q=*", "?size=3&pretty"):
            hits = raw.get(f"/{index}/_search{path}").json()["hits"]["hits"]
            assert len(hits) == (3 if "size" in path else 10)
            assert not [hit for hit in hits if VECTORS & set(hit["_source"])]
        assert client.count(index=index, body=match)["count"] == expected["total"]["value"]
        told = client.explain(index=index, id=ids[0], body=match)["explanation"]["value"]
        assert told == pytest.approx(expected["hits"][0]["_score"])
        # Pages of it.
        page = client.search(index=index, body=match, scroll="1m", size=7)
        again = client.scroll(body={"scroll_id": page["_scroll_id"], "scroll": "1m"})
        assert [hit["_id"] for one in (page, again) for hit in one["hits"]["hits"]][:10] == ids
        assert not VECTORS & set(again["hits"]["hits"][0]["_source"])
        client.clear_scroll(body={"scroll_id": [again["_scroll_id"]]})


def test_what_is_not_named_passes_byte_for_byte(
    engine: Engine, index: str, opensearch_url: str, tmp_path: Path
) -> None:
    with (
        proxied(tmp_path, opensearch_url, "another-index") as url,
        httpx.Client(base_url=url) as through,
        httpx.Client(base_url=opensearch_url) as direct,
    ):

        def both(method: str, path: str, **how: Any) -> None:
            # What is written is written to a document for each.
            a, b = (
                through.request(method, path.replace("{}", "1"), **how),
                direct.request(method, path.replace("{}", "2"), **how),
            )
            same = [re.sub(rb'"took":\d+|"_seq_no":\d+|"_id":"[12]"', b"", one.content) for one in (a, b)]
            assert (a.status_code, same[0]) == (b.status_code, same[1])
            left = {"content-length", "location"}
            assert {k: v for k, v in a.headers.items() if k not in left} == {
                k: v for k, v in b.headers.items() if k not in left
            }

        both("GET", "/")
        both("GET", f"/{index}")
        both("HEAD", f"/{index}")
        both("PUT", f"/{index}/_doc/{{}}?refresh=true", json={"text": "plain"})
        body = '{"query": {"match":   {"text": "plain"}}}'
        both("POST", f"/{index}/_search", content=body, headers={"content-type": "application/json"})
        both("GET", f"/{index}/_doc/{{}}")
        both("GET", f"/{index}/_doc/a%2Fb%20c?routing=x%2By")
        both("GET", "/_cat/indices?format=json&h=index&s=index")
        both("POST", f"/{index}/_search", content=b"{broken", headers={"content-type": "application/json"})
        both("GET", "/_nodes/_local/nothing?flat_settings&pretty")
        both("POST", f"/{index}/_bulk", content=b"no json\n", headers={"content-type": "application/x-ndjson"})
        both("OPTIONS", f"/{index}")
        both("GET", f"/{index}/_doc/1", headers={"accept-encoding": "gzip"})
        packed = gzip.compress(body.encode())
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        both("POST", f"/{index}/_search", content=packed, headers=headers)
        assert sources(engine, index) == {"1": {"text": "plain"}, "2": {"text": "plain"}}


def test_packed_bodies(registered: str, opensearch_url: str, engine: Engine, tmp_path: Path) -> None:
    with proxied(tmp_path, opensearch_url, registered) as url, OpenSearch(url, http_compress=True) as client:
        client.index(index=registered, id="a", body={"text": "bread and butter"}, refresh=True)
        assert set(sources(engine, registered)["a"]) >= VECTORS
        found = client.search(index=registered, body={"query": {"match": {"text": "butter"}}})
        assert [hit["_id"] for hit in found["hits"]["hits"]] == ["a"]


def test_an_engine_that_is_away(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with proxied(tmp_path, f"http://127.0.0.1:{port}", "articles") as url:
        for path in ("/", "/articles/_search"):
            answer = httpx.post(url + path, json={"query": {"match": {"text": "x"}}})
            assert answer.status_code in (502, 503)
            assert answer.json()["error"]["type"] == "bridge_exception"
            assert str(port) not in answer.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--index", "a"), "name the engine with --upstream"),
        (("--upstream", "http://127.0.0.1:9"), "name an index that it is for"),
        (("--upstream", "http://127.0.0.1:9", "--index", "a", "--host", "0.0.0.0"), "others can reach 0.0.0.0"),
        (("--upstream", "127.0.0.1:9", "--index", "a"), "is not a URL of an engine"),
    ],
)
def test_what_cannot_be(bridge: Bridge, words: tuple[str, ...], said: str) -> None:
    code, out, err = bridge("proxy", *words)
    assert (code, out) == (2, "")
    assert said in err
