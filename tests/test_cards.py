"""Each family's vectors are those of its card's own code, on a random folder that is named like the model.

The references are written here from what the cards do: tokenize a padded batch with transformers, take the whole
model's logits, mask, activate, take the maximum; OpenSearch's then sets the special tokens to zero. DiSCo's snippet
takes the logits' positive part as it is, while its authors trained with log1p. SimLM's is in test_dense.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import load_encoder
from bridge.conversation import flatten
from bridge.encode.splade import SpladeEncoder
from bridge.models import find_card
from bridge.records import Turn
from tests.models import SPECIAL, sparse_folder, table, texts_of, torch, transformers

EXACT = 1e-5
OPENSEARCH = "opensearch-neural-sparse-encoding"

CASES = [
    # Folder, architecture, tokens of a document and of a query (None: a table), special tokens set to zero.
    (f"{OPENSEARCH}-v1", "bert", 512, 512, True),
    (f"{OPENSEARCH}-v2-distill", "distilbert", 512, 512, True),
    (f"{OPENSEARCH}-doc-v1", "bert", 512, None, True),
    (f"{OPENSEARCH}-doc-v2-mini", "bert", 512, None, True),
    ("Splade_PP_en_v1", "bert", 128, 24, False),
    ("Splade_PP_en_v2", "bert", 128, 24, False),
    ("splade-cocondenser-ensembledistil", "bert", 256, 256, False),
    ("splade-cocondenser-selfdistil", "bert", 256, 256, False),
    ("splade-v3", "bert", 256, 256, False),
    ("splade-v3-distilbert", "distilbert", 256, 256, False),
    ("splade_v2_max", "distilbert", 256, 256, False),
    ("splade_v2_distil", "distilbert", 256, 256, False),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Path:
    return shared / "bert-uncased" / "tokenizer.json"


@pytest.fixture(scope="module")
def texts(shared: Path) -> list[str]:
    """Short and long ones; the last is past every length."""
    chosen = [text for text in texts_of(shared / "corpora")[2::45] if text.strip()]
    return [*chosen, " ".join(chosen) * 2]


class Card:
    """A folder as transformers loads it, and the cards' formula over it."""

    def __init__(self, folder: Path) -> None:
        self.model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def encode(self, texts: Sequence[str], length: int, *, log: bool = True, drop_special: bool = False) -> Any:
        """float32[n, V]."""
        rows = []
        for start in range(0, len(texts), 4):
            batch = self.tokenizer(
                list(texts[start : start + 4]), padding=True, truncation=True, max_length=length, return_tensors="pt",
                return_token_type_ids=False,
            )  # fmt: skip
            with torch.inference_mode():
                positive = torch.relu(self.model(**batch).logits)
                weights = (torch.log(1 + positive) if log else positive) * batch["attention_mask"].unsqueeze(-1)
                rows.append(weights.max(dim=1).values)
        found = torch.cat(rows).numpy()
        if drop_special:
            found[:, self.tokenizer.convert_tokens_to_ids(list(SPECIAL))] = 0
        return found


@pytest.mark.parametrize(("name", "kind", "document", "query", "drop_special"), CASES, ids=[case[0] for case in CASES])
def test_the_card_s_code(
    tmp_path: Path, shared: Path, tokenizer: Path, texts: list[str],
    name: str, kind: str, document: int, query: int | None, drop_special: bool,
) -> None:  # fmt: skip
    assert find_card(name) is not None
    folder = sparse_folder(tmp_path / name, tokenizer, kind=kind)
    if query is None:
        shutil.copyfile(shared / "bert-uncased" / "idf.json", folder / "idf.json")
    encoder, card = load_encoder(folder), Card(folder)
    assert isinstance(encoder, SpladeEncoder)
    assert len(card.tokenizer(texts[-1]).input_ids) > 512
    expected = card.encode(texts, document, drop_special=drop_special)
    assert 30 <= np.median((expected > 0).sum(1)) <= 600
    assert np.abs(table(encoder.encode_document(texts), expected.shape[1]) - expected).max() <= EXACT
    asked = texts[:4] + texts[-1:]
    if query is not None:
        expected = card.encode(asked, query, drop_special=drop_special)
        assert np.abs(table(encoder.encode_query(asked), expected.shape[1]) - expected).max() <= EXACT
        return
    # The cards' query: the set of the text's tokens, each with its weight of idf.json, special tokens none.
    idf = json.loads((folder / "idf.json").read_text("utf-8"))
    asked = [text for text in texts if len(card.tokenizer(text).input_ids) <= 512]
    for text, vector in zip(asked, encoder.encode_query(asked), strict=True):
        tokens = set(card.tokenizer.tokenize(text)) - set(SPECIAL)
        assert vector.as_dict().keys() == tokens
        assert all(vector.as_dict()[token] == np.float32(idf[token]) for token in tokens)


@pytest.mark.parametrize("name", ["efficient-splade-V-large", "efficient-splade-VI-BT-large"])
def test_a_pair_of_models_each_by_its_own_weights(tmp_path: Path, tokenizer: Path, texts: list[str], name: str) -> None:
    documents = sparse_folder(tmp_path / f"{name}-doc", tokenizer, seed=1)
    queries = sparse_folder(tmp_path / f"{name}-query", tokenizer, seed=2)
    expected = Card(documents).encode(texts, 256)
    found = load_encoder(documents).encode_document(texts)
    assert np.abs(table(found, expected.shape[1]) - expected).max() <= EXACT
    asked = texts[:4] + texts[-1:]
    expected = Card(queries).encode(asked, 256)
    found = load_encoder(queries).encode_query(asked)
    assert np.abs(table(found, expected.shape[1]) - expected).max() <= EXACT


@pytest.fixture(scope="module")
def conversations(shared: Path) -> list[list[Turn]]:
    """Real ones with their answers, the longest past 512 tokens."""
    path = shared / "corpora" / "mtrag_human" / "conversations.jsonl"
    found = []
    with path.open(encoding="utf-8") as lines:
        for row in islice(map(json.loads, lines), 0, None, 40):
            turns = [Turn(turn["question"], turn["answer"]) for turn in row["history"]]
            found.append([*turns, Turn(row["question"], None)])
    return found


@pytest.mark.parametrize("activation", [None, "log1p_relu", "relu"])
def test_disco_by_its_snippet_and_as_trained(
    tmp_path: Path, tokenizer: Path, conversations: list[list[Turn]], activation: Any
) -> None:
    folder = sparse_folder(tmp_path / "splade-disco-human-mistral", tokenizer)
    card, encoder = Card(folder), load_encoder(folder, activation=activation)
    asked = [flatten(turns) for turns in conversations]
    assert max(len(card.tokenizer(text).input_ids) for text in asked) > 512
    expected = card.encode(asked, 512, log=activation != "relu")
    assert np.abs(table(encoder.encode_query(asked), expected.shape[1]) - expected).max() <= EXACT
