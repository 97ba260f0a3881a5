"""The inference-free query side is OpenSearch's own `bert-uncased` analyzer, token by token and weight by weight.

Asked of a real node with the ml plugin, which brings the analyzer: the tokens are the `_analyze` API's, the weights
their payloads, and a search that names the analyzer must find what the bridge's own vector finds.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
import struct
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from bridge.dialects.inside import Inside
from bridge.encode import Encoder, load_encoder
from bridge.engines import Engine
from bridge.fit import FitOptions, fit
from bridge.ingest import IngestOptions, ingest
from bridge.rewrite import QueryRewriter
from bridge.sources import open_source

pytestmark = pytest.mark.node

ANALYZER = "bert-uncased"
UNKNOWN = "[UNK]"
REAL, STRANGE = 1000, 100

SYMBOLS = (
    "\U0001f327", "\U0001f9ff", "\U0001f1f3\U0001f1ff", "\u2708\ufe0f", "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "\U0001f44d\U0001f3fd", "\U0001f999", "\u2764\ufe0f\u200d\U0001f525", "\U0001f600\U0001f602", "\U0001d54f",
)  # fmt: skip
"""Emoji: alone, joined, with a skin tone, a flag; and a letter of the mathematical alphabets."""

UNSEEN_SCRIPTS = (
    "ܫܠܡܐ", "ꙮ", "ᚠᚢᚦᚨᚱᚲ", "ᓄᓇᕗᑦ", "ᏣᎳᎩ", "𐤀𐤁𐤂", "𓀀𓁐", "ꦲꦏ꧀ꦱꦫ", "ⲙⲉⲧⲣⲉⲙ", "ߒߞߏ", "ދިވެހި", "ሰላም", "ខ្មែរ", "ລາວ",
    "བོད་སྐད", "ꀊꆈꌠ", "ᠮᠣᠩᠭᠣᠯ", "ආයුබෝවන්", "ქართული", "Ⴀႁ", "𞤀𞤁𞤂", "ⴰⵎⴰⵣⵉⵖ", "ꤊꤢꤛꤢ", "ᮞᮥᮔ᮪ᮓ", "ᬅᬓ᭄ᬱᬭ",
)  # fmt: skip
"""Scripts of which the vocabulary has no or hardly any piece: Syriac, Runes, Cherokee, Phoenician, hieroglyphs, …"""


@pytest.fixture(scope="module")
def analyze(ml_engine: Engine) -> Callable[[str], dict[str, float]]:
    """A text's tokens by the engine's analyzer, each with the weight that the engine gives it."""

    def call(text: str) -> dict[str, float]:
        body = json.dumps({"analyzer": ANALYZER, "text": text, "explain": True}).encode()
        answer = ml_engine.request("POST", "/_analyze", body=body)
        found: dict[str, float] = {}
        for token in answer["detail"]["analyzer"]["tokens"]:
            (weight,) = struct.unpack(">f", bytes(int(byte, 16) for byte in token["payload"].strip("[]").split()))
            assert found.setdefault(token["token"], weight) == weight
        return found

    return call


@pytest.fixture(scope="module")
def encoder(shared: Path) -> Encoder:
    return load_encoder(shared / "bert-uncased")


@pytest.fixture(scope="module")
def real(shared: Path) -> list[str]:
    """Distinct real questions of three collections: claims, code search, conversations."""
    corpora = shared / "corpora"
    rows = chain.from_iterable(
        map(json.loads, (corpora / path).read_text("utf-8").splitlines())
        for path in ("scifact/queries.jsonl", "cosqa/queries.jsonl", "cast2019/conversations.jsonl")
    )
    return list(dict.fromkeys(row.get("text") or row["question"] for row in rows))[:REAL]


def strange(real: list[str]) -> list[str]:
    """Real questions with emoji and words of unseen scripts between, before, after and inside their words."""
    drawn = random.Random(20_240_229)
    found = []
    for question in real[:: len(real) // STRANGE][:STRANGE]:
        words = question.split()
        for _ in range(drawn.randint(1, 3)):
            words.insert(drawn.randint(0, len(words)), drawn.choice((*SYMBOLS, *UNSEEN_SCRIPTS)))
        if drawn.random() < 0.3:
            words[drawn.randrange(len(words))] += drawn.choice(SYMBOLS)
        found.append(" ".join(words))
    return found


def query(encoder: Encoder, text: str) -> dict[str, float]:
    return encoder.encode_query([text])[0].as_dict()


def test_a_thousand_real_queries(analyze: Callable[[str], dict[str, float]], encoder: Encoder, real: list[str]) -> None:
    """The same set of tokens, and weights that are equal to the last bit."""
    assert len(real) == REAL
    for text in real:
        assert query(encoder, text) == analyze(text), text


def test_emoji_and_unseen_scripts(
    analyze: Callable[[str], dict[str, float]], encoder: Encoder, real: list[str]
) -> None:
    """The unknown token, which the analyzer keeps with a weight of 1 and the model never learned, is left out here."""
    texts = strange(real)
    assert len(set(texts)) == STRANGE
    unknown = 0
    for text in texts:
        found = analyze(text)
        unknown += UNKNOWN in found
        assert found.pop(UNKNOWN, 1.0) == 1.0
        assert query(encoder, text) == found, text
    # Nearly all must have it, or this says nothing of it.
    assert unknown >= 90


def test_every_symbol_and_script_alone(analyze: Callable[[str], dict[str, float]], encoder: Encoder) -> None:
    for text in (*SYMBOLS, *UNSEEN_SCRIPTS):
        found = analyze(text)
        found.pop(UNKNOWN, None)
        assert query(encoder, text) == found, text


@pytest.mark.parametrize(
    "text",
    ["", "  \n", "Ünïcödé ａｂｃ ﬁne İstanbul", "a.b ... ##. don't", "zero\u200bwidth\u200djoined\ufeff", "x" * 101],
)
def test_odd_texts(analyze: Callable[[str], dict[str, float]], encoder: Encoder, text: str) -> None:
    found = analyze(text)
    found.pop(UNKNOWN, None)
    assert query(encoder, text) == found


def test_long_texts_are_not_cut_short(analyze: Callable[[str], dict[str, float]], encoder: Encoder) -> None:
    """The analyzer reads all of a text; so does a table of weights in a folder that states no length."""
    text = " ".join(f"w{i}" for i in range(900)) + " weather"
    assert "weather" in analyze(text)
    assert query(encoder, text) == analyze(text)


def test_special_tokens_that_somebody_typed(analyze: Callable[[str], dict[str, float]], encoder: Encoder) -> None:
    """The analyzer weighs them 1; document vectors never hold them, so here they are left out as `[UNK]` is."""
    found = analyze("[CLS] the weather [MASK] [SEP]")
    ours = query(encoder, "[CLS] the weather [MASK] [SEP]")
    assert {token: weight for token, weight in found.items() if token not in ours} == {
        "[CLS]": 1.0, "[MASK]": 1.0, "[SEP]": 1.0,
    }  # fmt: skip
    assert ours == {token: found[token] for token in ("the", "weather")}


def test_the_clusters_own_search_gives_the_bridges_hits(
    ml_engine: Engine, module_home: None, shared: Path, tmp_path: Path, real: list[str]
) -> None:
    """An index that the bridge made is searched by the cluster's analyzer: the same documents with the same scores."""
    pytest.importorskip("torch", reason="the extra encode is not installed: no torch")
    from tests.models import sparse_folder

    folder = sparse_folder(
        tmp_path / "opensearch-neural-sparse-encoding-doc-v2-distill",
        shared / "bert-uncased" / "tokenizer.json",
        kind="distilbert",
        length=96,
    )
    shutil.copyfile(shared / "bert-uncased" / "idf.json", folder / "idf.json")
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"_id": str(i), "text": f"{text} ... {real[i - 1]}"} for i, text in enumerate(real[:200])]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with open_source([str(corpus)]) as source:
        options = IngestOptions(model=str(folder), dead_letter=tmp_path / "dead.jsonl")
        assert ingest(ml_engine, "analyzed", source, options).indexed == len(rows)
    rewriter = QueryRewriter.for_index(ml_engine, "analyzed", model=str(folder))
    inside = QueryRewriter.for_index(ml_engine, "analyzed", inside=Inside(analyzer=ANALYZER))
    texts = [*real[::20], *strange(real)[:30], "the weather, the weather, the weather", "what is a.b ... of x.y?"]
    hit = 0
    for text in texts:
        theirs = hits(ml_engine, inside.rewrite(text, size=len(rows)))
        ours = hits(ml_engine, rewriter.rewrite(text, size=len(rows)))
        assert ours.keys() == theirs.keys()
        assert ours == pytest.approx(theirs, rel=1e-6), text
        hit += len(ours)
    assert hit > 10 * len(texts)


def test_wordpiece_documents_are_asked_alike(
    ml_engine: Engine, module_home: None, shared: Path, tmp_path: Path
) -> None:
    """Documents of `fit --tokenizer`, 300 SciFact queries: the table here and the analyzer there find the same."""
    corpus = shared / "corpora" / "scifact"
    with gzip.open(corpus / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [f"{row['title']} {row['text']}" for row in map(json.loads, lines)]
    fit(texts, tmp_path / "pieces", FitOptions(tokenizer=shared / "bert-uncased"))
    with open_source([str(corpus)]) as source:
        options = IngestOptions(model=str(tmp_path / "pieces"), dead_letter=tmp_path / "dead.jsonl")
        assert ingest(ml_engine, "pieces", source, options).indexed == len(texts)
    rewriter = QueryRewriter.load(shared / "bert-uncased", version=ml_engine.info().number)
    inside = QueryRewriter.for_index(ml_engine, "pieces", inside=Inside(analyzer=ANALYZER))
    judged = dict.fromkeys(line.split("\t")[0] for line in (corpus / "qrels" / "test.tsv").read_text().splitlines()[1:])
    with (corpus / "queries.jsonl").open(encoding="utf-8") as lines:
        queries = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    asked = [queries[name] for name in judged]
    assert len(asked) == 300
    for text in asked:
        ours, theirs = (hits(ml_engine, one.rewrite(text, size=100), "pieces") for one in (rewriter, inside))
        assert len(ours) == len(theirs) == 100
        assert sorted(ours.values()) == pytest.approx(sorted(theirs.values()), rel=1e-6)
        last = min(ours.values()) * (1 + 1e-6)
        # Of those that score the same as the last one, either may be left out.
        assert {name for name, score in ours.items() if score > last} <= theirs.keys()
        assert all(score == pytest.approx(theirs[name], rel=1e-6) for name, score in ours.items() if name in theirs)


def hits(engine: Engine, body: dict[str, Any], index: str = "analyzed") -> dict[str, float]:
    return {one["_id"]: one["_score"] for one in engine.search(index, body)["hits"]["hits"]}
