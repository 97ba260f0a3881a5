"""Which process serves a data folder: a small file, believed only after looking at the process itself."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict, dataclass, fields
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bridge.node.paths import NodePaths

_HTTP_TIMEOUT = 5.0
_KERNEL_THREAD = 0x200000  # PF_KTHREAD


@dataclass(frozen=True, slots=True)
class State:
    """What the starter wrote down. `marker` is a word of the process's command line that no other has.

    `log_start` is the size of the log in bytes before this start.
    """

    pid: int
    port: int
    version: str
    home: str
    java: str
    marker: str
    log_start: int
    ready: bool = False


def write_state(paths: NodePaths, state: State) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    draft = paths.state.with_suffix(".new")
    draft.write_text(json.dumps(asdict(state)), encoding="utf-8")
    draft.replace(paths.state)


def read_state(paths: NodePaths) -> State | None:
    """What the file says, or None when there is none or it is not readable as one."""
    try:
        row = json.loads(paths.state.read_text(encoding="utf-8"))
        state = State(**{field.name: row[field.name] for field in fields(State)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return state if isinstance(state.pid, int) and isinstance(state.port, int) else None


def live_state(paths: NodePaths) -> State | None:
    """The state, if its process is alive and is the node of this data folder (a pid may be reused)."""
    state = read_state(paths)
    return state if state is not None and is_ours(state) else None


def is_ours(state: State) -> bool:
    """Whether the process of that number is the node that the state describes."""
    return state.pid > 1 and bool(state.marker) and state.marker in command_line(state.pid)


def wait_gone(state: State, timeout: float = 10) -> None:
    """Wait until a node that has been ended has let go of its port and its locks, `timeout` seconds at most.

    An ending process loses its command line at once, with its memory, and its files and sockets only after that: a
    heap of gigabytes takes a while to free. Until then the port would look taken, and the data folder locked.
    """
    deadline = time.monotonic() + timeout
    while _is_ending(state.pid) and time.monotonic() < deadline:
        time.sleep(0.01)


def _is_ending(pid: int) -> bool:
    """Whether the process has lost its command line but not all of its threads; where the system does not tell, no."""
    try:
        return not any(command_line(pid)) and any(map(_holds_on, Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return False


def _holds_on(thread: Path) -> bool:
    """Whether a thread without a command line still has its files: it is neither a zombie nor the kernel's own."""
    try:
        # After the name, which may hold anything but ends with the last bracket: the state, and six on the flags.
        row = (thread / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return row[0] not in "ZX" and not int(row[6]) & _KERNEL_THREAD


def command_line(pid: int) -> list[str]:
    """The words of a process's command line; empty when it is gone (or a zombie)."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            return []
    answer = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return answer.stdout.split()


def cluster_health(port: int) -> str | None:
    """`green`, `yellow`, `red`, or None while the node does not answer.

    Straight over a socket: proxies from the environment have no business on the loopback interface.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=_HTTP_TIMEOUT)
    try:
        connection.request("GET", "/_cluster/health")
        answer = connection.getresponse()
        body = json.loads(answer.read())
        return str(body["status"]) if answer.status == 200 else None
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()
