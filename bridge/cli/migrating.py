"""`bridge migrate`: another model behind an alias, without a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from bridge.cli.common import (
    BridgeCommand,
    State,
    dead_letter_option,
    error_budget_option,
    error_line,
    model_options,
    pass_state,
    run_options,
)
from bridge.cli.indexing import index_options, passage_options, register_options, text_field_option
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.migrate import MigrateOptions, MigrateSummary


@click.command(cls=BridgeCommand, short_help="Bring an alias to an index of another model, without a pause.")
@click.argument("alias")
@click.option("--model", metavar="MODEL", help="A card's id, a Hugging Face id, a folder, or a fingerprint.")
@text_field_option
@click.option("--dry-run", is_flag=True, help="Print what would be done, and the new index, and change nothing.")
@click.option("--rollback", is_flag=True, help="Let ALIAS stand for the index that it came from.")
@click.option(
    "--yes", is_flag=True, help="With --rollback: also where documents were written since, which are not there."
)
@click.option(
    "--delete-old",
    is_flag=True,
    help="Delete the old index at the end; else it is kept, and --rollback goes back to it.",
)
@click.option("--accept-dead", is_flag=True, help="Move ALIAS although some documents cannot go into the new index.")
@dead_letter_option("ALIAS")
@error_budget_option
@index_options
@passage_options
@model_options
@pass_state
def migrate(
    state: State, /, alias: str, model: str | None, rollback: bool, dry_run: bool, yes: bool, **options: Any
) -> int:
    """Make a new index with MODEL's vectors of the documents behind ALIAS, and move ALIAS to it.

    Readers and writers of ALIAS notice nothing: the new index is filled while the old one serves, catches up with what
    is written meanwhile, is checked, and takes its place in one step. The old index stays. It is made like the old one;
    what is not named here is taken from it. An interrupted run goes on where it stopped when the same command is given
    again.

    \b
    bridge migrate articles --model opensearch-neural-sparse-encoding-doc-v3-distill --dry-run
    bridge migrate articles --model opensearch-neural-sparse-encoding-doc-v3-distill
    bridge migrate articles --rollback
    """
    if rollback:
        if model or dry_run or options["delete_old"]:
            raise UsageError("--rollback goes back to what was there; leave the other options out")
        return _roll_back(state, alias, yes)
    if yes:
        raise UsageError("--yes goes with --rollback")
    if not model:
        raise click.MissingParameter(ctx=click.get_current_context(), param_hint="'--model'", param_type="option")
    from bridge.migrate import MigrateOptions
    from bridge.migrate import migrate as run

    chosen = MigrateOptions(
        model=model,
        register=register_options(options, options["text_fields"]),
        dense=options["dense"],
        run=run_options(options),
        error_budget=options["error_budget"],
        dead_letter=options["dead_letter"],
        accept_dead=options["accept_dead"],
        delete_old=options["delete_old"],
    )
    with state.connect() as engine:
        if dry_run:
            return _show_plan(state, engine, alias, chosen)
        with state.progress() as report:
            summary = run(engine, alias, chosen, say=state.say, report=report)
    return _show_summary(state, summary)


def _show_plan(state: State, /, engine: Any, alias: str, options: MigrateOptions) -> int:
    from bridge.migrate import plan

    planned = plan(engine, alias, options)
    if state.json:
        state.out({**msgspec.to_builtins(planned), "dry_run": True})
        return 0
    if planned.diff:
        click.echo(planned.diff)
    for step in planned.steps:
        state.say(f"would {step}")
    if not planned.steps:
        click.echo(f"{alias} stands for {planned.old}, which is as wanted: nothing to do")
    return 0


def _show_summary(state: State, /, summary: MigrateSummary) -> int:
    if state.json:
        state.out({key: value for key, value in msgspec.to_builtins(summary).items() if value is not None})
    else:
        what = "stands for" if summary.moved else "does not stand for"
        late = f", {summary.late:,} of them after the move" if summary.late else ""
        click.echo(
            f"{summary.alias} {what} {summary.new}: {summary.source:,} documents from {summary.old}{late}: "
            f"{summary.indexed:,} indexed, {summary.unchanged:,} unchanged, {summary.deleted:,} deleted, "
            f"{summary.dead:,} dead ({summary.seconds:.1f} s)"
        )
        if summary.old_deleted:
            click.echo(f"{summary.old} is deleted")
    if summary.dead_letter:
        which = f"; the first: {summary.first_dead}" if summary.first_dead else ""
        error_line(f"some documents did not go in{which}; they are kept in {summary.dead_letter}")
        return 3
    return 0 if summary.moved else 1


def _roll_back(state: State, /, alias: str, yes: bool) -> int:
    from bridge.migration.back import roll_back

    with state.connect() as engine:
        back = roll_back(engine, alias, agreed=yes, say=state.say)
    if not back.done:
        raise UsageError(
            f"{back.written:,} documents were written in {back.new} since {alias} came to it, and {back.deleted:,} "
            f"deleted: {back.old} does not know; --yes goes back to it all the same"
        )
    if state.json:
        state.out(msgspec.to_builtins(back))
    elif back.moved:
        lost = f"; it lacks {back.written:,} documents that were written in {back.new} since" if back.written else ""
        click.echo(f"{alias} stands for {back.old}{lost}")
    else:
        click.echo(f"{alias} stands for {back.old}; nothing had been moved")
    return 0
