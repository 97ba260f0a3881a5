"""A `bridge` that serves, as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def serving(
    folder: Path, *words: str, says: str = r"serving at (\S+)", **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str], list[str]]]:
    """`bridge WORDS` in `folder`, until the end of the block: its URL, as it says it, the process, and what it says."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", *words], cwd=folder, env=surroundings, stderr=subprocess.PIPE, text=True
    )
    said: list[str] = []
    found: list[str] = []
    told = threading.Event()

    def listen() -> None:
        assert process.stderr
        for line in process.stderr:
            said.append(line)
            if match := re.match(says, line):
                found.append(match[1])
                told.set()
        told.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        assert told.wait(60), said
        assert found, "".join(said)
        yield found[0], process, said
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        listener.join(10)
        assert process.stderr
        process.stderr.close()
