"""Documents ─▶ `_bulk` ─▶ one outcome a document, in order, with bounded memory.

Chunks by count and bytes are sent over a few connections at once; outcomes come back in the order of
the documents, so whoever reads them may move a checkpoint past every one seen. Only what an engine
rejected for the moment is sent again:

=====================================  ==========================================================
no connection, timeout, 429, 5xx       the chunk, after a wait with full jitter
413                                    the chunk in two halves
an item with 429 or 503                that item
an item that exists (409 on `create`)  the same content: a replay; other content: dead
an item with 401 or 403                the run ends: no other document would fare better
any other item error                   dead, with the engine's reason
=====================================  ==========================================================

Two documents of one id are never under way at once, so the later one of the source is what stays.

The engine call and the sleep are injected.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from bridge.engines.base import error_of_status, reason_of
from bridge.errors import BridgeError, DocumentError, RequestTooLarge
from bridge.records import BulkOutcome, EncodedDoc

Send = Callable[[bytes], list[dict[str, Any]]]
"""One `_bulk` body ─▶ one item an action, in order."""

Hashes = Callable[[Sequence[str]], Mapping[str, str | None]]
"""Ids ─▶ the stored content hash of those that exist."""

Body = Callable[[EncodedDoc], Mapping[str, Any]]
"""What a document's `_source` becomes."""

_AGAIN = {429, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """How to send.

    Attributes:
        operation: ``create`` on a fresh index, so that a document met twice is noticed; else ``index``.
        chunk_documents, chunk_bytes: a chunk is closed before it passes either.
        in_flight: requests under way at once; memory is bounded by (in_flight + 1) chunks.
        patience: seconds to keep trying what an engine puts off, before giving up.
    """

    operation: Literal["create", "index"] = "index"
    chunk_documents: int = 500
    chunk_bytes: int = 5_000_000
    in_flight: int = 3
    patience: float = 600.0


@dataclass(frozen=True, slots=True)
class _Action:
    document: EncodedDoc
    lines: bytes


_Entry = _Action | BulkOutcome
"""To be sent, or settled before and only carried along in its place."""


class BulkSender:
    """Sends documents; `retried` counts the times that one was sent again."""

    def __init__(
        self,
        send: Send,
        body: Body,
        hashes: Hashes,
        options: BulkOptions | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._send = send
        self._body = body
        self._hashes = hashes
        self._options = options or BulkOptions()
        self._sleep = sleep
        self._warn = warn
        self._lock = threading.Lock()
        self.retried = 0

    def run(self, documents: Iterable[EncodedDoc | BulkOutcome]) -> Iterator[BulkOutcome]:
        """One outcome a document, in the documents' order; one that is an outcome already is passed through.

        Raises:
            EngineError: the engine cannot be used (credentials, index gone), or was put off longer
                than `patience`. Outcomes already given stand; the rest is unknown, and safe to send again.
        """
        waiting: deque[tuple[set[str], Future[list[BulkOutcome]]]] = deque()
        with ThreadPoolExecutor(self._options.in_flight, thread_name_prefix="bulk") as pool:
            try:
                for ids, chunk in self._chunks(documents):
                    while not all(ids.isdisjoint(sent) for sent, _ in waiting):
                        yield from waiting.popleft()[1].result()
                    waiting.append((ids, pool.submit(self._deliver, chunk)))
                    while len(waiting) > self._options.in_flight:
                        yield from waiting.popleft()[1].result()
                while waiting:
                    yield from waiting.popleft()[1].result()
            finally:
                for _, future in waiting:
                    future.cancel()

    def _chunks(self, documents: Iterable[EncodedDoc | BulkOutcome]) -> Iterator[tuple[set[str], list[_Entry]]]:
        """Chunks with the ids that they send, none of them twice."""
        ids: set[str] = set()
        chunk: list[_Entry] = []
        size = 0
        for document in documents:
            entry = document if isinstance(document, BulkOutcome) else self._entry(document)
            sent = entry if isinstance(entry, _Action) else None
            weight = len(sent.lines) if sent else 0
            full = len(chunk) >= self._options.chunk_documents or (sent is not None and sent.document.id in ids)
            if chunk and (full or size + weight > self._options.chunk_bytes):
                yield ids, chunk
                ids, chunk, size = set(), [], 0
            chunk.append(entry)
            size += weight
            if sent:
                ids.add(sent.document.id)
        if chunk:
            yield ids, chunk

    def _entry(self, document: EncodedDoc) -> _Entry:
        if document.op == "delete":
            return _Action(document, msgspec.json.encode({"delete": {"_id": document.id}}) + b"\n")
        try:
            body = msgspec.json.encode(self._body(document))
        except DocumentError as error:
            return _dead(document, str(error), 0)
        action = msgspec.json.encode({self._options.operation: {"_id": document.id}})
        return _Action(document, action + b"\n" + body + b"\n")

    def _deliver(self, chunk: list[_Entry]) -> list[BulkOutcome]:
        """Outcomes of one chunk, in order; runs on a sender's thread."""
        outcomes = {place: entry for place, entry in enumerate(chunk) if isinstance(entry, BulkOutcome)}
        pending = [(place, entry) for place, entry in enumerate(chunk) if isinstance(entry, _Action)]
        attempt = 0
        started = time.monotonic()
        while pending:
            attempt += 1
            put_off: list[tuple[int, _Action]] = []
            existing: list[tuple[int, _Action]] = []
            items, resent = self._request([action for _, action in pending])
            for (place, action), item in zip(pending, items, strict=True):
                status, error = _status(item)
                if status in (401, 403):
                    raise error_of_status(status, {"error": error}, f"document {action.document.id!r}")
                if status in _AGAIN:
                    put_off.append((place, action))
                elif status == 409 and self._options.operation == "create":
                    existing.append((place, action))
                else:
                    outcomes[place] = _outcome(action.document, status, error, attempt)
            for place, outcome in self._compare(existing, attempt, resent=resent or attempt > 1):
                outcomes[place] = outcome
            if put_off and time.monotonic() - started > self._options.patience:
                reason = f"the engine put it off for {self._options.patience:g} s"
                outcomes |= {place: _dead(action.document, reason, attempt) for place, action in put_off}
                break
            if put_off:
                self._warn(f"the engine puts off {len(put_off)} of {len(chunk)} documents; trying them again")
                self._count_retries(len(put_off))
                # Full jitter, so that senders do not come back together.
                self._sleep(random.uniform(0, min(30.0, 0.5 * 2**attempt)))  # noqa: S311 - no secret
            pending = put_off
        return [outcomes[place] for place in range(len(chunk))]

    def _request(self, actions: Sequence[_Action]) -> tuple[list[dict[str, Any]], bool]:
        """One item an action, and whether any request was sent more than once."""
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, BridgeError) and error.retryable),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_after_delay(self._options.patience),
            sleep=self._sleep,
            before_sleep=lambda state: self._noticed(state, len(actions)),
            reraise=True,
        )
        try:
            items = retrying(self._send, b"".join(action.lines for action in actions))
        except RequestTooLarge:
            if len(actions) == 1:
                error = {"reason": "the document alone is larger than the engine takes"}
                return [{"index": {"status": 413, "error": error}}], False
        else:
            return items, bool(retrying.statistics.get("attempt_number", 1) > 1)
        middle = len(actions) // 2
        (left, left_again), (right, right_again) = (
            self._request(actions[:middle]),
            self._request(actions[middle:]),
        )
        return [*left, *right], left_again or right_again

    def _noticed(self, state: RetryCallState, count: int) -> None:
        self._count_retries(count)
        error = state.outcome.exception() if state.outcome else None
        self._warn(f"{error}; trying again")

    def _count_retries(self, count: int) -> None:
        with self._lock:
            self.retried += count

    def _compare(
        self, existing: list[tuple[int, _Action]], attempt: int, *, resent: bool
    ) -> Iterator[tuple[int, BulkOutcome]]:
        """What a `create` met: the same content is a replay, other content is a second document of that id."""
        if not existing:
            return
        stored = self._hashes([action.document.id for _, action in existing])
        for place, action in existing:
            document = action.document
            if stored.get(document.id) == document.content_hash:
                # After a request of unknown fate, the one that is there is this very document.
                yield (
                    place,
                    BulkOutcome(document.position, document.id, "indexed" if resent else "unchanged", attempt),
                )
            else:
                reason = f"duplicate id {document.id!r}: another document of this load has it, with other content"
                yield place, _dead(document, reason, attempt)


def _status(item: Mapping[str, Any]) -> tuple[int, Any]:
    (result,) = item.values()
    return int(result.get("status", 0)), result.get("error")


def _outcome(document: EncodedDoc, status: int, error: Any, attempt: int) -> BulkOutcome:
    if document.op == "delete" and status in (200, 404):
        return BulkOutcome(document.position, document.id, "deleted", attempt)
    if 200 <= status < 300:
        return BulkOutcome(document.position, document.id, "indexed", attempt)
    return _dead(document, f"the engine refused it ({status}): {reason_of({'error': error})}", attempt)


def _dead(document: EncodedDoc, reason: str, attempts: int) -> BulkOutcome:
    return BulkOutcome(document.position, document.id, "dead", attempts, reason, document.source)
