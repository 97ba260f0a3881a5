"""Put checked files together into the home folder of an engine, once per content."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bridge.errors import DiskFull
from bridge.node.artifacts import Artifact, Downloader, Progress, fetch_all, missing_bytes, read_lock
from bridge.node.locks import file_lock
from bridge.node.paths import NodePaths
from bridge.node.recipe import Recipe
from bridge.node.users import make_folder

_LAYOUT = "1"  # raise it when the layout of a home changes, so that older homes are not taken
_MARGIN = 100_000_000  # bytes beside the files themselves


def free_bytes(folder: Path) -> int:
    """Bytes that we may still write on the file system of `folder` (or of its nearest existing parent)."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def home_path(recipe: Recipe, paths: NodePaths) -> Path:
    """Where the assembled engine lies; the name changes whenever its content would."""
    # Settings are written at each start, and are not in it.
    words = repr(replace(recipe, lock=Path(), settings=())) + _LAYOUT
    content = words.encode() + recipe.lock.read_bytes()
    return paths.homes / f"{recipe.name}-{hashlib.sha256(content).hexdigest()[:12]}"


def assemble(
    recipe: Recipe,
    paths: NodePaths,
    *,
    progress: Progress | None = None,
    download: Downloader | None = None,
    disk_free: Callable[[Path], int] = free_bytes,
) -> Path:
    """The home folder of the recipe, downloaded and assembled if it is not there yet.

    A home appears under its name by a rename when it is complete, never half-way. Raises
    `DownloadFailed`, `ArtifactCorrupt` and `DiskFull`.
    """
    home = home_path(recipe, paths)
    if home.is_dir():
        return home
    make_folder(paths.cache)
    with file_lock(paths.cache / "lock"):
        if home.is_dir():
            return home
        artifacts = read_lock(recipe.lock)
        _check_room(artifacts, paths, disk_free)
        files = fetch_all(artifacts, paths.store, progress=progress, download=download)
        if progress:
            progress(f"assembling {recipe.name}")
        make_folder(paths.homes)
        for leftover in paths.homes.glob(".partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=paths.homes))
        try:
            _build(recipe, files, staging)
            _open_up(staging)
            staging.replace(home)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise DiskFull(f"no room left while assembling {home}; free some space and try again") from error
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return home


def _check_room(artifacts: tuple[Artifact, ...], paths: NodePaths, disk_free: Callable[[Path], int]) -> None:
    unpacked = sum(item.size for item in artifacts if item.packaging == "zip")
    needed = missing_bytes(artifacts, paths.store) + 2 * unpacked + _MARGIN
    free = disk_free(paths.cache)
    if free < needed:
        raise DiskFull(
            f"the engine needs {needed / 1e6:.0f} MB under {paths.cache} and {free / 1e6:.0f} MB are free; "
            "free some space or set BRIDGE_CACHE_DIR to a folder elsewhere"
        )


def _build(recipe: Recipe, files: dict[Artifact, Path], home: Path) -> None:
    for artifact, source in files.items():
        for place in artifact.into:
            kind, _, name = place.partition(":")
            if kind == "plugin":
                # The content is pinned by sha256, so its member names are what was reviewed.
                with zipfile.ZipFile(source) as archive:
                    archive.extractall(home / "plugins" / name)
            else:
                folder = home / "modules" / name if kind == "module" else home / kind
                folder.mkdir(parents=True, exist_ok=True)
                _link_or_copy(source, folder / artifact.filename)
    for module in recipe.modules:
        folder = home / "modules" / module.name
        extends = ",".join(module.extends)
        lines = (
            f"name={module.name}",
            f"description={module.name} of {recipe.name}",
            f"version={recipe.version}",
            f"{recipe.product}.version={recipe.version}",
            f"java.version={recipe.descriptor_java}",
            f"classname={module.classname}",
            f"extended.plugins={extends}",
            "has.native.controller=false",
        )
        (folder / "plugin-descriptor.properties").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if module.policy:
            (folder / "plugin-security.policy").write_text(module.policy, encoding="utf-8")
    for name in ("bin", "lib", "modules", "plugins"):  # the engine wants to see all of them
        (home / name).mkdir(exist_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        shutil.copyfile(source, target)


def _open_up(home: Path) -> None:
    """Readable for the user that runs the node, whatever our umask is."""
    home.chmod(0o755)
    for base, folders, files in os.walk(home):
        for name in folders:
            (Path(base) / name).chmod(0o755)
        for name in files:
            (Path(base) / name).chmod(0o644)
