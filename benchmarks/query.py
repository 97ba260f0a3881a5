"""How long one query takes to become a vector: by a neural model (torch, ONNX, int8), and inference-free.

python benchmarks/query.py [--size minilm] [--queries 60] [--threads 2]
python benchmarks/query.py --threads 1 --cpu-time    on a machine that does other work

Queries are SciFact's; weights are random. The ways take turns, query by query; figures are in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.encode import SHARED, SIZES, make_model, read_texts


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="distilbert")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="processor time; with --threads 1")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    if not (SHARED / "data").is_dir():
        sys.exit(f"the shared data is not at {SHARED} (set BRIDGE_SHARED)")

    import torch

    from bridge import load_encoder
    from bridge.export import export

    torch.set_num_threads(options.threads)
    lines = (SHARED / "data" / "corpora" / "scifact" / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line)["text"] for line in lines[: options.queries]]
    with tempfile.TemporaryDirectory() as home:
        model, lookup = Path(home) / "model", Path(home) / "lookup"
        make_model(model, SIZES[options.size], read_texts(8)[0])
        lookup.mkdir()
        for name in ("tokenizer.json", "idf.json"):
            shutil.copyfile(SHARED / "data" / "bert-uncased" / name, lookup / name)
        export(model, Path(home) / "onnx")
        export(model, Path(home) / "int8", int8=True)
        folders = {"torch fp32": model, "ONNX fp32": Path(home) / "onnx", "ONNX int8": Path(home) / "int8"}
        encoders = {way: load_encoder(path, threads=options.threads) for way, path in folders.items()}
        encoders["inference-free"] = load_encoder(lookup)
        took: dict[str, list[float]] = {way: [] for way in encoders}
        for encoder in encoders.values():
            encoder.encode_query(queries[:2])
        for query in queries:
            for way, encoder in encoders.items():
                started = clock()
                encoder.encode_query([query])
                took[way].append(1000 * (clock() - started))
    said = "processor time" if options.cpu_time else "wall time"
    print(f"{options.size}, {len(queries)} queries, {options.threads} threads, {said}\n")
    print("| one query | median ms | 90th percentile |")
    print("| --- | ---: | ---: |")
    for way, times in took.items():
        print(f"| {way} | {statistics.median(times):.2f} | {statistics.quantiles(times, n=10)[-1]:.2f} |")


if __name__ == "__main__":
    main()
