"""`bridge dead-letter`: what could not go in, and trying it again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from bridge.cli.common import BridgeCommand, BridgeGroup, State, model_options, pass_state, run_options
from bridge.cli.sourcing import chosen_source, feed_options, id_options

_file = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")


@click.group(name="dead-letter", cls=BridgeGroup, short_help="Show what could not go in, or try it again.")
def group() -> None:
    """Show what could not go into an index, with the reasons, or try it again.

    An ingest keeps such documents in INDEX.dead-letter.jsonl: one line each, with the file and line where the
    document stood, its id, the reason and the document itself. Mend them there, or what refused them, and retry.
    """


@group.command(cls=BridgeCommand, short_help="The reasons, and the first letters.")
@_file
@click.option("-n", "--lines", type=click.IntRange(0), default=5, show_default=True, metavar="N",
              help="Letters to print one by one.")  # fmt: skip
@pass_state
def show(state: State, /, file: Path, lines: int) -> int:
    """Print how many documents FILE holds for each reason, and the first N of them."""
    from rich.table import Table

    from bridge.redeliver import read_letters

    count, kinds, first = read_letters(file, lines)
    if state.json:
        state.out({"letters": count, "reasons": dict(kinds.most_common()), "first": msgspec.to_builtins(first)})
        return 0
    table = Table("documents", "reason", box=None, pad_edge=False)
    for reason, number in kinds.most_common():
        table.add_row(f"{number:,}", reason)
    state.console().print(table)
    for letter in first:
        click.echo(f"{letter.position}: {'id ' + letter.id if letter.id is not None else 'no id'}: {letter.reason}")
    click.echo(f"{count:,} documents in {file}", err=True)
    return 0


@group.command(cls=BridgeCommand, short_help="Ingest them again; what goes in leaves the file.")
@_file
@click.option("--index", metavar="INDEX", help="Where they belong. Default: the index that FILE is named after.")
@click.option("--model", metavar="MODEL", help="The index's own model, where it is not found by itself.")
@id_options
@feed_options
@model_options
@pass_state
def retry(state: State, /, file: Path, index: str | None, model: str | None, **options: Any) -> int:
    """Ingest the documents of FILE again, with the index's own model.

    Those that go in leave the file; the others stay in it, with the reason of this time. An interrupted retry
    leaves FILE as it was.
    """
    from bridge.cli.totals import show_summary
    from bridge.ingest import IngestOptions
    from bridge.redeliver import index_of, redeliver

    name = index or index_of(file)
    ids = chosen_source(options)
    started = time.monotonic()
    with state.connect() as engine, state.progress() as report:
        summary = redeliver(
            engine, name, file, IngestOptions(model=model, run=run_options(options)), ids, say=state.say, report=report
        )
    show_summary(state, name, file.name, summary, time.monotonic() - started)
    return 3 if summary.dead else 0
