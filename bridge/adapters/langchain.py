"""An index as a LangChain retriever.

>>> retriever = BridgeRetriever.for_index(open_engine("https://…"), "articles", k=5)     # doctest: +SKIP
>>> retriever.invoke("does vitamin D help", filter={"term": {"lang": "en"}})              # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge.adapters.found import Found, found
from bridge.engines import Engine
from bridge.errors import MissingExtra
from bridge.records import Turn
from bridge.rewrite import QueryRewriter, Text

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import InstanceOf
except ImportError:
    raise MissingExtra("the LangChain retriever", "langchain") from None


class BridgeRetriever(BaseRetriever):
    """The best documents of an index, or the best passages of its documents.

    A document's text is its `page_content`; `metadata` holds its other fields, ``_id``, ``_score``, and of a passage
    ``_start`` and ``_end``. What `invoke` gets by name (`k`, `filter`, `passages`, `turns`) counts for that call alone.

    Attributes:
        engine: where the index is.
        index: its name, or an alias.
        rewriter: see `bridge.rewrite.QueryRewriter`.
        k: hits wanted.
        filter: a query clause of the engine that hits must match.
        passages: how many passages of each hit are documents of their own, instead of the whole; for indices that
            hold them.
    """

    engine: InstanceOf[Engine]
    index: str
    rewriter: InstanceOf[QueryRewriter]
    k: int = 10
    filter: dict[str, Any] | None = None
    passages: int = 0

    @classmethod
    def for_index(
        cls,
        engine: Engine,
        index: str,
        *,
        k: int = 10,
        filter: dict[str, Any] | None = None,  # noqa: A002
        passages: int = 0,
        **options: Any,
    ) -> BridgeRetriever:
        """A retriever of an index; `options` are those of `QueryRewriter.for_index`, like ``hybrid="bm25,dense"``.

        Raises:
            UsageError, EngineError, ModelMismatch: see there.
        """
        rewriter = QueryRewriter.for_index(engine, index, **options)
        return cls(engine=engine, index=index, rewriter=rewriter, k=k, filter=filter, passages=passages)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: dict[str, Any] | None = None,  # noqa: A002
        passages: int | None = None,
        turns: Sequence[tuple[str, str | None]] = (),
    ) -> list[Document]:
        del run_manager
        text: Text = [*(Turn(*turn) for turn in turns), Turn(query)] if turns else query
        hits = found(
            self.engine, self.index, self.rewriter, text,
            size=self.k if k is None else k,
            filter=self.filter if filter is None else filter,
            passages=self.passages if passages is None else passages,
        )  # fmt: skip
        return list(map(_document, hits))


def _document(hit: Found) -> Document:
    return Document(id=hit.id, page_content=hit.text, metadata=hit.metadata | {"_score": hit.score})
