"""The engines that faults are tried on, and how thoroughly.

`make torture` sets BRIDGE_TORTURE to the number of killed loads on the embedded OpenSearch; then the others get ten,
and every fault, and nodes are killed, too. Without it OpenSearch gets ten killed loads and every fault.
BRIDGE_FAULT_ENGINES names some, with commas between: those get all of it.
"""

from __future__ import annotations

import os

import pytest

NAMED = tuple(filter(None, os.environ.get("BRIDGE_FAULT_ENGINES", "").split(",")))
TORTURE = int(os.environ.get("BRIDGE_TORTURE", "0"))
OTHERS = ("elasticsearch-7.17.29", "elasticsearch-9.2.0")
ENGINES = NAMED or (("opensearch", *OTHERS) if TORTURE else ("opensearch",))

only_torture = pytest.mark.skipif(not (TORTURE or NAMED), reason="takes minutes: make torture runs it")


def runs(name: str) -> int:
    """How many killed loads `name` gets."""
    return TORTURE or 10 if name == "opensearch" else 10
