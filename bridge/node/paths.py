"""Where the node's files lie: a cache that can be thrown away, and the data that cannot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from bridge.errors import NodeError
from bridge.node.users import ServiceUser, closed_folder, service_user

_APP = "neural-sparse-bridge"
_SYSTEM_CACHE = Path("/var/cache") / _APP
_SYSTEM_DATA = Path("/var/lib") / _APP


@dataclass(frozen=True, slots=True)
class NodePaths:
    """`cache` holds downloads and the assembled engine, `data` the indices, settings and logs of one node.

    Several nodes may share a cache; each needs a `data` folder of its own.
    """

    cache: Path
    data: Path

    @classmethod
    def default(cls) -> NodePaths:
        """The user's own folders, or BRIDGE_CACHE_DIR and BRIDGE_DATA_DIR where these are set.

        For root, whose home is closed to the unprivileged user that runs the node, the system's
        `/var/cache` and `/var/lib` instead.
        """
        user = service_user()
        return cls(
            _folder("BRIDGE_CACHE_DIR", Path(platformdirs.user_cache_dir(_APP)), _SYSTEM_CACHE, user) / "node",
            _folder("BRIDGE_DATA_DIR", Path(platformdirs.user_data_dir(_APP)), _SYSTEM_DATA, user) / "node",
        )

    @property
    def store(self) -> Path:
        """Checked downloads."""
        return self.cache / "artifacts"

    @property
    def homes(self) -> Path:
        """Assembled engines, one folder per version and content."""
        return self.cache / "homes"

    @property
    def java(self) -> Path:
        """Copies of a Java runtime, for a user who cannot get to the original."""
        return self.cache / "java"

    @property
    def config(self) -> Path:
        """The node's settings, written at each start."""
        return self.data / "config"

    @property
    def logs(self) -> Path:
        """The node's log files."""
        return self.data / "logs"

    @property
    def state(self) -> Path:
        """Which process serves this data folder, and on which port."""
        return self.data / "node.json"


def check_reachable(paths: NodePaths, user: ServiceUser | None) -> None:
    """Raise `NodeError` when the node's user could not get to the folders."""
    for path, variable in ((paths.cache, "BRIDGE_CACHE_DIR"), (paths.data, "BRIDGE_DATA_DIR")):
        closed = closed_folder(path, user)
        if closed is not None and user is not None:
            raise NodeError(
                f"the engine runs as user {user.name}, who cannot get into {closed}; "
                f"open it (chmod o+x {closed}) or set {variable} to a folder elsewhere"
            )


def _folder(variable: str, own: Path, system: Path, user: ServiceUser | None) -> Path:
    named = os.environ.get(variable)
    if named:
        return Path(named).expanduser().absolute()
    return own if closed_folder(own, user) is None else system
