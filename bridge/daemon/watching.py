"""Folders whose files are ingested as they arrive, each once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bridge.daemon.jobs import Jobs, new_id
from bridge.daemon.messages import Ingest
from bridge.servesettings import Watched

OWNER = "watch"
"""Who asks for such a job, in the place of a key."""

_log = logging.getLogger("bridge.watch")


class Watcher:
    """A thread for each watched folder. A file is taken when it has not changed from one look to the next.

    What was taken is remembered with the jobs: a file that changes later is taken again, and none is because the
    daemon was started anew.
    """

    def __init__(self, watched: Sequence[Watched], jobs: Jobs) -> None:
        self._jobs = jobs
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(one,), name=f"watch-{one.folder}", daemon=True)
            for one in watched
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _watch(self, watched: Watched) -> None:
        before: dict[str, str] = {}
        while not self._ended.wait(watched.seconds):
            try:
                before = self._look(watched, before)
            except OSError as error:
                _log.warning("the folder %s cannot be read: %s", watched.folder, error.strerror)

    def _look(self, watched: Watched, before: dict[str, str]) -> dict[str, str]:
        """Take what has come to rest; path ─▶ state of every file now."""
        states: dict[str, str] = {}
        for path in sorted(Path(watched.folder).glob(watched.pattern)):
            if not path.is_file():
                continue
            found = path.stat()
            name, state = str(path.resolve()), f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"
            states[name] = state
            if before.get(name) == state and self._jobs.store.seen(name) != state:
                self._take(watched, name, state)
        return states

    def _take(self, watched: Watched, name: str, state: str) -> None:
        asked = Ingest(index=watched.index, source=name, text_fields=list(watched.text_fields))
        job = self._jobs.add("ingest", watched.index, OWNER, msgspec.json.encode(asked), new_id())
        self._jobs.store.saw(name, state, job.id)
        _log.info("%s has arrived: job %s", name, job.id)
