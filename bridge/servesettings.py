"""The `[serve]` table of the settings file: what the daemon listens on, serves, watches and refuses."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.errors import SettingsError

_Positive = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[serve.limits]`: what one client may ask for, so that it cannot take everything."""

    body_bytes: _Positive = 20_000_000
    """Of one request."""
    texts: _Positive = 512
    """To be encoded in one request."""
    text_characters: _Positive = 1_000_000
    """Of each text, and of each question."""
    requests: _Positive = 64
    """Under way at once; more are answered 429."""
    connections: _Positive = 512
    """Of clients, at once; more are answered 503."""
    seconds: _Seconds = 60.0
    """For one request, from its first byte to its answer."""
    queued_texts: _Positive = 4096
    """Waiting to be encoded; more are answered 429."""
    batch_tokens: _Positive = 2048
    """The most that a neural encoder is given at once, in tokens as estimated from the characters. On processors more
    takes as much longer as it is more; a GPU has room for it."""
    jobs: _Positive = 1
    """Under way at once; more wait."""
    kept_jobs: _Positive = 1000
    """Of those that have ended; older ones are forgotten, with their dead letters."""


class DeclaredIndex(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `[[serve.indexes]]`: is registered when the daemon starts."""

    name: str
    model: str
    kind: Literal["rank_features", "sparse_vector"] | None = None
    text_fields: tuple[str, ...] = ()
    dense: str | None = None
    shards: _Positive | None = None
    replicas: Annotated[int, Meta(ge=0)] | None = None


class Watched(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `[[serve.watch]]`: the files that arrive in a folder are ingested, each once."""

    folder: str
    index: str
    pattern: str = "*.jsonl"
    text_fields: tuple[str, ...] = ()
    seconds: _Seconds = 5.0
    """How often the folder is looked at; a file is taken once it has not changed from one look to the next."""


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole table. `bridge serve --check` says what is wrong with it."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8090
    """0 is a free one."""
    keys_file: str | None = None
    """Where `bridge keys` keeps the hashes of API keys; with it every request needs a key."""
    allow_anonymous: bool = False
    """Serve without keys on an address that others can reach."""
    hosts: tuple[str, ...] = ()
    """Further names by which a daemon on the loopback address may be asked (behind a proxy, say)."""
    tls_certificate: str | None = None
    tls_key: str | None = None
    data: str | None = None
    """Where jobs are kept; the user's data folder by default."""
    roots: tuple[str, ...] = ()
    """Folders whose files may be named as a job's source; none may by default."""
    models: dict[str, str] = {}
    """Name ─▶ folder or Hugging Face id of the models that `/v1/encode` and `/v1/rewrite` may name."""
    indexes: tuple[DeclaredIndex, ...] = ()
    watch: tuple[Watched, ...] = ()
    proxied: tuple[str, ...] = ()
    """The indices that `bridge proxy` takes in hand; all others pass."""
    limits: Limits = Limits()
    log: Literal["debug", "info", "warning", "error"] = "info"
    access_log: bool = True
    """A line for each request."""

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine reaches the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Raises SettingsError for what contradicts itself, or would be open to everyone."""
        if not self.is_loopback and not self.keys_file and not self.allow_anonymous:
            raise SettingsError(
                f"serve: others can reach {self.host}, and no keys are asked for: name a keys_file (bridge keys add "
                "makes one), or set allow_anonymous"
            )
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise SettingsError("serve: tls_certificate and tls_key go together")
        names = [one.name for one in self.indexes]
        if len(set(names)) < len(names):
            raise SettingsError("serve: an index is declared twice")


_VARIABLES = (
    "host",
    "port",
    "keys_file",
    "allow_anonymous",
    "hosts",
    "tls_certificate",
    "tls_key",
    "data",
    "roots",
    "proxied",
    "log",
    "access_log",
)
_LISTS = {"hosts": ",", "proxied": ",", "roots": os.pathsep}


def with_environment(settings: ServeSettings, environment: Mapping[str, str]) -> ServeSettings:
    """`settings`, and what BRIDGE_SERVE_HOST, BRIDGE_SERVE_PORT and so on say instead.

    Raises:
        SettingsError: a value of the wrong kind.
    """
    found: dict[str, Any] = {}
    for name in _VARIABLES:
        value = environment.get(f"BRIDGE_SERVE_{name.upper()}")
        if value:
            found[name] = [part for part in value.split(_LISTS[name]) if part] if name in _LISTS else value
    return changed(settings, found, "BRIDGE_SERVE_") if found else settings


def changed(settings: ServeSettings, values: Mapping[str, Any], where: str) -> ServeSettings:
    """`settings` with other `values`, as text or in their own kind; `where` names their place in an error.

    Raises:
        SettingsError: a value of the wrong kind.
    """
    try:
        return msgspec.convert(msgspec.structs.asdict(settings) | dict(values), ServeSettings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {str(error).replace('`$.', '`')}") from error
