"""Queries whose encoder runs in the cluster: the text goes there, and no vector. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.dialects.features import Query
from bridge.dialects.opensearch import SEISMIC
from bridge.dialects.seismic import Seismic
from bridge.errors import UnsupportedByEngine, UsageError
from bridge.records import Product
from bridge.tokens import Kind, by_ids


@dataclass(frozen=True, slots=True)
class Inside:
    """What encodes queries in the cluster itself; one of the three.

    Attributes:
        analyzer: of OpenSearch 3.1 and newer: a tokenizer with a table of weights, like ``bert-uncased``.
        model_id: a model that OpenSearch's ml plugin has deployed, or a connector to one.
        inference_id: an inference endpoint of Elasticsearch, of task type ``sparse_embedding``.

    Raises:
        UsageError: none of them is named, or more than one.
    """

    analyzer: str | None = None
    model_id: str | None = None
    inference_id: str | None = None

    def __post_init__(self) -> None:
        if sum(map(bool, (self.analyzer, self.model_id, self.inference_id))) != 1:
            raise UsageError("what encodes in the cluster is an analyzer, a model_id or an inference_id: name one")

    def __str__(self) -> str:
        (found,) = ((name, value) for name, value in self._named.items() if value)
        return f"{found[0]} {found[1]}"

    @property
    def _named(self) -> Mapping[str, str | None]:
        return {"analyzer": self.analyzer, "model_id": self.model_id, "inference_id": self.inference_id}

    def check(self, product: Product, version: tuple[int, ...], kind: Kind) -> None:
        """Raises UnsupportedByEngine unless this product and version can encode so, for a field of that kind."""
        own = "inference_id" if product == "elasticsearch" else "analyzer or model_id"
        if bool(self.inference_id) != (product == "elasticsearch"):
            raise UnsupportedByEngine(f"{product} knows no {str(self).split()[0]}: it encodes by {own}")
        if self.inference_id and (version < (8, 15) or kind != "sparse_vector"):
            raise UnsupportedByEngine(
                "inference_id is for sparse_vector fields of Elasticsearch 8.15 and newer; encode here instead"
            )
        if self.analyzer and version < (3, 1):
            raise UnsupportedByEngine("neural_sparse takes an analyzer from OpenSearch 3.1 on; encode here instead")
        if self.model_id and version < (2, 11):
            raise UnsupportedByEngine("neural_sparse is there from OpenSearch 2.11 on; encode here instead")

    def query(
        self,
        product: Product,
        version: tuple[int, ...],
        kind: Kind,
        field: str,
        text: str,
        size: int,
        seismic: Seismic = SEISMIC,
    ) -> Query:
        """`text`, asked of `field`; `size` is the number of hits wanted, `seismic` how far such a field is looked into.

        Raises:
            UnsupportedByEngine: see `check`.
        """
        self.check(product, version, kind)
        if self.inference_id:
            # As of raw vectors: since 8.19 and 9.1 tokens are dropped unless it is said that none should be.
            asked = {"field": field, "inference_id": self.inference_id, "query": text, "prune": False}
            return {"sparse_vector": asked}
        named = {name: value for name, value in self._named.items() if value}
        how: Query = {"query_text": text, **named}
        if by_ids(kind, product):
            how["method_parameters"] = seismic.parameters(size)
        return {"neural_sparse": {field: how}}


def inside_of(analyzer: str | None, model_id: str | None, inference_id: str | None) -> Inside | None:
    """What of these is named; None where nothing is.

    Raises:
        UsageError: more than one.
    """
    return Inside(analyzer, model_id, inference_id) if analyzer or model_id or inference_id else None
