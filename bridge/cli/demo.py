"""`bridge demo`: the whole thing, on the embedded node and the bundled corpus."""

from __future__ import annotations

import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.cli.common import BridgeCommand, State, pass_state
from bridge.records import TEXT_FIELDS
from bridge.settings import without_credentials

if TYPE_CHECKING:
    from rich.console import Console

    from bridge.engines import Engine
    from bridge.rewrite import QueryRewriter

INDEX = "bridge-demo"
QUESTIONS = ("q01", "q08", "q14")
"""Three of the corpus's own judged questions, shown in full."""


@click.command(cls=BridgeCommand, short_help="See it work: a small corpus on a real engine.")
@pass_state
def demo(state: State, /) -> int:
    """Fit, register, ingest, rewrite, search and evaluate: a small corpus, a real engine.

    Uses the embedded OpenSearch node (the first time it is downloaded, about 105 MB) and leaves it running; its
    index is called bridge-demo. With --url it uses that engine instead.
    """
    with (
        as_file(files("bridge") / "demo_data") as corpus,
        state.connect() as engine,
        tempfile.TemporaryDirectory() as scratch,
    ):
        _run(state, engine, corpus, Path(scratch))
    return 0


def _run(state: State, /, engine: Engine, corpus: Path, scratch: Path) -> None:
    from bridge.cli.measuring import counting, evaluation_table, measure
    from bridge.evaluate import read_judged
    from bridge.fit import fit
    from bridge.ingest import IngestOptions, ingest, texts_of
    from bridge.rewrite import QueryRewriter
    from bridge.sources import open_source

    console = state.console() if not state.json else None
    _forget(engine)
    with open_source([str(corpus)]) as source:
        _step(console, "1  Learn a model from the texts themselves (BM25 as a pair of sparse encoders)",
              "bridge fit CORPUS -o MODEL")  # fmt: skip
        encoder = fit(texts_of(source, TEXT_FIELDS, lambda progress: None), scratch / "model")
        card = encoder.card
        _tell(
            console,
            f"{encoder.fingerprint}: {card.documents} documents, {card.average_length:.0f} terms each, "
            f"stemmer {card.stemmer}",
        )
        _step(
            console,
            "2  Register the index and bring the documents in",
            f"bridge ingest {INDEX} CORPUS --model MODEL",
        )
        options = IngestOptions(model=str(scratch / "model"), dead_letter=scratch / "dead-letter.jsonl", fresh=True)
        summary = ingest(engine, INDEX, source, options, say=lambda line: _tell(console, line))
        _tell(
            console,
            f"{summary.indexed} of {summary.source} documents are in, {summary.dead} dead, {summary.seconds:.1f} s",
        )
    rewriter = QueryRewriter.for_index(engine, INDEX)
    judged = read_judged(corpus)
    _step(console, "3  Ask: the question as DSL, and what it finds", f'bridge search {INDEX} "…"')
    for name in QUESTIONS:
        _ask(console, engine, rewriter, judged.queries[name])
    _step(
        console,
        f"4  Measure, with the {len(judged.queries)} judged questions of the corpus",
        f"bridge evaluate {INDEX} CORPUS",
    )
    with counting(state, "queries") as progress:
        evaluation, _ = measure(engine, INDEX, rewriter, judged, progress)
    if console is None:
        state.out({"ingest": msgspec.to_builtins(summary), "evaluate": evaluation.as_dict()})
        return
    console.print(evaluation_table(INDEX, evaluation))
    _next(console, corpus, state.url)


def _forget(engine: Engine) -> None:
    """Take away the index of an earlier demo; an index of that name that is not the bridge's stays."""
    from bridge.errors import IndexConflict
    from bridge.indexmodel import IndexModel

    state = engine.get_index(INDEX)
    if state is None:
        return
    if IndexModel.of(state) is None:
        raise IndexConflict(f"{engine.url} has an index {INDEX} that the demo did not make; it is left alone")
    engine.delete_index(INDEX)


def _ask(console: Console | None, engine: Engine, rewriter: QueryRewriter, question: str) -> None:
    from bridge.cli.asking import hits_table
    from bridge.search import search

    result = search(engine, INDEX, rewriter, question, size=3)
    if console is None:
        return
    console.print(f"\n[bold]{question}[/]")
    clause = result.body["query"]
    console.print_json(msgspec.json.encode(clause).decode(), indent=None)
    console.print(hits_table(result.hits, rewriter.text_fields))


def _step(console: Console | None, title: str, command: str) -> None:
    if console:
        console.print(f"\n[bold cyan]{title}[/]\n   [dim]$ {command}[/]")


def _tell(console: Console | None, line: str) -> None:
    if console:
        console.print(f"   {line}", markup=False)


def _next(console: Console, corpus: Path, url: str | None) -> None:
    # Elsewhere than on the embedded node the same engine has to be named again.
    at = f" --url {without_credentials(url)}" if url else ""
    rows = [
        (f'bridge search {INDEX} "how do tides work"{at}', "another question"),
        (f'bridge rewrite "how do tides work" --index {INDEX}{at}', "the query alone, for your own client"),
        (f"bridge evaluate {INDEX} {corpus}{at}", "the figures again"),
        (f"bridge ingest my-index my-documents.jsonl{at}", "your own documents"),
        (f"bridge doctor{at}", "what is installed and reached"),
    ]
    if not url:
        rows.append(("bridge node stop", "stop the engine; the data stays"))
    width = max(len(command) for command, _ in rows)
    console.print("\nWhat to type next")
    for command, why in rows:
        # Not to be wrapped: it is there to be copied.
        console.print(f"   {command.ljust(width)}   {why}", markup=False, soft_wrap=True)
