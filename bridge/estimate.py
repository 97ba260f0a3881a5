"""How long a load would take, and how much disk, from a sample; nothing of it is kept.

The sample goes the whole way of a load, into an index of its own on the same engine, with the settings and the
mapping that the real one has or would get. That index is deleted afterwards, whatever ends the estimate.

The size is that of primary shards after their segments are merged into one, and of their replicas. An index grows by
so much for each document, and by a vocabulary that grows more slowly: with the square root of the text (Heaps,
"Information Retrieval: Computational and Theoretical Aspects", 1978, finds exponents about that). So the size at two
numbers of documents gives both parts.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from bridge import templates
from bridge.batches import BATCH, Batches
from bridge.bulk import BulkSender
from bridge.collector import collecting_seldom
from bridge.encode import Encoder
from bridge.engines import Engine
from bridge.errors import DocumentError, EngineError, UsageError
from bridge.fit import fit
from bridge.indexmodel import Hashes, content_hashes
from bridge.loadplan import IngestOptions, LoadPlan, plan_load
from bridge.loadsettings import AUTO_REPLICAS, REFRESH, REPLICAS
from bridge.meter import Meter
from bridge.records import BulkOutcome, Doc, Progress, Report
from bridge.sampling import Sample, sample_of
from bridge.sources import Item, Source, text_of

SAMPLE = 2000
ENCODE_SECONDS = 30.0
"""A slow encoder gets no further in the sample than it comes in this time."""

MEASURE_SECONDS = 10.0
"""How long the rate is measured, after that; an engine is slow at first."""

_MERGE_SECONDS = 600.0

_FIRST = 4
"""The size is taken after one part of so many of the sample, and after all of it."""

MARK = "bridge_estimate"
"""What `_meta` of the temporary index has, so that whoever finds one knows what it is."""

_KEPT_SETTINGS = (
    "index.analysis.",
    "index.auto_expand_replicas",
    "index.codec",
    "index.default_pipeline",
    "index.final_pipeline",
    "index.knn",
    "index.mapping.",
    "index.number_of_",
    "index.similarity.",
    "index.sort.",
    "index.sparse",
)
"""Of an index that is there: what decides how fast documents go in, and how large they become."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a load would come to."""

    documents: int
    counted: bool
    """They were counted; else their number is guessed by their bytes."""
    sample: int
    """Documents that the rest is taken from."""
    dead: int
    """Of the sample, those that could not go in."""
    unchanged: int
    """Of the sample, those that are in the index already; they take next to no time."""
    seconds: float
    fit_seconds: float
    """Of `seconds`, what it takes to fit a model on the whole source; zero where a model is there."""
    documents_per_second: float
    """In the rest of `seconds`."""
    encode_share: float
    """Of that rest, the share that reading and encoding takes, 0 to 1."""
    engine_share: float
    """Of that rest, the share that is spent waiting for the engine, 0 to 1."""
    bytes_per_document: float
    """In primary shards, their segments merged."""
    primary_bytes: int
    replicas: int
    disk_bytes: int
    """Of primary shards and replicas."""
    model: str

    @property
    def limit(self) -> str:
        """What the load would wait for."""
        return "encoding" if self.encode_share >= self.engine_share else "the engine"


def estimate(
    engine: Engine,
    index: str,
    source: Source,
    options: IngestOptions | None = None,
    *,
    size: int = SAMPLE,
    say: Callable[[str], None] = lambda line: None,
    report: Report = lambda progress: None,
) -> Estimate:
    """What loading `source` into `index` would come to; neither the index nor anything of the bridge's is touched.

    Args:
        engine: where the index is, or would be made.
        index: its name, or an alias of it.
        source: read once, or in pieces where it is long.
        options: those of the load.
        size: documents of the sample, at most.
        say: gets lines for the user.
        report: gets the progress.

    Raises:
        UsageError: no document of the sample would go in.
        ModelMismatch, IndexConflict, EngineError, SourceError: as the load would raise them.
    """
    options = options or IngestOptions()
    sample = sample_of(source, size, report=report)
    if not sample.items:
        raise UsageError(f"{source.name} holds no document: there is nothing to estimate")
    kept = [item for item in sample.items if not (isinstance(item, Doc) and item.op != "index")]
    listed = _Until(source, kept, math.inf)
    fitting = 0.0
    with tempfile.TemporaryDirectory(prefix="bridge-estimate-") as folder:

        def fitted(fields: tuple[str, ...]) -> Encoder:
            nonlocal fitting
            started = time.monotonic()
            encoder = _fitted(kept, fields, options, Path(folder) / "model")
            fitting = (time.monotonic() - started) * sample.count / len(kept)
            return encoder

        plan = plan_load(engine, index, listed, options, fitted, say)
        with _temporary_index(engine, index, plan, options, say) as name:
            fresh = plan.state is None or engine.count(index) == 0
            trial = _Trial(engine, index, name, plan, options, report, fresh)
            return trial.run(source, sample, kept, fitting)


@dataclass(slots=True)
class _Trial:
    """The sample's way into the temporary index."""

    engine: Engine
    index: str
    name: str
    plan: LoadPlan
    options: IngestOptions
    report: Report
    fresh: bool
    first_dead: BulkOutcome | None = None

    def run(self, source: Source, sample: Sample, items: Sequence[Item], fitting: float) -> Estimate:
        results = Counter[str]()
        sizes: list[tuple[int, int]] = []
        first = -(-len(items) // _FIRST)
        for part in (items[:first], items[first:]):
            seconds = ENCODE_SECONDS * len(part) / max(len(items), 1)
            results += self._load(_Until(source, part, seconds)).results
            if part:
                sizes.append((results["indexed"], self._bytes()))
        used = results.total()
        if not results["indexed"] + results["unchanged"]:
            first_dead = self.first_dead
            why = f"; the first: {first_dead.position}: {first_dead.reason}" if first_dead else ""
            raise UsageError(f"no document of a sample of {used:,} would go into {self.index}{why}")
        measured = self._load(_Until(source, _again(items), MEASURE_SECONDS))
        rate = measured.results.total() / measured.seconds
        new = sample.count * results["indexed"] / used
        size = _extrapolated(sizes, new)
        replicas = self._replicas()
        return Estimate(
            documents=sample.count,
            counted=sample.counted,
            sample=used,
            dead=results["dead"],
            unchanged=results["unchanged"],
            seconds=round(fitting + sample.count * (1 - results["unchanged"] / used) / rate, 3),
            fit_seconds=round(fitting, 1),
            documents_per_second=round(rate, 1),
            encode_share=round(min(measured.encode_seconds / measured.seconds, 1.0), 3),
            engine_share=round(min(measured.engine_seconds / measured.seconds, 1.0), 3),
            bytes_per_document=round(size / new, 1) if new else 0.0,
            primary_bytes=round(size),
            replicas=replicas,
            disk_bytes=round(size * (1 + replicas)),
            model=self.plan.encoder.fingerprint,
        )

    def _load(self, items: Source) -> _Measured:
        """Bring items into the temporary index as a load does."""
        engine, options, plan = self.engine, self.options, self.plan

        # Of an index that is not there nothing is asked: it is empty.
        there: Hashes = content_hashes(engine, plan.state) if plan.state else lambda ids: {}
        meter = Meter()
        asked = meter.asking(there)
        run = Batches(items, plan.encoder, plan.model, engine.product, asked, BATCH, plan.dense, options.vectors)
        sender = BulkSender(
            meter.sending(lambda body: engine.bulk(self.name, body)),
            run.body,
            content_hashes(engine, engine.require_index(self.name)),
            replace(options.bulk, operation="create" if self.fresh else "index"),
        )
        results = Counter[str]()
        started = time.monotonic()
        with (
            collecting_seldom(),
            contextlib.closing(sender.run(meter.reading(run.documents(0, fresh=self.fresh)))) as outcomes,
        ):
            for outcome in outcomes:
                run.effects.popleft()
                results[outcome.result] += 1
                if outcome.result == "dead":
                    self.first_dead = self.first_dead or outcome
                if results.total() % BATCH == 0:
                    self.report(Progress("try", results.total(), 0, None))
        seconds = time.monotonic() - started
        effort = meter.effort(waited=sender.waited, retried=sender.retried, queued=0)
        return _Measured(results, seconds, effort.encode_seconds, effort.engine_seconds)

    def _bytes(self) -> int:
        """Of the primary shards, merged; the statistics of a store are stale after a merge, segments are not."""
        engine, path = self.engine, f"/{self.name}"
        engine.refresh(self.name)
        engine.request("POST", f"{path}/_forcemerge", params={"max_num_segments": "1"}, timeout=_MERGE_SECONDS)
        engine.refresh(self.name)
        shards = engine.request("GET", f"{path}/_segments")["indices"][self.name]["shards"]
        return sum(
            int(segment["size_in_bytes"])
            for copies in shards.values()
            for copy in copies
            if copy["routing"]["primary"]
            for segment in copy["segments"].values()
            if segment["search"]
        )

    def _replicas(self) -> int:
        """Of the index that is loaded; a fast load brings them back."""
        state = self.plan.state
        if state is None:
            state = self.engine.require_index(self.name)
            wanted = self.options.register.replicas
            if self.options.fast_load and wanted is not None:
                return wanted
        return int(state.settings.get(REPLICAS, "0"))


@dataclass(frozen=True, slots=True)
class _Measured:
    """What became of the items, and the time that it took."""

    results: Counter[str]
    seconds: float
    encode_seconds: float
    engine_seconds: float


class _Until(Source):
    """Items as a source, until its time is over; never fewer than a batch."""

    def __init__(self, source: Source, items: Iterable[Item], seconds: float) -> None:
        super().__init__(source.files, source.options)
        self._items, self._seconds = items, seconds

    def read(self, skip: int = 0) -> Iterator[Item]:
        started = time.monotonic()
        for count, item in enumerate(self._items):
            if count >= BATCH and time.monotonic() - started > self._seconds:
                return
            if count >= skip:
                yield item


def _again(items: Sequence[Item]) -> Iterator[Item]:
    """The documents among `items`, again and again, each time under other ids."""
    for number in itertools.count(1):
        for item in items:
            if isinstance(item, Doc):
                yield msgspec.structs.replace(item, id=f"{number}-{item.id}")


def _fitted(items: Sequence[Item], fields: tuple[str, ...], options: IngestOptions, folder: Path) -> Encoder:
    """A model of the sample, for a load that would fit one on the whole source."""

    def texts() -> Iterator[str]:
        for item in items:
            if isinstance(item, Doc):
                with contextlib.suppress(DocumentError):
                    yield text_of(item.source, fields)

    return fit(texts(), folder, options.fit)


def _extrapolated(sizes: Sequence[tuple[int, int]], documents: float) -> float:
    """Bytes of so many documents, where `sizes` are numbers of documents with their bytes: a·n + b·√n."""
    count, size = sizes[-1]
    if not count or not documents:
        return 0.0
    each, words = size / count, 0.0
    less, smaller = sizes[0]
    if 0 < less < count:
        slope = (size / count - smaller / less) / (1 / math.sqrt(count) - 1 / math.sqrt(less))
        if 0 < slope < size / math.sqrt(count):
            each, words = size / count - slope / math.sqrt(count), slope
    return each * documents + words * math.sqrt(documents)


@contextlib.contextmanager
def _temporary_index(
    engine: Engine, index: str, plan: LoadPlan, options: IngestOptions, say: Callable[[str], None]
) -> Iterator[str]:
    """An index like the one that is loaded, empty, deleted at the end."""
    base = plan.state.name if plan.state else index
    name = f"{base}-estimate-{uuid.uuid4().hex[:8]}"
    body = _index_body(plan)
    body["mappings"]["_meta"] = {MARK: base}
    body["settings"] |= {REFRESH: "-1"} | ({AUTO_REPLICAS: "false", REPLICAS: "0"} if options.fast_load else {})
    try:
        engine.create_index(name, body)
        yield name
    finally:
        try:
            if engine.get_index(name):
                engine.delete_index(name)
        except EngineError as error:
            say(f"the index {name} of the estimate could not be deleted ({error}); delete it")


def _index_body(plan: LoadPlan) -> dict[str, Any]:
    """Mapping and settings of the index as the load would find it, the settings flat."""
    planned, state = plan.planned, plan.state
    if state is None:
        created = planned.create or {}
        settings = {f"index.{name}": value for name, value in created["settings"]["index"].items()}
        # Its pipeline is for searches, and is not there yet.
        settings.pop("index.search.default_pipeline", None)
        return {"settings": settings, "mappings": dict(created["mappings"])}
    there = {name: value for name, value in state.settings.items() if name.startswith(_KEPT_SETTINGS)}
    mappings = templates.merge(state.mappings, planned.mapping or {})
    return {"settings": there | (planned.settings or {}), "mappings": dict(mappings)}
