"""OpenSearch over opensearch-py; the twin of `elasticsearch.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opensearchpy import AWSV4SignerAuth, OpenSearch, RequestsHttpConnection, Urllib3HttpConnection
from opensearchpy.exceptions import (
    ConnectionError as ClientConnectionError,
)
from opensearchpy.exceptions import (
    ConnectionTimeout,
    OpenSearchException,
    SSLError,
    TransportError,
)

from bridge.engines.answers import error_of_status, not_an_engine, timed_out, tls_failed, unreachable
from bridge.engines.base import MAX_CONNECTIONS, Capabilities, Engine, basic_token, encode, path_part
from bridge.errors import EngineError, MissingExtra, SettingsError
from bridge.settings import EngineSettings


class OpenSearchEngine(Engine):
    """OpenSearch 2.x and 3.x, self-run or on AWS (SigV4)."""

    product = "opensearch"

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        options: dict[str, Any] = {
            "timeout": settings.timeout,
            "max_retries": 0,
            "pool_maxsize": MAX_CONNECTIONS,
            "verify_certs": settings.verify_tls,
            "ssl_show_warn": False,
        }
        if settings.ca_file:
            options["ca_certs"] = settings.ca_file
        if settings.aws_region:
            options |= {"http_auth": _signer(settings), "connection_class": RequestsHttpConnection}
        elif settings.api_key:
            options["headers"] = {"Authorization": f"ApiKey {settings.api_key}"}
        elif settings.username:
            options["headers"] = {"Authorization": f"Basic {basic_token(settings)}"}
        options.setdefault("connection_class", Urllib3HttpConnection)
        self._client = OpenSearch([settings.url], **options)

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
        headers = {"content-type": "application/x-ndjson" if ndjson else "application/json"} if body else None
        try:
            return self._client.transport.perform_request(
                method,
                path,
                params=dict(params or {}),
                body=body,
                timeout=timeout or self._settings.timeout,
                headers=headers,
            )
        except OpenSearchException as error:
            raise self._translate(error, f"{method} {path}") from error

    def _translate(self, error: OpenSearchException, what: str) -> EngineError:
        if isinstance(error, SSLError):
            return tls_failed(self.url, error.info)
        if isinstance(error, ConnectionTimeout):
            return timed_out(self.url, what, self._settings.timeout)
        if isinstance(error, ClientConnectionError):
            return unreachable(self.url, error.info)
        if isinstance(error, TransportError) and isinstance(error.status_code, int):
            return error_of_status(error.status_code, error.error if error.info is None else error.info, what)
        return not_an_engine(self.url, f"its answer to {what} cannot be read: {error}")

    def close(self) -> None:
        self._client.close()

    def open_point(self, index: str, shard: int, keep_alive: str) -> str:
        # Of the primary: where replicas copy segments they may lag behind what a refresh has shown.
        params = {"keep_alive": keep_alive, "preference": f"_shards:{shard}|_primary"}
        return str(self.request("POST", f"/{path_part(index)}/_search/point_in_time", params=params)["pit_id"])

    def close_point(self, point: str) -> None:
        self.request("DELETE", "/_search/point_in_time", body=encode({"pit_id": [point]}))

    @staticmethod
    def capabilities(version: tuple[int, int, int], plugins: frozenset[str] | None) -> Capabilities:
        def has(plugin: str) -> bool:
            return plugins is None or plugin in plugins

        neural = has("neural-search") or has("opensearch-neural-search")
        return Capabilities(
            neural_sparse=neural and version >= (2, 14, 0),
            seismic=neural and version >= (3, 3, 0),
            search_pipelines=version >= (2, 9, 0),
            two_phase=neural and version >= (2, 15, 0),
            dense=has("opensearch-knn"),
            hybrid=neural and version >= (2, 19, 0),
            points_in_time=version >= (2, 4, 0),
            remote_models=has("opensearch-ml"),
        )


def _signer(settings: EngineSettings) -> Any:
    try:
        import boto3
    except ImportError:
        raise MissingExtra("AWS SigV4 signing", "aws") from None
    credentials = boto3.Session().get_credentials()
    if credentials is None:
        raise SettingsError("aws_region is set, but there are no AWS credentials in the environment or profile")
    return AWSV4SignerAuth(credentials, settings.aws_region, settings.aws_service)
