"""Every engine that the contract tests can run against boots, indexes and searches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from opensearchpy import OpenSearch

from bridge.errors import DownloadFailed
from tests.nodes import NAMES, running_node

pytestmark = pytest.mark.node

WEIGHTS = {"1": {"spring": 2.0, "rain": 0.5}, "2": {"rain": 1.5}, "3": {"snow": 1.0}}


@pytest.fixture(scope="module", params=NAMES)
def engine(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    try:
        with running_node(request.param) as url:
            yield request.param, url
    except DownloadFailed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def mapping(name: str) -> dict[str, Any]:
    kind = "sparse_vector" if name.startswith(("elasticsearch-8", "elasticsearch-9")) else "rank_features"
    return {"properties": {"weights": {"type": kind}, "body": {"type": "text"}}}


def query(name: str, tokens: dict[str, float]) -> dict[str, Any]:
    if name.startswith("opensearch"):
        return {"neural_sparse": {"weights": {"query_tokens": tokens}}}
    if name.startswith(("elasticsearch-8", "elasticsearch-9")):
        return {"sparse_vector": {"field": "weights", "query_vector": tokens}}
    return {
        "bool": {
            "should": [
                {"rank_feature": {"field": f"weights.{token}", "linear": {}, "boost": weight}}
                for token, weight in tokens.items()
            ]
        }
    }


def test_index_and_search(engine: tuple[str, str]) -> None:
    name, url = engine
    # The stock clients, because they look at the server's headers and version before they say anything.
    client: Any = OpenSearch(url) if name.startswith("opensearch") else Elasticsearch(url)
    try:
        assert client.info()["version"]["number"] == name.rpartition("-")[2]
        settings = {"number_of_shards": 1, "number_of_replicas": 0}
        client.indices.create(index="t", body={"settings": settings, "mappings": mapping(name)})
        lines: list[dict[str, Any]] = []
        for number, weights in WEIGHTS.items():
            lines += [{"index": {"_index": "t", "_id": number}}, {"weights": weights, "body": "some words"}]
        assert client.bulk(body=lines, refresh=True)["errors"] is False
        answer = client.search(index="t", body={"query": query(name, {"rain": 1.0, "spring": 1.0})})
        assert [hit["_id"] for hit in answer["hits"]["hits"]] == ["1", "2"]
        assert answer["hits"]["hits"][0]["_score"] == pytest.approx(2.5, rel=0.01)
        words = client.search(index="t", body={"query": {"match": {"body": "words"}}})
        assert words["hits"]["total"]["value"] == 3
        if not name.startswith(("elasticsearch-8", "elasticsearch-9")):  # which has no reindex module here
            copy = {"source": {"index": "t"}, "dest": {"index": "u"}}
            assert client.reindex(body=copy, refresh=True)["created"] == len(WEIGHTS)
    finally:
        client.close()
