"""Every error that the bridge raises on purpose, as one tree.

::

    BridgeError                       exit 1
    ├── UsageError                    exit 2   what was asked contradicts itself
    ├── SettingsError                 exit 2   the settings file or environment cannot be used
    ├── SourceError                   exit 1   a source cannot be opened or read at all
    ├── TooManyDead                   exit 1   so many documents cannot go in that the run was stopped
    ├── DocumentError                 exit 3   one document cannot go in (becomes a dead letter)
    ├── CheckpointError               exit 1   a checkpoint does not belong to this run
    ├── EvaluationError               exit 1   judgements, queries or runs that cannot be compared
    ├── MissingExtra                  exit 1   an optional dependency is not installed
    ├── ModelError                    exit 1
    │   ├── ModelNotFound             exit 1
    │   ├── ModelFormatError          exit 1   a folder is not (or not wholly) a model
    │   └── ModelMismatch             exit 5   model and index do not belong together
    ├── NodeError                     exit 4   the embedded node
    │   ├── JavaMissing               exit 4
    │   ├── DiskFull                  exit 4
    │   ├── PortTaken                 exit 4
    │   ├── DownloadFailed            exit 4   retryable
    │   ├── ArtifactCorrupt           exit 4
    │   └── NodeNotReady              exit 4
    └── EngineError                   exit 1
        ├── EngineUnreachable         exit 4   retryable
        │   ├── EngineTimeout         exit 4   retryable
        │   ├── EngineTlsError        exit 4
        │   └── NotAnEngine           exit 4   something else answers at the URL
        ├── EngineForbidden           exit 4   401 and 403
        ├── EngineBusy                exit 1   retryable: 429, 502, 503, 504
        ├── RequestTooLarge           exit 1   413: the sender splits and sends again
        ├── IndexReadOnly             exit 1   retryable: a block, most often a full disk
        ├── RequestRejected           exit 1   any other 4xx
        ├── IndexNotFound             exit 1
        ├── IndexConflict             exit 1   what is there differs from what was asked for
        └── UnsupportedByEngine       exit 1   product or version cannot do it

A leaf is ``retryable`` (the same call may succeed later, unchanged) or terminal.
``str(error)`` is one line that says what happened, where, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class BridgeError(Exception):
    """Root of the tree; catch this to catch every error that the bridge raises on purpose."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False


class UsageError(BridgeError):
    """What was asked contradicts itself or names something that does not exist."""

    exit_code = 2


class SettingsError(BridgeError):
    """The settings file or an environment variable cannot be used."""

    exit_code = 2


class SourceError(BridgeError):
    """A source cannot be opened or read at all (one bad document is a `DocumentError`)."""


class TooManyDead(BridgeError):
    """So many of a source's documents cannot go in that going on would help nobody; what went in is in."""


class DocumentError(BridgeError):
    """One document cannot go in; ingest turns this into a dead letter."""

    exit_code = 3


class CheckpointError(BridgeError):
    """A checkpoint does not belong to this source, model or index, or cannot be read."""


class EvaluationError(BridgeError):
    """Judgements, queries or runs that cannot be read or compared."""


class MissingExtra(BridgeError):
    """An optional dependency is not installed.

    >>> str(MissingExtra("evaluation", "eval"))
    'evaluation needs the extra "eval": pip install "neural-sparse-bridge[eval]"'
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs the extra "{extra}": pip install "neural-sparse-bridge[{extra}]"')
        self.what, self.extra = what, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """From another process it comes with the arguments that it was made with."""
        return MissingExtra, (self.what, self.extra)


class ModelError(BridgeError):
    """A model cannot be found, read or used."""


class ModelNotFound(ModelError):
    """No folder, cache entry or `.bridge-models` entry of that name."""


class ModelFormatError(ModelError):
    """A folder is not (or not wholly) a model."""


class ModelMismatch(ModelError):
    """The model and the index (or two models) do not belong together."""

    exit_code = 5


class NodeError(BridgeError):
    """The embedded node cannot be put together, started or reached."""

    exit_code = 4


class JavaMissing(NodeError):
    """No Java runtime of the version that the node needs."""


class DiskFull(NodeError):
    """Not enough room for the node's files or data."""


class PortTaken(NodeError):
    """The asked-for port is in use by something else."""


class DownloadFailed(NodeError):
    """An artifact could not be fetched; trying again may succeed."""

    retryable = True


class ArtifactCorrupt(NodeError):
    """An artifact's sha256 is not the pinned one."""


class NodeNotReady(NodeError):
    """The node's process ended or did not answer in time."""


class EngineError(BridgeError):
    """Anything that goes wrong between the bridge and an engine."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class EngineUnreachable(EngineError):
    """No connection, or it broke."""

    exit_code = 4
    retryable = True


class EngineTimeout(EngineUnreachable):
    """The engine did not answer in time; the request may or may not have taken effect."""


class EngineTlsError(EngineUnreachable):
    """The TLS handshake failed; the same call fails again until the settings change."""

    retryable = False


class NotAnEngine(EngineUnreachable):
    """What answers at the URL is neither OpenSearch nor Elasticsearch."""

    retryable = False


class EngineForbidden(EngineError):
    """401 or 403: the credentials are missing, wrong, or lack a permission."""

    exit_code = 4


class EngineBusy(EngineError):
    """429, 502, 503 or 504: the engine asks to wait."""

    retryable = True


class RequestTooLarge(EngineError):
    """413: the body is larger than the engine takes."""


class IndexReadOnly(EngineError):
    """The index is blocked for writing, most often by a full disk on a data node."""

    retryable = True


class RequestRejected(EngineError):
    """The engine understood the request and refused it."""


class IndexNotFound(EngineError):
    """The named index, alias or pipeline does not exist."""


class IndexConflict(EngineError):
    """What is there differs from what was asked for; nothing was changed."""


class UnsupportedByEngine(EngineError):
    """This product or version cannot do what was asked."""
