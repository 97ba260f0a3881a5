"""What an encoder reads of a question or a conversation, and what pruning leaves of a query."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import QueryRewriter, Turn, load_encoder
from bridge.encode import Encoder
from bridge.errors import UnsupportedByEngine, UsageError
from bridge.fit import fit
from bridge.prune import Pruning, parse_pruning
from bridge.querycache import QueryCache
from bridge.records import HASH_FIELD, EncodedQuery
from bridge.rewrite import query_text
from bridge.targets import targets_of, vector_fields
from tests.vectors import vector_of

DISCO = "splade-disco-human-mistral"
TURNS: list[Turn | tuple[str, str | None]] = [
    ("what is throat cancer?", "A tumour of the throat."),
    Turn("is it treatable?", None),
    ("what of the lung?", None),
]
FLAT = "what of the lung? [SEP] is it treatable? [SEP] A tumour of the throat. [SEP] what is throat cancer?"
ALL = "what is throat cancer? is it treatable? what of the lung?"


@pytest.fixture(scope="module")
def lexical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "lexical"
    fit(["the throat and the lung", "cancer is treatable", "a tumour of the throat", "sun and rain"], folder)
    return folder


@pytest.fixture(scope="module")
def lookup(shared: Path) -> Path:
    return shared / "bert-uncased"


@pytest.fixture(scope="module")
def disco(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    from tests.models import sparse_folder

    return sparse_folder(tmp_path_factory.mktemp("models") / DISCO, shared / "bert-uncased" / "tokenizer.json")


def conversations(shared: Path, name: str) -> list[list[tuple[str, str | None]]]:
    with (shared / "corpora" / name / "conversations.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [[(one["question"], one["answer"]) for one in row["history"]] + [(row["question"], None)] for row in rows]


# --- conversations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["lexical", "lookup"])
def test_an_encoder_that_knows_no_conversations_reads_the_last_question(
    model: str, request: pytest.FixtureRequest
) -> None:
    encoder = load_encoder(request.getfixturevalue(model))
    assert query_text(encoder, TURNS) == "what of the lung?"
    assert query_text(encoder, TURNS, "last", rewritten="what of lung cancer?") == "what of the lung?"
    assert query_text(encoder, TURNS, "all") == ALL
    assert query_text(encoder, TURNS, rewritten="what of lung cancer?") == "what of lung cancer?"
    assert query_text(encoder, TURNS, "rewrite", rewritten="what of lung cancer?") == "what of lung cancer?"


def test_a_question_is_read_as_it_stands_whatever_the_form(disco: Path) -> None:
    for conversation in ("auto", "disco", "last", "all"):
        rewriter = QueryRewriter.load(disco, conversation=conversation)
        assert rewriter.question("what of the lung?") == "what of the lung?"
        assert rewriter.question([("what of the lung?", None)]) == "what of the lung?"


def test_a_disco_encoder_reads_all_turns_newest_first(disco: Path) -> None:
    encoder = load_encoder(disco)
    assert query_text(encoder, TURNS) == query_text(encoder, TURNS, "disco") == FLAT
    # It reads the turns themselves, not what someone else made of them.
    assert query_text(encoder, TURNS, rewritten="what of lung cancer?") == FLAT
    assert query_text(encoder, TURNS, "last") == "what of the lung?"
    assert query_text(encoder, TURNS, "all") == ALL


def test_the_vector_is_that_of_the_whole_conversation_as_far_as_the_model_reads(disco: Path, shared: Path) -> None:
    rewriter = QueryRewriter.load(disco)
    window: Any = rewriter.encoder
    answered = [turns for turns in conversations(shared, "mtrag_human") if any(answer for _, answer in turns)]
    assert len(answered) == 132
    longest = sorted(answered, key=lambda turns: sum(len(q) + len(a or "") for q, a in turns))
    cut = 0
    for turns in [*islice(answered, 4), *longest[-4:]]:
        newest, *older = turns[::-1]
        whole = newest[0]
        for question, answer in older:
            whole += "".join(f" [SEP] {text}" for text in (answer, question) if text)
        encoded = rewriter.encode(turns)
        assert whole.startswith(encoded.text)
        cut += len(encoded.text) < len(whole)
        (expected,) = rewriter.encoder.encode_query([whole])
        assert encoded.sparse
        assert np.array_equal(encoded.sparse.ids, expected.ids)
        assert np.allclose(encoded.sparse.weights, expected.weights, atol=1e-5)
        tokens = window.query_window.tokenizer
        assert len(tokens.ids(encoded.text)) + tokens.special <= window.query_window.max_tokens == 512
    assert cut > 0


def test_all_questions_lose_the_oldest_where_they_do_not_fit(disco: Path) -> None:
    encoder = load_encoder(disco)
    many: list[tuple[str, str | None]] = [(f"question number {i} about the weather?", None) for i in range(200)]
    text = query_text(encoder, many, "all")
    assert text.endswith("question number 199 about the weather?")
    assert "number 0 " not in text
    (vector,) = encoder.encode_query([text])
    assert len(vector)
    window: Any = encoder
    assert len(window.query_window.tokenizer.ids(text)) <= 510


def test_an_encoder_of_words_is_not_given_separators(lexical: Path) -> None:
    with pytest.raises(UsageError, match="reads words, not turns"):
        QueryRewriter.load(lexical, conversation="disco").rewrite(TURNS)


def test_an_inference_free_encoder_leaves_the_separators_out(lookup: Path) -> None:
    rewriter = QueryRewriter.load(lookup, conversation="disco")
    encoded = rewriter.encode(TURNS)
    assert encoded.text == FLAT
    assert encoded.sparse
    assert {"tumour", "treat", "lung"} & set(encoded.sparse.tokens)
    assert not {"[SEP]", "sep"} & set(encoded.sparse.tokens)


def test_the_separator_is_the_models_own(tmp_path: Path, disco: Path) -> None:
    import shutil

    folder = shutil.copytree(disco, tmp_path / DISCO)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    for written in ("</s>", {"content": "</s>", "lstrip": False}):
        path.write_text(json.dumps(config | {"sep_token": written}))
        assert query_text(load_encoder(folder), TURNS[1:]) == "what of the lung? </s> is it treatable?"


@pytest.mark.parametrize("turns", [["what?"], [("a", "b", "c")], [("a",)], [(None, "a")], [("a", 1)], [3]])
def test_what_is_no_turn_is_refused(lexical: Path, turns: Any) -> None:
    with pytest.raises(UsageError, match=r"a turn is \(question, answer\)"):
        QueryRewriter.load(lexical).rewrite(turns)


@pytest.mark.parametrize("turns", [[], [("a", "b"), (" ", None)]])
def test_a_conversation_without_a_last_question_is_refused(lexical: Path, turns: Any) -> None:
    with pytest.raises(UsageError, match="the query is empty"):
        QueryRewriter.load(lexical).rewrite(turns)


def test_a_rewrite_that_was_not_given_is_missed(lexical: Path) -> None:
    with pytest.raises(UsageError, match="no rewrite of the question"):
        QueryRewriter.load(lexical, conversation="rewrite").rewrite(TURNS)


def test_an_unknown_form_is_refused(lexical: Path) -> None:
    with pytest.raises(UsageError, match="conversation 'first' is not known; it is one of auto, disco, last, all"):
        QueryRewriter.load(lexical, conversation="first")


# --- pruning ----------------------------------------------------------------------------------------


@pytest.fixture
def encoder(lookup: Path) -> Encoder:
    return load_encoder(lookup)


@pytest.mark.parametrize("how", ["top-k=2", "max-ratio=0.6", "alpha-mass=0.5", "threshold=3", "top-k=4,max-ratio=0.5"])
def test_what_is_left_and_what_went_make_up_the_query(lookup: Path, encoder: Encoder, how: str) -> None:
    rewriter = QueryRewriter.load(lookup, pruning=parse_pruning(how))
    text = "what is the weather in new york now"
    (whole,) = encoder.encode_query([text])
    encoded = rewriter.encode(text)
    left = encoded.sparse
    assert left
    assert 0 < len(left) < len(whole)
    assert encoded.pruned == len(whole) - len(left)
    assert encoded.pruned_mass == pytest.approx(float(whole.weights.sum()) - float(left.weights.sum()), abs=1e-4)
    assert left.as_dict().items() <= whole.as_dict().items()
    assert min(left.weights) >= max(set(whole.as_dict().values()) - set(left.as_dict().values()))
    asked = rewriter.rewrite(text)["query"]["neural_sparse"]["embedding"]["query_tokens"]
    assert set(asked) == set(left.tokens)


@pytest.mark.parametrize("how", ["top-k=1", "max-ratio=1", "alpha-mass=0.000001", "threshold=1000000"])
def test_a_query_with_tokens_is_never_emptied(lookup: Path, shared: Path, how: str) -> None:
    rewriter = QueryRewriter.load(lookup, pruning=parse_pruning(how))
    with (shared / "corpora" / "scifact" / "queries.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in islice(lines, 100)]
    for text in texts:
        assert len(rewriter.encode(text).sparse or ()) >= 1
        assert "match_none" not in rewriter.rewrite(text)["query"]


def test_without_tokens_there_is_nothing_to_prune(lexical: Path) -> None:
    encoded = QueryRewriter.load(lexical, pruning=Pruning(top_k=1)).encode("?!")
    assert (len(encoded.sparse or ()), encoded.pruned, encoded.pruned_mass) == (0, 0, 0.0)


def test_without_pruning_nothing_goes(lookup: Path, encoder: Encoder) -> None:
    encoded = QueryRewriter.load(lookup).encode("the weather in ny")
    assert (len(encoded.sparse or ()), encoded.pruned, encoded.pruned_mass) == (4, 0, 0.0)


# --- passages, without a cluster --------------------------------------------------------------------


def test_the_vector_field_is_named_by_its_whole_path(lexical: Path) -> None:
    for field in ("embedding", "passages.embedding"):
        rewriter = QueryRewriter.load(lexical, field=field, nested_path="passages")
        assert (rewriter.field, rewriter.targets[0].name) == ("passages.embedding", "embedding")
        assert "nested" in rewriter.rewrite("throat")["query"]
    assert QueryRewriter.load(lexical, nested_path="passages").rewrite("?!")["query"] == {"match_none": {}}


# --- several fields ---------------------------------------------------------------------------------


def test_several_fields_are_the_parts_of_one_query(lexical: Path) -> None:
    body = QueryRewriter.load(lexical, fields=["title_embedding^2.5", "embedding"]).rewrite("throat")
    title, text = body["query"]["bool"]["should"]
    assert title["neural_sparse"]["title_embedding"]["boost"] == 2.5
    assert "boost" not in text["neural_sparse"]["embedding"]
    assert body["_source"]["excludes"] == ["title_embedding", "embedding", HASH_FIELD]


def test_fields_of_the_same_passages_are_summed_in_each(lexical: Path) -> None:
    rewriter = QueryRewriter.load(lexical, fields=["embedding", "title^2"], nested_path="passages")
    nested = rewriter.rewrite("throat", passages=3)["query"]["nested"]
    assert [list(one["neural_sparse"]) for one in nested["query"]["bool"]["should"]] == [
        ["passages.embedding"],
        ["passages.title"],
    ]
    assert nested["inner_hits"]["size"] == 3


def test_a_boost_of_one_field(lexical: Path) -> None:
    for dialect, engine in (("rank_feature", "opensearch"), ("sparse_vector", "elasticsearch")):
        kind = "sparse_vector" if engine == "elasticsearch" else "rank_features"
        version = "9.2.0" if engine == "elasticsearch" else "3.6.0"
        rewriter = QueryRewriter.load(
            lexical, engine=engine, version=version, kind=kind, dialect=dialect, field="embedding^0.5"
        )
        ((_, inner),) = rewriter.rewrite("throat")["query"].items()
        assert inner["boost"] == 0.5


def test_a_boost_joins_the_one_that_undoes_scaling(lexical: Path) -> None:
    rewriter = QueryRewriter.load(lexical, field="embedding^3")
    vector = vector_of({"rare": 200.0, "common": 0.5})
    how = rewriter.query(EncodedQuery("", vector))["neural_sparse"]["embedding"]
    assert {token: weight * how["boost"] for token, weight in how["query_tokens"].items()} == {
        "rare": 600,
        "common": 1.5,
    }


def test_several_fields_share_the_limit_of_clauses(lexical: Path) -> None:
    text = " ".join(f"word{i}" for i in range(3000))
    one, three = QueryRewriter.load(lexical), QueryRewriter.load(lexical, fields=["a", "b", "c"])
    assert len(one.encode(text).sparse or ()) == 1000
    assert len(three.encode(text).sparse or ()) == 333
    assert replace(one, targets=three.targets).encode(text).dropped == 3000 - 333, "its copy has the same cache"


@pytest.mark.parametrize(
    ("clause", "tokens"),
    [
        ({"term": {"lang": "de"}}, 1000),
        ({"terms": {"lang": [str(i) for i in range(5000)]}}, 1000),
        ({"bool": {"should": [{"term": {"lang": str(i)}} for i in range(120)]}}, 900),
        ({"match": {"text": {"query": "word " * 520}}}, 500),
        ({"bool": {"should": [{"term": {"lang": str(i)}} for i in range(2000)]}}, 1),
    ],
)
def test_a_filter_takes_its_share_of_the_clauses(lexical: Path, clause: dict[str, Any], tokens: int) -> None:
    rewriter = QueryRewriter.load(lexical)
    encoded = rewriter.encode(" ".join(f"word{i}" for i in range(3000)))
    cut = rewriter.beside(encoded, clause)
    assert (len(cut.sparse or ()), cut.dropped) == (tokens, 3000 - tokens)
    (query,) = rewriter.body(encoded, filter=clause)["query"]["bool"]["should"]
    assert len(query["neural_sparse"]["embedding"]["query_tokens"]) == tokens


@pytest.mark.parametrize("field", ["", "^2", "embedding^", "embedding^0", "embedding^-1", "embedding^inf", "a^b"])
def test_what_is_not_a_field(lexical: Path, field: str) -> None:
    with pytest.raises(UsageError, match="is not a field: it looks like embedding, or title_embedding"):
        QueryRewriter.load(lexical, field=field)


MAPPINGS = {
    "properties": {
        "title": {"type": "text", "fields": {"vector": {"type": "keyword"}}},
        "embedding": {"type": "rank_features"},
        "meta": {"properties": {"embedding": {"type": "sparse_vector"}}},
        "passages": {
            "type": "nested",
            "properties": {"start": {"type": "integer"}, "inner": {"properties": {"v": {"type": "rank_features"}}}},
        },
    }
}


def test_the_vector_fields_of_a_mapping() -> None:
    assert vector_fields(MAPPINGS) == {
        "embedding": ("rank_features", None),
        "meta.embedding": ("sparse_vector", None),
        "passages.inner.v": ("rank_features", "passages"),
    }
    assert vector_fields({}) == {}


def test_a_field_that_the_index_has_not_is_named_with_those_that_it_has() -> None:
    with pytest.raises(UsageError, match="index x has no sparse vector field 'title'; those that it has: embedding, "):
        targets_of(MAPPINGS, "x", [("title", 1.0)], "opensearch", (3, 6, 0))
    with pytest.raises(UsageError, match="has no sparse vector field 'a'; those that it has: none"):
        targets_of({}, "x", [("a", 1.0)], "opensearch", (3, 6, 0))
    with pytest.raises(UsageError, match="'embedding' is asked twice"):
        targets_of(MAPPINGS, "x", [("embedding", 1.0), ("embedding", 2.0)], "opensearch", (3, 6, 0))
    with pytest.raises(UnsupportedByEngine, match="rank_feature does not ask a sparse_vector field"):
        targets_of(MAPPINGS, "x", [("meta.embedding", 1.0)], "opensearch", (3, 6, 0), "rank_feature")


# --- many at once, and again ------------------------------------------------------------------------


class Counting:
    """An encoder that counts what it is asked to encode."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.asked: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_query(self, texts: list[str]) -> Any:
        self.asked.append(list(texts))
        return self._encoder.encode_query(texts)


def counted(folder: Path, **options: Any) -> tuple[QueryRewriter, Counting]:
    plain = QueryRewriter.load(folder, **options)
    encoder = Counting(plain.encoder)
    return replace(plain, encoder=encoder, cache=QueryCache()), encoder


def test_several_are_encoded_together_and_a_second_time_not_at_all(lexical: Path) -> None:
    rewriter, encoder = counted(lexical)
    texts = ["sun and rain", "throat", "sun and rain", "lung"]
    found = rewriter.encode_many(texts)
    assert encoder.asked == [["sun and rain", "throat", "lung"]]
    assert [query.text for query in found] == texts
    assert rewriter.rewrite("throat") == QueryRewriter.load(lexical).rewrite("throat")
    assert rewriter.encode_many(texts) == found
    assert len(encoder.asked) == 1


def test_a_copy_with_other_settings_is_not_given_what_was_encoded_with_these(lexical: Path) -> None:
    rewriter, _ = counted(lexical)
    whole = rewriter.encode("the throat and the lung is treatable").sparse
    pruned = replace(rewriter, pruning=parse_pruning("top-k=1")).encode("the throat and the lung is treatable").sparse
    assert whole is not None
    assert pruned is not None
    assert len(whole) > len(pruned) == 1


def test_an_msearch_body_is_a_head_and_a_body_a_question(lexical: Path) -> None:
    rewriter = QueryRewriter.load(lexical)
    lines = rewriter.msearch("library", ["sun", [("throat", "a"), ("lung", None)]], size=3).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"index": "library"}, rewriter.rewrite("sun", size=3),
        {"index": "library"}, rewriter.rewrite([("throat", "a"), ("lung", None)], size=3),
    ]  # fmt: skip
    assert rewriter.msearch("library", []) == b""
    with pytest.raises(UsageError, match="empty"):
        rewriter.msearch("library", ["sun", " "])


def test_an_event_loop_goes_on_while_a_query_is_encoded(lexical: Path) -> None:
    rewriter, encoder = counted(lexical)
    threads: set[int] = set()
    encode = encoder.encode_query
    encoder.encode_query = lambda texts: (threads.add(threading.get_ident()), encode(texts))[1]  # type: ignore[method-assign]

    async def ask() -> list[dict[str, Any]]:
        return [await rewriter.rewrite_async(text, size=4) for text in ("sun", "sun", "lung")]

    assert asyncio.run(ask()) == [rewriter.rewrite(text, size=4) for text in ("sun", "sun", "lung")]
    assert threading.get_ident() not in threads
    assert encoder.asked == [["sun"], ["lung"]]
