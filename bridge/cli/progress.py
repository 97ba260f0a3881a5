"""How far a command has come: a live view on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from bridge.records import Progress, Report

if TYPE_CHECKING:
    from rich.console import Console

_WINDOW = 15.0
"""Seconds that a rate is taken over: long enough to be steady, short enough to notice a change."""


class Speed:
    """Rates of one stage, over its latest reports."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, Progress]] = deque()

    def add(self, progress: Progress) -> str:
        """What is to be said of the stage now, in words: rate, time left, and what the load waits for."""
        now = self._clock()
        seen = self._seen
        if seen and seen[-1][1].stage != progress.stage:
            seen.clear()
        seen.append((now, progress))
        while now - seen[0][0] > _WINDOW:
            seen.popleft()
        started, first = seen[0]
        parts = []
        rate = (progress.documents - first.documents) / (now - started) if now > started else 0.0
        if rate > 0:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
            if progress.bytes_total and progress.bytes_read:
                # Bytes say how many documents there are, documents how fast they go.
                left = progress.documents * max(progress.bytes_total / progress.bytes_read - 1, 0.0) / rate
                parts.append(f"{timedelta(seconds=round(left))} left")
        if effort := progress.effort:
            text = f"encoding {effort.encode_seconds:.1f} s, engine {effort.engine_seconds:.1f} s"
            if first.effort and first is not progress:
                encoded = effort.encode_seconds - first.effort.encode_seconds
                waited = effort.engine_seconds - first.effort.engine_seconds
                text += f" ({'encoding' if encoded >= waited else 'the engine'} is the limit)"
            parts += [
                text,
                f"{effort.retried:,} sent again",
                f"{effort.queued:,} queued",
                f"{effort.in_flight} requests under way",
            ]
        return ", ".join(parts)


@contextmanager
def live(console: Console) -> Iterator[Report]:
    """A bar for each stage, and the rates of the latest under it; gone when it is over."""
    from rich import progress as bars
    from rich.console import RenderableType
    from rich.text import Text

    class View(bars.Progress):
        line = ""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            if self.line:
                yield Text(self.line, style="dim")

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TextColumn("{task.fields[documents]:,} documents"),
        bars.TimeElapsedColumn(),
    )
    tasks: dict[str, bars.TaskID] = {}
    speed = Speed()
    with View(*columns, console=console, transient=True) as view:

        def report(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = view.add_task(progress.stage, total=progress.bytes_total, documents=0)
            view.line = speed.add(progress)
            view.update(
                tasks[progress.stage],
                completed=progress.bytes_read,
                total=progress.bytes_total,
                documents=progress.documents,
            )

        yield report


def lines(say: Callable[[str], None], seconds: float = 5.0, clock: Callable[[], float] = time.monotonic) -> Report:
    """Says a line of the same figures, every so many seconds."""
    last = clock()
    speed = Speed(clock)

    def report(progress: Progress) -> None:
        nonlocal last
        figures = speed.add(progress)
        if clock() - last < seconds:
            return
        last = clock()
        total = progress.bytes_total
        share = f", {100 * progress.bytes_read / total:.0f} % of the source" if total else ""
        say(f"{progress.stage}: {progress.documents:,} documents{share}{f', {figures}' if figures else ''}")

    return report
