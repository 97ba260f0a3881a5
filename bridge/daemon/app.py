"""The daemon as one ASGI application: routes, and what begins and ends with it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.daemon.deadlines import Deadlines
from bridge.daemon.endpoint import PROBLEM, Call, Endpoint, Handler, Operation, Reply
from bridge.daemon.gate import TITLES, Gate, Refused
from bridge.daemon.handlers import DISTRIBUTION, Handlers
from bridge.daemon.jobs import Jobs
from bridge.daemon.jobstore import JobStore
from bridge.daemon.keys import KeyFile
from bridge.daemon.logs import AccessLog
from bridge.daemon.messages import Problem
from bridge.daemon.metrics import Metrics
from bridge.daemon.openapi import describe
from bridge.daemon.operations import operations
from bridge.daemon.pages import POLICY, page
from bridge.daemon.registering import register_declared
from bridge.daemon.service import Service
from bridge.daemon.watching import Watcher
from bridge.daemon.work import Worker
from bridge.engines import Engine
from bridge.resolve import connect
from bridge.settings import Settings, data_folder

GRACE = 20.0
"""Seconds that jobs have to reach a checkpoint when the daemon ends."""

_log = logging.getLogger("bridge.daemon")


def make_app(settings: Settings, connecting: Callable[[Settings], Engine] | None = None) -> App:
    """The application of these settings.

    Args:
        settings: `serve` says what it does, `engine` whom it asks.
        connecting: makes the connection; `bridge.resolve.connect` by default.

    Raises:
        SettingsError: the settings contradict themselves, or the jobs cannot be kept.
    """
    serve = settings.serve
    serve.check()
    service = Service(settings, connecting or (lambda one: connect(one, _log.info)))
    folder = Path(serve.data) if serve.data else data_folder() / "serve"
    store = JobStore(folder / "jobs.sqlite")
    worker = Worker(service, folder / "jobs")
    jobs = Jobs(store, worker, most=serve.limits.jobs, kept=serve.limits.kept_jobs, forget=worker.forget)
    metrics = Metrics()
    gate = Gate(serve, KeyFile(Path(serve.keys_file)) if serve.keys_file else None)
    threads = ThreadPoolExecutor(serve.limits.requests, thread_name_prefix="request")
    cores = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="core")
    handlers = Handlers(service, jobs, worker, metrics, threads, cores)
    table = operations(handlers)
    description = msgspec.json.encode(describe(table, version(DISTRIBUTION), keys=serve.keys_file is not None))

    async def described(call: Call) -> Reply:
        del call
        return Reply(description)

    table.append(Operation("GET", "/openapi.json", "openapi", None, described, "This description."))
    table.append(Operation("GET", "/", "home", None, show_page("index.html"), "Search and ingest, for people."))
    table.append(Operation("GET", "/docs", "docs", None, show_page("docs.html"), "The interface, for people."))
    table.append(Operation("GET", "/pages/{name}", "page", None, show_page(), "A file of a page."))
    metrics.gauge("bridge_requests_under_way", "Requests that are being answered.", lambda: gate.under_way)
    metrics.counts("bridge_jobs", "Jobs, by state.", "state", store.counts)
    watcher = Watcher(serve.watch, jobs)
    access = AccessLog() if serve.access_log else None

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        loop = asyncio.get_running_loop()
        if serve.indexes:
            await loop.run_in_executor(threads, register_declared, service)
        jobs.start()
        watcher.start()
        try:
            yield
        finally:
            watcher.close()
            if not await loop.run_in_executor(None, jobs.close, GRACE):
                _log.warning("a job has not ended within %d seconds; it goes on from its last checkpoint", GRACE)
            for pool in (threads, cores):
                pool.shutdown(wait=True, cancel_futures=True)
            service.close()
            store.close()
            if access is not None:
                access.flush()

    deadlines = Deadlines(serve.limits.seconds)
    endpoints = [(one, Endpoint(one, gate, metrics, deadlines, access)) for one in table]
    routes = [Route(one.path, endpoint, methods=[one.method]) for one, endpoint in endpoints]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _no_such})
    return App(app, [endpoint for one, endpoint in endpoints if "{" not in one.path])


class App:
    """The routes as one ASGI application; those whose path is literally what is asked for come first.

    `at_once` is what `bridge.daemon.connection.Connection` takes.
    """

    def __init__(self, routes: ASGIApp, endpoints: Iterable[Endpoint]) -> None:
        self._routes = routes
        self._plain = {(one.operation.method, one.operation.path): one for one in endpoints}
        self.at_once = {
            (method.encode(), path.encode()): one.at_once
            for (method, path), one in self._plain.items()
            if one.operation.at_once
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._plain.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (found or self._routes)(scope, receive, send)


def show_page(fixed: str = "") -> Handler:
    """Answers with a page, or with the file of one that the path names."""

    async def show(call: Call) -> Reply:
        name = fixed or call.path["name"]
        found = page(name)
        if found is None:
            raise Refused(404, f"there is no page {name!r}")
        content, kind = found
        return Reply(
            content, kind=kind, headers=(("content-security-policy", POLICY), ("referrer-policy", "no-referrer"))
        )

    return show


async def _no_such(request: Request, error: Exception) -> Response:
    """A path that is none, or a method that it does not have."""
    assert isinstance(error, HTTPException)  # noqa: S101 (what Starlette was told)
    status = error.status_code
    detail = f"{request.method} {request.url.path}: {error.detail}; /openapi.json says what there is"
    problem = Problem(title=TITLES.get(status, "Refused"), status=status, detail=detail, request_id="")
    return Response(msgspec.json.encode(problem), status, headers=error.headers, media_type=PROBLEM)
