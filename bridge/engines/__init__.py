"""Engines: one connection each, twins over the official clients. `open_engine` is the way in."""

from __future__ import annotations

from typing import Any

from bridge.engines.answers import not_an_engine
from bridge.engines.base import Capabilities, Engine, EngineInfo, IndexState
from bridge.errors import IndexNotFound, SettingsError
from bridge.settings import EngineSettings, load_settings

__all__ = ["Capabilities", "Engine", "EngineInfo", "IndexState", "open_engine"]


def open_engine(url: str | None = None, *, settings: EngineSettings | None = None) -> Engine:
    """Connect, and find out which product answers.

    Args:
        url: http(s)://host:port; credentials, CA file and so on come from the settings (file and
            environment), or from the URL itself.
        settings: used as they are, instead of reading them.

    Raises:
        SettingsError: there is no URL, or the settings contradict themselves.
        EngineUnreachable, EngineForbidden: no answer, or not for these credentials.
        NotAnEngine: what answers is neither OpenSearch nor Elasticsearch.
    """
    settings = settings or load_settings(url=url).engine
    if not settings.url:
        raise SettingsError("no engine is named: give a URL, or set OPENSEARCH_URL or ELASTICSEARCH_URL")
    if settings.product == "elasticsearch":
        return _elasticsearch(settings)
    # Its client asks nothing of the product that answers, so it serves to find that out.
    engine = _opensearch(settings)
    if settings.product == "opensearch":
        return engine
    try:
        version = _version(engine)
    except BaseException:
        engine.close()
        raise
    if version.get("distribution") == "opensearch":
        return engine
    engine.close()
    if "number" not in version:
        raise not_an_engine(settings.shown_url, "its root says no version")
    return _elasticsearch(settings)


def _version(engine: Engine) -> dict[str, Any]:
    try:
        root = engine.request("GET", "/")
    except IndexNotFound as error:
        # An engine has its root page; behind a wrong path even an engine says 404.
        raise not_an_engine(engine.url, str(error)) from error
    version = root.get("version") if isinstance(root, dict) else None
    return version if isinstance(version, dict) else {}


def _opensearch(settings: EngineSettings) -> Engine:
    from bridge.engines.opensearch import OpenSearchEngine

    return OpenSearchEngine(settings)


def _elasticsearch(settings: EngineSettings) -> Engine:
    from bridge.engines.elasticsearch import ElasticsearchEngine

    return ElasticsearchEngine(settings)
