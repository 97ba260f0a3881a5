"""Any text and any filter: a query that the engine takes, or one clear error."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge import register
from bridge.dialects import DIALECTS
from bridge.encode import load_encoder
from bridge.engines import Engine
from bridge.errors import RequestRejected, UsageError
from bridge.fit import fit
from bridge.register import RegisterOptions, apply, plan
from bridge.rewrite import QueryRewriter
from bridge.search import search
from bridge.sources import open_source
from bridge.tokens import Kind, field_value

CORPUS = str(Path(register.__file__).parent / "demo_data")
MEGABYTE = 1 << 20

pytestmark = [
    pytest.mark.node,
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.ElasticsearchWarning"),
]
# The engines are the examples' own; only their number makes a test slow.
own = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def lexical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "lexical"
    with open_source([CORPUS]) as source:
        fit([str(item.source["text"]) for item in source.read() if hasattr(item, "source")], folder)
    return folder


@pytest.fixture(scope="module")
def rewriters(any_engine: Engine, lexical: Path, shared: Path) -> Iterator[list[tuple[str, QueryRewriter]]]:
    """Every dialect of every kind that this engine has, of whole words and of word pieces."""
    info, encoder = any_engine.info(), load_encoder(lexical)
    found, made = [], []
    for kind in get_args(Kind):
        own_kind = {
            "sparse_vector": info.capabilities.sparse_vector_field,
            "rank_features": info.product == "opensearch" or info.version < (8,),
        }
        if not own_kind[kind]:
            continue
        index = f"test-{uuid.uuid4().hex[:12]}"
        apply(any_engine, plan(any_engine, index, encoder, RegisterOptions(kind=kind, shards=1)))
        made.append(index)
        (vector,) = encoder.encode_document(["the moon and the bread rise"])
        body = {"text": "the moon", "embedding": field_value(vector, kind, info.product)}
        any_engine.request("POST", f"/{index}/_doc/1", params={"refresh": "true"}, body=encode(body))
        for dialect in DIALECTS[info.product][kind]:
            for model in (lexical, shared / "bert-uncased"):
                options: dict[str, Any] = {"engine": info.product, "version": info.number, "kind": kind}
                found.append((index, QueryRewriter.load(model, dialect=dialect, text_fields=["text"], **options)))
    yield found
    for index in made:
        any_engine.delete_index(index)


def encode(body: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(body)


def ask(engine: Engine, rewriters: list[tuple[str, QueryRewriter]], text: str) -> None:
    """Fails unless every rewriter's query is taken, or the text is none."""
    for index, rewriter in rewriters:
        if not text.strip() or any("\ud800" <= character <= "\udfff" for character in text):
            with pytest.raises(UsageError, match="the query is"):
                rewriter.encode(text)
        else:
            search(engine, index, rewriter, text)


@own
@given(text=st.text(max_size=300))
@example(text="")
@example(text="\x00")
@example(text="a\ud800b")
@example(text='‥ ․ . .. ... a.b.c. *.* _id embedding.moon ^ ~ \\ " { } [ ] < > & | ! ( ) / ?')
@example(text="\u202e\u200b\ufeff\U0010ffff\ufdd0")
@example(text="moon " * 5000)
def test_any_text_is_taken(any_engine: Engine, rewriters: list[tuple[str, QueryRewriter]], text: str) -> None:
    ask(any_engine, rewriters, text)


def long_texts() -> dict[str, str]:
    draw = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return {
        "one word": "a" * MEGABYTE,
        "words": " ".join("".join(draw.choices(letters, k=6)) for _ in range(MEGABYTE // 7)),
        "anything": "".join(chr(draw.choice([draw.randrange(32, 0xD800), draw.randrange(0xE000, 0x11000)]))
                            for _ in range(MEGABYTE // 3)),
        "unspaced": "".join(chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(MEGABYTE // 3)),
        "dots": "a.b" * (MEGABYTE // 3),
        "blanks": " " * MEGABYTE,
    }  # fmt: skip


@pytest.mark.parametrize("kind", long_texts())
def test_a_megabyte_of_text_is_taken(any_engine: Engine, rewriters: list[tuple[str, QueryRewriter]], kind: str) -> None:
    ask(any_engine, rewriters, long_texts()[kind])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELD = st.sampled_from(["text", "embedding", "embedding.moon", "_id", "none"])
WORDS = st.text(max_size=20) | st.integers(-(2**70), 2**70) | st.floats()
CLAUSE = st.recursive(
    st.one_of(
        st.fixed_dictionaries({"term": st.dictionaries(FIELD, WORDS, min_size=1, max_size=1)}),
        st.fixed_dictionaries({"terms": st.dictionaries(FIELD, st.lists(WORDS, max_size=5), min_size=1, max_size=1)}),
        st.fixed_dictionaries({"range": st.dictionaries(FIELD, JSON, min_size=1, max_size=1)}),
        st.fixed_dictionaries({"match": st.dictionaries(FIELD, st.text(max_size=30), min_size=1, max_size=1)}),
        st.dictionaries(st.text(max_size=10), JSON, min_size=1, max_size=2),
    ),
    lambda inner: st.fixed_dictionaries(
        {
            "bool": st.dictionaries(
                st.sampled_from(["must", "should", "must_not", "filter"]), st.lists(inner, max_size=3)
            )
        }
    ),
    max_leaves=6,
)


@own
@given(clause=CLAUSE)
@example(clause={"bool": {"should": [{"term": {"text": str(number)}} for number in range(1020)]}})
@example(clause={"bool": {"should": [{"term": {"text": str(number)}} for number in range(3000)]}})
@example(clause={"match": {"text": "a b " * 4000}})
@example(clause={"terms": {"text": [str(number) for number in range(70_000)]}})
def test_any_filter_is_taken_or_refused_by_the_engine_with_its_reason(
    any_engine: Engine, rewriters: list[tuple[str, QueryRewriter]], clause: dict[str, Any]
) -> None:
    for index, rewriter in rewriters:
        with suppress(RequestRejected, UsageError):
            search(any_engine, index, rewriter, "moon and bread", filter=clause)
