"""What the runners' tests share: real passages, two models, the files that one process writes of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from bridge.encodefile import EncodeSummary
from bridge.fit import fit
from tests.runners.helpers import FULL, write

PASSAGES = 20_000 if FULL else 1_000
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
DEAD = ['{"_id": "no text"}\n', "no JSON\n", '{"_id": "gone", "_op": "delete"}\n']


@pytest.fixture(scope="session")
def corpus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real passages, and a line that cannot be encoded in front of every 300th."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with (
        gzip.open(shared / "corpora" / "msdocs100k" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines,
        path.open("w", encoding="utf-8") as target,
    ):
        for number, line in enumerate(islice(lines, PASSAGES)):
            target.write((DEAD[number // 300 % 3] if number % 300 == 0 else "") + line)
    return path


@pytest.fixture(scope="session")
def lexical(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "lexical"
    with corpus.open(encoding="utf-8") as lines:
        texts = [json.loads(line).get("text", "") for line in lines if line.startswith('{"_id": "1')]
    fit(texts, folder)
    return folder


@pytest.fixture(scope="session")
def splade(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models import sparse_folder

    return sparse_folder(
        tmp_path_factory.mktemp("model") / "splade", shared / "bert-uncased" / "tokenizer.json", length=32, **TINY
    )


@pytest.fixture(params=["lexical", "splade"])
def model(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are some, and each is done soon."""
    monkeypatch.setattr("bridge.encodefile._BATCH", 512 if FULL else 100)


@pytest.fixture(scope="session")
def plain(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[Path, EncodeSummary]]:
    """The file that one process writes, and its summary, by the model."""
    folder = tmp_path_factory.mktemp("plain")
    found: dict[Path, tuple[Path, EncodeSummary]] = {}

    def of(model: Path) -> tuple[Path, EncodeSummary]:
        if model not in found:
            output = folder / f"{model.name}.jsonl"
            found[model] = output, write(corpus, output, model)
        return found[model]

    return of
