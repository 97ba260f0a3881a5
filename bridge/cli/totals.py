"""What a load, or the estimate of one, came to."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.cli.common import error_line, pruning_removed

if TYPE_CHECKING:
    from bridge.cli.common import State
    from bridge.estimate import Estimate
    from bridge.ingest import IngestSummary


def show_summary(state: State, /, index: str, source: str, summary: IngestSummary, seconds: float) -> None:
    """Print what a load came to, and where its dead letters are."""
    if state.json:
        state.out({key: value for key, value in msgspec.to_builtins(summary).items() if value is not None})
    else:
        rate = summary.source / seconds if seconds else 0.0
        click.echo(
            f"{index}: {summary.source:,} documents from {source}: {summary.indexed:,} indexed, "
            f"{summary.unchanged:,} unchanged, {summary.deleted:,} deleted, {summary.dead:,} dead "
            f"({summary.seconds:.1f} s, {rate:,.0f}/s; encoding {summary.encode_seconds:.1f} s, "
            f"waiting for the engine {summary.engine_seconds:.1f} s){_prepared(summary)}"
        )
    if summary.dead:
        which = f"; the first: {summary.first_dead}" if summary.first_dead else ""
        what = f"{summary.dead:,} of {summary.source:,} documents did not go in"
        error_line(f"{what}{which}; they are kept in {summary.dead_letter}")


def _prepared(summary: IngestSummary) -> str:
    """What was done to the texts and vectors, where anything was."""
    parts = []
    if summary.passages is not None:
        parts.append(f"{summary.passages:,} passages")
    if removed := pruning_removed(summary.pruned_terms, summary.pruned_mass):
        parts.append(removed)
    return "".join(f"; {part}" for part in parts)


def show_estimate(state: State, /, index: str, source: str, found: Estimate) -> None:
    """A table, or the figures as JSON."""
    if state.json:
        state.out(msgspec.to_builtins(found) | {"limit": found.limit})
        return
    from rich.table import Table

    table = Table(
        title=f"{source} into {index}, by a sample of {found.sample:,}", title_justify="left", show_header=False
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    how = "counted" if found.counted else "by their bytes"
    copies = f"with {found.replicas} replica{'s' if found.replicas != 1 else ''}"
    rows = [
        ("documents", f"{found.documents:,}", how),
        ("time", str(timedelta(seconds=round(found.seconds))), f"{found.seconds / 3600:.2f} h"),
        ("rate", f"{found.documents_per_second:,.1f}/s", f"{found.limit} is the limit"),
        ("of the rest encoding", f"{100 * found.encode_share:.0f} %", ""),
        ("of the rest waiting for the engine", f"{100 * found.engine_share:.0f} %", ""),
        ("a document", f"{found.bytes_per_document:,.0f} bytes", "in primary shards, merged"),
        ("primary shards", gigabytes(found.primary_bytes), "merged"),
        ("disk", gigabytes(found.disk_bytes), f"{copies}; while segments are merged, more for a time"),
    ]
    if found.fit_seconds:
        rows.insert(2, ("of it fitting a model", str(timedelta(seconds=round(found.fit_seconds))), ""))
    for name, number, what in (("unchanged", found.unchanged, "take next to no time"), ("dead", found.dead, "")):
        if number:
            rows.append((name, f"{100 * number / found.sample:.1f} %", what))
    for row in rows:
        table.add_row(*row)
    state.console().print(table)


def gigabytes(size: int) -> str:
    """Bytes in units of 10^9, or of 10^6 where they are few."""
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
