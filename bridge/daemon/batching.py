"""Texts of many requests ─▶ one batch of an encoder.

A neural encoder takes eight short texts in little more time than one. While it is busy, the texts that come meanwhile
wait in a queue; then it gets all of them together, up to a number of tokens. Nobody waits for others to come: a text
that finds the encoder idle is encoded at once, so that a batch is never slower than one by one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from bridge.encode import Encoder
from bridge.errors import BridgeError
from bridge.offsets import Span
from bridge.records import SparseVector, Vocabulary

_CHARACTERS = 4
"""Of a token, more or less; how many there are is known after the tokenizer has seen them, and that is too late."""


class Overloaded(BridgeError):
    """More is waiting than the daemon takes; the same request succeeds later."""

    retryable = True


class Batcher:
    """Calls of `encode` from many threads, put together.

    Args:
        encode: a list of texts ─▶ their vectors, in order. It is called by one thread at a time.
        tokens: about how many tokens it is given at once; a longer text is given alone.
        queued: how many texts may wait; 1 or more.
        name: of the thread that encodes.
    """

    def __init__(
        self, encode: Callable[[Sequence[str]], list[SparseVector]], *, tokens: int, queued: int, name: str
    ) -> None:
        self._encode = encode
        self._tokens, self._most = tokens, queued
        self._waiting: deque[tuple[str, Future[SparseVector]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.batches = 0
        self.texts = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many texts wait now."""
        return len(self._waiting)

    def submit(self, texts: Sequence[str]) -> list[Future[SparseVector]]:
        """A future for each text, in order.

        Raises:
            Overloaded: too many wait; none of these was taken.
        """
        futures: list[Future[SparseVector]] = [Future() for _ in texts]
        with self._changed:
            if self._closed:
                raise Overloaded("the daemon is shutting down")
            if self._waiting and len(self._waiting) + len(texts) > self._most:
                raise Overloaded(f"{len(self._waiting):,} texts wait to be encoded; try again in a moment")
            self._waiting.extend(zip(texts, futures, strict=True))
            self._changed.notify()
        return futures

    def __call__(self, texts: Sequence[str]) -> list[SparseVector]:
        """The vectors of `texts`, in order; waits for them.

        Raises:
            Overloaded: see `submit`.
        """
        return [future.result() for future in self.submit(texts)]

    def close(self) -> None:
        """Encode what waits, take nothing more, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            asked = [(text, future) for text, future in batch if future.set_running_or_notify_cancel()]
            if not asked:
                continue
            try:
                vectors = self._encode([text for text, _ in asked])
            except BaseException as error:
                for _, future in asked:
                    future.set_exception(error)
                continue
            self.batches += 1
            self.texts += len(asked)
            for (_, future), vector in zip(asked, vectors, strict=True):
                future.set_result(vector)

    def _next(self) -> list[tuple[str, Future[SparseVector]]]:
        """The next batch; empty at the end."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            batch: list[tuple[str, Future[SparseVector]]] = []
            longest = 0
            while self._waiting:
                # Shorter texts are padded to the longest.
                longest = max(longest, len(self._waiting[0][0]) // _CHARACTERS + 2)
                if batch and longest * (len(batch) + 1) > self._tokens:
                    break
                batch.append(self._waiting.popleft())
            return batch


class SharedEncoder:
    """An encoder whose calls, from any number of threads, are put together.

    Texts of documents and of queries wait apart: they are different calls of a model, and often different models.
    """

    def __init__(self, encoder: Encoder, *, tokens: int, queued: int) -> None:
        self.encoder = encoder
        self.documents = Batcher(encoder.encode_document, tokens=tokens, queued=queued, name="encode-documents")
        self.queries = Batcher(encoder.encode_query, tokens=tokens, queued=queued, name="encode-queries")

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def space(self) -> str:
        return self.encoder.space

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    @property
    def query_fingerprint(self) -> str:
        return self.encoder.query_fingerprint

    @property
    def encodes_documents(self) -> bool:
        return self.encoder.encodes_documents

    @property
    def portable(self) -> Mapping[str, tuple[Path, ...]]:
        return self.encoder.portable

    @property
    def vocabulary(self) -> Vocabulary:
        return self.encoder.vocabulary

    @property
    def open_vocabulary(self) -> bool:
        return self.encoder.open_vocabulary

    @property
    def ceilings(self) -> tuple[float, float]:
        return self.encoder.ceilings

    def spans(self, text: str) -> list[Span]:
        return self.encoder.spans(text)

    def encode_document(self, texts: Sequence[str]) -> list[SparseVector]:
        return self.documents(texts)

    def encode_query(self, texts: Sequence[str]) -> list[SparseVector]:
        return self.queries(texts)

    def close(self) -> None:
        """Encode what waits, and take nothing more."""
        self.documents.close()
        self.queries.close()
