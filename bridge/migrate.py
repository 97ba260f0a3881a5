"""An alias moves to an index of another model's vectors, while it is searched and written to.

::

    fill     the old index's documents, then what was written meanwhile, until little is left
    check    no document is missing, vectors are as the model gives them
    swap     the alias moves, in one step
    late     what reached the old index after the last pass, or through a stale alias; deletions likewise

No search finds an index that is not whole, and no write is refused. A write that is in the old index only when the
alias moves comes a moment later, unless somebody has written that document in the new one since: that is the later
write, and it stays. The new index remembers how far the migration came, so that any machine can go on.

Versions begin anew: a writer with external versions is refused nothing that is newer than the migration.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bridge import templates
from bridge.deadletter import DeadLetterFile
from bridge.encode.load import ModelOrigin
from bridge.engines import Engine
from bridge.engines.shards import aliases_of
from bridge.errors import IndexConflict, RequestRejected
from bridge.indexmodel import IndexModel, encodes_itself
from bridge.migration.copying import Copier, Models
from bridge.migration.ledger import KEY, Entry, Ledger, Letters, as_meta, check_free, new_lease
from bridge.migration.moving import Move
from bridge.migration.places import (
    MigrateOptions,
    Place,
    check_same_model,
    find_place,
    load_models,
    make_target,
    too_early,
)
from bridge.migration.target import Target
from bridge.modelstore import save_dense, save_model
from bridge.records import Report

__all__ = ["MigrateOptions", "MigrateSummary", "Planned", "migrate", "plan"]


@dataclass(frozen=True, slots=True)
class MigrateSummary:
    """What a migration did: `source` = `indexed` + `unchanged` + `deleted` + `dead`, in this run."""

    alias: str
    old: str
    new: str
    moved: bool
    """Whether the alias stands for the new index."""
    source: int
    indexed: int
    unchanged: int
    deleted: int
    dead: int
    retried: int
    rounds: int
    """Passes over the old index's writes before the alias moved."""
    late: int
    """Documents that came after it moved."""
    superseded: int
    """Of those, how many had a later write in the new index."""
    missing: int
    """Documents of the old index that the new one does not have."""
    seconds: float
    model: str
    old_deleted: bool = False
    dead_letter: str | None = None
    first_dead: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """What `migrate` would do."""

    alias: str
    old: str
    new: str
    documents: int
    """Of the old index, now."""
    steps: tuple[str, ...]
    """One line each, in order; none where the index is as it should be."""
    diff: str
    """The new index."""


def plan(engine: Engine, alias: str, options: MigrateOptions) -> Planned:
    """What `migrate` would do; nothing is written. Raises as it does before its first write."""
    place = find_place(engine, alias)
    models, register = load_models(engine, place, options)
    check_same_model(place, engine, models)
    current = place.current.name
    documents = engine.count(current)
    if place.under_way:
        new, entry = place.under_way
        check_free(entry, new)
        return Planned(alias, entry.old, new, documents, (f"go on with the migration of {entry.old} into {new}",), "")
    target = make_target(engine, place, models, register)
    if target is None:
        return Planned(alias, current, current, documents, (), "")
    steps = [
        *(f"put search pipeline {name}" for name in target.pipelines),
        f"create index {target.name}",
        f"encode the {documents:,} documents of {current} into it, and what is written meanwhile",
        f"move the alias {alias} from {current} to {target.name}",
        f"bring what reached {current} last",
    ]
    if left := _left_behind(place, target.name):
        steps.append(left)
    if options.delete_old:
        steps.append(f"delete index {current}")
    return Planned(alias, current, target.name, documents, tuple(steps), templates.diff(target.name, {}, target.body))


def migrate(
    engine: Engine,
    alias: str,
    options: MigrateOptions,
    *,
    say: Callable[[str], None] = lambda line: None,
    report: Report = lambda progress: None,
) -> MigrateSummary:
    """Bring the documents behind `alias` into a new index with another model's vectors, and move the alias to it.

    The same call goes on where an interrupted one stopped. The old index is kept, unless the options say otherwise.

    Args:
        engine: where the alias is.
        alias: of one index, searched and written to all the while.
        options: the model, the new index, what becomes of the old one.
        say: gets lines for the user.
        report: gets the progress.

    Raises:
        UsageError: `alias` is an index's own name, or stands for several.
        IndexConflict: another process migrates it, or an index is not as it was left.
        ModelMismatch: a migration to another model is under way.
        EngineError, TooManyDead: it broke off; the alias stands for a whole index, and the same call goes on.
    """
    started = time.monotonic()
    place = find_place(engine, alias)
    models, register = load_models(engine, place, options)
    check_same_model(place, engine, models)
    if place.under_way:
        new, entry = place.under_way
        ledger = Ledger(engine, new, entry)
        say(f"going on with the migration of {alias} from {entry.old} into {new}")
    else:
        target = make_target(engine, place, models, register)
        if target is None:
            return _as_wanted(engine, place, models, options, say)
        new, ledger = target.name, _create(engine, place, target, options, say)
        if left := _left_behind(place, new):
            say(left)
    with ledger:
        save_model(engine, models.encoder, ModelOrigin.of(options.model, options.run))
        if models.dense and options.dense:
            save_dense(engine, models.dense.fingerprint, ModelOrigin.of(options.dense))
        copier = _copier(engine, ledger.entry, new, models, options, say, report)
        move = Move(engine, place, ledger, copier, options, say)
        try:
            moved = move.run()
        finally:
            copier.letters.close()
    done = copier.place
    return MigrateSummary(
        alias=alias,
        old=move.old,
        new=new,
        moved=moved,
        source=done.position,
        indexed=done.indexed,
        unchanged=done.unchanged,
        deleted=done.deleted,
        dead=done.dead,
        retried=copier.retried,
        rounds=move.rounds,
        late=move.late,
        superseded=copier.superseded,
        missing=move.missing,
        seconds=round(time.monotonic() - started, 3),
        model=models.encoder.fingerprint,
        old_deleted=move.old_deleted,
        dead_letter=str(copier.letters.path) if move.dead else None,
        first_dead=copier.letters.first,
    )


def _left_behind(place: Place, new: str) -> str:
    """What is lost on the way, and who gives it back; nothing where nothing is."""
    if not encodes_itself(place.current):
        return ""
    return (
        f"leave the pipeline of {place.current.name} behind, which encodes with the old model: documents that are "
        f"written to {new} have no vectors of their own until bridge attach has given it one"
    )


def _create(
    engine: Engine, place: Place, target: Target, options: MigrateOptions, say: Callable[[str], None]
) -> Ledger:
    """Make the new index, which says from the first moment what it is."""
    path = (options.dead_letter or Path(f"{place.alias}.dead-letter.jsonl")).absolute()
    lease = new_lease()
    entry = Entry(
        alias=place.alias,
        old=place.current.name,
        old_uuid=place.current.uuid,
        phase="fill",
        settings=target.held,
        letters=Letters(path=str(path), bytes=path.stat().st_size if path.is_file() else 0),
        lease=lease,
    )
    for name, body in target.pipelines.items():
        say(f"put search pipeline {name}")
        engine.put_search_pipeline(name, body)
    mappings = target.body["mappings"]
    body = {**target.body, "mappings": {**mappings, "_meta": {**mappings["_meta"], KEY: as_meta(entry)}}}
    say(f"create index {target.name}")
    try:
        engine.create_index(target.name, body)
    except RequestRejected as error:
        if "already exists" in str(error) or "resource_already_exists" in str(error):
            raise IndexConflict(
                f"index {target.name} was created by someone else just now, perhaps by another migrate of "
                f"{place.alias}; run it again"
            ) from error
        raise
    if target.name in aliases_of(engine, place.alias):
        # Of a legacy template, which is not to be asked before.
        engine.delete_index(target.name)
        raise too_early(place.alias, target.name)
    return Ledger(engine, target.name, entry, lease)


def _copier(
    engine: Engine,
    entry: Entry,
    new: str,
    models: Models,
    options: MigrateOptions,
    say: Callable[[str], None],
    report: Report,
) -> Copier:
    """Raises IndexConflict where the old index is gone, or the new one is no longer what it was."""
    model = IndexModel.of(engine.require_index(new))
    old = engine.get_index(entry.old)
    if model is None or old is None or old.uuid != entry.old_uuid:
        raise IndexConflict(
            f"index {entry.old}, from which {new} is filled, is not there any more, or {new} has lost its mapping's "
            f"_meta.bridge; if {new} is whole, delete {KEY} from that _meta, and else {new}"
        )
    path, size = Path(entry.letters.path), entry.letters.bytes
    if options.dead_letter and options.dead_letter.absolute() != path:
        path, size = options.dead_letter.absolute(), 0
    letters = DeadLetterFile(path, size)
    made = Models(models.encoder, models.dense, model)
    return Copier(engine, old, new, made, letters, options.bulk, options.error_budget, say, report)


def _as_wanted(
    engine: Engine, place: Place, models: Models, options: MigrateOptions, say: Callable[[str], None]
) -> MigrateSummary:
    """There is nothing to migrate; the old index of the migration before may be left to delete."""
    current, made_by = place.current.name, place.made_by
    say(f"{place.alias} stands for {current}, which is as wanted")
    deleted = False
    if options.delete_old and made_by and made_by.phase == "done":
        old = engine.get_index(made_by.old)
        if made_by.dead:
            say(f"{made_by.old} is kept: it has documents that are not in {current}")
        elif old and old.uuid == made_by.old_uuid:
            engine.delete_index(old.name)
            deleted = True
    return MigrateSummary(
        alias=place.alias, old=made_by.old if made_by else current, new=current, moved=True, source=0, indexed=0,
        unchanged=0, deleted=0, dead=0, retried=0, rounds=0, late=0, superseded=0, missing=0, seconds=0.0,
        model=models.encoder.fingerprint, old_deleted=deleted,
    )  # fmt: skip
