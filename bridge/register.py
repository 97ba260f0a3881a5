"""Create an index for learned-sparse vectors, or bring one up to it; never change silently.

What is wanted is filled from the templates, compared with what is there, and put. An index that
differs where an engine cannot change it, or that belongs to another model, is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bridge import templates
from bridge.dialects.opensearch import LARGEST_WEIGHT
from bridge.encode.base import Encoder
from bridge.encode.dense import DenseModel
from bridge.engines import Engine, EngineInfo, IndexState
from bridge.errors import IndexConflict, ModelMismatch, RequestRejected, UnsupportedByEngine, UsageError
from bridge.indexmodel import IndexModel
from bridge.prepare import WHOLE, Passages, Preparation
from bridge.prune import Pruning
from bridge.records import DENSE_FIELD, HASH_FIELD, PASSAGE_FIELD, TEXT_FIELDS, VECTOR_FIELD
from bridge.tokens import MAX_SEISMIC_ID, Kind, by_ids


@dataclass(frozen=True, slots=True)
class RegisterOptions:
    """What the index should be like.

    What is left as it is here is what the index has already. A new one gets the kind that suits the
    engine best, and `TEXT_FIELDS`.
    """

    kind: Kind | None = None
    field: str = VECTOR_FIELD
    text_fields: tuple[str, ...] | None = None
    dense: DenseModel | None = None
    dense_field: str = DENSE_FIELD
    two_phase: bool = False
    shards: int | None = None
    replicas: int | None = None
    query_models: tuple[Encoder, ...] = ()
    """Further encoders that may ask: a separate query model, a conversation encoder."""
    passages: Passages | None = None
    passage_tokens: int | None = None
    """A passage's longest; a new index gets the model's own length."""
    overlap: int | None = None
    pruning: Pruning | None = None
    passage_field: str = PASSAGE_FIELD
    prepared: Preparation | None = None
    """How vectors that are there already were made; the four before do not count then."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What registering would do, step by step; `steps` is empty where all is as wanted."""

    index: str
    model: IndexModel
    create: dict[str, Any] | None = None
    mapping: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    pipelines: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    diff: str = ""

    @property
    def steps(self) -> list[str]:
        """One line a request that would be sent, in order."""
        put = [f"put search pipeline {name}" for name in self.pipelines]
        if self.create is not None:
            return [*put, f"create index {self.index}"]
        if self.mapping is not None:
            put.append(f"extend the mapping of {self.index}")
        if self.settings is not None:
            put.append(f"change settings of {self.index}")
        return put


def default_kind(info: EngineInfo) -> Kind:
    """`rank_features`, except on an Elasticsearch whose `sparse_vector` can be asked with raw vectors."""
    return "sparse_vector" if info.capabilities.sparse_vector_query else "rank_features"


def plan(engine: Engine, index: str, encoder: Encoder, options: RegisterOptions | None = None) -> Plan:
    """What is missing for `index` to hold vectors of `encoder`; nothing is changed.

    Raises:
        ModelMismatch: the index belongs to another model.
        IndexConflict: the index differs where the engine cannot change it.
        UnsupportedByEngine, UsageError: the engine, or the model, does not go with the options.
    """
    options = options or RegisterOptions()
    info = engine.info()
    state = engine.get_index(index)
    there = IndexModel.of(state) if state else None
    kind = options.kind or (there.kind if there else default_kind(info))
    if there:
        options = _own_fields(options, there)
    _check(info, kind, encoder, options)
    for other in options.query_models:
        if other.space != encoder.space:
            raise ModelMismatch(
                f"model {other.name} ({other.query_fingerprint}) has another vocabulary than {encoder.name} "
                f"({encoder.fingerprint}): it cannot ask for its documents"
            )
    preparation = _preparation(index, encoder, options, there)
    _check_fields(options, preparation)
    # Behind an alias, what is made is named after the index itself.
    name = state.name if state else index
    model = IndexModel(
        space=encoder.space,
        document_encoder=encoder.fingerprint if encoder.encodes_documents else None,
        query_encoders=(encoder.query_fingerprint, *(other.query_fingerprint for other in options.query_models)),
        kind=kind,
        field=options.field,
        text_fields=options.text_fields or (there.text_fields if there else TEXT_FIELDS),
        dense_field=options.dense_field if options.dense else None,
        dense_encoder=options.dense.fingerprint if options.dense else None,
        passages=preparation.passages,
        passage_field=options.passage_field if preparation.passages == "nested" else None,
        passage_tokens=preparation.max_tokens,
        passage_overlap=preparation.overlap,
        pruning=str(preparation.pruning) if preparation.pruning else None,
    )
    pipelines = _pipelines(name, info, options)
    wanted = wanted_index(info, encoder, model, options)
    if options.two_phase:
        wanted = templates.merge(wanted, {"settings": {"index": {"search.default_pipeline": f"{name}-two-phase"}}})
    missing = {key: body for key, body in pipelines.items() if not _same_pipeline(engine, key, body)}
    if state is None:
        return Plan(index, model, create=wanted, pipelines=missing, diff=templates.diff(index, {}, wanted))
    return _extend(Plan(index, model, pipelines=missing), state, there, wanted)


def apply(engine: Engine, planned: Plan) -> None:
    """Send what `planned` holds. A plan without steps sends nothing."""
    for name, body in planned.pipelines.items():
        engine.put_search_pipeline(name, body)
    if planned.create is not None:
        try:
            engine.create_index(planned.index, planned.create)
        except RequestRejected as error:
            if "resource_already_exists" in str(error) or "already exists" in str(error):
                raise IndexConflict(
                    f"index {planned.index} was created by someone else just now; run it again"
                ) from error
            raise
        return
    if planned.mapping is not None:
        engine.put_mapping(planned.index, planned.mapping)
    if planned.settings is not None:
        engine.put_settings(planned.index, planned.settings)


def wanted_index(info: EngineInfo, encoder: Encoder, model: IndexModel, options: RegisterOptions) -> dict[str, Any]:
    """The body that would create the index, from the templates of the product."""
    document_ceiling, query_ceiling = encoder.ceilings
    name = _NESTED[model.kind] if model.passages == "nested" else model.kind
    body = templates.load_template("mappings", info.product, name)
    if options.dense:
        body = templates.merge(body, templates.load_template("mappings", info.product, "dense"))
    filled: dict[str, Any] = templates.fill(
        body,
        {
            "shards": options.shards,
            "replicas": options.replicas,
            # One node or many: as many copies as can be had, up to one, unless a number is asked for.
            "auto_expand_replicas": "0-1" if options.replicas is None else False,
            "meta": model.as_meta(),
            "field": model.field,
            "passage_field": model.passage_field,
            "hash_field": HASH_FIELD,
            "document_ceiling": document_ceiling,
            # Heavier ones are scaled down to what the engine takes, and boosted.
            "query_ceiling": min(query_ceiling, LARGEST_WEIGHT),
            "dense_field": options.dense_field,
            "dimension": options.dense.dimension if options.dense else None,
            # Elasticsearch's dot_product takes vectors of unit length only.
            "similarity": "dot_product" if options.dense and options.dense.normalized else "max_inner_product",
        },
    )
    return filled


_NESTED: dict[Kind, str] = {"rank_features": "rank_features_nested", "sparse_vector": "sparse_vector_nested"}


def _own_fields(options: RegisterOptions, there: IndexModel) -> RegisterOptions:
    """`options` with the names that the index has, where no other is asked for."""
    if options.field == VECTOR_FIELD:
        options = replace(options, field=there.field)
    if options.passage_field == PASSAGE_FIELD and there.passage_field:
        options = replace(options, passage_field=there.passage_field)
    if options.dense_field == DENSE_FIELD and there.dense_field:
        options = replace(options, dense_field=there.dense_field)
    return options


def _preparation(index: str, encoder: Encoder, options: RegisterOptions, there: IndexModel | None) -> Preparation:
    """How texts become vectors: as asked for, else as the index has it, else whole.

    Raises:
        IndexConflict: the index has it otherwise.
    """
    own = there.preparation if there else WHOLE
    if there and there.space != encoder.space:
        # Another model's index: that it is refused says more than what this model would do with it.
        return own
    if options.prepared is not None:
        wanted = options.prepared
    else:
        base = own if options.passages in (None, own.passages) else Preparation(options.passages, pruning=own.pruning)
        wanted = Preparation(
            base.passages,
            base.max_tokens if options.passage_tokens is None else options.passage_tokens,
            base.overlap if options.overlap is None else options.overlap,
            options.pruning or base.pruning,
        ).resolved(encoder)
    if there and wanted != own:
        raise IndexConflict(
            f"index {index} holds vectors made as: {own}; these would be made as: {wanted}, and scores of the two "
            "cannot be compared. Leave the options out, or name another index"
        )
    return wanted


def _check(info: EngineInfo, kind: Kind, encoder: Encoder, options: RegisterOptions) -> None:
    can = info.capabilities
    if by_ids(kind, info.product):
        if not can.seismic:
            raise UnsupportedByEngine(
                f"{info} has no sparse_vector field (SEISMIC): it needs OpenSearch 3.3 with neural-search"
            )
        if encoder.open_vocabulary or len(encoder.vocabulary) > MAX_SEISMIC_ID + 1:
            raise UsageError(
                f"sparse_vector takes token ids up to {MAX_SEISMIC_ID}, and model {encoder.name} has "
                f"{'an open vocabulary' if encoder.open_vocabulary else f'{len(encoder.vocabulary)} tokens'}; "
                "use --kind rank_features, or fit with --tokenizer"
            )
        if options.dense:
            raise UsageError(
                "a sparse_vector field and a dense one cannot share an index on OpenSearch (index.sparse and "
                "index.knn exclude each other); use --kind rank_features"
            )
    if kind == "sparse_vector" and info.product == "elasticsearch" and not can.sparse_vector_field:
        raise UnsupportedByEngine(
            f"{info} has no usable sparse_vector field (8.11 and newer have); use --kind rank_features"
        )
    if options.dense and not can.dense:
        raise UnsupportedByEngine(f"{info} has no dense vector field here (the k-NN plugin, or Elasticsearch 8)")
    if options.two_phase and not (can.two_phase and kind == "rank_features"):
        raise UnsupportedByEngine(
            f"two-phase search needs a rank_features field on OpenSearch 2.15 or newer, not {kind} on {info}"
        )


def _check_fields(options: RegisterOptions, preparation: Preparation) -> None:
    """Raises UsageError for names that no engine addresses, or that mean two things."""
    nested = preparation.passages == "nested"
    names = {"vector field": options.field}
    if nested:
        names["passage field"] = options.passage_field
    if options.dense:
        names["dense field"] = options.dense_field
    for what, name in names.items():
        if "." in name or not name.strip():
            raise UsageError(f"the {what} {name!r} must be a plain name without dots")
    # A nested vector field is among the passage's own, which have a namespace of their own.
    top = [name for what, name in names.items() if not (nested and what == "vector field")]
    if len({*top, HASH_FIELD}) <= len(top) or (nested and options.field in ("start", "end")):
        listed = ", ".join(f"the {what} {name!r}" for what, name in names.items())
        raise UsageError(f"each field needs a name of its own, and not {HASH_FIELD}, start or end: {listed}")


def _pipelines(index: str, info: EngineInfo, options: RegisterOptions) -> dict[str, dict[str, Any]]:
    names: list[Literal["two_phase", "hybrid"]] = ["two_phase"] if options.two_phase else []
    if options.dense and info.capabilities.search_pipelines:
        names.append("hybrid")
    return {
        f"{index}-{name.replace('_', '-')}": templates.load_template("pipelines", info.product, name) for name in names
    }


def _same_pipeline(engine: Engine, name: str, body: dict[str, Any]) -> bool:
    there = engine.get_search_pipeline(name)
    if there is None:
        return False
    if not templates.covers(there, body):
        raise IndexConflict(f"search pipeline {name} is there already and differs; delete it, or name another index")
    return True


def _extend(planned: Plan, state: IndexState, there: IndexModel | None, wanted: dict[str, Any]) -> Plan:
    mappings = wanted["mappings"]
    model = _joined(planned, there) if there else planned.model
    current = state.mappings.get("properties") or {}
    missing = {}
    for name, want in mappings["properties"].items():
        if name not in current:
            missing[name] = want
        elif not templates.covers(current[name], _comparable(name, want)):
            raise IndexConflict(
                f"index {planned.index} has a field {name} of another kind "
                f"({templates.line(current[name])}, wanted {templates.line(want)}); a mapping cannot be changed: "
                "name another index"
            )
    settings = _missing_settings(planned.index, state, wanted.get("settings", {}).get("index", {}))
    if there == model and not missing:
        mapping = None
    else:
        # Other tools keep entries of their own in _meta: putting it replaces it whole.
        meta = {**(state.mappings.get("_meta") or {}), "bridge": model.as_meta()}
        mapping = {"_meta": meta, "properties": missing}
    after = {
        "mappings": templates.merge(state.mappings, mapping or {}),
        "settings": state.settings | (settings or {}),
    }
    before = {"mappings": state.mappings, "settings": state.settings}
    return Plan(
        planned.index,
        model,
        mapping=mapping,
        settings=settings,
        pipelines=planned.pipelines,
        diff=templates.diff(planned.index, before, after),
    )


def _comparable(name: str, want: dict[str, Any]) -> dict[str, Any]:
    """`want` without what makes an index faster and nothing else: an older one may lack it."""
    return {key: value for key, value in want.items() if not (name == HASH_FIELD and key == "store")}


def _joined(planned: Plan, there: IndexModel) -> IndexModel:
    """The model that the index keeps: another query encoder of the same space is added to the list."""
    wanted = planned.model
    documents = {encoder for encoder in (there.document_encoder, wanted.document_encoder) if encoder}
    if there.space != wanted.space or len(documents) > 1:
        raise ModelMismatch(
            f"index {planned.index} belongs to model {there.document_encoder or ', '.join(there.query_encoders)}, "
            f"not to {wanted.document_encoder or ', '.join(wanted.query_encoders)}; name another index"
        )
    if (there.kind, there.path) != (wanted.kind, wanted.path):
        raise IndexConflict(
            f"index {planned.index} keeps its vectors in {there.path} ({there.kind}), "
            f"not in {wanted.path} ({wanted.kind}); name another index"
        )
    if there.dense_field and wanted.dense_field not in (None, there.dense_field):
        raise IndexConflict(
            f"index {planned.index} keeps its dense vectors in {there.dense_field}, not in {wanted.dense_field}; "
            "name another index"
        )
    dense = {encoder for encoder in (there.dense_encoder, wanted.dense_encoder) if encoder}
    if len(dense) > 1:
        raise ModelMismatch(
            f"index {planned.index} holds dense vectors of {there.dense_encoder}, not of {wanted.dense_encoder}; "
            "leave --dense out, or name another index"
        )
    return replace(
        wanted,
        document_encoder=next(iter(documents), None),
        query_encoders=tuple(dict.fromkeys((*there.query_encoders, *wanted.query_encoders))),
        dense_field=wanted.dense_field or there.dense_field,
        dense_encoder=wanted.dense_encoder or there.dense_encoder,
        salt=there.salt,
    )


_FINAL_SETTINGS = {"number_of_shards", "sparse", "knn"}


def _missing_settings(index: str, state: IndexState, wanted: dict[str, Any]) -> dict[str, str] | None:
    changed: dict[str, str] = {}
    for name, value in wanted.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        there = state.settings.get(f"index.{name}")
        if there == text:
            continue
        if name in _FINAL_SETTINGS:
            raise IndexConflict(
                f"index {index} has index.{name} {there or 'unset'}, wanted {text}; that is fixed at "
                "creation: name another index"
            )
        # The default is for new indices only; an administrator's own choice stands. A number of replicas
        # that is asked for means nothing while the engine chooses it.
        if name != "auto_expand_replicas" or (value is False and there is not None):
            changed[f"index.{name}"] = text
    return changed or None
