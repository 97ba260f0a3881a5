"""What is done before the first request is answered."""

from __future__ import annotations

import logging

from bridge.daemon.service import Service
from bridge.encode import load_encoder
from bridge.encode.dense import describe_dense
from bridge.encode.load import ModelOrigin
from bridge.modelstore import save_dense, save_model
from bridge.register import RegisterOptions, apply, plan

_log = logging.getLogger("bridge.daemon")


def register_declared(service: Service) -> None:
    """Make the indexes that the settings declare, or bring them up to what is wanted.

    Raises:
        BridgeError: one cannot be made so; the daemon does not start.
    """
    for declared in service.settings.indexes:
        place = service.settings.models.get(declared.model, declared.model)
        encoder = load_encoder(place)
        dense = service.settings.models.get(declared.dense, declared.dense) if declared.dense else None
        options = RegisterOptions(
            kind=declared.kind,
            text_fields=declared.text_fields or None,
            dense=describe_dense(dense) if dense else None,
            shards=declared.shards,
            replicas=declared.replicas,
        )
        planned = plan(service.engine, declared.name, encoder, options)
        apply(service.engine, planned)
        save_model(service.engine, encoder, ModelOrigin.of(place))
        if dense and options.dense:
            save_dense(service.engine, options.dense.fingerprint, ModelOrigin.of(dense))
        for step in planned.steps or [f"{declared.name} is as declared"]:
            _log.info(step)
