"""`bridge encode`: texts into vectors, in a file or on the screen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import numpy as np

from bridge.cli.asking import conversation_of, conversation_option, turn_option
from bridge.cli.common import (
    BridgeCommand,
    SectionOption,
    State,
    cut_options,
    model_options,
    pass_state,
    prune_option,
    pruning_removed,
    run_options,
)
from bridge.cli.indexes import index_opener
from bridge.cli.sourcing import chosen_source, say_matched, source_options
from bridge.errors import MissingExtra, UsageError
from bridge.records import TEXT_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.encode import Encoder
    from bridge.encodefile import EncodeSummary
    from bridge.prepare import Preparation
    from bridge.runners.work import ModelSpec, Runner

_worker_option = partial(click.option, cls=SectionOption, section="Workers")


@click.command(cls=BridgeCommand, short_help="Encode documents to a file, or show a text as words.")
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write the vectors.")
@click.option("--text", metavar="WORDS", help="Encode this text instead, and print its tokens, heaviest first.")
@click.option("--query", is_flag=True, help="With --text: as a query.")
@turn_option
@conversation_option
@click.option(
    "--model",
    metavar="MODEL",
    help="A card's id, a Hugging Face id, a folder or a fingerprint; else one is fitted on the source.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "parquet", "anserini", "engine"]),
    help="The file's form; by default that of its name. The engine form goes in fastest.",
)
@click.option("--keep-source", is_flag=True, help="Keep each document's own fields in the file, to be indexed too.")
@click.option(
    "--scale",
    type=float,
    metavar="X",
    help="Multiply weights by this and round to whole numbers, which is what Anserini reads (100, say).",
)
@source_options
@click.option(
    "--text-field",
    "text_fields",
    multiple=True,
    metavar="FIELD",
    help="A field whose text is encoded; may be repeated. Default: title and text, those that are there.",
)
@click.option(
    "--dead-letter",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where documents that cannot be encoded are kept. Default: FILE.dead-letter.jsonl.",
)
@click.option("--fresh", is_flag=True, help="Forget what an interrupted run has written.")
@cut_options(passages="whole", overlap=0)
@prune_option
@_worker_option(
    "--runner",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Encode on this machine, or with Ray's actors (extra ray).",
)
@_worker_option(
    "--workers",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Processes, or actors, that each load the model; GPUs are handed out in turn. Default: 1.",
)
@_worker_option(
    "--ray-address",
    metavar="ADDRESS",
    help="A Ray cluster, seen from one of its machines; by default one is started here and ended with the run.",
)
@model_options
@pass_state
def encode(state: State, /, sources: tuple[str, ...], output: Path | None, text: str | None, **options: Any) -> int:
    """Encode documents into a file that `bridge ingest` takes on any machine, or one text onto the screen.

    SOURCE is a file (.jsonl .csv .tsv .parquet, also .gz .zst), a glob, a BEIR folder, one of these in a store
    (s3://, gs://), or - for stdin. An interrupted run goes on where it stopped when the same command is given again.
    FILE.meta.json, beside the file, says whose vectors they are.

    \b
    bridge encode articles.jsonl -o vectors.jsonl.zst --model MODEL
    bridge encode articles.jsonl -o vectors.parquet --model MODEL --device cuda --workers 4
    bridge encode articles.jsonl -o ready.jsonl --format engine --model MODEL
    bridge encode articles.jsonl -o anserini.jsonl --format anserini --scale 100 --model MODEL
    bridge encode --text "what is the weather in ny" --query --model MODEL
    """
    from bridge.encode import load_encoder

    if (text is None) == (not sources) or (text is None) == (output is None):
        raise UsageError("give sources and -o FILE, or a text with --text")
    if options["query"] and text is None:
        raise UsageError("--query goes with --text; documents are encoded as documents")
    if options["turns"] and not options["query"]:
        raise UsageError("--turn goes with --query: a conversation is a query")
    if options["ray_address"] and options["runner"] != "ray":
        raise UsageError("--ray-address goes with --runner ray")
    encoder = load_encoder(options["model"], **run_options(options)) if options["model"] else None
    if text is None:
        return _write(state, encoder, sources, Path(output or ""), options)
    if encoder is None:
        raise UsageError("name the model with --model")
    if options["turns"]:
        from bridge.rewrite import query_text

        text = query_text(encoder, conversation_of(options["turns"], text), options["conversation"])
    return _show(state, encoder, text, query=options["query"])


def _show(state: State, /, encoder: Encoder, text: str, *, query: bool) -> int:
    (vector,) = encoder.encode_query([text]) if query else encoder.encode_document([text])
    order = np.argsort(-vector.weights, kind="stable")
    tokens = vector.tokens
    ranked = {tokens[place]: float(str(vector.weights[place])) for place in order.tolist()}
    if state.json:
        state.out({"model": encoder.fingerprint, "active": len(ranked), "tokens": ranked})
        return 0
    for token, weight in ranked.items():
        click.echo(f"{weight:8.4f}  {token}")
    click.echo(f"{len(ranked)} active dimensions of {len(encoder.vocabulary):,}", err=True)
    return 0


def _write(
    state: State, /, encoder: Encoder | None, sources: tuple[str, ...], output: Path, options: dict[str, Any]
) -> int:
    from bridge.encodefile import EncodeOptions, encode_file
    from bridge.fit import fit
    from bridge.ingest import texts_of
    from bridge.sources import open_source
    from bridge.vectorfile import META_SUFFIX

    make_runner = _runner_of(options)
    chosen = EncodeOptions(
        form=options["form"],
        text_fields=options["text_fields"] or TEXT_FIELDS,
        keep_source=options["keep_source"],
        scale=options["scale"],
        preparation=_preparation(options),
        dead_letter=options["dead_letter"],
        fresh=options["fresh"],
    )
    if chosen.form == "anserini" and chosen.scale is None:
        state.say("Anserini reads weights as whole numbers: --scale 100 keeps two digits")
    if chosen.form == "anserini":
        state.say(
            f"Anserini reads every JSON file of a folder: give it {output.name} without {output.name}{META_SUFFIX}"
        )
    with (
        open_source(sources, chosen_source(options), indexes=index_opener(state)) as source,
        state.progress() as report,
    ):
        if encoder is None:
            encoder = fit(texts_of(source, chosen.text_fields, report))
            state.say(f"no model was named: fitted {encoder.fingerprint} on the source itself")
        runner = make_runner(encoder) if make_runner else None
        summary = encode_file(source, output, encoder, chosen, runner=runner, say=state.say, report=report)
    say_matched(state, source)
    _summarize(state, summary)
    return 3 if summary.dead else 0


def _preparation(options: dict[str, Any]) -> Preparation:
    from bridge.prepare import Preparation
    from bridge.prune import parse_pruning

    pruning = parse_pruning(options["prune"]) if options["prune"] else None
    return Preparation(options["passages"], options["passage_tokens"], options["overlap"], pruning)


def _runner_of(options: dict[str, Any]) -> Callable[[Encoder], Runner] | None:
    """What makes the runner for an encoder; None where this process encodes by itself.

    Raises:
        MissingExtra: Ray is not installed.
    """
    workers = options["workers"] or 1
    if options["runner"] == "ray":
        try:
            from bridge.runners.cluster import RayActors
        except ImportError:
            raise MissingExtra("--runner ray", "ray") from None
        return lambda encoder: RayActors(_spec(encoder, options), workers, options["ray_address"])
    if workers == 1:
        return None
    from bridge.runners.processes import Processes

    return lambda encoder: Processes(_spec(encoder, options), workers)


def _spec(encoder: Encoder, options: dict[str, Any]) -> ModelSpec:
    """How a worker finds the model: as it was named, or where the one lies that was fitted for this run."""
    from bridge.encode.load import ModelOrigin, cached_model
    from bridge.runners.work import ModelSpec

    model = options["model"] or cached_model(encoder.fingerprint)
    return ModelSpec(ModelOrigin.of(model).model, run_options(options))


def _summarize(state: State, /, summary: EncodeSummary) -> None:
    if state.json:
        state.out({key: value for key, value in msgspec.to_builtins(summary).items() if value is not None})
        return
    rate = summary.encoded / summary.seconds if summary.seconds else 0.0
    click.echo(
        f"{summary.output}: {summary.encoded:,} of {summary.source:,} documents, {summary.active_terms:.1f} active "
        f"terms each ({summary.seconds:.1f} s, {rate:,.0f}/s)"
    )
    if summary.passages is not None:
        click.echo(f"{summary.passages:,} passages ({summary.preparation})")
    if removed := pruning_removed(summary.pruned_terms, summary.pruned_mass):
        click.echo(removed)
    if summary.dead:
        click.echo(f"{summary.dead:,} documents could not be encoded; see {summary.dead_letter}", err=True)
