"""Elasticsearch: an inference endpoint of the `custom` service, and a pipeline with an `inference` processor.

The endpoint says whether a text comes to be stored or to be searched for, so one serves both.
"""

from __future__ import annotations

from typing import Any

from bridge import templates
from bridge.attaching import Attachment, Daemon, Steps, Wanted, pipeline, pipeline_path
from bridge.engines import Engine
from bridge.engines.base import encode, path_part
from bridge.errors import EngineForbidden, IndexNotFound, RequestRejected, UnsupportedByEngine

SINCE = (8, 19, 0)


def requests(asked: Wanted, daemon: Daemon, key: str | None) -> dict[str, dict[str, Any]]:
    """What has to be put: the path of each request ─▶ its body, with `key` in the place of the daemon's."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer ${api_key}"
    endpoint = templates.fill(
        templates.load_template("pipelines", "elasticsearch", "inference"),
        {
            "secrets": {"api_key": key} if key else None,
            "url": daemon.at(f"/v1/indexes/{path_part(asked.state.name)}/inference"),
            "headers": headers,
            # The templates of this service stand without quotes: it writes them itself.
            "request": '{"texts": ${input}, "side": ${input_type}}',
        },
    )
    return {_endpoint(asked): endpoint, pipeline_path(asked): pipeline("elasticsearch", asked, asked.name)}


def _endpoint(asked: Wanted) -> str:
    return f"/_inference/sparse_embedding/{path_part(asked.name)}"


def check(engine: Engine, asked: Wanted) -> None:
    """Raises UnsupportedByEngine where no such endpoint could serve the index: its version, or its field's kind."""
    info = engine.info()
    if info.product != "elasticsearch" or info.version < SINCE:
        raise UnsupportedByEngine(f"{info} has no inference service `custom`: Elasticsearch 8.19 and newer have")
    if asked.model.kind != "sparse_vector":
        raise UnsupportedByEngine(
            f"index {asked.state.name} keeps its vectors as {asked.model.kind}, and Elasticsearch asks inference "
            "endpoints for sparse_vector fields only; register another with --kind sparse_vector"
        )


def has_inference(engine: Engine) -> bool:
    """Whether the cluster has inference endpoints, and lets us see them."""
    try:
        engine.request("GET", "/_inference/_all")
    except (RequestRejected, IndexNotFound, EngineForbidden):
        return False
    return True


def attach(
    engine: Engine, asked: Wanted, daemon: Daemon, *, default: bool = False, dry_run: bool = False
) -> Attachment:
    """Put the endpoint and the pipeline.

    Raises:
        UnsupportedByEngine: see `check`.
        EngineError: the cluster refuses something; its own words say what.
    """
    check(engine, asked)
    steps = Steps(dry_run)
    if not dry_run:
        _delete_endpoint(engine, asked)
    for path, body in requests(asked, daemon, daemon.key).items():
        steps.do(f"PUT {path}", engine.request, "PUT", path, body=encode(body))
    if default:
        steps.make_default(engine, asked)
    return Attachment(steps.done, asked.name, {"inference_id": asked.name})


def detach(engine: Engine, asked: Wanted, *, dry_run: bool = False) -> list[str]:
    """Take away what `attach` has put; what was done, in order."""
    steps = Steps(dry_run)
    steps.delete_pipeline(engine, asked)
    steps.do(f"DELETE {_endpoint(asked)}", _delete_endpoint, engine, asked)
    return steps.done


def _delete_endpoint(engine: Engine, asked: Wanted) -> None:
    # An endpoint is not replaced by putting another, and one that a pipeline or field names is deleted by force only.
    try:
        engine.request("DELETE", _endpoint(asked), params={"force": "true"})
    except IndexNotFound:
        return
