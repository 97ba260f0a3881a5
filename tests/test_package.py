"""The package as users get it: what is in the wheel, and that it works where there is no checkout."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
CI = bool(os.environ.get("CI"))


def unavailable(what: str, done: subprocess.CompletedProcess[str]) -> None:
    """Skip, with the reason; in CI, where the network is there, fail."""
    reason = f"{what}: {(done.stderr or done.stdout).strip()[-600:]}"
    if CI:
        pytest.fail(reason)
    pytest.skip(reason)


def built(kind: str, folder: Path) -> Path:
    # Without isolation it needs no network; with it, pip fetches the build backend.
    isolation = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    words = [sys.executable, "-m", "build", f"--{kind}", *isolation, "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        if isolation:
            pytest.fail(done.stdout + done.stderr)
        unavailable(f"the {kind} cannot be built", done)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files(folder: str) -> set[str]:
    """What is in a folder of the checkout, without what Python makes there."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(ROOT)) for path in found}


# --- what is in it ----------------------------------------------------------------------------------


def test_the_wheel_holds_the_package_and_the_templates(names: set[str]):
    metadata = {name for name in names if ".dist-info/" in name}
    templates = {f"bridge/{name}" for folder in ("mappings", "pipelines") for name in files(folder)}
    assert names - metadata == files("bridge") | templates
    # Spelt out, since both sides above would be without them if they went away.
    assert {
        "bridge/mappings/opensearch/rank_features.json",
        "bridge/mappings/elasticsearch/sparse_vector.json",
        "bridge/pipelines/opensearch/hybrid.json",
        "bridge/demo_data/corpus.jsonl",
        "bridge/demo_data/queries.jsonl",
        "bridge/demo_data/qrels/test.tsv",
        "bridge/encode/function_words.json",
        "bridge/node/artifacts.lock.json",
        "bridge/py.typed",
    } <= names


def test_the_metadata(wheel: Path, names: set[str]):
    folder = f"neural_sparse_bridge-{VERSION}.dist-info"
    assert f"{folder}/licenses/LICENSE" in names
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{folder}/METADATA").decode()
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
    assert "bridge = bridge.cli:main" in scripts
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    for extra in ("node", "eval", "aws", "all", "dev"):
        assert f"\nProvides-Extra: {extra}\n" in metadata
    # The front page of the package index is the README.
    assert "# Neural Sparse Bridge" in metadata


def test_the_sdist_can_be_built_from(tmp_path: Path):
    with tarfile.open(built("sdist", tmp_path)) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert files("bridge") | files("mappings") | files("pipelines") <= held
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "docs/cli.md", "tests/conftest.py"} <= held


# --- that it works ----------------------------------------------------------------------------------


class Installed:
    """The wheel with its base dependencies, in an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.binaries = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A program of the environment, in a folder outside of the checkout."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
        environment |= {f"BRIDGE_{name}_DIR": str(self.folder / name) for name in ("CACHE", "DATA")}
        return subprocess.run(
            [str(self.binaries / words[0]), *words[1:]],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    def bridge(self, *words: str) -> str:
        done = self.run("bridge", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=True, system_site_packages=False)
    installed = Installed(folder)
    done = installed.run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel))
    if done.returncode:
        unavailable("the wheel's dependencies cannot be installed", done)
    (folder / "a.jsonl").write_text('{"_id": "1", "text": "the weather in new york"}\n')
    return installed


def test_nothing_comes_from_the_checkout(installed: Installed):
    done = installed.run("python", "-c", "import bridge; print(bridge.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(installed.folder), done.stderr
    assert not [line for line in installed.run("python", "-m", "pip", "freeze").stdout.splitlines() if "torch" in line]


def test_help_and_version(installed: Installed):
    assert "Usage: bridge" in installed.bridge("--help")
    assert VERSION in installed.bridge("--version")


def test_a_model_is_fitted_and_a_query_rewritten(installed: Installed):
    fitted = json.loads(installed.bridge("fit", "a.jsonl", "-o", "model", "--json"))
    assert fitted["documents"] == 1
    body = json.loads(installed.bridge("rewrite", "what is the weather in ny", "--model", "model"))
    assert body["query"]["neural_sparse"]["embedding"]["query_tokens"]


def test_the_templates_are_found(installed: Installed, opensearch_url: str):
    installed.bridge("fit", "a.jsonl", "-o", "model-for-templates")
    arguments = ["register", "test-none", "--model", "model-for-templates", "--two-phase", "--dry-run", "--json"]
    planned = json.loads(installed.bridge("--url", opensearch_url, *arguments))
    assert planned["steps"] == ["put search pipeline test-none-two-phase", "create index test-none"]
    assert '"type": "rank_features"' in planned["diff"]


def test_documents_go_in_and_come_out(installed: Installed, opensearch_url: str, index: str):
    ingested = json.loads(installed.bridge("--url", opensearch_url, "ingest", index, "a.jsonl", "--json"))
    assert ingested["indexed"] == 1
    found = json.loads(installed.bridge("--url", opensearch_url, "search", index, "weather", "--json"))
    assert [hit["id"] for hit in found["hits"]] == ["1"]


def test_the_doctor_is_content(installed: Installed, opensearch_url: str):
    found = json.loads(installed.bridge("--url", opensearch_url, "doctor", "--json"))
    assert found["healthy"] is True
    extras = {check["name"]: check for check in found["checks"] if check["name"].startswith("extra ")}
    assert {check["status"] for check in extras.values()} == {"note"}, "the base install has no extra"
    assert extras["extra eval"]["mend"] == 'pip install "neural-sparse-bridge[eval]"'


def test_what_needs_an_extra_says_so(installed: Installed, opensearch_url: str, index: str):
    judged = installed.folder / "judged"
    (judged / "qrels").mkdir(parents=True)
    (judged / "queries.jsonl").write_text('{"_id": "q", "text": "weather"}\n')
    (judged / "qrels" / "test.tsv").write_text("q\t1\t1\n")
    installed.bridge("--url", opensearch_url, "ingest", index, "a.jsonl")
    done = installed.run("bridge", "--url", opensearch_url, "evaluate", index, "judged")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        'bridge: error: evaluation needs the extra "eval": pip install "neural-sparse-bridge[eval]"'
    )
    assert "Traceback" not in done.stderr
