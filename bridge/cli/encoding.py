"""`bridge encode`: texts into vectors, in a file or on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import numpy as np

from bridge.cli.common import BridgeCommand, State, model_options, pass_state, run_options
from bridge.errors import UsageError
from bridge.records import TEXT_FIELDS

if TYPE_CHECKING:
    from bridge.encode import Encoder
    from bridge.encodefile import EncodeSummary


@click.command(cls=BridgeCommand, short_help="Encode documents to a file, or show a text as words.")
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write the vectors.")
@click.option("--text", metavar="WORDS", help="Encode this text instead, and print its tokens, heaviest first.")
@click.option("--query", is_flag=True, help="With --text: as a query.")
@click.option(
    "--model",
    metavar="MODEL",
    help="A card's id, a Hugging Face id, a folder or a fingerprint; else one is fitted on the source.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "parquet", "anserini"]),
    help="The file's form; by default that of its name.",
)
@click.option("--keep-source", is_flag=True, help="Keep each document's own fields in the file, to be indexed too.")
@click.option(
    "--scale",
    type=float,
    metavar="X",
    help="Multiply weights by this and round to whole numbers, which is what Anserini reads (100, say).",
)
@click.option(
    "--id-from",
    type=click.Choice(["field", "content"]),
    default="field",
    show_default=True,
    help="Take ids from a field, or make them from the content.",
)
@click.option("--id-field", default="_id", show_default=True, metavar="FIELD", help="The field that holds the id.")
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
@model_options
@pass_state
def encode(state: State, /, sources: tuple[str, ...], output: Path | None, text: str | None, **options: Any) -> int:
    """Encode documents into a file that `bridge ingest` takes on any machine, or one text onto the screen.

    SOURCE is a file (.jsonl .csv .tsv .parquet, also .gz .zst), a glob, a BEIR folder, or - for stdin. An interrupted
    run goes on where it stopped when the same command is given again. FILE.meta.json, beside the file, says whose
    vectors they are.

    \b
    bridge encode articles.jsonl -o vectors.jsonl.zst --model MODEL
    bridge encode articles.jsonl -o anserini.jsonl --format anserini --scale 100 --model MODEL
    bridge encode --text "what is the weather in ny" --query --model MODEL
    """
    from bridge.encode import load_encoder

    if (text is None) == (not sources) or (text is None) == (output is None):
        raise UsageError("give sources and -o FILE, or a text with --text")
    if options["query"] and text is None:
        raise UsageError("--query goes with --text; documents are encoded as documents")
    encoder = load_encoder(options["model"], **run_options(options)) if options["model"] else None
    if text is None:
        return _write(state, encoder, sources, Path(output or ""), options)
    if encoder is None:
        raise UsageError("name the model with --model")
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
    from bridge.sources import SourceOptions, open_source

    chosen = EncodeOptions(
        form=options["form"],
        text_fields=options["text_fields"] or TEXT_FIELDS,
        keep_source=options["keep_source"],
        scale=options["scale"],
        dead_letter=options["dead_letter"],
        fresh=options["fresh"],
    )
    if chosen.form == "anserini" and chosen.scale is None:
        state.say("Anserini reads weights as whole numbers: --scale 100 keeps two digits")
    with (
        open_source(sources, SourceOptions(id_field=options["id_field"], id_from=options["id_from"])) as source,
        state.progress() as report,
    ):
        if encoder is None:
            encoder = fit(texts_of(source, chosen.text_fields, report))
            state.say(f"no model was named: fitted {encoder.fingerprint} on the source itself")
        summary = encode_file(source, output, encoder, chosen, say=state.say, report=report)
    _summarize(state, summary)
    return 3 if summary.dead else 0


def _summarize(state: State, /, summary: EncodeSummary) -> None:
    if state.json:
        state.out({key: value for key, value in msgspec.to_builtins(summary).items() if value is not None})
        return
    rate = summary.encoded / summary.seconds if summary.seconds else 0.0
    click.echo(
        f"{summary.output}: {summary.encoded:,} of {summary.source:,} documents, {summary.active_terms:.1f} active "
        f"terms each ({summary.seconds:.1f} s, {rate:,.0f}/s)"
    )
    if summary.dead:
        click.echo(f"{summary.dead:,} documents could not be encoded; see {summary.dead_letter}", err=True)
