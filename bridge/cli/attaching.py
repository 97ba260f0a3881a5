"""`bridge attach`: the cluster itself calls the daemon's encoders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.common import BridgeCommand, State, pass_state
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.attaching import Attachment, Daemon, Wanted
    from bridge.engines import Engine

KEY = "BRIDGE_DAEMON_KEY"


@click.command(cls=BridgeCommand, short_help="Let the cluster itself call the daemon's encoders.")
@click.argument("product", type=click.Choice(["opensearch", "elasticsearch"]))
@click.argument("index", metavar="INDEX")
@click.option("--daemon", "daemon_url", metavar="URL", help="Where the cluster's nodes reach bridge serve.")
@click.option("--default", is_flag=True, help="Make the pipeline that of all documents which name none.")
@click.option("--remove", is_flag=True, help="Take away what an earlier attach has put.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@pass_state
def attach(
    state: State, /, product: str, index: str, daemon_url: str | None, default: bool, remove: bool, dry_run: bool
) -> int:
    """Make the models and pipelines with which a cluster encodes the documents and queries of INDEX by bridge serve.

    On opensearch: an ml-commons connector and a remote model each for documents and queries, and an ingest pipeline
    with sparse_encoding; then neural_sparse takes query_text with the query model's model_id. On elasticsearch: an
    inference endpoint of the service custom, and a pipeline; where the cluster has none, what to put is printed.

    An API key of the daemon, with the scope write, is taken from BRIDGE_DAEMON_KEY.

    \b
    bridge attach opensearch articles --daemon http://10.0.0.7:8090 --default
    bridge attach opensearch articles --remove
    """  # fmt: skip
    from bridge.attaching import Daemon, elasticsearch, opensearch, wanted

    if remove == bool(daemon_url):
        raise UsageError("name the daemon with --daemon, or ask for --remove: one of the two")
    twin = opensearch if product == "opensearch" else elasticsearch
    with state.connect() as engine:
        if engine.info().product != product:
            raise UsageError(f"{engine.info()} answers at {engine.url}, which is no {product}")
        asked = wanted(engine, index)
        if remove:
            return _removed(state, asked.state.name, twin.detach(engine, asked, dry_run=dry_run))
        daemon = Daemon(str(daemon_url), os.environ.get(KEY) or None)
        _look(state, daemon)
        if twin is elasticsearch:
            elasticsearch.check(engine, asked)
            if not elasticsearch.has_inference(engine):
                return _print(state, engine, asked, daemon)
        made = twin.attach(engine, asked, daemon, default=default, dry_run=dry_run)
    return _show(state, index, made)


def _removed(state: State, /, index: str, steps: list[str]) -> int:
    if state.json:
        state.out({"index": index, "steps": steps})
    else:
        click.echo("\n".join(steps or ["nothing was there"]))
    return 0


def _look(state: State, /, daemon: Daemon) -> None:
    """Say so where the daemon does not answer: the cluster may still reach it, or it may start later."""
    from urllib.error import URLError
    from urllib.request import urlopen

    url = daemon.at("/health/live")
    try:
        with urlopen(url, timeout=5):  # noqa: S310 (`Daemon` takes http and https only)
            return
    except (URLError, OSError) as error:
        state.say(f"the daemon does not answer at {url} from here: {getattr(error, 'reason', error)}")


def _show(state: State, /, index: str, made: Attachment) -> int:
    if state.json:
        state.out({"index": index, **made.names, "pipeline": made.pipeline, "steps": made.steps})
        return 0
    for step in made.steps or ["all is there already"]:
        click.echo(step)
    for name, value in {**made.names, "pipeline": made.pipeline}.items():
        click.echo(f"{name.replace('_', ' ')}: {value}")
    return 0


def _print(state: State, /, engine: Engine, asked: Wanted, daemon: Daemon) -> int:
    import msgspec

    from bridge.attaching.elasticsearch import requests

    found: dict[str, Any] = requests(asked, daemon, "${DAEMON_KEY}" if daemon.key else None)
    state.say(f"{engine.info()} at {engine.url} has no inference endpoints: nothing was put, this is what would be")
    if state.json:
        state.out({"index": asked.state.name, "requests": found})
        return 0
    for path, body in found.items():
        click.echo(f"PUT {path}\n{msgspec.json.format(msgspec.json.encode(body), indent=2).decode()}")
    return 0
