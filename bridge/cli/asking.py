"""`bridge rewrite`, `bridge search`: the query side."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bridge.cli.common import BridgeCommand, State, model_options, pass_state, run_options
from bridge.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from bridge.records import Hit
    from bridge.rewrite import QueryRewriter

SHOWN_TOKENS = 6
SHOWN_TEXT = 160

_filter = click.option(
    "--filter", "filter_json", metavar="JSON", help="A query clause that hits must match; it does not change scores."
)
_size = click.option(
    "-n", "--size", type=click.IntRange(1, 10_000), default=10, show_default=True, metavar="N", help="Hits wanted."
)
_dialect = click.option("--dialect", type=click.Choice(["neural_sparse", "rank_feature", "sparse_vector"]),
                        help="How to ask; by default the best that the engine's version understands.")  # fmt: skip


@click.command(cls=BridgeCommand, short_help="Print a question as a search body.")
@click.argument("text")
@click.option(
    "--model",
    metavar="MODEL",
    help="A model's id, folder or fingerprint; with --index, the index's own is the default.",
)
@click.option("--index", metavar="INDEX", help="Read field, kind, version and model off this index.")
@click.option(
    "--field", default="embedding", show_default=True, metavar="FIELD", help="The vector field, without --index."
)
@click.option(
    "--kind",
    type=click.Choice(["rank_features", "sparse_vector"]),
    default="rank_features",
    show_default=True,
    help="The field's type, without --index.",
)
@click.option(
    "--engine-version",
    default=None,
    metavar="X.Y.Z",
    help="The engine's version, without --index. Default: 3.6.0, or 9.2.0.",
)
@_dialect
@_size
@_filter
@model_options
@pass_state
def rewrite(state: State, /, text: str, model: str | None, index: str | None, **options: Any) -> int:
    """Print TEXT as a search body, and nothing else on stdout.

    With --model alone nothing is connected to. The output is ready for a client, or for curl:

    \b
    bridge rewrite "weather in ny" --model model-folder |
      curl -H content-type:application/json -d @- http://localhost:9200/my-index/_search
    """
    if index:
        from bridge.rewrite import QueryRewriter

        with state.connect() as engine:
            rewriter = QueryRewriter.for_index(
                engine, index, model=model, dialect=options["dialect"], **run_options(options)
            )
    elif model:
        rewriter = _offline(state, model, options)
    else:
        raise UsageError("name a model with --model, or an index with --index")
    encoded = rewriter.encode(text)
    if encoded.dropped:
        state.say(
            f"{encoded.dropped} of the lightest tokens were dropped: engines take {len(encoded.sparse or ())} clauses"
        )
    if not encoded.sparse:
        state.say("the text has no token that could be asked for: the query matches nothing")
    body = rewriter.body(encoded, size=options["size"], filter=_parse_filter(options["filter_json"]))
    state.out(body)
    return 0


def _offline(state: State, /, model: str, options: dict[str, Any]) -> QueryRewriter:
    from bridge.rewrite import QueryRewriter

    product = state.product or ("elasticsearch" if options["dialect"] == "sparse_vector" else "opensearch")
    version = options["engine_version"] or {"opensearch": "3.6.0", "elasticsearch": "9.2.0"}[product]
    kind = "sparse_vector" if options["dialect"] == "sparse_vector" else options["kind"]
    return QueryRewriter.load(
        model,
        engine=product,
        version=version,
        field=options["field"],
        kind=kind,
        dialect=options["dialect"],
        **run_options(options),
    )


@click.command(cls=BridgeCommand, short_help="Ask an index.")
@click.argument("index")
@click.argument("text")
@click.option("--model", metavar="MODEL", help="A model's id, folder or fingerprint; the index's own is the default.")
@_dialect
@_size
@_filter
@model_options
@pass_state
def search(state: State, /, index: str, text: str, model: str | None, **options: Any) -> int:
    """Ask INDEX, and show each hit with the tokens that made its score.

    \b
    bridge search articles "does vitamin D help"
    bridge search articles "does vitamin D help" --filter '{"term": {"lang": "en"}}' --json
    """
    from bridge.rewrite import QueryRewriter
    from bridge.search import search as ask

    with state.connect() as engine:
        rewriter = QueryRewriter.for_index(
            engine, index, model=model, dialect=options["dialect"], **run_options(options)
        )
        result = ask(engine, index, rewriter, text, size=options["size"], filter=_parse_filter(options["filter_json"]))
    if state.json:
        state.out(
            {
                "took": result.took,
                "hits": [_as_json(hit) for hit in result.hits],
                "dropped": result.query.dropped,
            }
        )
        return 0
    if not result.query.sparse:
        state.say("the text has no token that could be asked for")
    if not result.hits:
        click.echo("no hits")
        return 0
    console = state.console()
    console.print(hits_table(result.hits, rewriter.text_fields))
    query = f"bridge rewrite {shlex.quote(text)} --index {shlex.quote(index)}"
    state.say(f"{len(result.hits)} hits in {result.took} ms; the query alone: {query}")
    return 0


def hits_table(hits: Sequence[Hit], text_fields: Sequence[str]) -> Table:
    """Score, id, text, and the tokens that made the score."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("id", overflow="fold", max_width=28)
    table.add_column("text", ratio=3)
    table.add_column("tokens", ratio=2)
    for hit in hits:
        shown = [f"{match.token} {match.contribution:.2f}" for match in hit.matches[:SHOWN_TOKENS]]
        if len(hit.matches) > SHOWN_TOKENS:
            shown.append(f"+{len(hit.matches) - SHOWN_TOKENS}")
        # Text objects: a document's own brackets must not be read as markup.
        table.add_row(f"{hit.score:.3f}", Text(hit.id), Text(_excerpt(hit, text_fields)), Text(", ".join(shown)))
    return table


def _excerpt(hit: Hit, text_fields: Sequence[str]) -> str:
    from bridge.errors import DocumentError
    from bridge.sources import text_of

    try:
        text = " ".join(text_of(hit.source, text_fields or list(hit.source)).split())
    except DocumentError:
        return ""
    return text if len(text) <= SHOWN_TEXT else text[: SHOWN_TEXT - 1] + "…"


def _as_json(hit: Hit) -> dict[str, Any]:
    return {
        "id": hit.id,
        "score": hit.score,
        "source": dict(hit.source),
        "tokens": {match.token: match.contribution for match in hit.matches},
    }


def _parse_filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(f"--filter is not JSON: {error}") from None
    if not isinstance(found, dict) or len(found) != 1:
        raise UsageError('--filter must be one query clause, like {"term": {"lang": "en"}}')
    return found
