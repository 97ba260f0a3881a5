"""Judged queries, asked of an index ─▶ figures and a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bridge.engines import Engine
from bridge.evaluate import Evaluation, Run, document_stats
from bridge.evaluate import evaluate as run
from bridge.judged import Judged
from bridge.records import EncodedQuery, SparseVector
from bridge.rewrite import QueryRewriter
from bridge.search import sample_vectors, search
from bridge.tokens import by_ids

DEPTH = 100
"""Hits asked for a query: recall@100 looks at no more."""


def measure(
    engine: Engine, index: str, rewriter: QueryRewriter, judged: Judged, progress: Callable[[int, int], None]
) -> tuple[Evaluation, Run]:
    """Search every judged query, and take a sample of the index's vectors."""
    asked: dict[str, EncodedQuery] = {}

    def hits(text: str) -> Any:
        found = search(engine, index, rewriter, text, size=DEPTH, matches=False, fields=False)
        asked[text] = found.query
        return found.hits

    def vector(text: str) -> SparseVector:
        sparse = asked[text].sparse
        assert sparse is not None  # noqa: S101
        return sparse

    vectors = sample_vectors(engine, index, rewriter)
    if rewriter.encoder and by_ids(rewriter.kind, rewriter.engine):
        # Stored under ids; a query's terms are counted as tokens.
        names = {str(i): token for token, i in rewriter.encoder.vocabulary.index.items()}  # type: ignore[attr-defined]
        vectors = ({names[key]: weight for key, weight in vector.items()} for vector in vectors)
    evaluation, found = run(
        judged, hits, query_vector=vector, document_stats=document_stats(vectors), progress=progress
    )
    if rewriter.pruning:
        pruned = sum(asked[text].pruned for text in judged.queries.values())
        evaluation = replace(evaluation, pruned_terms=pruned / len(judged.queries))
    return evaluation, found
