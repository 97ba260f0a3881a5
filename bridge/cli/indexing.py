"""`bridge fit`, `bridge register`, `bridge ingest`: everything that writes."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bridge.cli.common import (
    BridgeCommand,
    SectionOption,
    State,
    all_of,
    cut_options,
    dead_letter_option,
    error_budget_option,
    model_options,
    pass_state,
    passage_option,
    prune_option,
    run_options,
)
from bridge.cli.indexes import index_opener
from bridge.cli.sourcing import chosen_source, described, of_vectors, say_matched, source_options
from bridge.cli.totals import show_summary
from bridge.errors import UsageError
from bridge.records import TEXT_FIELDS

if TYPE_CHECKING:
    from bridge.engines import Engine
    from bridge.fit import FitOptions
    from bridge.ingest import IngestOptions
    from bridge.register import RegisterOptions
    from bridge.sources import Source

text_field_option = click.option(
    "--text-field", "text_fields", multiple=True, metavar="FIELD",
    help="A field whose text is encoded; may be repeated. Default: title and text, those that are there.",
)  # fmt: skip

_index_option = partial(click.option, cls=SectionOption, section="The index")
index_options = all_of(
    _index_option(
        "--kind", type=click.Choice(["rank_features", "sparse_vector"]),
        help="The vector field's type; by default the best that the engine has for raw vectors.",
    ),
    _index_option("--field", default="embedding", show_default=True, metavar="FIELD", help="The vector field."),
    _index_option(
        "--dense", metavar="MODEL",
        help="Also this dense model's vectors, for hybrid queries; an index that has one keeps it up by itself.",
    ),
    _index_option(
        "--dense-field", default="dense", show_default=True, metavar="FIELD", help="The dense vectors' field."
    ),
    _index_option(
        "--two-phase", is_flag=True,
        help="OpenSearch: a pipeline that lets the heaviest tokens find candidates, and all tokens rescore them.",
    ),
    _index_option("--shards", type=click.IntRange(1), metavar="N", help="Primary shards of a new index."),
    _index_option(
        "--replicas", type=click.IntRange(0), metavar="N",
        help="Copies of each shard; by default one where there is a second node.",
    ),
)  # fmt: skip

passage_options = all_of(
    cut_options(),
    passage_option(
        "--passage-field", default="passages", show_default=True, metavar="FIELD", help="The nested passages' field."
    ),
    prune_option,
)

_fit_option = partial(click.option, cls=SectionOption, section="Fitting a model")
_fit_options = all_of(
    _fit_option(
        "--language", default="auto", show_default=True, metavar="CODE",
        help="ISO 639-1 code for stemming; auto looks at the texts, none does not stem.",
    ),
    _fit_option(
        "--tokenizer", type=click.Path(path_type=Path), metavar="FOLDER",
        help="Fit over the word pieces of this folder's tokenizer.json (SEISMIC needs that).",
    ),
    _fit_option(
        "--teacher", metavar="MODEL",
        help="A dense encoder, a folder or a Hugging Face id: fit a projection of it onto the words.",
    ),
    _fit_option(
        "--k1", type=float, default=0.9, show_default=True, metavar="X", help="BM25's term-frequency saturation."
    ),
    _fit_option(
        "-b", "b", type=float, default=0.4, show_default=True, metavar="X", help="BM25's length normalisation, 0 to 1."
    ),
)  # fmt: skip


@click.command(cls=BridgeCommand, short_help="Learn a model from a corpus, without training.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Where to write the model.",
)
@source_options
@text_field_option
@_fit_options
@model_options
@pass_state
def fit(state: State, /, sources: tuple[str, ...], output: Path, text_fields: tuple[str, ...], **options: Any) -> int:
    """Learn a model from a corpus, in one pass and without training.

    SOURCE is a file (.jsonl .csv .tsv .parquet, also .gz .zst), a glob, a BEIR folder, one of these in a store
    (s3://, gs://), or - for stdin. The model is BM25 as a pair of sparse encoders: an engine's dot product of its
    vectors is the BM25 score. With a --teacher it is a projection: documents are encoded by that dense encoder and a
    table; queries stay a look-up.

    \b
    bridge fit articles.jsonl -o article-model
    bridge fit articles.jsonl -o article-model --teacher all-MiniLM-L6-v2
    bridge fit articles.jsonl -o article-model --tokenizer bert-folder
    """
    from bridge.encode.projection import ProjectionCard
    from bridge.fit import fit as learn
    from bridge.ingest import texts_of
    from bridge.sources import open_source

    with (
        open_source(sources, chosen_source(options), indexes=index_opener(state)) as source,
        state.progress() as report,
    ):
        encoder = learn(texts_of(source, text_fields or TEXT_FIELDS, report), output, _fitting(options))
    say_matched(state, source)
    card = encoder.card
    if state.json:
        state.out({"model": encoder.fingerprint, "folder": str(output), **msgspec.to_builtins(card)})
    else:
        how = f"stemmed ({card.stemmer})" if card.stemmer else getattr(card, "analyzer", "words")
        how += f", projected from {card.teacher}" if isinstance(card, ProjectionCard) else ""
        size = f"{card.documents:,} documents, {card.average_length:.1f} terms each"
        click.echo(f"{encoder.fingerprint} in {output}: {size}, {how}")
    return 0


@click.command(cls=BridgeCommand, short_help="Make an index for a model, or bring one up to it.")
@click.argument("index")
@click.option(
    "--model", metavar="MODEL", required=True, help="A card's id, a Hugging Face id, a folder, or a fingerprint."
)
@click.option(
    "--query-model",
    "query_models",
    multiple=True,
    metavar="MODEL",
    help="Also let this model ask: a separate query model, or a conversation encoder; may be repeated.",
)
@text_field_option
@index_options
@passage_options
@model_options
@click.option("--dry-run", is_flag=True, help="Print what would change, as a diff, and change nothing.")
@pass_state
def register(
    state: State, /, index: str, model: str, text_fields: tuple[str, ...], dry_run: bool, **options: Any
) -> int:
    """Create INDEX for a model's vectors, or bring it up to that.

    The mapping's _meta says which model the vectors are of. Doing it twice changes nothing; an index of another
    model, or one that differs where an engine cannot change it, is an error.
    """
    from bridge import register as registering
    from bridge.encode import load_encoder
    from bridge.encode.load import ModelOrigin
    from bridge.modelstore import save_dense, save_model

    running = run_options(options)
    encoder = load_encoder(model, **running)
    # A revision is one repository's, and so is an activation: the query models have their own.
    others = {name: load_encoder(name, **running | {"revision": None, "activation": None})
              for name in options["query_models"]}  # fmt: skip
    chosen = replace(register_options(options, text_fields), query_models=tuple(others.values()))
    with state.connect() as engine:
        planned = registering.plan(engine, index, encoder, chosen)
        if not dry_run:
            registering.apply(engine, planned)
            save_model(engine, encoder, ModelOrigin.of(model, running))
            if chosen.dense:
                save_dense(engine, chosen.dense.fingerprint, ModelOrigin.of(options["dense"]))
            for name, other in others.items():
                save_model(engine, other, ModelOrigin.of(name))
    if state.json:
        state.out(
            {
                "index": index,
                "model": encoder.fingerprint,
                "steps": planned.steps,
                "diff": planned.diff,
                "dry_run": dry_run,
            }
        )
    elif dry_run:
        click.echo(planned.diff or f"{index} is as wanted: nothing to do")
        for step in planned.steps:
            state.say(f"would {step}")
    else:
        click.echo("\n".join(planned.steps) or f"{index} is as wanted: nothing to do")
    return 0


@click.command(cls=BridgeCommand, short_help="Encode documents and bring them into an index.")
@click.argument("index")
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option(
    "--model",
    metavar="MODEL",
    help="A card's id, a Hugging Face id, a folder or a fingerprint; else the index's own, else one is fitted.",
)
@source_options
@text_field_option
@index_options
@passage_options
@model_options
@_fit_options
@dead_letter_option("INDEX")
@click.option("--fresh", is_flag=True, help="Forget the checkpoint of an interrupted run and begin at the start.")
@click.option("--finish", is_flag=True, help="Load nothing; put back the index's settings after a load that crashed.")
@click.option(
    "--fast-load",
    is_flag=True,
    help="Do without replicas until the load ends, and wait for them then; a node lost meanwhile takes its part along.",
)
@click.option(
    "--estimate",
    is_flag=True,
    help="Load nothing; say from a sample how long it would take, and how much disk.",
)
@error_budget_option
@click.option(
    "--chunk-documents",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    metavar="N",
    help="The most documents in one bulk request.",
)
@click.option(
    "--chunk-bytes",
    type=click.IntRange(1),
    default=5_000_000,
    show_default=True,
    metavar="N",
    help="The most bytes in one bulk request.",
)
@pass_state
def ingest(state: State, /, index: str, sources: tuple[str, ...], **options: Any) -> int:
    """Encode documents and bring them into INDEX, losing none.

    SOURCE is a file (.jsonl .csv .tsv .parquet, also .gz .zst), a glob, a BEIR folder, one of these in a store
    (s3://, gs://), an index (index:NAME), or - for stdin. INDEX is made if it is not there; an index that is read into
    itself gets vectors in place. An interrupted run goes on where it stopped when the same command is given again. A
    document that cannot go in is written to the dead-letter file with its reason, and the exit code is 3.

    \b
    bridge ingest articles articles.jsonl
    bridge ingest articles 'parts/*.parquet' --id-field key --text-field headline --text-field body
    bridge ingest articles 's3://bucket/dump/*.jsonl.gz' --where 'lang == "en"' --set 'text={headline}. {body}'
    zcat dump.jsonl.gz | bridge ingest articles -
    bridge ingest articles index:articles --model MODEL        vectors for documents that are there
    bridge ingest articles vectors.jsonl               a file of `bridge encode`: its vectors go in as they are
    """  # fmt: skip
    from bridge.bulk import BulkOptions
    from bridge.ingest import IngestOptions
    from bridge.ingest import ingest as run
    from bridge.sources import open_source

    if options["finish"]:
        if options["estimate"]:
            raise UsageError("--finish loads nothing, and --estimate changes nothing; name one of them")
        return _finish(state, index, sources)
    if not sources:
        raise click.MissingParameter(ctx=click.get_current_context(), param_hint="'SOURCE...'", param_type="argument")
    text_fields = options["text_fields"] or None
    chosen = IngestOptions(
        model=options["model"],
        text_fields=text_fields,
        register=register_options(options, text_fields or ()),
        fit=_fitting(options),
        dead_letter=options["dead_letter"],
        fresh=options["fresh"],
        fast_load=options["fast_load"],
        error_budget=options["error_budget"],
        dense=options["dense"],
        run=run_options(options) | ({"teacher": options["teacher"]} if options["teacher"] else {}),
        bulk=BulkOptions(chunk_documents=options["chunk_documents"], chunk_bytes=options["chunk_bytes"]),
    )
    reading = chosen_source(options)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source(sources, reading, indexes=index_opener(state)))
        if vectors := described(source):
            source = stack.enter_context(open_source(sources, of_vectors(reading)))
            chosen = replace(chosen, vectors=vectors)
        engine = stack.enter_context(state.connect())
        if options["estimate"]:
            return _estimate(state, engine, index, source, chosen)
        report = stack.enter_context(state.progress())
        started = time.monotonic()
        summary = run(engine, index, source, chosen, say=state.say, report=report)
    say_matched(state, source)
    show_summary(state, index, source.name, summary, time.monotonic() - started)
    return 3 if summary.dead else 0


def _estimate(state: State, /, engine: Engine, index: str, source: Source, options: IngestOptions) -> int:
    from bridge.cli.totals import show_estimate
    from bridge.estimate import estimate

    with state.progress() as report:
        found = estimate(engine, index, source, options, say=state.say, report=report)
    show_estimate(state, index, source.name, found)
    return 0


def _finish(state: State, /, index: str, sources: tuple[str, ...]) -> int:
    from bridge.loadsettings import finish_load

    if sources:
        raise UsageError("--finish loads nothing; leave the sources out")
    with state.connect() as engine:
        changed = finish_load(engine, index)
        engine.refresh(index)
    if state.json:
        state.out({"index": index, "restored": changed})
    else:
        click.echo(f"{index} has its settings back" if changed else f"{index} has its own settings: nothing to do")
    return 0


def _fitting(options: dict[str, Any]) -> FitOptions:
    from bridge.fit import FitOptions

    chosen = {key: options[key] for key in ("language", "tokenizer", "k1", "b", "teacher")}
    return FitOptions(**chosen, run=run_options(options))


def register_options(options: dict[str, Any], text_fields: tuple[str, ...]) -> RegisterOptions:
    from bridge.encode.dense import describe_dense
    from bridge.prune import parse_pruning
    from bridge.register import RegisterOptions

    return RegisterOptions(
        text_fields=text_fields or None,
        kind=options["kind"],
        field=options["field"],
        dense=describe_dense(options["dense"]) if options["dense"] else None,
        dense_field=options["dense_field"],
        passages=options["passages"],
        passage_tokens=options["passage_tokens"],
        overlap=options["overlap"],
        pruning=parse_pruning(options["prune"]) if options["prune"] else None,
        passage_field=options["passage_field"],
        two_phase=options["two_phase"],
        shards=options["shards"],
        replicas=options["replicas"],
    )
