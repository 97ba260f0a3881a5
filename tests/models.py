"""Random model folders, made in a second, whose texts have some 50 to 300 active entries like a trained model's."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra encode is not installed: no torch")
transformers = pytest.importorskip("transformers", reason="the extra encode is not installed: no transformers")

SMALL = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192}
SPECIAL = ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]")
SAMPLE = (
    "In 1854 the physician John Snow traced an outbreak of cholera in London to a single water pump; he had drawn a "
    "map of the cases, and the pattern of the deaths around it convinced the parish to take the handle off the pump."
)


def texts_of(corpora: Path, count: int = 500) -> list[str]:
    """Real texts of mixed length and language (English, Yoruba, code, questions), some of them empty or strange."""
    each = count // 5
    found = ["", "  \n", "Ünïcödé ａｂｃ", "你好，世界 😀 🦙", "ܫܠܡܐ ꙮ", "x", "the the the", "[SEP] [MASK] in a text"]
    for name in ("scifact", "miracl_yo", "cosqa", "mtrag_human"):
        with gzip.open(corpora / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
            found += [json.loads(line)["text"] for line in islice(lines, each)]
    with (corpora / "scifact" / "queries.jsonl").open(encoding="utf-8") as lines:
        found += [json.loads(line)["text"] for line in islice(lines, count)]
    return found[:count]


def write_tokenizer(folder: Path, tokenizer: Path, length: int = 512) -> None:
    """The files of a BERT tokenizer beside a model, as transformers writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    names = dict(zip(("unk_token", "sep_token", "pad_token", "cls_token", "mask_token"), SPECIAL, strict=True))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(names))


def random_model(kind: str, size: int, seed: int = 0, **settings: Any) -> Any:
    """A random masked language model: ``bert``, ``distilbert``, ``roberta``, ``xlm-roberta``, ``modernbert``, …"""
    torch.manual_seed(seed)
    chosen = {**SMALL, "vocab_size": size, "max_position_embeddings": 512, "initializer_range": 0.06, **settings}
    if kind == "distilbert":
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        chosen = {names.get(name, name): value for name, value in chosen.items()}
        chosen["hidden_dim"] = chosen.pop("intermediate_size")
    config = transformers.AutoConfig.for_model(kind, **chosen)
    return transformers.AutoModelForMaskedLM.from_config(config).eval()


def thin_out(model: Any, ids: Any, active: int) -> None:
    """Shift the decoder's bias until `active` entries of a text of token `ids` int64[1, L] are above zero."""
    with torch.inference_mode():
        best = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].amax(0)
    with torch.no_grad():
        model.get_output_embeddings().bias -= torch.sort(best, descending=True).values[active]


def sparse_folder(
    folder: Path,
    tokenizer: Path,
    *,
    kind: str = "bert",
    seed: int = 0,
    length: int = 512,
    active: int = 120,
    **settings: Any,
) -> Path:
    """A folder of a random masked LM as `save_pretrained` writes it, with a tokenizer of that vocabulary."""
    from tokenizers import Tokenizer

    pieces = Tokenizer.from_file(str(tokenizer))
    pieces.no_padding()
    model = random_model(kind, settings.pop("vocab_size", pieces.get_vocab_size()), seed, **settings)
    thin_out(model, torch.tensor([pieces.encode(SAMPLE).ids]), active)
    folder.mkdir(parents=True, exist_ok=True)
    transformers.logging.disable_progress_bar()
    model.save_pretrained(folder)
    write_tokenizer(folder, tokenizer, length)
    return folder


def table(vectors: Sequence[Any], size: int) -> Any:
    """Sparse vectors as float32[n, size]."""
    found = np.zeros((len(vectors), size), dtype=np.float32)
    for row, vector in zip(found, vectors, strict=True):
        row[vector.ids] = vector.weights
    return found


def word_bert(folder: Path, words: Sequence[str]) -> Path:
    """A tiny random dense encoder whose vocabulary is letters and these words; read as a mean of states."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [*"abcdefghijklmnopqrstuvwxyz.,:;!'", *("##" + letter for letter in "abcdefghijklmnopqrstuvwxyz")]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *words]
    tokenizer = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(names[:5])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), names, strict=False))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128, **special})
    )
    torch.manual_seed(5)
    config = transformers.BertConfig(vocab_size=len(names), initializer_range=0.2, **SMALL)
    transformers.logging.disable_progress_bar()
    transformers.BertModel(config).save_pretrained(folder)
    return folder
