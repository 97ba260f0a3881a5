"""Model cards: what each published family is, as data.

A card knows what a folder's files do not say: special tokens, lengths, licence, which query encoders
share a vector space. Where a file and a card disagree on pooling or activation, the file wins.
Facts are from the models' own cards and reference code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pooling = Literal["max", "sum"]
Activation = Literal["log1p_relu", "log1p_log1p_relu", "relu"]
QuerySide = Literal["same", "lookup", "separate", "conversation"]
Task = Literal["sparse", "dense"]
DensePooling = Literal["cls", "mean"]

NON_COMMERCIAL = "CC-BY-NC-SA-4.0"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One published model.

    Attributes:
        id: the Hugging Face id.
        family: which code its authors encode with.
        licence: SPDX identifier.
        pooling, activation: of the document side; `log1p_relu` is log(1 + max(0, x)).
        drop_special: vocabulary entries of special tokens are set to zero (OpenSearch's encoders do).
        document_length, query_length: tokens, special ones included, that its authors encode with.
        query: ``same`` model, inference-free ``lookup``, a ``separate`` query model (named by `query_model`), or a
            ``conversation`` encoder over the documents of `document_model`.
        allow_pickle: its repository may hold nothing but pytorch_model.bin.
        remote_code: needs code from its repository, which runs only with trust_remote_code.
        parameters: in millions.
    """

    id: str
    family: str
    licence: str
    task: Task = "sparse"
    pooling: Pooling = "max"
    activation: Activation = "log1p_relu"
    drop_special: bool = False
    document_length: int = 512
    query_length: int = 512
    query: QuerySide = "same"
    query_model: str | None = None
    document_model: str | None = None
    allow_pickle: bool = False
    remote_code: bool = False
    parameters: int = 0
    dimension: int | None = None
    dense_pooling: DensePooling = "cls"

    @property
    def non_commercial(self) -> bool:
        return self.licence == NON_COMMERCIAL

    @property
    def query_only(self) -> bool:
        """Whether another model encodes the documents that this one asks for."""
        return self.query == "conversation" or (self.query == "separate" and self.query_model is None)


def _opensearch(name: str, parameters: int, **facts: object) -> ModelCard:
    return ModelCard(
        f"opensearch-project/opensearch-neural-sparse-encoding-{name}",
        "opensearch",
        "Apache-2.0",
        drop_special=True,
        parameters=parameters,
        **facts,  # type: ignore[arg-type]
    )


def _naver(name: str, **facts: object) -> ModelCard:
    defaults: dict[str, object] = {"document_length": 256, "query_length": 256, "parameters": 110}
    return ModelCard(f"naver/{name}", "naver", NON_COMMERCIAL, **(defaults | facts))  # type: ignore[arg-type]


def _disco(name: str) -> ModelCard:
    return ModelCard(
        f"slupart/{name}",
        "disco",
        NON_COMMERCIAL,
        document_length=256,
        query_length=512,
        query="conversation",
        document_model="naver/splade-cocondenser-ensembledistil",
        parameters=110,
    )


CARDS: tuple[ModelCard, ...] = (
    _opensearch("v1", 133),
    _opensearch("v2-distill", 67),
    _opensearch("doc-v1", 133, query="lookup"),
    _opensearch("doc-v2-distill", 67, query="lookup"),
    _opensearch("doc-v2-mini", 23, query="lookup"),
    _opensearch("multilingual-v1", 160, query="lookup"),
    _opensearch("doc-v3-distill", 67, query="lookup", activation="log1p_log1p_relu"),
    _opensearch(
        "doc-v3-gte",
        133,
        query="lookup",
        activation="log1p_log1p_relu",
        remote_code=True,
        document_length=8192,
        query_length=8192,
    ),
    ModelCard(
        "prithivida/Splade_PP_en_v1", "splade-pp", "Apache-2.0", document_length=128, query_length=24, parameters=110
    ),
    ModelCard(
        "prithivida/Splade_PP_en_v2",
        "splade-pp",
        "Apache-2.0",
        document_length=128,
        query_length=24,
        allow_pickle=True,
        parameters=110,
    ),
    _naver("splade-cocondenser-ensembledistil"),
    _naver("splade-cocondenser-selfdistil"),
    _naver("splade-v3"),
    _naver("splade-v3-distilbert", parameters=67),
    _naver("splade-v3-doc", query="lookup"),
    _naver("splade_v2_distil", parameters=67),
    _naver("splade_v2_max", parameters=67),
    _naver("efficient-splade-V-large-doc", query="separate", query_model="naver/efficient-splade-V-large-query"),
    _naver("efficient-splade-V-large-query", query="separate"),
    _naver(
        "efficient-splade-VI-BT-large-doc", query="separate", query_model="naver/efficient-splade-VI-BT-large-query"
    ),
    _naver("efficient-splade-VI-BT-large-query", query="separate"),
    _disco("splade-disco-human-mistral"),
    ModelCard(
        "intfloat/simlm-base-msmarco-finetuned",
        "simlm",
        "MIT",
        task="dense",
        document_length=144,
        query_length=32,
        parameters=110,
        dimension=768,
    ),
    ModelCard(
        "sentence-transformers/all-MiniLM-L6-v2",
        "sentence-transformers",
        "Apache-2.0",
        task="dense",
        document_length=256,
        query_length=256,
        parameters=23,
        dimension=384,
        dense_pooling="mean",
    ),
)

_BY_ID = {card.id: card for card in CARDS}
_BY_NAME = {card.id.rpartition("/")[2]: card for card in CARDS}


def find_card(name: str) -> ModelCard | None:
    """The card of a Hugging Face id, or of a folder that is named like the model."""
    return _BY_ID.get(name) or _BY_NAME.get(name.rstrip("/").rpartition("/")[2])
