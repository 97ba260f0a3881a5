"""Start, find and stop the node's process.

The node outlives whoever started it. Two starters at once get one node: the second waits at the lock
and then finds what the first one started.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bridge.errors import DiskFull, NodeError, NodeNotReady, PortTaken, UsageError
from bridge.node.artifacts import Downloader, Progress
from bridge.node.assemble import assemble, free_bytes
from bridge.node.config import command, environment, heap_size, marker, write_config
from bridge.node.java import Java, find_java, reachable_java
from bridge.node.locks import file_lock
from bridge.node.logs import log_size, meaningful_lines
from bridge.node.paths import NodePaths, check_reachable
from bridge.node.recipe import Recipe
from bridge.node.state import State, cluster_health, is_ours, live_state, read_state, wait_gone, write_state
from bridge.node.users import ServiceUser, hand_over, make_folder, service_user

_POLL = 0.1
_READY = ("yellow", "green")
_RESET_PATIENCE = 30.0  # seconds for a start that our stop has cut short to give up the lock
_DATA_ROOM = 300_000_000  # bytes; below the engine's own high watermark a start is of no use

# Started through a shell that ends at once: the node is then nobody's child, so it survives us and never
# stands there as a zombie of a long-lived caller.
_LAUNCH = 'log=$1; shift; "$@" >"$log" 2>&1 </dev/null & echo $!'


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A running node. `home` is the assembled engine, `data` its indices, `log` its log file."""

    url: str
    port: int
    pid: int
    version: str
    home: Path
    data: Path
    log: Path
    java: str


def node_status(paths: NodePaths) -> NodeStatus | None:
    """The node of this data folder, if its process is alive and answers."""
    state = live_state(paths)
    if state is None or cluster_health(state.port) is None:
        return None
    return _status(paths, state)


def start_node(
    recipe: Recipe,
    paths: NodePaths,
    *,
    port: int | None = None,
    progress: Progress | None = None,
    timeout: float = 180,
    java: Callable[[tuple[int, int]], Java] = find_java,
    download: Downloader | None = None,
    disk_free: Callable[[Path], int] = free_bytes,
) -> NodeStatus:
    """The running node of this data folder, started (and before that downloaded) if need be.

    `timeout` in seconds counts from the start of the process, not the download. `java`, `download` and
    `disk_free` are there for tests and for other engines. Raises the leaves of `NodeError`, and
    `UsageError` when the node already runs on another port than the asked-for one.
    """
    running = _running(paths, port)
    if running is not None:
        return running
    with _plain_errors(paths):
        return _start(recipe, paths, port, progress, timeout, java, download, disk_free)


def stop_node(paths: NodePaths, timeout: float = 60) -> bool:
    """Stop the node: asked to end, and after `timeout` seconds made to. False when none was running."""
    state = live_state(paths)
    if state is None:
        with _plain_errors(paths):
            paths.state.unlink(missing_ok=True)
        return False
    with _plain_errors(paths):
        _end(state, timeout)
        paths.state.unlink(missing_ok=True)
    return True


def reset_node(paths: NodePaths) -> None:
    """Stop the node and delete its indices, settings and logs; the download cache stays."""
    stop_node(paths)
    if not paths.data.is_dir():
        return
    with _plain_errors(paths), file_lock(paths.data / "lock", timeout=_RESET_PATIENCE):
        stop_node(paths)
        for name in ("data", "config", "logs", "tmp"):
            folder = paths.data / name
            if folder.is_dir():
                shutil.rmtree(folder)
        (paths.data / "port").unlink(missing_ok=True)


@contextmanager
def _plain_errors(paths: NodePaths) -> Iterator[None]:
    """What the file system refuses, as one line that says what to do."""
    try:
        yield
    except PermissionError as error:
        raise NodeError(
            f"no permission for the node under {paths.data} ({error.filename or 'its process'}); it belongs "
            "to another user (root, if it was once started with sudo): act as that user"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room left under {paths.data}; free some space and try again") from error
        raise


def _start(
    recipe: Recipe,
    paths: NodePaths,
    port: int | None,
    progress: Progress | None,
    timeout: float,
    java: Callable[[tuple[int, int]], Java],
    download: Downloader | None,
    disk_free: Callable[[Path], int],
) -> NodeStatus:
    report = progress or (lambda _line: None)
    user = service_user()
    check_reachable(paths, user)
    heap = heap_size(os.environ)
    last = read_state(paths)
    if last is not None:
        wait_gone(last)
    if port is not None and live_state(paths) is None:
        _check_port(port)
    runtime = java(recipe.java)
    home = assemble(recipe, paths, progress=progress, download=download, disk_free=disk_free)
    make_folder(paths.data)
    with file_lock(paths.data / "lock", timeout=timeout):
        existing = live_state(paths)
        if existing is not None:
            _check_same_port(existing, port)
            report("waiting for the node that is starting")
            _wait_ready(paths, existing, timeout)
            return _status(paths, existing)
        if disk_free(paths.data) < _DATA_ROOM:
            raise DiskFull(
                f"less than {_DATA_ROOM / 1e6:.0f} MB are free under {paths.data}; "
                "free some space or set BRIDGE_DATA_DIR to a folder elsewhere"
            )
        runtime = reachable_java(runtime, paths.java, user)
        for last_attempt in (False, True):
            chosen = port if port is not None else _free_port(paths)
            report(f"starting {recipe.name} on port {chosen} (Java {runtime.version}, {runtime.origin})")
            state = _launch(recipe, paths, home, runtime, heap, chosen, user)
            try:
                _wait_ready(paths, state, timeout)
            except BaseException as error:
                _end(state, timeout=10)
                paths.state.unlink(missing_ok=True)
                # Another program may have taken the free port between our look and the node's bind.
                if isinstance(error, NodeNotReady) and "BindException" in str(error):
                    if port is not None:
                        raise _port_taken(port) from error
                    if not last_attempt:
                        (paths.data / "port").unlink(missing_ok=True)
                        continue
                raise
            break
        (paths.data / "port").write_text(str(chosen), encoding="utf-8")
    return _status(paths, state)


def _running(paths: NodePaths, port: int | None) -> NodeStatus | None:
    """The quick way: no lock, one look at the process and one request."""
    state = live_state(paths)
    if state is None:
        return None
    health = cluster_health(state.port)
    # Before it was ready for the first time, `red` means that it is still starting.
    if health is None or not (state.ready or health in _READY):
        return None
    _check_same_port(state, port)
    return _status(paths, state)


def _check_same_port(state: State, port: int | None) -> None:
    if port is not None and port != state.port:
        raise UsageError(
            f"the node already runs on port {state.port}; stop it first (bridge node stop) to move it to {port}"
        )


def _status(paths: NodePaths, state: State) -> NodeStatus:
    return NodeStatus(
        url=f"http://127.0.0.1:{state.port}",
        port=state.port,
        pid=state.pid,
        version=state.version,
        home=Path(state.home),
        data=paths.data,
        log=paths.logs / "node.log",
        java=state.java,
    )


def _launch(
    recipe: Recipe, paths: NodePaths, home: Path, java: Java, heap: str, port: int, user: ServiceUser | None
) -> State:
    for name in ("data", "logs", "tmp"):
        (paths.data / name).mkdir(exist_ok=True)
    # Made anew: as root we must not write through a link that the node's user may have put there.
    if paths.config.exists():
        shutil.rmtree(paths.config)
    write_config(recipe, paths, port)
    for name in ("config", "data", "logs", "tmp"):
        hand_over(paths.data / name, user)
    console = paths.logs / "console.log"
    log_start = log_size(paths)
    words = command(recipe, paths, home, java, heap)
    try:
        answer = subprocess.run(
            ["/bin/sh", "-c", _LAUNCH, "sh", str(console), *words],
            cwd=paths.data / "tmp",
            env=environment(paths),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            check=True,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
    except PermissionError as error:
        who = f" as user {user.name}" if user else ""
        raise NodeError(f"may not start a process{who} in {paths.data / 'tmp'}: {error.strerror}") from error
    state = State(
        pid=int(answer.stdout),
        port=port,
        version=recipe.version,
        home=str(home),
        java=f"{java.version} ({java.origin})",
        marker=marker(recipe, paths),
        log_start=log_start,
    )
    write_state(paths, state)
    return state


def _wait_ready(paths: NodePaths, state: State, timeout: float) -> None:
    begun = time.monotonic()
    seen_alive = False
    while True:
        # For a moment after the fork the process still is the shell, without our marker.
        alive = is_ours(state)
        seen_alive = seen_alive or alive
        waited = time.monotonic() - begun
        if not alive and (seen_alive or waited > 2):
            break
        health = cluster_health(state.port) if alive else None
        if health in _READY:
            write_state(paths, replace(state, ready=True))
            return
        if waited > timeout:
            break
        time.sleep(_POLL)
    lines = " | ".join(meaningful_lines(paths, state.log_start)) or "nothing in its log"
    what = f"did not get ready within {timeout:.0f} s" if alive else "ended while starting"
    raise NodeNotReady(f"the node {what}: {lines} (log: {paths.logs})")


def _end(state: State, timeout: float) -> None:
    """SIGTERM, and SIGKILL after `timeout` seconds; each only while the pid still is our node."""
    for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, 10.0)):
        if not is_ours(state):
            return
        try:
            os.kill(state.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not is_ours(state):
                wait_gone(state)
                return
            time.sleep(0.05)
    raise NodeError(f"the node (process {state.pid}) does not end, not even when killed")


def _free_port(paths: NodePaths) -> int:
    """The port of the last run if it is free, so that URLs live on; else any free one."""
    try:
        last = int((paths.data / "port").read_text(encoding="utf-8"))
        if 1024 <= last <= 65535 and _bind(last):
            return last
    except (OSError, ValueError):
        pass
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise UsageError(f"{port} is not a port; choose one between 1024 and 65535")
    if not _bind(port):
        raise _port_taken(port)


def _port_taken(port: int) -> PortTaken:
    return PortTaken(f"port {port} of 127.0.0.1 is in use by another program; choose another or none")


def _bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
