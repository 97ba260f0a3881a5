"""A sample of a source, and how many documents there are: all of them where they can be read in time."""

from __future__ import annotations

import io
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from bridge.records import Progress, Report
from bridge.sources import Item, Source, SourceFile, SourceOptions
from bridge.sources.streams import MAGIC

READ_SECONDS = 15.0
"""Long enough for a million short documents; what takes longer is sampled in pieces."""

_PLACES = 64
"""Pieces, spread evenly over the source's bytes."""

_SEED = 20_261_121


@dataclass(frozen=True, slots=True)
class Sample:
    """Items of a source, in its order, and the number of all that it holds: counted, or guessed by their bytes."""

    items: Sequence[Item]
    count: int
    counted: bool


def sample_of(
    source: Source,
    size: int,
    *,
    report: Report = lambda progress: None,
    seconds: float = READ_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Sample:
    """At most `size` items of `source`, each as likely as the other.

    Args:
        source: read for so many `seconds`, then in pieces; one whose size is not known is read to its end.
        size: of the sample.
        report: gets the progress.
        seconds: to read the whole in.
        clock: tells the time.

    Raises:
        SourceError: the source cannot be read.
    """
    chosen = random.Random(_SEED)  # noqa: S311 - no secret
    kept: list[tuple[int, Item]] = []
    started, count = clock(), 0
    for count, item in enumerate(source.read(), 1):
        # Vitter's algorithm R: each item is kept with the same probability, whatever their number.
        if len(kept) < size:
            kept.append((count, item))
        elif (place := chosen.randrange(count)) < size:
            kept[place] = (count, item)
        if count % 1000 == 0:
            report(Progress("count", count, source.bytes_read, source.bytes_total))
        if count % 100 == 0 and clock() - started > seconds and source.bytes_total is not None:
            return _in_pieces(source, size, source.bytes_total, source.bytes_read / count)
    return Sample([item for _, item in sorted(kept, key=lambda pair: pair[0])], count, counted=True)


def _in_pieces(source: Source, size: int, total: int, each: float) -> Sample:
    """A sample of pieces that are spread over the bytes; of what cannot be cut, the beginning of each file.

    Pieces are of as many bytes each, not of as many items: else the long ones, whose bytes are more likely hit, would
    be too many. `each` is how many bytes an item has at the beginning; how many elsewhere, the first pieces tell.
    """
    found = _pieces_of(source, size * each / _PLACES, total)
    if found.count:
        found = _pieces_of(source, size * total / found.count / _PLACES, total)
    limit = source.options.limit
    return found if limit is None else replace(found, count=min(found.count, limit))


def _pieces_of(source: Source, window: float, total: int) -> Sample:
    """The items of pieces that have so many bytes each."""
    step = total / _PLACES
    options = replace(source.options, limit=None)
    items: list[Item] = []
    densities: list[float] = []
    base = 0
    for file in source.files:
        length = file.size or 0
        # The middles of equal parts of the whole that lie in this file.
        first, end = (max(0, math.ceil(place / step - 0.5)) for place in (base, base + length))
        places = [int((place + 0.5) * step) - base for place in range(first, min(end, _PLACES))]
        base += length
        if places and _is_plain(file):
            found, dense = _pieces(file, options, places, window)
            items += found
            densities += dense
        elif places:
            found, density = _beginning(file, options, window * len(places))
            items += found
            densities += [density] * len(places)
    count = round(total * sum(densities) / len(densities)) if densities else 0
    return Sample(items, count, counted=False)


def _is_plain(file: SourceFile) -> bool:
    """Whether a line may be read from the middle of the file."""
    if file.format != "jsonl" or file.compression or file.spool:
        return False
    with file.open() as stream:
        return not stream.read(4).startswith(tuple(MAGIC))


def _pieces(
    file: SourceFile, options: SourceOptions, places: Sequence[int], window: float
) -> tuple[list[Item], list[float]]:
    """The items of so many bytes after each place, and how many there are for a byte."""
    lines: list[int] = []
    sizes: list[int] = []
    with tempfile.NamedTemporaryFile(prefix="bridge-sample-", suffix=".jsonl") as copy:
        with io.BufferedReader(cast(io.RawIOBase, file.open())) as stream:
            for place in places:
                stream.seek(place)
                if place:
                    # The rest of a line that began before.
                    stream.readline()
                lines.append(0)
                sizes.append(0)
                while sizes[-1] < window and (line := stream.readline()):
                    sizes[-1] += copy.write(line)
                    lines[-1] += 1
        copy.flush()
        items = list(Source([SourceFile(copy.name, "jsonl", None)], options).read())
    # Blank lines are no items, and a condition leaves some out: as many everywhere, that is.
    share = len(items) / max(sum(lines), 1)
    return items, [number / size * share for number, size in zip(lines, sizes, strict=True) if size]


def _beginning(file: SourceFile, options: SourceOptions, window: float) -> tuple[list[Item], float]:
    """Items of a file's first bytes, as many as its `window` has, and how many it has for a byte."""
    one = Source([file], options)
    found: list[Item] = []
    at = 0
    for item in one.read():
        # Bytes are read in pieces of many items: those before the first of a new piece are of the bytes until then.
        if one.bytes_read != at:
            if found and at >= window:
                break
            at = one.bytes_read
        found.append(item)
    else:
        at = file.size or 0
    if not found or not at:
        return found, 0.0
    density = len(found) / at
    wanted = min(max(round(window * density), 1), len(found))
    chosen = random.Random(_SEED).sample(range(len(found)), wanted)  # noqa: S311 - no secret
    return [found[place] for place in sorted(chosen)], density
