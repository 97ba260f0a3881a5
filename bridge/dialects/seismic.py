"""How far a search over a SEISMIC field looks: fewer lists and blocks are read, and more is missed, or the reverse."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bridge.errors import UsageError


@dataclass(frozen=True, slots=True)
class Seismic:
    """The search's own knobs (Bruch, Nardini, Rulli and Venturini, SIGIR 2024, as OpenSearch has them).

    By default the fastest of `benchmarks/search.py`'s grid that keeps 0.95 of the exact search's first ten, over the
    lists of 1,000 documents a token that `bridge register` asks for.

    Attributes:
        top_n: of how many of the heaviest query tokens the lists are read; all by default (the engine's own is 10).
        heap_factor: above 1 more blocks are read, and fewer hits missed; above zero (the engine's own default is 1).

    Raises:
        UsageError: a value outside its range.
    """

    top_n: int = 10_000
    heap_factor: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.top_n <= 10_000:
            raise UsageError(f"top-n is {self.top_n}; it lies between 1 and 10,000")
        if not 0 < self.heap_factor < math.inf:
            raise UsageError(f"heap-factor is {self.heap_factor}; it is above zero")

    def parameters(self, k: int, tokens: int | None = None) -> dict[str, float]:
        """What the engine is told, for `k` hits of a query of so many `tokens`, where that is known."""
        top_n = self.top_n if tokens is None else max(1, min(self.top_n, tokens))
        return {"k": k, "top_n": top_n, "heap_factor": self.heap_factor}


def parse_seismic(text: str) -> Seismic:
    """What ``top-n=10,heap-factor=1.5`` says, one or both.

    Raises:
        UsageError: another word, or no number.
    """
    found: dict[str, str] = {}
    for piece in text.split(","):
        name, mark, value = piece.strip().partition("=")
        if name not in ("top-n", "heap-factor") or not mark or name in found:
            raise UsageError(f"{piece.strip()!r} says nothing of SEISMIC: it looks like top-n=10,heap-factor=1.5")
        found[name] = value
    plain = Seismic()
    try:
        return Seismic(int(found.get("top-n", plain.top_n)), float(found.get("heap-factor", plain.heap_factor)))
    except ValueError:
        raise UsageError(
            f"{text!r} holds something that is no number: it looks like top-n=10,heap-factor=1.5"
        ) from None
