"""What each operation does: message ─▶ the library's own functions ─▶ answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, TypeVar

import msgspec

from bridge.baseline import baseline, baseline_body
from bridge.daemon.attached import document_weights, query_weights
from bridge.daemon.batching import SharedEncoder
from bridge.daemon.endpoint import NDJSON, Call, Reply
from bridge.daemon.gate import Refused
from bridge.daemon.jobs import Jobs, new_id
from bridge.daemon.jobstore import ENDED, Job, JobStore
from bridge.daemon.messages import (
    About,
    Asking,
    DeadLetters,
    EmbeddingOut,
    Encode,
    Encoded,
    Evaluate,
    Health,
    Indexes,
    IndexOut,
    Inference,
    Inferred,
    Ingest,
    JobOut,
    Predict,
    Registered,
    Rewrite,
    Rewritten,
    Search,
    TokenOut,
)
from bridge.daemon.messages import Jobs as JobList
from bridge.daemon.metrics import Metrics
from bridge.daemon.registering import register_index
from bridge.daemon.service import Service, Way
from bridge.daemon.work import Worker, as_lines
from bridge.encode import Encoder
from bridge.errors import BridgeError, IndexNotFound, UsageError
from bridge.explain import explained
from bridge.records import SparseVector, Turn
from bridge.rewrite import Text
from bridge.search import search

_Value = TypeVar("_Value")

DISTRIBUTION = "neural-sparse-bridge"

SHORT = 2_000
"""Characters of a question that is encoded at once: the loop waits for less than a millisecond."""


class Handlers:
    """The operations of one daemon."""

    def __init__(
        self,
        service: Service,
        jobs: Jobs,
        worker: Worker,
        metrics: Metrics,
        threads: ThreadPoolExecutor,
        cores: ThreadPoolExecutor,
    ) -> None:
        self._service, self._jobs, self._worker = service, jobs, worker
        self._metrics = metrics
        self._threads, self._cores = threads, cores
        self._limits = service.settings.limits

    @property
    def _store(self) -> JobStore:
        return self._jobs.store

    async def _thread(self, work: Callable[..., _Value], *arguments: Any) -> _Value:
        """What waits for the engine, or for a model, does so on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _core(self, work: Callable[..., _Value], *arguments: Any) -> _Value:
        """What computes does so on one thread for each core: more of them would only hold more at once."""
        return await asyncio.get_running_loop().run_in_executor(self._cores, work, *arguments)

    # Asking

    async def rewrite(self, call: Call) -> Rewritten:
        asked: Rewrite = call.body
        text, way = self._text(asked), self._known(asked)
        if way is None:
            if asked.index:
                way = await self._thread(self._service.way, asked, asked.index)
            else:
                way = await self._thread(self._service.offline, asked, asked.model or "")
        if _is_quick(way, text):
            return _rewritten(way, text, asked)
        return await (self._core if way.light else self._thread)(_rewritten, way, text, asked)

    def rewrite_at_once(self, call: Call) -> Rewritten | bytes | None:
        """The same, where it takes less time than the way to another thread."""
        asked: Rewrite = call.body
        text, way = self._text(asked), self._known(asked)
        if way is None or not _is_quick(way, text):
            return None
        if way.written and _is_plain(asked):
            answer = way.written.answer(way.rewriter.question(text), asked.size)
            if answer is not None:
                return answer
        return _rewritten(way, text, asked)

    def _known(self, asked: Rewrite) -> Way | None:
        """How it is asked, if that is at hand."""
        if asked.index:
            return self._service.known_way(asked, asked.index)
        if asked.model:
            return self._service.known_offline(asked, asked.model)
        raise UsageError("name an index, or one of the daemon's models")

    async def search(self, call: Call) -> dict[str, Any]:
        asked: Search = call.body
        text = self._text(asked)

        def find() -> dict[str, Any]:
            service = self._service
            way = service.known_way(asked, asked.index) or service.way(asked, asked.index)
            if asked.ranked_by == "bm25":
                how = _words_page(asked)
                found, why = baseline(service.engine, asked.index, way.rewriter, text, explain=asked.explain, **how)
            else:
                found = search(
                    service.engine, asked.index, way.rewriter, text, explained_by=asked.explained_by,
                    rewritten=asked.rewritten, **_page(asked),
                )  # fmt: skip
                why = [explained(hit, way.rewriter) for hit in found.hits] if asked.explain else []
            hits = [hit.as_dict() for hit in found.hits]
            if asked.explain:
                hits = [shown | {"explanation": one.as_dict()} for shown, one in zip(hits, why, strict=True)]
            query = found.query
            return {
                "took": found.took, "hits": hits, "dropped": query.dropped, "pruned": query.pruned,
                "body": found.body,
            }  # fmt: skip

        return await self._thread(find)

    def _text(self, asked: Asking) -> Text:
        """The question, or the conversation."""
        if asked.text is not None and asked.rewritten is None and not asked.turns:
            if len(asked.text) > self._limits.text_characters:
                self._check_texts([asked.text])
            return asked.text
        if (asked.text is None) == (not asked.turns):
            raise UsageError("ask with text, or with turns: one of the two")
        said = [asked.text, asked.rewritten, *(part for turn in asked.turns for part in (turn.question, turn.answer))]
        self._check_texts([part for part in said if part is not None])
        if asked.text is not None:
            return asked.text
        return [Turn(turn.question, turn.answer) for turn in asked.turns]

    def _check_texts(self, texts: list[str]) -> None:
        longest = max(map(len, texts), default=0)
        if longest > self._limits.text_characters:
            raise Refused(413, f"a text has {longest:,} characters; {self._limits.text_characters:,} are taken")

    # Encoding

    async def encode(self, call: Call) -> Encoded:
        asked: Encode = call.body
        self._check_encoding(call, asked)
        if bool(asked.index) == bool(asked.model):
            raise UsageError("name an index, whose model encodes, or one of the daemon's models: one of the two")
        find: Callable[[str], Encoder] = self._service.index_model if asked.index else self._service.model
        encoder = await self._thread(find, asked.index or asked.model or "")
        query = asked.side == "query"
        work = encoder.encode_query if query else encoder.encode_document
        if isinstance(encoder, SharedEncoder):
            waited = (encoder.queries if query else encoder.documents).submit(asked.texts)
            vectors = await asyncio.gather(*map(asyncio.wrap_future, waited))
        elif query and sum(map(len, asked.texts)) <= SHORT:
            vectors = work(asked.texts)
        else:
            vectors = await self._core(work, asked.texts)
        name = encoder.query_fingerprint if query else encoder.fingerprint
        return Encoded(model=name, vectors=[_shown(vector, asked.form) for vector in vectors])

    async def predict(self, call: Call) -> list[dict[str, float]]:
        asked: Predict = call.body
        self._check_encoding(call, asked)
        return await self._weights(call, asked, ids=asked.sparse_embedding_format == "TOKEN_ID")

    async def inference(self, call: Call) -> Inferred:
        asked: Inference = call.body
        self._check_encoding(call, asked)
        found = await self._weights(call, asked, ids=False)
        return Inferred(
            embeddings=[
                EmbeddingOut(tokens=[TokenOut(token=token, weight=weight) for token, weight in one.items()])
                for one in found
            ]
        )

    async def _weights(self, call: Call, asked: Predict | Inference, *, ids: bool) -> list[dict[str, float]]:
        make = document_weights if asked.side == "document" else query_weights
        return await self._thread(lambda: make(self._service, call.path["index"], asked.texts, ids=ids))

    def _check_encoding(self, call: Call, asked: Encode | Predict | Inference) -> None:
        if asked.side == "document" and not call.key.allows("write"):
            raise Refused(403, f"the key {call.key.name} has the scope {call.key.scope}; documents need write")
        if len(asked.texts) > self._limits.texts:
            raise Refused(413, f"{len(asked.texts):,} texts in one request; {self._limits.texts:,} are taken")
        self._check_texts(asked.texts)

    # Indexes

    async def indexes(self, call: Call) -> Indexes:
        del call
        found = await self._thread(self._service.indexes)
        return Indexes(indexes=[IndexOut(name=name, documents=count, model=meta) for name, meta, count in found])

    async def index(self, call: Call) -> IndexOut:
        name = call.path["index"]

        def find() -> IndexOut:
            engine = self._service.engine
            state = engine.require_index(name)
            if not state.meta:
                raise IndexNotFound(f"index {name} was not made by the bridge (no _meta.bridge)", status=404)
            return IndexOut(name=state.name, documents=engine.count(name), model=state.meta)

        return await self._thread(find)

    async def register(self, call: Call) -> Registered:
        service, dry_run = self._service, _yes(call, "dry_run")

        def make() -> Registered:
            return register_index(service, call.path["index"], call.body, service.model_place, dry_run=dry_run)

        return await self._thread(make)

    # Jobs

    async def ingest(self, call: Call) -> Reply:
        if call.kind == NDJSON or isinstance(call.body, bytes):
            lines: bytes | None = call.body
            asked = _from_query(call)
        else:
            asked = call.body
            lines = as_lines(asked.documents) if asked.documents else None
        if (lines is None) == (asked.source is None):
            raise UsageError("an ingest has documents, or a source: one of the two")

        def begin() -> Job:
            if asked.source:
                self._worker.allowed(asked.source)
            if asked.model:
                self._service.model_place(asked.model)
            name = new_id()
            if lines is not None:
                self._worker.keep_documents(name, lines)
            kept = msgspec.json.encode(msgspec.structs.replace(asked, documents=[]))
            return self._jobs.add("ingest", asked.index, call.key.id, kept, name)

        return _accepted(await self._thread(begin))

    async def evaluate(self, call: Call) -> Reply:
        asked: Evaluate = call.body

        def begin() -> Job:
            self._worker.allowed(asked.folder)
            return self._jobs.add("evaluate", asked.index, call.key.id, msgspec.json.encode(asked))

        return _accepted(await self._thread(begin))

    async def jobs(self, call: Call) -> JobList:
        state: Any = call.query.get("state")
        count = _number(call, "size", 100, 1000)
        found = await self._thread(self._store.newest, count, state)
        return JobList(jobs=list(map(_job, found)))

    async def job(self, call: Call) -> JobOut:
        return _job(await self._thread(self._find, call.path["job"]))

    async def dead_letters(self, call: Call) -> DeadLetters:
        job = await self._thread(self._find, call.path["job"])
        start, count = _number(call, "from", 0, 10**9), _number(call, "size", 100, 1000)
        letters, total = await self._thread(self._worker.letters, job.id, start, count)
        return DeadLetters(letters=letters, total=total)

    async def cancel(self, call: Call) -> Reply:
        job = await self._thread(self._find, call.path["job"])
        self._check_owner(call, job)
        if not await self._thread(self._jobs.cancel, job.id):
            raise Refused(409, f"job {job.id} has ended: it is {job.state}")
        return Reply(_job(await self._thread(self._find, job.id)), 202)

    async def resume(self, call: Call) -> Reply:
        job = await self._thread(self._find, call.path["job"])
        self._check_owner(call, job)
        if job.state not in ENDED or job.state == "done":
            raise Refused(409, f"job {job.id} is {job.state}; only one that failed or was cancelled is resumed")
        await self._thread(self._jobs.resume, job.id)
        return Reply(_job(await self._thread(self._find, job.id)), 202)

    def _find(self, name: str) -> Job:
        job = self._store.find(name)
        if job is None:
            raise Refused(404, f"there is no job {name!r}")
        return job

    def _check_owner(self, call: Call, job: Job) -> None:
        if call.key.id != job.owner and not call.key.allows("admin"):
            raise Refused(403, f"job {job.id} is another key's; ending or resuming it needs admin")

    # Health

    async def live(self, call: Call) -> Health:
        del call
        return Health(status="ok")

    async def ready(self, call: Call) -> Reply:
        del call
        try:
            reason = await asyncio.wait_for(self._thread(self._service.ready), 5)
        except (BridgeError, TimeoutError):
            # Whoever asks may be anyone: hosts and users are not told.
            reason = "the engine is not reached"
        status = 503 if reason else 200
        return Reply(Health(status="not ready" if reason else "ok", reason=reason), status)

    async def metrics(self, call: Call) -> Reply:
        del call
        return Reply(await self._thread(self._metrics.text), kind=self._metrics.kind)

    async def about(self, call: Call) -> About:
        del call
        found = await self._thread(self._service.indexes)
        info = await self._thread(lambda: self._service.engine.info())
        return About(
            name=DISTRIBUTION, version=version(DISTRIBUTION), engine=str(info),
            models=list(self._service.settings.models), indexes=[name for name, _, _ in found],
        )  # fmt: skip


def _page(asked: Asking) -> dict[str, Any]:
    return {
        "size": asked.size, "start": asked.start, "min_score": asked.min_score, "filter": asked.filter,
        "passages": asked.passages, "collapse": asked.collapse,
    }  # fmt: skip


_OF_VECTORS = (
    "hybrid", "fields", "dialect", "prune", "two_phase", "seismic", "analyzer", "model_id", "inference_id", "pipeline",
    "passages", "collapse",
)  # fmt: skip
"""What says something of vectors, or of what is beside them."""


def _words_page(asked: Asking) -> dict[str, Any]:
    """What is asked of the words alone.

    Raises:
        UsageError: something that only vectors have.
    """
    for name in (*_OF_VECTORS, "explained_by"):
        if getattr(asked, name, None):
            raise UsageError(f"{name} is of vectors, and bm25 ranks by words alone: leave it out, or ranked_by")
    page = {name: value for name, value in _page(asked).items() if name not in _OF_VECTORS}
    return page | {"rewritten": asked.rewritten}


def _is_quick(way: Way, text: Text) -> bool:
    return way.light and isinstance(text, str) and len(text) <= SHORT


def _is_plain(asked: Rewrite) -> bool:
    """Whether nothing is said of the page but how many hits are wanted."""
    return not (
        asked.start or asked.filter or asked.passages or asked.collapse or asked.min_score is not None
        or asked.rewritten is not None or asked.ranked_by != "vectors"
    )  # fmt: skip


def _rewritten(way: Way, text: Text, asked: Rewrite) -> Rewritten:
    rewriter = way.rewriter
    if asked.ranked_by == "bm25":
        return Rewritten(body=baseline_body(rewriter, text, **_words_page(asked)), dropped=0, pruned=0)
    encoded = rewriter.beside(rewriter.encode(text, rewritten=asked.rewritten), asked.filter)
    return Rewritten(body=rewriter.body(encoded, **_page(asked)), dropped=encoded.dropped, pruned=encoded.pruned)


def _shown(vector: SparseVector, form: str) -> dict[str, float]:
    keys = list(map(str, vector.ids.tolist())) if form == "ids" else list(vector.tokens)
    return dict(zip(keys, vector.weights.tolist(), strict=True))


def _accepted(job: Job) -> Reply:
    return Reply(_job(job), 202, headers=(("location", f"/v1/jobs/{job.id}"),))


def _job(job: Job) -> JobOut:
    return JobOut(
        id=job.id, kind=job.kind, index=job.index, state=job.state, created=job.created, started=job.started,
        ended=job.ended, attempts=job.attempts, progress=job.progress, result=job.result, error=job.error,
        said=job.said,
    )  # fmt: skip


def _from_query(call: Call) -> Ingest:
    """What a request whose body is the documents says in its query."""
    listed = {name: value.split(",") if name == "text_fields" else value for name, value in call.query.items()}
    try:
        return msgspec.convert(listed, Ingest, strict=False)
    except msgspec.ValidationError as error:
        raise Refused(422, f"the query is not what an ingest takes: {error}") from None


def _yes(call: Call, name: str) -> bool:
    value = call.query.get(name, "false")
    if value not in ("true", "false"):
        raise Refused(422, f"{name} is true or false, not {value!r}")
    return value == "true"


def _number(call: Call, name: str, default: int, most: int) -> int:
    value = call.query.get(name, str(default))
    if not (value.isascii() and value.isdigit() and int(value) <= most):
        raise Refused(422, f"{name} is a whole number up to {most:,}, not {value!r}")
    return int(value)
