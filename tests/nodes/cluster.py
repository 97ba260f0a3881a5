"""Several real nodes that form one cluster, each to be killed and started again by itself."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bridge.node import NodePaths, stop
from bridge.node.process import start_node
from bridge.node.recipe import Recipe
from tests.nodes import kill_node
from tests.nodes.recipes import OPENSEARCH_CONNECTING

HEAP = "640m"
"""Of each node."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node of a cluster, on a data folder and a port of its own that outlive it."""

    recipe: Recipe
    paths: NodePaths

    def start(self) -> str:
        """Its URL, once it has found the others."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BRIDGE_NODE_HEAP", HEAP)
            return start_node(self.recipe, self.paths).url

    def kill(self) -> None:
        """SIGKILL; over when its process is gone."""
        kill_node(self.paths)


@contextmanager
def running_cluster(
    settings: Mapping[str, Mapping[str, str]], folder: Path, cache: Path
) -> Iterator[dict[str, Member]]:
    """Nodes of the embedded engine, started in this order and stopped at the end: their name ─▶ the node.

    Args:
        settings: name ─▶ the node's own settings. In `discovery.seed_hosts` a name stands for its address, as it does
            in a network of containers.
        folder: for the data of all; one that `nobody` can get into.
        cache: of the assembled engine.
    """
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip(settings, free_ports(len(settings)), strict=True)}
    members: dict[str, Member] = {}
    with ExitStack() as stack:
        for name, own in settings.items():
            seeds = [addresses[seed.strip()] for seed in own["discovery.seed_hosts"].split(",")]
            all_of_them = {
                "discovery.type": "zen",  # what a node has that is told nothing: it looks for others
                **own,
                "node.name": name,
                "transport.port": addresses[name].rpartition(":")[2],
                "discovery.seed_hosts": json.dumps(seeds),
            }
            recipe = replace(OPENSEARCH_CONNECTING, settings=tuple(all_of_them.items()))
            member = members[name] = Member(recipe, NodePaths(cache, folder / name))
            stack.callback(stop, member.paths)
            member.start()
        yield members


def free_ports(count: int) -> list[int]:
    """So many ports of 127.0.0.1 that nobody has just now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
