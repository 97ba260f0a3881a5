"""Jobs in SQLite: what was asked for, how far it is, how it ended. A job that was taken is on the disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from bridge.errors import SettingsError

State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["ingest", "evaluate"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
KEPT_LINES = 20
"""How many of the lines that a job says are kept."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    index_name TEXT NOT NULL,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,
    request BLOB NOT NULL,
    created TEXT NOT NULL,
    started TEXT,
    ended TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    progress BLOB NOT NULL DEFAULT '{}',
    result BLOB,
    error TEXT,
    said BLOB NOT NULL DEFAULT '[]'
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
CREATE TABLE IF NOT EXISTS seen (
    path TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    job TEXT NOT NULL
);
PRAGMA user_version = 1;
"""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    id: str
    kind: Kind
    index: str
    state: State
    owner: str
    """The id of the key that asked for it."""
    request: bytes
    """JSON."""
    created: str
    started: str | None
    ended: str | None
    attempts: int
    progress: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    said: list[str]


class JobStore:
    """The jobs of one daemon; safe to share between threads.

    Raises:
        SettingsError: the file cannot be used, or another daemon uses it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=1)
            # Whoever has the lock keeps it: two daemons must not go on with the same jobs.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            busy = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
            why = "another bridge serve uses it; give this one its own with [serve] data" if busy else str(error)
            raise SettingsError(f"the jobs in {path} cannot be kept: {why}") from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def add(self, name: str, kind: Kind, index: str, owner: str, request: bytes) -> Job:
        """A new job, that waits."""
        self._write(
            "INSERT INTO jobs (id, kind, index_name, state, owner, request, created) "
            "VALUES (?, ?, ?, 'queued', ?, ?, ?)",
            (name, kind, index, owner, request, now()),
        )
        return self.require(name)

    def find(self, name: str) -> Job | None:
        with self._lock:
            row = self._connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (name,)).fetchone()  # noqa: S608
        return _job(row) if row else None

    def require(self, name: str) -> Job:
        found = self.find(name)
        if found is None:
            raise KeyError(name)
        return found

    def newest(self, count: int = 100, state: State | None = None) -> list[Job]:
        """The newest first."""
        where, values = ("WHERE state = ?", (state,)) if state else ("", ())
        with self._lock:
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM jobs {where} ORDER BY number DESC LIMIT ?",  # noqa: S608
                (*values, count),
            ).fetchall()
        return list(map(_job, rows))

    def begin_next(self) -> Job | None:
        """The job that has waited longest, as one that runs now."""
        with self._transaction():
            row = self._connection.execute(
                # Two loads of one index would each take the other's writes for someone else's.
                "SELECT id FROM jobs WHERE state = 'queued' AND index_name NOT IN "
                "(SELECT index_name FROM jobs WHERE state = 'running') ORDER BY number LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            self._connection.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, error = NULL, "
                "started = coalesce(started, ?), ended = NULL WHERE id = ?",
                (now(), row[0]),
            )
            return self.require(row[0])

    def requeue_running(self) -> list[str]:
        """What ran when the daemon before this one ended waits again; the ids."""
        with self._transaction():
            rows = self._connection.execute("SELECT id FROM jobs WHERE state = 'running' ORDER BY number").fetchall()
            self._connection.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")
        return [row[0] for row in rows]

    def requeue(self, name: str) -> None:
        self._write("UPDATE jobs SET state = 'queued', ended = NULL WHERE id = ?", (name,))

    def progress(self, name: str, progress: Mapping[str, Any], said: list[str]) -> None:
        self._write(
            "UPDATE jobs SET progress = ?, said = ? WHERE id = ?",
            (msgspec.json.encode(progress), msgspec.json.encode(said[-KEPT_LINES:]), name),
        )

    def end(
        self, name: str, state: State, *, result: Mapping[str, Any] | None = None, error: str | None = None
    ) -> None:
        self._write(
            "UPDATE jobs SET state = ?, ended = ?, result = ?, error = ? WHERE id = ?",
            (state, now(), msgspec.json.encode(result) if result is not None else None, error, name),
        )

    def cancel_queued(self, name: str) -> bool:
        """Whether the job waited, and is cancelled now."""
        with self._transaction():
            done = self._connection.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ? WHERE id = ? AND state = 'queued'", (now(), name)
            )
            return done.rowcount == 1

    def forget(self, kept: int) -> list[str]:
        """Forget the jobs that have ended, but for the `kept` newest of them; the ids."""
        with self._transaction():
            rows = self._connection.execute(
                "DELETE FROM jobs WHERE number IN (SELECT number FROM jobs "
                "WHERE state IN ('done', 'failed', 'cancelled') ORDER BY number DESC LIMIT -1 OFFSET ?) RETURNING id",
                (kept,),
            ).fetchall()
        return [row[0] for row in rows]

    def counts(self) -> dict[str, int]:
        """State ─▶ how many jobs."""
        with self._lock:
            rows = self._connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        return dict.fromkeys(get_args(State), 0) | dict(rows)

    def seen(self, path: str) -> str | None:
        """The state in which a watched file was taken last."""
        with self._lock:
            row = self._connection.execute("SELECT state FROM seen WHERE path = ?", (path,)).fetchone()
        return row[0] if row else None

    def saw(self, path: str, state: str, job: str) -> None:
        self._write("INSERT OR REPLACE INTO seen (path, state, job) VALUES (?, ?, ?)", (path, state, job))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._transaction():
            self._connection.execute(statement, values)


_COLUMNS = (
    "id, kind, index_name, state, owner, request, created, started, ended, attempts, progress, result, error, said"
)


def _job(row: tuple[Any, ...]) -> Job:
    name, kind, index, state, owner, request, created, started, ended, attempts, progress, result, error, said = row
    decode = msgspec.json.decode
    return Job(
        id=name, kind=kind, index=index, state=state, owner=owner, request=request, created=created, started=started,
        ended=ended, attempts=attempts, progress=decode(progress), result=decode(result) if result else None,
        error=error, said=decode(said),
    )  # fmt: skip


def now() -> str:
    """RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
