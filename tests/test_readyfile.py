"""Vectors in the engine's own words: written once, handed on as they are, and never when they were changed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bridge.batches import Batches
from bridge.encode.base import TokenVocabulary
from bridge.errors import DocumentError
from bridge.indexmodel import IndexModel
from bridge.readyfile import parsed, read_ready, ready_fields, ready_value
from bridge.records import BulkOutcome, Doc, EncodedDoc, SparseVector
from bridge.sources import Item, Source, SourceOptions, open_source
from bridge.tokens import Kind, Product, field_value, rank_features_value, store_precision
from bridge.vectorfile import Form, StoredEncoder, VectorMeta, line_of, looks_encoded, read_vector

TOKENS = ["rain", "##.", ".", "\u2024", "\u2025", "", 'a "quoted" \\ name', "\u96e8", "\U0001f327", "new york"]
VOCABULARY = TokenVocabulary(tuple(sorted(TOKENS)))


def vector_of(*tokens: str) -> SparseVector:
    weights = np.random.default_rng(len(tokens)).lognormal(-1, 1, len(tokens)).astype(np.float32)
    return SparseVector(np.arange(len(tokens), dtype=np.int32), weights, TokenVocabulary(tokens))


VECTORS = {
    "all": vector_of(*TOKENS),
    "plain": vector_of("rain", "snow"),
    "dots alone": vector_of(".", "##."),
    "empty": vector_of(),
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize("product", ["opensearch", "elasticsearch"])
@pytest.mark.parametrize("written", [True, False])
def test_the_value_is_that_of_the_field(vector: SparseVector, product: Product, written: bool) -> None:
    fields = ready_fields(vector)
    if not written:
        fields = json.loads(msgspec.json.encode(fields))
    ready = read_ready(fields)
    assert json.loads(bytes(ready_value(ready, product))) == rank_features_value(vector, product)
    tokens, weights = parsed(ready)
    assert tokens == list(vector.tokens)
    assert np.array_equal(np.array(weights, dtype=np.float32), store_precision(vector.weights))
    assert read_ready(ready_fields(vector)).digest == ready.digest


def test_a_weight_that_no_engine_takes_is_refused_when_it_is_written() -> None:
    for weight in (math.nan, math.inf, 0.0, -1.0):
        vector = SparseVector(
            np.zeros(1, dtype=np.int32), np.array([weight], dtype=np.float32), TokenVocabulary(("a",))
        )
        with pytest.raises(DocumentError, match="the model gave a weight"):
            ready_fields(vector)


@pytest.mark.parametrize(
    "how", ["weight", "name", "dotted", "no dotted", "hash", "no hash", "no vector", "a list", "words"]
)
def test_a_line_that_was_changed_is_refused(how: str) -> None:
    fields = json.loads(msgspec.json.encode(ready_fields(VECTORS["all"])))
    match how:
        case "weight":
            fields["vector"]["rain"] *= 2
        case "name":
            fields["vector"]["snow"] = fields["vector"].pop("rain")
        case "dotted":
            fields["dotted"]["."] *= 2
        case "no dotted":
            del fields["dotted"]
        case "hash":
            fields["hash"] = "0" * 32
        case "no hash":
            del fields["hash"]
        case "no vector":
            del fields["vector"]
        case "a list":
            fields["vector"] = [1]
        case "words":
            fields["vector"] = {"rain": "much"}
    with pytest.raises(DocumentError, match="vector"):
        read_ready(fields)


def test_such_a_line_is_known_without_its_description() -> None:
    fields = json.loads(line_of("engine", "1", VECTORS["all"], ""))
    assert looks_encoded(fields)
    assert list(read_vector(fields).tokens) == TOKENS


# --- through the reader and the batches -----------------------------------------------------------------------


def loading(source: Source, form: Form, kind: Kind = "rank_features") -> Batches:
    meta = VectorMeta(
        form=form, model="m", space="s", document_encoder="e", query_encoders=("e",), vocabulary=None,
        ceilings=(3.0, 3.0), text_fields=("text",), documents=1,
    )  # fmt: skip
    encoder: Any = StoredEncoder(meta)
    if kind == "sparse_vector":
        encoder.vocabulary, encoder.open_vocabulary = VOCABULARY, False
    model = IndexModel("s", "e", ("e",), kind, "embedding", ("text",))
    return Batches(source, encoder, model, "opensearch", lambda ids: {}, 1000, vectors=meta)


def batches(path: Path, form: Form, kind: Kind = "rank_features", **options: Any) -> list[tuple[str, str, Any]]:
    """Id, hash and body of each document that a load makes of a file; all of them can go in."""
    with open_source([str(path)], SourceOptions(id_field="id", **options)) as source:
        run = loading(source, form, kind)
        found = list(run.documents(0, fresh=True))
        # Whoever reads it next gets it parsed.
        assert not any(isinstance(value, msgspec.Raw) for item in source.read() for value in fields_of(item).values())
    sent = [document for document in found if isinstance(document, EncodedDoc)]
    assert sent == found
    return [(one.id, one.content_hash, json.loads(msgspec.json.encode(run.body(one)))) for one in sent]


def fields_of(item: Item) -> Mapping[str, Any]:
    assert isinstance(item, Doc)
    return item.source


def write(path: Path, form: Form) -> Path:
    path.write_bytes(
        b"".join(
            line_of(form, name, vector, "text", source={"year": 1998, "text": "\u96e8"})
            for name, vector in VECTORS.items()
        )
    )
    return path


@pytest.mark.parametrize("form", ["engine", "jsonl"])
def test_as_written_and_parsed_alike(tmp_path: Path, form: Form) -> None:
    path = write(tmp_path / "v.jsonl", form)
    as_written = batches(path, form)
    assert [identity for identity, _, _ in as_written] == list(VECTORS)
    # A condition looks into documents, so they are parsed.
    assert as_written == batches(path, form, where="source.year >= 1998")


def test_both_forms_give_the_same_field(tmp_path: Path) -> None:
    ready, listed = (batches(write(tmp_path / f"{form}.jsonl", form), form) for form in ("engine", "jsonl"))
    assert [body for _, _, body in map(without_hash, ready)] == [body for _, _, body in map(without_hash, listed)]


def without_hash(item: tuple[str, str, dict[str, Any]]) -> tuple[str, str, dict[str, Any]]:
    identity, digest, body = item
    assert body.pop("bridge_content_hash") == digest
    return identity, digest, body


def test_an_index_that_goes_by_ids_gets_them(tmp_path: Path) -> None:
    vector = vector_of("rain", "new york")
    (tmp_path / "v.jsonl").write_bytes(line_of("engine", "a", vector, ""))
    ((_, _, body),) = batches(tmp_path / "v.jsonl", "engine", "sparse_vector")
    read = read_vector({"tokens": list(vector.tokens), "weights": vector.weights.tolist()}, VOCABULARY)
    assert body["embedding"] == field_value(read, "sparse_vector", "opensearch")


@pytest.mark.parametrize(
    ("form", "line", "reason"),
    [
        ("jsonl", b'{"id":"a","tokens":["a"],"weights":[1e999]}', "cannot be kept: Number out of range"),
        ("jsonl", b'{"id":"a","tokens":["a"],"weights":[-1]}', "its weight -1 is not a number above zero"),
        ("jsonl", b'{"id":"a","tokens":["a",1],"weights":[1,2]}', "its tokens are not distinct strings"),
        ("jsonl", b'{"id":"a","tokens":["a","a"],"weights":[1,2]}', "its tokens are not distinct strings"),
        ("jsonl", b'{"id":"a","tokens":"a","weights":[1]}', "it has no vector"),
        ("jsonl", b'{"id":"a","tokens":["a"]}', "it has no vector"),
        ("jsonl", b'{"id":"a","tokens":["a"],"weights":[1]', "ends too early"),
        ("jsonl", b'{"id":"a","tokens":["\xff"],"weights":[1]}', "not UTF-8: byte 0xff at column 22"),
        ("engine", b'{"id":"a","vector":{"a":1.0},"hash":"0"}', "its hash is another"),
        ("engine", b'{"id":"a","vector":{"a":1e999},"hash":"0"}', "its hash is another"),
        ("engine", b'{"id":"a","vector":{"a":},"hash":"0"}', "not JSON"),
        ("engine", b'{"id":"a","vector":{"\xff":1},"hash":"0"}', "not UTF-8"),
        ("engine", b'{"id":"a","tokens":["a"],"weights":[1]}', "it has no vector"),
        ("engine", b'[1]', "not a JSON object"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_dead_and_its_letter_can_be_written(
    tmp_path: Path, form: Form, line: bytes, reason: str
) -> None:
    (tmp_path / "v.jsonl").write_bytes(line + b"\n")
    with open_source([str(tmp_path / "v.jsonl")], SourceOptions(id_field="id")) as source:
        (dead,) = loading(source, form).documents(0, fresh=True)
    assert isinstance(dead, BulkOutcome)
    assert reason in (dead.reason or "")
    json.loads(msgspec.json.encode(dead.document))
