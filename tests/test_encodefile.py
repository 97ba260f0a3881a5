"""`bridge encode SOURCE -o FILE` and back: every form holds exactly what the encoder gave."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import load_encoder
from bridge.encode.base import TokenVocabulary
from bridge.encodefile import EncodeOptions, encode_file
from bridge.engines import Engine
from bridge.errors import CheckpointError, DocumentError, ModelMismatch, SourceError, UsageError
from bridge.fit import FitOptions, fit
from bridge.indexmodel import IndexModel
from bridge.ingest import IngestOptions, ingest
from bridge.prepare import WHOLE, Preparation, Prepared, prepare
from bridge.prune import Pruning, parse_pruning
from bridge.records import SparseVector
from bridge.register import RegisterOptions
from bridge.sources import SourceOptions, open_source
from bridge.tokens import rank_features_value, store_precision
from bridge.vectorfile import (
    form_of,
    line_of,
    looks_encoded,
    read_meta,
    read_passages,
    read_vector,
    shared_meta,
    source_fields,
)

Bridge = Callable[..., tuple[int, str, str]]

DOCUMENTS = [
    {"_id": "1", "title": "Rain", "text": "It rained in New.York for three days", "year": 1998},
    {"_id": "2", "text": "Ein zweiter Text über den Regen 雨"},
    {"_id": "3", "title": "no text here", "text": ""},
    {"title": "no id"},
    {"_id": "5", "other": 1},
    {"_id": "6", "_op": "delete"},
    {"_id": "7", "text": "the last one"},
]
DEAD = 3
FORMS = ("jsonl", "parquet", "anserini", "engine")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS), encoding="utf-8")
    return path


@pytest.fixture
def model(corpus: Path, tmp_path: Path) -> Path:
    fit(["it rained for three days in New York", "a text of rain", "the last one of all"], tmp_path / "model")
    return tmp_path / "model"


def encoder_of(model: Path) -> Any:
    return load_encoder(model)


def items(path: Path) -> list[dict[str, Any]]:
    """The documents of a vector file, by the reader that ingest uses."""
    with open_source([str(path)], SourceOptions(id_field="id")) as source:
        return [{"id": item.id, **item.source} for item in source.read()]  # type: ignore[union-attr]


def expected(model: Path) -> dict[str, dict[str, float]]:
    texts = {"1": "Rain\nIt rained in New.York for three days", "2": DOCUMENTS[1]["text"], "3": "no text here",
             "7": "the last one"}  # fmt: skip
    vectors = encoder_of(model).encode_document(list(texts.values()))
    return {name: vector.as_dict() for name, vector in zip(texts, vectors, strict=True)}


def as_stored(vector: dict[str, float]) -> dict[str, float]:
    """The weights that an engine keeps of these."""
    kept = store_precision(np.array(list(vector.values()), dtype=np.float32))
    return {token: np.float32(weight) for token, weight in zip(vector, kept, strict=True)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_each_form_reads_back_equal(corpus: Path, model: Path, tmp_path: Path, form: str, packed: str) -> None:
    if form == "parquet" and packed:
        pytest.skip("Parquet is compressed inside")
    output = tmp_path / ("vectors.parquet" if form == "parquet" else f"vectors.jsonl{packed}")
    with open_source([str(corpus)]) as source:
        summary = encode_file(source, output, encoder_of(model), EncodeOptions(form=form))
    assert (summary.source, summary.encoded, summary.dead) == (7, 4, DEAD)
    found = items(output)
    assert [one["id"] for one in found] == ["1", "2", "3", "7"]
    wanted = expected(model)
    for one in found:
        vector = read_vector(one).as_dict()
        if form == "engine":
            assert vector == as_stored(wanted[one["id"]])
            dotted = {"dotted"} if any("." in token for token in vector) else set()
            assert set(one) == {"id", "vector", "hash"} | dotted
            continue
        assert vector == wanted[one["id"]]
        if form == "anserini":
            assert set(one) == {"id", "contents", "vector"}
            assert {token: np.float32(w) for token, w in one["vector"].items()} == wanted[one["id"]]
        else:
            assert set(one) == {"id", "tokens", "weights"}
    assert sorted(path.name for path in tmp_path.glob(f"{output.name}*")) == [
        output.name, f"{output.name}.dead-letter.jsonl", f"{output.name}.meta.json",
    ]  # fmt: skip
    letters = [json.loads(line) for line in Path(summary.dead_letter or "").read_text().splitlines()]
    assert [letter["line"] for letter in letters] == [4, 5, 6]


def test_the_anserini_form_is_its_documented_schema(corpus: Path, model: Path, tmp_path: Path) -> None:
    """JsonVectorCollection: a string id, string contents, and a flat object of whole numbers, which it reads."""
    with open_source([str(corpus)]) as source:
        options = EncodeOptions(form="anserini", scale=100)
        encode_file(source, tmp_path / "a.jsonl", encoder_of(model), options)
    wanted = expected(model)
    for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        assert list(document) == ["id", "contents", "vector"]
        assert isinstance(document["id"], str)
        assert isinstance(document["contents"], str)
        assert document["vector"]
        for token, weight in document["vector"].items():
            assert type(weight) is int
            assert weight == round(100 * wanted[document["id"]][token])
    meta = read_meta(tmp_path / "a.jsonl")
    assert meta is not None
    assert meta.scale == 100


def test_own_fields_are_kept_where_asked(corpus: Path, model: Path, tmp_path: Path) -> None:
    for name in ("kept.jsonl", "kept.parquet"):
        with open_source([str(corpus)]) as source:
            encode_file(source, tmp_path / name, encoder_of(model), EncodeOptions(keep_source=True))
        first = items(tmp_path / name)[0]
        assert source_fields(first) == {"title": "Rain", "text": DOCUMENTS[0]["text"], "year": 1998}
    with open_source([str(corpus)]) as source, pytest.raises(UsageError, match="no place"):
        encode_file(source, tmp_path / "a", encoder_of(model), EncodeOptions(form="anserini", keep_source=True))


LONG = "It rained for three days in New York. The last text of all is a text of rain. " * 6


@pytest.fixture
def pieces(tmp_path: Path, shared: Path) -> Path:
    """A model whose tokens can be counted, so that its texts can be cut."""
    options = FitOptions(tokenizer=shared / "bert-uncased")
    fit(["it rained for three days in New York", "a text of rain", "the last one of all"], tmp_path / "pieces", options)
    return tmp_path / "pieces"


@pytest.fixture
def long_texts(tmp_path: Path) -> Path:
    path = tmp_path / "long.jsonl"
    texts = {"1": LONG, "2": "one short text", "3": "Ein Text über Regen 雨 😀. " * 20}
    path.write_text("".join(json.dumps({"_id": name, "text": text, "n": 1}) + "\n" for name, text in texts.items()))
    return path


@pytest.mark.parametrize("name", ["v.jsonl", "v.parquet", "v.jsonl.gz"])
@pytest.mark.parametrize("keep", [True, False])
def test_nested_passages_read_back_equal(long_texts: Path, pieces: Path, tmp_path: Path, name: str, keep: bool) -> None:
    preparation = Preparation("nested", 24, 4, parse_pruning("top-k=6"))
    encoder = encoder_of(pieces)
    with open_source([str(long_texts)]) as source:
        summary = encode_file(
            source, tmp_path / name, encoder, EncodeOptions(preparation=preparation, keep_source=keep)
        )
    texts = {line["_id"]: line["text"] for line in map(json.loads, long_texts.read_text().splitlines())}
    wanted = dict(zip(texts, prepare(encoder, list(texts.values()), preparation), strict=True))
    found = {one["id"]: one for one in items(tmp_path / name)}
    assert list(found) == list(texts)
    for identity, one in wanted.items():
        assert isinstance(one, Prepared)
        passages = read_passages(found[identity], encoder.vocabulary)
        assert [(start, end) for start, end, _ in passages] == [(cut.start, cut.end) for cut, _ in one.nested]
        for (_, _, vector), (_, expected) in zip(passages, one.nested, strict=True):
            assert vector.ids.tolist() == expected.ids.tolist()
            assert vector.weights.tolist() == expected.weights.tolist()
        assert looks_encoded(found[identity])
        assert source_fields(found[identity]) == ({"text": texts[identity], "n": 1} if keep else {})
    assert summary.passages == sum(one.passages for one in wanted.values() if isinstance(one, Prepared))
    assert summary.passages > 6
    meta = read_meta(tmp_path / name)
    assert meta is not None
    assert meta.prepared == preparation
    assert meta.preparation == summary.preparation == "nested passage-tokens=24 overlap=4 prune=top-k=6"


def test_merged_and_pruned(long_texts: Path, pieces: Path, tmp_path: Path) -> None:
    """The file holds what `prepare` gives, and the summary says what pruning took."""
    encoder = encoder_of(pieces)
    kept = {}
    for name, pruning in (("all", None), ("few", Pruning(top_k=5))):
        with open_source([str(long_texts)]) as source:
            options = EncodeOptions(preparation=Preparation("merge", 24, 0, pruning))
            summary = encode_file(source, tmp_path / f"{name}.jsonl", encoder, options)
        kept[name] = summary, [read_vector(one, encoder.vocabulary) for one in items(tmp_path / f"{name}.jsonl")]
    before, after = kept["all"][1], kept["few"][1]
    assert [len(vector) for vector in after] == [min(5, len(vector)) for vector in before]
    summary = kept["few"][0]
    gone = sum(map(len, before)) - sum(map(len, after))
    assert summary.pruned_terms == round(gone / 3, 2)
    mass = sum(float(vector.weights.sum(dtype=np.float64)) for vector in before)
    left = sum(float(vector.weights.sum(dtype=np.float64)) for vector in after)
    assert summary.pruned_mass == pytest.approx((mass - left) / mass, abs=2e-6)
    assert kept["all"][0].pruned_terms is None


def test_what_cannot_be_prepared(long_texts: Path, model: Path, pieces: Path, tmp_path: Path) -> None:
    def run(folder: Path, preparation: Preparation, **options: Any) -> None:
        with open_source([str(long_texts)]) as source:
            encode_file(
                source, tmp_path / "v.jsonl", encoder_of(folder), EncodeOptions(preparation=preparation, **options)
            )

    for form in ("anserini", "engine"):
        with pytest.raises(UsageError, match=f"the {form} form has one vector a document"):
            run(pieces, Preparation("nested", 24), form=form)
    with pytest.raises(UsageError, match="leave --scale out"):
        run(pieces, WHOLE, form="engine", scale=100)
    with pytest.raises(UsageError, match="--passage-tokens"):
        run(pieces, Preparation("merge"))
    assert not (tmp_path / "v.jsonl").exists()
    assert not (tmp_path / "v.jsonl.part").exists()
    run(pieces, Preparation("merge", 24))
    other = tmp_path / "other.jsonl"
    with open_source([str(long_texts)]) as source:
        encode_file(source, other, encoder_of(pieces))
    with pytest.raises(ModelMismatch, match=r"'merge passage-tokens=24', .* with 'whole'"):
        shared_meta([str(tmp_path / "v.jsonl"), str(other)])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "no passages"),
        ({"passages": [1]}, "no passages"),
        ({"passages": [{"start": 3, "end": 2, "tokens": [], "weights": []}]}, "from 3 to 2"),
        ({"passages": [{"start": True, "end": 2, "tokens": [], "weights": []}]}, "from True to 2"),
        ({"passages": [{"start": 0, "end": 2, "tokens": ["a"], "weights": []}]}, "one length"),
    ],
)
def test_what_is_no_passage_says_why(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        read_passages(fields)


class Breaking:
    """An encoder that breaks off once, after some documents."""

    def __init__(self, encoder: Any, after: int) -> None:
        self._encoder, self._left = encoder, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_document(self, texts: Sequence[str]) -> list[SparseVector]:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        found: list[SparseVector] = self._encoder.encode_document(texts)
        return found


@pytest.mark.parametrize("name", ["v.jsonl", "v.parquet", "v.jsonl.gz"])
def test_an_interrupted_run_is_continued_exactly(
    tmp_path: Path, model: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.encodefile._BATCH", 7)
    lines = [{"_id": str(i), "text": f"rain number {i}"} if i % 9 else {"no": "id"} for i in range(100)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    encoder = encoder_of(model)

    def run(output: Path, encoder: Any) -> Any:
        with open_source([str(tmp_path / "c.jsonl")]) as source:
            return encode_file(source, output, encoder)

    whole = run(tmp_path / "whole" / name, encoder)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts" / name, Breaking(encoder, 3))
        assert not (tmp_path / "parts" / name).exists()
        # What a crash wrote after the last checkpoint is cut off.
        with (tmp_path / "parts" / f"{name}.part").open("ab") as file:
            file.write(b'{"half a li')
    summary = run(tmp_path / "parts" / name, encoder)
    assert (summary.source, summary.encoded, summary.dead) == (whole.source, whole.encoded, whole.dead)
    assert summary.active_terms == whole.active_terms
    for suffix in ("", ".meta.json", ".dead-letter.jsonl"):
        one, other = (tmp_path / folder / (name + suffix) for folder in ("whole", "parts"))
        assert one.read_bytes() == other.read_bytes()


def test_another_run_s_part_is_not_continued(corpus: Path, model: Path, tmp_path: Path) -> None:
    encoder = encoder_of(model)

    def run(**options: Any) -> None:
        with open_source([str(corpus)]) as source:
            encode_file(source, tmp_path / "v.jsonl", encoder, EncodeOptions(**options))

    with pytest.raises(KeyboardInterrupt), open_source([str(corpus)]) as source:
        encode_file(source, tmp_path / "v.jsonl", Breaking(encoder, 0))  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="form or an option"):
        run(keep_source=True)
    with corpus.open("a") as file:
        file.write('{"_id": "8", "text": "more"}\n')
    with pytest.raises(CheckpointError, match="the source"):
        run()
    run(fresh=True)
    assert len(items(tmp_path / "v.jsonl")) == 5


def test_forms_and_names() -> None:
    assert form_of(Path("a.parquet")) == "parquet"
    assert form_of(Path("a.jsonl")) == "jsonl"
    assert form_of(Path("a.out"), "anserini") == "anserini"
    with pytest.raises(UsageError, match=r"ends in \.parquet"):
        form_of(Path("a.jsonl"), "parquet")
    with pytest.raises(UsageError):
        form_of(Path("a.parquet"), "jsonl")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tokens": ["a"], "weights": [1, 2]}, "one length"),
        ({"tokens": "a", "weights": [1]}, "one length"),
        ({}, "no vector"),
        ({"tokens": ["a", "a"], "weights": [1, 2]}, "distinct"),
        ({"tokens": ["a"], "weights": [0]}, "above zero"),
        ({"tokens": ["a"], "weights": [True]}, "above zero"),
        ({"tokens": ["a"], "weights": ["1"]}, "above zero"),
        ({"vector": {"a": None}}, "above zero"),
        ({"tokens": ["z"], "weights": [1]}, "vocabulary"),
    ],
)
def test_what_is_no_vector_says_why(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        read_vector(fields, TokenVocabulary(("a", "b")))


def test_ids_are_those_of_the_vocabulary() -> None:
    vector = read_vector({"tokens": ["b", "a"], "weights": [1.5, 0.25]}, TokenVocabulary(("a", "b")))
    assert vector.ids.tolist() == [0, 1]
    assert vector.weights.tolist() == [0.25, 1.5]


def encode_with(source: Path, output: Path, model: Path, **options: Any) -> Path:
    with open_source([str(source)]) as opened:
        encode_file(opened, output, encoder_of(model), EncodeOptions(**options))
    return output


def test_files_of_two_models_do_not_mix(corpus: Path, model: Path, tmp_path: Path) -> None:
    fit(["another corpus of words"], tmp_path / "other")
    one = encode_with(corpus, tmp_path / "one.jsonl", model)
    two = encode_with(corpus, tmp_path / "two.jsonl", tmp_path / "other")
    assert shared_meta([str(one)]) == read_meta(one)
    assert shared_meta([str(corpus)]) is None
    with pytest.raises(ModelMismatch):
        shared_meta([str(one), str(two)])
    with pytest.raises(SourceError, match="one by one"):
        shared_meta([str(one), str(corpus)])
    (tmp_path / "one.jsonl.meta.json").write_text("{}")
    with pytest.raises(SourceError, match="does not describe"):
        read_meta(one)


def test_a_glob_leaves_descriptions_out(corpus: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    encode_with(corpus, tmp_path / "out" / "one.jsonl", model)
    with open_source([f"{tmp_path}/out/*.json*"]) as source:
        names = {Path(file.name).name for file in source.files}
    assert names == {"one.jsonl", "one.jsonl.dead-letter.jsonl"}


class TestCommand:
    """The same from the command line."""

    def test_text(self, bridge: Bridge, model: Path) -> None:
        code, out, err = bridge("encode", "--text", "rain of three days, rain", "--model", str(model))
        assert code == 0
        weights = [float(line.split()[0]) for line in out.splitlines()]
        assert weights == sorted(weights, reverse=True)
        assert f"{len(weights)} active dimensions" in err
        code, out, _ = bridge("encode", "--text", "rain", "--query", "--model", str(model), "--json")
        found = json.loads(out)
        assert found["active"] == 1
        assert found["tokens"]["rain"] == pytest.approx(encoder_of(model).encode_query(["rain"])[0].as_dict()["rain"])

    def test_file(self, bridge: Bridge, corpus: Path, model: Path, tmp_path: Path) -> None:
        code, out, _ = bridge("encode", str(corpus), "-o", "v.jsonl", "--model", str(model), "--json")
        assert code == 3
        summary = json.loads(out)
        assert summary["source"] == summary["encoded"] + summary["dead"]
        assert len(items(tmp_path / "v.jsonl")) == summary["encoded"]

    def test_passages_and_pruning(self, bridge: Bridge, long_texts: Path, pieces: Path, tmp_path: Path) -> None:
        words = ["encode", str(long_texts), "-o", "v.jsonl", "--model", str(pieces)]
        more = ["--passages", "nested", "--passage-tokens", "24", "--overlap", "4", "--prune", "top-k=6"]
        code, out, _ = bridge(*words, *more, "--json")
        assert code == 0
        summary = json.loads(out)
        assert summary["preparation"] == "nested passage-tokens=24 overlap=4 prune=top-k=6"
        assert summary["passages"] == sum(len(one["passages"]) for one in items(tmp_path / "v.jsonl"))
        code, out, _ = bridge(*words, *more, "--fresh")
        assert f"{summary['passages']} passages" in out
        assert f"pruning removed {summary['pruned_terms']:.1f} terms a document" in out
        assert bridge(*words, "--overlap", "4")[0] == 2
        assert bridge(*words, "--prune", "most=1")[0] == 2

    def test_without_a_model_one_is_fitted(self, bridge: Bridge, corpus: Path) -> None:
        code, _, err = bridge("encode", str(corpus), "-o", "v.jsonl")
        assert code == 3
        assert "fitted lexical-" in err

    @pytest.mark.parametrize(
        "words", [[], ["c.jsonl"], ["--text", "a", "-o", "f"], ["c.jsonl", "-o", "f", "--query"], ["--text", "a"]]
    )
    def test_contradictions(self, bridge: Bridge, words: list[str]) -> None:
        code, _, err = bridge("encode", *words)
        assert code == 2
        assert err.startswith("bridge: error:")


@pytest.mark.node
class TestIngest:
    """Vectors of another machine, in a real engine."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("named", [True, False])
    def test_equals_encoding_here(
        self, engine: Engine, index: str, corpus: Path, model: Path, tmp_path: Path, form: str, named: bool
    ) -> None:
        output = tmp_path / ("v.parquet" if form == "parquet" else "v.jsonl")
        encode_with(corpus, output, model, form=form, keep_source=form != "anserini")
        options = IngestOptions(
            model=str(model) if named else None, vectors=read_meta(output), dead_letter=tmp_path / "d.jsonl"
        )
        with open_source([str(output)], SourceOptions(id_field="id")) as source:
            summary = ingest(engine, index, source, options)
        assert (summary.source, summary.indexed, summary.dead) == (4, 4, 0)
        stored = engine.get_sources(index, ["1", "2", "3", "7"], ["embedding", "title", "text", "contents"])
        for name, vector in expected(model).items():
            weights = {token: np.float32(weight) for token, weight in vector.items()}
            there = stored[name]["embedding"]
            vocabulary = TokenVocabulary(tuple(weights))
            ids = np.arange(len(weights), dtype=np.int32)
            given = SparseVector(ids, np.array(list(weights.values()), dtype=np.float32), vocabulary)
            assert there == pytest.approx(rank_features_value(given, "opensearch"))
        assert stored["1"].get("title") == (None if form == "anserini" else "Rain")
        state = engine.require_index(index)
        there = IndexModel.of(state)
        assert there is not None
        assert there.document_encoder == encoder_of(model).fingerprint

    @pytest.mark.parametrize("name", ["n.jsonl", "n.parquet"])
    def test_nested_passages_go_in(
        self, engine: Engine, index: str, long_texts: Path, pieces: Path, tmp_path: Path, name: str, bridge: Bridge
    ) -> None:
        output = tmp_path / name
        with open_source([str(long_texts)]) as source:
            options = EncodeOptions(preparation=Preparation("nested", 24, 4), keep_source=True)
            encode_file(source, output, encoder_of(pieces), options)
        code, out, err = bridge("ingest", index, str(output), "--json", url=engine.url)
        assert code == 0, err
        assert json.loads(out)["indexed"] == 3
        stored = engine.get_sources(index, ["1", "2", "3"], ["passages", "text"])
        for one in items(output):
            there = stored[one["id"]]
            given = read_passages(one)
            assert [(part["start"], part["end"]) for part in there["passages"]] == [cut[:2] for cut in given]
            for part, (_, _, vector) in zip(there["passages"], given, strict=True):
                assert part["embedding"] == pytest.approx(rank_features_value(vector, "opensearch"))
            assert there["text"][slice(*given[0][:2])].strip()

    def test_an_index_of_another_model_refuses(
        self, engine: Engine, index: str, corpus: Path, model: Path, tmp_path: Path, bridge: Bridge
    ) -> None:
        fit(["other words entirely"], tmp_path / "other")
        code, _, err = bridge("ingest", index, str(corpus), "--model", str(tmp_path / "other"), url=engine.url)
        assert code == 3, err
        encode_with(corpus, tmp_path / "v.jsonl", model)
        for words in ([], ["--model", str(tmp_path / "other")]):
            code, _, err = bridge("ingest", index, str(tmp_path / "v.jsonl"), *words, url=engine.url)
            assert code == 5, err
        (tmp_path / "v.jsonl.meta.json").unlink()
        code, _, err = bridge("ingest", index, str(tmp_path / "v.jsonl"), "--id-field", "id", url=engine.url)
        assert code == 3
        letters = (tmp_path / f"{index}.dead-letter.jsonl").read_text().splitlines()
        assert "meta.json is not beside it" in json.loads(letters[-1])["reason"]

    @pytest.mark.parametrize("form", ["jsonl", "engine"])
    def test_the_letter_of_what_the_engine_refuses_holds_the_whole_line(
        self, engine: Engine, index: str, corpus: Path, model: Path, tmp_path: Path, form: str
    ) -> None:
        output = encode_with(corpus, tmp_path / "v.jsonl", model, form=form, keep_source=True)
        too_long = "w" * 33_000
        vector = SparseVector(np.zeros(1, dtype=np.int32), np.ones(1, dtype=np.float32), TokenVocabulary((too_long,)))
        with output.open("ab") as file:
            file.write(line_of(form_of(output, form), "9", vector, "", source={"year": 2001}))
        letters = tmp_path / "d.jsonl"
        with open_source([str(output)], SourceOptions(id_field="id")) as source:
            summary = ingest(engine, index, source, IngestOptions(vectors=read_meta(output), dead_letter=letters))
        assert (summary.indexed, summary.dead) == (4, 1)
        (letter,) = map(json.loads, letters.read_text().splitlines())
        assert (letter["id"], letter["line"]) == ("9", 5)
        assert letter["document"]["source"] == {"year": 2001}
        assert read_vector(letter["document"]).as_dict() == {too_long: 1.0}

    def test_ids_need_the_model(
        self, engine: Engine, index: str, corpus: Path, model: Path, tmp_path: Path, shared: Path
    ) -> None:
        fit(["rain of three days"], tmp_path / "pieces", FitOptions(tokenizer=shared / "bert-uncased"))
        output = encode_with(corpus, tmp_path / "v.jsonl", tmp_path / "pieces")
        chosen = IngestOptions(
            vectors=read_meta(output), register=RegisterOptions(kind="sparse_vector"), dead_letter=tmp_path / "d.jsonl"
        )
        with open_source([str(output)], SourceOptions(id_field="id")) as source:
            with pytest.raises(UsageError, match="keeps ids"):
                ingest(engine, index, source, chosen)
            assert engine.get_index(index) is None
            ingest(engine, index, source, replace(chosen, model=str(tmp_path / "pieces")))
        (vector,) = encoder_of(tmp_path / "pieces").encode_document(["the last one"])
        stored = engine.get_sources(index, ["7"], ["embedding"])["7"]["embedding"]
        assert set(stored) == {str(i) for i in vector.ids.tolist()}
