"""`bridge serve` and `bridge keys`: the daemon, and who may ask it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.common import BridgeCommand, BridgeGroup, State, pass_state
from bridge.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from bridge.settings import Settings


@click.command(cls=BridgeCommand, short_help="Run the daemon.")
@click.option("--host", metavar="HOST", help="The address to listen on. Default: 127.0.0.1, which others cannot reach.")
@click.option("--port", type=click.IntRange(0, 65_535), metavar="PORT", help="Default: 8090; 0 is a free one.")
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Ask for API keys: those of this file, which bridge keys makes.",
)
@click.option(
    "--allow-anonymous", is_flag=True, default=None, help="Serve without keys on an address that others can reach."
)
@click.option("--check", is_flag=True, help="Say what the settings mean, or what is wrong with them; serve nothing.")
@pass_state
def serve(state: State, /, check: bool, **options: Any) -> int:
    """Serve rewriting, searching, encoding and ingesting over HTTP.

    The [serve] table of the settings file, the environment (BRIDGE_SERVE_HOST, ...) and these options say how; the
    later win. /docs describes the interface; /health/ready, /metrics and /openapi.json are for machines.

    \b
    bridge serve
    bridge keys add reader --file keys.json && bridge serve --host 0.0.0.0 --keys keys.json
    """  # fmt: skip
    settings = _settings(state, options)
    try:
        from bridge.daemon.run import check as checked
        from bridge.daemon.run import serve as run
    except ModuleNotFoundError as error:
        raise MissingExtra("the daemon", "daemon") from error
    if check:
        said = checked(settings)
        if state.json:
            state.out({"ok": True, "says": said})
        else:
            click.echo("\n".join(said))
        return 0
    run(settings, lambda url: state.say(f"serving at {url}"))
    return 0


@click.command(cls=BridgeCommand, short_help="Stand in front of an engine.")
@click.option("--upstream", metavar="URL", help="The engine; else as for every command, but never the embedded node.")
@click.option("--host", metavar="HOST", help="The address to listen on. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65_535), metavar="PORT", help="Default: 8090; 0 is a free one.")
@click.option(
    "--index",
    "proxied",
    multiple=True,
    metavar="INDEX",
    help="An index whose documents gain vectors, and whose questions are asked of them; repeated.",
)
@click.option("--allow-anonymous", is_flag=True, default=None, help="Listen on an address that others can reach.")
@pass_state
def proxy(state: State, /, upstream: str | None, **options: Any) -> int:
    """Pass everything to the engine, so that an application keeps its client and its plain queries.

    Documents that are written to an INDEX gain vectors on their way, and `match` queries on its text fields become
    sparse queries. Register the index first. All else passes as it is, with the application's own credentials.

    \b
    bridge proxy --upstream https://search.example.org:9200 --index articles
    """
    options["proxied"] = options["proxied"] or None
    state.url = upstream or state.url
    settings = _settings(state, options)
    try:
        from bridge.daemon.run import proxy as run
    except ModuleNotFoundError as error:
        raise MissingExtra("the proxy", "daemon") from error
    run(settings, lambda url: state.say(f"passing {url} on to {settings.engine.shown_url}"))
    return 0


def _settings(state: State, /, options: dict[str, Any]) -> Settings:
    import msgspec

    from bridge.servesettings import changed
    from bridge.settings import load_settings

    settings = load_settings(url=state.url, product=state.product, file=state.config)
    given = {name: str(value) if isinstance(value, Path) else value
             for name, value in options.items() if value is not None}  # fmt: skip
    return msgspec.structs.replace(settings, serve=changed(settings.serve, given, "serve"))


@click.group(cls=BridgeGroup, short_help="API keys of the daemon.")
def group() -> None:
    """Make, list and revoke the API keys of `bridge serve`. The file keeps their hashes only."""


_file = click.option(
    "--file", "path", type=click.Path(path_type=Path), metavar="FILE",
    help="The file that keeps them. Default: keys_file of the settings.",
)  # fmt: skip


@group.command(cls=BridgeCommand, short_help="Make a key, and print it once.")
@click.argument("name")
@_file
@click.option(
    "--scope",
    type=click.Choice(["read", "write", "admin"]),
    default="read",
    show_default=True,
    help="read asks; write ingests too; admin also registers indexes.",
)
@click.option("--expires", metavar="TIME", help="Like 12h, 90d or 1y; never by default.")
@pass_state
def add(state: State, /, name: str, path: Path | None, scope: Any, expires: str | None) -> int:
    """Make a key for NAME. It is printed now, and never again."""
    from bridge.daemon.keys import KeyFile

    presented, key = KeyFile(_path(state, path)).add(name, scope, _lifetime(expires))
    if state.json:
        state.out({"key": presented, "id": key.id, "scope": key.scope, "expires": key.expires})
    else:
        click.echo(presented)
        state.say(f"key {key.id} of {key.name}, scope {key.scope}: keep it, it is not to be had again")
    return 0


@group.command("list", cls=BridgeCommand, short_help="Show them, without the keys themselves.")
@_file
@pass_state
def listed(state: State, /, path: Path | None) -> int:
    """Show the keys: id, name, scope, and when each ends."""
    from rich.table import Table

    from bridge.daemon.keys import KeyFile

    keys = KeyFile(_path(state, path)).all()
    rows = [{"id": key.id, "name": key.name, "scope": key.scope, "created": f"{key.created:%Y-%m-%d}",
             "expires": f"{key.expires:%Y-%m-%d %H:%M}" if key.expires else "never"} for key in keys]  # fmt: skip
    if state.json:
        state.out(rows)
        return 0
    table = Table("id", "name", "scope", "created", "expires", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    state.console().print(table)
    return 0


@group.command(cls=BridgeCommand, short_help="Take one away.")
@click.argument("key_id", metavar="ID")
@_file
@pass_state
def revoke(state: State, /, key_id: str, path: Path | None) -> int:
    """Take the key ID away; the daemon notices within seconds."""
    from bridge.daemon.keys import KeyFile

    key = KeyFile(_path(state, path)).revoke(key_id)
    if state.json:
        state.out({"id": key.id, "name": key.name})
    else:
        click.echo(f"key {key.id} of {key.name} is revoked")
    return 0


def _path(state: State, /, path: Path | None) -> Path:
    from bridge.settings import load_settings

    if path is not None:
        return path
    named = load_settings(url=state.url, file=state.config).serve.keys_file
    if named is None:
        raise UsageError("name the file of keys with --file, or as keys_file in the [serve] table of the settings")
    return Path(named)


def _lifetime(text: str | None) -> timedelta | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4})([hdy])", text)
    if not found or not int(found[1]):
        raise UsageError(f"--expires {text!r} is no time: it looks like 12h, 90d or 1y")
    return int(found[1]) * {"h": timedelta(hours=1), "d": timedelta(days=1), "y": timedelta(days=365)}[found[2]]
