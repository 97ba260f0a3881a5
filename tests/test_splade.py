"""Sparse encoders give their reference's numbers: sentence-transformers on the same folder, or the card's formula."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import load_encoder
from bridge.encode.lookup import LookupEncoder
from bridge.encode.run_options import RunOptions
from bridge.encode.splade import SpladeEncoder
from bridge.errors import ModelFormatError, UsageError
from bridge.models import Activation
from tests.models import SMALL, random_model, sparse_folder, table, texts_of, torch, transformers, write_tokenizer

st = pytest.importorskip("sentence_transformers", reason="the reference sentence-transformers is not installed")
from sentence_transformers import SparseEncoder  # noqa: E402
from sentence_transformers.base.modules import Router, Transformer  # noqa: E402
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling  # noqa: E402

EXACT = 1e-5
BERT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
DISTILBERT = BERT | {"num_hidden_layers": 6}
FULL = bool(os.environ.get("BRIDGE_TEST_FULL"))
"""Models of the published sizes take minutes; by default the same is shown on small ones."""


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if FULL else 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Path:
    return shared / "bert-uncased" / "tokenizer.json"


@pytest.fixture(scope="module")
def texts(shared: Path) -> list[str]:
    return texts_of(shared / "corpora")


def small(folder: Path, tokenizer: Path, **settings: Any) -> Path:
    """A folder that reads 96 tokens: what is shown with it depends on no length."""
    return sparse_folder(folder, tokenizer, length=96, **settings)


def saved(folder: Path, target: Path, *, pooling: str = "max", activation: str = "relu") -> Path:
    """`folder` as sentence-transformers saves it, with that SpladePooling."""
    modules = [Transformer(str(folder), transformer_task="fill-mask"), SpladePooling(pooling, activation)]
    SparseEncoder(modules=modules, device="cpu").save(str(target))
    return target


def reference(folder: Path, texts: list[str], side: str = "document", **options: Any) -> Any:
    """float32[n, V] by sentence-transformers; the rows of texts without a token are emptied, as ours are."""
    model = SparseEncoder(str(folder), device="cpu", **options)
    encode = model.encode_query if side == "query" else model.encode_document
    found = encode(texts, batch_size=2, convert_to_sparse_tensor=False).numpy()
    # It encodes an empty text as [CLS] [SEP]; a vector that says nothing of the text is not searched for here.
    found[[not text.strip() for text in texts]] = 0
    return found


def assert_sparse(vectors: list[Any]) -> None:
    counts = [len(vector) for vector in vectors if len(vector)]
    assert 30 <= np.median(counts) <= 300, f"a test folder with {np.median(counts)} active entries shows nothing"


def largest_difference(encoder: Any, folder: Path, texts: list[str]) -> float:
    """Between our vectors and the reference's, of documents and of the last ten texts as queries."""
    ours, expected = encoder.encode_document(texts), reference(folder, texts)
    assert_sparse(ours)
    for text, vector in zip(texts, ours, strict=True):
        assert (len(vector) == 0) == (not text.strip())
    queries = texts[-10:]
    asked = reference(folder, queries, "query")
    size = expected.shape[1]
    pairs = ((table(ours, size), expected), (table(encoder.encode_query(queries), size), asked))
    return max(float(np.abs(a - b).max()) for a, b in pairs)


@pytest.mark.timeout(3600 if FULL else 600)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_equals_sentence_transformers(
    tmp_path: Path, tokenizer: Path, texts: list[str], kind: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"bert": BERT, "distilbert": DISTILBERT}[kind] | {"initializer_range": 0.02} if FULL else SMALL
    folder = sparse_folder(tmp_path / "model", tokenizer, kind=kind, seed=seed, **sizes)
    some = texts if FULL else texts[:8] + texts[8 + seed :: 32]
    assert len(some) == 500 or not FULL
    found = largest_difference(load_encoder(folder), folder, some)
    if FULL:
        with capsys.disabled():
            print(f"\n  {kind}, seed {seed}, {len(some)} texts: largest difference {found:.1e}", flush=True)
    assert found <= EXACT


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_saved_pooling(tmp_path: Path, tokenizer: Path, texts: list[str], pooling: str, activation: str) -> None:
    plain = small(tmp_path / "plain", tokenizer, kind="distilbert", seed=3)
    folder = saved(plain, tmp_path / "saved", pooling=pooling, activation=activation)
    encoder = load_encoder(folder)
    assert isinstance(encoder, SpladeEncoder)
    assert (encoder.recipe.pooling, encoder.recipe.activation) == (pooling, f"log1p_{activation}")
    assert largest_difference(encoder, folder, texts[::20]) <= EXACT


@pytest.mark.parametrize("length", [32, 128])
def test_truncation(tmp_path: Path, tokenizer: Path, texts: list[str], length: int) -> None:
    folder = saved(sparse_folder(tmp_path / "plain", tokenizer, length=length), tmp_path / "saved")
    some = sorted(texts, key=len)[-6:]
    expected = reference(folder, some)
    encoder = load_encoder(folder)
    assert isinstance(encoder, SpladeEncoder)
    assert encoder.recipe.document_length == length
    assert np.abs(table(encoder.encode_document(some), expected.shape[1]) - expected).max() <= EXACT


def test_prompts_and_lower_case(tmp_path: Path, tokenizer: Path, texts: list[str]) -> None:
    folder = saved(small(tmp_path / "plain", tokenizer), tmp_path / "saved")
    config = json.loads((folder / "config_sentence_transformers.json").read_text())
    config["prompts"] = {"query": "ask: ", "document": "passage of a book: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    encoder, some = load_encoder(folder), [text for text in texts[:12] if text.strip()]
    for side in ("query", "document"):
        expected = reference(folder, some, side)
        ours = getattr(encoder, f"encode_{side}")(some)
        assert np.abs(table(ours, expected.shape[1]) - expected).max() <= EXACT
    assert encoder.fingerprint != load_encoder(tmp_path / "plain").fingerprint


@pytest.mark.parametrize("threads", [1, 3])
def test_alone_equals_any_batch(tmp_path: Path, tokenizer: Path, texts: list[str], threads: int) -> None:
    torch.set_num_threads(threads)
    encoder = load_encoder(small(tmp_path / "model", tokenizer, seed=4))
    some = texts[::25]
    together = encoder.encode_document(some)
    for text, vector in zip(some, together, strict=True):
        (alone,) = encoder.encode_document([text])
        one, other = (dict(zip(v.ids.tolist(), v.weights.tolist(), strict=True)) for v in (alone, vector))
        assert max((abs(one.get(i, 0) - other.get(i, 0)) for i in one | other), default=0) <= EXACT
        assert {i for i, w in one.items() if w > 1e-4} == {i for i, w in other.items() if w > 1e-4}
    assert encoder.encode_document([]) == []


def test_vector_is_well_formed(tmp_path: Path, tokenizer: Path, texts: list[str]) -> None:
    encoder = load_encoder(sparse_folder(tmp_path / "model", tokenizer))
    for vector in encoder.encode_document(texts[:30]):
        assert vector.ids.dtype == np.int32
        assert vector.weights.dtype == np.float32
        assert all(a < b for a, b in pairwise(vector.ids.tolist()))
        assert (vector.weights > 0).all()
        assert len(vector.tokens) == len(vector)


ROBERTA = {"type_vocab_size": 1, "pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102}
MODERN = {"pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102, "cls_token_id": 101, "sep_token_id": 102,
          "max_position_embeddings": 512, "decoder_bias": True}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("bert", {}),
        ("distilbert", {}),
        ("roberta", ROBERTA),
        ("xlm-roberta", ROBERTA),
        ("camembert", ROBERTA),
        ("modernbert", MODERN),
        ("electra", {"embedding_size": 96}),
        ("mpnet", {"pad_token_id": 1}),
    ],
)
@pytest.mark.parametrize("activation", ["log1p_relu", "log1p_log1p_relu", "relu"])
def test_equals_plain_logits(
    tmp_path: Path, tokenizer: Path, texts: list[str], kind: str, settings: dict[str, Any], activation: Activation
) -> None:
    """The card's formula: act(max over tokens of logits × mask), on the whole model's logits."""
    size = len(json.loads(tokenizer.read_text())["model"]["vocab"])
    model = random_model(kind, size, 5, **settings)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    write_tokenizer(folder, tokenizer, 96)
    some = [text for text in texts[2::70] if text.strip()]
    encoder = load_encoder(folder, activation=activation)
    assert isinstance(encoder, SpladeEncoder)
    ours = table(encoder.encode_document(some), size)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), pad_token="[PAD]")
    length = encoder.recipe.document_length
    with torch.inference_mode():
        for text, row in zip(some, ours, strict=True):
            x = fast(text, truncation=True, max_length=length, return_tensors="pt", return_token_type_ids=False)
            best = torch.relu((model(**x).logits * x["attention_mask"].unsqueeze(-1)).amax(1)[0])
            if activation != "relu":
                best = torch.log1p(best)
            if activation == "log1p_log1p_relu":
                best = torch.log1p(best)
            assert np.abs(best.numpy() - row).max() <= EXACT


def opensearch_folder(folder: Path, tokenizer: Path, idf: Path, **settings: Any) -> Path:
    """The published form: the document transformer at the root, with idf.json beside it."""
    small(folder, tokenizer, kind="distilbert", **settings)
    shutil.copyfile(idf, folder / "idf.json")
    return folder


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("opensearch-neural-sparse-encoding-doc-v2-distill", "log1p_relu"),
        ("opensearch-neural-sparse-encoding-doc-v3-distill", "log1p_log1p_relu"),
    ],
)
def test_opensearch_card(
    tmp_path: Path, shared: Path, tokenizer: Path, texts: list[str], name: str, activation: Activation
) -> None:
    """The card's own code, on a random folder of its name: max, activation, special tokens set to zero."""
    folder = opensearch_folder(tmp_path / name, tokenizer, shared / "bert-uncased" / "idf.json")
    encoder = load_encoder(folder)
    some = [text for text in texts[2::50] if text.strip()]
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    fast = transformers.AutoTokenizer.from_pretrained(folder)
    special = [fast.vocab[token] for token in ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]")]
    feature = fast(some, padding=True, truncation=True, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        values, _ = torch.max(model(**feature)[0] * feature["attention_mask"].unsqueeze(-1), dim=1)
    values = torch.log(1 + torch.relu(values))
    if activation == "log1p_log1p_relu":
        values = torch.log(1 + values)
    values[:, special] = 0
    assert np.abs(table(encoder.encode_document(some), values.shape[1]) - values.numpy()).max() <= EXACT
    assert encoder.encode_query(["what is the weather in ny now"])[0].as_dict()["ny"] == pytest.approx(5.7729, abs=1e-4)


def router_folder(tmp_path: Path, tokenizer: Path, texts: list[str]) -> Path:
    plain = small(tmp_path / "plain", tokenizer, kind="distilbert", seed=6)
    fast = transformers.AutoTokenizer.from_pretrained(plain)
    weight = torch.rand(len(fast), generator=torch.Generator().manual_seed(0)) * 6 + 0.1
    router = Router.for_query_document(
        query_modules=[SparseStaticEmbedding(tokenizer=fast, weight=weight)],
        document_modules=[Transformer(str(plain), transformer_task="fill-mask"), SpladePooling("max")],
    )
    SparseEncoder(modules=[router], device="cpu").save(str(tmp_path / "router"))
    return tmp_path / "router"


def test_router_as_saved(tmp_path: Path, tokenizer: Path, texts: list[str]) -> None:
    folder = router_folder(tmp_path, tokenizer, texts)
    encoder = load_encoder(folder)
    assert isinstance(encoder, SpladeEncoder)
    some = [text for text in texts[::30] if text.strip()]
    expected = reference(folder, some)
    assert np.abs(table(encoder.encode_document(some), expected.shape[1]) - expected).max() <= EXACT
    queries = texts[-100:] + texts[3:8]
    asked = reference(folder, queries, "query")
    special = [encoder.vocabulary.index[token] for token in ("[UNK]", "[SEP]", "[MASK]")]
    # The one difference: special tokens ask for nothing here.
    asked[:, special] = 0
    assert np.abs(table(encoder.encode_query(queries), asked.shape[1]) - asked).max() <= EXACT
    assert encoder.query_fingerprint.startswith("lookup-")
    assert encoder.lookup is not None
    assert encoder.query_fingerprint == encoder.lookup.fingerprint


@pytest.mark.parametrize("module", ["query_0_SparseStaticEmbedding", "query_0_IDF"])
def test_opensearch_published_router(
    tmp_path: Path, shared: Path, tokenizer: Path, texts: list[str], module: str
) -> None:
    """modules.json names the root as Router and as the document transformer; the query module names idf.json."""
    idf = shared / "bert-uncased" / "idf.json"
    folder = opensearch_folder(tmp_path / "published", tokenizer, idf, seed=7)
    plain = opensearch_folder(tmp_path / "rooted", tokenizer, idf, seed=7)
    family = "sentence_transformers.sparse_encoder.models"
    kind = module.removeprefix("query_0_")
    router = {
        "types": {
            module: f"{family}.{kind}",
            "": f"{family}.MLMTransformer",
            "document_1_SpladePooling": f"{family}.SpladePooling",
        },
        "structure": {"query": [module], "document": ["", "document_1_SpladePooling"]},
        "parameters": {"default_route": "document", "allow_empty_key": True, "route_mappings": {}},
    }
    write = {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}],
        "router_config.json": router,
        "config_sentence_transformers.json": {"prompts": {"query": "", "document": ""}, "similarity_fn_name": "dot"},
        f"{module}/config.json": {"frozen": False, "path": "idf.json"},
        "document_1_SpladePooling/config.json": {
            "pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": 30522,
        },
    }  # fmt: skip
    for path, content in write.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(json.dumps(content))
    found, expected = load_encoder(folder), load_encoder(plain)
    some = [text for text in texts[2::50] if text.strip()]
    assert isinstance(found, SpladeEncoder)
    assert found.recipe.drop_special
    for ours, theirs in zip(found.encode_document(some), expected.encode_document(some), strict=True):
        assert np.array_equal(ours.ids, theirs.ids)
        assert np.array_equal(ours.weights, theirs.weights)
    assert found.query_fingerprint == expected.query_fingerprint
    assert found.fingerprint == expected.fingerprint


def test_lookup_alone_is_the_same_query_encoder(tmp_path: Path, shared: Path, tokenizer: Path) -> None:
    idf = shared / "bert-uncased" / "idf.json"
    encoder = load_encoder(opensearch_folder(tmp_path / "documents", tokenizer, idf))
    folder = tmp_path / "queries"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "idf.json"):
        shutil.copyfile(tmp_path / "documents" / name, folder / name)
    alone = load_encoder(folder)
    assert isinstance(alone, LookupEncoder)
    assert alone.fingerprint == alone.query_fingerprint == encoder.query_fingerprint != encoder.fingerprint
    assert alone.space == encoder.space


def test_query_token_weights(tmp_path: Path, shared: Path, tokenizer: Path) -> None:
    """The text form of the table gives the vectors of the JSON form."""
    idf = json.loads((shared / "bert-uncased" / "idf.json").read_text())
    for name in ("text", "json"):
        (tmp_path / name).mkdir()
        shutil.copyfile(tokenizer, tmp_path / name / "tokenizer.json")
    lines = [f"{token}\t{weight}\n" for token, weight in idf.items()]
    (tmp_path / "text" / "query_token_weights.txt").write_text("".join(lines))
    (tmp_path / "json" / "idf.json").write_text(json.dumps(idf))
    text, whole = load_encoder(tmp_path / "text"), load_encoder(tmp_path / "json")
    assert (
        text.encode_query(["what's the weather"])[0].as_dict()
        == whole.encode_query(["what's the weather"])[0].as_dict()
    )
    assert text.query_fingerprint == whole.query_fingerprint


def test_separate_query_model_shares_the_space(tmp_path: Path, tokenizer: Path) -> None:
    documents = load_encoder(sparse_folder(tmp_path / "efficient-splade-V-large-doc", tokenizer, seed=1))
    queries = load_encoder(sparse_folder(tmp_path / "efficient-splade-V-large-query", tokenizer, seed=2))
    assert documents.space == queries.space
    assert documents.fingerprint != queries.query_fingerprint
    assert documents.encodes_documents
    assert not queries.encodes_documents
    with pytest.raises(UsageError, match="encodes queries only"):
        queries.encode_document(["a text"])


def test_disco_activations(tmp_path: Path, tokenizer: Path) -> None:
    """As trained log(1 + relu) by default, as its card's snippet relu alone where asked for."""
    folder = sparse_folder(tmp_path / "splade-disco-human-mistral", tokenizer)
    trained, snippet = load_encoder(folder), load_encoder(folder, activation="relu")
    assert not trained.encodes_documents
    text = "who discovered penicillin? [SEP] Fleming [SEP] who discovered insulin?"
    (a,), (b,) = trained.encode_query([text]), snippet.encode_query([text])
    assert np.array_equal(a.ids, b.ids)
    assert np.allclose(a.weights, np.log1p(b.weights), atol=1e-6)
    assert trained.fingerprint != snippet.fingerprint


def test_half_precision_code_path(tmp_path: Path, tokenizer: Path, texts: list[str]) -> None:
    """What a GPU runs by default; on a CPU it is refused, except here, where only its numbers matter."""
    folder = small(tmp_path / "model", tokenizer, seed=8)
    some = [text for text in texts[2::50] if text.strip()]
    exact = table(load_encoder(folder).encode_document(some), 30522)
    for precision in ("bf16", "fp16"):
        with pytest.raises(UsageError, match="slower"):
            load_encoder(folder, precision=precision).encode_document(some)
        half = SpladeEncoder(folder, options=RunOptions(precision=precision, slow=True))
        found = table(half.encode_document(some), 30522)
        assert found.dtype == np.float32
        assert np.abs(found - exact).max() < {"bf16": 0.06, "fp16": 0.008}[precision]
        cosine = (found * exact).sum(1) / (np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1))
        assert cosine.min() > {"bf16": 0.99, "fp16": 0.9999}[precision]


def test_vocabulary_rounded_up(tmp_path: Path, tokenizer: Path) -> None:
    """Rows past the tokenizer's vocabulary have no token, and are no part of a vector."""
    folder = sparse_folder(tmp_path / "model", tokenizer, vocab_size=30592, active=4000)
    (vector,) = load_encoder(folder).encode_document(["some words of a text"])
    assert vector.ids.max() < 30522
    assert len(vector.tokens) == len(vector)


def bert(tmp_path: Path, tokenizer: Path) -> Path:
    return small(tmp_path / "model", tokenizer)


def edit_weights(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


class TestBadFolders:
    """Each a clear line."""

    def test_not_a_masked_model(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = bert(tmp_path, tokenizer)
        config = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertModel"]}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelFormatError, match="no masked language model"):
            load_encoder(folder)

    def test_wrong_vocabulary(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = sparse_folder(tmp_path / "model", tokenizer, vocab_size=40_000)
        with pytest.raises(ModelFormatError, match=r"30522 tokens, the model 40000"):
            load_encoder(folder).encode_document(["a"])

    def test_misshapen(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = bert(tmp_path, tokenizer)
        config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 30_000}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelFormatError, match=r"misshapen|cannot be read"):
            load_encoder(folder).encode_document(["a"])

    def test_missing_weights(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = bert(tmp_path, tokenizer)
        edit_weights(folder, lambda weights: weights.pop("bert.encoder.layer.1.output.dense.weight"))
        with pytest.raises(ModelFormatError, match=r"lacks weights .*layer\.1\.output\.dense"):
            load_encoder(folder).encode_document(["a"])

    def test_no_weights(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = bert(tmp_path, tokenizer)
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelFormatError, match="has no weights"):
            load_encoder(folder)

    def test_nan(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = bert(tmp_path, tokenizer)
        edit_weights(folder, lambda weights: weights["bert.encoder.layer.0.output.dense.weight"].fill_(float("nan")))
        with pytest.raises(ModelFormatError, match="not finite"):
            load_encoder(folder).encode_document(["a"])

    def test_damaged(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = bert(tmp_path, tokenizer)
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ModelFormatError, match="cannot be read as a masked language model"):
            load_encoder(folder).encode_document(["a"])

    def test_pickle_only(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = bert(tmp_path, tokenizer)
        expected = load_encoder(folder).encode_document(["a text of words"])[0]
        model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelFormatError, match="--allow-pickle"):
            load_encoder(folder).encode_document(["a"])
        found = load_encoder(folder, allow_pickle=True).encode_document(["a text of words"])[0]
        assert np.array_equal(found.weights, expected.weights)

    def test_pickle_of_the_card(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = sparse_folder(tmp_path / "Splade_PP_en_v2", tokenizer)
        model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        encoder = load_encoder(folder)
        assert isinstance(encoder, SpladeEncoder)
        assert (encoder.recipe.document_length, encoder.recipe.query_length) == (128, 24)
        assert len(encoder.encode_document(["a text"])[0])

    def test_malicious_pickle(self, tmp_path: Path, tokenizer: Path) -> None:
        class Attack:
            def __reduce__(self) -> Any:
                return (os.system, (f"touch {tmp_path / 'attacked'}",))

        folder = bert(tmp_path, tokenizer)
        torch.save({"a": Attack()}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelFormatError, match="cannot be read"):
            load_encoder(folder, allow_pickle=True).encode_document(["a"])
        assert not (tmp_path / "attacked").exists()

    def test_remote_code(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = bert(tmp_path, tokenizer)
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "new", "auto_map": {"AutoModelForMaskedLM": "modeling.NewForMaskedLM"}}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelFormatError, match="--trust-remote-code"):
            load_encoder(folder).encode_document(["a"])

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
    def test_gpu_absent(self, tmp_path: Path, tokenizer: Path) -> None:
        with pytest.raises(UsageError, match="no GPU"):
            load_encoder(bert(tmp_path, tokenizer), device="cuda").encode_document(["a"])

    @pytest.mark.parametrize(("option", "value"), [("device", "tpu"), ("device", "meta"), ("precision", "int3")])
    def test_unknown_words(self, tmp_path: Path, tokenizer: Path, option: str, value: str) -> None:
        with pytest.raises(UsageError, match=f"{option} {value!r} is not known"):
            load_encoder(bert(tmp_path, tokenizer), **{option: value}).encode_document(["a"])  # type: ignore[arg-type]

    def test_unknown_pooling(self, tmp_path: Path, tokenizer: Path) -> None:
        folder = saved(bert(tmp_path, tokenizer), tmp_path / "saved")
        (folder / "1_SpladePooling" / "config.json").write_text('{"pooling_strategy": "median"}')
        with pytest.raises(ModelFormatError, match="median pooling"):
            load_encoder(folder)


def test_non_commercial_is_said_once(tmp_path: Path, tokenizer: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = sparse_folder(tmp_path / "splade-v3", tokenizer)
    load_encoder(folder)
    load_encoder(folder)
    said = [record.getMessage() for record in caplog.records if record.name == "bridge"]
    assert len(said) == 1
    assert "not for commercial use" in said[0]
