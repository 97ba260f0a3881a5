"""OpenSearch: an ml-commons connector and a remote model for documents, both again for queries, and a pipeline.

::

    connector ─▶ model ─▶ ingest pipeline (sparse_encoding)     documents
    connector ─▶ model ─▶ neural_sparse with model_id           queries

Whatever is there under the same name is brought up to what is wanted; models keep their ids, which queries name.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from bridge import templates
from bridge.attaching import Attachment, Daemon, Steps, Wanted, get_pipeline, pipeline, pipeline_path
from bridge.engines import Engine
from bridge.engines.base import encode, path_part
from bridge.errors import EngineError, IndexNotFound, RequestRejected, UnsupportedByEngine
from bridge.tokens import by_ids

Side = Literal["document", "query"]
SIDES: tuple[Side, ...] = ("document", "query")

_ML = "/_plugins/_ml"
_BATCH = 64
"""Texts that the processor sends at once, of one bulk request."""
_SECONDS = 60.0
"""For a model to be deployed, or taken back."""


def attach(
    engine: Engine, asked: Wanted, daemon: Daemon, *, default: bool = False, dry_run: bool = False
) -> Attachment:
    """Let the cluster call `daemon` for an index's documents and queries.

    Args:
        default: make the pipeline that of all documents which are written to the index and name none.
        dry_run: change nothing; the steps say what would be done.

    Raises:
        UnsupportedByEngine: the cluster has no ml plugin.
        EngineError: the cluster refuses something; its own words say what.
    """
    cluster = _Cluster(engine)
    cluster.check()
    steps = Steps(dry_run)
    models: dict[Side, str] = {}
    for side in SIDES:
        body = _connector(asked, daemon, side)
        name = body["name"]
        connector, model = cluster.find("connectors", name), cluster.find("models", name)
        if connector is None or not cluster.is_so(connector, body):
            if connector and model:
                # A connector that a deployed model uses cannot be changed.
                steps.do(f"take model {name} back", cluster.undeploy, model)
            steps.do(f"{'change' if connector else 'create'} connector {name}", cluster.put_connector, body, connector)
        if model is None:
            steps.do(f"register model {name}", cluster.register, body)
        if dry_run:
            models[side] = model or "(not known yet)"
            continue
        models[side] = model = model or cluster.required(name)
        if not cluster.is_deployed(model):
            steps.do(f"deploy model {name}", cluster.deploy, model)
    # Documents come to a processor one by one before 2.15, which does not know the word.
    batch = _BATCH if engine.info().version >= (2, 15, 0) else None
    body = pipeline("opensearch", asked, models["document"], batch_size=batch)
    there = get_pipeline(engine, asked)
    if there is None or not templates.covers(there, body):
        steps.do(f"put ingest pipeline {asked.name}", engine.request, "PUT", pipeline_path(asked), body=encode(body))
    if default:
        steps.make_default(engine, asked)
    return Attachment(steps.done, asked.name, {f"{side}_model": models[side] for side in SIDES})


def detach(engine: Engine, asked: Wanted, *, dry_run: bool = False) -> list[str]:
    """Take away what `attach` has put; what was done, in order."""
    cluster = _Cluster(engine)
    cluster.check()
    steps = Steps(dry_run)
    steps.delete_pipeline(engine, asked)
    for side in SIDES:
        name = _name(asked, side)
        if model := cluster.find("models", name):
            steps.do(f"take model {name} back", cluster.undeploy, model)
            steps.do(f"delete model {name}", engine.request, "DELETE", f"{_ML}/models/{model}")
        if connector := cluster.find("connectors", name):
            steps.do(f"delete connector {name}", engine.request, "DELETE", f"{_ML}/connectors/{connector}")
    return steps.done


def _name(asked: Wanted, side: Side) -> str:
    return f"{asked.name}-{side}"


def _connector(asked: Wanted, daemon: Daemon, side: Side) -> dict[str, Any]:
    name = asked.state.name
    ids = by_ids(asked.model.kind, "opensearch")
    headers = {"content-type": "application/json"}
    if daemon.key:
        headers["authorization"] = "Bearer ${credential.key}"
    body: dict[str, Any] = templates.fill(
        templates.load_template("pipelines", "opensearch", "connector"),
        {
            "name": _name(asked, side),
            "description": f"{side} vectors of index {name} by bridge serve ({daemon.key_id})",
            "format": "TOKEN_ID" if ids else "WORD",
            "credential": {"key": daemon.key or "none"},
            "url": daemon.at(f"/v1/indexes/{path_part(name)}/predict"),
            "headers": headers,
            "request_body": (
                '{"texts": ${parameters.input}, "side": "' + side + '", '
                '"sparse_embedding_format": "${parameters.sparse_embedding_format}"}'
            ),
        },
    )
    return body


@dataclass(frozen=True, slots=True)
class _Cluster:
    """The part of the ml plugin's interface that is needed."""

    engine: Engine

    def check(self) -> None:
        info = self.engine.info()
        if info.product != "opensearch":
            raise UnsupportedByEngine(f"{info} answers at {self.engine.url}: it has no ml plugin to be attached to")
        if not info.capabilities.remote_models:
            raise UnsupportedByEngine(
                f"{info} at {self.engine.url} has no ml plugin (opensearch-ml), which calls remote models; "
                "bring documents in with bridge ingest, or through bridge proxy"
            )

    def find(self, kind: Literal["connectors", "models"], name: str) -> str | None:
        """The id of what is there under a name."""
        body = {"size": 10, "query": {"term": {"name.keyword": name}}}
        try:
            found = self.engine.request("POST", f"{_ML}/{kind}/_search", body=encode(body))
        except IndexNotFound:
            return None
        # A model that was given in pieces is listed by its pieces as well.
        ids = [hit["_id"] for hit in found["hits"]["hits"] if "chunk_number" not in hit.get("_source", {})]
        return str(ids[0]) if ids else None

    def is_so(self, connector: str, body: dict[str, Any]) -> bool:
        """Whether a connector is as wanted; its credential is not shown, its description says which key it is."""
        there = self.engine.request("GET", f"{_ML}/connectors/{connector}")
        shown = {key: value for key, value in body.items() if key not in ("credential", "version")}
        return templates.covers(there, shown)

    def is_deployed(self, model: str) -> bool:
        return self._state(model) in ("DEPLOYED", "PARTIALLY_DEPLOYED")

    def required(self, name: str) -> str:
        """The id of a model that was registered just now: its index has to be refreshed for it to be found."""
        end = time.monotonic() + _SECONDS
        while (found := self.find("models", name)) is None:
            _wait(end, f"model {name} is not to be found")
        return found

    def put_connector(self, body: dict[str, Any], connector: str | None) -> None:
        """Make a connector, or bring one up to `body`."""
        if connector is None:
            self.engine.request("POST", f"{_ML}/connectors/_create", body=encode(body))
        else:
            self.engine.request("PUT", f"{_ML}/connectors/{connector}", body=encode(body))

    def register(self, body: dict[str, Any]) -> None:
        """Make the model of a connector that is there."""
        end = time.monotonic() + _SECONDS
        while (connector := self.find("connectors", body["name"])) is None:
            _wait(end, f"connector {body['name']} is not to be found")
        asked = {
            "name": body["name"],
            "description": body["description"],
            "function_name": "remote",
            "connector_id": connector,
        }
        self._task(self.engine.request("POST", f"{_ML}/models/_register", body=encode(asked))["task_id"])

    def deploy(self, model: str) -> None:
        task = self.engine.request("POST", f"{_ML}/models/{model}/_deploy").get("task_id")
        if task:
            self._task(task)

    def undeploy(self, model: str) -> None:
        self.engine.request("POST", f"{_ML}/models/{model}/_undeploy")
        end = time.monotonic() + _SECONDS
        while self._state(model) not in ("UNDEPLOYED", "REGISTERED", "DEPLOY_FAILED"):
            _wait(end, f"model {model} was not taken back")

    def _state(self, model: str) -> str:
        return str(self.engine.request("GET", f"{_ML}/models/{model}").get("model_state"))

    def _task(self, task: str) -> None:
        """Wait for a task of the ml plugin.

        Raises:
            RequestRejected: it failed.
            EngineError: it has not ended.
        """
        end = time.monotonic() + _SECONDS
        while True:
            try:
                found: dict[str, Any] = self.engine.request("GET", f"{_ML}/tasks/{task}")
            except IndexNotFound:
                found = {}
            if found.get("state") == "COMPLETED":
                return
            if "FAILED" in str(found.get("state")) or found.get("error"):
                raise RequestRejected(f"the ml plugin could not do it: {found.get('error')}")
            _wait(end, f"task {task} of the ml plugin has not ended")


def _wait(end: float, what: str) -> None:
    if time.monotonic() > end:
        raise EngineError(f"{what} within {_SECONDS:.0f} s; try again")
    time.sleep(0.1)
