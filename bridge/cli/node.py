"""`bridge node …`: the embedded engine from the command line."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from bridge import node
from bridge.cli.common import BridgeCommand, BridgeGroup
from bridge.errors import BridgeError


@click.group("node", cls=BridgeGroup, short_help="The embedded engine: start, stop, status, logs, reset.")
def group() -> None:
    """The embedded engine: an OpenSearch node on this machine, without a container engine.

    Every command uses it where no URL is given, and starts it if need be. It keeps running, and its indices stay,
    until it is told otherwise here.
    """


@group.command(cls=BridgeCommand)
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="PORT", help="A port of 127.0.0.1; a free one by default."
)
@click.option(
    "--timeout", type=float, default=180.0, show_default=True, metavar="SECONDS", help="How long it may take to start."
)
@click.pass_context
def start(ctx: click.Context, port: int | None, timeout: float) -> None:
    """Start the node, downloading it the first time (105 MB). Does nothing when it runs."""
    running = node.start(port=port, timeout=timeout, progress=_to_stderr)
    _print_status(ctx, running)


@group.command(cls=BridgeCommand)
@click.option(
    "--timeout",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take to end; then it is killed.",
)
@click.pass_context
def stop(ctx: click.Context, timeout: float) -> None:
    """Stop the node. Its indices stay."""
    stopped = node.stop(timeout=timeout)
    _print(ctx, {"stopped": stopped}, "stopped" if stopped else "not running")


@group.command(cls=BridgeCommand)
@click.pass_context
def status(ctx: click.Context) -> None:
    """Say whether the node runs, and where."""
    running = node.status()
    if running is None:
        _print(ctx, {"running": False}, "not running")
    else:
        _print_status(ctx, running)


@group.command(cls=BridgeCommand)
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=50, show_default=True, metavar="N", help="How many lines."
)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until interrupted.")
@click.pass_context
def logs(ctx: click.Context, lines: int, follow: bool) -> None:
    """Print the last lines of the node's log."""
    found = node.logs(lines=lines)
    if _wants_json(ctx) and not follow:
        click.echo(json.dumps({"lines": found}))
        return
    for line in found:
        click.echo(line)
    if follow:
        for line in node.follow_logs(pause=time.sleep):
            click.echo(line)


@group.command(cls=BridgeCommand)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def reset(ctx: click.Context, yes: bool) -> None:
    """Stop the node and delete its indices. The download stays."""
    if not yes and not click.confirm("Delete every index of the embedded node?", err=True):
        raise BridgeError("nothing was deleted: the answer was no (--yes does not ask)")
    node.reset()
    _print(ctx, {"reset": True}, "stopped and emptied")


def _print_status(ctx: click.Context, running: node.NodeStatus) -> None:
    row = {
        "running": True,
        "url": running.url,
        "port": running.port,
        "pid": running.pid,
        "version": running.version,
        "java": running.java,
        "home": str(running.home),
        "data": str(running.data),
        "log": str(running.log),
    }
    facts = f"OpenSearch {running.version}, process {running.pid}, Java {running.java}"
    _print(ctx, row, f"{running.url}\n  {facts}\n  data {running.data}\n  log  {running.log}")


def _print(ctx: click.Context, row: dict[str, Any], text: str) -> None:
    click.echo(json.dumps(row) if _wants_json(ctx) else text)


def _wants_json(ctx: click.Context) -> bool:
    # The group also works alone, without the main command that sets `ctx.obj`.
    return bool(getattr(ctx.obj, "json", False))


def _to_stderr(line: str) -> None:
    click.echo(line, err=True)
