"""Which operating-system user runs the node: ourselves, or as root an unprivileged one.

The engine refuses to run as root, rightly. So root starts it as `nobody`, and everything that the node
reads must lie where that user can get to (`/root` usually is closed to it).
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import NodeError

_CANDIDATES = ("nobody", "daemon")


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """The unprivileged user that root hands the node to."""

    name: str
    uid: int
    gid: int


def service_user() -> ServiceUser | None:
    """None when we are not root and the node simply runs as ourselves. Raises `NodeError`."""
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return ServiceUser(name, entry.pw_uid, entry.pw_gid)
    raise NodeError(
        f"the engine does not run as root and this system has none of the users {', '.join(_CANDIDATES)}; "
        "run the bridge as an ordinary user"
    )


def closed_folder(path: Path, user: ServiceUser | None) -> Path | None:
    """The first folder on the way to `path` that `user` cannot pass through, or None.

    Folders that do not exist yet are left out: we make them passable ourselves.
    """
    if user is None:
        return None
    resolved = path.resolve()
    for folder in [*reversed(resolved.parents), resolved]:
        try:
            facts = folder.stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(facts.st_mode):
            continue
        if facts.st_uid == user.uid:
            bit = stat.S_IXUSR
        elif facts.st_gid == user.gid:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not facts.st_mode & bit:
            return folder
    return None


def make_folder(path: Path) -> None:
    """Create `path` and its parents, each new one passable for everybody whatever the umask is."""
    missing = []
    current = path
    while not current.exists():
        missing.append(current)
        current = current.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def hand_over(folder: Path, user: ServiceUser | None) -> None:
    """Give a folder and all in it to the user that runs the node, once.

    What already is that user's is not walked again: it may be large, and its owner could exchange
    files for links under our feet.
    """
    if user is None or folder.stat().st_uid == user.uid:
        return
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(base) / name, user.uid, user.gid, follow_symlinks=False)
    os.chown(folder, user.uid, user.gid)
