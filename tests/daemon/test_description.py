"""The daemon against its own description: whatever is asked, no server error, and no answer of another form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bridge.daemon.app import make_app
from bridge.daemon.keys import KeyFile
from bridge.engines import open_engine
from bridge.servesettings import Limits, ServeSettings
from bridge.settings import EngineSettings, Settings

# What fits the description may still contradict itself (a text and turns), and is refused then.
LEFT_OUT = [positive_data_acceptance]

many = settings(
    max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

pytestmark = [pytest.mark.node, pytest.mark.filterwarnings("ignore")]


def described(folder: Path, url: str, shared: Path, **options: Any) -> Any:
    serve = ServeSettings(
        data=str(folder / "serve"), models={"bert": str(shared / "bert-uncased")}, hosts=("testserver",),
        limits=Limits(body_bytes=200_000), log="error", access_log=False, **options,
    )  # fmt: skip
    app = make_app(Settings(engine=EngineSettings(url=url), serve=serve), lambda one: open_engine(settings=one.engine))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.fixture(scope="module")
def without_keys(tmp_path_factory: pytest.TempPathFactory, opensearch_url: str, shared: Path) -> Any:
    return described(tmp_path_factory.mktemp("serve"), opensearch_url, shared)


@pytest.fixture(scope="module")
def with_keys(tmp_path_factory: pytest.TempPathFactory, opensearch_url: str, shared: Path) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("serve")
    KEYS["x-api-key"] = KeyFile(folder / "keys.json").add("all", "admin")[0]
    yield described(folder, opensearch_url, shared, keys_file=str(folder / "keys.json"))
    KEYS.clear()


KEYS: dict[str, str] = {}
open_ = schemathesis.pytest.from_fixture("without_keys")
keyed = schemathesis.pytest.from_fixture("with_keys")


@open_.parametrize()
@many
def test_whatever_is_asked(case: Any) -> None:
    case.call_and_validate(excluded_checks=LEFT_OUT)


@keyed.parametrize()
@many
def test_whatever_is_asked_with_a_key(case: Any) -> None:
    case.call_and_validate(headers=dict(KEYS), excluded_checks=LEFT_OUT)


@keyed.parametrize()
@many
def test_whatever_is_asked_without_a_key(case: Any) -> None:
    answer = case.call_and_validate(excluded_checks=LEFT_OUT)
    if case.operation.definition.raw.get("security"):
        assert answer.status_code == 401
