"""`bridge evaluate`: how good a search is, in figures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.asking import (
    field_option,
    prune_option,
    pruning_of,
    seismic_of,
    seismic_option,
    two_phase_of,
    two_phase_option,
)
from bridge.cli.common import BridgeCommand, State, model_options, pass_state, run_options
from bridge.cli.fusing import hybrid_of, hybrid_options
from bridge.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from bridge.evaluate import Comparison, Evaluation
    from bridge.judged import Judged
    from bridge.records import Conversation
    from bridge.rewrite import QueryRewriter

_path = click.Path(path_type=Path)


@click.command(cls=BridgeCommand, short_help="Measure an index with judged queries.")
@click.argument("index")
@click.argument("folder", type=_path)
@click.option(
    "--queries", type=_path, metavar="FILE", help="Other queries.jsonl (conversations.jsonl) for the same judgements."
)
@click.option(
    "--conversations",
    "forms",
    type=click.Choice(["last", "all", "rewrite", "auto", "disco"]),
    multiple=True,
    help="Ask the questions of conversations.jsonl in this form; repeated, a row for each.",
)
@click.option("--split", default="test", show_default=True, metavar="SPLIT", help="Which judgements: qrels/SPLIT.tsv.")
@click.option("--model", metavar="MODEL", help="A model's id, folder or fingerprint; the index's own is the default.")
@field_option
@click.option("--dialect", type=click.Choice(["neural_sparse", "rank_feature", "sparse_vector"]), help="How to ask.")
@prune_option
@two_phase_option
@seismic_option
@click.option("--run", "run_file", type=_path, metavar="FILE", help="Write the hits as a TREC run.")
@click.option("--per-query", type=_path, metavar="FILE", help="Write each query's figures as TSV.")
@click.option("--compare", type=_path, metavar="RUN", help="Test the difference from this TREC run, query by query.")
@hybrid_options
@model_options
@pass_state
def evaluate(state: State, /, index: str, folder: Path, **options: Any) -> int:
    """Measure INDEX with the judged queries of a BEIR FOLDER (queries.jsonl, qrels/test.tsv).

    nDCG@10, MRR@10, recall@100; the mean numbers of active terms of queries and documents; and FLOPS, the
    expected number of multiplications for a query and a document.

    \b
    bridge evaluate articles scifact --run after.trec --compare before.trec
    bridge evaluate articles mtrag --conversations last --conversations all --conversations rewrite
    """
    from bridge.evaluate import compare, read_run, write_per_query, write_run
    from bridge.measured import measure
    from bridge.rewrite import QueryRewriter

    forms: tuple[Conversation | None, ...] = tuple(dict.fromkeys(options["forms"])) or (None,)
    if len(forms) > 1 and (options["run_file"] or options["per_query"] or options["compare"]):
        raise UsageError("--run, --per-query and --compare are of one run: name one form with --conversations")
    judged_for = _judged(folder, options)
    other = read_run(options["compare"]) if options["compare"] else None
    measured: dict[str, Evaluation] = {}
    with state.connect() as engine:
        rewriter = QueryRewriter.for_index(
            engine,
            index,
            model=options["model"],
            fields=options["fields"],
            dialect=options["dialect"],
            pruning=pruning_of(options["prune"]),
            two_phase=two_phase_of(options),
            seismic=seismic_of(options["seismic"]),
            hybrid=hybrid_of(options),
            dense=options["dense"],
            **run_options(options),
        )
        for form in forms:
            asking = replace(rewriter, conversation=form) if form else rewriter
            judged = judged_for(asking)
            with counting(state, "queries") as progress:
                measured[form or ""], run = measure(engine, index, asking, judged, progress)
    if len(forms) > 1:
        if state.json:
            state.out({"conversations": {form: evaluation.as_dict() for form, evaluation in measured.items()}})
        else:
            state.console().print(evaluation_table(index, measured))
        return 0
    (evaluation,) = measured.values()
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
    console.print(evaluation_table(index, measured))
    if comparison:
        console.print(comparison_table(comparison, str(options["compare"])))
    return 0


def _judged(folder: Path, options: dict[str, Any]) -> Callable[[QueryRewriter], Judged]:
    """What the judged queries are, of a rewriter that says how the questions of conversations are asked."""
    from bridge.judged import read_conversations, read_judged

    if not options["forms"]:
        judged = read_judged(folder, options["queries"], options["split"])
        return lambda rewriter: judged
    conversations = read_conversations(folder, options["queries"], options["split"])
    return lambda rewriter: conversations.as_queries(
        lambda asked: rewriter.question(asked.turns, rewritten=asked.rewritten)
    )


def evaluation_table(index: str, evaluations: Evaluation | Mapping[str, Evaluation]) -> Table:
    """A row of figures; of several a row each, under its name."""
    from rich import box
    from rich.table import Table

    named = evaluations if isinstance(evaluations, Mapping) else {"": evaluations}
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"{index}, {next(iter(named.values())).queries:,} queries",
        title_justify="left",
    )
    rows = [{"conversations": name} | _figures(evaluation) for name, evaluation in named.items()]
    shown = [column for column in rows[0] if any(row[column] for row in rows)]
    for column in shown:
        table.add_column(column, justify="left" if column == "conversations" else "right")
    for row in rows:
        table.add_row(*(row[column] for column in shown))
    return table


def _figures(evaluation: Evaluation) -> dict[str, str]:
    return {
        "nDCG@10": f"{evaluation.measures['ndcg@10']:.4f}",
        "MRR@10": f"{evaluation.measures['mrr@10']:.4f}",
        "recall@100": f"{evaluation.measures['recall@100']:.4f}",
        "query terms": f"{evaluation.active_terms['query']:.1f}",
        "pruned": "" if evaluation.pruned_terms is None else f"{evaluation.pruned_terms:.1f}",
        "document terms": f"{evaluation.active_terms['document']:.1f}",
        "FLOPS": f"{evaluation.flops:.3f}",
    }


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
