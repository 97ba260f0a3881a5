"""The engines that faults are tried on, and how thoroughly.

`make torture` sets BRIDGE_TORTURE to the number of killed loads on the embedded OpenSearch; then the others get ten,
and every fault. Without it they get a few. BRIDGE_FAULT_ENGINES names some, with commas between: those get all of it.
"""

from __future__ import annotations

import os

OTHERS = ("elasticsearch-7.17.29", "elasticsearch-9.2.0")
NAMED = tuple(filter(None, os.environ.get("BRIDGE_FAULT_ENGINES", "").split(",")))
ENGINES = NAMED or ("opensearch", *OTHERS)
TORTURE = int(os.environ.get("BRIDGE_TORTURE", "0"))
EVERY_FAULT = ENGINES if NAMED or TORTURE else ("opensearch",)
"""The engines that each fault is tried on."""


def runs(name: str) -> int:
    """How many killed loads `name` gets."""
    if name == "opensearch":
        return TORTURE or 10
    return 10 if NAMED or TORTURE else 2
