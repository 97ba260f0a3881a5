"""`bridge doctor`: what is here, what is reached, what is wrong."""

from __future__ import annotations

import click
import msgspec

from bridge.cli.common import BridgeCommand, State, pass_state

_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "wrong": "[red]wrong[/]"}


@click.command(cls=BridgeCommand, short_help="What is here, what is reached, what is wrong.")
@pass_state
def doctor(state: State, /) -> int:
    """Say what is installed, which engine is reached and what it can do, which models are at hand.

    Starts and changes nothing. The exit code is 1 where something is wrong.
    """
    from bridge.doctor import examine
    from bridge.settings import load_settings

    checks = list(examine(load_settings(url=state.url, product=state.product, file=state.config)))
    wrong = any(check.status == "wrong" for check in checks)
    if state.json:
        state.out({"healthy": not wrong, "checks": msgspec.to_builtins(checks)})
        return int(wrong)
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "what", "found", "to mend it"):
        table.add_column(column, overflow="fold")
    for check in checks:
        table.add_row(_MARKS[check.status], check.name, Text(check.found), Text(check.mend))
    state.console().print(table)
    return int(wrong)
