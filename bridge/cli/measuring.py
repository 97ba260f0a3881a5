"""`bridge evaluate`: how good a search is, in figures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.common import BridgeCommand, State, model_options, pass_state, run_options

if TYPE_CHECKING:
    from rich.table import Table

    from bridge.engines import Engine
    from bridge.evaluate import Comparison, Evaluation, Judged, Run
    from bridge.rewrite import QueryRewriter

DEPTH = 100
"""Hits asked for a query: recall@100 looks at no more."""

_path = click.Path(path_type=Path)


@click.command(cls=BridgeCommand, short_help="Measure an index with judged queries.")
@click.argument("index")
@click.argument("folder", type=_path)
@click.option("--queries", type=_path, metavar="FILE", help="Other queries.jsonl for the same judgements.")
@click.option("--split", default="test", show_default=True, metavar="SPLIT", help="Which judgements: qrels/SPLIT.tsv.")
@click.option("--model", metavar="MODEL", help="A model's id, folder or fingerprint; the index's own is the default.")
@click.option("--dialect", type=click.Choice(["neural_sparse", "rank_feature", "sparse_vector"]), help="How to ask.")
@click.option("--run", "run_file", type=_path, metavar="FILE", help="Write the hits as a TREC run.")
@click.option("--per-query", type=_path, metavar="FILE", help="Write each query's figures as TSV.")
@click.option("--compare", type=_path, metavar="RUN", help="Test the difference from this TREC run, query by query.")
@model_options
@pass_state
def evaluate(state: State, /, index: str, folder: Path, **options: Any) -> int:
    """Measure INDEX with the judged queries of a BEIR FOLDER (queries.jsonl, qrels/test.tsv).

    nDCG@10, MRR@10, recall@100; the mean numbers of active terms of queries and documents; and FLOPS, the
    expected number of multiplications for a query and a document.

    \b
    bridge evaluate articles scifact --run after.trec --compare before.trec
    """
    from bridge.evaluate import compare, read_judged, read_run, write_per_query, write_run
    from bridge.rewrite import QueryRewriter

    judged = read_judged(folder, options["queries"], options["split"])
    other = read_run(options["compare"]) if options["compare"] else None
    with state.connect() as engine:
        rewriter = QueryRewriter.for_index(
            engine, index, model=options["model"], dialect=options["dialect"], **run_options(options)
        )
        with counting(state, "queries") as progress:
            evaluation, run = measure(engine, index, rewriter, judged, progress)
    if options["run_file"]:
        write_run(run, options["run_file"], "bridge")
    if options["per_query"]:
        write_per_query(evaluation, options["per_query"])
    comparison = compare(judged.qrels, other, run) if other is not None else None
    if state.json:
        found = evaluation.as_dict()
        state.out(found | {"compare": _comparison_json(comparison)} if comparison else found)
        return 0
    console = state.console()
    console.print(evaluation_table(index, evaluation))
    if comparison:
        console.print(comparison_table(comparison, str(options["compare"])))
    return 0


def measure(
    engine: Engine, index: str, rewriter: QueryRewriter, judged: Judged, progress: Callable[[int, int], None]
) -> tuple[Evaluation, Run]:
    """Search every judged query, and take a sample of the index's vectors."""
    from bridge.evaluate import document_stats
    from bridge.evaluate import evaluate as run
    from bridge.search import sample_vectors, search

    def hits(text: str) -> Any:
        return search(engine, index, rewriter, text, size=DEPTH, matches=False, fields=False).hits

    by_id = rewriter.kind == "sparse_vector" and rewriter.engine == "opensearch"
    vectors = sample_vectors(engine, index, rewriter)
    if by_id:
        # Stored under ids; a query's terms are counted as tokens.
        names = {str(i): token for token, i in rewriter.encoder.vocabulary.index.items()}  # type: ignore[attr-defined]
        vectors = ({names[key]: weight for key, weight in vector.items()} for vector in vectors)
    return run(
        judged,
        hits,
        query_vector=lambda text: rewriter.encoder.encode_query([text])[0],
        document_stats=document_stats(vectors),
        progress=progress,
    )


def evaluation_table(index: str, evaluation: Evaluation) -> Table:
    """One row of figures."""
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"{index}, {evaluation.queries:,} queries",
        title_justify="left",
    )
    columns = {
        "nDCG@10": f"{evaluation.measures['ndcg@10']:.4f}",
        "MRR@10": f"{evaluation.measures['mrr@10']:.4f}",
        "recall@100": f"{evaluation.measures['recall@100']:.4f}",
        "query terms": f"{evaluation.active_terms['query']:.1f}",
        "document terms": f"{evaluation.active_terms['document']:.1f}",
        "FLOPS": f"{evaluation.flops:.3f}",
    }
    for name in columns:
        table.add_column(name, justify="right")
    table.add_row(*columns.values())
    return table


def comparison_table(comparison: Comparison, other: str) -> Table:
    """A row a measure: both means, the difference with its interval, and whether chance explains it."""
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"against {other}, {comparison.queries:,} queries",
        title_justify="left",
    )
    for name in (
        "measure",
        "there",
        "here",
        "difference",
        "95 % interval",
        "p (randomisation)",
        "p (t-test)",
        "better",
        "worse",
        "same",
    ):
        table.add_column(name, justify="left" if name == "measure" else "right")
    for name, row in comparison.rows.items():
        low, high = row.interval
        table.add_row(
            name, f"{row.mean_a:.4f}", f"{row.mean_b:.4f}", f"{row.difference:+.4f}", f"{low:+.4f} … {high:+.4f}",
            f"{row.p_value:.4f}", f"{row.t_test_p:.4f}", str(row.wins), str(row.losses), str(row.ties),
        )  # fmt: skip
    return table


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(comparison)
    return found


@contextmanager
def counting(state: State, /, what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress over a known number of steps: a bar on a terminal, nothing elsewhere (it is short)."""
    if state.quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import Progress

    with Progress(console=state.console(sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
