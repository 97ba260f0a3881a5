"""`bridge.batches`: what a source's items become before they are sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge.batches import Batches
from bridge.indexmodel import IndexModel
from bridge.records import BulkOutcome, EncodedDoc
from bridge.sources import Source, SourceOptions, open_source
from bridge.vectorfile import StoredEncoder, VectorMeta

META = VectorMeta(
    form="jsonl", model="m", space="s", document_encoder="e", query_encoders=("e",), vocabulary=None,
    ceilings=(3.0, 3.0), text_fields=("title", "text"), documents=0,
)  # fmt: skip
MODEL = IndexModel("s", "e", ("e",), "rank_features", "embedding", ("title", "meta.text"))


def batches(source: Source, stored: Mapping[str, str] | None = None, *, vectors: bool = True) -> Batches:
    def hashes(ids: Sequence[str]) -> dict[str, str | None]:
        return {name: (stored or {})[name] for name in ids if name in (stored or {})}

    return Batches(source, StoredEncoder(META), MODEL, "opensearch", hashes, 5000, vectors=META if vectors else None)


def lines(path: Path, *items: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def line(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "tokens": ["new", "york"], "weights": [0.5, 1.25], **more}


def read(path: Path, *, stored: Mapping[str, str] | None = None) -> list[EncodedDoc | BulkOutcome]:
    with open_source([str(path)], SourceOptions(id_field="id")) as source:
        return list(batches(source, stored).documents(0, fresh=stored is None))


def test_a_vector_files_documents_come_as_they_are(tmp_path: Path) -> None:
    path = lines(tmp_path / "v.jsonl", line("a", source={"title": "t"}), line("b"))
    with open_source([str(path)], SourceOptions(id_field="id")) as source:
        run = batches(source)
        one, two = run.documents(0, fresh=True)
        assert isinstance(one, EncodedDoc)
        assert isinstance(two, EncodedDoc)
        assert run.body(one) == {
            "title": "t", "embedding": {"new": 0.5, "york": 1.25}, "bridge_content_hash": one.content_hash,
        }  # fmt: skip
    assert one.content_hash != two.content_hash
    assert len(run.effects) == 2


@pytest.mark.parametrize("change", [{"weights": [0.5, 1.5]}, {"tokens": ["new", "yorks"]}, {"source": {"a": 1}}])
def test_the_hash_is_of_tokens_weights_and_fields(tmp_path: Path, change: dict[str, Any]) -> None:
    (before,) = read(lines(tmp_path / "v.jsonl", line("a")))
    (same,) = read(lines(tmp_path / "v.jsonl", dict(reversed(line("a").items()))))
    (after,) = read(lines(tmp_path / "v.jsonl", line("a") | change))
    assert isinstance(before, EncodedDoc)
    assert isinstance(same, EncodedDoc)
    assert isinstance(after, EncodedDoc)
    assert before.content_hash == same.content_hash != after.content_hash


def test_unchanged_documents_of_a_large_group_keep_their_places(tmp_path: Path) -> None:
    """Hashes are asked for in larger groups than documents are encoded in."""
    path = lines(tmp_path / "v.jsonl", *(line(f"d{n}", source={"n": n}) for n in range(1300)))
    hashes = {one.id: one.content_hash for one in read(path) if isinstance(one, EncodedDoc) and int(one.id[1:]) % 3}
    found = read(path, stored=hashes)
    assert [one.id for one in found] == [f"d{n}" for n in range(1300)]
    for n, one in enumerate(found):
        assert isinstance(one, BulkOutcome if n % 3 else EncodedDoc)
        if isinstance(one, BulkOutcome):
            assert one.result == "unchanged"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"title": "new"}, "a partial update of title, which is encoded"),
        ({"meta": {"x": 1}}, "a partial update of meta, which is encoded"),
        ({"embedding": {"a": 1}}, "a field embedding of its own"),
        ({"bridge_content_hash": "x"}, "a field bridge_content_hash of its own"),
    ],
)
def test_a_partial_update_of_what_is_encoded_is_refused_and_its_letter_says_what_it_was(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    path = lines(tmp_path / "d.jsonl", {"_id": "a", "_op": "update", **fields})
    with open_source([str(path)]) as source:
        (dead,) = batches(source, vectors=False).documents(0, fresh=True)
    assert isinstance(dead, BulkOutcome)
    assert reason in (dead.reason or "")
    assert dead.document == {**fields, "_op": "update"}


def test_a_partial_update_goes_without_vector_and_hash(tmp_path: Path) -> None:
    path = lines(tmp_path / "d.jsonl", {"_id": "a", "_op": "update", "price": 3})
    with open_source([str(path)]) as source:
        run = batches(source, vectors=False)
        (update,) = run.documents(0, fresh=False)
        assert isinstance(update, EncodedDoc)
        assert (update.op, update.sparse) == ("update", None)
        assert run.body(update) == {"price": 3, "bridge_content_hash": None}
