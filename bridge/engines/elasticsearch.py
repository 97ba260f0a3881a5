"""Elasticsearch over elasticsearch-py; the twin of `opensearch.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elastic_transport import ConnectionError as ClientConnectionError
from elastic_transport import ConnectionTimeout, TlsError, TransportError
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError

from bridge.engines.answers import error_of_status, not_an_engine, timed_out, tls_failed, unreachable
from bridge.engines.base import MAX_CONNECTIONS, Capabilities, Engine, basic_token, encode, path_part
from bridge.errors import EngineError, EngineForbidden, IndexNotFound, NotAnEngine, RequestRejected, SettingsError
from bridge.settings import EngineSettings


class ElasticsearchEngine(Engine):
    """Elasticsearch 7.17, 8.x and 9.x, self-run or in Elastic's cloud."""

    product = "elasticsearch"

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        options: dict[str, Any] = {
            "request_timeout": settings.timeout,
            "max_retries": 0,
            "retry_on_timeout": False,
            "connections_per_node": MAX_CONNECTIONS,
        }
        if settings.url and settings.url.startswith("https:"):
            options |= {"verify_certs": settings.verify_tls, "ssl_show_warn": False}
            if settings.ca_file:
                options["ca_certs"] = settings.ca_file
        if settings.aws_region:
            raise SettingsError("aws_region is set, but SigV4 signing is for OpenSearch; unset it for Elasticsearch")
        if settings.api_key:
            options["api_key"] = settings.api_key
        elif settings.username:
            options["basic_auth"] = basic_token(settings)
        self._client = Elasticsearch(_with_port(settings.url or ""), **options)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        ndjson: bool = False,
        timeout: float | None = None,
    ) -> Any:
        headers = {"Accept": "application/json"}
        if body:
            headers["Content-Type"] = "application/x-ndjson" if ndjson else "application/json"
        client = self._client.options(request_timeout=timeout) if timeout else self._client
        try:
            return client.perform_request(method, path, params=params, headers=headers, body=body).body
        except (ApiError, TransportError) as error:
            raise self._translate(error, f"{method} {path}") from error

    def _translate(self, error: ApiError | TransportError, what: str) -> EngineError:
        if isinstance(error, TlsError):
            return tls_failed(self.url, error.message)
        if isinstance(error, ConnectionTimeout):
            return timed_out(self.url, what, self._settings.timeout)
        if isinstance(error, ClientConnectionError):
            return unreachable(self.url, error.message)
        if isinstance(error, UnsupportedProductError):
            return NotAnEngine(f"what answers at {self.url} is not Elasticsearch; check the URL, or leave --engine out")
        if isinstance(error, ApiError):
            return error_of_status(error.meta.status, error.body, what)
        return not_an_engine(self.url, f"its answer to {what} cannot be read: {error}")

    def close(self) -> None:
        self._client.close()

    def fuses(self) -> bool:
        return super().fuses() and self._licence() in ("trial", "enterprise")

    def _licence(self) -> str | None:
        try:
            found = self.request("GET", "/_license")["license"]
        except (RequestRejected, EngineForbidden, IndexNotFound):
            # A build without licences, or a user who may not know: what needs one is not counted on.
            return None
        return str(found["type"]) if found["status"] == "active" else None

    def open_point(self, index: str, shard: int, keep_alive: str) -> str:
        params = {"keep_alive": keep_alive, "preference": f"_shards:{shard}"}
        return str(self.request("POST", f"/{path_part(index)}/_pit", params=params)["id"])

    def close_point(self, point: str) -> None:
        self.request("DELETE", "/_pit", body=encode({"id": point}))

    @staticmethod
    def capabilities(version: tuple[int, int, int], plugins: frozenset[str] | None) -> Capabilities:
        del plugins  # what the bridge uses is in the default distribution
        return Capabilities(
            sparse_vector_field=version >= (8, 11, 0),
            sparse_vector_query=version >= (8, 15, 0),
            dense=version >= (8, 0, 0),
            hybrid=version >= (8, 18, 0),
            points_in_time=version >= (7, 10, 0),
            hidden_vectors=version >= (9, 2, 0),
        )


def _with_port(url: str) -> str:
    """This client wants the port written out, where others take the scheme's default."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.port is not None:
        return url
    return parts._replace(netloc=f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}").geturl()
