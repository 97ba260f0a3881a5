"""Settings ─▶ the engine to talk to: a URL, or the embedded node."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bridge import node
from bridge.engines import Engine, open_engine
from bridge.settings import Settings


def connect(settings: Settings, say: Callable[[str], None]) -> Engine:
    """The engine that `settings` name; without a URL the embedded node, started if it is not running.

    Args:
        settings: see `bridge.settings.load_settings`.
        say: gets lines for the user: that the embedded node is used, and how its start goes.

    Raises:
        EngineUnreachable, EngineForbidden: nothing answers, or not for these credentials.
        NodeError: the embedded node cannot be started.
    """
    if settings.engine.url:
        return open_engine(settings=settings.engine)
    if node.status() is None:
        say("no --url, OPENSEARCH_URL or ELASTICSEARCH_URL: starting the embedded OpenSearch node")
    running = node.ensure(progress=say)
    say(f"using the embedded OpenSearch {running.version} at {running.url}")
    engine = msgspec.structs.replace(
        settings.engine,
        url=running.url,
        product="opensearch",
        username=None,
        password=None,
        api_key=None,
        aws_region=None,
    )
    return open_engine(settings=engine)
