"""What is asked of the daemon, and what it answers, as records. `openapi.py` describes them as they stand here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bridge.dialects import Dialect
from bridge.hybrid import Fusion, Place
from bridge.records import Conversation, Product
from bridge.rewrite import Explain
from bridge.tokens import Kind

Object = dict[str, Any]

IndexName = Annotated[str, Meta(min_length=1, max_length=255, description="An index, or an alias of one.")]
Word = Annotated[str, Meta(min_length=1, max_length=512)]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What comes in: a field that is not known is refused, since it would do nothing."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What goes out."""


class Problem(Answer, frozen=True, kw_only=True):
    """What went wrong (RFC 9457, `application/problem+json`)."""

    title: str
    """The kind of error, as the library names it."""
    status: int
    detail: str
    """What happened, and what to do."""
    request_id: str
    """Also in the header X-Request-Id, and in the daemon's log."""


# --- asking


class TurnIn(Message, frozen=True, kw_only=True):
    """One turn of a conversation; the last has no answer yet."""

    question: str
    answer: str | None = None


class Asking(Message, frozen=True, kw_only=True):
    """A question, and how it is asked."""

    text: str | None = None
    """The question."""
    turns: list[TurnIn] = []
    """Instead: a conversation, oldest first; its last question is asked."""
    rewritten: str | None = None
    """The last question in words that need no context."""
    size: Annotated[int, Meta(ge=0, le=10_000)] = 10
    start: Annotated[int, Meta(ge=0, le=10_000)] = msgspec.field(default=0, name="from")
    min_score: Annotated[float, Meta(ge=0)] | None = None
    filter: Object | None = None
    """A query clause that hits must match."""
    passages: Annotated[int, Meta(ge=0, le=100)] = 0
    collapse: Word | None = None
    fields: list[Word] = []
    """Vector fields, like `title_embedding^2`; the index's own by default."""
    dialect: Dialect | None = None
    prune: Word | None = None
    """Like `top-k=16,max-ratio=0.1`."""
    conversation: Conversation = "auto"
    two_phase: bool = False
    seismic: Word | None = None
    """Like `top-n=10,heap-factor=1.5`."""
    analyzer: Word | None = None
    model_id: Word | None = None
    inference_id: Word | None = None
    hybrid: Word | None = None
    """Like `bm25,dense^2`."""
    fusion: Fusion = "linear"
    fuse: Place = "auto"
    depth: Annotated[int, Meta(ge=1, le=10_000)] = 100
    rank_constant: Annotated[int, Meta(ge=1, le=10_000)] = 60
    pipeline: Word | None = None
    ranked_by: Literal["vectors", "bm25"] = "vectors"
    """What ranks: the vectors, and what `hybrid` names beside them; or the words alone, to compare with."""


class Rewrite(Asking, frozen=True, kw_only=True):
    """A question that is to become a search body: for an index, or offline with one of the daemon's models."""

    index: IndexName | None = None
    model: Word | None = None
    """One of the daemon's `models`, where no index is asked."""
    engine: Product = "opensearch"
    """Without an index: what the body is for."""
    version: Annotated[str, Meta(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){0,2}$")] | None = None
    kind: Kind = "rank_features"
    nested_path: Word | None = None


class Rewritten(Answer, frozen=True, kw_only=True):
    """A search body, ready to send."""

    body: Object
    dropped: int
    """Tokens for which the engine's clause limit leaves no room."""
    pruned: int
    """Tokens that pruning removed."""


class Search(Asking, frozen=True, kw_only=True):
    """A question to an index."""

    index: IndexName
    explain: bool = False
    """Say which words of the text carry the tokens that made a score."""
    explained_by: Explain | None = None


class PassageOut(Answer, frozen=True, kw_only=True):
    """One of a hit's passages."""

    score: float
    text: str | None
    start: int | None = None
    end: int | None = None
    id: str | None = None
    tokens: dict[str, float] = {}


class HitOut(Answer, frozen=True, kw_only=True):
    """A hit, and what each token made of its score."""

    id: str
    score: float
    source: Object
    tokens: dict[str, float]
    passages: list[PassageOut] = []
    explanation: Object | UnsetType = UNSET


class Found(Answer, frozen=True, kw_only=True):
    """What a search has found, best first."""

    took: int
    """The engine's own milliseconds."""
    hits: list[HitOut]
    dropped: int
    pruned: int
    body: Object
    """What the engine was asked."""


# --- encoding


class Encode(Message, frozen=True, kw_only=True):
    """Texts that are to become sparse vectors."""

    texts: Annotated[list[str], Meta(min_length=1)]
    index: IndexName | None = None
    """Encode with this index's own model, …"""
    model: Word | None = None
    """… or with one of the daemon's `models`."""
    side: Literal["document", "query"] = msgspec.field(default="document", name="as")
    form: Literal["tokens", "ids"] = "tokens"
    """Whether a vector's keys are tokens or their ids in the model's vocabulary."""


class Encoded(Answer, frozen=True, kw_only=True):
    """A vector for each text, in order: token (or id) ─▶ weight."""

    model: str
    """The fingerprint of what encoded them."""
    vectors: list[dict[str, float]]


class Predict(Message, frozen=True, kw_only=True):
    """What a connector of OpenSearch's ml plugin asks, as `bridge attach opensearch` makes it."""

    texts: Annotated[list[str], Meta(min_length=1)]
    side: Literal["document", "query"]
    sparse_embedding_format: Literal["WORD", "TOKEN_ID"] = "WORD"


class Inference(Message, frozen=True, kw_only=True):
    """What an inference endpoint of Elasticsearch asks, as `bridge attach elasticsearch` makes it."""

    texts: Annotated[list[str], Meta(min_length=1)]
    side: Literal["document", "query"] = "document"


class TokenOut(Answer, frozen=True, kw_only=True):
    """An entry of a sparse vector."""

    token: str
    weight: float


class EmbeddingOut(Answer, frozen=True, kw_only=True):
    """The sparse vector of one text."""

    tokens: list[TokenOut]


class Inferred(Answer, frozen=True, kw_only=True):
    """A vector for each text, in order."""

    embeddings: list[EmbeddingOut]


# --- indexes


class IndexOut(Answer, frozen=True, kw_only=True):
    """An index that the bridge has made."""

    name: str
    documents: int
    model: Object
    """As in the index's `_meta.bridge`."""


class Indexes(Answer, frozen=True, kw_only=True):
    """All of them."""

    indexes: list[IndexOut]


class Register(Message, frozen=True, kw_only=True):
    """What an index should be like."""

    model: Word
    """One of the daemon's `models`, or the fingerprint of a fitted model that it has."""
    kind: Kind | None = None
    text_fields: list[Word] = []
    dense: Word | None = None
    """One of the daemon's `models`: a dense encoder."""
    two_phase: bool = False
    shards: Annotated[int, Meta(ge=1, le=1024)] | None = None
    replicas: Annotated[int, Meta(ge=0, le=100)] | None = None
    query_models: list[Word] = []
    passages: Literal["whole", "merge", "nested"] | None = None
    passage_tokens: Annotated[int, Meta(ge=1)] | None = None
    overlap: Annotated[int, Meta(ge=0)] | None = None
    prune: Word | None = None


class Registered(Answer, frozen=True, kw_only=True):
    """What registering did, or would do."""

    index: str
    model: str
    steps: list[str]
    diff: str
    dry_run: bool


# --- jobs


class Ingest(Message, frozen=True, kw_only=True):
    """Documents for an index: in the body, or a source under one of the daemon's roots."""

    index: IndexName
    documents: list[Object] = []
    source: Word | None = None
    model: Word | None = None
    dense: Word | None = None
    text_fields: list[Word] = []
    id_field: Word = "_id"
    id_from: Literal["field", "content"] = "field"
    where: Word | None = None
    limit: Annotated[int, Meta(ge=1)] | None = None


class Evaluate(Message, frozen=True, kw_only=True):
    """Judged queries (a BEIR folder under one of the daemon's roots) for an index."""

    index: IndexName
    folder: Word
    split: Annotated[str, Meta(pattern=r"^[\w-]{1,64}$")] = "test"
    conversations: Literal["last", "all", "rewrite", "auto", "disco"] | None = None
    hybrid: Word | None = None
    prune: Word | None = None


JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class JobOut(Answer, frozen=True, kw_only=True):
    """Something that takes longer than a request."""

    id: str
    kind: Literal["ingest", "evaluate"]
    index: str
    state: JobState
    created: str
    """UTC, as all times (RFC 3339)."""
    started: str | None = None
    ended: str | None = None
    attempts: int = 0
    """How often it was begun: more than once where the daemon was stopped in between."""
    progress: Object = {}
    result: Object | None = None
    error: str | None = None
    said: list[str] = []
    """The last lines that it said."""


class Jobs(Answer, frozen=True, kw_only=True):
    """The newest first."""

    jobs: list[JobOut]


class DeadLetters(Answer, frozen=True, kw_only=True):
    """What of a job could not go in, and why."""

    letters: list[Object]
    total: int


# --- health


class Health(Answer, frozen=True, kw_only=True):
    """Whether the daemon works."""

    status: Literal["ok", "not ready"]
    reason: str = ""


class About(Answer, frozen=True, kw_only=True):
    """What answers here."""

    name: str
    version: str
    engine: str | None
    models: list[str]
    indexes: list[str]
