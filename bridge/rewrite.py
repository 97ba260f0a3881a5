"""Text ─▶ tokens ─▶ DSL: the query side as a library.

Needs neither torch nor a client: with an inference-free or lexical model nothing heavier than
`tokenizers` is loaded.

>>> rewriter = QueryRewriter.load("model-folder", engine="opensearch", version="3.6.0")  # doctest: +SKIP
>>> body = rewriter.rewrite("what is the weather in ny")                                  # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import msgspec
from msgspec.structs import replace

from bridge import dialects
from bridge.clauses import MAX_TOKENS, most_tokens
from bridge.dialects import Dialect, Speaker
from bridge.dialects import passages as _passages
from bridge.dialects.features import filtered
from bridge.dialects.opensearch import SEISMIC
from bridge.dialects.seismic import Seismic
from bridge.encode import Encoder, load_encoder
from bridge.errors import UsageError
from bridge.querycache import QueryCache
from bridge.questions import Text as Text
from bridge.questions import query_text as query_text
from bridge.records import (
    DENSE_FIELD,
    HASH_FIELD,
    TEXT_FIELDS,
    VECTOR_FIELD,
    Conversation,
    DenseVector,
    EncodedQuery,
    Product,
    SparseVector,
)
from bridge.targets import Target, clause_for, read_field, targets_of, unasked
from bridge.tokens import Kind, by_ids, heaviest

if TYPE_CHECKING:
    # What few ask for is imported by whoever makes one: a process that rewrites starts sooner.
    from bridge.dialects.inside import Inside
    from bridge.encode.dense import DenseEncoder
    from bridge.engines import Engine
    from bridge.hybrid import Asked, Hybrid
    from bridge.prune import Pruning
    from bridge.twophase import TwoPhase

Explain = Literal["vectors", "engine"]
"""What says which token made what of a score: the stored vectors, or the engine."""

MOST_PASSAGES = 100
"""The engines' own limit on the inner hits of a hit."""


@dataclass(frozen=True, slots=True)
class QueryRewriter:
    """Turns questions into search bodies for one field of one engine. Safe to share between threads.

    Attributes:
        encoder: of queries; None where the cluster has its own, `inside`.
        targets: the vector fields that are asked, one at least; a document's score is the sum of all.
        pruning: what of a query's vector is not asked for.
        conversation: how turns become the encoder's input.
        hidden: vector fields that are not asked, and do not come with a hit.
        inside: what encodes queries in the cluster itself; they are sent as text then.
        two_phase: light tokens only change the order of what heavy ones find; see `bridge.twophase`.
        hybrid: what is asked beside the sparse fields, and how one ranking becomes of it; see `bridge.hybrid`.
        seismic: how far a search over a SEISMIC field looks; see `bridge.dialects.seismic`.
        cache: the queries that were encoded last; ``QueryCache(0)`` keeps none.

    Raises:
        UsageError, UnsupportedByEngine: `inside` or `hybrid` does not go with the rest, or with the engine; or that
            does not speak a target's dialect.
    """

    encoder: Encoder | None
    engine: Product
    version: tuple[int, ...]
    targets: tuple[Target, ...]
    text_fields: tuple[str, ...] = ()
    pruning: Pruning | None = None
    conversation: Conversation = "auto"
    hidden: tuple[str, ...] = ()
    inside: Inside | None = None
    two_phase: TwoPhase | None = None
    hybrid: Asked | None = None
    seismic: Seismic = SEISMIC
    cache: QueryCache = dataclass_field(default_factory=QueryCache, compare=False, repr=False)
    _unread: tuple[str, ...] = dataclass_field(init=False, compare=False, repr=False)
    """What of a document does not come with a hit."""
    _speakers: Mapping[str, Speaker] = dataclass_field(init=False, compare=False, repr=False)
    """How each target is asked, by path; these two are the same for every query, which are many."""

    def __post_init__(self) -> None:
        engine, version = self.engine, self.version
        speakers = {
            one.path: dialects.speaker(one.dialect, engine, version, one.kind, self.seismic) for one in self.targets
        }
        object.__setattr__(self, "_speakers", speakers)
        object.__setattr__(self, "_unread", self._excluded([one.outermost for one in self.targets]))
        if self.hybrid and self.two_phase:
            raise UsageError("a hybrid search asks each part in one phase; leave one of the two out")
        if self.inside is None:
            return
        if self.encoder:
            raise UsageError(f"either the cluster encodes queries, with {self.inside}, or a model here: name one")
        if self.pruning or self.two_phase:
            raise UsageError("pruning and phases are of vectors that are made here: the cluster makes its own")
        for target in self.targets:
            self.inside.check(self.engine, self.version, target.kind)

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        encoder: Encoder | None = None,
        engine: str = "opensearch",
        version: str = "3.6.0",
        field: str = VECTOR_FIELD,
        fields: Sequence[str] = (),
        kind: str = "rank_features",
        dialect: str | None = None,
        nested_path: str | None = None,
        pruning: Pruning | None = None,
        conversation: str = "auto",
        inside: Inside | None = None,
        two_phase: TwoPhase | None = None,
        seismic: Seismic = SEISMIC,
        hybrid: Hybrid | str | None = None,
        dense: str | None = None,
        dense_field: str = DENSE_FIELD,
        text_fields: Sequence[str] = TEXT_FIELDS,
        **options: Any,
    ) -> QueryRewriter:
        """A rewriter that asks no cluster: you say what the index is like.

        Args:
            model: a model's folder, or a fitted model's fingerprint; none with `inside`.
            encoder: a model that is loaded already, instead.
            engine: ``opensearch`` or ``elasticsearch``.
            version: of the engine, like ``3.6.0``.
            field: the index's vector field; with `nested_path` the one inside of each passage.
            fields: several of that kind instead, each with a boost like ``title_embedding^2`` if wanted; a document's
                score is their sum.
            kind: ``rank_features`` or ``sparse_vector``.
            dialect: ``neural_sparse``, ``rank_feature`` or ``sparse_vector``; the best one by default.
            nested_path: the nested field that holds the passages, if documents are kept as such.
            pruning: drop light tokens of queries.
            conversation: ``auto``, ``disco``, ``last``, ``all`` or ``rewrite``; see `query_text`.
            inside: what encodes queries in the cluster, instead of a model here.
            two_phase: ask in two phases; see `bridge.twophase`.
            seismic: how far a search over a SEISMIC field looks.
            hybrid: what is asked beside the sparse fields, like ``bm25,dense``; see `bridge.hybrid.read_hybrid`.
            dense: its dense encoder: a folder or a Hugging Face id.
            dense_field: the field with dense vectors.
            text_fields: where BM25 looks.
            options: device, precision and the rest, as for `bridge.load_encoder`.

        Raises:
            UsageError: an unknown word, a version that is none, or no model.
            UnsupportedByEngine: this engine does not speak the dialect, or does not encode so.
            ModelNotFound, ModelFormatError: see `bridge.load_encoder`.
        """
        product: Product = _one_of("engine", engine, get_args(Product))
        number = _version(version)
        checked: Kind = _one_of("kind", kind, get_args(Kind))
        form: Conversation = _one_of("conversation", conversation, get_args(Conversation))
        spoken = _dialect(dialect, product, number, checked)
        nested, targets = nested_path or None, []
        for name, boost in map(read_field, fields or (field,)):
            path = f"{nested}.{name}" if nested and not name.startswith(f"{nested}.") else name
            targets.append(Target(path, checked, spoken, boost, nested))
        if not model and not encoder and not inside:
            raise UsageError("name a model, or what encodes in the cluster")
        if model:
            encoder = load_encoder(model, **options)
        beside: Asked | None = None
        if hybrid:
            from bridge.hybrid import asked_offline

            beside = asked_offline(product, number, hybrid, dense, dense_field, tuple(text_fields), **options)
        return cls(
            encoder,
            product,
            number,
            tuple(targets),
            tuple(text_fields),
            pruning=pruning,
            conversation=form,
            inside=inside,
            two_phase=two_phase,
            hybrid=beside,
            seismic=seismic,
        )

    @classmethod
    def for_index(
        cls,
        engine: Engine,
        index: str,
        *,
        model: str | None = None,
        encoder: Encoder | None = None,
        fields: Sequence[str] = (),
        dialect: str | None = None,
        pruning: Pruning | None = None,
        conversation: str = "auto",
        inside: Inside | None = None,
        two_phase: TwoPhase | None = None,
        seismic: Seismic = SEISMIC,
        hybrid: Hybrid | str | None = None,
        dense: str | DenseEncoder | None = None,
        **options: Any,
    ) -> QueryRewriter:
        """A rewriter for an index: field, kind, passages, version and model are read off the cluster.

        Args:
            engine: where the index is.
            index: its name, or an alias.
            model: the query encoder; the index's own by default.
            encoder: one that is loaded already, instead.
            fields: the vector fields that are asked, by full path, with a boost like ``title_embedding^2`` each if
                wanted; the one that the bridge fills by default. Of an index that the bridge did not make these
                and the model must be named.
            dialect: the best one of each field by default.
            hybrid: what is asked beside the sparse fields, like ``bm25,dense``; see `bridge.hybrid.read_hybrid`.
            dense: the dense encoder, where it is not to be had from where the index's documents got theirs.
            pruning, conversation, inside, two_phase, seismic, options: as for `load`. What the cluster encodes with
                cannot be compared with the index's model: that they belong together is yours to know.

        Raises:
            IndexNotFound: there is no such index.
            UsageError: it has no such field; or the bridge did not make it, and no model and field is named.
            ModelMismatch: `model` is not one that the index is asked with.
            ModelNotFound: the index's model is neither cached nor stored in the cluster.
        """
        from bridge.indexmodel import IndexModel
        from bridge.modelstore import find_model

        form: Conversation = _one_of("conversation", conversation, get_args(Conversation))
        state = engine.require_index(index)
        there = IndexModel.of(state)
        if there is None and not ((model or encoder or inside) and fields):
            raise UsageError(
                f"index {index} was not made by the bridge (no _meta.bridge): register it, or name its vector field "
                "and the model of its vectors (--field, --model)"
            )
        if model:
            encoder = load_encoder(model, **options)
        if encoder and there:
            there.check_query_encoder(encoder, index)
        elif not encoder and not inside:
            encoder = find_model(engine, there.query_encoders[0] if there else "", **options)
        info = engine.info()
        spoken: Dialect | None = _one_of("dialect", dialect, get_args(Dialect)) if dialect else None
        asked = [read_field(one) for one in fields] or [(there.path if there else "", 1.0)]
        targets = targets_of(state.mappings, index, asked, info.product, info.version, spoken)
        beside: Asked | None = None
        if hybrid:
            from bridge.hybrid import asked_of

            beside = asked_of(engine, index, there, hybrid, dense, **options)
        return cls(
            encoder,
            info.product,
            info.version,
            targets,
            there.text_fields if there else (),
            pruning,
            form,
            unasked(state.mappings, targets),
            inside,
            two_phase,
            beside,
            seismic,
        )

    @property
    def field(self) -> str:
        """The full path of the first field that is asked."""
        return self.targets[0].path

    @property
    def kind(self) -> Kind:
        """Its type."""
        return self.targets[0].kind

    @property
    def dialect(self) -> Dialect:
        """How it is asked."""
        return self.targets[0].dialect

    @property
    def nested_path(self) -> str | None:
        """The nested field that holds passages, with it in each of them; None where vectors are of documents."""
        return self.targets[0].nested_path

    def question(self, text: Text, *, rewritten: str | None = None) -> str:
        """What the encoder reads for `text`; see `query_text`."""
        return query_text(self.encoder, text, self.conversation, rewritten=rewritten)

    def words(self, text: Text, *, rewritten: str | None = None) -> str:
        """What BM25 and a dense encoder read for `text`: words, in whatever form the encoder reads a conversation."""
        form = self.conversation if self.conversation in ("last", "all", "rewrite") else "auto"
        return query_text(None, text, form, rewritten=rewritten)

    def encode(self, text: Text, *, rewritten: str | None = None) -> EncodedQuery:
        """The query's vector, pruned, and cut to what engines take (1,000 tokens, heaviest first).

        Raises:
            UsageError: see `query_text`.
        """
        return self._asked([text], self._encoded([self.question(text, rewritten=rewritten)]), rewritten)[0]

    def encode_many(self, texts: Iterable[Text]) -> list[EncodedQuery]:
        """The same of several, in order: a neural encoder takes them together.

        Raises:
            UsageError: see `query_text`.
        """
        listed = list(texts)
        return self._asked(listed, self._encoded([self.question(text) for text in listed]))

    async def encode_async(self, text: Text, *, rewritten: str | None = None) -> EncodedQuery:
        """The same as `encode`, for an event loop: what is not known yet is encoded on a thread of its own.

        Raises:
            UsageError: see `query_text`.
        """
        # Whoever has no event loop is not to wait for its import: a tenth of a process's start.
        import asyncio

        if self.hybrid is None and isinstance(text, str) and (found := self.cache.get(self._key(text))):
            return found
        return await asyncio.to_thread(self.encode, text, rewritten=rewritten)

    def _key(self, question: str) -> Hashable:
        # A rewriter may be another's copy, with other settings and the same cache.
        return self.encoder, self.pruning, len(self.targets), question

    def _encoded(self, questions: Sequence[str]) -> list[EncodedQuery]:
        encoder = self.encoder
        if encoder is None:
            return [EncodedQuery(question, None) for question in questions]

        def made(new: list[str]) -> Iterable[EncodedQuery]:
            return map(self._cut, new, encoder.encode_query(new))

        return self.cache.find(questions, self._key, made)

    def _asked(
        self, texts: Sequence[Text], queries: list[EncodedQuery], rewritten: str | None = None
    ) -> list[EncodedQuery]:
        """The queries, with what the other parts of a hybrid search ask."""
        hybrid = self.hybrid
        if hybrid is None:
            return queries
        words = [self.words(text, rewritten=rewritten) for text in texts]
        vectors: list[DenseVector | None] = [None] * len(words)
        if encoder := hybrid.dense:

            def made(new: list[str]) -> Iterable[EncodedQuery]:
                rows = encoder.encode_query(new)
                return (EncodedQuery(text, dense=DenseVector(row)) for text, row in zip(new, rows, strict=True))

            vectors = [one.dense for one in self.cache.find(words, lambda text: (encoder, text), made)]
        asked = zip(queries, words, vectors, strict=True)
        return [replace(query, words=text, dense=vector) for query, text, vector in asked]

    def _cut(self, question: str, vector: SparseVector) -> EncodedQuery:
        pruned, mass = 0, 0.0
        if self.pruning:
            left = self.pruning.apply(vector)
            vector, pruned, mass = left.vector, left.removed, left.removed_mass
        dropped = 0
        if len(vector.ids) * len(self.targets) > MAX_TOKENS:
            vector, dropped = heaviest(vector, most_tokens(len(self.targets)))
        return EncodedQuery(question, vector, None, dropped, pruned, mass)

    def beside(self, encoded: EncodedQuery, filter: Mapping[str, Any] | None) -> EncodedQuery:  # noqa: A002
        """The query without the light tokens for which a long `filter` leaves no room, if it is that long."""
        if encoded.sparse is None or (not filter and len(encoded.sparse.ids) * len(self.targets) <= MAX_TOKENS):
            return encoded
        limit = most_tokens(len(self.targets), filter)
        if len(encoded.sparse) <= limit:
            return encoded
        vector, dropped = heaviest(encoded.sparse, limit)
        return replace(encoded, sparse=vector, dropped=encoded.dropped + dropped)

    def query(
        self, encoded: EncodedQuery, *, size: int = 10, passages: int = 0, explain: Explain | None = None
    ) -> dict[str, Any]:
        """The query clause alone; a query without any token matches nothing.

        `size` is how many hits are to be found, those before the first wanted one included. The rest is as for `body`.
        """
        if not encoded.sparse and not self.inside:
            return {"match_none": {}}
        inner = self._inner_hits(passages, explain) if passages and self.nested_path else None
        return self._clause(encoded.text, encoded.sparse, size, inner)

    def _clause(
        self, text: str, vector: SparseVector | None, size: int, inner: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        def ask(one: Target) -> dict[str, Any]:
            if vector is None:
                inside = cast("Inside", self.inside)
                return inside.query(self.engine, self.version, one.kind, one.path, text, size, self.seismic)
            return self._speakers[one.path](one.path, vector, size)

        return clause_for(self.targets, ask, inner)

    def _inner_hits(self, passages: int, explain: Explain | None) -> dict[str, Any]:
        vectors = [target.path for target in self.targets if target.nested_path == self.nested_path]
        read = [f"{self.nested_path}.start", f"{self.nested_path}.end", *(vectors if explain == "vectors" else [])]
        source = {"includes": read, **self._unhidden} if explain == "vectors" else {"includes": read}
        return _passages.inner_hits(passages, source, explain=explain == "engine")

    def body(
        self,
        encoded: EncodedQuery,
        *,
        size: int = 10,
        start: int = 0,
        min_score: float | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        passages: int = 0,
        collapse: str | None = None,
        explain: Explain | None = None,
    ) -> dict[str, Any]:
        """The search body of an encoded query; see `rewrite`.

        With `explain` comes along, of documents or of the `passages`, what says which token made what of a score: the
        stored ``vectors``, or the ``engine``'s own explanation.
        """
        self._check(passages, collapse)
        _check_page(size, start, min_score)
        encoded = self.beside(encoded, filter)
        if self.hybrid:
            self.check_hybrid(min_score=min_score, collapse=collapse, passages=passages)
            depth = self.hybrid.how.candidates(start + size)
            fused = self.hybrid.fused(self.engine, self._pieces(encoded, depth, filter), depth)
            return {"size": size, "_source": self._source(explain), **fused} | ({"from": start} if start else {})
        light: SparseVector | None = None
        if self.two_phase and encoded.sparse:
            self._check_two_phase(collapse, min_score)
            heavy, light = self.two_phase.part(encoded.sparse)
            encoded = replace(encoded, sparse=heavy)
        clause = self.query(encoded, size=start + size, passages=passages, explain=explain)
        clause = filtered(clause, filter)
        source = self._source(explain)
        found = {"size": size, "query": clause, "_source": source}
        if explain == "engine":
            found["explain"] = True
        if light and self.two_phase:
            found["rescore"] = self.two_phase.rescore(
                light, lambda some: self._clause(encoded.text, some, start + size), start + size
            )
        if start:
            found["from"] = start
        if min_score is not None:
            found["min_score"] = min_score
        if collapse:
            wanted = passages and not self.nested_path
            inner = _passages.inner_hits(passages, source, explain=explain == "engine") if wanted else None
            if inner and explain == "vectors" and self._unhidden:
                # There, no _source of an inner hit has its vector.
                inner["fields"] = [target.path for target in self.targets if not target.nested_path]
            found["collapse"] = _passages.collapse(collapse, inner)
        return found

    def parts(
        self,
        encoded: EncodedQuery,
        *,
        size: int = 10,
        start: int = 0,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> list[dict[str, Any]]:
        """The search bodies of a hybrid search's parts, for one `_msearch`; `bridge.hybrid.fuse` fuses the answers.

        Raises:
            UsageError: this rewriter makes no hybrid searches, or the page is out of range.
        """
        if self.hybrid is None:
            raise UsageError("only a hybrid search has parts; name them with hybrid")
        _check_page(size, start, None)
        depth = self.hybrid.how.candidates(start + size)
        pieces = self._pieces(self.beside(encoded, filter), depth, filter)
        return [{"size": depth, "_source": False, **piece} for piece in pieces]

    def _pieces(
        self,
        encoded: EncodedQuery,
        depth: int,
        filter: Mapping[str, Any] | None,  # noqa: A002
    ) -> list[dict[str, Any]]:
        asked = cast("Asked", self.hybrid)
        return asked.pieces(self.engine, self.query(encoded, size=depth), encoded, depth, filter)

    def _source(self, explain: Explain | None) -> dict[str, Any]:
        if explain != "vectors":
            return {"excludes": list(self._unread)}
        # What explains a passage comes with it, by its inner hits.
        nested = [one.outermost for one in self.targets if one.nested_path]
        return {"excludes": list(self._excluded(nested)), **self._unhidden}

    def _excluded(self, fields: Sequence[str]) -> tuple[str, ...]:
        """These fields and the hidden ones outside of them, once each, and the content hash."""
        hidden = (path for path in self.hidden if not any(path.startswith(f"{whole}.") for whole in fields))
        return *dict.fromkeys((*fields, *hidden)), HASH_FIELD

    @property
    def _unhidden(self) -> dict[str, bool]:
        # From 9.2 on Elasticsearch leaves vectors out of what it returns, unless asked by name or so.
        newer = self.engine == "elasticsearch" and self.version >= (9, 2)
        return {"exclude_vectors": False} if newer else {}

    def check_hybrid(self, *, min_score: float | None = None, collapse: str | None = None, passages: int = 0) -> None:
        """Raises UsageError for what a hybrid search cannot do."""
        if min_score is not None:
            raise UsageError("min_score would be compared with each part's scores, not the fused one; leave it out")
        if collapse:
            raise UsageError("engines do not collapse what they fuse; leave collapse out of a hybrid search")
        if passages:
            raise UsageError(
                "the passages of a hybrid search's hits come in a second request: bridge search and "
                "bridge.search.search make it"
            )

    def _check_two_phase(self, collapse: str | None, min_score: float | None) -> None:
        if collapse:
            raise UsageError("engines do not collapse what they score in two phases; leave one of them out")
        if min_score is not None:
            raise UsageError("min_score would be compared with the first phase's score; leave one of them out")
        if any(one.nested_path for one in self.targets):
            raise UsageError(
                "of nested passages the best by heavy tokens and the best by light ones may be two; ask in one phase"
            )
        if any(by_ids(one.kind, self.engine) for one in self.targets):
            raise UsageError("a SEISMIC field is searched approximately as it is; ask it in one phase")

    def _check(self, passages: int, collapse: str | None) -> None:
        if not 0 <= passages <= MOST_PASSAGES:
            raise UsageError(f"{passages} passages a hit: engines give up to {MOST_PASSAGES}")
        if passages and not self.nested_path and not collapse:
            raise UsageError(
                "this index keeps no passages in its documents; where each document is a passage, say with collapse "
                "which field names the whole"
            )

    def rewrite(
        self,
        text: Text,
        *,
        size: int = 10,
        start: int = 0,
        min_score: float | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        passages: int = 0,
        collapse: str | None = None,
        rewritten: str | None = None,
    ) -> dict[str, Any]:
        """A search body, ready to send.

        Args:
            text: a question, or a conversation's turns, oldest first; the last question is asked.
            size: hits wanted.
            start: how many of the best hits to pass over (the engines' ``from``).
            min_score: hits below it are left out.
            filter: a query clause that hits must match; it does not change scores.
            passages: how many of each hit's passages come with it, best first, under ``inner_hits.passages``.
            collapse: a keyword field: of the documents that share its value the best alone is a hit. For an index
                that holds each passage as a document.
            rewritten: see `query_text`.

        Raises:
            UsageError: see `query_text`; or passages are asked of an index that has none.
        """
        encoded = self.encode(text, rewritten=rewritten)
        return self.body(
            encoded, size=size, start=start, min_score=min_score, filter=filter, passages=passages, collapse=collapse
        )

    async def rewrite_async(self, text: Text, *, rewritten: str | None = None, **how: Any) -> dict[str, Any]:
        """The same as `rewrite`, without keeping an event loop waiting for the encoder."""
        return self.body(await self.encode_async(text, rewritten=rewritten), **how)

    def msearch(self, index: str, texts: Iterable[Text], **how: Any) -> bytes:
        """The body of an `_msearch` request (NDJSON) that asks `index` each of `texts`.

        Args:
            index: its name, or an alias.
            texts: questions or conversations; a neural encoder takes them together.
            how: as for `rewrite`, the same for all.

        Raises:
            UsageError: see `rewrite`.
        """
        head = msgspec.json.encode({"index": index})
        bodies = (msgspec.json.encode(self.body(query, **how)) for query in self.encode_many(texts))
        return b"".join(b"%b\n%b\n" % (head, body) for body in bodies)


def _check_page(size: int, start: int, min_score: float | None) -> None:
    if size < 0 or start < 0:
        raise UsageError(f"{size} hits from {start} on: neither can be below zero")
    if min_score is not None and not (math.isfinite(min_score) and min_score >= 0):
        raise UsageError(f"min_score {min_score} is no score: it is zero or more")


def _dialect(asked: str | None, product: Product, version: tuple[int, ...], kind: Kind) -> Dialect:
    if asked is None:
        return dialects.default_dialect(product, version, kind)
    dialect: Dialect = _one_of("dialect", asked, get_args(Dialect))
    dialects.check(dialect, product, version, kind)
    return dialect


def _one_of(what: str, value: str, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise UsageError(f"{what} {value!r} is not known; it is one of {', '.join(known)}")
    return value


def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("-")[0].split("."))
    except ValueError:
        raise UsageError(f"version {text!r} is not a version; it looks like 3.6.0") from None
