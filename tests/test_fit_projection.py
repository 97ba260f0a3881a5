"""Projection models: the formula, the folder, the fit and its bounds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bridge import fit as fitting
from bridge import fit_projection
from bridge.encode import analysis, load_encoder
from bridge.encode.analysis import WordAnalyzer
from bridge.encode.lexical import LexicalEncoder
from bridge.encode.projection import TABLE_FILE, ProjectionEncoder, ProjectionTable, hash_of
from bridge.errors import ModelFormatError, ModelMismatch, ModelNotFound, UsageError
from bridge.fit import FitOptions, fit
from bridge.fit_projection import NEIGHBOURS, Reservoir, similar_words
from bridge.settings import cache_folder
from tests.models import word_bert

WORDS = ("stone", "river", "bridge", "tower", "castle", "garden", "winter", "summer", "baker", "bread", "oven", "flour")
TEXTS = [
    "The bakers bake bread in an oven: flour, yeast and salt make the dough.",
    "A castle with a stone tower stands above the river.",
    "In winter the garden sleeps; in summer the gardens wake.",
    "A stone bridge crosses the river near the bakery's oven.",
    "Bread crust, bread dough, bread salt. Bread!",
    "",
    "the of and",
    "Rivers and bridges, castles and towers: the summer's journey.",
] * 3


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT over whole words, mean pooled."""
    return word_bert(tmp_path_factory.mktemp("teacher"), WORDS)


@pytest.fixture(scope="module")
def model(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "projected"
    fit(TEXTS, folder, FitOptions(language="en", teacher=str(teacher)))
    return folder


def reference(encoder: ProjectionEncoder, folder: Path, text: str) -> dict[str, float]:
    """The formula of docs/projection.md, term by term."""
    table = ProjectionTable.load(folder / TABLE_FILE)
    weights = json.loads((folder / "idf.json").read_text())
    card, terms = encoder.card, list(weights)
    counted = Counter(WordAnalyzer(card.stemmer).terms([text])[0])
    length = sum(counted.values())
    embedding = encoder.teacher.encode_document([text])[0]
    impact = {
        term: tf * (card.k1 + 1) / (tf + card.k1 * (1 - card.b + card.b * length / card.average_length))
        for term, tf in counted.items()
    }
    own, others = {}, {}
    for term in counted:
        lexical = impact[term] * weights.get(term, card.unseen_weight)
        own[term] = lexical
        if term in terms[: len(table.reach)]:
            said = float(table.words[terms.index(term)].astype(np.float32) @ (embedding - table.mean))
            own[term] = max(lexical + said, card.floor * lexical)
    for i, term in enumerate(terms[: len(table.reach)]):
        if term in counted:
            continue
        lent = 0.0
        for j, owner in enumerate(terms[: len(table.reach)]):
            if owner in counted and i in table.neighbours[j]:
                lent += impact[owner] * float(table.cosines[j][list(table.neighbours[j]).index(i)])
        said = float(table.words[i].astype(np.float32) @ (embedding - table.mean))
        weight = said + weights[term] * card.neighbour_weight * lent
        if weight * table.reach[i] > 0:
            others[term] = (weight * float(table.reach[i]), weight)
    room = max(card.least_expansion, min(card.expansion, card.terms - len(counted)))
    kept = sorted(others, key=lambda term: -others[term][0])[:room]
    return own | {term: others[term][1] for term in kept}


@pytest.mark.parametrize("expansion", [(128, 32, 250), (4, 2, 9), (0, 0, 0)])
def test_documents_follow_the_formula(model: Path, tmp_path: Path, expansion: tuple[int, int, int]) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    card = json.loads((copy / "bridge.json").read_text())
    card |= dict(zip(("expansion", "least_expansion", "terms"), expansion, strict=True))
    (copy / "bridge.json").write_text(json.dumps(card))
    encoder = load_encoder(copy)
    assert isinstance(encoder, ProjectionEncoder)
    texts = [*TEXTS[:8], "A gnome's unseen zeppelin over the castle", "gardens " * 40]
    for text, vector in zip(texts, encoder.encode_document(texts), strict=True):
        wanted = reference(encoder, copy, text) if text else {}
        found = dict(zip(vector.tokens, vector.weights.tolist(), strict=True))
        assert found.keys() == wanted.keys()
        assert all(abs(found[term] - wanted[term]) < 1e-4 for term in wanted)
        assert (np.diff(vector.ids) > 0).all()
        assert (vector.weights > 0).all()


def test_a_document_alone_is_as_in_any_batch(model: Path) -> None:
    encoder = load_encoder(model)
    together = encoder.encode_document(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        alone = encoder.encode_document([text])[0]
        assert alone.tokens == vector.tokens
        assert np.allclose(alone.weights, vector.weights, atol=1e-4)


def test_queries_are_the_lexical_ones_with_the_root_of_the_idf(model: Path, tmp_path: Path) -> None:
    lexical = fit(TEXTS, tmp_path / "lexical", FitOptions(language="en"))
    assert isinstance(lexical, LexicalEncoder)
    queries = ["Where is the stone bridge?", "", "the of", "bread bread unheard"]
    asked = load_encoder(model).encode_query(queries)
    for ours, theirs in zip(asked, lexical.encode_query(queries), strict=True):
        wanted = dict(zip(theirs.tokens, np.sqrt(theirs.weights).tolist(), strict=True))
        assert dict(zip(ours.tokens, ours.weights.tolist(), strict=True)) == pytest.approx(wanted, abs=1e-6)


def test_without_the_teacher_the_score_is_the_lexical_one(model: Path, tmp_path: Path) -> None:
    """A table of zeros: what remains of a document is its saturated frequencies times the query weight."""
    lexical = fit(TEXTS, tmp_path / "lexical", FitOptions(language="en"))
    zeros = tmp_path / "zeros"
    zeros.mkdir()
    for name in ("bridge.json", "idf.json"):
        (zeros / name).write_bytes((model / name).read_bytes())
    table = ProjectionTable.load(model / TABLE_FILE)
    silent = np.zeros_like(table.words)
    ProjectionTable(silent, table.mean, table.reach, np.full_like(table.neighbours, -1), table.cosines).save(
        zeros / TABLE_FILE
    )
    card = json.loads((zeros / "bridge.json").read_text()) | {"table": hash_of(zeros / TABLE_FILE)}
    (zeros / "bridge.json").write_text(json.dumps(card))
    encoder = load_encoder(zeros)

    def score(one: Any, query: str, document: str) -> float:
        asked, stored = one.encode_query([query])[0], one.encode_document([document])[0]
        held = dict(zip(stored.tokens, stored.weights.tolist(), strict=True))
        return sum(w * held.get(t, 0.0) for t, w in zip(asked.tokens, asked.weights.tolist(), strict=True))

    for query in ("stone bridge", "bread in the oven", "an unheard word"):
        for document in TEXTS[:5]:
            assert score(encoder, query, document) == pytest.approx(score(lexical, query, document), abs=1e-4)


def test_fitting_twice_gives_the_same_model(model: Path, teacher: Path, tmp_path: Path) -> None:
    again = fit(iter(TEXTS), tmp_path / "again", FitOptions(language="en", teacher=str(teacher)))
    assert again.fingerprint == load_encoder(model).fingerprint
    assert {path.name for path in model.iterdir()} == {"bridge.json", "idf.json", TABLE_FILE}
    for path in model.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_fitted_words_are_in_their_most_frequent_form(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Listening:
        name, fingerprint, dimension = "listening", "dense-0", 3

        def encode_query(self, texts: Sequence[str]) -> Any:
            asked.extend(texts)
            return np.ones((len(texts), 3), dtype=np.float32)

        def encode_document(self, texts: Sequence[str]) -> Any:
            return np.ones((len(texts), 3), dtype=np.float32)

    monkeypatch.setattr(fitting, "_load_teacher", lambda options: Listening())
    texts = ["Studies of HTTPServer", "studies, study", "the study of studies"]
    encoder = fit(texts, options=FitOptions(language="en", teacher="listening"))
    assert {"studies", "httpserver", "http", "server", "the"} <= set(asked)
    assert not {"studi", "study"} & set(asked)
    assert len(asked) == len(encoder.vocabulary)


def test_similar_words_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    unit = words / np.linalg.norm(words, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, 0)
    for block in (60 * 7, 16_000_000):
        monkeypatch.setattr(fit_projection, "_BLOCK", block)
        rows, values = similar_words(words)
        for i in range(60):
            best = [j for j in np.argsort(-cosines[i])[:NEIGHBOURS] if cosines[i, j] > fit_projection.COSINE]
            assert sorted(rows[i][rows[i] >= 0]) == sorted(best)
            assert np.allclose(values[i][rows[i] >= 0], cosines[i][rows[i][rows[i] >= 0]], atol=1e-6)
    assert similar_words(words[:1])[0].tolist() == [[-1] * NEIGHBOURS]


def test_a_reservoir_is_uniform_and_repeatable() -> None:
    def sample() -> list[str]:
        reservoir = Reservoir(100)
        for i in range(10_000):
            reservoir.add(str(i))
        return reservoir.texts

    first = sample()
    assert first == sample()
    assert len(set(first)) == 100
    assert 3500 < np.mean([int(one) for one in first]) < 6500


def test_memory_of_a_fit_is_bounded(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the documents, and ten times the words, in the same memory once the bounds are met."""
    monkeypatch.setattr(analysis, "_CACHED_RUNS", 2000)
    monkeypatch.setattr(fitting, "MAX_TERMS", 1000)
    monkeypatch.setattr(fit_projection, "MAX_WORDS", 500)

    class Quiet:
        name, fingerprint, dimension = "quiet", "dense-0", 8

        def encode_query(self, texts: Sequence[str]) -> Any:
            return np.asarray([[len(one), *map(ord, one[:7].ljust(7))] for one in texts], dtype=np.float32)

        encode_document = encode_query

    monkeypatch.setattr(fitting, "_load_teacher", lambda options: Quiet())

    def texts(count: int) -> Iterator[str]:
        return (f"common words here and w{i} of v{i // 2} in stone x{i % 700}" for i in range(count))

    def peak(count: int, name: str) -> int:
        tracemalloc.start()
        encoder = fit(texts(count), tmp_path / name, FitOptions(language="en", teacher="quiet"))
        assert len(encoder.vocabulary) <= 1000
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1_000, "warm")
    assert peak(30_000, "large") < 1.5 * peak(5_000, "small") + 2_000_000


def test_queries_need_neither_torch_nor_the_table(model: Path, tmp_path: Path) -> None:
    encoder = load_encoder(model)
    (small,) = (files for name, files in encoder.portable.items() if name == encoder.query_fingerprint)
    folder = tmp_path / "small"
    folder.mkdir()
    for path in small:
        (folder / path.name).write_bytes(path.read_bytes())
    code = (
        "import sys; from bridge.encode import load_encoder; e = load_encoder(sys.argv[1]); "
        "v = e.encode_query(['stone bridges'])[0]; print(e.fingerprint, e.space, *v.tokens); "
        "assert not {'torch', 'transformers', 'safetensors', 'onnxruntime'} & set(sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False, env=dict(os.environ),
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    fingerprint, space, *tokens = out.stdout.split()
    assert fingerprint == encoder.query_fingerprint != encoder.fingerprint
    assert space == encoder.space
    assert sorted(tokens) == ["bridg", "stone"]
    queries_only = load_encoder(folder)
    assert not queries_only.encodes_documents
    with pytest.raises(UsageError, match="encodes queries only"):
        queries_only.encode_document([""])


def test_what_is_wrong_with_a_folder_is_said(model: Path, teacher: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    card = json.loads((copy / "bridge.json").read_text())

    def change(**facts: object) -> None:
        (copy / "bridge.json").write_bytes(msgspec.json.encode(card | facts))

    change(teacher=str(tmp_path / "gone"))
    with pytest.raises(ModelNotFound, match="--teacher"):
        load_encoder(copy).encode_document([""])
    assert load_encoder(copy, teacher=str(teacher)).encode_document(["stone"])[0].tokens
    change(teacher_fingerprint="dense-other")
    with pytest.raises(ModelMismatch, match="dense-other"):
        load_encoder(copy).encode_document(["stone"])
    change(k1="high")
    with pytest.raises(ModelFormatError, match="not a projection model's card"):
        load_encoder(copy)
    change()
    table = ProjectionTable.load(copy / TABLE_FILE)
    words = table.words.copy()
    words[0, 0] = np.nan
    ProjectionTable(words, table.mean, table.reach, table.neighbours, table.cosines).save(copy / TABLE_FILE)
    with pytest.raises(ModelFormatError, match="sha256"):
        load_encoder(copy).encode_document(["stone"])
    change(table=hash_of(copy / TABLE_FILE))
    with pytest.raises(ModelFormatError, match="not finite"):
        load_encoder(copy).encode_document(["stone"])
    ProjectionTable(table.words[1:], table.mean, table.reach, table.neighbours, table.cosines).save(copy / TABLE_FILE)
    with pytest.raises(ModelFormatError, match="where another array has"):
        ProjectionTable.load(copy / TABLE_FILE)
    (copy / TABLE_FILE).write_bytes(b"no table")
    with pytest.raises(ModelFormatError, match="cannot be read"):
        ProjectionTable.load(copy / TABLE_FILE)


def test_a_teacher_where_none_belongs(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a teacher or a tokenizer"):
        FitOptions(teacher=str(teacher), tokenizer=tmp_path)
    fit(TEXTS, tmp_path / "lexical", FitOptions(language="en"))
    with pytest.raises(UsageError, match="has no teacher"):
        load_encoder(tmp_path / "lexical", teacher=str(teacher))
    with pytest.raises(ModelNotFound):
        fit(TEXTS, tmp_path / "none", FitOptions(language="en", teacher=str(tmp_path / "gone")))
    assert not (tmp_path / "none").exists()


def test_the_command(bridge: Callable[..., tuple[int, str, str]], teacher: Path, tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"_id": str(i), "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    code, out, err = bridge("fit", source, "-o", "model", "--teacher", teacher, "--language", "en", "--device", "cpu")
    assert code == 0, err
    assert out.startswith("projection-")
    assert str(teacher) in out.replace("\n", "")
    code, out, err = bridge("fit", source, "-o", "other", "--teacher", teacher, "--tokenizer", teacher)
    assert code == 2
    assert "not both" in err


@pytest.mark.node
def test_through_a_real_engine(
    bridge: Callable[..., tuple[int, str, str]], opensearch_url: str, index: str, teacher: Path, tmp_path: Path
) -> None:
    """Fitted and ingested in one go; asked from an empty cache; more documents with the index's own model."""
    source = tmp_path / "texts.jsonl"
    rows = [{"_id": str(i), "text": text} for i, text in enumerate(TEXTS[:5])]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--teacher", teacher, "--language", "en", "--device", "cpu")
    code, _, err = bridge("ingest", index, source, *options, url=opensearch_url)
    assert code == 0, err
    shutil.rmtree(cache_folder() / "models")
    code, out, err = bridge("search", index, "stone bridge", "--json", url=opensearch_url)
    assert code == 0, err
    # A random teacher says random things; the documents with the words are at least among the hits.
    assert {"1", "3"} <= {hit["id"] for hit in json.loads(out)["hits"]}
    kept = [path.name for path in (cache_folder() / "models").rglob("*") if path.is_file()]
    assert TABLE_FILE not in kept
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"_id": "9", "text": "A tower of bread"}) + "\n")
    code, _, err = bridge("ingest", index, more, "--device", "cpu", url=opensearch_url)
    assert code == 0, err
