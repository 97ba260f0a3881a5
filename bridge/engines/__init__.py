"""Engines: one connection each, twins over the official clients. `open_engine` is the way in."""

from __future__ import annotations

from bridge.engines.base import Capabilities, Engine, EngineInfo, IndexState
from bridge.errors import RequestRejected, SettingsError
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
        RequestRejected: what answers is neither OpenSearch nor Elasticsearch.
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
    root = engine.request("GET", "/")
    version = (root.get("version") or {}) if isinstance(root, dict) else {}
    if version.get("distribution") == "opensearch":
        return engine
    engine.close()
    if "number" not in version:
        raise RequestRejected(f"what answers at {settings.shown_url} is neither OpenSearch nor Elasticsearch")
    return _elasticsearch(settings)


def _opensearch(settings: EngineSettings) -> Engine:
    from bridge.engines.opensearch import OpenSearchEngine

    return OpenSearchEngine(settings)


def _elasticsearch(settings: EngineSettings) -> Engine:
    from bridge.engines.elasticsearch import ElasticsearchEngine

    return ElasticsearchEngine(settings)
