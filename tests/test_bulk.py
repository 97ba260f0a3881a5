"""The bulk loop: one outcome a document, in order, whatever the engine answers. The engine is a function."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest

from bridge.bulk import BulkOptions, BulkSender
from bridge.encode.base import TokenVocabulary
from bridge.errors import (
    DocumentError,
    EngineBusy,
    EngineForbidden,
    EngineTimeout,
    EngineUnreachable,
    IndexNotFound,
    IndexReadOnly,
    NotAnEngine,
    RequestTooLarge,
)
from bridge.records import BulkOutcome, EncodedDoc, Position, SparseVector
from bridge.tokens import rank_features_value

Action = dict[str, Any]
"""``{"op", "id", "source"}``"""

TOO_MANY = {"status": 429, "error": {"type": "rejected", "reason": "queue is full"}}
MAPPING = {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "no field of that kind"}}
EXISTS = {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "document already exists"}}


@dataclass
class FakeIndex:
    """An index in a dictionary; `answer` may put its own answer to an action before the index's."""

    answer: Callable[[Action], Action | None] = lambda action: None
    requests: list[list[str]] = field(default_factory=list)
    """The ids of each request, in the order in which they came."""
    stored: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[str, str, Any]] = field(default_factory=list)
    """What changed the index: operation, id, source."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, body: bytes) -> list[Action]:
        actions = list(parsed(body))
        with self.lock:
            self.requests.append([action["id"] for action in actions])
            return [{action["op"]: self._one(action)} for action in actions]

    def _one(self, action: Action) -> Action:
        if (said := self.answer(action)) is not None:
            return said
        name = action["id"]
        if action["op"] == "create" and name in self.stored:
            return EXISTS
        self.history.append((action["op"], name, action["source"]))
        if action["op"] == "delete":
            return {"status": 200 if self.stored.pop(name, None) else 404}
        status = 200 if name in self.stored else 201
        self.stored[name] = action["source"]
        return {"status": status}

    def hashes(self, ids: Sequence[str]) -> dict[str, str | None]:
        return {name: self.stored[name]["hash"] for name in ids if name in self.stored}


def parsed(body: bytes) -> Iterator[Action]:
    lines = iter(body.decode().splitlines())
    for line in lines:
        ((op, target),) = json.loads(line).items()
        yield {"op": op, "id": target["_id"], "source": None if op == "delete" else json.loads(next(lines))}


def doc(name: str, content: str = "", op: Any = "index") -> EncodedDoc:
    return EncodedDoc(name, {"text": content}, Position("corpus.jsonl", 1), content, op=op)


def docs(count: int) -> list[EncodedDoc]:
    return [doc(str(i)) for i in range(count)]


def body_of(document: EncodedDoc) -> dict[str, Any]:
    return {**document.source, "hash": document.content_hash}


def sender(
    index: FakeIndex,
    *,
    send: Callable[[bytes], list[Action]] | None = None,
    waits: list[float] | None = None,
    **how: Any,
) -> BulkSender:
    def sleep(seconds: float) -> None:
        if waits is not None:
            waits.append(seconds)

    return BulkSender(send or index.send, body_of, index.hashes, BulkOptions(**how), sleep=sleep)


def failing(index: FakeIndex, *errors: Exception | None, after: bool = False) -> Callable[[bytes], list[Action]]:
    """The index's `send`, which raises these first; with `after`, once the index has done what it was asked."""
    left = list(errors)

    def send(body: bytes) -> list[Action]:
        error = left.pop(0) if left else None
        if error is None:
            return index.send(body)
        if after:
            index.send(body)
        raise error

    return send


def results(outcomes: Sequence[BulkOutcome]) -> list[tuple[str | None, str]]:
    return [(outcome.id, outcome.result) for outcome in outcomes]


# --- Chunks and order ---------------------------------------------------------------------------------------


def test_every_document_has_one_outcome_in_its_order() -> None:
    index = FakeIndex()

    def slower_first(body: bytes) -> list[Action]:
        time.sleep(0.03 if b'"_id":"0"' in body else 0)
        return index.send(body)

    outcomes = list(sender(index, send=slower_first, chunk_documents=10).run(docs(95)))
    assert results(outcomes) == [(str(i), "indexed") for i in range(95)]
    assert sorted(map(len, index.requests)) == [5] + [10] * 9


def test_chunks_are_closed_before_they_pass_the_bytes() -> None:
    sizes = []
    index = FakeIndex()

    def measured(body: bytes) -> list[Action]:
        sizes.append(len(body))
        return index.send(body)

    big = [doc(str(i), "x" * 100) for i in range(20)]
    assert len(list(sender(index, send=measured, chunk_bytes=1000).run(big))) == 20
    assert max(sizes) <= 1000
    assert min(sizes[:-1]) > 700


def test_a_document_larger_than_a_chunk_goes_alone() -> None:
    index = FakeIndex()
    documents = [doc("a"), doc("b", "x" * 5000), doc("c")]
    assert results(list(sender(index, chunk_bytes=1000, in_flight=1).run(documents))) == [
        ("a", "indexed"),
        ("b", "indexed"),
        ("c", "indexed"),
    ]
    assert index.requests == [["a"], ["b"], ["c"]]


def test_outcomes_that_are_settled_before_keep_their_place_and_are_not_sent() -> None:
    index = FakeIndex()
    settled = BulkOutcome(Position("corpus.jsonl", 2), "b", "unchanged")
    assert results(list(sender(index).run([doc("a"), settled, doc("c")]))) == [
        ("a", "indexed"),
        ("b", "unchanged"),
        ("c", "indexed"),
    ]
    assert index.requests == [["a", "c"]]


def test_nothing_gives_nothing() -> None:
    index = FakeIndex()
    assert list(sender(index).run([])) == []
    assert index.requests == []


def test_no_more_than_in_flight_chunks_are_under_way_and_one_more_is_read() -> None:
    index = FakeIndex()
    gate = threading.Event()
    now, most, read = 0, 0, 0

    def counted(body: bytes) -> list[Action]:
        nonlocal now, most
        with index.lock:
            now += 1
            most = max(most, now)
        gate.wait(5)
        with index.lock:
            now -= 1
        return index.send(body)

    def documents() -> Iterator[EncodedDoc]:
        nonlocal read
        for document in docs(100):
            read += 1
            yield document

    threading.Timer(0.2, lambda: (seen.append(read), gate.set())).start()
    seen: list[int] = []
    assert len(list(sender(index, send=counted, chunk_documents=5, in_flight=2).run(documents()))) == 100
    assert most == 2
    # Two chunks are being sent and a third waits; its end was seen by the first document of a fourth.
    assert seen == [16]


def test_behind_a_chunk_that_is_stuck_the_others_go_on_and_do_not_pile_up() -> None:
    index = FakeIndex()
    gate = threading.Event()
    read = 0

    def first_is_stuck(body: bytes) -> list[Action]:
        if b'"_id":"0"' in body:
            gate.wait(5)
        return index.send(body)

    def documents() -> Iterator[EncodedDoc]:
        nonlocal read
        for document in docs(100):
            read += 1
            yield document

    seen: list[int] = []
    threading.Timer(0.3, lambda: (seen.append(read), gate.set())).start()
    outcomes = list(sender(index, send=first_is_stuck, chunk_documents=5, in_flight=2).run(documents()))
    assert results(outcomes) == [(str(i), "indexed") for i in range(100)]
    # Twice as many chunks as may be under way, and one more, whose end the next document showed.
    assert seen == [26]


def test_the_later_document_of_an_id_is_what_stays() -> None:
    index = FakeIndex()

    def slower_first(body: bytes) -> list[Action]:
        time.sleep(0.05 if b"old" in body else 0)
        return index.send(body)

    documents = [doc("x", "old"), *docs(9), doc("x", "new"), *docs(3)]
    outcomes = list(sender(index, send=slower_first, chunk_documents=10).run(documents))
    assert {result for _, result in results(outcomes)} == {"indexed"}
    assert index.stored["x"]["text"] == "new"


def test_a_put_off_document_does_not_overtake_a_later_one_of_its_id() -> None:
    index = FakeIndex()
    put_off = iter([TOO_MANY])
    index.answer = lambda action: next(put_off, None) if (action["source"] or {}).get("text") == "old" else None
    list(sender(index).run([doc("x", "old"), doc("y"), doc("x", "new")]))
    assert index.stored["x"]["text"] == "new"


def test_a_deletion_and_its_document_keep_their_order() -> None:
    index = FakeIndex()
    documents = [doc("x", "1"), doc("x", op="delete"), doc("x", "2"), doc("x", op="delete"), doc("x", "3")]
    outcomes = list(sender(index, operation="create").run(documents))
    assert [outcome.result for outcome in outcomes] == ["indexed", "deleted", "indexed", "deleted", "indexed"]
    assert [(op, (source or {}).get("text")) for op, _, source in index.history] == [
        ("create", "1"),
        ("delete", None),
        ("create", "2"),
        ("delete", None),
        ("create", "3"),
    ]


# --- What each answer means ---------------------------------------------------------------------------------


def test_items_with_429_are_sent_again_and_no_others() -> None:
    index = FakeIndex()
    busy = {"1": 2, "3": 1}

    def answer(action: Action) -> Action | None:
        name = action["id"]
        if busy.get(name, 0) > 0:
            busy[name] -= 1
            return TOO_MANY
        return None

    index.answer = answer
    waits: list[float] = []
    one = sender(index, waits=waits)
    outcomes = list(one.run(docs(5)))
    assert index.requests == [["0", "1", "2", "3", "4"], ["1", "3"], ["1"]]
    assert [outcome.attempts for outcome in outcomes] == [1, 3, 1, 2, 1]
    assert results(outcomes) == [(str(i), "indexed") for i in range(5)]
    assert one.retried == 3
    assert len(waits) == 2


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_item_that_the_engine_puts_off_is_tried_again(status: int) -> None:
    index = FakeIndex()
    first = iter([{"status": status, "error": {"reason": "later"}}])
    index.answer = lambda action: next(first, None)
    (outcome,) = sender(index).run([doc("a")])
    assert (outcome.result, outcome.attempts) == ("indexed", 2)


@pytest.mark.parametrize(
    "error",
    [
        EngineBusy("503", status=503),
        EngineTimeout("slow"),
        EngineUnreachable("gone"),
        IndexReadOnly("full", status=429),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_request_that_failed_for_the_moment_is_sent_again_whole(error: Exception) -> None:
    index = FakeIndex()
    said: list[str] = []
    waits: list[float] = []
    one = BulkSender(
        failing(index, error, error), body_of, index.hashes, BulkOptions(), sleep=waits.append, warn=said.append
    )
    assert results(list(one.run(docs(3)))) == [("0", "indexed"), ("1", "indexed"), ("2", "indexed")]
    assert index.requests == [["0", "1", "2"]]
    assert (one.retried, len(waits)) == (6, 2)
    assert said == [f"{error}; trying again"] * 2


def test_a_request_that_is_too_large_is_halved_until_it_fits() -> None:
    index = FakeIndex()

    def small_only(body: bytes) -> list[Action]:
        if len(list(parsed(body))) > 2:
            raise RequestTooLarge("too large", status=413)
        return index.send(body)

    outcomes = list(sender(index, send=small_only).run(docs(7)))
    assert results(outcomes) == [(str(i), "indexed") for i in range(7)]
    assert index.requests == [["0"], ["1", "2"], ["3", "4"], ["5", "6"]]


def test_a_document_that_is_too_large_alone_is_dead_and_the_rest_goes_in() -> None:
    index = FakeIndex()

    def no_monster(body: bytes) -> list[Action]:
        if b"monster" in body:
            raise RequestTooLarge("too large", status=413)
        return index.send(body)

    outcomes = list(sender(index, send=no_monster).run([doc("a"), doc("m", "monster"), doc("c")]))
    assert results(outcomes) == [("a", "indexed"), ("m", "dead"), ("c", "indexed")]
    assert outcomes[1].reason == "the engine refused it (413): the document alone is larger than the engine takes"


def test_an_item_that_the_engine_refuses_is_dead_with_its_reason_and_whole() -> None:
    index = FakeIndex(answer=lambda action: MAPPING if action["id"] == "1" else None)
    dead = list(sender(index).run([doc("0"), doc("1", "content"), doc("2")]))[1]
    assert (dead.result, dead.reason) == ("dead", "the engine refused it (400): no field of that kind")
    assert (dead.document, dead.position) == ({"text": "content"}, Position("corpus.jsonl", 1))
    assert index.requests == [["0", "1", "2"]]


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (403, "security_exception", EngineForbidden),
        (401, "security_exception", EngineForbidden),
        (404, "index_not_found_exception", IndexNotFound),
        (400, "index_closed_exception", IndexNotFound),
    ],
)
def test_an_item_that_waiting_does_not_mend_ends_the_run_instead_of_burying_every_document(
    status: int, kind: str, error: type[Exception]
) -> None:
    index = FakeIndex(answer=lambda action: {"status": status, "error": {"type": kind, "reason": "no"}})
    with pytest.raises(error):
        list(sender(index).run(docs(3)))


WRITE_BLOCK = {"status": 403, "error": {"type": "cluster_block_exception",
               "reason": "index [i] blocked by: [FORBIDDEN/8/index write (api)];"}}  # fmt: skip
FULL_DISK = {"status": 429, "error": {"type": "cluster_block_exception", "reason": "index [i] blocked by: "
             "[TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];"
             }}  # fmt: skip
QUEUE = {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "rejected execution"}}
RATE = {"status": 400, "error": {"type": "status_exception", "reason": "Error from remote service: Too many requests"}}


@pytest.mark.parametrize("block", [WRITE_BLOCK, FULL_DISK], ids=["write", "disk"])
def test_a_write_block_is_waited_for_and_said(block: Action) -> None:
    index = FakeIndex()
    left = 4
    said: list[str] = []

    def answer(action: Action) -> Action | None:
        nonlocal left
        left -= 1
        return block if left >= 0 else None

    index.answer = answer
    options = BulkOptions()
    one = BulkSender(index.send, body_of, index.hashes, options, sleep=lambda seconds: None, warn=said.append)
    assert results(list(one.run(docs(2)))) == [("0", "indexed"), ("1", "indexed")]
    assert len(said) == 1
    assert said[0].startswith("the index takes no writes: index [i] blocked by: [")


@pytest.mark.parametrize(
    ("answer", "error", "how"),
    [
        (WRITE_BLOCK, IndexReadOnly, {"patience": 0.01}),
        (FULL_DISK, IndexReadOnly, {"block_patience": 0.01}),
        (QUEUE, EngineBusy, {"patience": 0.01}),
    ],
    ids=["write", "disk", "queue"],
)
def test_what_is_put_off_for_too_long_ends_the_run_and_no_document_is_dead(
    answer: Action, error: type[Exception], how: dict[str, float]
) -> None:
    index = FakeIndex(answer=lambda action: answer)
    with pytest.raises(error, match="the same command goes on where this one stopped"):
        list(BulkSender(index.send, body_of, index.hashes, BulkOptions(**how), sleep=time.sleep).run(docs(3)))


def test_a_full_disk_is_waited_for_longer_than_a_queue() -> None:
    index = FakeIndex()
    started = time.monotonic()
    index.answer = lambda action: FULL_DISK if time.monotonic() - started < 0.2 else None
    one = sender(index, patience=0.01)
    assert results(list(one.run([doc("a")]))) == [("a", "indexed")]


def test_a_throttling_that_says_400_is_tried_again() -> None:
    index = FakeIndex()
    first = iter([RATE, RATE])
    index.answer = lambda action: next(first, None)
    (outcome,) = sender(index).run([doc("a")])
    assert (outcome.result, outcome.attempts) == ("indexed", 3)


def test_a_throttling_that_does_not_end_is_dead_with_its_reason() -> None:
    index = FakeIndex(answer=lambda action: RATE if action["id"] == "1" else None)
    outcomes = list(sender(index).run(docs(3)))
    assert results(outcomes) == [("0", "indexed"), ("1", "dead"), ("2", "indexed")]
    assert outcomes[1].reason == "the engine refused it (400): Error from remote service: Too many requests"


def test_a_document_whose_text_speaks_of_throttling_is_dead_at_once() -> None:
    reason = "failed to parse field [n] of type [long]. Preview of field's value: 'too many requests, throttled'"
    error = {"type": "mapper_parsing_exception", "reason": reason}
    index = FakeIndex(answer=lambda action: {"status": 400, "error": error})
    (outcome,) = sender(index).run([doc("a")])
    assert (outcome.result, outcome.attempts) == ("dead", 1)


def test_a_request_that_is_put_off_again_and_again_goes_on_in_halves() -> None:
    index = FakeIndex()

    def four_at_most(body: bytes) -> list[Action]:
        if len(list(parsed(body))) > 4:
            raise EngineBusy("more than the memory allows", status=429)
        return index.send(body)

    outcomes = list(sender(index, send=four_at_most).run(docs(10)))
    assert results(outcomes) == [(str(i), "indexed") for i in range(10)]


def test_what_was_taken_unnoticed_before_it_was_halved_is_indexed_and_not_unchanged() -> None:
    index = FakeIndex()

    def takes_and_says_nothing(body: bytes) -> list[Action]:
        items = index.send(body)
        if len(list(parsed(body))) > 4:
            raise EngineTimeout("no answer")
        return items

    outcomes = list(sender(index, send=takes_and_says_nothing, operation="create").run(docs(8)))
    assert results(outcomes) == [(str(i), "indexed") for i in range(8)]


def test_a_document_that_the_engine_never_takes_is_dead_and_the_rest_is_in() -> None:
    index = FakeIndex()

    def no_monster(body: bytes) -> list[Action]:
        if b"monster" in body:
            raise EngineBusy("more than the memory allows", status=429)
        return index.send(body)

    one = BulkSender(no_monster, body_of, index.hashes, BulkOptions(patience=0.3), sleep=lambda s: time.sleep(s / 100))
    outcomes = list(one.run([doc("a"), doc("m", "monster"), doc("c")]))
    assert results(outcomes) == [("a", "indexed"), ("m", "dead"), ("c", "indexed")]
    assert "put off for 0.3 s: more than the memory allows" in str(outcomes[1].reason)


# --- Answers that cannot be relied on -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda items: items[:-1],
        lambda items: [*items, *items],
        lambda items: [],
        lambda items: [{"index": {"_id": "other", "status": 201}} for _ in items],
        lambda items: ["half"],
        lambda items: None,
    ],
    ids=["short", "twice", "empty", "another's", "no item", "nothing"],
)
def test_an_answer_that_is_not_this_requests_is_not_believed(wrong: Callable[[list[Action]], Any]) -> None:
    index = FakeIndex()
    first = iter([wrong])

    def send(body: bytes) -> Any:
        items = index.send(body)
        return next(first, lambda same: same)(items)

    one = sender(index, send=send, operation="create")
    assert results(list(one.run([doc("a", "1"), doc("b", "2")]))) == [("a", "indexed"), ("b", "indexed")]
    assert one.retried == 2


def test_an_unreadable_answer_is_asked_for_again_but_not_for_ever() -> None:
    index = FakeIndex()
    one = sender(index, send=failing(index, *[NotAnEngine("a page")] * 3))
    assert results(list(one.run([doc("a")]))) == [("a", "indexed")]
    with pytest.raises(NotAnEngine):
        list(sender(index, send=failing(index, *[NotAnEngine("a page")] * 30)).run([doc("b")]))


# --- Versions, updates, pace --------------------------------------------------------------------------------


def test_a_version_is_sent_and_a_newer_one_in_the_index_stays() -> None:
    sent: list[dict[str, Any]] = []

    def send(body: bytes) -> list[Action]:
        sent.extend(json.loads(line) for line in body.splitlines()[::2])
        return [{"index": {"_id": "a", "status": 201}}, {"index": {"_id": "b", **EXISTS}}]

    documents = [msgspec.structs.replace(doc(name), version=7) for name in "ab"]
    outcomes = list(BulkSender(send, body_of, lambda ids: {}, BulkOptions(operation="create")).run(documents))
    assert [outcome.result for outcome in outcomes] == ["indexed", "unchanged"]
    assert outcomes[1].reason == "the index has a newer version"
    assert sent[0] == {"index": {"_id": "a", "version": 7, "version_type": "external_gte"}}


def test_an_update_sends_only_what_changes() -> None:
    sent: list[Any] = []

    def send(body: bytes) -> list[Action]:
        sent.extend(map(json.loads, body.splitlines()))
        return [{"update": {"_id": "a", "status": 200}}]

    (outcome,) = BulkSender(send, lambda document: document.source, lambda ids: {}).run([doc("a", "new", op="update")])
    assert outcome.result == "indexed"
    assert sent == [{"update": {"_id": "a", "retry_on_conflict": 3}}, {"doc": {"text": "new"}}]


def test_what_an_interrupted_run_sent_counts_as_indexed() -> None:
    index = FakeIndex(stored={"a": body_of(doc("a", "1"))})
    documents = [msgspec.structs.replace(doc("a", "1"), sent_before=True), doc("b", "2")]
    outcomes = list(sender(index, operation="create").run(documents))
    assert results(outcomes) == [("a", "indexed"), ("b", "indexed")]


def test_a_run_that_is_over_does_not_wait_for_what_is_put_off() -> None:
    index = FakeIndex(answer=lambda action: QUEUE if action["id"] == "1" else None)
    one = BulkSender(index.send, body_of, index.hashes, BulkOptions(chunk_documents=1, in_flight=2))
    outcomes = one.run(docs(5))
    assert next(outcomes).result == "indexed"
    started = time.monotonic()
    outcomes.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 5


def test_a_refusal_halves_what_is_sent_and_answers_bring_it_back() -> None:
    index = FakeIndex()
    busy = iter([QUEUE] * 100)
    index.answer = lambda action: next(busy, None)
    list(sender(index, chunk_documents=64, in_flight=1).run(docs(2000)))
    sizes = [len(request) for request in index.requests]
    assert sizes[0] == 64
    assert min(sizes[2:-1]) <= 32
    assert 64 in sizes[4:]


@pytest.mark.parametrize("error", [EngineForbidden("401", status=401), IndexNotFound("gone", status=404)])
def test_an_error_that_waiting_does_not_mend_ends_the_run_at_once(error: Exception) -> None:
    index = FakeIndex()
    waits: list[float] = []
    with pytest.raises(type(error)):
        list(sender(index, send=failing(index, error), waits=waits).run(docs(3)))
    assert waits == []


def test_outcomes_before_a_failing_chunk_are_given() -> None:
    index = FakeIndex()

    def later_fails(body: bytes) -> list[Action]:
        if b'"_id":"7"' in body:
            raise EngineForbidden("401", status=401)
        return index.send(body)

    given: list[BulkOutcome] = []
    with pytest.raises(EngineForbidden):
        given.extend(sender(index, send=later_fails, chunk_documents=2, in_flight=1).run(docs(20)))
    assert results(given) == [(str(i), "indexed") for i in range(6)]


def test_deleting_what_is_not_there_is_deleted() -> None:
    index = FakeIndex(stored={"there": {"hash": ""}})
    outcomes = list(sender(index).run([doc("there", op="delete"), doc("not", op="delete")]))
    assert results(outcomes) == [("there", "deleted"), ("not", "deleted")]


def test_a_vector_that_no_engine_takes_is_dead_and_is_not_sent() -> None:
    index = FakeIndex()
    broken = SparseVector(np.array([0], np.int32), np.array([np.nan], np.float32), TokenVocabulary(["a"]))

    def body(document: EncodedDoc) -> dict[str, Any]:
        return {"v": rank_features_value(broken, "opensearch"), "hash": ""} if document.id == "1" else {"hash": ""}

    outcomes = list(BulkSender(index.send, body, index.hashes).run(docs(3)))
    assert results(outcomes) == [("0", "indexed"), ("1", "dead"), ("2", "indexed")]
    assert (outcomes[1].reason, outcomes[1].attempts) == ("the model gave a weight that is not a finite number", 0)
    assert index.requests == [["0", "2"]]


def test_a_reason_of_ones_own_is_kept() -> None:
    def body(document: EncodedDoc) -> dict[str, Any]:
        raise DocumentError("not this one")

    (outcome,) = BulkSender(FakeIndex().send, body, FakeIndex().hashes).run([doc("a", "content")])
    assert (outcome.result, outcome.reason, outcome.document) == ("dead", "not this one", {"text": "content"})


# --- Documents that are met twice ---------------------------------------------------------------------------


def test_on_a_fresh_index_the_same_document_again_is_unchanged_and_another_of_its_id_is_dead() -> None:
    index = FakeIndex()
    outcomes = list(sender(index, operation="create").run([doc("x", "one"), doc("x", "one"), doc("x", "two")]))
    assert [outcome.result for outcome in outcomes] == ["indexed", "unchanged", "dead"]
    assert outcomes[2].reason == "duplicate id 'x': another document of this load has it, with other content"
    assert index.stored["x"]["text"] == "one"


def test_after_a_timeout_what_the_engine_has_already_counts_as_indexed() -> None:
    index = FakeIndex()
    send = failing(index, EngineTimeout("no answer"), after=True)
    outcomes = list(sender(index, send=send, operation="create").run([doc("a", "1"), doc("b", "2")]))
    assert results(outcomes) == [("a", "indexed"), ("b", "indexed")]
    assert len(index.history) == 2


def test_after_a_timeout_a_document_of_another_load_is_still_a_duplicate() -> None:
    index = FakeIndex(stored={"b": {"hash": "other", "text": "other"}})
    send = failing(index, EngineTimeout("no answer"), after=True)
    outcomes = list(sender(index, send=send, operation="create").run([doc("a", "1"), doc("b", "2")]))
    assert results(outcomes) == [("a", "indexed"), ("b", "dead")]


# --- Memory ---------------------------------------------------------------------------------------------------


def test_requests_that_are_settled_do_not_wait_for_the_collector_of_cycles() -> None:
    index = FakeIndex()

    def send(body: bytes) -> list[Action]:
        if not tried.is_set():
            tried.set()
            raise EngineBusy("503", status=503)
        return index.send(body)

    tried = threading.Event()
    gc.collect()
    gc.disable()
    try:
        settled = 0
        for _ in sender(index, send=send, chunk_documents=10).run(doc(f"settled-{i}") for i in range(1000)):
            settled += 1
            if settled == 900:
                # While its threads live: what they keep goes when they end.
                # By type: to ask an object of another library for its class may make it warn.
                there = [one.id for one in gc.get_objects() if type(one) is EncodedDoc]
        assert settled == 1000
        assert len([name for name in there if name.startswith("settled-")]) < 200
    finally:
        gc.enable()


# --- Patience -----------------------------------------------------------------------------------------------


def test_a_document_that_is_put_off_beyond_all_patience_is_dead_and_the_rest_is_in() -> None:
    index = FakeIndex(answer=lambda action: TOO_MANY if action["id"] == "1" else None)
    outcomes = list(sender(index, patience=0.0).run(docs(3)))
    assert results(outcomes) == [("0", "indexed"), ("1", "dead"), ("2", "indexed")]
    assert outcomes[1].reason == "the engine takes other documents, but this one was put off for 0 s: queue is full"


def test_an_engine_that_is_away_beyond_all_patience_ends_the_run_with_its_error() -> None:
    index = FakeIndex()
    with pytest.raises(EngineUnreachable, match="gone"):
        list(sender(index, send=failing(index, *[EngineUnreachable("gone")] * 9), patience=0.0).run(docs(3)))
    assert index.requests == []


def test_waits_grow_differ_and_stay_below_half_a_minute() -> None:
    index = FakeIndex()
    waits: list[float] = []
    send = failing(index, *[EngineBusy("503", status=503)] * 30)
    list(sender(index, send=send, waits=waits).run(docs(1)))
    assert len(waits) == 30
    assert len(set(waits)) == 30
    assert max(waits[:2]) <= 1
    assert 5 < max(waits) <= 30
