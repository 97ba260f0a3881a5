"""What is looked at before an alias moves: that no document is missing, and that vectors are what the model gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.batches import Batches
from bridge.engines import Engine
from bridge.engines.shards import await_status, shards_of
from bridge.errors import EngineBusy, IndexConflict
from bridge.indexsource import own_fields, show_writes, source_filter
from bridge.migration.copying import Bounds, Copier, Models
from bridge.records import HASH_FIELD, Doc, EncodedDoc, Position
from bridge.sources import Item, Source, SourceOptions

SAMPLE = 32
"""Documents whose vectors are made again, and compared."""

TOLERANCE = 1 / 50
"""How far a stored weight may be from the one that is made again, as a share of the vector's largest.

Engines keep 9 significant bits of a weight, and a model gives other last digits in other batches.
"""

STATUS_SECONDS = 120.0


def check_health(engine: Engine, index: str) -> str:
    """The index's health, green where that comes soon.

    Raises:
        EngineBusy: not every primary shard is there.
    """
    status = await_status(engine, index, "green", STATUS_SECONDS)
    if status not in ("green", "yellow"):
        raise EngineBusy(f"index {index} is {status}: not all of its primary shards are there; run it again later")
    return status


def counts_agree(copier: Copier, since: Bounds) -> bool:
    """Whether both indices hold as many documents, but for what was written to the old one since."""
    engine, old, new = copier.engine, copier.old.name, copier.new
    for name in (old, new):
        show_writes(engine, name)
    difference = engine.count(old) - engine.count(new)
    written = sum(shard.written - since.get(shard.number, -1) for shard in shards_of(engine, old))
    return abs(difference) <= written


def check_vectors(engine: Engine, index: str, models: Models) -> int:
    """Make the vectors of some documents again; how many.

    Raises:
        IndexConflict: the index holds others.
    """
    model = models.index
    query = {"function_score": {"query": {"match_all": {}}, "random_score": {"seed": 1, "field": "_seq_no"}}}
    body = {"size": SAMPLE, "query": query, "_source": source_filter(engine, ())}
    hits = engine.search(index, body)["hits"]["hits"]
    names = {*own_fields(model), HASH_FIELD}
    docs = [
        Doc(hit["_id"], {key: value for key, value in hit["_source"].items() if key not in names}, Position(index, 0))
        for hit in hits
    ]
    run = Batches(_Docs(docs), models.encoder, model, engine.product, lambda ids: {}, 0, models.dense)
    made = {one.id: run.body(one) for one in run.documents(0, fresh=True) if isinstance(one, EncodedDoc)}
    differ = [hit["_id"] for hit in hits if not _same(hit, made.get(hit["_id"]), sorted(names))]
    if differ:
        raise IndexConflict(
            f"{len(differ)} of {len(hits)} documents of {index} that were looked at, {differ[0]!r} first, hold other "
            f"vectors than {models.encoder.name} makes of them; the alias was not moved. See what else writes to "
            f"{index}, delete it, and run it again"
        )
    return len(hits)


def _same(hit: Mapping[str, Any], made: Mapping[str, Any] | None, names: Sequence[str]) -> bool:
    return made is not None and all(close(hit["_source"].get(name), made.get(name)) for name in names)


def close(stored: Any, made: Any) -> bool:
    """Whether two field values are the same: numbers within `TOLERANCE` of the largest beside them."""
    if isinstance(stored, Mapping) and isinstance(made, Mapping):
        numbers = [abs(value) for value in (*stored.values(), *made.values()) if isinstance(value, int | float)]
        if len(numbers) == len(stored) + len(made):
            most = TOLERANCE * max(numbers, default=0.0)
            return all(abs(stored.get(key, 0.0) - made.get(key, 0.0)) <= most for key in {*stored, *made})
        return set(stored) == set(made) and all(close(stored[key], made[key]) for key in stored)
    if isinstance(stored, Sequence) and isinstance(made, Sequence) and not isinstance(stored, str):
        if all(isinstance(value, int | float) for value in (*stored, *made)):
            return len(stored) == len(made) and close(dict(enumerate(stored)), dict(enumerate(made)))
        return len(stored) == len(made) and all(map(close, stored, made))
    return bool(stored == made)


class _Docs(Source):
    """Documents at hand as a source."""

    def __init__(self, docs: Sequence[Doc]) -> None:
        super().__init__((), SourceOptions())
        self._docs = docs

    def read(self, skip: int = 0) -> Any:
        found: list[Item] = list(self._docs[skip:])
        return iter(found)
