"""Retrieval quality of hybrid searches beside their parts, each asked through the engine.

    python benchmarks/hybrid.py DENSE [--corpus scifact] [--data FOLDER] [--url URL] [--keep FOLDER]

A projection model of DENSE (a dense encoder's folder) is fitted on the BEIR folder and ingested as `bridge ingest
--teacher DENSE --dense DENSE` does: one index with sparse vectors, dense vectors and texts. Every judged query is asked
of each part alone, and of hybrids of them with weights that are all the same, fused by the engine and again by the
client: nDCG@10, its difference from the best part, and how many queries' first ten differ between the two.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from projection import ROOT, Remembering
from rich.console import Console
from rich.table import Table

import bridge.encode.dense as dense
from bridge import loadplan, modelstore
from bridge.engines import Engine
from bridge.errors import BridgeError
from bridge.evaluate import Evaluation, Judged, Run, document_stats, evaluate, read_judged
from bridge.fit import FitOptions
from bridge.hybrid import read_hybrid
from bridge.ingest import IngestOptions, ingest
from bridge.records import Hit
from bridge.resolve import connect
from bridge.rewrite import QueryRewriter
from bridge.search import search
from bridge.settings import load_settings
from bridge.sources import open_source

INDEX = "benchmark-hybrid"
DEPTH = 100
HYBRIDS = ("sparse^0,bm25,dense", "sparse,dense", "sparse,bm25", "sparse,bm25,dense")


def fill(engine: Engine, folder: Path, model: str) -> None:
    if engine.get_index(INDEX):
        engine.delete_index(INDEX)
    with tempfile.TemporaryDirectory() as scratch, open_source([str(folder)]) as source:
        options = IngestOptions(
            fit=FitOptions(teacher=model), dense=model, dead_letter=Path(scratch) / "dead.jsonl", fresh=True
        )
        print(f"ingest: {ingest(engine, INDEX, source, options).seconds:.0f} s", file=sys.stderr, flush=True)


def parts_alone(engine: Engine, rewriter: QueryRewriter) -> dict[str, Callable[[str], list[Hit]]]:
    """Each part's own search: the one that the client would fuse."""
    assert rewriter.hybrid is not None

    def asking(place: int) -> Callable[[str], list[Hit]]:
        def ask(text: str) -> list[Hit]:
            body = rewriter.parts(rewriter.encode(text), size=DEPTH)[place]
            found = engine.search(INDEX, body)["hits"]["hits"]
            return [Hit(hit["_id"], float(hit["_score"]), {}) for hit in found]

        return ask

    return {name: asking(place) for place, name in enumerate(rewriter.hybrid.how.names)}


def measured(judged: Judged, rewriter: QueryRewriter, ask: Callable[[str], list[Hit]]) -> tuple[Evaluation, Run]:
    def vector(text: str) -> Any:
        return rewriter.encode(text).sparse

    return evaluate(judged, ask, query_vector=vector, document_stats=document_stats([]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense", help="a dense encoder's folder")
    parser.add_argument("--corpus", default="scifact", help="a BEIR folder, or a name under --data")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "corpora")
    parser.add_argument("--url", help="an engine; the embedded node by default")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the encoder's embeddings there")
    arguments = parser.parse_args()
    encoder = Remembering(dense.load_dense(arguments.dense), arguments.keep)
    # Fitting, ingest and queries load it by its name; here that gives the one that remembers.
    for module in (dense, loadplan, modelstore):
        module.load_dense = lambda *names, **options: encoder  # type: ignore[attr-defined]
    folder = Path(arguments.corpus) if Path(arguments.corpus).is_dir() else arguments.data / arguments.corpus
    judged = read_judged(folder)
    table = Table(title=f"{folder.name}, {len(judged.queries)} queries, {arguments.dense}", title_justify="left")
    for column in ("asked", "fusion", "nDCG@10", "best part", "difference", "by the client", "other first tens"):
        table.add_column(column, justify="left" if column in ("asked", "fusion") else "right")
    with connect(load_settings(url=arguments.url), lambda line: print(line, file=sys.stderr)) as engine:
        fill(engine, folder, arguments.dense)
        everything = read_hybrid("sparse,bm25,dense", depth=DEPTH)
        rewriter = QueryRewriter.for_index(engine, INDEX, hybrid=everything)
        alone = {}
        for name, ask in parts_alone(engine, rewriter).items():
            alone[name] = measured(judged, rewriter, ask)[0].measures["ndcg@10"]
            table.add_row(name, "", f"{alone[name]:.4f}", "", "", "", "")
        for parts in HYBRIDS:
            for fusion in ("linear", "rrf"):
                runs: list[tuple[Evaluation, Run]] = []
                for where in ("engine", "client"):
                    how = read_hybrid(parts, fusion=fusion, where=where, depth=DEPTH)
                    asked = replace(rewriter.hybrid, how=how, by_engine=where == "engine")  # type: ignore[type-var]
                    one = replace(rewriter, hybrid=asked)

                    def hits(text: str, one: QueryRewriter = one) -> list[Hit]:
                        return list(search(engine, INDEX, one, text, size=DEPTH, matches=False, fields=False).hits)

                    runs.append(measured(judged, one, hits))
                (first, there), (second, here) = runs
                value = first.measures["ndcg@10"]
                best = max(alone[name] for name in how.names)
                other = sum(
                    [hit.id for hit in there[query][:10]] != [hit.id for hit in here[query][:10]] for query in there
                )
                table.add_row(
                    " + ".join(how.names), fusion, f"{value:.4f}", f"{best:.4f}", f"{value - best:+.4f}",
                    f"{second.measures['ndcg@10']:.4f}", str(other),
                )  # fmt: skip
        engine.delete_index(INDEX)
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BridgeError as error:
        sys.exit(f"error: {error}")
