"""Text ─▶ tokens ─▶ DSL: the query side as a library.

Needs neither torch nor a client: with an inference-free or lexical model nothing heavier than
`tokenizers` is loaded.

>>> rewriter = QueryRewriter.load("model-folder", engine="opensearch", version="3.6.0")  # doctest: +SKIP
>>> body = rewriter.rewrite("what is the weather in ny")                                  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from bridge import dialects
from bridge.dialects import Dialect
from bridge.encode import Encoder, load_encoder
from bridge.errors import UsageError
from bridge.records import HASH_FIELD, VECTOR_FIELD, EncodedQuery, Turn
from bridge.settings import Product
from bridge.tokens import MAX_CLAUSES, Kind, heaviest

if TYPE_CHECKING:
    from bridge.engines import Engine

Text = str | Sequence[Turn | tuple[str, str | None]]
"""A query, or a conversation: turns, oldest first, whose last question is the query."""


@dataclass(frozen=True, slots=True)
class QueryRewriter:
    """Turns questions into search bodies for one field of one engine. Safe to share between threads."""

    encoder: Encoder
    engine: Product
    version: tuple[int, ...]
    field: str
    kind: Kind
    dialect: Dialect
    text_fields: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        engine: str = "opensearch",
        version: str = "3.6.0",
        field: str = VECTOR_FIELD,
        kind: str = "rank_features",
        dialect: str | None = None,
        **options: Any,
    ) -> QueryRewriter:
        """A rewriter that asks no cluster: you say what the index is like.

        Args:
            model: a model's folder, or a fitted model's fingerprint.
            engine: ``opensearch`` or ``elasticsearch``.
            version: of the engine, like ``3.6.0``.
            field: the index's vector field.
            kind: ``rank_features`` or ``sparse_vector``.
            dialect: ``neural_sparse``, ``rank_feature`` or ``sparse_vector``; the best one by default.
            options: device, precision and the rest, as for `bridge.load_encoder`.

        Raises:
            UsageError: an unknown word, or a version that is none.
            UnsupportedByEngine: this engine does not speak the dialect.
            ModelNotFound, ModelFormatError: see `bridge.load_encoder`.
        """
        product: Product = _one_of("engine", engine, get_args(Product))
        number = _version(version)
        checked: Kind = _one_of("kind", kind, get_args(Kind))
        encoder = load_encoder(model, **options)
        return cls(encoder, product, number, field, checked, _dialect(dialect, product, number, checked))

    @classmethod
    def for_index(
        cls, engine: Engine, index: str, *, model: str | None = None, dialect: str | None = None, **options: Any
    ) -> QueryRewriter:
        """A rewriter for an index: field, kind, version and model are read off the cluster.

        Raises:
            IndexNotFound: there is no such index.
            ModelMismatch: `model` is not one that the index is asked with.
            ModelNotFound: the index's model is neither cached nor stored in the cluster.
        """
        from bridge.indexmodel import IndexModel
        from bridge.modelstore import find_model

        state = engine.require_index(index)
        there = IndexModel.of(state)
        if there is None:
            raise UsageError(
                f"index {index} was not made by the bridge (no _meta.bridge); register it, or use QueryRewriter.load "
                "(bridge rewrite --model … --field …)"
            )
        if model:
            encoder = load_encoder(model, **options)
            there.check_query_encoder(encoder, index)
        else:
            encoder = find_model(engine, there.query_encoders[0], **options)
        info = engine.info()
        spoken = _dialect(dialect, info.product, info.version, there.kind)
        return cls(encoder, info.product, info.version, there.field, there.kind, spoken, there.text_fields)

    def encode(self, text: Text) -> EncodedQuery:
        """The query's vector, cut to the clause limit of the engines (1,024 tokens, heaviest first).

        Raises:
            UsageError: there is no text.
        """
        question = _question(text)
        vector, dropped = heaviest(self.encoder.encode_query([question])[0], MAX_CLAUSES)
        return EncodedQuery(question, vector, dropped=dropped)

    def query(self, encoded: EncodedQuery, *, size: int = 10) -> dict[str, Any]:
        """The query clause alone; a query without any token matches nothing."""
        if not encoded.sparse:
            return {"match_none": {}}
        return dialects.query_for(self.dialect, self.engine, self.version, self.kind, self.field, encoded.sparse, size)

    def body(
        self,
        encoded: EncodedQuery,
        *,
        size: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> dict[str, Any]:
        """The search body of an encoded query; see `rewrite`."""
        clause = self.query(encoded, size=size)
        if filter:
            clause = {"bool": {"should": [clause], "minimum_should_match": 1, "filter": [dict(filter)]}}
        return {"size": size, "query": clause, "_source": {"excludes": [self.field, HASH_FIELD]}}

    def rewrite(
        self,
        text: Text,
        *,
        size: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> dict[str, Any]:
        """A search body, ready to send.

        Args:
            text: a question, or a conversation's turns, oldest first; the last question is asked.
            size: hits wanted.
            filter: a query clause that hits must match; it does not change scores.
        """
        return self.body(self.encode(text), size=size, filter=filter)


def _question(text: Text) -> str:
    if not isinstance(text, str):
        turns = [turn if isinstance(turn, Turn) else Turn(*turn) for turn in text]
        text = turns[-1].question if turns else ""
    if not text.strip():
        raise UsageError("the query is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        # Bytes of a command line that are no UTF-8 come as lone surrogates, which no tokenizer takes.
        raise UsageError(f"the query is not Unicode text: {text!r}") from None
    return text


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
