"""What jobs do: the same loads and measurements as the command line's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from bridge.daemon.jobs import Running
from bridge.daemon.jobstore import Job
from bridge.daemon.messages import Evaluate, Ingest
from bridge.daemon.service import Service
from bridge.daemon.watching import OWNER
from bridge.errors import SourceError, UsageError
from bridge.ingest import IngestOptions, ingest
from bridge.judged import read_conversations, read_judged
from bridge.measured import measure
from bridge.prune import parse_pruning
from bridge.register import RegisterOptions
from bridge.rewrite import QueryRewriter
from bridge.sources import SourceOptions, open_source

DOCUMENTS = "documents.jsonl"
LETTERS = "dead-letter.jsonl"


class Worker:
    """Does jobs. What came in a request's body lies in the job's own folder, and so do its dead letters."""

    def __init__(self, service: Service, folder: Path) -> None:
        self._service = service
        self._folder = folder

    def folder(self, name: str) -> Path:
        """Of one job."""
        return self._folder / name

    def keep_documents(self, name: str, lines: bytes) -> None:
        """Write a job's documents where it will find them; they are on the disk when this returns.

        Raises:
            SourceError: they cannot be written.
        """
        folder = self.folder(name)
        try:
            folder.mkdir(parents=True, mode=0o700)
            with (folder / DOCUMENTS).open("wb") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SourceError(f"the documents cannot be kept until they are ingested: {error.strerror}") from error

    def forget(self, name: str, whole: bool) -> None:
        """Take away the documents of a job that is done; with `whole` all that is kept of it."""
        if whole:
            shutil.rmtree(self.folder(name), ignore_errors=True)
        else:
            (self.folder(name) / DOCUMENTS).unlink(missing_ok=True)

    def allowed(self, named: str) -> Path:
        """A file or folder that a request names, if it is under one of the roots.

        Raises:
            UsageError: it is not, or is not there.
        """
        roots = [Path(root).resolve() for root in self._service.settings.roots]
        for root in roots:
            path = (root / named).resolve()
            if path.is_relative_to(root) and path.exists():
                return path
        why = "is not there" if roots else "cannot be read: the daemon's settings name no roots"
        raise UsageError(f"source {named!r} {why}; a source is a file under one of the daemon's roots ([serve] roots)")

    def letters(self, name: str, start: int, count: int) -> tuple[list[dict[str, Any]], int]:
        """Some of a job's dead letters, and how many there are."""
        path = self.folder(name) / LETTERS
        try:
            with path.open("rb") as file:
                found = [msgspec.json.decode(line) for line in islice(file, start, start + count)]
                total = start + len(found) + sum(1 for _ in file)
        except FileNotFoundError:
            return [], 0
        return found, total

    def __call__(self, job: Job, running: Running) -> Mapping[str, Any]:
        """Do a job; its result."""
        if job.kind == "ingest":
            return self._ingest(job, msgspec.json.decode(job.request, type=Ingest), running)
        return self._evaluate(msgspec.json.decode(job.request, type=Evaluate), running)

    def _ingest(self, job: Job, asked: Ingest, running: Running) -> Mapping[str, Any]:
        if asked.source is None:
            path = self.folder(job.id) / DOCUMENTS
        else:
            # The settings name what is watched, and requests name what is under a root.
            path = Path(asked.source) if job.owner == OWNER else self.allowed(asked.source)
        self.folder(job.id).mkdir(parents=True, exist_ok=True, mode=0o700)
        fields = tuple(asked.text_fields) or None
        options = IngestOptions(
            model=self._service.model_place(asked.model) if asked.model else None,
            text_fields=fields,
            register=RegisterOptions(text_fields=fields),
            dead_letter=self.folder(job.id) / LETTERS,
            dense=self._service.model_place(asked.dense) if asked.dense else None,
        )
        reading = SourceOptions(id_field=asked.id_field, id_from=asked.id_from, where=asked.where, limit=asked.limit)
        with open_source([str(path)], reading) as source:
            summary = ingest(self._service.engine, asked.index, source, options, say=running.say, report=running.report)
        found: dict[str, Any] = msgspec.to_builtins(summary)
        # Where it lies on this machine is nobody's business; the letters are to be had by the job's id.
        del found["dead_letter"]
        return {name: value for name, value in found.items() if value is not None}

    def _evaluate(self, asked: Evaluate, running: Running) -> Mapping[str, Any]:
        folder = self.allowed(asked.folder)
        engine = self._service.engine
        rewriter = QueryRewriter.for_index(
            engine,
            asked.index,
            pruning=parse_pruning(asked.prune) if asked.prune else None,
            conversation=asked.conversations or "auto",
            hybrid=asked.hybrid,
        )
        if asked.conversations:
            judged = read_conversations(folder, None, asked.split).as_queries(
                lambda one: rewriter.question(one.turns, rewritten=one.rewritten)
            )
        else:
            judged = read_judged(folder, None, asked.split)
        evaluation, _ = measure(
            engine, asked.index, rewriter, judged, lambda done, total: running.tell({"queries": done, "of": total})
        )
        return evaluation.as_dict()


def as_lines(documents: list[dict[str, Any]]) -> bytes:
    """Documents as JSON lines."""
    return b"".join(_encoded(documents))


def _encoded(documents: list[dict[str, Any]]) -> Iterator[bytes]:
    for document in documents:
        yield msgspec.json.encode(document)
        yield b"\n"
