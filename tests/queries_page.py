"""`docs/queries.md`: each form of a query with its JSON out of the golden files, and what each engine was asked."""

from __future__ import annotations

import textwrap
from itertools import takewhile
from pathlib import Path

from tests.contract.test_matrix import FORMS, ROWS
from tests.contract.test_refusals import ANSWERS

GOLDEN = Path(__file__).parent / "golden"
PAGE = Path(__file__).parent.parent / "docs" / "queries.md"

SECTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "neural_sparse": (
        "OpenSearch 2.14 and newer, over `rank_features`; the default there. Exact: a hit's score is the sum of query "
        "weight × stored weight. Tokens with dots are asked for as they are. A weight above 64, which the engine does "
        "not take, is scaled by a power of two, and the boost undoes it.",
        ("opensearch-rank_features-neural_sparse", "opensearch-rank_features-neural_sparse-heavy"),
    ),
    "rank_feature": (
        "Any version of OpenSearch, and Elasticsearch 7 and newer, over `rank_features`; the default where nothing "
        "better is spoken. Exact, and with the same scores. Dots in tokens are written as `․`, since a field path "
        "would be cut at them.",
        ("opensearch-rank_features-rank_feature",),
    ),
    "neural_sparse over SEISMIC": (
        "OpenSearch 3.3 and newer, over its `sparse_vector` field: approximate, for large segments. By token ids, "
        "below 32,768. All lists of the query's tokens are read, and as many hits collected as are wanted.",
        ("opensearch-sparse_vector-neural_sparse",),
    ),
    "sparse_vector": (
        "Elasticsearch 8.15 and newer, over its `sparse_vector` field; the default there. Exact. `prune` is sent, "
        "since newer versions drop tokens unless told not to.",
        ("elasticsearch-sparse_vector-sparse_vector",),
    ),
    "bool of term": (
        "Elasticsearch 8.11 to 8.14, over the same field, before it had a query of its own for raw vectors. Exact.",
        ("elasticsearch-sparse_vector-before-8.15",),
    ),
    "Several fields": (
        "`--field title_embedding^0.5 --field embedding^2`: the score is the sum, each field times its boost. They "
        "share the clauses that engines take: each token is asked of every field.",
        ("opensearch-fields", "elasticsearch-fields"),
    ),
    "Nested passages": (
        "Where documents keep their passages, the best one makes the score; with `--passages 3` the best three come "
        "along. A filter is of the document.",
        ("opensearch-body-nested-passages",),
    ),
    "Collapsed passages": (
        "`--collapse document --passages 3`, where each passage is a document: the best of each whole is a hit.",
        ("opensearch-body-collapsed-passages",),
    ),
    "Two phases": (
        "`--two-phase`: the heavy tokens find candidates, and the light ones change the order of the best. Of those "
        "in the window the score is the whole dot product; what shares only light tokens with the query is not found. "
        "The same is done by the search pipeline of `bridge register --two-phase`, for `neural_sparse` on OpenSearch.",
        ("opensearch-two-phase", "elasticsearch-two-phase"),
    ),
    "Hybrid search": (
        "`--hybrid bm25,dense`: other ways of asking beside the sparse fields, each with a weight if wanted "
        "(`bm25^0.5`; `sparse^0` leaves the sparse fields out), fused into one ranking of the best `--depth` hits of "
        "each part. `--fusion linear` brings each part's scores to 0..1 and takes their weighted mean, `--fusion rrf` "
        "counts ranks. On OpenSearch 2.19 and newer the pipeline that fuses comes with the query; `--pipeline` names "
        "one of the cluster's instead, like that of `bridge register --dense`. It costs what its parts cost, and finds "
        "more than each where they differ: on SciFact BM25 with dense vectors gains 0.056 nDCG@10 over the better of "
        "the two, a projection with them 0.007 (docs/performance.md); `rrf` gains less, or loses where a part is weak.",
        (
            "opensearch-hybrid",
            "opensearch-hybrid-weighted",
            "opensearch-hybrid-rrf",
            "opensearch-hybrid-pipeline",
        ),
    ),
    "Hybrid search on Elasticsearch": (
        "8.18 and newer with an Enterprise licence, or on trial, by retrievers. They were checked against the "
        "published API specification, not run: no node of the tests has them. Elsewhere, and with `--fuse client`, "
        "the parts are asked in one `_msearch` and fused by the same formulas here; that is tested on every engine.",
        ("elasticsearch-hybrid", "elasticsearch-hybrid-rrf"),
    ),
    "Encoders in the cluster": (
        "`--analyzer`, `--model-id` and `--inference-id` send the text, for those who run the encoder inside. "
        "Nothing is loaded, pruned or explained here, and no limit of tokens is kept.",
        ("opensearch-analyzer", "opensearch-model", "opensearch-model-seismic", "elasticsearch-inference"),
    ),
}
"""Title ─▶ what it is for, and the golden files that show it."""

HEAD = """\
# Queries

What is sent to an engine for a question, form by form. `bridge rewrite` prints it, `QueryRewriter` returns it. Which
dialect is chosen follows from the engine's version and the field's type; `--dialect` names another one. This page is
made from the tests' own golden files.
"""

WHICH = """\
## Which one to ask with

Measured on OpenSearch 3.6.0 with 100,000 documents on one node (`benchmarks/search.py`; the whole tables stand in
[performance.md](performance.md#search)). Latency is of a whole request, overlap is with the first ten of the exact
search:

@TABLE@

- **`neural_sparse`** is the default, and exact: at this size it costs two milliseconds.
- **`rank_feature`** costs the same here. Ask with it where `neural_sparse` is not to be had: Elasticsearch 7,
  OpenSearch before 2.14.
- **Two phases** save a sixth of the time (a fourth on five shards) and keep 99 of 100 hits. They pay where queries have
  many light tokens, as those of neural encoders do. Leave them off with `min_score`, collapsed or nested passages, and
  where a hit that shares only light tokens with the question counts. Their defaults (`prune_ratio` 0.4,
  `expansion_rate` 5) are as fast as the fastest of the grid that keep 0.98.
- **SEISMIC** keeps 95 of 100 hits in two thirds of the exact search's time where it alone is asked, again and again
  (between searches of other indices, as in the table, it was the slower one), with lists of 1,000 documents a token
  (`n_postings`), all of whose query tokens are read, at a `heap_factor` of 1: the fastest of the grid that keep
  0.95, and what `bridge register` and its queries say. With the engine's own parameters it lost a fifth of the
  hits. It is for segments of a million documents and more, where the exact search takes long: in smaller ones the
  engine searches the field exactly unless `approximate_threshold` says otherwise. On five small shards it was
  slower than the exact search: leave it off there, and where no hit may be missed.
- **Hybrid search** costs what its parts cost, and is what finds more.
"""

MATRIX = """\
## What was asked of which engine

Each form of each exact dialect is accepted by these engines, and its scores equal the local dot products within 1e-6 of
themselves, in their order (`tests/contract/test_matrix.py`). SEISMIC is approximate, so it is only asked here.
Elasticsearch 8.19.0 and 9.2.0 are nodes put together from the server's jars, with a parser of the tests' own for the
`sparse_vector` query over the server's own classes; `rank_features` is not to be had for them, and was run on 7.17.29.
"""


REFUSED = """\
## What cannot be asked as it is

Errors say what is wrong and what to do; an ellipsis stands for names (`tests/contract/test_refusals.py`).
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, (text, names) in SECTIONS.items():
        parts.append(f"## {title}\n\n{_wrapped(text)}\n")
        parts += [f"`{name}`:\n\n```json\n{(GOLDEN / f'{name}.json').read_text('utf-8')}```\n" for name in names]
    table = [f"| dialect | engines | {' | '.join(FORMS)} |", "| --- " * (2 + len(FORMS)) + "|"]
    for name, row in ROWS.items():
        cells = ["exact" if row.exact else "accepted"] * len(FORMS)
        if not row.exact:
            cells[FORMS.index("two phases")] = "refused"
        table.append(f"| {name} | {', '.join(row.engines)} | {' | '.join(cells)} |")
    refused = [REFUSED, "| asked | answer |", "| --- | --- |"]
    refused += [f"| {what} | {answer.row} |" for what, answer in ANSWERS.items()]
    which = WHICH.replace("@TABLE@", "\n".join(measured()))
    return "\n".join([*parts, which, MATRIX, *table, "", *refused]) + "\n"


def measured() -> list[str]:
    """The table of the dialects that `benchmarks/search.py` printed last, as docs/performance.md keeps it."""
    section = (PAGE.parent / "performance.md").read_text("utf-8").split("\n## Search\n", 1)[1].split("\n## ", 1)[0]
    lines = section.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("| way |"))
    return list(takewhile(lambda line: line.startswith("|"), lines[start:]))


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False))
