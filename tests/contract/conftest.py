"""What the contract tests share: an engine and an isolated home that live as long as a module."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from bridge.engines import Engine, open_engine
from bridge.errors import DownloadFailed
from bridge.settings import EngineSettings
from tests.nodes import NAMES, running_node
from tests.nodes.recipes import OPENSEARCH_ML


@pytest.fixture(scope="module")
def module_engine(opensearch_url: str) -> Iterator[Engine]:
    """Like `engine`, for what is too slow to be set up for every test."""
    with open_engine(settings=EngineSettings(url=opensearch_url)) as opened:
        yield opened


@pytest.fixture(scope="module")
def module_index(module_engine: Engine) -> Iterator[str]:
    """Like `index`, deleted after the module's last test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    if module_engine.get_index(name):
        module_engine.delete_index(name)


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Like `home`, for what a module's fixtures write: they are set up before `home` is."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRIDGE_CACHE_DIR", str(folder / "cache"))
        patch.setenv("BRIDGE_DATA_DIR", str(folder / "data"))
        yield


@pytest.fixture(scope="module")
def ml_engine() -> Iterator[Engine]:
    """OpenSearch with the ml plugin; 1 GB of heap, so it ends with the module."""
    try:
        with running_node(OPENSEARCH_ML.name) as url, open_engine(settings=EngineSettings(url=url)) as engine:
            yield engine
    except DownloadFailed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no node with the ml plugin to be had here: {error}")


@pytest.fixture(scope="session", params=["opensearch-3.6.0", *NAMES])
def any_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A connection to each of the engines in turn, the embedded one first; each is started once for all modules."""
    if request.param not in NAMES:
        with open_engine(settings=EngineSettings(url=request.getfixturevalue("opensearch_url"))) as engine:
            yield engine
        return
    with running_node(request.param) as url, open_engine(settings=EngineSettings(url=url)) as engine:
        yield engine
