"""Retrieval quality of a projection model beside what it is made of, in one run.

    python benchmarks/projection.py TEACHER [--data FOLDER] [--keep FOLDER] [--threads N] [CORPUS ...]

For each BEIR folder, with one setting for all of them: the lexical model and the projection of TEACHER (a dense
encoder's folder) are fitted as `bridge ingest` and `bridge ingest --teacher` do, ingested, and asked every judged
query through the engine. Dense is the teacher alone, exact; the hybrid is the sum of the lexical and the dense
scores of all documents, each standardised per query: what one would get from two queries and two fields. Prints
nDCG@10 of the four, the active terms, and the projection's gain with its 95 % interval.

Nearly all of the time is the teacher's. With --keep its embeddings are kept on disk, so that a run that was cut
short goes on where it stopped. On a machine with other work, --threads 1 takes a third of the processor time: more
threads wait for each other. TEACHER may also be what `bridge export --onnx --int8` wrote of one, which is faster and
not the same model: the figures of docs/projection.md are of float32 weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from rich.console import Console
from rich.table import Table
from through import engine_run

import bridge.encode.dense as dense
from bridge.encode.base import Encoder
from bridge.engines import open_engine
from bridge.errors import BridgeError
from bridge.evaluate import Judged, Run, compare, read_judged
from bridge.fit import FitOptions
from bridge.records import Doc, Hit, SparseVector
from bridge.resolve import connect
from bridge.settings import load_settings
from bridge.sources import open_source, text_of

CORPORA = ("scifact", "cosqa", "mtrag_human")
ROOT = Path(__file__).parent.parent
DEPTH = 100


class Remembering:
    """A dense encoder that embeds no text twice: fitting, ingest and the dense run share the work, and with a folder
    the next run does, too."""

    def __init__(self, encoder: dense.DenseEncoder, folder: Path | None = None) -> None:
        self._encoder = encoder
        self._folder = folder / encoder.fingerprint if folder else None
        self._known: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
        for path in sorted(self._folder.glob("*.npz")) if self._folder else []:
            with np.load(path) as kept:
                self._known.update(zip(kept["names"].tolist(), kept["embeddings"], strict=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_document(self, texts: Sequence[str]) -> Any:
        return self._encode("document", texts, self._encoder.encode_document)

    def encode_query(self, texts: Sequence[str]) -> Any:
        return self._encode("query", texts, self._encoder.encode_query)

    def _encode(self, side: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Any]) -> Any:
        names = [hashlib.sha256(f"{side} {text}".encode()).hexdigest() for text in texts]
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in self._known}
        missing = list(new)
        for part in (missing[i : i + 256] for i in range(0, len(missing), 256)):
            made = np.asarray(encode([new[name] for name in part]), dtype=np.float32)
            self._known.update(zip(part, made, strict=True))
            if self._folder:
                self._folder.mkdir(parents=True, exist_ok=True)
                half = self._folder / f"{part[0]}.half"
                with half.open("wb") as file:
                    np.savez(file, names=np.array(part), embeddings=made)
                half.replace(half.with_suffix(".npz"))
        return np.stack([self._known[name] for name in names])


def exact_runs(folder: Path, judged: Judged, lexical: Encoder, teacher: Any) -> tuple[Run, Run]:
    """The teacher alone, and the sum of standardised lexical and dense scores, over all documents."""
    with open_source([str(folder)]) as source:
        documents = [item for item in source.read() if isinstance(item, Doc)]
    texts = [text_of(document.source, ("title", "text")) for document in documents]
    queries = list(judged.queries.values())
    columns: dict[str, int] = {}
    stored, asked = lexical.encode_document(texts), lexical.encode_query(queries)
    sparse = (matrix(asked, columns) @ matrix(stored, columns, len(columns)).T).toarray()
    embedded = np.concatenate([teacher.encode_document(texts[i : i + 512]) for i in range(0, len(texts), 512)])
    close = teacher.encode_query(queries) @ embedded.T
    names = [document.id or "" for document in documents]
    return ranked(judged, names, close), ranked(judged, names, standard(sparse) + standard(close))


def matrix(vectors: Sequence[SparseVector], columns: dict[str, int], width: int | None = None) -> Any:
    """Vectors as rows of a sparse matrix; with a `width`, only of the tokens that have a column."""
    rows, places, values = [], [], []
    for row, vector in enumerate(vectors):
        for token, weight in zip(vector.tokens, vector.weights.tolist(), strict=True):
            place = columns.get(token) if width else columns.setdefault(token, len(columns))
            if place is not None:
                rows.append(row)
                places.append(place)
                values.append(weight)
    return sp.csr_matrix((values, (rows, places)), shape=(len(vectors), width or len(columns)))


def standard(scores: Any) -> Any:
    return (scores - scores.mean(1, keepdims=True)) / np.maximum(scores.std(1, keepdims=True), 1e-9)


def ranked(judged: Judged, names: Sequence[str], scores: Any) -> Run:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    return {
        query: [Hit(names[j], float(row[j]), {}) for j in order]
        for query, row, order in zip(judged.queries, scores, best, strict=True)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="a dense encoder's folder")
    parser.add_argument("corpora", nargs="*", help="BEIR folders, or names under --data")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "corpora")
    parser.add_argument("--url", help="an engine; the embedded node by default")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the teacher's embeddings there")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the teacher; by default all cores")
    arguments = parser.parse_args()
    teacher = Remembering(dense.load_dense(arguments.teacher, threads=arguments.threads), arguments.keep)
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    # Fitting and ingest load the teacher by its name; here that gives the one that remembers.
    dense.load_dense = lambda *names, **options: teacher  # type: ignore[assignment,return-value]
    settings = load_settings(url=arguments.url)
    table = Table(title=f"nDCG@10, one query each; teacher {arguments.teacher}", title_justify="left")
    for column in ("corpus", "queries", "lexical", "dense", "hybrid", "projection", "gain", "95 % interval", "terms",
                   "lexical terms", "FLOPS", "ingest s"):  # fmt: skip
        table.add_column(column, justify="left" if column == "corpus" else "right")
    figures: dict[str, dict[str, float]] = {}
    console = Console(width=160)
    with (
        connect(settings, lambda line: print(line, file=sys.stderr))
        if not arguments.url
        else open_engine(arguments.url) as engine
    ):
        for name in arguments.corpora or CORPORA:
            folder = Path(name) if Path(name).is_dir() else arguments.data / name
            judged = read_judged(folder)
            started = time.monotonic()
            words, words_run, lexical, _ = engine_run(engine, folder, judged, FitOptions())
            made, made_run, _, seconds = engine_run(engine, folder, judged, FitOptions(teacher=arguments.teacher))
            close, both = exact_runs(folder, judged, lexical, teacher)
            row = compare(judged.qrels, words_run, made_run).rows["ndcg@10"]
            alone = compare(judged.qrels, close, both).rows["ndcg@10"]
            figures[folder.name] = {
                "lexical": row.mean_a, "dense": alone.mean_a, "hybrid": alone.mean_b, "projection": row.mean_b,
                "terms": made.active_terms["document"], "lexical_terms": words.active_terms["document"],
            }  # fmt: skip
            table.add_row(
                folder.name, str(made.queries), f"{row.mean_a:.4f}", f"{alone.mean_a:.4f}", f"{alone.mean_b:.4f}",
                f"{row.mean_b:.4f}", f"{row.difference:+.4f}", f"{row.interval[0]:+.4f} … {row.interval[1]:+.4f}",
                f"{made.active_terms['document']:.0f}", f"{words.active_terms['document']:.0f}", f"{made.flops:.2f}",
                f"{seconds:.0f}",
            )  # fmt: skip
            print(f"{name}: {figures[folder.name]}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    console.print(table)
    means = {key: float(np.mean([one[key] for one in figures.values()])) for key in next(iter(figures.values()))}
    console.print("mean: " + ", ".join(f"{key} {value:.4f}" for key, value in means.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BridgeError as error:
        sys.exit(f"error: {error}")
