"""The new index: its name, and the old one's settings and mappings with the new model's in the place of the old."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge import register, templates
from bridge.encode import Encoder
from bridge.engines import Engine, IndexState
from bridge.engines.shards import settings_of
from bridge.errors import IndexConflict, UsageError
from bridge.indexmodel import IndexModel, encodes_itself
from bridge.indexsource import own_fields
from bridge.records import DENSE_FIELD, HASH_FIELD, PASSAGE_FIELD, VECTOR_FIELD
from bridge.register import RegisterOptions

_PRIVATE = re.compile(
    r"index\.(uuid|creation_date.*|provided_name|version\..*|resize\..*|shrink\..*|history\..*|blocks\..*|frozen"
    r"|verified_before_close|routing\.allocation\.initial_recovery\..*|lifecycle\.(indexing_complete|step.*)"
    r"|mapping\.single_type|remote_store\..*|search\.throttled|store\.snapshot\..*|soft_deletes\.enabled)"
)
"""Settings that are an index's own, or that no new index takes."""

_MADE = ("index.sparse", "index.knn")
"""Settings that the old model's fields wanted."""

HELD = ("index.refresh_interval", "index.default_pipeline", "index.final_pipeline")
"""Settings that come when the documents are in: a pipeline has done its work on them."""

_NUMBERED = re.compile(r"(.+)-(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Target:
    """The new index before it is made."""

    name: str
    body: dict[str, Any]
    model: IndexModel
    pipelines: Mapping[str, dict[str, Any]]
    held: dict[str, Any]
    """The settings of `HELD`, as the old index has them; None is the engine's default."""


def base_of(index: str) -> str:
    """An index's name without the number that migrations give it."""
    match = _NUMBERED.fullmatch(index)
    return match[1] if match else index


def next_name(index: str, taken: Iterable[str]) -> str:
    """The name with the next free number.

    >>> next_name("articles-v1", ()), next_name("articles-7", ["articles-9", "articles-8-x"])
    ('articles-v1-2', 'articles-10')
    """
    base = base_of(index)
    numbers = [1]
    for name in (index, *taken):
        match = _NUMBERED.fullmatch(name)
        if match and match[1] == base:
            numbers.append(int(match[2]))
    return f"{base}-{max(numbers) + 1}"


def inherited(options: RegisterOptions, old: IndexState) -> RegisterOptions:
    """`options`, with what the old index has where nothing is asked for; its passages' length is its model's."""
    there = IndexModel.of(old)
    if there is None:
        return options
    passages = options.passages or there.passages
    overlap = options.overlap
    if overlap is None and passages == there.passages != "whole":
        overlap = there.passage_overlap
    return replace(
        options,
        kind=options.kind or there.kind,
        text_fields=options.text_fields or there.text_fields,
        passages=passages,
        overlap=overlap,
        pruning=options.pruning or there.preparation.pruning,
        two_phase=options.two_phase or old.settings.get("index.search.default_pipeline") == f"{old.name}-two-phase",
        field=there.field if options.field == VECTOR_FIELD else options.field,
        passage_field=(there.passage_field if options.passage_field == PASSAGE_FIELD else None)
        or options.passage_field,
        dense_field=(there.dense_field if options.dense_field == DENSE_FIELD else None) or options.dense_field,
    )


def plan_target(engine: Engine, old: IndexState, name: str, encoder: Encoder, options: RegisterOptions) -> Target:
    """The index `name` for the vectors of `encoder`, with all that `old` has besides its vectors.

    Args:
        engine: where both are.
        old: the index as it is.
        name: of the new one, which is not there.
        encoder: of the new vectors.
        options: what the new index should be like; see `inherited`.

    Raises:
        IndexConflict: a field of the user's own has the name of one that the bridge needs.
        UsageError, UnsupportedByEngine: model, options and engine do not go together.
    """
    there = IndexModel.of(old)
    planned = register.plan(engine, name, encoder, inherited(options, old))
    if planned.create is None:
        raise IndexConflict(f"index {name} is there already; delete it, or give it another name")
    # A writer that still has the old model, and meets this index behind the alias, leaves hashes that are not ours.
    model = replace(planned.model, salt=name)
    mappings = _mappings(old, there, planned.create["mappings"])
    mappings["_meta"] = {**mappings.get("_meta", {}), "bridge": model.as_meta()}
    settings = _settings(engine, old, mappings, options) | _wanted(planned.create.get("settings", {}), options)
    held = {name: settings.pop(name, None) for name in HELD}
    if encodes_itself(old):
        # It would give documents of the new index the old model's vectors.
        held["index.default_pipeline"] = None
    settings["index.refresh_interval"] = "-1"
    return Target(name, {"settings": settings, "mappings": mappings}, model, planned.pipelines, held)


def _mappings(old: IndexState, there: IndexModel | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    own = {*own_fields(there), HASH_FIELD} if there else set()
    kept = {name: field for name, field in (old.mappings.get("properties") or {}).items() if name not in own}
    for name in wanted["properties"]:
        if name in kept:
            raise IndexConflict(
                f"index {old.name} has a field {name} of its own ({templates.line(kept[name])}); name another for the "
                "vectors with --field, --passage-field or --dense-field"
            )
    meta = {key: value for key, value in (old.mappings.get("_meta") or {}).items() if not key.startswith("bridge")}
    # How fields that come later are mapped is as it was, whatever the templates would have.
    rest = {key: value for key, value in old.mappings.items() if key not in ("properties", "_meta")}
    found: dict[str, Any] = {**rest, "properties": {**kept, **wanted["properties"]}}
    return {**found, "_meta": meta} if meta else found


def _settings(engine: Engine, old: IndexState, mappings: Any, options: RegisterOptions) -> dict[str, Any]:
    there = settings_of(engine, old.name)
    kept = {name: value for name, value in there.items() if not _PRIVATE.fullmatch(name) and name not in _MADE}
    if "knn_vector" in _types(mappings) and old.settings.get("index.knn") == "true":
        kept["index.knn"] = "true"
    if kept.get("index.search.default_pipeline") == f"{old.name}-two-phase":
        del kept["index.search.default_pipeline"]
    if options.replicas is not None:
        kept.pop("index.auto_expand_replicas", None)
    if options.shards is not None:
        kept.pop("index.number_of_routing_shards", None)
    return kept


def _wanted(settings: Mapping[str, Any], options: RegisterOptions) -> dict[str, Any]:
    """What the templates want, but for what is the old index's to say."""
    flat = dict(_flat("", settings))
    if options.replicas is None:
        flat.pop("index.auto_expand_replicas", None)
    return flat


def _flat(path: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{path}{name}.", value)
        else:
            yield f"{path}{name}", value


def _types(mapping: Any) -> set[str]:
    """The types of all fields of a mapping."""
    if not isinstance(mapping, Mapping):
        return set()
    found = {mapping["type"]} if isinstance(mapping.get("type"), str) else set()
    for part in ("properties", "fields"):
        for field in (mapping.get(part) or {}).values():
            found |= _types(field)
    return found


def check_alias_name(alias: str) -> None:
    """Raises UsageError for what names no single alias."""
    if not alias or re.search(r"[*,\s]", alias) or alias.startswith(("_", "-", "+")):
        raise UsageError(f"{alias!r} is not the name of an alias")
