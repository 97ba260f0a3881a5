"""What tests share: a real OpenSearch node for the whole run, an isolated home, the real data."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge import node
from bridge.cli import run
from bridge.engines import Engine, open_engine
from bridge.errors import DownloadFailed
from bridge.settings import EngineSettings

ROOT = Path(__file__).parent.parent
ERROR = "bridge: error: "
SHARED = Path(os.environ.get("BRIDGE_SHARED", ROOT.parent / "shared"))
NODE_CACHE = node.NodePaths.default().cache
"""The real download cache: taken before any test turns BRIDGE_CACHE_DIR elsewhere."""


@pytest.fixture(scope="session")
def opensearch_url() -> Iterator[str]:
    """The URL of a real OpenSearch 3.6.0 that only this test run uses."""
    # Not tmp_path: that is closed to other users, and the node never runs as root.
    folder = Path(tempfile.mkdtemp(prefix="bridge-test-node-"))
    folder.chmod(0o755)
    paths = node.NodePaths(cache=NODE_CACHE, data=folder)
    try:
        yield node.start(paths=paths).url
    except DownloadFailed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no real node to be had here: {error}")
    finally:
        node.stop(paths)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def engine(opensearch_url: str) -> Iterator[Engine]:
    """A connection to the real node."""
    with open_engine(settings=EngineSettings(url=opensearch_url)) as opened:
        yield opened


@pytest.fixture
def index(engine: Engine) -> Iterator[str]:
    """A name for an index; what is there under it afterwards is deleted."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    if engine.get_index(name):
        engine.delete_index(name)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, data and configuration folder, and no engine in the environment."""
    for name in list(os.environ):
        if name.startswith(("BRIDGE_", "OPENSEARCH_", "ELASTICSEARCH_")) and name != "BRIDGE_SHARED":
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("BRIDGE_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("BRIDGE_DATA_DIR", str(folder / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    return folder


@pytest.fixture
def bridge(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: its exit code, stdout and stderr. The working folder is `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, url: str | None = None) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([*(["--url", url] if url else []), *map(str, arguments)])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def fails(bridge: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Run a command that must fail with `code`, with nothing on stdout and one line on stderr: that line's text."""

    def call(code: int, *arguments: str, url: str | None = None) -> str:
        found, out, err = bridge(*arguments, url=url)
        assert found == code, err
        assert out == ""
        assert "Traceback" not in err
        lines = err.splitlines()
        # Notices may come before it; nothing comes after it, and it comes once.
        assert [line for line in lines if line.startswith(ERROR)] == lines[-1:], err
        return lines[-1].removeprefix(ERROR)

    return call


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real tokenizer, IDF table and corpora; not part of the project."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"the shared data is not at {SHARED} (set BRIDGE_SHARED)")
    return SHARED / "data"
