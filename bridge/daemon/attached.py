"""What a cluster gets that calls the daemon's encoders itself, in the forms that it reads (`bridge.attaching`)."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.daemon.messages import Search
from bridge.daemon.service import Service
from bridge.dialects.opensearch import bounded
from bridge.errors import DocumentError, UsageError
from bridge.prepare import prepare
from bridge.tokens import field_value, query_ids, query_keys, query_tokens, seismic_value

Weights = dict[str, float]


def document_weights(service: Service, index: str, texts: Sequence[str], *, ids: bool = False) -> list[Weights]:
    """What `bridge ingest` stores of each text, in order. Waits for the engine.

    Args:
        ids: by token ids, whatever the index's field takes.

    Raises:
        UsageError: the index has no document model, or keeps its passages apart.
        DocumentError: a text that cannot be encoded; its place is named.
    """
    model = service.model_of(index)
    if model is None or not model.document_encoder or model.passage_field:
        raise UsageError(f"index {index} is none whose documents a cluster's own processor can encode")
    encoder, product = service.stored(model.document_encoder), service.engine.info().product
    found: list[Weights] = []
    for place, made in enumerate(prepare(encoder, texts, model.preparation)):
        if isinstance(made, DocumentError) or made.vector is None:
            raise DocumentError(f"text {place + 1}: {made if isinstance(made, DocumentError) else 'no vector'}")
        vector = made.vector
        found.append(seismic_value(vector) if ids else field_value(vector, model.kind, product))
    return found


def query_weights(service: Service, index: str, texts: Sequence[str], *, ids: bool = False) -> list[Weights]:
    """What `bridge search` asks for, of each text, in order. Waits for the engine.

    Raises:
        BridgeError: see `bridge.rewrite.QueryRewriter.for_index`.
    """
    asked = Search(index=index)
    rewriter = (service.known_way(asked, index) or service.way(asked, index)).rewriter
    opensearch = service.engine.info().product == "opensearch"
    found: list[Weights] = []
    for query in rewriter.encode_many(texts):
        vector = query.sparse
        if vector is None:
            raise UsageError(f"index {index} is asked by a model in the cluster")
        tokens = query_ids(vector) if ids else query_tokens(vector) if opensearch else query_keys(vector)
        # Nothing of an answer can undo the scaling; it changes no order of hits.
        found.append(bounded(tokens)[0] if opensearch else tokens)
    return found
