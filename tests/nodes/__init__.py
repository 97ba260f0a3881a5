"""Real engines beside the product's own, for contract tests: one node each, on a free loopback port.

`start_node("elasticsearch-7.17.29", folder)` gives a URL; `stop_node(folder)` ends it. `running_node`
does both. Nothing here is part of the product.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.node import NodePaths, stop
from bridge.node.assemble import assemble
from bridge.node.java import Java, find_java
from bridge.node.process import start_node as _start_node
from bridge.node.state import is_ours, live_state, wait_gone
from tests.nodes.compile import equip
from tests.nodes.java17 import find_java17
from tests.nodes.recipes import ELASTICSEARCH_8, ELASTICSEARCH_9, OPENSEARCH_ML, RECIPES

NAMES = tuple(name for name in RECIPES if name != OPENSEARCH_ML.name)
"""Those that every module may start. The one with the ml plugin is five times as large: one module has it."""


def start_node(name: str, folder: Path, *, timeout: float = 180) -> str:
    """Start the engine `name` (of `NAMES`) with its data under `folder`, and return its URL.

    Downloads go to the product's cache. As root, `folder` must be one that `nobody` can get into
    (pytest's `tmp_path` is not; `open_folder` is). Raises the leaves of `bridge.errors.NodeError`.
    """
    recipe = RECIPES[name]
    paths = NodePaths(NodePaths.default().cache, folder)

    def java(versions: tuple[int, int]) -> Java:
        return find_java17(versions, paths) if versions[1] == 17 else find_java(versions)

    if recipe in (ELASTICSEARCH_8, ELASTICSEARCH_9):
        equip(recipe, assemble(recipe, paths), paths, java(recipe.java))
    return _start_node(recipe, paths, java=java, timeout=timeout).url


def stop_node(folder: Path) -> bool:
    """Stop the node whose data lie under `folder`; False when none was running."""
    return stop(NodePaths(NodePaths.default().cache, folder))


def kill_node(paths: NodePaths) -> None:
    """SIGKILL; over when its process is gone."""
    state = live_state(paths)
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
    while is_ours(state):
        time.sleep(0.02)
    wait_gone(state)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user may pass through, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="node-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def running_node(name: str) -> Iterator[str]:
    """The URL of a fresh node that is stopped and deleted at the end."""
    with open_folder() as folder:
        try:
            yield start_node(name, folder)
        finally:
            stop_node(folder)
