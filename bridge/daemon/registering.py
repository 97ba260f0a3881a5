"""Indices that requests ask for, and those that the settings declare."""

from __future__ import annotations

import logging
from collections.abc import Callable

from bridge.daemon.messages import Register, Registered
from bridge.daemon.service import Service
from bridge.encode import load_encoder
from bridge.encode.dense import describe_dense
from bridge.encode.load import ModelOrigin
from bridge.modelstore import save_dense, save_model
from bridge.prune import parse_pruning
from bridge.register import RegisterOptions, apply, plan

_log = logging.getLogger("bridge.daemon")


def register_index(
    service: Service, index: str, asked: Register, place_of: Callable[[str], str], *, dry_run: bool = False
) -> Registered:
    """Make an index for a model's vectors, or bring it up to what is wanted, and store its models in the cluster.

    Args:
        place_of: a model's name ─▶ its folder or id, if whoever asks may name it.

    Raises:
        BridgeError: see `bridge.register.plan`.
    """
    engine, place = service.engine, place_of(asked.model)
    encoder = service.model(asked.model) if asked.model in service.settings.models else load_encoder(place)
    dense = place_of(asked.dense) if asked.dense else None
    others = {name: service.model(name) for name in asked.query_models}
    options = RegisterOptions(
        kind=asked.kind,
        text_fields=tuple(asked.text_fields) or None,
        dense=describe_dense(dense) if dense else None,
        two_phase=asked.two_phase,
        shards=asked.shards,
        replicas=asked.replicas,
        query_models=tuple(others.values()),
        passages=asked.passages,
        passage_tokens=asked.passage_tokens,
        overlap=asked.overlap,
        pruning=parse_pruning(asked.prune) if asked.prune else None,
    )
    planned = plan(engine, index, encoder, options)
    if not dry_run:
        apply(engine, planned)
        save_model(engine, encoder, ModelOrigin.of(place))
        if dense and options.dense:
            save_dense(engine, options.dense.fingerprint, ModelOrigin.of(dense))
        for name, other in others.items():
            save_model(engine, other, ModelOrigin.of(place_of(name)))
    return Registered(index=index, model=encoder.fingerprint, steps=planned.steps, diff=planned.diff, dry_run=dry_run)


def register_declared(service: Service) -> None:
    """The indexes that the settings declare; these may name any folder.

    Raises:
        BridgeError: one cannot be made so; the daemon does not start.
    """
    known = service.settings.models
    for declared in service.settings.indexes:
        asked = Register(
            model=declared.model,
            kind=declared.kind,
            text_fields=list(declared.text_fields),
            dense=declared.dense,
            shards=declared.shards,
            replicas=declared.replicas,
        )
        made = register_index(service, declared.name, asked, lambda name: known.get(name, name))
        for step in made.steps or [f"{declared.name} is as declared"]:
            _log.info(step)
