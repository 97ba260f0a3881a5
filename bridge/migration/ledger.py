"""How far a migration has come: an entry in the new index's mapping, and the lease of the process that works on it."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgspec

from bridge.engines import Engine
from bridge.errors import EngineError, IndexConflict

KEY = "bridge_migration"
LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0

Phase = Literal["fill", "swap", "late", "done", "back"]
"""Before the alias moves; about to move it; after it, with late writes to come; over; and taken back."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who works on a migration, and until when others keep off."""

    holder: str
    place: str
    """A machine, and the process table on it."""
    pid: int
    until: float
    """Seconds since 1970."""


class Letters(msgspec.Struct, frozen=True, kw_only=True):
    """The dead-letter file, and its length when the migration began."""

    path: str
    bytes: int


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What the new index's mapping says of the migration that made it."""

    alias: str
    old: str
    old_uuid: str
    phase: Phase
    settings: dict[str, Any]
    """Settings that the new index gets before the alias moves."""
    letters: Letters
    bounds: dict[int, int] | None = None
    """The old index's shard ─▶ the sequence number up to which its writes are in the new one; None: not yet all."""
    looked: dict[int, int] | None = None
    """The same at the last look for deletions."""
    own: dict[int, int] | None = None
    """The new index's shard ─▶ the sequence number before anybody else could write to it."""
    dead: int = 0
    """Documents that could not go in, each time that they were tried."""
    blocked: bool = False
    """The old index has the migration's write block, which it did not have before."""
    lease: Lease | None = None


def entry_of(meta: Any) -> Entry | None:
    """The entry in a mapping's `_meta`; None where there is none.

    Raises:
        IndexConflict: there is one that this release does not understand.
    """
    found = meta.get(KEY) if isinstance(meta, dict) else None
    if found is None:
        return None
    try:
        # The keys of an object are strings.
        return msgspec.convert(found, Entry, str_keys=True)
    except msgspec.ValidationError as error:
        raise IndexConflict(f"_meta.{KEY} was written by another release of the bridge: {error}") from error


def as_meta(entry: Entry) -> dict[str, Any]:
    """The entry as it stands in a mapping's `_meta`."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(entry))
    return {key: value for key, value in found.items() if value is not None}


def new_lease() -> Lease:
    """This process's, from now on."""
    return Lease(holder=secrets.token_hex(8), place=_place(), pid=os.getpid(), until=time.time() + LEASE_SECONDS)


def check_free(entry: Entry, index: str) -> None:
    """Raises IndexConflict where another process works on the migration."""
    lease = entry.lease
    if lease is None or lease.until < time.time() or _is_dead(lease):
        return
    raise IndexConflict(
        f"another `bridge migrate {entry.alias}` works on {index} (process {lease.pid} on {lease.place.split()[0]}); "
        f"if it is gone, try again in {max(1, round(lease.until - time.time()))} s"
    )


def _place() -> str:
    space = ""
    with contextlib.suppress(OSError):
        # A container may have its machine's name, and other numbers for processes.
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
    return f"{platform.node() or 'localhost'} {space}"


def _is_dead(lease: Lease) -> bool:
    """Whether the holder was a process of this machine that is no longer there."""
    if lease.place != _place() or os.name != "posix":
        return False
    try:
        os.kill(lease.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class Ledger:
    """The entry of one migration, held by this process; a context manager that keeps the lease and gives it back.

    Raises:
        IndexConflict: another process holds it.
    """

    def __init__(self, engine: Engine, index: str, entry: Entry, lease: Lease | None = None) -> None:
        self._engine, self._index = engine, index
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._lost = False
        if lease is None:
            check_free(entry, index)
        self.entry = entry
        self._lease = lease or new_lease()
        self._thread = threading.Thread(target=self._renew, name="bridge-lease", daemon=True)

    def __enter__(self) -> Ledger:
        self._write(lease=self._lease)
        # Of two that took it at one time, the later one has it.
        self._verify()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(EngineError, IndexConflict):
            if not self._lost:
                self._write(lease=None)

    def update(self, **changes: Any) -> None:
        """Change the entry, in the index first.

        Raises:
            IndexConflict: another process has taken the migration over.
        """
        self._verify()
        self._write(**changes)

    def _write(self, **changes: Any) -> None:
        with self._lock:
            entry = msgspec.structs.replace(self.entry, **changes)
            state = self._engine.require_index(self._index)
            meta = dict(state.mappings.get("_meta") or {})
            self._engine.put_mapping(self._index, {"_meta": {**meta, KEY: as_meta(entry)}})
            self.entry = entry

    def _verify(self) -> None:
        if not self._lost:
            now = entry_of(self._engine.require_index(self._index).mappings.get("_meta"))
            self._lost = now is None or now.lease is None or now.lease.holder != self._lease.holder
        if self._lost:
            raise IndexConflict(
                f"another `bridge migrate {self.entry.alias}` has taken over the migration into {self._index}; this "
                "one ends"
            )

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            # While the engine is away nobody else can take it either; the next update looks again.
            with contextlib.suppress(EngineError, IndexConflict):
                self._verify()
                self._lease = msgspec.structs.replace(self._lease, until=time.time() + LEASE_SECONDS)
                self._write(lease=self._lease)
