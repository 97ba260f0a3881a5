"""The daemon against its own description: whatever is asked, no server error, and no answer of another form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from bridge.daemon.app import make_app
from bridge.daemon.keys import KeyFile
from bridge.engines import open_engine
from bridge.servesettings import Limits, ServeSettings
from bridge.settings import EngineSettings, Settings

# What fits the description may still contradict itself (a text and turns), and is refused then. Whether a request
# without its key is refused is asked below, of every operation.
LEFT_OUT = [positive_data_acceptance, ignored_auth]
OPERATIONS = 19

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


def ask_everything(schema: Any, headers: dict[str, str], refused: bool) -> int:
    """Ask each operation in many ways; how many operations there are."""
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in operations:

        @many
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            answer = case.call_and_validate(headers=headers, excluded_checks=LEFT_OUT)
            if refused and case.operation.definition.raw.get("security"):
                assert answer.status_code == 401

        ask()
    return len(operations)


def test_whatever_is_asked(tmp_path: Path, opensearch_url: str, shared: Path) -> None:
    assert ask_everything(described(tmp_path, opensearch_url, shared), {}, refused=False) == OPERATIONS


@pytest.mark.parametrize("known", [True, False])
def test_whatever_is_asked_where_keys_are_needed(
    tmp_path: Path, opensearch_url: str, shared: Path, known: bool
) -> None:
    key, _ = KeyFile(tmp_path / "keys.json").add("all", "admin")
    schema = described(tmp_path, opensearch_url, shared, keys_file=str(tmp_path / "keys.json"))
    headers = {"x-api-key": key} if known else {}
    assert ask_everything(schema, headers, refused=not known) == OPERATIONS
