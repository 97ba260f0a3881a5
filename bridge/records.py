"""The frozen records that both flows pass along.

::

    ingest   Doc ─▶ EncodedDoc ─▶ BulkOutcome
    query    Query ─▶ EncodedQuery ─▶ Hit

They are msgspec's structs: a frozen dataclass takes several times as long to make, which was a fifth of the work on a
document that has its vector, and longer to define.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

VECTOR_FIELD = "embedding"
"""The field of a document that keeps its sparse vector, unless another is asked for."""

PASSAGE_FIELD = "passages"
"""The nested field that keeps a document's passages with their vectors, unless another is asked for."""

DENSE_FIELD = "dense"
"""The field that keeps a document's dense vector, unless another is asked for."""

TEXT_FIELDS = ("title", "text")
"""The fields whose text is encoded, unless others are asked for; those that are there are joined."""

HASH_FIELD = "bridge_content_hash"
"""The field that keeps a document's content hash, so that unchanged text is not encoded again."""

Product = Literal["opensearch", "elasticsearch"]
"""The engines that are spoken to."""

Conversation = Literal["auto", "disco", "last", "all", "rewrite"]
"""How an encoder gets a conversation: ``disco`` is `bridge.conversation.flatten`, the others are forms of its `plain`,
``auto`` is the one that suits the encoder."""

Op = Literal["index", "delete", "update"]
"""What a document of a source asks for; an `update` changes fields that are not encoded, and leaves the rest."""

Ids = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]


class Vocabulary(Protocol):
    """What turns the ids of a `SparseVector` into tokens."""

    def __len__(self) -> int: ...

    def tokens(self, ids: Ids) -> tuple[str, ...]:
        """The tokens of `ids`, in that order."""
        ...


class SparseVector(msgspec.Struct, frozen=True):
    """A learned-sparse vector: `ids` int32[n] ascending and unique, `weights` float32[n] > 0.

    One record serves every field type: SEISMIC wants `ids`, `rank_features` wants `tokens`.
    """

    ids: Ids
    weights: Weights
    vocabulary: Vocabulary

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of `ids`, in the same order."""
        return self.vocabulary.tokens(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def as_dict(self) -> dict[str, float]:
        """Token ─▶ weight."""
        return dict(zip(self.tokens, self.weights.tolist(), strict=True))


class ReadyVector(msgspec.Struct, frozen=True):
    """A sparse vector in the words of an engine's field, written before: JSON objects of names and weights."""

    value: msgspec.Raw
    """Every token under the name that `bridge.tokens.feature_key` gives it."""
    dotted: msgspec.Raw | None
    """The tokens that hold a dot under their own names, which OpenSearch gets as well; None where there are none."""
    digest: str
    """Its hash."""


class DenseVector(msgspec.Struct, frozen=True):
    """A dense embedding, float32[dimension]."""

    values: Weights


class Position(msgspec.Struct, frozen=True):
    """Where a document stands in its source: a file's name and a line (or row) counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Stored(msgspec.Struct, frozen=True):
    """Which write of a stored document was read: one that builds on it is refused where there was another since."""

    seq_no: int
    primary_term: int
    digest: str | None
    """The content hash that the bridge had stored with it."""


class Doc(msgspec.Struct, frozen=True):
    """One document as its source gives it; `source` holds the user's fields, without the id."""

    id: str | None
    source: Mapping[str, Any]
    position: Position
    op: Op = "index"
    version: int | None = None
    """An external version, 0 to 2^63 - 1: an older document never replaces a newer one."""
    routing: str | None = None
    """What decides the shard, where that is not the id."""
    stored: Stored | None = None
    """The document is written only where it is stored as it was read."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A document that cannot go in, and why; `document` is what was read, as far as it was read."""

    position: Position
    id: str | None
    reason: str
    document: Any


class EncodedPassage(msgspec.Struct, frozen=True):
    """A passage's vector, and where the passage stands in the text that was encoded, in characters."""

    start: int
    end: int
    """Past its last character."""
    vector: SparseVector


class EncodedDoc(msgspec.Struct, frozen=True):
    """A document with its vectors, ready for the engine: nothing is lost between encode and bulk."""

    id: str
    source: Mapping[str, Any]
    position: Position
    content_hash: str
    sparse: SparseVector | ReadyVector | None = None
    dense: DenseVector | None = None
    passages: Sequence[EncodedPassage] | None = None
    """Instead of `sparse`, where passages are nested."""
    op: Op = "index"
    version: int | None = None
    """As `Doc.version`."""
    routing: str | None = None
    """As `Doc.routing`."""
    stored: Stored | None = None
    """As `Doc.stored`."""
    sent_before: bool = False
    """An interrupted run sent it already: where it exists, that is why."""
    line: Mapping[str, Any] | None = None
    """All that a vector file holds of it, for its letter, where it is not taken."""


class Turn(msgspec.Struct, frozen=True):
    """One turn of a conversation, oldest first in a sequence; the last has no answer yet."""

    question: str
    answer: str | None = None


class EncodedQuery(msgspec.Struct, frozen=True):
    """A query with its vectors; `text` is what the encoder read."""

    text: str
    sparse: SparseVector | None = None
    dense: DenseVector | None = None
    dropped: int = 0
    """Tokens that the engines' clause limit removed."""
    pruned: int = 0
    """Tokens that pruning removed."""
    pruned_mass: float = 0.0
    """The sum of their weights."""
    words: str = ""
    """What BM25 and a dense encoder read of a conversation; `text` where it is empty."""


BulkResult = Literal["indexed", "unchanged", "deleted", "dead"]


class BulkOutcome(msgspec.Struct, frozen=True):
    """What became of one document of a source: exactly one result, with the reason where it is dead."""

    position: Position
    id: str | None
    result: BulkResult
    attempts: int = 1
    reason: str | None = None
    document: Any = None
    """What the dead-letter file keeps; None unless dead."""
    version: int | None = None
    """As `Doc.version`; None unless dead."""
    routing: str | None = None
    """As `Doc.routing`; None unless dead."""


class Effort(msgspec.Struct, frozen=True):
    """What a load has spent so far, and what is under way.

    The two times are one thread's: whichever is longer is what the load waits for.
    """

    encode_seconds: float
    """Reading and encoding."""
    engine_seconds: float
    """Waiting for the engine."""
    retried: int
    """How many times a document was sent again."""
    queued: int
    """Documents that were handed to the sender and are not settled."""
    in_flight: int
    """Requests that are under way."""


class Progress(msgspec.Struct, frozen=True):
    """Where a run stands, for a progress bar: its stage, documents so far, and bytes of the source."""

    stage: str
    documents: int
    bytes_read: int
    bytes_total: int | None
    effort: Effort | None = None
    """Of a load."""


Report = Callable[[Progress], None]
"""What gets the progress, after every settled batch."""


class TokenScore(msgspec.Struct, frozen=True):
    """A token's part in a hit's score: `query_weight` × `document_weight` = `contribution`."""

    token: str
    query_weight: float
    document_weight: float

    @property
    def contribution(self) -> float:
        return self.query_weight * self.document_weight


class PassageHit(msgspec.Struct, frozen=True):
    """A passage of a hit: a piece of its text, or, of a collapsed index, a document of its own (with an id)."""

    score: float
    text: str | None
    """What it says; None where the text is not at hand."""
    start: int | None = None
    """Offset of its first character in the text that was encoded; None for a document of its own."""
    end: int | None = None
    """Offset past its last character."""
    id: str | None = None
    matches: Sequence[TokenScore] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; without what is not known."""
        found = {
            "id": self.id,
            "score": self.score,
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "tokens": {match.token: match.contribution for match in self.matches},
        }
        return {key: value for key, value in found.items() if value is not None}


class Hit(msgspec.Struct, frozen=True):
    """One search result; `matches` are the tokens that made the score, heaviest first.

    Where passages were found, they come best first, and `matches` are those of the best.
    """

    id: str
    score: float
    source: Mapping[str, Any]
    matches: Sequence[TokenScore] = ()
    passages: Sequence[PassageHit] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it: `tokens` says what each made of the score."""
        found = {
            "id": self.id,
            "score": self.score,
            "source": dict(self.source),
            "tokens": {match.token: match.contribution for match in self.matches},
        }
        return found | ({"passages": [one.as_dict() for one in self.passages]} if self.passages else {})
