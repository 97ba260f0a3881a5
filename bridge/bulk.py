"""Documents ─▶ `_bulk` ─▶ one outcome a document, in order, with bounded memory.

Chunks are sent over a few connections at once, as many and as large as the engine takes (`pacing.py`);
outcomes come back in the order of the documents, so whoever reads them may move a checkpoint past every
one seen. Only what an engine rejected for the moment is sent again:

=====================================  ==========================================================
no connection, timeout, 429, 5xx       the chunk, after a wait with full jitter
an answer that is not this request's   the chunk: half an answer, or one that was sent twice
413                                    the chunk in two halves
an item with 429 or 503                that item
an item with a throttling's 400        that item: a model behind the engine asks to wait
a write block                          that item, until the block is lifted
an item that exists (409 on `create`)  the same content: a replay; other content: dead
an item that is newer (409, versions)  left as it is: unchanged
an item that was changed since (409)   left as it is: unchanged, and `CHANGED_SINCE`
an item with 401 or 403, or no index   the run ends: no other document would fare better
any other item error                   dead, with the engine's reason
=====================================  ==========================================================

A run that is put off longer than its patience ends, and can be resumed: no document is to blame for that.
Where others went in meanwhile, it is the document that the engine does not take (one beyond what its memory
allows, say), and it is dead. Two documents of one id are never under way at once, so the later one of the source is
what stays.

The engine call and the sleep are injected.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from bridge.engines.answers import reason_of
from bridge.errors import (
    DocumentError,
    EngineBusy,
    EngineTimeout,
    EngineUnreachable,
    IndexReadOnly,
    NotAnEngine,
    RequestTooLarge,
)
from bridge.itemerrors import Verdict, failure, full_disk, judge
from bridge.pacing import Limits, Pace
from bridge.patience import retryable, tried
from bridge.records import BulkOutcome, BulkResult, EncodedDoc

Send = Callable[[bytes], list[dict[str, Any]]]
"""One `_bulk` body ─▶ one item an action, in order."""

Hashes = Callable[[Sequence[str]], Mapping[str, str | None]]
"""Ids ─▶ the stored content hash of those that exist."""

Body = Callable[[EncodedDoc], Mapping[str, Any]]
"""What a document's `_source` becomes."""

CHANGED_SINCE = "it was changed, or deleted, after it was read"
"""The reason of an outcome where a document was to be written only as it had been read (`EncodedDoc.stored`)."""

_TRIES_IF_THROTTLED = 8
"""An item that is refused so often with a 400 is refused for itself, whatever the reason says."""

_TRIES_IF_UNREADABLE = 10
"""Answers in a row to one request that are no engine's: by then it is no gateway that is started again."""

_TRIES_TOGETHER = 4
"""A request that is put off so often goes on in halves: it may be more than the engine can take at once."""

_BLOCK_LOOK = 5.0
"""Seconds between two looks whether a write block is lifted."""

_BLOCK_SAID = 6
"""It is said again after so many looks."""


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """How to send.

    Attributes:
        operation: ``create`` on a fresh index, so that a document met twice is noticed; ``update`` to add what the
            body gives to documents that are there; else ``index``.
        chunk_documents, chunk_bytes: a chunk is closed before it passes either; they are upper bounds.
        in_flight: requests under way at once, at most; memory is bounded by twice as many chunks.
        patience: seconds to keep trying what an engine puts off, before giving up.
        block_patience: seconds to wait for a full disk's write block to be lifted.
    """

    operation: Literal["create", "index", "update"] = "index"
    chunk_documents: int = 500
    chunk_bytes: int = 5_000_000
    in_flight: int = 4
    patience: float = 600.0
    block_patience: float = 3600.0


class _Action(msgspec.Struct, frozen=True):
    document: EncodedDoc
    lines: bytes


_Entry = _Action | BulkOutcome
"""To be sent, or settled before and only carried along in its place."""


class BulkSender:
    """Sends documents.

    Attributes:
        retried: how many times a document was sent again.
        waited: seconds that the reader of outcomes waited for the engine.
        queued: documents handed in whose outcome has not come out.
    """

    def __init__(
        self,
        send: Send,
        body: Body,
        hashes: Hashes,
        options: BulkOptions | None = None,
        *,
        sleep: Callable[[float], None] | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._send = send
        self._body = body
        self._hashes = hashes
        self._options = options or BulkOptions()
        self._ended = threading.Event()
        self._sleep = sleep or self._doze
        self._warn = warn
        self._lock = threading.Lock()
        most = self._options
        self._pace = Pace(Limits(most.in_flight, most.chunk_documents, most.chunk_bytes))
        self._taken = 0
        self.retried = 0
        self.waited = 0.0
        self.queued = 0

    @property
    def ended(self) -> threading.Event:
        """Set when a run is over, however it ended."""
        return self._ended

    def run(self, documents: Iterable[EncodedDoc | BulkOutcome]) -> Generator[BulkOutcome, None, None]:
        """One outcome a document, in the documents' order; one that is an outcome already is passed through.

        Raises:
            EngineError: the engine cannot be used (credentials, index gone), or was put off longer
                than `patience`. Outcomes already given stand; the rest is unknown, and safe to send again.
        """
        waiting: deque[_Sent] = deque()
        self._ended.clear()
        with ThreadPoolExecutor(self._options.in_flight, thread_name_prefix="bulk") as pool:
            try:
                for ids, chunk in self._chunks(documents):
                    yield from self._room(waiting, ids)
                    waiting.append(_Sent(ids, pool.submit(self._deliver, chunk)))
                    self.queued += len(chunk)
                while waiting:
                    yield from self._next(waiting)
            finally:
                # What waits to try again must not hold up a run that is over.
                self._ended.set()
                for sent in waiting:
                    sent.future.cancel()

    def _room(self, waiting: deque[_Sent], ids: set[str]) -> Iterator[BulkOutcome]:
        """Take outcomes until one more chunk, with these `ids`, may be sent."""
        while waiting:
            under_way = [sent.future for sent in waiting if not sent.future.done()]
            if waiting[0].future.done() or not all(ids.isdisjoint(sent.ids) for sent in waiting):
                yield from self._next(waiting)
            elif len(waiting) >= 2 * self._options.in_flight:
                # The first is stuck, and the others must not pile up behind it.
                yield from self._next(waiting)
            elif len(under_way) >= self._pace.in_flight:
                started = time.monotonic()
                wait(under_way, return_when=FIRST_COMPLETED)
                self.waited += time.monotonic() - started
            else:
                return

    def _next(self, waiting: deque[_Sent]) -> Iterator[BulkOutcome]:
        started = time.monotonic()
        outcomes = waiting[0].future.result()
        self.waited += time.monotonic() - started
        waiting.popleft()
        self.queued -= len(outcomes)
        yield from outcomes

    def _chunks(self, documents: Iterable[EncodedDoc | BulkOutcome]) -> Iterator[tuple[set[str], list[_Entry]]]:
        """Chunks with the ids that they send, none of them twice."""
        ids: set[str] = set()
        chunk: list[_Entry] = []
        size = 0
        for document in documents:
            entry = document if isinstance(document, BulkOutcome) else self._entry(document)
            sent = entry if isinstance(entry, _Action) else None
            weight = len(sent.lines) if sent else 0
            full = len(chunk) >= self._pace.documents or (sent is not None and sent.document.id in ids)
            if chunk and (full or size + weight > self._pace.bytes):
                yield ids, chunk
                ids, chunk, size = set(), [], 0
            chunk.append(entry)
            size += weight
            if sent:
                ids.add(sent.document.id)
        if chunk:
            yield ids, chunk

    def _entry(self, document: EncodedDoc) -> _Entry:
        target: dict[str, Any] = {"_id": document.id}
        if document.version is not None:
            # At least: what is sent again after an unknown fate is not refused for having arrived.
            target |= {"version": document.version, "version_type": "external_gte"}
        if document.routing is not None:
            target["routing"] = document.routing
        if document.stored is not None:
            target |= {"if_seq_no": document.stored.seq_no, "if_primary_term": document.stored.primary_term}
        if document.op == "delete":
            return _Action(document, msgspec.json.encode({"delete": target}) + b"\n")
        try:
            body = self._body(document)
            if document.op == "update" or self._options.operation == "update":
                if document.stored is None:
                    target["retry_on_conflict"] = 3
                lines = msgspec.json.encode({"update": target}) + b"\n" + msgspec.json.encode({"doc": body}) + b"\n"
                return _Action(document, lines)
            source = msgspec.json.encode(body)
        except DocumentError as error:
            return _dead(document, str(error), 0)
        # A versioned write is never a `create`: engines take no version there.
        operation = "index" if document.version is not None else self._options.operation
        return _Action(document, b"%b\n%b\n" % (msgspec.json.encode({operation: target}), source))

    def _deliver(self, chunk: list[_Entry]) -> list[BulkOutcome]:
        """Outcomes of one chunk, in order; runs on a sender's thread."""
        outcomes = {place: entry for place, entry in enumerate(chunk) if isinstance(entry, BulkOutcome)}
        pending = [(place, entry) for place, entry in enumerate(chunk) if isinstance(entry, _Action)]
        delivery = _Delivery(time.monotonic(), self._taken)
        while pending:
            delivery.attempt += 1
            epoch, started = self._pace.epoch, time.monotonic()
            deadline = delivery.started + self._options.patience
            items, resent = self._request([action for _, action in pending], deadline)
            put_off, existing = self._sort(pending, items, outcomes, delivery)
            for place, outcome in self._compare(existing, delivery.attempt, resent=resent or delivery.attempt > 1):
                outcomes[place] = outcome
            if put_off:
                self._pace.put_off(epoch)
                put_off = self._wait(put_off, len(chunk), delivery, outcomes)
            else:
                self._pace.taken(time.monotonic() - started)
            pending = put_off
        return [outcomes[place] for place in range(len(chunk))]

    def _sort(
        self,
        pending: list[tuple[int, _Action]],
        items: list[dict[str, Any]],
        outcomes: dict[int, BulkOutcome],
        delivery: _Delivery,
    ) -> tuple[list[tuple[int, _Action]], list[tuple[int, _Action]]]:
        """Settle what is settled; gives what is to be sent again, and what existed."""
        put_off: list[tuple[int, _Action]] = []
        existing: list[tuple[int, _Action]] = []
        delivery.blocked, delivery.reason = False, ""
        for (place, action), item in zip(pending, items, strict=True):
            document = action.document
            ((operation, result),) = item.items()
            status, error = int(result.get("status", 0)), result.get("error")
            verdict = judge(status, error)
            if verdict is Verdict.THROTTLED:
                delivery.throttled[place] = delivery.throttled.get(place, 0) + 1
                if delivery.throttled[place] >= _TRIES_IF_THROTTLED:
                    verdict = Verdict.DEAD
            if verdict is Verdict.ENDS:
                raise failure(status, error, document.id)
            if verdict in (Verdict.AGAIN, Verdict.THROTTLED, Verdict.BLOCKED):
                put_off.append((place, action))
                delivery.blocked |= verdict is Verdict.BLOCKED
                delivery.disk |= verdict is Verdict.BLOCKED and full_disk(error)
                delivery.reason = reason_of({"error": error})
            elif verdict is Verdict.EXISTS and document.version is not None:
                outcomes[place] = BulkOutcome(
                    document.position, document.id, "unchanged", delivery.attempt, "the index has a newer version"
                )
            elif (verdict is Verdict.EXISTS and (document.stored is not None or operation == "create")) or (
                document.stored is not None and status == 404
            ):
                existing.append((place, action))
            else:
                outcomes[place] = _outcome(document, status, error, delivery.attempt)
        with self._lock:
            self._taken += len(pending) - len(put_off)
        return put_off, existing

    def _wait(
        self,
        put_off: list[tuple[int, _Action]],
        of: int,
        delivery: _Delivery,
        outcomes: dict[int, BulkOutcome],
    ) -> list[tuple[int, _Action]]:
        """Wait before documents are sent again; gives those that are.

        Raises:
            EngineBusy, IndexReadOnly: they were put off longer than the options allow.
        """
        options = self._options
        patience = options.block_patience if delivery.disk else options.patience
        if time.monotonic() - delivery.started > patience or self._ended.is_set():
            what = f"put off for {patience:g} s: {delivery.reason}"
            if self._taken > delivery.taken and not delivery.blocked:
                reason = f"the engine takes other documents, but this one was {what}"
                outcomes |= {place: _dead(action.document, reason, delivery.attempt) for place, action in put_off}
                return []
            leaf = IndexReadOnly if delivery.blocked else EngineBusy
            raise leaf(
                f"{len(put_off)} documents, {put_off[0][1].document.id!r} first, were {what}; the same command goes "
                "on where this one stopped"
            )
        self._count_retries(len(put_off))
        if delivery.blocked:
            if delivery.attempt % _BLOCK_SAID == 1:
                self._warn(f"the index takes no writes: {delivery.reason.rstrip(';')}; waiting until it does")
            self._sleep(random.uniform(_BLOCK_LOOK / 2, _BLOCK_LOOK))  # noqa: S311 - no secret
        else:
            self._warn(f"the engine puts off {len(put_off)} of {of} documents ({delivery.reason}); trying them again")
            # Full jitter, so that senders do not come back together.
            self._sleep(random.uniform(0, min(30.0, 0.5 * 2**delivery.attempt)))  # noqa: S311 - no secret
        return put_off

    def _request(self, actions: Sequence[_Action], deadline: float) -> tuple[list[dict[str, Any]], bool]:
        """One item an action, and whether any request was sent more than once."""
        epoch = self._pace.epoch
        body = b"".join(action.lines for action in actions)
        retrying = Retrying(
            retry=retry_if_exception(retryable),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_any(
                stop_after_delay(max(deadline - time.monotonic(), 0)),
                stop_when_event_set(self._ended),
                _StopTogether(len(actions)),
            ),
            sleep=self._sleep,
            before_sleep=lambda state: self._noticed(state, len(actions), epoch),
            reraise=True,
        )
        perhaps_taken = True
        try:
            items = tried(retrying, _Asker(self._send, actions), body)
        except RequestTooLarge:
            perhaps_taken = _attempts(retrying) > 1
            if len(actions) == 1:
                error = {"reason": "the document alone is larger than the engine takes"}
                return [{"index": {"status": 413, "error": error}}], False
            self._pace.too_large(len(body))
        except (EngineBusy, EngineTimeout) as error:
            if len(actions) == 1:
                reason = {"type": "put_off", "reason": str(error)}
                return [{"index": {"status": 429, "error": reason}}], True
            if time.monotonic() >= deadline or self._ended.is_set():
                raise
        else:
            return items, _attempts(retrying) > 1
        middle = len(actions) // 2
        (left, left_again), (right, right_again) = (
            self._request(actions[:middle], deadline),
            self._request(actions[middle:], deadline),
        )
        return [*left, *right], perhaps_taken or left_again or right_again

    def _noticed(self, state: RetryCallState, count: int, epoch: int) -> None:
        self._count_retries(count)
        self._pace.put_off(epoch)
        error = state.outcome.exception() if state.outcome else None
        self._warn(f"{error}; trying again")

    def _doze(self, seconds: float) -> None:
        self._ended.wait(seconds)

    def _count_retries(self, count: int) -> None:
        with self._lock:
            self.retried += count

    def _compare(
        self, existing: list[tuple[int, _Action]], attempt: int, *, resent: bool
    ) -> Iterator[tuple[int, BulkOutcome]]:
        """What a `create` met: the same content is a replay, other content is a second document of that id.

        What a write found that was to build on another state: the same content is this very write, sent before.
        """
        if not existing:
            return
        stored = self._hashes([action.document.id for _, action in existing])
        for place, action in existing:
            document = action.document
            if stored.get(document.id) == document.content_hash:
                # After a request of unknown fate, the one that is there is this very document.
                resent_before = resent or document.sent_before
                result: BulkResult = "indexed" if resent_before else "unchanged"
                yield place, BulkOutcome(document.position, document.id, result, attempt)
            elif document.stored is not None:
                kept = document.source
                yield place, BulkOutcome(document.position, document.id, "unchanged", attempt, CHANGED_SINCE, kept)
            else:
                reason = f"duplicate id {document.id!r}: another document of this load has it, with other content"
                yield place, _dead(document, reason, attempt)


def _attempts(retrying: Retrying) -> int:
    return int(retrying.statistics.get("attempt_number", 1))


@dataclass(frozen=True, slots=True)
class _Sent:
    ids: set[str]
    future: Future[list[BulkOutcome]]


@dataclass(slots=True)
class _Delivery:
    """How one chunk's delivery stands."""

    started: float
    taken: int
    """How many documents the engine had taken when it began."""
    attempt: int = 0
    blocked: bool = False
    disk: bool = False
    reason: str = ""
    throttled: dict[int, int] = field(default_factory=dict)
    """Place ─▶ how often it was refused with a throttling's 400."""


class _StopTogether(stop_base):
    """Ends the tries of several documents in one request that is put off again and again."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __call__(self, retry_state: RetryCallState) -> bool:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        busy = isinstance(error, (EngineBusy, EngineTimeout))
        return busy and self._count > 1 and retry_state.attempt_number >= _TRIES_TOGETHER


class _Asker:
    """Sends a body, and takes no other request's answer, nor half of one, for its own."""

    def __init__(self, send: Send, actions: Sequence[_Action]) -> None:
        self._send = send
        self._actions = actions
        self._unreadable = 0

    def __call__(self, body: bytes) -> list[dict[str, Any]]:
        try:
            items = self._send(body)
            self._check(items)
        except NotAnEngine as error:
            # In the middle of a load that is no wrong URL, but a gateway's page or an answer that broke off.
            self._unreadable += 1
            if self._unreadable >= _TRIES_IF_UNREADABLE:
                raise
            raise EngineUnreachable(str(error)) from error
        return items

    def _check(self, items: Any) -> None:
        ids = [action.document.id for action in self._actions]
        try:
            answered = [result.get("_id", name) for item, name in zip(items, ids, strict=True)
                        for result in item.values()]  # fmt: skip
        except (ValueError, AttributeError, TypeError):
            answered = []
        if answered != ids:
            raise NotAnEngine("the answer to a _bulk request is not that request's: something between mixes them up")


def _outcome(document: EncodedDoc, status: int, error: Any, attempt: int) -> BulkOutcome:
    if document.op == "delete" and status in (200, 404):
        return BulkOutcome(document.position, document.id, "deleted", attempt)
    if 200 <= status < 300:
        return BulkOutcome(document.position, document.id, "indexed", attempt)
    return _dead(document, f"the engine refused it ({status}): {reason_of({'error': error})}", attempt)


def _dead(document: EncodedDoc, reason: str, attempts: int) -> BulkOutcome:
    # A letter says what was asked for, so that trying it again asks for the same.
    kept = document.source if document.line is None else document.line
    kept = kept if document.op == "index" else {**kept, "_op": document.op}
    return BulkOutcome(
        document.position, document.id, "dead", attempts, reason, kept, document.version, document.routing
    )
