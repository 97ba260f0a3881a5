"""What a migration is asked to do, and where the migrations of an alias stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bridge.bulk import BulkOptions
from bridge.encode import load_encoder
from bridge.encode.dense import dense_options, load_dense
from bridge.engines import Engine, IndexState
from bridge.engines.shards import aliases_of, given_aliases, metas_of
from bridge.errors import IndexConflict, IndexNotFound, ModelMismatch, UsageError
from bridge.indexmodel import IndexModel
from bridge.indexsource import check_readable, check_whole
from bridge.migration.copying import Models
from bridge.migration.ledger import Entry, entry_of
from bridge.migration.target import Target, base_of, check_alias_name, next_name, plan_target
from bridge.modelstore import find_dense
from bridge.register import RegisterOptions


@dataclass(frozen=True, slots=True)
class MigrateOptions:
    """What the new index is to be like, and what is to become of the old one."""

    model: str
    """A card's id, a Hugging Face id, a folder or a fingerprint."""
    register: RegisterOptions = field(default_factory=RegisterOptions)
    """What is left as it is here is the old index's."""
    dense: str | None = None
    """Another dense model; the old index's own, where it has one, goes along."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Device, precision and the rest, as `bridge.load_encoder` takes them."""
    bulk: BulkOptions = field(default_factory=BulkOptions)
    error_budget: float = 0.5
    """As `bridge.ingest.IngestOptions.error_budget`."""
    dead_letter: Path | None = None
    accept_dead: bool = False
    """Move the alias although documents are missing from the new index."""
    delete_old: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where the migrations of an alias stand."""

    alias: str
    current: IndexState
    """The index behind the alias."""
    properties: Mapping[str, Any]
    """Of the alias: its filter, its routing, whether it is written to."""
    made_by: Entry | None
    """The migration of this alias that made the current index."""
    under_way: tuple[str, Entry] | None
    """One that is not over: the new index, and its entry."""


def find_place(engine: Engine, alias: str) -> Place:
    """Where the migrations of `alias` stand.

    Raises:
        UsageError: it is an index's own name, or stands for several.
        IndexNotFound: it is nothing.
        IndexConflict: several migrations are under way, or one that this release does not understand.
    """
    check_alias_name(alias)
    found = aliases_of(engine, alias)
    if not found:
        if engine.get_index(alias) is None:
            raise IndexNotFound(f"there is no alias {alias} at {engine.url}", status=404)
        raise UsageError(
            f"{alias} is an index, not an alias, and what asks it by that name cannot be moved: give it an alias "
            f"(PUT /{alias}/_alias/NAME), let readers and writers use that, and run bridge migrate NAME"
        )
    if len(found) > 1:
        raise UsageError(f"the alias {alias} stands for {len(found)} indices ({', '.join(sorted(found))}), not for one")
    ((index, properties),) = found.items()
    current = engine.require_index(index)
    own = entry_of(current.mappings.get("_meta"))
    if own and own.alias != alias:
        own = None
    if own and own.phase in ("swap", "late"):
        return Place(alias, current, properties, own, (index, own))
    opened = {}
    for name, meta in metas_of(engine, f"{base_of(index)}-*").items():
        entry = entry_of(meta)
        if entry and (entry.alias, entry.old_uuid) == (alias, current.uuid) and entry.phase in ("fill", "swap"):
            opened[name] = entry
    if len(opened) > 1:
        raise IndexConflict(
            f"{alias} is under migration into several indices ({', '.join(sorted(opened))}); delete all but one of them"
        )
    return Place(alias, current, properties, own, next(iter(opened.items()), None))


def load_models(engine: Engine, place: Place, options: MigrateOptions) -> tuple[Models, RegisterOptions]:
    """The encoders, ready for work, and the options of the new index.

    `Models.index` is the current index's, or an empty one's, until the new index is planned.

    Raises:
        ModelError, UsageError: one cannot be loaded, or encodes no documents.
        UnsupportedByEngine: the current index cannot be read, or not whole.
    """
    check_readable(engine, place.current)
    there = IndexModel.of(place.current)
    check_whole(place.current, there)
    encoder = load_encoder(options.model, **options.run)
    encoder.encode_document([""])  # a query-only model says so before anything is written
    run = dense_options(options.run)
    dense = None
    if options.dense:
        dense = load_dense(options.dense, **run)
    elif there and there.dense_encoder:
        dense = find_dense(engine, there.dense_encoder, **run)
    if dense:
        _ = dense.runtime  # what is missing must show before anything is written
    register = replace(options.register, dense=dense.description if dense else None)
    blank = IndexModel(encoder.space, encoder.fingerprint, (), "rank_features", register.field, ())
    return Models(encoder, dense, there or blank), register


def make_target(engine: Engine, place: Place, models: Models, register: RegisterOptions) -> Target | None:
    """The new index, planned; None where the current one is what it would become.

    Raises as `plan_target` does.
    """
    current = place.current
    pattern = f"{base_of(current.name)}-*"
    taken = engine.request("GET", f"/{pattern}", params={"filter_path": "*.aliases", "expand_wildcards": "all"})
    target = plan_target(engine, current, next_name(current.name, taken or ()), models.encoder, register)
    if place.alias in given_aliases(engine, target.name):
        raise too_early(place.alias, target.name)
    there = IndexModel.of(current)
    if there and replace(target.model, salt=there.salt, query_encoders=there.query_encoders) == there:
        return None
    return target


def too_early(alias: str, index: str) -> IndexConflict:
    """An index that would stand behind the alias before it is filled."""
    return IndexConflict(
        f"an index template gives {index} the alias {alias} as soon as it is made, when it is still empty; take the "
        "alias out of the template (the indices that have it keep it), and run it again"
    )


def check_same_model(place: Place, engine: Engine, models: Models) -> None:
    """Raises ModelMismatch where the migration that is under way is to another model."""
    if place.under_way is None:
        return
    index, entry = place.under_way
    there = IndexModel.of(engine.require_index(index))
    if there and there.document_encoder != models.encoder.fingerprint:
        raise ModelMismatch(
            f"a migration of {entry.alias} to model {there.document_encoder} is under way, in {index}; name that model "
            f"to end it, or go back with --rollback; {models.encoder.name} is {models.encoder.fingerprint}"
        )
