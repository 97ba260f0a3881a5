"""`bridge node …`: the embedded engine from the command line."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from bridge import node


@click.group("node")
def group() -> None:
    """The embedded engine: an OpenSearch node on this machine, without a container engine."""


@group.command()
@click.option("--port", type=click.IntRange(1, 65535), help="A port of 127.0.0.1; a free one by default.")
@click.option("--timeout", type=float, default=180.0, show_default=True, help="Seconds to get ready in.")
@click.pass_context
def start(ctx: click.Context, port: int | None, timeout: float) -> None:
    """Start the node, downloading it the first time (105 MB). Does nothing when it runs."""
    running = node.start(port=port, timeout=timeout, progress=_to_stderr)
    _print_status(ctx, running)


@group.command()
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds before it is killed.")
@click.pass_context
def stop(ctx: click.Context, timeout: float) -> None:
    """Stop the node. Its indices stay."""
    stopped = node.stop(timeout=timeout)
    _print(ctx, {"stopped": stopped}, "stopped" if stopped else "not running")


@group.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Say whether the node runs, and where."""
    running = node.status()
    if running is None:
        _print(ctx, {"running": False}, "not running")
    else:
        _print_status(ctx, running)


@group.command()
@click.option("-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="How many lines.")
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


@group.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def reset(ctx: click.Context, yes: bool) -> None:
    """Stop the node and delete its indices. The download stays."""
    if not yes:
        click.confirm("Delete every index of the embedded node?", abort=True, err=True)
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
