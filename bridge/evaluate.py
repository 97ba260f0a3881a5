"""How good a search is: the usual measures against judgements, what it costs, and whether two runs differ.

nDCG@10, MRR@10 and recall@100 are those of `ir_measures`, averaged over every judged query; a query without
results counts 0. Scores are kept as the engine gives them, so the figures are those that `ir_measures` prints
for the written run file. That means that hits of equal score are not taken in the engine's order, which
changes with every re-index, but by document id, as these tools do: nDCG and recall (trec_eval) take the
greater id first, MRR@10 (MS MARCO's script) the lesser.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import EvaluationError, MissingExtra
from bridge.judged import Judged as Judged
from bridge.judged import Qrels, numbered_lines
from bridge.judged import read_judged as read_judged
from bridge.records import Hit, SparseVector

Run = dict[str, list[Hit]]

MEASURES = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "recall@100": "R@100"}
"""Our names ─▶ those of `ir_measures`."""

PERMUTATIONS = 10_000
_SEED = 20_240_229
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class DocumentStats:
    """A sample of an index's vectors: how many, their mean number of terms, each term's share of them."""

    documents: int
    mean_terms: float
    term_share: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` found; `per_query` is query id ─▶ measure ─▶ value, `active_terms` are means."""

    measures: dict[str, float]
    per_query: dict[str, dict[str, float]]
    active_terms: dict[str, float]
    flops: float
    queries: int
    pruned_terms: float | None = None
    """Mean number of terms that pruning took of a query; None where none was asked for."""

    def as_dict(self) -> dict[str, Any]:
        """The document that `bridge evaluate --json` prints."""
        pruned = {} if self.pruned_terms is None else {"pruned_terms": self.pruned_terms}
        return {
            **self.measures,
            "active_terms": self.active_terms,
            "flops": self.flops,
            "queries": self.queries,
            **pruned,
        }


@dataclass(frozen=True, slots=True)
class MeasureComparison:
    """One measure of two runs; `difference` is b − a, and a query is won where b is better.

    `p_value` is of Fisher's randomisation test, `t_test_p` of the paired t-test, both two-sided; `interval`
    is the difference's 95% interval by Student's t. With one query neither can be told: 1.0, 1.0 and
    (-inf, inf).
    """

    mean_a: float
    mean_b: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    t_test_p: float
    wins: int
    losses: int
    ties: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs over the same judged queries: measure ─▶ its row."""

    rows: dict[str, MeasureComparison]
    queries: int


def document_stats(vectors: Iterable[Mapping[str, float]]) -> DocumentStats:
    """The statistics of a sample of token ─▶ weight vectors; a weight of 0 is not active."""
    counts: Counter[str] = Counter()
    documents = terms = 0
    for vector in vectors:
        active = [token for token, weight in vector.items() if weight > 0]
        counts.update(active)
        documents += 1
        terms += len(active)
    most = max(documents, 1)
    return DocumentStats(documents, terms / most, {token: count / most for token, count in counts.items()})


def flops(query_share: Mapping[str, float], document_share: Mapping[str, float]) -> float:
    """Expected multiplications for a query-document pair: Σ over terms of the two shares' product.

    A share is that of the queries (documents) whose vector has the term, as the SPLADE papers define it.
    """
    return math.fsum(share * document_share.get(token, 0.0) for token, share in query_share.items())


def evaluate(
    judged: Judged,
    search: Callable[[str], Sequence[Hit]],
    *,
    query_vector: Callable[[str], SparseVector],
    document_stats: DocumentStats,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Evaluation, Run]:
    """Search every judged query and measure what comes back; also returns the run.

    `search` takes a query's text and gives its best hits, 100 for recall@100 to mean what it says.
    `progress` is called with the queries done and in all. Raises `MissingExtra` and `EvaluationError`.
    """
    _ir_measures()
    if not judged.qrels:
        raise EvaluationError("there are no judged queries")
    run: Run = {}
    counts: Counter[str] = Counter()
    for done, (query, text) in enumerate(judged.queries.items(), 1):
        run[query] = list(search(text))
        counts.update(query_vector(text).tokens)
        if progress:
            progress(done, len(judged.queries))
    queries = len(judged.queries)
    per_query = _per_query(judged.qrels, run)
    evaluation = Evaluation(
        measures={name: math.fsum(row[name] for row in per_query.values()) / queries for name in MEASURES},
        per_query=per_query,
        active_terms={"query": counts.total() / queries, "document": document_stats.mean_terms},
        flops=flops({token: n / queries for token, n in counts.items()}, document_stats.term_share),
        queries=queries,
    )
    return evaluation, run


def _ir_measures() -> Any:
    try:
        import ir_measures
    except ImportError:
        raise MissingExtra("evaluation", "eval") from None
    return ir_measures


def _per_query(qrels: Qrels, run: Mapping[str, Sequence[Hit]]) -> dict[str, dict[str, float]]:
    ir = _ir_measures()
    names = {ir.parse_measure(theirs): ours for ours, theirs in MEASURES.items()}
    scores = {query: {hit.id: float(hit.score) for hit in hits} for query, hits in run.items() if query in qrels}
    judgements = {query: dict(documents) for query, documents in qrels.items()}
    per_query = {query: dict.fromkeys(MEASURES, 0.0) for query in judgements}
    for metric in ir.iter_calc(list(names), judgements, scores):
        per_query[metric.query_id][names[metric.measure]] = float(metric.value)
    return per_query


def compare(qrels: Qrels, run_a: Mapping[str, Sequence[Hit]], run_b: Mapping[str, Sequence[Hit]]) -> Comparison:
    """Whether run b differs from run a (the baseline) over the judged queries.

    A query that a run lacks counts 0 there. The randomisation test flips the signs of the queries'
    differences: all ways up to 13 queries, else 10,000 random ones from a fixed seed, so that the same
    runs give the same figures. Raises `MissingExtra` and `EvaluationError`.
    """
    if not qrels:
        raise EvaluationError("there are no judged queries")
    for name, run in (("first", run_a), ("second", run_b)):
        if not any(query in qrels for query in run):
            raise EvaluationError(f"the {name} run has results for none of the {len(qrels):,} judged queries")
    rows_a, rows_b = _per_query(qrels, run_a), _per_query(qrels, run_b)
    return Comparison(
        {
            name: _compare_measure(
                np.array([rows_a[query][name] for query in qrels]),
                np.array([rows_b[query][name] for query in qrels]),
            )
            for name in MEASURES
        },
        len(qrels),
    )


def _compare_measure(a: Any, b: Any) -> MeasureComparison:
    differences = b - a
    differences[np.abs(differences) < _TIE] = 0.0
    count = len(differences)
    mean = float(differences.mean())
    p_value, t_test_p, half = 1.0, 1.0, math.inf
    if count > 1:
        p_value = _randomisation_p(differences)
        error = float(differences.std(ddof=1)) / math.sqrt(count)
        half, t_test_p = _student(mean, error, count - 1)
    return MeasureComparison(
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        difference=mean,
        interval=(mean - half, mean + half),
        p_value=p_value,
        t_test_p=t_test_p,
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
    )


def _randomisation_p(differences: Any) -> float:
    stats = _scipy_stats()
    # SciPy 1.15 renamed the argument.
    arguments = inspect.signature(stats.permutation_test).parameters
    generator = {"rng" if "rng" in arguments else "random_state": np.random.default_rng(_SEED)}
    # One sample of paired differences: permuting within the pairs is flipping signs. The batch bounds memory.
    result = stats.permutation_test(
        (differences,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, 4_000_000 // len(differences)),
        **generator,
    )
    return float(result.pvalue)


def _student(mean: float, error: float, freedom: int) -> tuple[float, float]:
    """The 95% interval's half width and the two-sided p of the paired t-test."""
    # Not scipy's ttest_rel: it warns, and gives NaN, where all differences are the same.
    student = _scipy_stats().t(freedom)
    if error == 0:
        return 0.0, 1.0 if mean == 0 else 0.0
    return float(student.ppf(0.975)) * error, 2 * float(student.sf(abs(mean) / error))


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError:
        raise MissingExtra("comparing runs", "eval") from None
    return stats


def write_run(run: Mapping[str, Sequence[Hit]], path: Path, tag: str) -> None:
    """A TREC run file: query, Q0, document, rank from 1, score, tag; scores read back equal.

    Queries without hits leave no line. Raises `EvaluationError` for an id or tag that is empty or holds
    white space, a score that is not finite, and a file that cannot be written.
    """
    _one_word(tag, "tag")
    lines = []
    for query, hits in run.items():
        _one_word(query, "query id")
        for rank, hit in enumerate(hits, 1):
            _one_word(hit.id, "document id")
            score = float(hit.score)
            if not math.isfinite(score):
                raise EvaluationError(f"the score of {hit.id} for {query} is {score}, not a finite number")
            lines.append(f"{query} Q0 {hit.id} {rank} {score!r} {tag}\n")
    _write(path, lines)


def read_run(path: Path) -> Run:
    """A TREC run file, hits in the file's order. Raises `EvaluationError`, naming the line."""
    run: Run = {}
    seen: set[tuple[str, str]] = set()
    for number, line in numbered_lines(path):
        columns = line.split()
        if len(columns) != 6:
            raise EvaluationError(f"{path}:{number}: not the six columns of a TREC run: {line.strip()[:80]}")
        query, _, document, _, text, _ = columns
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise EvaluationError(f"{path}:{number}: the score {text} is not a finite number")
        if (query, document) in seen:
            raise EvaluationError(f"{path}:{number}: {document} comes twice for the query {query}")
        seen.add((query, document))
        run.setdefault(query, []).append(Hit(document, score, {}))
    if not run:
        raise EvaluationError(f"{path}: holds no results")
    return run


def write_per_query(evaluation: Evaluation, path: Path) -> None:
    """A TSV with a header: query-id, then a column for each measure. Raises `EvaluationError`."""
    lines = ["\t".join(("query-id", *MEASURES)) + "\n"]
    for query, values in evaluation.per_query.items():
        if any(character in query for character in "\t\r\n"):
            raise EvaluationError(f"the query id {query!r} holds a tab or line break, which a TSV cannot hold")
        lines.append("\t".join((query, *(repr(values[name]) for name in MEASURES))) + "\n")
    _write(path, lines)


def _one_word(text: str, what: str) -> None:
    if len(text.split()) != 1 or text != text.strip():
        raise EvaluationError(f"the {what} {text!r} is empty or holds white space, which a run file cannot hold")


def _write(path: Path, lines: Iterable[str]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written: {error.strerror}") from error
