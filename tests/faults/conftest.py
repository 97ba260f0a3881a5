"""The fixtures that live as long as a module, as in the contract tests, and the engines that faults are tried on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from bridge.engines import Engine, open_engine
from bridge.errors import DownloadFailed
from bridge.settings import EngineSettings
from tests.conftest import NODE_CACHE
from tests.contract.conftest import module_engine, module_home
from tests.nodes import running_node

__all__ = ["module_engine", "module_home"]


@contextlib.contextmanager
def running(name: str, opensearch_url: str) -> Iterator[str]:
    """The URL of the engine of that name, of `tests.faults.engines`."""
    if name == "opensearch":
        yield opensearch_url
        return
    try:
        with contextlib.ExitStack() as stack:
            with pytest.MonkeyPatch.context() as patch:
                # A test's, or a module's, own home may have turned it elsewhere.
                patch.setenv("BRIDGE_CACHE_DIR", str(NODE_CACHE))
                url = stack.enter_context(running_node(name))
            yield url
    except DownloadFailed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, opensearch_url: str) -> Iterator[str]:
    """The URL of the engine whose name is the parameter."""
    with running(request.param, opensearch_url) as url:
        yield url


@pytest.fixture(scope="module")
def placed(place: str) -> Iterator[Engine]:
    """A connection to that engine."""
    with open_engine(settings=EngineSettings(url=place)) as engine:
        yield engine
