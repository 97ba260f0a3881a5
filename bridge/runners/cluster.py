"""A file's batches over Ray Data. The only import of ray.

::

    one row ─▶ reader, on this machine ─▶ batches ─▶ actors ─▶ lines, in order ─▶ this process

Ray Data holds the reader back while results wait, so that memory does not grow with the source. It starts an actor
again that died, and does its batches again; a batch over which actors die again and again ends the run.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

with warnings.catch_warnings():
    # Its own defaults use what it calls deprecated.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"ray\.")
    import ray
    import ray.data

from bridge.encode import Encoder
from bridge.errors import BridgeError, UsageError
from bridge.runners.processes import usable_cores
from bridge.runners.work import Batch, Encoded, ModelSpec, Reading, Work, encode_batch, load
from bridge.sources import Source
from bridge.sources.streams import Spool

MAX_ATTEMPTS = 3
"""How often a batch is begun whose actors die over it."""

_BATCHES_AN_ACTOR = 2
"""One that it encodes, one that waits for it."""

_STORE_BYTES, _STORE_BYTES_A_WORKER = 256 << 20, 128 << 20
"""Ray's shared memory on this machine; past that, it writes to the disk."""

_BATCH, _ENCODED, _FAILED = "batch", "encoded", "failed"
"""The kinds of rows: `Batch` and `Encoded` as MessagePack, a pickled BridgeError."""


class RayActors:
    """A pool of `workers` actors that load the model of `spec`.

    Args:
        address: a cluster's, such as ``10.0.0.1:6379`` or ``auto``; without it a cluster of this machine alone is
            started, and ended with the run.

    Raises:
        UsageError: an address or a device that does not go with Ray's actors.
    """

    def __init__(self, spec: ModelSpec, workers: int, address: str | None = None) -> None:
        self.device = str(spec.options.get("device", "cpu"))
        if self.device.startswith("cuda:"):
            raise UsageError(f"Ray hands the GPUs out itself; say --device cuda instead of {self.device}")
        if address and address.startswith("ray://"):
            raise UsageError(
                f"{address} is Ray's way into a cluster from outside; run this on a machine of the cluster, "
                "with --ray-address auto"
            )
        self.spec, self.workers, self.address = spec, workers, address

    def run(self, reading: Reading, work: Work) -> Generator[Encoded, None, None]:
        with (
            tempfile.TemporaryDirectory(prefix="bridge-ray-", ignore_cleanup_errors=True) as folder,
            _quiet(),
            _connected(self.address, self.workers, Path(folder)),
            _settings(),
        ):
            try:
                yield from self._encoded(_Reader.of(reading, Path(folder)), work)
            except ray.exceptions.RayError as error:
                raise BridgeError(f"Ray gave up: {_reason(error)}; the same command goes on there") from error

    def _encoded(self, reader: _Reader, work: Work) -> Iterator[Encoded]:
        gpus = _gpus(self.device, self.workers)
        attempts = ray.remote(_Attempts).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        # The source's files are here, and perhaps nowhere else.
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        options = {**self.spec.options, "device": "cuda" if gpus else "cpu" if self.device == "auto" else self.device}
        encoded = (
            ray.data.from_items([0])
            .map_batches(reader.rows, batch_size=None, batch_format="pyarrow", num_cpus=0, label_selector=here)
            .map_batches(
                _Actor,
                fn_constructor_args=(replace(self.spec, options=options), work, attempts),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=_cores(self.workers) if self.address is None else 1,
                num_gpus=gpus or None,
                # A cluster that has no room for all of them does with those that it has room for.
                compute=ray.data.ActorPoolStrategy(
                    min_size=1,
                    max_size=self.workers,
                    initial_size=self.workers,
                    max_tasks_in_flight_per_actor=_BATCHES_AN_ACTOR,
                ),
            )
        )
        for table in encoded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in table.to_pylist():
                if row["kind"] == _FAILED:
                    raise pickle.loads(row["content"])  # noqa: S301 - from a worker of this run
                yield msgspec.msgpack.decode(row["content"], type=Encoded)


@dataclass(frozen=True, slots=True)
class _Reader:
    """`reading` as another process of this machine can do it."""

    reading: Reading
    folder: str
    """The working folder that the names of files are relative to."""
    spools: Mapping[int, str]
    """Copies of those files that are kept copies of a stream."""

    @classmethod
    def of(cls, reading: Reading, folder: Path) -> _Reader:
        files, spools = list(reading.source.files), {}
        for place, file in enumerate(files):
            if file.spool:
                copy = folder / f"stream-{place}"
                with file.open() as stream, copy.open("wb") as target:
                    shutil.copyfileobj(stream, target)
                files[place], spools[place] = replace(file, spool=None), str(copy)
        source = Source(files, reading.source.options)
        return cls(replace(reading, source=source), str(Path.cwd()), spools)

    def rows(self, table: pa.Table) -> Iterator[pa.Table]:
        """Every batch as a row; an error that ends the reading as the last."""
        del table
        os.chdir(self.folder)
        files = list(self.reading.source.files)
        for place, copy in self.spools.items():
            # The spool reads it to its end, and the process is this run's own.
            files[place] = replace(files[place], spool=Spool(Path(copy).open("rb")))  # noqa: SIM115
        try:
            with Source(files, self.reading.source.options) as source:
                for batch in replace(self.reading, source=source).batches():
                    yield _row(batch.number, _BATCH, msgspec.msgpack.encode(batch))
        except BridgeError as error:
            yield _row(-1, _FAILED, pickle.dumps(error))


class _Actor:
    """A worker; the model is loaded with its first batch."""

    def __init__(self, spec: ModelSpec, work: Work, attempts: Any) -> None:
        # What the model's loader has to say, the first process has said.
        logging.getLogger("bridge").setLevel(logging.ERROR)
        self.spec, self.work, self.attempts = spec, work, attempts
        self.encoder: Encoder | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        (row,) = table.to_pylist()
        number, kind, content = row["number"], row["kind"], row["content"]
        if kind == _FAILED:
            return _row(number, kind, content)
        attempt = ray.get(self.attempts.begin.remote(number))
        try:
            if attempt > MAX_ATTEMPTS:
                raise BridgeError(
                    f"{MAX_ATTEMPTS} workers died over the same documents (perhaps for want of memory: fewer --workers "
                    "need less); the same command goes on there"
                )
            self.encoder = self.encoder or load(self.spec, self.work, threads=_threads())
            encoded = encode_batch(self.encoder, self.work, msgspec.msgpack.decode(content, type=Batch))
        except BridgeError as error:
            return _row(number, _FAILED, pickle.dumps(error))
        self.attempts.end.remote(number)
        return _row(number, _ENCODED, msgspec.msgpack.encode(encoded))


class _Attempts:
    """How often each batch that has no end yet was begun."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        self.begun[number] += 1
        return self.begun[number]

    def end(self, number: int) -> None:
        del self.begun[number]


def _row(number: int, kind: str, content: bytes) -> pa.Table:
    return pa.table({"number": [number], "kind": [kind], "content": pa.array([content], pa.large_binary())})


def _threads() -> int:
    """As many as Ray counts cores for this actor."""
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _cores(workers: int) -> int:
    """Of this machine, for each of `workers`."""
    return max(1, usable_cores() // workers)


def _gpus(device: str, workers: int) -> float:
    """The share of a GPU that each actor gets.

    Raises:
        UsageError: GPUs were asked for, and the cluster has none.
    """
    found = float(ray.cluster_resources().get("GPU", 0))
    if device == "cuda" and not found:
        raise UsageError("device cuda was asked for, and no machine of the Ray cluster has a GPU; use cpu or auto")
    if device not in ("cuda", "auto") or not found:
        return 0.0
    # Rounded down: the shares must not come to more than there is.
    return 1.0 if found >= workers else int(10_000 * found / workers) / 10_000


@contextmanager
def _connected(address: str | None, workers: int, folder: Path) -> Iterator[None]:
    """A connection to the cluster, or a cluster of this machine's own; what was begun here is ended.

    Raises:
        BridgeError: no cluster is reached, or none can be started.
    """
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    here: dict[str, Any] = {
        "num_cpus": workers * _cores(workers),
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES + workers * _STORE_BYTES_A_WORKER,
        "_temp_dir": str(folder),
    }
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        try:
            with _mute(), _loopback(address is None):
                ray.init(**quiet, **({"address": "local", **here} if address is None else {"address": address}))
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            what = "Ray cannot be started here" if address is None else f"no Ray cluster is reached at {address}"
            raise BridgeError(f"{what}: {_reason(error)}") from error
        yield
    finally:
        ray.shutdown()
        # Ray puts its own in its place.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)


_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of Ray's on the screen, and nothing sent to its makers."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    # What the cluster says of a worker that died goes to stdout otherwise, whatever was asked for.
    worker = ray._private.worker
    prints = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *said, **how: None
    try:
        yield
    finally:
        worker.print_to_stdstream = prints
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _loopback(wanted: bool) -> Iterator[None]:
    """Where `wanted`, what Ray starts meanwhile listens on 127.0.0.1 alone.

    On Linux its own argument for that, given 127.0.0.1, takes the machine's outer address instead; what decides is read
    from the environment when ray is imported, which has happened.
    """
    if not wanted:
        yield
        return
    constants, name = ray._private.ray_constants, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before, set_before = constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    constants.ENABLE_RAY_CLUSTER, os.environ[name] = False, "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(name)
        if set_before is not None:
            os.environ[name] = set_before


@contextmanager
def _mute() -> Iterator[None]:
    """Nothing on stderr, not from compiled code either: it says there which of its settings it has read."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _settings() -> Iterator[None]:
    """How Ray Data runs this: in order, a batch a block, without bars and notices."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"ray\.")
        context = ray.data.DataContext.get_current()
    ours = {"target_max_block_size": 1, "enable_progress_bars": False, "print_on_execution_start": False}
    before = {name: getattr(context, name) for name in ours}
    in_order = context.execution_options.preserve_order
    for name, value in ours.items():
        setattr(context, name, value)
    context.execution_options.preserve_order = True
    try:
        yield
    finally:
        context.execution_options.preserve_order = in_order
        for name, value in before.items():
            setattr(context, name, value)


def _reason(error: BaseException) -> str:
    """An error of Ray's in one line: its last, which says what happened; the others say where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
