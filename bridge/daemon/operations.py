"""The table of what the daemon can be asked."""

from __future__ import annotations

from bridge.daemon.endpoint import Operation, Parameter
from bridge.daemon.handlers import Handlers
from bridge.daemon.messages import (
    About,
    DeadLetters,
    Encode,
    Encoded,
    Evaluate,
    Found,
    Health,
    Indexes,
    IndexOut,
    Inference,
    Inferred,
    Ingest,
    JobOut,
    Jobs,
    Predict,
    Register,
    Registered,
    Rewrite,
    Rewritten,
    Search,
)

_INDEX = Parameter("index", "path", "An index, or an alias of one.")
_JOB = Parameter("job", "path", "A job's id.")
_DRY = Parameter("dry_run", "query", "Change nothing.", {"type": "boolean", "default": False})
_SIZE = Parameter("size", "query", "How many.", {"type": "integer", "minimum": 0, "maximum": 1000, "default": 100})
_FROM = Parameter(
    "from", "query", "How many to pass over.", {"type": "integer", "minimum": 0, "maximum": 10**9, "default": 0}
)
_STATE = Parameter(
    "state", "query", "Only such jobs.",
    {"type": "string", "enum": ["queued", "running", "done", "failed", "cancelled"]},
)  # fmt: skip

_THROTTLED = (("x-amzn-errortype", "ThrottlingException"),)
"""The one sign by which ml-commons knows that it should ask again, as its `client_config` says; 429 alone is none."""


def operations(handlers: Handlers) -> list[Operation]:
    """All of them, those first that are asked most: routes are tried in order."""
    h = handlers
    return [
        Operation("POST", "/v1/rewrite", "rewrite", "read", h.rewrite,
                  "A question as a search body.", Rewrite, gives=Rewritten, at_once=h.rewrite_at_once),
        Operation("POST", "/v1/search", "search", "read", h.search,
                  "Ask an index; each hit says which tokens made its score.", Search, gives=Found),
        Operation("POST", "/v1/encode", "encode", "read", h.encode,
                  "Texts as sparse vectors; documents need the scope write.", Encode, gives=Encoded),
        Operation("GET", "/v1/indexes", "list_indexes", "read", h.indexes,
                  "The indexes that the bridge has made.", gives=Indexes),
        Operation("GET", "/v1/indexes/{index}", "show_index", "read", h.index,
                  "One of them.", gives=IndexOut, parameters=(_INDEX,)),
        Operation("PUT", "/v1/indexes/{index}", "register_index", "admin", h.register,
                  "Make an index for a model's vectors, or bring it up to what is wanted.", Register,
                  gives=Registered, parameters=(_INDEX, _DRY)),
        Operation("POST", "/v1/indexes/{index}/predict", "predict", "read", h.predict,
                  "Texts encoded for an index, as OpenSearch's ml plugin asks; documents need the scope write.",
                  Predict, gives=list[dict[str, float]], parameters=(_INDEX,), on_busy=_THROTTLED),
        Operation("POST", "/v1/indexes/{index}/inference", "inference", "read", h.inference,
                  "The same, as Elasticsearch's inference endpoints ask.", Inference, gives=Inferred,
                  parameters=(_INDEX,)),
        Operation("POST", "/v1/ingest", "ingest", "write", h.ingest,
                  "Begin to bring documents into an index. With NDJSON the body is the documents, and the query says "
                  "the rest.", Ingest, lines=True, gives=JobOut, status=202),
        Operation("POST", "/v1/evaluate", "evaluate", "read", h.evaluate,
                  "Begin to measure an index with judged queries.", Evaluate, gives=JobOut, status=202),
        Operation("GET", "/v1/jobs", "list_jobs", "read", h.jobs,
                  "The jobs, the newest first.", gives=Jobs, parameters=(_STATE, _SIZE)),
        Operation("GET", "/v1/jobs/{job}", "show_job", "read", h.job,
                  "How far a job is, or how it ended.", gives=JobOut, parameters=(_JOB,)),
        Operation("GET", "/v1/jobs/{job}/dead-letters", "show_dead_letters", "read", h.dead_letters,
                  "What of a job could not go in, and why.", gives=DeadLetters, parameters=(_JOB, _FROM, _SIZE)),
        Operation("POST", "/v1/jobs/{job}/cancel", "cancel_job", "write", h.cancel,
                  "End a job as soon as it can; it can be resumed.", gives=JobOut, status=202, parameters=(_JOB,)),
        Operation("POST", "/v1/jobs/{job}/resume", "resume_job", "write", h.resume,
                  "Go on with a job that failed or was cancelled, where it stopped.", gives=JobOut, status=202,
                  parameters=(_JOB,)),
        Operation("GET", "/v1", "about", "read", h.about, "What answers here.", gives=About),
        Operation("GET", "/health/live", "live", None, h.live, "Whether the daemon lives.", gives=Health),
        Operation("GET", "/health/ready", "ready", None, h.ready,
                  "Whether the engine can be asked: 503 where it cannot.", gives=Health),
        Operation("GET", "/metrics", "metrics", "read", h.metrics, "Numbers for Prometheus."),
    ]  # fmt: skip
