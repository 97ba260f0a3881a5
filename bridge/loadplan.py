"""What a load begins with: the encoders and the index, found out before anything is written.

`plan_load` only reads; `apply_load` makes the index, or brings it up to what is wanted, and stores the models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bridge import register
from bridge.bulk import BulkOptions
from bridge.encode import Encoder, load_encoder
from bridge.encode.dense import DenseEncoder, dense_options, load_dense
from bridge.encode.load import ModelOrigin
from bridge.engines import Engine, IndexState
from bridge.errors import DocumentError, ModelMismatch, UsageError
from bridge.fit import FitOptions
from bridge.indexmodel import IndexModel
from bridge.modelstore import find_dense, find_model, save_dense, save_model
from bridge.records import TEXT_FIELDS, Doc
from bridge.register import Plan, RegisterOptions
from bridge.sources import Source, text_of
from bridge.tokens import by_ids
from bridge.vectorfile import StoredEncoder, VectorMeta, source_fields


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to ingest; what is None is decided by the index, or by the defaults for a new one."""

    model: str | None = None
    text_fields: tuple[str, ...] | None = None
    register: RegisterOptions = field(default_factory=RegisterOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    dead_letter: Path | None = None
    fresh: bool = False
    """Forget the checkpoint of an interrupted run and begin at the source's start."""
    fast_load: bool = False
    """Do without replicas until the load ends; its checkpoint then moves only past what a flush has brought in."""
    bulk: BulkOptions = field(default_factory=BulkOptions)
    error_budget: float = 0.5
    """Stop when more than this share of the documents so far is dead, of 1,000 documents or more; 1 never does."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """Device, precision and the rest, as `bridge.load_encoder` takes them."""
    vectors: VectorMeta | None = None
    """The source is files of `bridge encode`: their vectors go in as they are."""
    dense: str | None = None
    """A dense encoder's folder or Hugging Face id: its vectors go in too. An index that has such vectors keeps them
    up with the encoder that it remembers."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A load before its first document."""

    state: IndexState | None
    """The index as it is; None where it is to be made."""
    encoder: Encoder
    origin: ModelOrigin | None
    """Where the encoder came from; None where the vectors are there already, and the model is not."""
    dense: DenseEncoder | None
    dense_origin: ModelOrigin | None
    planned: Plan

    @property
    def model(self) -> IndexModel:
        return self.planned.model


def plan_load(
    engine: Engine,
    index: str,
    source: Source,
    options: IngestOptions,
    fitted: Callable[[tuple[str, ...]], Encoder],
    say: Callable[[str], None],
) -> LoadPlan:
    """The encoders, and what is missing for `index` to take their vectors; nothing is written to the engine.

    Args:
        engine: where the index is, or is to be made.
        index: its name, or an alias of it.
        source: what is to be loaded.
        options: of the load.
        fitted: fits a model on the source's texts, of these fields; called where no model is to be had otherwise.
        say: gets lines for the user.

    Raises:
        ModelMismatch, IndexConflict: the index belongs to another model, or differs.
        UsageError, UnsupportedByEngine: the options do not go with the model, the source or the engine.
    """
    state = engine.get_index(index)
    there = IndexModel.of(state) if state else None
    wanted = options.register
    if options.text_fields:
        wanted = replace(wanted, text_fields=options.text_fields)
    if options.vectors:
        encoder, origin = _of_vectors(options.vectors, options)
        wanted = _as_stored(wanted, options.vectors)
        if not options.text_fields and not there:
            wanted = replace(wanted, text_fields=options.vectors.text_fields)
    elif options.model:
        encoder = load_encoder(options.model, **options.run)
        origin = ModelOrigin.of(options.model, options.run)
    elif there and there.document_encoder:
        encoder = find_model(engine, there.document_encoder, **options.run)
        origin = ModelOrigin.of(encoder.fingerprint)
        say(f"using the index's own model {encoder.fingerprint}")
    else:
        encoder = fitted(wanted.text_fields or (there.text_fields if there else TEXT_FIELDS))
        origin = ModelOrigin.of(encoder.fingerprint)
    if there and there.document_encoder:
        there.check_document_encoder(encoder, index)
    if not options.vectors:
        encoder.encode_document([""])  # a query-only model says so before anything is written
    dense = _dense(engine, index, there, options, say)
    if dense and options.vectors:
        _check_texts(source, options.text_fields or (there.text_fields if there else options.vectors.text_fields))
    # What the index has already is left as an administrator may have made it, its search pipeline too.
    if dense and options.dense:
        wanted = replace(wanted, dense=dense.description)
    planned = register.plan(engine, index, encoder, wanted)
    if by_ids(planned.model.kind, engine.product) and isinstance(encoder, StoredEncoder):
        raise UsageError(
            f"index {index} keeps ids, and a vector file has tokens; name the model ({encoder.name}) with --model"
        )
    dense_origin = ModelOrigin.of(options.dense) if dense and options.dense else None
    return LoadPlan(state, encoder, origin, dense, dense_origin, planned)


def apply_load(engine: Engine, plan: LoadPlan, say: Callable[[str], None]) -> None:
    """Make the index, or bring it up to the plan, and store the models in the cluster.

    Raises:
        IndexConflict: someone else made the index just now.
        EngineError: the engine refuses it, or cannot be reached.
    """
    for step in plan.planned.steps:
        say(step)
    register.apply(engine, plan.planned)
    if plan.origin:
        save_model(engine, plan.encoder, plan.origin)
    if plan.dense and plan.dense_origin:
        save_dense(engine, plan.dense.fingerprint, plan.dense_origin)


def _dense(
    engine: Engine, index: str, there: IndexModel | None, options: IngestOptions, say: Callable[[str], None]
) -> DenseEncoder | None:
    """The dense encoder that is named, else the index's own, loaded; None where there is neither."""
    wanted = options.register.dense
    own = (there.dense_encoder if there else None) or (wanted.fingerprint if wanted else None)
    run = dense_options(options.run)
    if options.dense:
        dense = load_dense(options.dense, **run)
        if own and dense.fingerprint != own:
            raise ModelMismatch(
                f"index {index} holds dense vectors of {own}; the model {dense.name} is {dense.fingerprint}, and "
                "mixed vectors cannot be compared. Leave --dense out, or ingest into a new index"
            )
    elif own:
        dense = find_dense(engine, own, **run)
        say(f"using the index's own dense model {own}")
    else:
        return None
    _ = dense.runtime  # what is missing must show before anything is written
    return dense


def _as_stored(wanted: RegisterOptions, meta: VectorMeta) -> RegisterOptions:
    """`wanted` for vectors that are there already."""
    asked = (wanted.passages, wanted.passage_tokens, wanted.overlap, wanted.pruning)
    if any(option is not None for option in asked):
        raise UsageError(
            f"the vectors of these files were made as: {meta.preparation}, and go in as they are; "
            "passages and pruning are options of `bridge encode`"
        )
    return replace(wanted, prepared=meta.prepared)


def _check_texts(source: Source, fields: tuple[str, ...]) -> None:
    """Raises UsageError where the vector files have not kept the texts that a dense encoder needs."""
    first = next((item for item in source.read() if isinstance(item, Doc) and item.op == "index"), None)
    if first is None:
        return
    try:
        text_of(source_fields(first.source), fields)
    except DocumentError as error:
        raise UsageError(
            f"dense vectors need the texts, which {source.name} has not kept ({error}); encode it with "
            "--keep-source, or ingest the texts themselves"
        ) from None


def _of_vectors(meta: VectorMeta, options: IngestOptions) -> tuple[Encoder, ModelOrigin | None]:
    """The encoder of vector files: the model itself where it is named, else what the files say of it."""
    if not options.model:
        return StoredEncoder(meta), None
    encoder = load_encoder(options.model, **options.run)
    if encoder.fingerprint != meta.document_encoder:
        raise ModelMismatch(
            f"the vectors are of {meta.model} ({meta.document_encoder}), not of {encoder.name} ({encoder.fingerprint})"
        )
    return encoder, ModelOrigin.of(options.model, options.run)
