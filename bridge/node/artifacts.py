"""The pinned files a node is made of: read the lock file, fetch what is missing, trust nothing unchecked.

The only place that imports jgo. A file enters the store (`STORE/<sha256 prefix>/<file name>`) by a
rename after its sha256 was found right, so what is in the store was whole when it was put there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bridge.errors import ArtifactCorrupt, DiskFull, DownloadFailed, MissingExtra, NodeError

Progress = Callable[[str], None]

_THREADS = 4
_ATTEMPTS = 2
_READ_TIMEOUT = 30  # seconds without a byte, not for the whole file


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a Maven repository, pinned: `size` in bytes, `into` says where in the home it goes.

    `into` holds `lib`, `agent`, `module:NAME` or `plugin:NAME` (a zip that is unpacked).
    """

    group: str
    artifact: str
    version: str
    sha256: str
    size: int
    into: tuple[str, ...]
    packaging: str = "jar"
    classifier: str = ""

    @property
    def filename(self) -> str:
        """The file's name as Maven writes it."""
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{suffix}.{self.packaging}"

    @property
    def coordinate(self) -> str:
        """`group:artifact:version`, for messages."""
        return f"{self.group}:{self.artifact}:{self.version}"


Downloader = Callable[[Artifact, Path], Path]
"""Puts an artifact somewhere under the given empty folder and returns its path."""


def read_lock(path: Path) -> tuple[Artifact, ...]:
    """The artifacts of a lock file, in its order."""
    rows = json.loads(path.read_text(encoding="utf-8"))["artifacts"]
    return tuple(Artifact(**{**row, "into": tuple(row["into"])}) for row in rows)


def write_lock(path: Path, recipe: str, artifacts: Iterable[Artifact]) -> None:
    """Write a lock file: sorted, one artifact per line, so that a new version reads well as a diff."""
    lines = []
    for item in sorted(artifacts, key=lambda a: (a.group, a.artifact, a.version, a.classifier, a.packaging)):
        row = {key: value for key, value in asdict(item).items() if value != ""}
        if row["packaging"] == "jar":
            del row["packaging"]
        lines.append("    " + json.dumps(row))
    body = ",\n".join(lines)
    path.write_text(f'{{\n  "recipe": "{recipe}",\n  "artifacts": [\n{body}\n  ]\n}}\n', encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stored_path(store: Path, artifact: Artifact) -> Path:
    """Where an artifact lies in the store, whether it is there or not."""
    return store / artifact.sha256[:16] / artifact.filename


def fetch_all(
    artifacts: Sequence[Artifact],
    store: Path,
    *,
    progress: Progress | None = None,
    download: Downloader | None = None,
    local_repository: Path | None = None,
) -> dict[Artifact, Path]:
    """Every artifact as a checked file in `store`, fetched where it is missing or not whole.

    A file of the user's Maven repository is used when its sha256 is right and passed over when it is
    not (an interrupted download of another tool). Raises `DownloadFailed`, `ArtifactCorrupt`, `DiskFull`.
    """
    store.mkdir(parents=True, exist_ok=True)
    sweep_partial(store)
    paths = {item: stored_path(store, item) for item in artifacts}
    missing = [item for item in artifacts if not _is_whole(paths[item], item)]
    if not missing:
        return paths
    report = progress or (lambda _line: None)
    fetch = download or _jgo_download
    local = local_repository or default_local_repository()
    done = 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch") as pool:
        # Largest first: the long ones must not start last.
        jobs = {
            pool.submit(_fetch_one, item, store, fetch, local): item for item in sorted(missing, key=lambda a: -a.size)
        }
        pending = set(jobs)
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_EXCEPTION, timeout=0.5)
                for job in finished:
                    job.result()
                if finished:
                    done += len(finished)
                    report(f"downloading {done}/{len(missing)} ({_megabytes(missing)} MB in all)")
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return paths


def default_local_repository() -> Path:
    """The user's Maven repository, which is read and never written."""
    return Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")


def sweep_partial(store: Path) -> None:
    """Remove what an interrupted run left half-way; call it under the cache lock only."""
    for leftover in store.glob(".partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def missing_bytes(artifacts: Iterable[Artifact], store: Path) -> int:
    """How many bytes are still to be fetched."""
    return sum(item.size for item in artifacts if not stored_path(store, item).is_file())


def _fetch_one(artifact: Artifact, store: Path, download: Downloader, local: Path) -> None:
    target = stored_path(store, artifact)
    found = ""
    staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=store))
    try:
        ready = local.joinpath(*artifact.group.split("."), artifact.artifact, artifact.version, artifact.filename)
        if _is_whole(ready, artifact):
            copied = staging / artifact.filename
            shutil.copyfile(ready, copied)
            _publish(copied, target)
            return
        for attempt in range(_ATTEMPTS):
            folder = staging / str(attempt)
            folder.mkdir()
            try:
                fetched = download(artifact, folder)
            except (NodeError, MissingExtra):
                raise
            except (OSError, RuntimeError) as error:
                if getattr(error, "errno", None) == errno.ENOSPC:
                    raise
                if attempt + 1 == _ATTEMPTS:
                    raise DownloadFailed(
                        f"cannot download {artifact.coordinate} ({artifact.packaging}): {_reason(error)}; "
                        "check the network, or name a mirror in jgo's settings file, and try again"
                    ) from error
                continue
            found = sha256_of(fetched)
            if found == artifact.sha256:
                _publish(fetched, target)
                return
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(
                f"no room left while fetching {artifact.filename} into {store}; free some space and try again"
            ) from error
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    raise ArtifactCorrupt(
        f"{artifact.filename} ({artifact.coordinate}) is not the pinned file: expected sha256 "
        f"{artifact.sha256}, found {found}; "
        "nothing was kept; if a mirror is configured, it serves another file"
    )


def _publish(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # The node may run as another user than the one who downloads, whatever that one's umask is.
    target.parent.chmod(0o755)
    source.chmod(0o644)
    source.replace(target)


def _is_whole(path: Path, artifact: Artifact) -> bool:
    try:
        return path.stat().st_size == artifact.size and sha256_of(path) == artifact.sha256
    except OSError:
        return False


def _megabytes(artifacts: Iterable[Artifact]) -> int:
    return round(sum(item.size for item in artifacts) / 1e6)


def _reason(error: BaseException) -> str:
    """The innermost cause, without the address that an HTTP client puts around it."""
    if "not found in remote repositories" in str(error):
        return "the artifact repository did not hand it out"
    name = type(error).__name__
    return {
        "ConnectionError": "no connection to the artifact repository",
        "ProxyError": "the proxy refused the connection to the artifact repository",
        "SSLError": "the artifact repository's certificate was not accepted",
        "ConnectTimeout": "the artifact repository did not answer in time",
        "ReadTimeout": "the artifact repository stopped sending",
        "ChunkedEncodingError": "the connection broke half-way",
    }.get(name, f"{name}: {str(error)[:200]}")


# --- jgo ------------------------------------------------------------------------------------------


def _jgo_context(folder: Path) -> Any:
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError as error:
        raise MissingExtra("the embedded node", "node") from error
    # Whoever must use a mirror has named it in jgo's own settings; an entry "central" replaces the default.
    with contextlib.suppress(Exception):
        configured = GlobalSettings.load().repositories
        if configured:
            return MavenContext(repo_cache=folder, remote_repos=configured, timeout=_READ_TIMEOUT)
    return MavenContext(repo_cache=folder, timeout=_READ_TIMEOUT)


def _jgo_download(artifact: Artifact, folder: Path) -> Path:
    component = _jgo_context(folder).project(artifact.group, artifact.artifact).at_version(artifact.version)
    return Path(component.artifact(classifier=artifact.classifier, packaging=artifact.packaging).resolve())


def resolve_tree(coordinate: str, folder: Path) -> list[tuple[str, str, str, str, str]]:
    """A coordinate and everything it needs at run time, as (group, artifact, version, packaging, classifier).

    Reads POMs into `folder`; slow (half a minute for a server). Only `bridge.node.relock` calls it.
    """
    context = _jgo_context(folder)
    inputs, needed = context.resolver.resolve([context.create_dependency(coordinate)])
    return [
        (item.groupId, item.artifactId, item.version, item.type, item.classifier)
        for item in [*inputs, *needed]
        if item.scope in (None, "compile", "runtime")
    ]


def pin(
    group: str,
    artifact: str,
    version: str,
    packaging: str,
    classifier: str,
    into: Iterable[str],
    folder: Path,
) -> Artifact:
    """Download one file through a Maven repository folder and pin what came; for the relock script."""
    component = _jgo_context(folder).project(group, artifact).at_version(version)
    path = Path(component.artifact(classifier=classifier, packaging=packaging).resolve())
    return Artifact(group, artifact, version, sha256_of(path), path.stat().st_size, tuple(into), packaging, classifier)
