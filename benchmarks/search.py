"""What a search costs, dialect by dialect, and what the approximate ones miss: through one engine, in one run.

    python benchmarks/search.py                        about half an hour on two cores, on the embedded node
    python benchmarks/search.py --documents 20000 --queries 200 --grid-queries 50

The documents are msdocs100k, encoded by a lexical model over word pieces, so that every kind of field takes the same
vectors; the queries are titles of its documents. Indices of each kind, on one shard and on five, hold them, merged into
one segment a shard. Each query is asked in every way in turn, after a round that is not measured, so that no way meets
a colder engine than another. Latency is of a whole request, its p50 and p99 in milliseconds; overlap is the share of
exact `neural_sparse`'s first ten that a way has found.

Then the grids: two phases by prune_ratio and expansion_rate, SEISMIC by n_postings, the ceilings (as an engine has them
by default, and as `bridge register` sets them), top_n and heap_factor. A default of the bridge is the fastest point
that keeps 0.98 (two phases) or 0.95 (SEISMIC); where none is faster than the exact search, it is better left off.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.encode import SHARED

SIZE = 10
EXACT = "neural_sparse, exact"
RATIOS, RATES = (0.2, 0.3, 0.4, 0.5, 0.6), (2.0, 5.0, 10.0, 20.0)
POSTINGS = (1000, 4000, 16000)
TOP_N, HEAP_FACTORS = (3, 5, 10, 1000), (0.8, 1.0, 1.2, 1.5)
ENGINE = {"quantization_ceiling_ingest": 3.0, "quantization_ceiling_search": 16.0}

Body = dict[str, Any]


@dataclass
class Way:
    """A way of asking: an index and a query ─▶ body; and what was found out of it."""

    name: str
    index: str
    body: Callable[[Any], Body]
    took: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)

    def row(self) -> tuple[str, float, float, float]:
        p50, p99 = np.percentile(self.took, [50, 99])
        return self.name, float(p50), float(p99), float(np.mean(self.overlaps))


def documents(count: int) -> Iterator[dict[str, str]]:
    with gzip.open(SHARED / "data" / "corpora" / "msdocs100k" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from islice(map(json.loads, lines), count)


def text_of(document: dict[str, str]) -> str:
    return f"{document['title']}\n{document['text']}"


def model_for(count: int, folder: Path) -> Any:
    from bridge.encode import load_encoder
    from bridge.fit import FitOptions, fit

    fit(map(text_of, documents(count)), folder, FitOptions(tokenizer=SHARED / "data" / "bert-uncased"))
    return load_encoder(folder)


def make_index(engine: Any, name: str, encoder: Any, kind: Any, shards: int, parameters: dict[str, Any]) -> None:
    """As `bridge register` makes it; `parameters` are SEISMIC's own."""
    from bridge import register, templates

    if engine.get_index(name):
        engine.delete_index(name)
    options = register.RegisterOptions(kind=kind, shards=shards, replicas=0)
    planned = register.plan(engine, name, encoder, options)
    if parameters:
        method = {"method": {"parameters": parameters}}
        planned = replace(
            planned, create=templates.merge(planned.create or {}, {"mappings": {"properties": {"embedding": method}}})
        )
    register.apply(engine, planned)
    # Each refresh would make a segment, whose lists a SEISMIC field builds anew, and all wait for the one that does.
    engine.put_settings(name, {"index.refresh_interval": "-1"})


def fill(engine: Any, indices: dict[str, Any], encoder: Any, count: int) -> None:
    """The same vectors into all `indices` (name ─▶ kind), then a merge of each shard into one segment."""
    from bridge.tokens import field_value

    source = documents(count)
    while batch := list(islice(source, 1000)):
        vectors = encoder.encode_document(list(map(text_of, batch)))
        for name, kind in indices.items():
            lines: list[str] = []
            for document, vector in zip(batch, vectors, strict=True):
                value = field_value(vector, kind, "opensearch")
                lines += [json.dumps({"index": {"_id": document["_id"]}}), json.dumps({"embedding": value})]
            failed = [
                one for one in engine.bulk(name, ("\n".join(lines) + "\n").encode()) if one["index"]["status"] > 201
            ]
            if failed:
                raise RuntimeError(str(failed[0]))
    for name in indices:
        for what, params in (("_refresh", {}), ("_forcemerge", {"max_num_segments": "1"}), ("_refresh", {})):
            engine.request("POST", f"/{name}/{what}", params=params, timeout=1800)
        print(f"{name}: filled", file=sys.stderr, flush=True)


def rewriter(encoder: Any, engine: Any, kind: Any, **how: Any) -> Any:
    from bridge.rewrite import QueryRewriter
    from bridge.targets import Target

    info = engine.info()
    target = Target("embedding", kind, how.pop("dialect", "neural_sparse"))
    return QueryRewriter(encoder, info.product, info.version, (target,), **how)


def plain(asking: Any) -> Callable[[Any], Body]:
    return lambda encoded: asking.body(encoded, size=SIZE) | {"_source": False}


def pipelined(asking: Any, ratio: float, rate: float) -> Callable[[Any], Body]:
    """Two phases by the engine's own processor, which comes with the query."""
    how = {"prune_ratio": ratio, "expansion_rate": rate, "max_window_size": 10_000}
    processor = {"neural_sparse_two_phase_processor": {"enabled": True, "two_phase_parameter": how}}
    return lambda encoded: plain(asking)(encoded) | {"search_pipeline": {"request_processors": [processor]}}


def seismic(asking: Any, top_n: int, heap_factor: float) -> Callable[[Any], Body]:
    def body(encoded: Any) -> Body:
        found = plain(asking)(encoded)
        parameters = found["query"]["neural_sparse"]["embedding"]["method_parameters"]
        parameters |= {"top_n": min(top_n, len(encoded.sparse)), "heap_factor": heap_factor}
        return found

    return body


def measure(engine: Any, ways: Sequence[Way], queries: Sequence[Any], exact: Way) -> None:
    """Ask every query in every way; the first eighth of them once before, unmeasured."""
    for encoded in queries[: max(1, len(queries) // 8)]:
        for way in (exact, *ways):
            engine.search(way.index, way.body(encoded), {"request_cache": "false"})
    for number, encoded in enumerate(queries):
        found: dict[str, list[str]] = {}
        everything = [exact, *(way for way in ways if way is not exact)]
        turn = number % len(everything)
        for way in everything[turn:] + everything[:turn]:
            body = way.body(encoded)
            started = time.perf_counter()
            answer = engine.search(way.index, body, {"request_cache": "false"})
            way.took.append((time.perf_counter() - started) * 1e3)
            found[way.name] = [hit["_id"] for hit in answer["hits"]["hits"]]
        best = set(found[exact.name])
        for way in everything:
            if best:
                way.overlaps.append(len(best & set(found[way.name])) / len(best))


def table(title: str, ways: Sequence[Way]) -> None:
    print(f"\n{title}\n\n| way | p50 ms | p99 ms | overlap@10 |\n| --- | ---: | ---: | ---: |")
    for way in ways:
        name, p50, p99, overlap = way.row()
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {overlap:.3f} |", flush=True)


def chosen(ways: Sequence[Way], exact: Way, least: float) -> None:
    """Which point the rule takes."""
    good = [way.row() for way in ways if np.mean(way.overlaps) >= least]
    fastest = min(good, key=lambda row: row[1], default=None)
    limit = exact.row()[1]
    if fastest is None or fastest[1] >= limit:
        print(f"\nNone keeps {least} and is faster than the exact search ({limit:.2f} ms).")
    else:
        print(f"\nThe fastest that keeps {least}: {fastest[0]}, {fastest[1]:.2f} ms (exact {limit:.2f}).")


def compare(engine: Any, encoder: Any, queries: Sequence[Any], shards: int, names: dict[str, str]) -> None:
    """Each dialect, at the engine's parameters and at the bridge's."""
    from bridge.twophase import TwoPhase

    features = rewriter(encoder, engine, "rank_features")
    exact = Way(EXACT, names["rank_features"], plain(features))
    own = TwoPhase()
    sparse = rewriter(encoder, engine, "sparse_vector")
    ways = [
        exact,
        Way("rank_feature", exact.index, plain(rewriter(encoder, engine, "rank_features", dialect="rank_feature"))),
        Way("two phases, the engine's pipeline and defaults", exact.index, pipelined(features, 0.4, 5.0)),
        Way(f"two phases, --two-phase ({own.prune_ratio}, {own.expansion_rate})", exact.index,
            plain(rewriter(encoder, engine, "rank_features", two_phase=own))),
        Way("SEISMIC, the engine's defaults", names["seismic engine"], seismic(sparse, 10, 1.0)),
        Way("SEISMIC, as bridge registers and asks", names["seismic bridge"], plain(sparse)),
    ]  # fmt: skip
    measure(engine, ways, queries, exact)
    table(f"{len(queries):,} queries, {shards} shard{'s' * (shards > 1)}", ways)


def grids(engine: Any, encoder: Any, queries: Sequence[Any], names: dict[str, str]) -> None:
    from bridge.twophase import TwoPhase

    features = rewriter(encoder, engine, "rank_features")
    exact = Way(EXACT, names["rank_features"], plain(features))
    phases = [
        Way(f"prune_ratio {ratio}, expansion_rate {rate:g}", exact.index,
            plain(rewriter(encoder, engine, "rank_features", two_phase=TwoPhase(ratio, rate))))
        for ratio, rate in product(RATIOS, RATES)
    ]  # fmt: skip
    measure(engine, phases, queries, exact)
    table("Two phases (a rescore), one shard", [exact, *phases])
    chosen(phases, exact, 0.98)
    sparse, exact = rewriter(encoder, engine, "sparse_vector"), Way(EXACT, names["rank_features"], plain(features))
    points = [
        Way(f"{label}, top_n {top_n}, heap_factor {heap}", index, seismic(sparse, top_n, heap))
        for label, index in names.items()
        if label.startswith("seismic")
        for top_n, heap in product(TOP_N, HEAP_FACTORS)
    ]
    measure(engine, points, queries, exact)
    table("SEISMIC, one shard", [exact, *points])
    chosen(points, exact, 0.95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--grid-queries", type=int, default=200, help="0 leaves the grids out")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--url", help="an OpenSearch 3.3 or newer; the embedded node by default")
    options = parser.parse_args()
    from bridge.resolve import connect
    from bridge.settings import load_settings

    with (
        tempfile.TemporaryDirectory() as folder,
        connect(load_settings(url=options.url), lambda line: print(line, file=sys.stderr)) as engine,
    ):
        encoder = model_for(options.documents, Path(folder) / "model")
        titles = sorted({one["title"] for one in documents(options.documents) if len(one["title"].split()) > 2})
        asked = random.Random(5).sample(titles, min(options.queries, len(titles)))
        asking = rewriter(encoder, engine, "rank_features")
        queries = [one for one in asking.encode_many(asked) if one.sparse]
        # Below a million documents a segment is searched exactly unless this says otherwise.
        least = {"approximate_threshold": options.documents // 20}
        for shards in options.shards:
            wanted: dict[str, tuple[Any, dict[str, Any]]] = {
                "rank_features": ("rank_features", {}),
                "seismic engine": (
                    "sparse_vector",
                    least | ENGINE | {"n_postings": max(160, options.documents // 2000)},
                ),
                "seismic bridge": ("sparse_vector", least),
            }
            if shards == 1 and options.grid_queries:
                wanted |= {f"seismic, n_postings {n}": ("sparse_vector", least | {"n_postings": n}) for n in POSTINGS}
            names = {label: f"benchmark-search-{number}" for number, label in enumerate(wanted)}
            for label, (kind, parameters) in wanted.items():
                make_index(engine, names[label], encoder, kind, shards, parameters)
            fill(engine, {names[label]: kind for label, (kind, _) in wanted.items()}, encoder, options.documents)
            compare(engine, encoder, queries, shards, names)
            if shards == 1 and options.grid_queries:
                grids(engine, encoder, queries[: options.grid_queries], names)
            for name in names.values():
                engine.delete_index(name)


if __name__ == "__main__":
    main()
