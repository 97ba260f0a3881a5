"""Token sequences ─▶ batches of similar length, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers in batches, longest rows first.

    A batch padded to its longest row holds at most `budget` tokens, or is a single row. Rows of length 0 are
    left out. The longest come first, so that what does not fit into memory fails at once.
    """
    order = sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = max(1, budget // lengths[order[start]])
        yield order[start : start + size]
        start += size
