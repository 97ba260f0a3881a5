"""What pruning costs in quality, and what it saves: method × strength, of two models, through a real engine.

    python benchmarks/pruning.py TEACHER [--data FOLDER] [--corpus scifact] [--keep FOLDER] [--methods top-k=64 …]

A lexical model and a projection of TEACHER (a dense encoder's folder) are fitted once on the corpus. For each
setting the corpus is ingested with `--prune` into an index of its own, merged into one segment, measured on the disk,
and asked every judged query, unpruned. With --keep, an interrupted run goes on: models, embeddings and figures stay
there. Prints the terms a document that are left, the share of the weights' sum that
went, the size of the whole index (texts and fields included), and nDCG@10 with its difference from no pruning.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from projection import CORPORA, ROOT, Remembering  # the script beside this one
from rich.console import Console
from rich.table import Table

import bridge.encode.dense as dense
from bridge.engines import Engine, open_engine
from bridge.errors import BridgeError
from bridge.evaluate import Judged, Run, compare, read_judged
from bridge.fit import FitOptions, fit
from bridge.ingest import IngestOptions, ingest, texts_of
from bridge.measured import measure
from bridge.prune import parse_pruning
from bridge.records import TEXT_FIELDS
from bridge.register import RegisterOptions
from bridge.resolve import connect
from bridge.rewrite import QueryRewriter
from bridge.settings import load_settings
from bridge.sources import open_source

METHODS = (
    *("top-k=256", "top-k=128", "top-k=64", "top-k=32"),
    *("max-ratio=0.1", "max-ratio=0.2", "max-ratio=0.4"),
    *("alpha-mass=0.9", "alpha-mass=0.75", "alpha-mass=0.5"),
    *("threshold=0.5", "threshold=1.0", "threshold=1.5"),
)
COLUMNS = ("model", "pruning", "terms", "mass gone", "index bytes", "of unpruned", "nDCG@10", "difference", "95 %")


def one(engine: Engine, folder: Path, judged: Judged, model: Path, pruning: str | None) -> tuple[dict[str, Any], Run]:
    """Ingest with one setting; its figures, and what was found."""
    index = "pruning-benchmark"
    if engine.get_index(index):
        engine.delete_index(index)
    wanted = RegisterOptions(pruning=parse_pruning(pruning) if pruning else None, shards=1, replicas=0)
    try:
        with tempfile.TemporaryDirectory() as scratch, open_source([str(folder)]) as source:
            letters = Path(scratch) / "dead-letter.jsonl"
            options = IngestOptions(model=str(model), register=wanted, dead_letter=letters, fresh=True)
            summary = ingest(engine, index, source, options)
        engine.request("POST", f"/{index}/_forcemerge", params={"max_num_segments": "1", "flush": "true"})
        engine.refresh(index)
        segments = segments_of(engine, index)
        evaluation, run = measure(
            engine, index, QueryRewriter.for_index(engine, index), judged, lambda done, total: None
        )
    finally:
        engine.delete_index(index)
    figures = {
        "pruning": pruning or "none",
        "documents": summary.indexed,
        "dead": summary.dead,
        "terms": summary.active_terms,
        "pruned_mass": summary.pruned_mass or 0.0,
        "bytes": sum(segments),
        "segments": len(segments),
        "ndcg@10": evaluation.measures["ndcg@10"],
    }
    return figures, run


def segments_of(engine: Engine, index: str) -> list[int]:
    """The sizes in bytes of the segments that are searched; `_stats/store` is seconds old and counts merged ones."""
    shards = engine.request("GET", f"/{index}/_segments")["indices"][index]["shards"]
    found = [segment for copies in shards.values() for copy in copies for segment in copy["segments"].values()]
    return [segment["size_in_bytes"] for segment in found if segment["search"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="a dense encoder's folder")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "corpora")
    parser.add_argument("--corpus", default=CORPORA[0], help="a BEIR folder, or a name under --data")
    parser.add_argument("--methods", nargs="*", default=METHODS, metavar="METHOD=VALUE")
    parser.add_argument("--url", help="an engine; the embedded node by default")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where models, embeddings and figures stay")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the teacher; by default all cores")
    parser.add_argument("--fit-only", action="store_true", help="with --keep: fit and embed, and measure another time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        return benchmark(arguments, arguments.keep or Path(scratch))


def benchmark(arguments: argparse.Namespace, kept: Path) -> int:
    kept.mkdir(parents=True, exist_ok=True)
    teacher = Remembering(dense.load_dense(arguments.teacher, threads=arguments.threads), kept)
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    # Fitting and ingest load the teacher by its name; here that gives the one that remembers.
    dense.load_dense = lambda *names, **options: teacher  # type: ignore[assignment,return-value]
    folder = Path(arguments.corpus) if Path(arguments.corpus).is_dir() else arguments.data / arguments.corpus
    judged = read_judged(folder)
    figures_file = kept / "figures.json"
    found: dict[str, Any] = json.loads(figures_file.read_text()) if figures_file.is_file() else {}
    table = Table(title=f"{folder.name}, {len(judged.queries)} queries", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right")
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    models = {"lexical": FitOptions(), "projection": FitOptions(teacher=arguments.teacher)}
    for name, options in models.items():
        if not (kept / name).is_dir():
            say(f"fitting the {name} model")
            with open_source([str(folder)]) as source:
                fit(texts_of(source, TEXT_FIELDS, lambda progress: None), kept / name, options)
    with open_source([str(folder)]) as source:
        teacher.encode_document(list(texts_of(source, TEXT_FIELDS, lambda progress: None)))
    if arguments.fit_only:
        return 0
    with open_engine(arguments.url) if arguments.url else connect(load_settings(), say) as engine:
        for name in models:
            whole, plain = one(engine, folder, judged, kept / name, None)
            for pruning in (None, *arguments.methods):
                key = f"{name} {pruning or 'none'}"
                if key not in found:
                    figures, run = (
                        (whole, plain) if pruning is None else one(engine, folder, judged, kept / name, pruning)
                    )
                    row = compare(judged.qrels, plain, run).rows["ndcg@10"]
                    found[key] = {**figures, "difference": row.difference, "interval": row.interval}
                    figures_file.write_text(json.dumps(found, indent=2) + "\n")
                figures = found[key]
                low, high = figures["interval"]
                table.add_row(
                    name, pruning or "none", f"{figures['terms']:.1f}", f"{figures['pruned_mass']:.1%}",
                    f"{figures['bytes']:,}", f"{figures['bytes'] / whole['bytes']:.0%}", f"{figures['ndcg@10']:.4f}",
                    *((f"{figures['difference']:+.4f}", f"{low:+.4f} … {high:+.4f}") if pruning else ("", "")),
                )  # fmt: skip
                say(f"{key}: {figures}")
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BridgeError as error:
        sys.exit(f"error: {error}")
