"""`bridge models`: which models there are, what each needs, and what is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from bridge.cli.common import BridgeCommand, BridgeGroup, State, pass_state

if TYPE_CHECKING:
    from rich.table import Table

    from bridge.models import ModelCard

_QUERIES = {
    "same": "the same model",
    "lookup": "a table, without inference",
    "separate": "a model of their own",
    "conversation": "conversations",
}


@click.group(
    "models", cls=BridgeGroup, invoke_without_command=True, short_help="The known models, and which are at hand."
)
@click.pass_context
def group(context: click.Context) -> None:
    """The known models: family, licence, what each needs, and whether it is at hand.

    Other models are read by their files alone: any masked language model folder, any sparse or dense
    sentence-transformers folder.
    """
    if context.invoked_subcommand is None:
        context.invoke(listing)


@group.command("list", cls=BridgeCommand, short_help="All cards, one a line.")
@pass_state
def listing(state: State) -> None:
    """All cards, one a line, and the models that were fitted or used here."""
    from bridge.encode.load import local_models
    from bridge.models import CARDS

    rows = [_facts(card) for card in CARDS]
    local = [{"fingerprint": name, "model": where} for name, where in local_models()]
    if state.json:
        state.out({"models": rows, "local": local})
        return
    console = state.console()
    console.print(_table(rows))
    for model in local:
        console.print(f"{model['fingerprint']}  {model['model']}", markup=False)


@group.command(cls=BridgeCommand, short_help="All that is known of one model.")
@click.argument("model", metavar="ID")
@pass_state
def show(state: State, /, model: str) -> None:
    """All that is known of a card, or of a model's folder."""
    from bridge.models import find_card

    card = find_card(model)
    facts = _facts(card) if card else _folder_facts(model)
    if state.json:
        state.out(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' '):{width}}  {_word(shown)}")


def _facts(card: ModelCard) -> dict[str, Any]:
    """What a card says, and what it means for this machine."""
    from bridge.encode.hub import cached_repository

    found: dict[str, Any] = msgspec.to_builtins(card)
    where = cached_repository(card.id)
    found |= {
        "needs": _needs(card),
        "commercial": not card.non_commercial,
        "at_hand": str(where) if where else None,
    }
    unset = ("query_model", "document_model", "dimension") + (("pooling", "activation") if card.task == "dense" else ())
    if card.task == "sparse":
        unset += ("dense_pooling",)
    return {name: value for name, value in found.items() if value is not None or name not in unset}


def _needs(card: ModelCard) -> list[str]:
    """The extra to encode with it, and the permissions that it asks for."""
    needs = ["extra encode"]
    if card.remote_code:
        needs.append("--trust-remote-code")
    if card.allow_pickle:
        # The card permits it by itself.
        needs.append("a pickle (tensors only)")
    return needs


def _folder_facts(model: str) -> dict[str, Any]:
    from bridge.encode import load_encoder

    encoder = load_encoder(model)
    return {
        "id": model,
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        "query_fingerprint": encoder.query_fingerprint,
        "space": encoder.space,
        "encodes_documents": encoder.encodes_documents,
        "vocabulary": len(encoder.vocabulary),
        "open_vocabulary": encoder.open_vocabulary,
    } | _recipe_facts(encoder)


def _recipe_facts(encoder: Any) -> dict[str, Any]:
    recipe = getattr(encoder, "recipe", None)
    names = ("pooling", "activation", "drop_special", "document_length", "query_length", "query")
    return {name: getattr(recipe, name) for name in names} if recipe is not None else {}


def _table(rows: list[dict[str, Any]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("model", "size", "queries by", "licence", "needs", "here"):
        table.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
    for row in rows:
        kind = "dense" if row["task"] == "dense" else _QUERIES[row["query"]]
        here = "yes" if row["at_hand"] else "no"
        table.add_row(row["id"], f"{row['parameters']} M", kind, row["licence"], ", ".join(row["needs"]), here)
    return table


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
