"""`bridge demo`: with a dense encoder at hand a projection, else a lexical model; each says which, and why."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from bridge.encode.at_hand import INSTALL, MINILM, PACKAGE, check_dense, dense_at_hand
from bridge.encode.folder import EXPORT_FILE
from bridge.engines import Engine
from bridge.errors import MissingExtra, ModelFormatError, ModelNotFound
from bridge.fit import fit
from bridge.settings import cache_folder
from tests.models import word_bert

Bridge = Callable[..., tuple[int, str, str]]
Fails = Callable[..., str]

WORDS = ("bread", "dough", "yeast", "tide", "moon", "rose", "prune", "muscle", "version", "history")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder with the files of all-MiniLM-L6-v2."""
    folder = word_bert(tmp_path_factory.mktemp("small") / "model", WORDS)
    family = "sentence_transformers.models"
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [{"idx": i, "name": str(i), "path": path, "type": f"{family}.{kind}"}
              for i, (path, kind) in enumerate(modules)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    facts = {"word_embedding_dimension": 96, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which is not reached."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def cached(hub: Path, small: Path) -> Path:
    """The snapshot of all-MiniLM-L6-v2 in the hub's cache: in truth the small encoder."""
    repository = hub / f"models--{MINILM.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(small)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    return snapshot


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python says of modules that are not installed."""
    for module in ("torch", "transformers", "onnxruntime", PACKAGE):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture
def demo(bridge: Bridge, engine: Engine, opensearch_url: str) -> Iterator[Callable[..., dict[str, object]]]:
    """Run the demo for its JSON; its index is gone afterwards."""

    def call(*options: str) -> dict[str, object]:
        code, out, err = bridge("demo", *options, "--json", url=opensearch_url)
        assert code == 0, err
        found: dict[str, object] = json.loads(out)
        return found

    yield call
    if engine.get_index("bridge-demo"):
        engine.delete_index("bridge-demo")


# --- What is at hand ----------------------------------------------------------------------------------------


def test_the_package_is_found() -> None:
    if find_spec(PACKAGE) is None:
        pytest.skip(f"the package {PACKAGE} is not installed")
    folder = dense_at_hand()
    assert folder is not None
    assert (folder.parent.name, folder.name) == (PACKAGE, "model")
    check_dense(folder)


def test_the_hubs_cache_comes_first(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dense_at_hand() == cached
    # A repository that was fetched in part is passed over.
    monkeypatch.setattr("bridge.encode.at_hand._NEEDED", ("modules.json", "a file that it lacks"))
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    assert dense_at_hand() is None


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_without_what_runs_it_nothing_is_at_hand(cached: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert dense_at_hand() is None
    with pytest.raises(MissingExtra, match=r"neural-sparse-bridge\[encode\]"):
        check_dense(cached)


def test_looking_loads_nothing_heavy() -> None:
    code = (
        "import sys; from bridge.encode.at_hand import check_dense, dense_at_hand; found = dense_at_hand(); "
        "found and check_dense(found); assert not {'torch', 'transformers', 'onnxruntime'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr


def test_what_is_named_is_looked_at(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_dense(small)
    with pytest.raises(ModelNotFound):
        check_dense(tmp_path / "gone")
    fit(["a text"], tmp_path / "lexical")
    with pytest.raises(ModelFormatError):
        check_dense(tmp_path / "lexical")


def test_an_exported_one_needs_the_other_extra(
    tmp_path: Path, small: Path, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed: no onnxruntime")
    code, _, err = bridge("export", small, "-o", "exported", "--onnx")
    assert code == 0, err
    assert (tmp_path / "exported" / EXPORT_FILE).is_file()
    monkeypatch.setitem(sys.modules, "torch", None)
    check_dense(tmp_path / "exported")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"neural-sparse-bridge\[onnx\]"):
        check_dense(tmp_path / "exported")


# --- The command --------------------------------------------------------------------------------------------


def test_a_teacher_that_is_not_there(fails: Fails, nothing: None, small: Path) -> None:
    """Said before anything is downloaded or started."""
    assert "no model gone" in fails(1, "demo", "--teacher", "gone")
    assert "neural-sparse-bridge[encode]" in fails(1, "demo", "--teacher", str(small))


@pytest.mark.node
def test_with_what_is_at_hand(
    demo: Callable[..., dict[str, object]], bridge: Bridge, engine: Engine, opensearch_url: str, cached: Path
) -> None:
    found = demo()
    assert found["teacher"] == str(cached)
    ingest = found["ingest"]
    assert isinstance(ingest, dict)
    assert ingest["model"].startswith("projection-")
    assert ingest["indexed"] == ingest["source"] == engine.count("bridge-demo") == 240
    # The second time nothing is fitted or encoded, and the same is found.
    again = demo()
    assert again["teacher"] == found["teacher"]
    assert again["evaluate"] == found["evaluate"]
    assert isinstance(again["ingest"], dict)
    assert (again["ingest"]["indexed"], again["ingest"]["unchanged"]) == (0, 240)
    assert again["ingest"]["model"] == ingest["model"]
    code, out, err = bridge("demo", url=opensearch_url)
    assert code == 0, err
    line = f"A projection of {MINILM}, found in {cached}; --teacher none would make a lexical model."
    assert line in out
    assert "bridge fit CORPUS -o MODEL --teacher DENSE" in out


@pytest.mark.node
def test_the_second_demo_needs_no_torch(
    demo: Callable[..., dict[str, object]], cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo()
    for module in ("bridge.encode.torch_dense", "bridge.encode.torch_load"):
        monkeypatch.setitem(sys.modules, module, None)
    again = demo()
    assert isinstance(again["ingest"], dict)
    assert again["ingest"]["unchanged"] == 240


@pytest.mark.node
def test_with_neither_extra(demo: Callable[..., dict[str, object]], bridge: Bridge, opensearch_url: str,
                            cached: Path, nothing: None) -> None:  # fmt: skip
    found = demo()
    assert found["teacher"] is None
    assert isinstance(found["ingest"], dict)
    assert found["ingest"]["model"].startswith("lexical-")
    code, out, err = bridge("demo", url=opensearch_url)
    assert code == 0, err
    assert f"A lexical model, since no dense encoder is at hand; for a projection: {INSTALL}\n" in out
    assert "--teacher DENSE" not in out


@pytest.mark.node
def test_one_model_after_the_other(
    demo: Callable[..., dict[str, object]], small: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by the option or the environment, or refused; what an earlier demo left is replaced."""
    models = []
    for options, variable, teacher in (
        (("--teacher", "none"), "", None),
        ((), str(small), str(small)),
        (("--teacher", "none"), str(small), None),
    ):
        monkeypatch.setenv("BRIDGE_TEACHER", variable)
        found = demo(*options)
        assert found["teacher"] == teacher
        assert isinstance(found["ingest"], dict)
        assert found["ingest"]["indexed"] == 240
        models.append(found["ingest"]["model"].partition("-")[0])
    assert models == ["lexical", "projection", "lexical"]


@pytest.mark.node
def test_a_damaged_model_of_an_earlier_demo_is_made_anew(
    demo: Callable[..., dict[str, object]], engine: Engine, small: Path
) -> None:
    first = demo("--teacher", str(small))
    (folder,) = (cache_folder() / "demo").iterdir()
    (folder / "bridge.json").write_text("{")
    engine.delete_index("bridge-demo")
    second = demo("--teacher", str(small))
    assert isinstance(first["ingest"], dict)
    assert isinstance(second["ingest"], dict)
    assert second["ingest"]["model"] == first["ingest"]["model"]
    assert second["ingest"]["indexed"] == 240
