"""`bridge serve`: the application on a socket, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from bridge.daemon.app import make_app
from bridge.daemon.connection import HEAD_SECONDS, AtOnce, Connection
from bridge.daemon.logs import start_logging
from bridge.daemon.proxy import make_proxy
from bridge.errors import SettingsError
from bridge.servesettings import ServeSettings
from bridge.settings import Settings

_DRAIN = 10
"""Seconds that requests have to end in when the daemon does."""


def listening(serve: ServeSettings) -> socket.socket:
    """The socket that the daemon answers on.

    Raises:
        SettingsError: the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in serve.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((serve.host.strip("[]"), serve.port))
    except OSError as error:
        found.close()
        raise SettingsError(f"serve: {serve.host}:{serve.port} is not to be had: {error.strerror or error}") from error
    return found


def serve(settings: Settings, started: Callable[[str], None] = lambda url: None) -> None:
    """Serve until a signal comes; then requests end, and jobs are left at a checkpoint.

    Args:
        settings: of everything.
        started: is told the URL when requests are answered.

    Raises:
        SettingsError: the settings cannot be used.
    """
    app = make_app(settings)
    _run(app, settings.serve, started, app.at_once)


def proxy(settings: Settings, started: Callable[[str], None] = lambda url: None) -> None:
    """Stand in front of the engine until a signal comes; arguments and errors as for `serve`."""
    own = settings.serve
    if not own.is_loopback and not own.allow_anonymous:
        raise SettingsError(
            f"proxy: others can reach {own.host}, and through it the engine: whoever it lets in; say so with "
            "allow_anonymous"
        )
    if settings.engine.url is None:
        raise SettingsError("proxy: name the engine with --upstream")
    if not own.proxied:
        raise SettingsError("proxy: name an index that it is for, with --index or as proxied in the [serve] table")
    _run(make_proxy(settings, settings.engine.url), own, started, keep_alive=3600, bodies=True)


def _run(
    app: ASGIApp,
    own: ServeSettings,
    started: Callable[[str], None],
    at_once: Mapping[tuple[bytes, bytes], AtOnce] = MappingProxyType({}),
    *,
    keep_alive: int = 15,
    bodies: bool = False,
) -> None:
    """`keep_alive` is for how many seconds a connection stays open with nothing said: clients of engines, which never
    close one, take it that the next request finds it open. `bodies` is a
    `Connection`'s."""
    limits = own.limits
    connection = partial(
        Connection, most=limits.connections, at_once=at_once, patience=min(HEAD_SECONDS, limits.seconds),
        idle=keep_alive, bodies=bodies,
    )  # fmt: skip
    with listening(own) as found:
        start_logging(own.log)
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", connection),
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            interface="asgi3",
            ws="none",
            timeout_graceful_shutdown=_DRAIN,
            timeout_keep_alive=keep_alive,
            ssl_certfile=own.tls_certificate,
            ssl_keyfile=own.tls_key,
            lifespan="on",
        )
        server = _Server(config, lambda: started(url_of(own, found)))
        # It ends in good order, and then raises the signal again, for whoever had it before.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[found])
        if not server.started:
            raise SettingsError("serve: it could not start; the log above says why")


def url_of(own: ServeSettings, found: socket.socket) -> str:
    """Where it is asked."""
    host = f"[{own.host.strip('[]')}]" if ":" in own.host else own.host
    return f"{'https' if own.tls_certificate else 'http'}://{host}:{found.getsockname()[1]}"


def check(settings: Settings) -> list[str]:
    """What is to be said of the settings, without serving.

    Raises:
        SettingsError: they cannot be used.
    """
    own = settings.serve
    own.check()
    for what, named in (
        ("tls_certificate", own.tls_certificate),
        ("tls_key", own.tls_key),
        ("keys_file", own.keys_file),
    ):
        if named and not Path(named).is_file():
            raise SettingsError(f"serve: the {what} {named} is not there")
    for what, folders in (("root", own.roots), ("watched folder", tuple(one.folder for one in own.watch))):
        for folder in folders:
            if not Path(folder).is_dir():
                raise SettingsError(f"serve: the {what} {folder} is not a folder that is there")
    listening(own).close()
    said = [f"listens on {own.host}:{own.port}{' with TLS' if own.tls_certificate else ''}"]
    said.append("asks for API keys" if own.keys_file else "asks for no keys: whoever reaches it may do everything")
    said += [f"registers {one.name} for {one.model}" for one in own.indexes]
    said += [f"ingests {one.folder}/{one.pattern} into {one.index}" for one in own.watch]
    return said


class _Server(uvicorn.Server):
    """Says when it has started."""

    def __init__(self, config: uvicorn.Config, told: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = told

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # What is here now stays: the collector need not look through it again while requests wait.
            gc.collect()
            gc.freeze()
            self._told()
