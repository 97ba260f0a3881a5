"""The official clients, unchanged, through the proxy: on every engine, with a bridged index and with a plain one."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import elasticsearch
import opensearchpy
import pytest
from elasticsearch import helpers as elasticsearch_helpers
from opensearchpy import helpers as opensearch_helpers

from bridge import load_encoder
from bridge.engines import Engine
from tests.daemon.test_proxy import CORPUS, QUESTION, VECTORS, documents, proxied

Bridge = Callable[..., tuple[int, str, str]]
Json = dict[str, Any]

pytestmark = [
    pytest.mark.node,
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]

MATCH = {"query": {"match": {"text": QUESTION}}}


@pytest.fixture
def index(any_engine: Engine) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    for one in (name, f"{name}-loaded", f"{name}-1", f"{name}-2"):
        if any_engine.get_index(one):
            any_engine.delete_index(one)


@contextmanager
def client_of(engine: Engine, url: str) -> Iterator[tuple[Any, ModuleType]]:
    """The product's client and its helpers."""
    if engine.product == "opensearch":
        with opensearchpy.OpenSearch(url) as client:
            yield client, opensearch_helpers
    else:
        with elasticsearch.Elasticsearch(url) as client:
            yield client, elasticsearch_helpers


def actions(index: str, rows: list[Json]) -> Iterator[Json]:
    for row in rows:
        yield {"_index": index, "_id": row["_id"], "_source": {k: v for k, v in row.items() if k != "_id"}}


def sources(engine: Engine, index: str) -> dict[str, Any]:
    """All of what is stored, vectors and all."""
    engine.refresh(index)
    shown = {"exclude_vectors": False} if engine.info().capabilities.hidden_vectors else True
    hits = engine.search(index, {"size": 1000, "_source": shown})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def plain(answer: Any) -> Any:
    """An answer as a dict, whichever client gave it."""
    return answer.body if hasattr(answer, "body") else answer


def test_a_bridged_index(bridge: Bridge, any_engine: Engine, index: str, tmp_path: Path) -> None:
    engine, loaded = any_engine, f"{index}-loaded"
    assert bridge("fit", str(CORPUS), "-o", "model")[0] == 0
    assert bridge("register", index, "--model", "model", url=engine.url)[0] == 0
    assert bridge("ingest", loaded, str(CORPUS), "--model", "model", url=engine.url)[0] == 0
    rows = documents()
    with proxied(tmp_path, engine.url, index) as url, client_of(engine, url) as (client, helpers):
        some = [rows[place::4] for place in range(4)]
        assert all(ok for ok, _ in helpers.streaming_bulk(client, actions(index, some[0]), chunk_size=7))
        assert all(ok for ok, _ in helpers.parallel_bulk(client, actions(index, some[1]), chunk_size=7))
        asyncio.run(loads(engine, url, index, some[2]))
        for one in actions(index, some[3]):
            how = client.create if len(one["_id"]) % 2 else client.index
            how(index=index, id=one["_id"], body=one["_source"])
        client.indices.refresh(index=index)
        # As a load of the same documents makes them, and so as the model encodes them.
        stored = sources(engine, index)
        assert stored == sources(engine, loaded)
        encoder = load_encoder(str(tmp_path / "model"))
        (vector,) = encoder.encode_document(["\n".join(rows[0][name] for name in ("title", "text") if name in rows[0])])
        assert set(stored[rows[0]["_id"]]["embedding"]) == {token.replace(".", "․") for token in vector.tokens}

        # A plain question finds what the bridge's own search finds, with its scores.
        code, out, err = bridge("--json", "search", index, QUESTION, "-n", "10", url=engine.url)
        assert code == 0, err
        expected = [(hit["id"], hit["score"]) for hit in json.loads(out)["hits"]]
        found = plain(client.search(index=index, body=MATCH))["hits"]
        assert [(hit["_id"], hit["_score"]) for hit in found["hits"]] == expected
        assert not [hit for hit in found["hits"] if VECTORS & set(hit["_source"])]
        assert client.count(index=index, body=MATCH)["count"] == found["total"]["value"] > 10
        lines = [{"index": index}, {**MATCH, "size": 3}, {"index": loaded}, MATCH]
        here, other = plain(client.msearch(body=lines))["responses"]
        assert [(hit["_id"], hit["_score"]) for hit in here["hits"]["hits"]] == expected[:3]
        # The other is an index that nobody has named: words are words there, and all that is stored is shown.
        there = engine.search(loaded, MATCH)["hits"]["hits"]
        assert [(hit["_id"], hit["_score"], hit["_source"]) for hit in other["hits"]["hits"]] == [
            (hit["_id"], hit["_score"], hit["_source"]) for hit in there
        ]
        scanned = {hit["_id"] for hit in helpers.scan(client, index=index, query=MATCH, size=7)}
        assert len(scanned) == found["total"]["value"]
        assert {one for one, _ in expected} <= scanned
        marked = client.search(index=index, body={**MATCH, "highlight": {"fields": {"text": {}}}})["hits"]["hits"][0]
        assert any("<em>" in part for part in marked["highlight"]["text"])
        assert asyncio.run(asks(engine, url, index)) == expected

        # What the bridge keeps does not show, unless it is asked for.
        name = expected[0][0]
        assert set(client.get(index=index, id=name)["_source"]) == set(found["hits"][0]["_source"])
        for body in ({"ids": [name]}, {"docs": [{"_id": name}]}, {"docs": [{"_index": index, "_id": name}]}):
            (doc,) = client.mget(index=index, body=body)["docs"]
            assert doc["_source"] == found["hits"][0]["_source"]
        assert client.exists(index=index, id=name)
        assert not client.exists(index=index, id="no-such")
        for how in ({}, {"q": "*"}):
            hits = client.search(index=index, **how)["hits"]["hits"]
            assert len(hits) == 10
            assert not [hit for hit in hits if VECTORS & set(hit["_source"])]
        assert "_source" not in plain(client.search(index=index, body={"stored_fields": ["_none_"]}))["hits"]["hits"][0]

        # Changes that are none of the text's leave the vector; a deletion is one.
        client.update(index=index, id=name, body={"doc": {"n": 1}})
        assert sources(engine, index)[name] == {**stored[name], "n": 1}
        client.delete(index=index, id=name, refresh=True)
        assert name not in sources(engine, index)


def asynchronous(engine: Engine, url: str) -> tuple[Any, Callable[..., Any]]:
    if engine.product == "opensearch":
        return opensearchpy.AsyncOpenSearch(url), opensearch_helpers.async_bulk
    return elasticsearch.AsyncElasticsearch(url), elasticsearch_helpers.async_bulk


async def loads(engine: Engine, url: str, index: str, rows: list[Json]) -> None:
    client, load = asynchronous(engine, url)
    async with client:
        assert await load(client, actions(index, rows), chunk_size=11) == (len(rows), [])


async def asks(engine: Engine, url: str, index: str) -> list[tuple[str, float]]:
    client, _ = asynchronous(engine, url)
    async with client:
        answers = await asyncio.gather(*(client.search(index=index, body=MATCH) for _ in range(5)))
    (found,) = {json.dumps(plain(answer)["hits"]["hits"]): plain(answer)["hits"]["hits"] for answer in answers}.values()
    return [(hit["_id"], hit["_score"]) for hit in found]


def test_a_plain_index(any_engine: Engine, index: str, tmp_path: Path) -> None:
    """The same calls, directly and through the proxy, are answered the same."""
    with (
        proxied(tmp_path, any_engine.url, "another") as url,
        client_of(any_engine, any_engine.url) as (direct, helpers),
        client_of(any_engine, url) as (through, _),
    ):
        assert used(through, helpers, f"{index}-1") == used(direct, helpers, f"{index}-2")


def used(client: Any, helpers: ModuleType, index: str) -> str:
    """What a client is told in everyday use; without the index's name, and what differs by its nature."""
    errors = elasticsearch.ApiError, opensearchpy.TransportError
    rows = list(islice(documents(), 40))
    said: list[Any] = [
        client.indices.create(index=index, body={"settings": {"index.number_of_shards": 1}}),
        client.index(index=index, id="a b/ü", body={"text": "bread"}, refresh=True),
        client.get(index=index, id="a b/ü"),
        client.exists(index=index, id="a b/ü"),
        client.create(index=index, id="b", body={"text": "butter", "n": 1}),
        client.update(index=index, id="b", body={"doc": {"n": 2}}),
        client.mget(index=index, body={"ids": ["b", "c"]}),
        sorted(helpers.streaming_bulk(client, actions(index, rows[:20]), chunk_size=7), key=repr),
        sorted(helpers.parallel_bulk(client, actions(index, rows[20:]), chunk_size=20), key=repr),
        client.indices.refresh(index=index),
        client.search(index=index, body={**MATCH, "aggs": {"n": {"max": {"field": "n"}}}}),
        client.msearch(index=index, body=[{"index": index}, MATCH, {}, {"query": {"ids": {"values": ["b"]}}}]),
        client.count(index=index),
        [hit["_id"] for hit in helpers.scan(client, index=index, size=7)],
        client.delete(index=index, id="b", refresh=True),
        client.exists(index=index, id="b"),
    ]
    for call in (
        lambda: client.get(index=index, id="b"),
        lambda: client.create(index=index, id="a b/ü", body={"text": "bread"}),
        lambda: client.search(index=index, body={"query": {"no_such": {}}}),
    ):
        with pytest.raises(errors) as caught:
            call()
        said.append([type(caught.value).__name__, getattr(caught.value, "body", getattr(caught.value, "info", None))])
    text = repr([plain(one) for one in said]).replace(index, "INDEX")
    return re.sub(r"'took': \d+|'index_uuid': '[^']*'|'ingest_took': \d+|'_seq_no': \d+", "", text)
