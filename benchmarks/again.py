"""The same documents a second time: what does a load take that finds nothing changed?

    python benchmarks/again.py                    100,000 passages on the embedded OpenSearch node; a minute or two
    python benchmarks/again.py --rounds 5 --url http://localhost:9200

The passages of msdocs100k go in as `bridge ingest` takes them without a model, fitted on them first; then the same
source goes in again, with the index's own model. Each load is a process of its own, whose whole time is counted. The
second asks the engine for the hashes that it stored; how many texts an encoder got is counted, too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.ingest import INDEX, engine_at
from benchmarks.million import CORPUS, worker


def work(url: str, source: Path) -> None:
    """One load; prints its totals, and how many texts were encoded."""
    from bridge.encode.lexical import LexicalEncoder
    from bridge.ingest import IngestOptions, ingest
    from bridge.register import RegisterOptions
    from bridge.sources import open_source

    encoded, encode = 0, LexicalEncoder.encode_document

    def counted(self: LexicalEncoder, texts: Any) -> Any:
        nonlocal encoded
        # With an empty text a load only asks whether a model encodes documents at all.
        encoded += sum(map(bool, texts))
        return encode(self, texts)

    LexicalEncoder.encode_document = counted  # type: ignore[method-assign]
    options = IngestOptions(
        dead_letter=source.parent / "dead-letter.jsonl", register=RegisterOptions(shards=1, replicas=0)
    )
    with open_source([str(source)]) as opened:
        summary = ingest(engine_at(url), INDEX, opened, options)
    print(json.dumps({"encoded": encoded, "indexed": summary.indexed, "unchanged": summary.unchanged}))


def load(url: str, source: Path) -> dict[str, Any]:
    """Run `work` in a process; its totals, and the seconds from its start to its end."""
    started = time.perf_counter()
    found = worker(__file__, url, source)
    return found | {"seconds": time.perf_counter() - started}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from bridge.resolve import connect
    from bridge.settings import load_settings

    shares: list[float] = []
    print("| round | first load | second | of the first | documents | texts encoded |\n| ---: " + "| ---: " * 5 + "|")
    with (
        tempfile.TemporaryDirectory() as home,
        connect(load_settings(url=options.url), lambda line: print(line, file=sys.stderr)) as engine,
    ):
        source = Path(home) / "corpus.jsonl"
        with gzip.open(CORPUS, "rb") as packed, source.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        with source.open("rb") as lines:
            count = sum(1 for _ in lines)
        for number in range(options.rounds):
            if engine.get_index(INDEX):
                engine.delete_index(INDEX)
            first, second = load(engine.url, source), load(engine.url, source)
            if (first["indexed"], second["unchanged"]) != (count, count):
                raise RuntimeError(f"of {count} documents {first['indexed']} went in, {second['unchanged']} were found")
            shares.append(second["seconds"] / first["seconds"])
            print(
                f"| {number + 1} | {first['seconds']:.1f} s | {second['seconds']:.1f} s | {shares[-1]:.3f} | {count:,} "
                f"| {first['encoded']:,}, {second['encoded']:,} |",
                flush=True,
            )
        engine.delete_index(INDEX)
    print(f"\nmedian: {statistics.median(shares):.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
