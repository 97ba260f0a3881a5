"""`bridge demo`: the whole thing, on the embedded node and the bundled corpus."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bridge.cli.common import BridgeCommand, State, pass_state
from bridge.records import TEXT_FIELDS
from bridge.settings import cache_folder, without_credentials

if TYPE_CHECKING:
    from rich.console import Console

    from bridge.encode.lexical import LexicalEncoder
    from bridge.encode.projection import ProjectionEncoder
    from bridge.engines import Engine
    from bridge.rewrite import QueryRewriter
    from bridge.sources import Source

INDEX = "bridge-demo"
QUESTIONS = ("q01", "q08", "q14")
"""Three of the corpus's own judged questions, shown in full."""

NO_TEACHER = "none"


@click.command(cls=BridgeCommand, short_help="See it work: a small corpus on a real engine.")
@click.option(
    "--teacher",
    metavar="MODEL",
    envvar="BRIDGE_TEACHER",
    help="A dense encoder, a folder or a Hugging Face id, to be projected onto the words; none for a lexical model. "
    "Also BRIDGE_TEACHER. By default all-MiniLM-L6-v2 where it is at hand.",
)
@pass_state
def demo(state: State, /, teacher: str | None) -> int:
    """Fit, register, ingest, rewrite, search and evaluate: a small corpus, a real engine.

    Uses the embedded OpenSearch node (the first time it is downloaded, about 105 MB) and leaves it running; its
    index is called bridge-demo. With --url it uses that engine instead.

    The model is learned from the corpus: with a dense encoder and the extra encode a projection, else a lexical one.
    """
    chosen, why = _teacher(teacher)
    with (
        as_file(files("bridge") / "demo_data") as corpus,
        state.connect() as engine,
        tempfile.TemporaryDirectory() as scratch,
    ):
        _run(state, engine, corpus, Path(scratch), chosen, why)
    return 0


def _teacher(named: str | None) -> tuple[str | None, str]:
    """The dense encoder to be used, if any, and a line that says why, and how to have it otherwise."""
    from bridge.encode.at_hand import INSTALL, MINILM, check_dense, dense_at_hand

    if named == NO_TEACHER:
        return None, "A lexical model, as asked for; without --teacher none a dense encoder that is at hand is used."
    if named:
        check_dense(named)
        return named, f"A projection of {named}, as asked for; --teacher none would make a lexical model."
    folder = dense_at_hand()
    if folder:
        return str(folder), f"A projection of {MINILM}, found in {folder}; --teacher none would make a lexical model."
    return None, f"A lexical model, since no dense encoder is at hand; for a projection: {INSTALL}"


def _run(state: State, /, engine: Engine, corpus: Path, scratch: Path, teacher: str | None, why: str) -> None:
    from bridge.cli.measuring import counting, evaluation_table
    from bridge.evaluate import read_judged
    from bridge.ingest import IngestOptions, ingest
    from bridge.measured import measure
    from bridge.rewrite import QueryRewriter
    from bridge.sources import open_source

    console = state.console() if not state.json else None
    _check_ours(engine)
    with open_source([str(corpus)]) as source:
        if teacher:
            _step(console, "1  Learn a model from the texts and a dense encoder (queries then need neither)",
                  "bridge fit CORPUS -o MODEL --teacher DENSE")  # fmt: skip
        else:
            _step(console, "1  Learn a model from the texts themselves (BM25 as a pair of sparse encoders)",
                  "bridge fit CORPUS -o MODEL")  # fmt: skip
        _tell(console, why)
        model = _fitted_folder(corpus, teacher) if teacher else scratch / "model"
        encoder = _fit(source, model, teacher)
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
        _forget(engine, encoder.fingerprint, card.documents)
        options = IngestOptions(
            model=str(model),
            dead_letter=scratch / "dead-letter.jsonl",
            fresh=True,
            run={"teacher": teacher} if teacher else {},
        )
        summary = ingest(engine, INDEX, source, options, say=lambda line: _tell(console, line))
        there = f" ({summary.unchanged} were, and are not encoded again)" if summary.unchanged else ""
        _tell(
            console,
            f"{summary.indexed + summary.unchanged} of {summary.source} documents are in{there}, {summary.dead} dead, "
            f"{summary.seconds:.1f} s",
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
        found: dict[str, Any] = {"ingest": msgspec.to_builtins(summary), "evaluate": evaluation.as_dict()}
        state.out({"teacher": teacher} | found)
        return
    console.print(evaluation_table(INDEX, evaluation))
    _next(console, corpus, state.url)


def _fitted_folder(corpus: Path, teacher: str) -> Path:
    """Where the projection of this corpus and dense encoder is kept, so that the next demo takes seconds."""
    from bridge.encode.dense import describe_dense

    words = f"{version('neural-sparse-bridge')} {describe_dense(teacher).fingerprint} "
    content = words.encode() + (corpus / "corpus.jsonl").read_bytes()
    return cache_folder() / "demo" / hashlib.sha256(content).hexdigest()[:16]


def _fit(source: Source, folder: Path, teacher: str | None) -> LexicalEncoder | ProjectionEncoder:
    from bridge.encode.projection import ProjectionEncoder
    from bridge.errors import ModelError
    from bridge.fit import FitOptions, fit
    from bridge.ingest import texts_of

    # What an earlier version or a damaged disk left there is made anew.
    with contextlib.suppress(ModelError):
        if teacher and folder.is_dir():
            return ProjectionEncoder(folder, teacher=teacher)
    shutil.rmtree(folder, ignore_errors=True)
    return fit(texts_of(source, TEXT_FIELDS, lambda progress: None), folder, FitOptions(teacher=teacher))


def _check_ours(engine: Engine) -> None:
    from bridge.errors import IndexConflict
    from bridge.indexmodel import IndexModel

    state = engine.get_index(INDEX)
    if state is not None and IndexModel.of(state) is None:
        raise IndexConflict(f"{engine.url} has an index {INDEX} that the demo did not make; it is left alone")


def _forget(engine: Engine, fingerprint: str, documents: int) -> None:
    """Take away the index of an earlier demo, unless it is just what this one would make."""
    from bridge.indexmodel import IndexModel

    state = engine.get_index(INDEX)
    if state is None:
        return
    model = IndexModel.of(state)
    if model is None or model.document_encoder != fingerprint or engine.count(INDEX) != documents:
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
        # Not to be wrapped: a command in it is there to be copied.
        console.print(f"   {line}", markup=False, soft_wrap=True)


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
