"""The retrievers of LangChain and Haystack, in the frameworks' own chains and pipelines, over a real engine."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.engines import Engine, open_engine
from bridge.errors import IndexNotFound, UsageError
from bridge.settings import EngineSettings

# Asked for before the first import: it reports that to its makers otherwise.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
langchain = pytest.importorskip("bridge.adapters.langchain", reason="the extra langchain is not installed")
haystack = pytest.importorskip("bridge.adapters.haystack", reason="the extra haystack is not installed")

Bridge = Callable[..., tuple[int, str, str]]

pytestmark = [pytest.mark.node, pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")]

DOCUMENTS = [
    {"_id": "tides", "title": "Tides", "text": "The moon raises two tides a day.", "lang": "en", "year": 1999},
    {"_id": "moon", "title": "The moon", "text": "Half of it is always dark.", "lang": "en", "year": 2005},
    {"_id": "mond", "title": "Mond", "text": "Der Mond, the moon, hebt das Meer.", "lang": "de", "year": 2010},
    {"_id": "bread", "title": "Bread", "text": "Knead the dough. " * 30 + "Let it rise by moon light.", "lang": "en"},
]


@pytest.fixture
def filled(bridge: Bridge, index: str, opensearch_url: str, tmp_path: Path) -> str:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS), "utf-8")
    assert bridge("ingest", index, "a.jsonl", url=opensearch_url)[0] == 0
    return index


@pytest.fixture
def nested(bridge: Bridge, index: str, opensearch_url: str, tmp_path: Path) -> str:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS), "utf-8")
    cut = ["--passages", "nested", "--passage-tokens", "20"]
    assert bridge("ingest", index, "a.jsonl", *cut, url=opensearch_url)[0] == 0
    return index


def test_langchains_retriever(filled: str, engine: Engine) -> None:
    from langchain_core.documents import Document
    from langchain_core.runnables import RunnableLambda

    retriever = langchain.BridgeRetriever.for_index(engine, filled, k=2)
    found = retriever.invoke("the tides of the moon")
    assert all(isinstance(one, Document) for one in found)
    assert found[0].id == "tides"
    assert len(found) == 2
    assert found[0].page_content == "Tides\nThe moon raises two tides a day."
    assert found[0].metadata == {"lang": "en", "year": 1999, "_id": "tides", "_score": found[0].metadata["_score"]}
    assert found[0].metadata["_score"] > found[1].metadata["_score"] > 0
    assert asyncio.run(retriever.ainvoke("the tides of the moon")) == found
    assert retriever.batch(["the tides of the moon", "dough"])[0] == found
    assert [one.id for one in retriever.invoke("moon", filter={"term": {"lang": "de"}})] == ["mond"]
    assert len(retriever.invoke("moon", k=4)) == 4
    # As a link of a chain.
    chain = retriever | RunnableLambda(lambda documents: [one.id for one in documents])
    assert chain.invoke("dough") == ["bread"]
    turns = [("who lifts the sea, the moon?", "Yes.")]
    whole = langchain.BridgeRetriever.for_index(engine, filled, conversation="all")
    assert {"tides", "bread"} <= {one.id for one in whole.invoke("and dough?", turns=turns)}
    assert [one.id for one in retriever.invoke("and dough?", turns=turns)] == ["bread"]


def test_langchains_hybrid_and_filter_of_its_own(filled: str, engine: Engine) -> None:
    retriever = langchain.BridgeRetriever.for_index(
        engine, filled, hybrid="bm25", filter={"range": {"year": {"gte": 2000}}}
    )
    assert {one.id for one in retriever.invoke("moon")} == {"moon", "mond"}
    with pytest.raises(IndexNotFound):
        langchain.BridgeRetriever.for_index(engine, f"{filled}-gone")


def test_langchains_passages(nested: str, engine: Engine) -> None:
    retriever = langchain.BridgeRetriever.for_index(engine, nested, passages=1)
    whole = f"Bread\n{DOCUMENTS[3]['text']}"
    (found,) = retriever.invoke("light for dough", k=1)
    start, end = found.metadata["_start"], found.metadata["_end"]
    assert (found.id, found.page_content) == ("bread", whole[start:end])
    assert len(found.page_content) < len(whole)
    (plain,) = retriever.invoke("light for dough", k=1, passages=0)
    assert plain.page_content == whole


def test_haystacks_component_in_a_saved_pipeline(filled: str, opensearch_url: str) -> None:
    from haystack import Pipeline
    from haystack.components.joiners import DocumentJoiner

    pipeline = Pipeline()
    pipeline.add_component("retriever", haystack.BridgeRetriever(filled, url=opensearch_url, top_k=2))
    pipeline.add_component("joiner", DocumentJoiner())
    pipeline.connect("retriever.documents", "joiner.documents")
    found = pipeline.run({"retriever": {"query": "the tides of the moon"}})["joiner"]["documents"]
    assert (found[0].id, found[0].content) == ("tides", "Tides\nThe moon raises two tides a day.")
    assert found[0].meta == {"lang": "en", "year": 1999, "_id": "tides"}
    assert len(found) == 2
    assert found[0].score > found[1].score > 0
    # Haystack loads the classes that it is told of.
    saved = Pipeline.loads(pipeline.dumps(), allowed_modules=["bridge.adapters.haystack"])
    again = saved.run({"retriever": {"query": "the tides of the moon"}})
    assert again["joiner"]["documents"] == found
    narrowed = {"field": "meta.lang", "operator": "==", "value": "de"}
    (one,) = pipeline.run({"retriever": {"query": "moon", "filters": narrowed, "top_k": 5}})["joiner"]["documents"]
    assert one.id == "mond"


def test_haystacks_passages_and_options(nested: str, opensearch_url: str) -> None:
    retriever = haystack.BridgeRetriever(
        nested, url=opensearch_url, top_k=1, passages=2, options={"hybrid": "bm25", "pruning": None}
    )
    found = retriever.run("rise by light")["documents"]
    assert {one.meta["_id"] for one in found} == {"bread"}
    assert len({one.id for one in found}) == len(found)
    with pytest.raises(UsageError, match="top_k is 0"):
        haystack.BridgeRetriever(nested, top_k=0)
    with pytest.raises(IndexNotFound):
        haystack.BridgeRetriever(f"{nested}-gone", url=opensearch_url).warm_up()


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"field": "meta.lang", "operator": "==", "value": "en"}, {"tides", "moon", "bread"}),
        ({"field": "lang", "operator": "!=", "value": "en"}, {"mond"}),
        ({"field": "meta.year", "operator": ">", "value": 2005}, {"mond"}),
        ({"field": "meta.year", "operator": ">=", "value": 2005}, {"moon", "mond"}),
        ({"field": "meta.year", "operator": "<", "value": 2005}, {"tides"}),
        ({"field": "meta.year", "operator": "<=", "value": 2005}, {"tides", "moon"}),
        ({"field": "meta.year", "operator": "==", "value": None}, {"bread"}),
        ({"field": "meta.year", "operator": "!=", "value": None}, {"tides", "moon", "mond"}),
        ({"field": "meta.year", "operator": "in", "value": [1999, 2010]}, {"tides", "mond"}),
        ({"field": "meta.lang", "operator": "not in", "value": ["en", "fr"]}, {"mond"}),
    ],
)
def test_haystacks_filters_mean_what_they_say(
    filled: str, engine: Engine, filters: dict[str, Any], kept: set[str]
) -> None:
    def ids(clause: dict[str, Any]) -> set[str]:
        answer = engine.search(filled, {"query": {"bool": {"filter": [clause]}}})
        return {hit["_id"] for hit in answer["hits"]["hits"]}

    everything = {str(document["_id"]) for document in DOCUMENTS}
    assert ids(haystack.as_clause(filters)) == kept
    year = {"field": "meta.year", "operator": ">=", "value": 2005}
    together = [filters, year]
    assert ids(haystack.as_clause({"operator": "AND", "conditions": together})) == kept & {"moon", "mond"}
    assert ids(haystack.as_clause({"operator": "OR", "conditions": together})) == kept | {"moon", "mond"}
    assert ids(haystack.as_clause({"operator": "NOT", "conditions": together})) == everything - (
        kept & {"moon", "mond"}
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"field": "a", "operator": "~", "value": 1},
        {"field": "a", "operator": "==", "value": [1]},
        {"field": "a", "operator": "in", "value": 1},
        {"field": "a", "value": 1},
        {"operator": "XOR", "conditions": []},
    ],
)
def test_what_is_no_filter_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        haystack.as_clause(wrong)


def test_the_engine_of_a_retriever_can_be_any(filled: str, opensearch_url: str) -> None:
    with open_engine(settings=EngineSettings(url=opensearch_url)) as engine:
        assert langchain.BridgeRetriever.for_index(engine, filled).invoke("dough")[0].id == "bread"
