"""`bridge rewrite`, `bridge search`: the query side."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bridge.cli.common import BridgeCommand, State, all_of, model_options, pass_state, run_options
from bridge.cli.explaining import explain_options, explained_table, write_page
from bridge.cli.fusing import hybrid_of, hybrid_options
from bridge.errors import UsageError
from bridge.records import Turn

if TYPE_CHECKING:
    from rich.table import Table

    from bridge.dialects.inside import Inside
    from bridge.dialects.seismic import Seismic
    from bridge.prune import Pruning
    from bridge.records import EncodedQuery, Hit, PassageHit, TokenScore
    from bridge.rewrite import QueryRewriter, Text
    from bridge.twophase import TwoPhase

SHOWN_TOKENS = 6
SHOWN_TEXT = 160

_filter = click.option(
    "--filter", "filter_json", metavar="JSON", help="A query clause that hits must match; it does not change scores."
)
_size = click.option(
    "-n", "--size", type=click.IntRange(1, 10_000), default=10, show_default=True, metavar="N", help="Hits wanted."
)
_start = click.option(
    "--from", "start", type=click.IntRange(0, 10_000), default=0, metavar="N", help="How many of the best hits to skip."
)
_min_score = click.option(
    "--min-score", type=click.FloatRange(0), metavar="SCORE", help="Leave out hits that score less."
)
_dialect = click.option("--dialect", type=click.Choice(["neural_sparse", "rank_feature", "sparse_vector"]),
                        help="How to ask; by default the best that the engine's version understands.")  # fmt: skip
field_option = click.option(
    "--field", "fields", multiple=True, metavar="FIELD[^BOOST]",
    help="A vector field; repeated, a hit's score is the sum of all, each times its boost. Default: the index's own, "
    "or embedding.",
)  # fmt: skip
_passages = click.option(
    "--passages", type=click.IntRange(0, 100), default=0, metavar="N", help="How many of a hit's passages come with it."
)
_collapse = click.option(
    "--collapse", metavar="FIELD", help="Where each document is a passage: the keyword field that names the whole."
)
conversation_option = click.option(
    "--conversation",
    type=click.Choice(["auto", "disco", "last", "all"]),
    default="auto",
    show_default=True,
    help="How turns become the encoder's input; auto is what the model was made for, else the last question.",
)
prune_option = click.option(
    "--prune", metavar="METHOD=VALUE,...", help="Drop a query's light tokens: top-k, max-ratio, alpha-mass, threshold."
)
turn_option = click.option(
    "--turn", "turns", multiple=True, metavar="WORDS",
    help="What was said before, oldest first: a question, its answer, the next question, …; repeated.",
)  # fmt: skip


two_phase_option = click.option(
    "--two-phase", is_flag=True, help="Let light tokens only change the order of what the heavy ones find: faster, and "
    "a hit of light tokens alone is not found."
)  # fmt: skip
seismic_option = click.option(
    "--seismic", metavar="top-n=N,heap-factor=F",
    help="How far a search over a SEISMIC field looks: of how many of the heaviest tokens the lists are read, and how "
    "freely their blocks.",
)  # fmt: skip
_inside = all_of(
    click.option("--analyzer", metavar="NAME",
                 help="Let OpenSearch (3.1 on) encode the question with this analyzer, like bert-uncased."),
    click.option("--model-id", metavar="ID", help="Let OpenSearch encode it with this model, that is deployed there."),
    click.option("--inference-id", metavar="ID", help="Let Elasticsearch encode it with this inference endpoint."),
)  # fmt: skip


def _inside_of(options: dict[str, Any]) -> Inside | None:
    from bridge.dialects.inside import inside_of

    return inside_of(options["analyzer"], options["model_id"], options["inference_id"])


def two_phase_of(options: dict[str, Any]) -> TwoPhase | None:
    """What `--two-phase` says."""
    from bridge.twophase import TwoPhase

    return TwoPhase() if options["two_phase"] else None


def seismic_of(text: str | None) -> Seismic:
    """What `--seismic` says."""
    from bridge.dialects.seismic import Seismic, parse_seismic

    return Seismic() if text is None else parse_seismic(text)


def conversation_of(turns: Sequence[str], text: str) -> Text:
    """`text`, or with `turns` (question, answer, question, …, oldest first) a conversation that ends with it."""
    if not turns:
        return text
    answers = [*turns[1::2], *([None] if len(turns) % 2 else [])]
    earlier = [Turn(question, answer) for question, answer in zip(turns[::2], answers, strict=True)]
    return [*earlier, Turn(text)]


def pruning_of(text: str | None) -> Pruning | None:
    """What `--prune` says."""
    from bridge.prune import parse_pruning

    return None if text is None else parse_pruning(text)


def say_of_query(state: State, /, encoded: EncodedQuery) -> None:
    """Lines on what was taken from the query, if anything was."""
    left = encoded.sparse
    if encoded.pruned and left is not None:
        mass = float(left.weights.sum()) + encoded.pruned_mass
        state.say(
            f"pruning took {encoded.pruned} of {encoded.pruned + encoded.dropped + len(left)} tokens, "
            f"{100 * encoded.pruned_mass / mass:.1f} % of the weight"
        )
    if encoded.dropped:
        state.say(
            f"{encoded.dropped} of the lightest tokens were dropped: engines take {len(left or ())} beside a filter"
        )
    if left is not None and not left:
        state.say("the text has no token that could be asked for: the query matches nothing")


@click.command(cls=BridgeCommand, short_help="Print a question as a search body.")
@click.argument("text")
@click.option(
    "--model",
    metavar="MODEL",
    help="A model's id, folder or fingerprint; with --index, the index's own is the default.",
)
@click.option("--index", metavar="INDEX", help="Read field, kind, version and model off this index.")
@field_option
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
@click.option(
    "--nested-path", metavar="FIELD", help="The nested field that holds the passages, without --index, if there is one."
)
@_dialect
@_size
@_start
@_min_score
@_filter
@_passages
@_collapse
@prune_option
@turn_option
@conversation_option
@two_phase_option
@seismic_option
@_inside
@hybrid_options
@click.option(
    "--dense-field",
    default="dense",
    show_default=True,
    metavar="FIELD",
    help="Without --index: the field with dense vectors.",
)
@click.option(
    "--text-field",
    "text_fields",
    multiple=True,
    metavar="FIELD",
    default=("title", "text"),
    show_default=True,
    help="Without --index: where BM25 looks; repeated.",
)
@model_options
@pass_state
def rewrite(state: State, /, text: str, model: str | None, index: str | None, **options: Any) -> int:
    """Print TEXT as a search body, and nothing else on stdout.

    With --model alone nothing is connected to. The output is ready for a client, or for curl:

    \b
    bridge rewrite "weather in ny" --model model-folder |
      curl -H content-type:application/json -d @- http://localhost:9200/my-index/_search
    """
    how = _how(options)
    if index and options["nested_path"]:
        raise UsageError("--nested-path is for an index that is not asked: leave it out, the index says it itself")
    if index:
        from bridge.rewrite import QueryRewriter

        with state.connect() as engine:
            rewriter = QueryRewriter.for_index(engine, index, model=model, **_asking(options))
    elif model or _inside_of(options):
        rewriter = _offline(state, model, options)
    else:
        raise UsageError("name a model with --model, or an index with --index, or what encodes in the cluster")
    encoded = rewriter.beside(rewriter.encode(conversation_of(options["turns"], text)), how["filter"])
    body = rewriter.body(encoded, **how)
    say_of_query(state, encoded)
    state.out(body)
    return 0


def _how(options: dict[str, Any]) -> dict[str, Any]:
    """What `QueryRewriter.body` and `search` take."""
    return {
        "size": options["size"],
        "start": options["start"],
        "min_score": options["min_score"],
        "filter": _parse_filter(options["filter_json"]),
        "passages": options["passages"],
        "collapse": options["collapse"],
    }


def _asking(options: dict[str, Any]) -> dict[str, Any]:
    """What `QueryRewriter.for_index` and `load` take."""
    return {
        "dialect": options["dialect"],
        "fields": options["fields"],
        "pruning": pruning_of(options["prune"]),
        "conversation": options["conversation"],
        "inside": _inside_of(options),
        "two_phase": two_phase_of(options),
        "seismic": seismic_of(options["seismic"]),
        "hybrid": hybrid_of(options),
        "dense": options["dense"],
        **run_options(options),
    }


def _offline(state: State, /, model: str | None, options: dict[str, Any]) -> QueryRewriter:
    from bridge.dialects import NEWEST
    from bridge.rewrite import QueryRewriter

    elastic = options["dialect"] == "sparse_vector" or options["inference_id"]
    product = state.product or ("elasticsearch" if elastic else "opensearch")
    version = options["engine_version"] or NEWEST[product]
    kind = "sparse_vector" if elastic else options["kind"]
    return QueryRewriter.load(
        model,
        engine=product,
        version=version,
        kind=kind,
        nested_path=options["nested_path"],
        dense_field=options["dense_field"],
        text_fields=options["text_fields"],
        **_asking(options),
    )


@click.command(cls=BridgeCommand, short_help="Ask an index.")
@click.argument("index")
@click.argument("text")
@click.option("--model", metavar="MODEL", help="A model's id, folder or fingerprint; the index's own is the default.")
@field_option
@_dialect
@_size
@_start
@_min_score
@_filter
@_passages
@_collapse
@prune_option
@turn_option
@conversation_option
@two_phase_option
@seismic_option
@_inside
@explain_options
@hybrid_options
@model_options
@pass_state
def search(state: State, /, index: str, text: str, model: str | None, **options: Any) -> int:
    """Ask INDEX, and show each hit with the tokens that made its score.

    \b
    bridge search articles "does vitamin D help"
    bridge search articles "does vitamin D help" --filter '{"term": {"lang": "en"}}' --json
    bridge search articles "does vitamin D help" --explain --html why.html
    bridge search articles "and against colds?" --turn "does vitamin D help" --turn "It keeps bones strong."
    """
    from bridge.explain import explained
    from bridge.rewrite import QueryRewriter
    from bridge.search import search as ask

    how = _how(options)
    asked = conversation_of(options["turns"], text)
    with state.connect() as engine:
        rewriter = QueryRewriter.for_index(engine, index, model=model, **_asking(options))
        result = ask(engine, index, rewriter, asked, explained_by=options["explained_by"], **how)
    why = [(hit.id, explained(hit, rewriter)) for hit in result.hits] if options["explain"] or options["html"] else []
    if options["html"]:
        write_page(options["html"], text, index, why)
    if state.json:
        query = result.query
        counted = {"dropped": query.dropped, "pruned": query.pruned}
        found = [hit.as_dict() for hit in result.hits]
        if options["explain"]:
            found = [hit | {"explanation": one.as_dict()} for hit, (_, one) in zip(found, why, strict=True)]
        state.out({"took": result.took, "hits": found, **counted})
        return 0
    say_of_query(state, result.query)
    if not result.hits:
        click.echo("no hits")
        return 0
    console = state.console()
    console.print(hits_table(result.hits, rewriter.text_fields))
    for name, one in why if options["explain"] else ():
        console.print(explained_table(name, one))
    told = [*(("--field", name) for name in options["fields"]), *(("--turn", turn) for turn in options["turns"])]
    more = "".join(f" {option} {shlex.quote(value)}" for option, value in told)
    again = f"bridge rewrite {shlex.quote(text)} --index {shlex.quote(index)}{more}"
    state.say(f"{len(result.hits)} hits in {result.took} ms; the query alone: {again}")
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
        rows = [(passage.score, _piece(passage), passage.matches) for passage in hit.passages]
        # Text objects: a document's own brackets must not be read as markup.
        for i, (score, text, matches) in enumerate(rows or [(hit.score, _excerpt(hit, text_fields), hit.matches)]):
            table.add_row(f"{score:.3f}", Text("" if i else hit.id), Text(text), Text(_tokens(matches)))
    return table


def _tokens(matches: Sequence[TokenScore]) -> str:
    shown = [f"{match.token} {match.contribution:.2f}" for match in matches[:SHOWN_TOKENS]]
    if len(matches) > SHOWN_TOKENS:
        shown.append(f"+{len(matches) - SHOWN_TOKENS}")
    return ", ".join(shown)


def _piece(passage: PassageHit) -> str:
    """A passage's text with where it stands."""
    where = passage.id if passage.start is None else f"{passage.start}–{passage.end}"
    return _short(f"[{where}] {passage.text or ''}")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_TEXT else text[: SHOWN_TEXT - 1] + "…"


def _excerpt(hit: Hit, text_fields: Sequence[str]) -> str:
    from bridge.errors import DocumentError
    from bridge.sources import text_of

    try:
        return _short(text_of(hit.source, text_fields or list(hit.source)))
    except DocumentError:
        return ""


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
