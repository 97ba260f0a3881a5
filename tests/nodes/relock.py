"""Write the test engines' lock files anew: `python -m tests.nodes.relock`, or only those of the engines it is given."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bridge.node.artifacts import pin, write_lock
from bridge.node.relock import main
from tests.nodes.compile import COMPILER_LOCK
from tests.nodes.recipes import RECIPES

_COMPILER = ("org.eclipse.jdt", "ecj", "3.43.0")

if __name__ == "__main__":
    names = sys.argv[1:]
    main(tuple(RECIPES[name] for name in names or RECIPES))
    if names:
        sys.exit()
    with tempfile.TemporaryDirectory(prefix="relock-") as folder:
        write_lock(COMPILER_LOCK, "ecj", [pin(*_COMPILER, "jar", "", ["compiler"], Path(folder))])
