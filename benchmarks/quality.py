"""Retrieval quality of the fitted model through a real engine, beside bm25s, in one run.

    python benchmarks/quality.py [--data FOLDER] [--tokenizer FOLDER] [CORPUS ...]

For each BEIR folder: the bridge fits a model on the corpus as `bridge ingest` does when no model is named (the
language is detected, k1=0.9, b=0.4, nothing is set for a collection), ingests it and asks every judged query
through the engine. bm25s indexes the same texts with the same k1 and b, its own tokenizer, and the best stemmer
for the language. Prints nDCG@10 of both side by side, the difference with its 95 % interval, and the cost.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import bm25s
import Stemmer
from rich.console import Console
from rich.table import Table
from through import engine_run

from bridge.errors import BridgeError
from bridge.evaluate import Judged, Run, compare, read_judged
from bridge.fit import FitOptions
from bridge.records import Doc, Hit
from bridge.resolve import connect
from bridge.settings import load_settings
from bridge.sources import open_source, text_of

CORPORA = {"scifact": "english", "cosqa": "english", "miracl_yo": None, "mtrag_human": "english"}
"""BEIR folder ─▶ the best Snowball stemmer for its language, for bm25s; Yoruba has none."""

ROOT = Path(__file__).parent.parent
DEPTH = 100
ALLOWED = 0.010
COLUMNS = (
    *("corpus", "queries", "bm25s", "bridge", "difference", "95 % interval"),
    *("stemmer", "terms", "FLOPS", "ingest s"),
)


def bm25s_run(folder: Path, judged: Judged, stemmer: str | None) -> Run:
    """The peer: its own tokenizer and stop words, the same k1 and b."""
    with open_source([str(folder)]) as source:
        documents = [item for item in source.read() if isinstance(item, Doc)]
    texts = [text_of(document.source, ("title", "text")) for document in documents]
    stem = Stemmer.Stemmer(stemmer) if stemmer else None
    stopwords = "en" if stemmer == "english" else None
    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(bm25s.tokenize(texts, stemmer=stem, stopwords=stopwords, show_progress=False), show_progress=False)
    run: Run = {}
    for name, text in judged.queries.items():
        tokens = bm25s.tokenize([text], stemmer=stem, stopwords=stopwords, return_ids=False, show_progress=False)[0]
        scores = index.get_scores(tokens) if tokens else []
        best = sorted(range(len(scores)), key=lambda i: -scores[i])[:DEPTH]
        run[name] = [Hit(documents[i].id or "", float(scores[i]), {}) for i in best if scores[i] > 0]
    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", help="BEIR folders, or names under --data")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "corpora")
    parser.add_argument("--tokenizer", type=Path, help="fit over the word pieces of this folder")
    parser.add_argument("--language", default="auto", help="of the bridge's model (auto: detected)")
    parser.add_argument("--stemmer", help="of bm25s, for a corpus that is not one of the known ones")
    parser.add_argument("--url", help="an engine; the embedded node by default")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    settings = load_settings(url=arguments.url)
    table = Table(title="nDCG@10, fitted model through the engine beside bm25s", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "corpus" else "right")
    figures = {}
    with connect(settings, lambda line: print(line, file=sys.stderr)) as engine:
        for name in arguments.corpora or CORPORA:
            folder = Path(name) if Path(name).is_dir() else arguments.data / name
            judged = read_judged(folder)
            started = time.monotonic()
            fit = FitOptions(language=arguments.language, tokenizer=arguments.tokenizer)
            evaluation, run, encoder, seconds = engine_run(engine, folder, judged, fit)
            stemmer = encoder.card.stemmer or "none"
            peer = bm25s_run(folder, judged, CORPORA.get(folder.name, arguments.stemmer))
            row = compare(judged.qrels, peer, run).rows["ndcg@10"]
            print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr)
            low, high = row.interval
            terms = evaluation.active_terms["document"]
            table.add_row(
                *(folder.name, str(evaluation.queries), f"{row.mean_a:.4f}", f"{row.mean_b:.4f}"),
                *(f"{row.difference:+.4f}", f"{low:+.4f} … {high:+.4f}", stemmer),
                *(f"{terms:.0f}", f"{evaluation.flops:.2f}", f"{seconds:.1f}"),
            )
            figures[folder.name] = {"bm25s": row.mean_a, "bridge": row.mean_b, "queries": evaluation.queries}
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    below = [name for name, figure in figures.items() if figure["bridge"] < figure["bm25s"] - ALLOWED]
    if below:
        print(f"more than {ALLOWED} below bm25s: {', '.join(below)}", file=sys.stderr)
    return bool(below)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BridgeError as error:
        sys.exit(f"error: {error}")
