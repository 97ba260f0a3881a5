"""`bridge doctor`: what is right, what is wrong and how to mend it, with nothing started or changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.doctor import EXTRAS, Check, examine
from bridge.engines import Engine
from bridge.modelstore import MODELS_INDEX
from bridge.settings import EngineSettings, Settings

Bridge = Callable[..., tuple[int, str, str]]


def checks(url: str | None = None, **settings: Any) -> dict[str, Check]:
    return {check.name: check for check in examine(Settings(engine=EngineSettings(url=url, **settings)))}


def test_without_an_engine(home: Path):
    found = checks()
    assert found["bridge"].status == "ok"
    assert found["templates"].status == "ok"
    assert found["embedded node"].status == "note"
    assert found["engine"].status == "note"
    assert "OPENSEARCH_URL" in found["engine"].mend
    assert "bridge node start" in found["engine"].mend
    assert found["cached models"].status == "ok"
    assert not home.exists(), "looking makes no folders"


def test_with_an_engine(opensearch_url: str):
    found = checks(opensearch_url)
    assert found["engine"].status == "ok"
    assert found["engine"].found.startswith(f"OpenSearch 3.6.0 at {opensearch_url}, cluster ")
    assert found["cluster health"].found in ("green", "yellow")
    for ability in ("rank features", "neural sparse", "seismic", "search pipelines", "two phase", "dense"):
        assert ability in found["engine can"].found
    assert "sparse vector field" not in found["engine can"].found
    assert "neural_sparse" not in found, "that is only named where it is lacking"


def test_an_engine_that_is_not_reached(bridge: Bridge):
    code, out, err = bridge("doctor", url="http://127.0.0.1:1")
    assert code == 1
    assert "Traceback" not in err
    row = next(line for line in out.splitlines() if line.strip().startswith("wrong"))
    assert "engine" in row
    # Everything else is still said.
    assert "templates" in out
    code, out, _ = bridge("doctor", "--json", url="http://127.0.0.1:1")
    assert code == 1
    document = json.loads(out)
    assert document["healthy"] is False
    (wrong,) = [check for check in document["checks"] if check["status"] == "wrong"]
    assert "cannot reach http://127.0.0.1:1" in wrong["found"]
    assert wrong["mend"]


def test_nothing_wrong_is_said_without_a_way_to_mend_it(home: Path):
    (home / "cache" / "models" / "lexical-0").mkdir(parents=True)
    found = [*checks("http://127.0.0.1:1").values(), *checks().values()]
    assert {check.status for check in found} == {"ok", "note", "wrong"}
    for check in found:
        assert check.found
        assert bool(check.mend) == (check.status != "ok"), check


def test_cached_models(bridge: Bridge, engine: Engine, index: str, opensearch_url: str, home: Path, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"_id": "1", "text": f"a model of its own: {index}"}))
    assert bridge("ingest", index, "a.jsonl", url=opensearch_url)[0] == 0
    fingerprint = engine.require_index(index).meta["document_encoder"]
    found = checks(opensearch_url)
    assert (found["cached model"].status, found["cached model"].found) == ("ok", fingerprint)
    assert fingerprint in found[MODELS_INDEX].found

    idf = home / "cache" / "models" / fingerprint / "idf.json"
    idf.write_text(idf.read_text().replace("model", "muddle"))
    changed = checks(opensearch_url)["cached model"]
    assert changed.status == "wrong"
    assert f"{fingerprint} was changed" in changed.found
    assert changed.mend == f"delete {idf.parent}"

    idf.unlink()
    broken = checks(opensearch_url)["cached model"]
    assert broken.status == "wrong"
    assert bridge("doctor", url=opensearch_url)[0] == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Not by its permissions, which mean nothing to root: a file stands where the folder should be.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRIDGE_DATA_DIR", str(tmp_path / "file" / "data"))
    found = checks()["data folder"]
    assert found.status == "wrong"
    assert "BRIDGE_DATA_DIR" in found.mend


def test_every_extra_is_looked_at():
    import tomllib

    root = Path(__file__).parent.parent
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"all", "dev"}
    assert {f"extra {extra}" for extra in EXTRAS} <= set(checks())
