"""A corpus through a real engine, as `bridge ingest` and `bridge evaluate` take it; the benchmarks share it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from bridge.engines import Engine
from bridge.evaluate import Evaluation, Judged, Run
from bridge.fit import FitOptions
from bridge.ingest import IngestOptions, ingest
from bridge.measured import measure
from bridge.rewrite import QueryRewriter
from bridge.sources import open_source


def engine_run(engine: Engine, folder: Path, judged: Judged, fit: FitOptions) -> tuple[Evaluation, Run, Any, float]:
    """Fit, ingest and ask through the engine; also the seconds of the ingest, fitting included."""
    index = f"benchmark-{folder.name.replace('_', '-')}"
    if engine.get_index(index):
        engine.delete_index(index)
    with tempfile.TemporaryDirectory() as scratch, open_source([str(folder)]) as source:
        options = IngestOptions(fit=fit, dead_letter=Path(scratch) / "dead-letter.jsonl", fresh=True)
        summary = ingest(engine, index, source, options)
    if summary.dead:
        print(f"{folder.name}: {summary.dead} documents did not go in", file=sys.stderr)
    rewriter = QueryRewriter.for_index(engine, index)
    try:
        evaluation, run = measure(engine, index, rewriter, judged, lambda done, total: None)
    finally:
        engine.delete_index(index)
    return evaluation, run, rewriter.encoder, summary.seconds
