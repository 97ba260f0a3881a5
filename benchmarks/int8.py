"""What int8 costs: retrieval with real weights, and the vectors of random ones.

    python benchmarks/int8.py TEACHER [--data FOLDER] [--corpus scifact] [--sizes distilbert minilm]

TEACHER is a dense encoder's folder with real weights, such as all-MiniLM-L6-v2. It is exported to int8, and a BEIR
corpus is searched exactly, all documents for every judged query, with both: by their embeddings, and with a projection
model fitted on the corpus with each. Exit code 1 where int8 keeps less than 99 % of nDCG@10.

A random sparse model has no quality to lose; there the vectors themselves are compared, on texts of the same corpus.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.encode import SHARED, SIZES, cosines, make_model, read_texts, table
from benchmarks.projection import Remembering, matrix, ranked
from bridge import load_encoder
from bridge.encode.dense import load_dense
from bridge.encode.projection import ProjectionEncoder
from bridge.errors import BridgeError
from bridge.evaluate import Judged, Run, compare, read_judged
from bridge.export import export
from bridge.fit import FitOptions, fit
from bridge.records import Doc
from bridge.sources import open_source, text_of

KEPT = 0.99
AT_ONCE = 512
SAMPLE = 64


def read_corpus(folder: Path) -> tuple[list[str], list[str]]:
    """Ids and texts of a BEIR folder's documents."""
    with open_source([str(folder)]) as source:
        documents = [item for item in source.read() if isinstance(item, Doc)]
    return [one.id or "" for one in documents], [text_of(one.source, ("title", "text")) for one in documents]


def runs(teacher: Path, fitted: Path, names: list[str], texts: list[str], judged: Judged) -> tuple[Run, Run]:
    """By the teacher's embeddings, and by a projection model that is fitted with it into `fitted`."""
    encoder = Remembering(load_dense(str(teacher)))
    queries = list(judged.queries.values())
    embedded = np.concatenate([encoder.encode_document(texts[i : i + AT_ONCE]) for i in range(0, len(texts), AT_ONCE)])
    dense = ranked(judged, names, encoder.encode_query(queries) @ embedded.T)
    fit(texts, fitted, FitOptions(teacher=str(teacher)))
    model = ProjectionEncoder(fitted, teacher=encoder)
    columns: dict[str, int] = {}
    asked = matrix(model.encode_query(queries), columns)
    stored = [vector for i in range(0, len(texts), AT_ONCE) for vector in model.encode_document(texts[i : i + AT_ONCE])]
    scores = (asked @ matrix(stored, columns, len(columns)).T).toarray()
    return dense, ranked(judged, names, scores)


def retrieval(teacher: Path, folder: Path) -> bool:
    """Print what int8 keeps of nDCG@10; whether it is enough."""
    judged, (names, texts) = read_judged(folder), read_corpus(folder)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        export(str(teacher), home / "int8", int8=True)
        found = {}
        for precision, model in (("fp32", teacher), ("int8", home / "int8")):
            started = time.process_time()
            found[precision] = runs(model, home / f"fitted-{precision}", names, texts, judged)
            print(f"{precision}: {time.process_time() - started:.0f} s of processor time", file=sys.stderr, flush=True)
    print(f"{folder.name}: {len(texts):,} documents, {len(judged.queries)} queries, exact search\n")
    print("| nDCG@10 | fp32 | int8 | kept | difference, 95 % interval | recall@100 fp32 | int8 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    enough = True
    for way, plain, quantised in zip(("dense", "projection"), found["fp32"], found["int8"], strict=True):
        rows = compare(judged.qrels, plain, quantised).rows
        row, recall = rows["ndcg@10"], rows["recall@100"]
        kept = row.mean_b / row.mean_a
        enough &= kept >= KEPT
        print(
            f"| {way} | {row.mean_a:.4f} | {row.mean_b:.4f} | {kept:.1%} "
            f"| {row.difference:+.4f} ({row.interval[0]:+.4f} … {row.interval[1]:+.4f}) "
            f"| {recall.mean_a:.4f} | {recall.mean_b:.4f} |",
            flush=True,
        )
    return enough


def vectors(sizes: list[str], texts: list[str]) -> None:
    """Print how random sparse models' vectors change."""
    print(f"\nRandom sparse models, {len(texts)} texts\n")
    print("| | active entries | cosine, mean | lowest | entries in both | largest difference | of a weight of |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            model, quantised = Path(scratch) / "model", Path(scratch) / "int8"
            make_model(model, SIZES[size], read_texts(8)[0])
            export(model, quantised, int8=True)
            plain, small = (table(load_encoder(one).encode_document(texts), len(texts)) for one in (model, quantised))
        alike = cosines(plain, small)
        both = ((plain > 0) & (small > 0)).sum(1) / np.maximum(((plain > 0) | (small > 0)).sum(1), 1)
        worst: Any = np.unravel_index(np.abs(plain - small).argmax(), plain.shape)
        print(
            f"| {size} | {(plain > 0).sum(1).mean():.0f} | {alike.mean():.4f} | {alike.min():.4f} | {both.mean():.1%} "
            f"| {abs(plain[worst] - small[worst]):.3f} | {plain.max():.2f} |",
            flush=True,
        )


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, help="a dense encoder's folder")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "corpora")
    parser.add_argument("--corpus", default="scifact", help="a BEIR folder under --data")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=["distilbert", "minilm"])
    options = parser.parse_args()
    folder = options.data / options.corpus
    if not folder.is_dir():
        sys.exit(f"the corpus is not at {folder} (set BRIDGE_SHARED, or name --data)")
    enough = retrieval(options.teacher, folder)
    vectors(options.sizes, read_corpus(folder)[1][:SAMPLE])
    return 0 if enough else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BridgeError as error:
        sys.exit(f"error: {error}")
