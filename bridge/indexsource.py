"""Documents of an index that is there, as a source: ``index:NAME``, ``index:NAME@URL``, ``index:NAME#I/N``.

An index is read shard by shard, each at a point in time and in the order of its writes. Within a shard that order is
total, so a page's last sequence number is all that the next page needs, and an index that nobody writes to comes in
the same order every time. A slice ``#I/N`` takes the documents whose sequence number says so: those of one index at
rest are disjoint, and together they are all.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from bridge.engines import Engine, IndexState, open_engine
from bridge.engines.shards import Shard, shards_of, volume_of
from bridge.errors import (
    BridgeError,
    EngineForbidden,
    IndexNotFound,
    IndexReadOnly,
    SourceError,
    UnsupportedByEngine,
    UsageError,
)
from bridge.indexmodel import IndexModel
from bridge.patience import Answer, Patience, retryable
from bridge.records import HASH_FIELD, Stored
from bridge.settings import EngineSettings
from bridge.sources.index import StoredDocument
from bridge.sources.streams import Cursor

Hit = dict[str, Any]

KEEP_ALIVE = "30m"
"""How long a point in time outlives its last request: encoding a page may take that long."""

PATIENCE = 300.0
"""Seconds for which an engine that is away is asked again."""

PAGE_BYTES = 4_000_000
_FIRST_PAGE, _LARGEST_PAGE, _IDS_PAGE = 32, 2_000, 5_000

_SPEC = re.compile(
    r"index:(?P<name>[^#]+?)(?:@(?P<url>https?://.+?))?(?:#(?P<part>[^#/]*)/(?P<parts>[^#/]*))?", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """``index:NAME@URL#I/N``, taken apart; `part` counts from 1."""

    name: str
    url: str | None = None
    part: tuple[int, int] = (1, 1)

    @classmethod
    def parse(cls, text: str) -> IndexSpec:
        """Raises SourceError for what is no such specification."""
        match = _SPEC.fullmatch(text)
        part = (1, 1)
        if match and match["part"] is not None:
            numbers = match["part"], match["parts"]
            part = (int(numbers[0]), int(numbers[1])) if all(map(str.isdecimal, numbers)) else (0, 0)
        if match is None or not 1 <= part[0] <= part[1] <= 1024:
            raise SourceError(
                f"{text}: is no index; one is named as index:NAME, in another cluster index:NAME@https://host:9200, "
                "and a slice of it index:NAME#1/4 to index:NAME#4/4"
            )
        return cls(match["name"], match["url"], part)


def pages(
    engine: Engine,
    index: str,
    shard: int,
    source: Any,
    *,
    after: int = -1,
    part: tuple[int, int] = (1, 1),
    lost: Callable[[], None] = lambda: None,
) -> Generator[list[Hit], None, None]:
    """The documents of one shard as it is now, in the order of their writes; each page is one that is not empty.

    Args:
        engine: where the index is.
        index: its name.
        shard: the shard's number.
        source: what to bring of each document, in the words of a search's ``_source``; False for ids alone.
        after: only documents of a higher sequence number.
        part: only those of this slice, I of N.
        lost: called when the point in time is gone (the node was started again, or nobody asked for too long). What
            it raises ends the reading; else it goes on with the shard as it is then.

    A hit has ``_id``, ``_seq_no``, ``_primary_term``, ``_version``, ``_source`` and, where there is one, ``_routing``.

    Raises:
        EngineError: the engine could not be asked, longer than `PATIENCE`.
    """
    body: dict[str, Any] = {
        "_source": source,
        "sort": [{"_seq_no": "asc"}],
        "seq_no_primary_term": True,
        "version": True,
        "track_total_hits": False,
    }
    if part[1] > 1:
        # Not of the ids: Elasticsearch refuses that on a point in time. Not the default: that goes by places in
        # segments, which merges change.
        body["slice"] = {"field": "_seq_no", "id": part[0] - 1, "max": part[1]}
    size = _IDS_PAGE if source is False else _FIRST_PAGE
    point: str | None = None
    try:
        while True:
            if point is None:
                point = patiently(lambda: engine.open_point(index, shard, KEEP_ALIVE))
            asked = body | {"size": size, "pit": {"id": point, "keep_alive": KEEP_ALIVE}, "search_after": [after]}
            try:
                hits = patiently(lambda: _hits(engine, asked))  # noqa: B023 - called at once
            except IndexNotFound:
                point = None
                lost()
                continue
            if not hits:
                return
            after = hits[-1]["_seq_no"]
            yield hits
            if source is not False:
                size = _next_size(hits, size)
    finally:
        if point is not None:
            with contextlib.suppress(BridgeError):
                engine.close_point(point)


def _hits(engine: Engine, body: Mapping[str, Any]) -> list[Hit]:
    params = {"allow_partial_search_results": "false"}
    answer = engine.request("POST", "/_search", params=params, body=msgspec.json.encode(body))
    found: list[Hit] = answer["hits"]["hits"]
    return found


def _next_size(hits: list[Hit], size: int) -> int:
    """As many documents as make `PAGE_BYTES`, judged by some of this page."""
    some = hits[:: max(1, len(hits) // 16)]
    mean = sum(len(msgspec.json.encode(hit)) for hit in some) / len(some)
    return max(1, min(int(PAGE_BYTES / mean), 2 * size, _LARGEST_PAGE))


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask, and ask again while the engine is away for a moment, as a node is that is started again."""
    return Patience(PATIENCE, passes=_passes)(ask)


def _passes(error: BaseException) -> bool:
    """Whether asking again may help; an administrator's block is not waited for."""
    return retryable(error) and not isinstance(error, IndexReadOnly)


def show_writes(engine: Engine, index: str) -> None:
    """Let searches see what was written until now, where this user may ask for that, and the index is not closed."""
    with contextlib.suppress(EngineForbidden, IndexReadOnly):
        patiently(lambda: engine.refresh(index))


def source_filter(engine: Engine, left_out: tuple[str, ...]) -> dict[str, Any]:
    """The whole of a document but these fields, in the words of a search's ``_source``."""
    chosen: dict[str, Any] = {"excludes": list(left_out)}
    if engine.info().capabilities.hidden_vectors:
        chosen["exclude_vectors"] = False
    return chosen


def own_fields(model: IndexModel | None) -> tuple[str, ...]:
    """The fields in which the bridge keeps vectors; the content hash is another."""
    if model is None:
        return ()
    return (model.passage_field or model.field, *([model.dense_field] if model.dense_field else []))


def check_readable(engine: Engine, state: IndexState) -> None:
    """Raises UnsupportedByEngine where documents cannot be read back, or an index not at one moment."""
    if not engine.info().capabilities.points_in_time:
        raise UnsupportedByEngine(
            f"{engine.info()} cannot read an index at a point in time; OpenSearch 2.4 and Elasticsearch 7.10 can"
        )
    kept = state.mappings.get("_source") or {}
    if kept.get("enabled") is False:
        raise UnsupportedByEngine(
            f"index {state.name} keeps no _source (its mapping says so): its documents cannot be read back"
        )


def check_whole(state: IndexState, model: IndexModel | None) -> None:
    """Raises UnsupportedByEngine where writing a document as it is read would lose what is indexed of it."""
    kept = state.mappings.get("_source") or {}
    own = {*own_fields(model), HASH_FIELD}
    left_out = [name for name in kept.get("excludes") or () if name.partition(".")[0] not in own]
    if left_out or kept.get("includes"):
        what = f"leaves {', '.join(left_out)} out of" if left_out else f"keeps only {', '.join(kept['includes'])} in"
        raise UnsupportedByEngine(
            f"index {state.name} {what} _source: documents that are written again would lose the rest; "
            "ingest them from where they come from"
        )


class IndexReader:
    """One index as a source (`bridge.sources.index` says what that takes).

    Args:
        engine: where the index is.
        spec: its name, and which slice of it.
        closes: the connection is this reader's own, and closed with it.

    Raises:
        IndexNotFound: there is no such index.
        UnsupportedByEngine: it cannot be read.
    """

    def __init__(self, engine: Engine, spec: IndexSpec, *, closes: bool = False) -> None:
        self.engine = engine
        self.spec = spec
        self._closes = closes
        state = engine.require_index(spec.name)
        check_readable(engine, state)
        self.uuid = state.uuid
        self._own = own_fields(IndexModel.of(state))
        self._volume = volume_of(engine, state.name)
        self.index = state.name
        """The index itself, where `spec` names an alias."""

    @property
    def name(self) -> str:
        """As the user gave it, but of a URL only the host."""
        host = re.sub(r"^https?://(?:[^/@]*@)?|/.*$", "", self.spec.url or "", flags=re.DOTALL)
        part, parts = self.spec.part
        return f"index:{self.spec.name}" + (f"@{host}" if host else "") + (f"#{part}/{parts}" if parts > 1 else "")

    @property
    def size(self) -> int:
        """Bytes of the index, replicas apart, for the progress."""
        return self._volume.bytes

    def bytes_of(self, documents: int) -> int:
        """About how many bytes of the index so many documents are."""
        part = self.size * documents * self.spec.part[1]
        return min(self.size, part // max(1, self._volume.documents))

    def fingerprint(self) -> bytes:
        """A digest that changes when anything is written to the index."""
        state = self.engine.require_index(self.spec.name)
        written = [(shard.number, shard.written) for shard in patiently(lambda: shards_of(self.engine, state.name))]
        return hashlib.sha256(repr((state.uuid, written, self.spec.part)).encode()).digest()

    def read(self, cursor: Cursor) -> Iterator[StoredDocument]:
        """The index's documents; those that `cursor` is to skip are counted, and not brought."""
        show_writes(self.engine, self.index)
        number = 0
        for shard in patiently(lambda: shards_of(self.engine, self.index)):
            after = -1
            with contextlib.closing(self._pages(shard, False, after)) as skipped:
                for hits in skipped if cursor.skip else ():
                    taken = hits[: cursor.skip]
                    cursor.skip -= len(taken)
                    number += len(taken)
                    after = taken[-1]["_seq_no"]
                    if not cursor.skip:
                        break
            if cursor.skip:
                continue
            with contextlib.closing(self._pages(shard, source_filter(self.engine, self._own), after)) as found:
                for hits in found:
                    for hit in hits:
                        number += 1
                        yield stored_document(hit, number)
                    cursor.at(self.bytes_of(number))

    def _pages(self, shard: Shard, source: Any, after: int) -> Generator[list[Hit], None, None]:
        return pages(
            self.engine, self.index, shard.number, source,
            after=after, part=self.spec.part, lost=lambda: self._check_unchanged(shard),
        )  # fmt: skip

    def _check_unchanged(self, shard: Shard) -> None:
        """Raises SourceError where the shard is not as it was: what came before would not fit what comes after."""
        now = patiently(lambda: self.engine.get_index(self.index))
        same = now is not None and now.uuid == self.uuid
        if not same or shard not in patiently(lambda: shards_of(self.engine, self.index)):
            raise SourceError(
                f"{self.name}: it was written to while it was read, and the engine no longer knows it as it was; the "
                "same command with --fresh starts over: documents that are in already are recognised"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens a connection of its own."""
        return _reopened, (self.engine.settings, self.spec)

    def close(self) -> None:
        """Give the connection back, where it is this reader's own."""
        if self._closes:
            self.engine.close()


def _reopened(settings: EngineSettings, spec: IndexSpec) -> IndexReader:
    return IndexReader(open_engine(settings=settings), spec, closes=True)


def stored_document(hit: Hit, number: int, *, in_place: bool = False) -> StoredDocument:
    """A hit of `pages` as a document of a source, without the content hash; `in_place`: to be written back."""
    fields = dict(hit.get("_source") or {})
    digest = fields.pop(HASH_FIELD, None)
    stored = Stored(hit["_seq_no"], hit["_primary_term"], digest if isinstance(digest, str) else None)
    return StoredDocument(number, hit["_id"], fields, hit.get("_routing"), stored if in_place else None)


def opener(engine: Callable[[str | None], tuple[Engine, bool]]) -> Callable[[str], IndexReader]:
    """What opens ``index:…`` sources.

    Args:
        engine: for a URL, or None for the command's own cluster, gives the connection, and whether it is to be closed
            with the reader.
    """

    def opened(text: str) -> IndexReader:
        spec = IndexSpec.parse(text)
        if "*" in spec.name or "," in spec.name:
            raise UsageError(f"{text}: names several indices; read one at a time")
        connection, closes = engine(spec.url)
        try:
            return IndexReader(connection, spec, closes=closes)
        except BaseException:
            if closes:
                connection.close()
            raise

    return opened
