"""What it costs to turn a question into a query with an inference-free model: text ─▶ search body, nothing sent.

    python benchmarks/rewrite.py                  a few minutes
    python benchmarks/rewrite.py --quick          few questions, few calls: does it run

Questions are distinct and have eight words each, from msdocs100k; the rewriter keeps no query, so that each is encoded.
Beside it, in the same rounds: `Tokenizer.encode` alone, which is the least that has to be done, and the call of
transformers' fast tokenizer. Then: sixteen threads against one, memory over many calls, and a fresh process from its
start to the first query against the bare imports and file reads that this needs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.encode import ROOT, SHARED, memory

MODEL = SHARED / "data" / "bert-uncased"
WORDS, THREADS = 8, 16

COLD = {
    "bare": """
import json, msgspec, numpy, tokenizers
from pathlib import Path
tokenizer = tokenizers.Tokenizer.from_file("{model}/tokenizer.json")
json.loads(Path("{model}/idf.json").read_bytes())
tokenizer.encode("{text}")
""",
    "bridge": """
from bridge.rewrite import QueryRewriter
QueryRewriter.load("{model}").rewrite("{text}")
""",
}


def questions() -> Iterator[str]:
    """Runs of eight words, none of them twice."""
    seen: set[str] = set()
    with gzip.open(SHARED / "data" / "corpora" / "msdocs100k" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            words = json.loads(line)["text"].split()
            for start in range(0, len(words) - WORDS, WORDS):
                text = " ".join(words[start : start + WORDS])
                if text not in seen:
                    seen.add(text)
                    yield text


def ways() -> dict[str, Callable[[str], Any]]:
    """Each takes a question."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from bridge.querycache import QueryCache
    from bridge.rewrite import QueryRewriter

    rewriter = replace(QueryRewriter.load(MODEL), cache=QueryCache(0))
    return {
        "Tokenizer.encode": Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode,
        "transformers' tokenizer": PreTrainedTokenizerFast(tokenizer_file=str(MODEL / "tokenizer.json")),
        "QueryRewriter.rewrite": rewriter.rewrite,
    }


def latencies(calls: dict[str, Callable[[str], Any]], texts: list[str], rounds: int) -> dict[str, list[float]]:
    """Way ─▶ the median of each round, in microseconds."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    share = len(texts) // rounds
    for number in range(rounds):
        own = texts[number * share : (number + 1) * share]
        for name, call in calls.items() if number % 2 == 0 else reversed(calls.items()):
            took = []
            for text in own:
                started = time.perf_counter_ns()
                call(text)
                took.append(time.perf_counter_ns() - started)
            found[name].append(statistics.median(took) / 1e3)
    return found


def rate(call: Callable[[str], Any], texts: list[str], count: int) -> float:
    """Calls a second of `count` threads that share the questions."""
    parts = [texts[number::count] for number in range(count)]

    def work(part: list[str]) -> None:
        for text in part:
            call(text)

    threads = [threading.Thread(target=work, args=(part,)) for part in parts]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(texts) / (time.perf_counter() - started)


def cold(text: str, rounds: int) -> dict[str, float]:
    """Seconds of a process from its start to its end, each the median."""
    took: dict[str, list[float]] = {name: [] for name in COLD}
    with tempfile.TemporaryDirectory() as folder:
        # An installed package has its bytecode, which a checkout may lack; here both programs have all of theirs.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        for number in range(rounds + 1):
            for name, program in COLD.items():
                command = [sys.executable, "-c", program.format(model=MODEL, text=text)]
                started = time.perf_counter()
                subprocess.run(command, check=True, cwd=ROOT, env=environment)
                if number:  # the first compiles, and reads what the system has not kept yet
                    took[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=21_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=1_000_000, help="over which memory is watched")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if not MODEL.is_dir():
        sys.exit(f"the shared data is not at {SHARED} (set BRIDGE_SHARED)")
    if options.quick:
        options.questions, options.rounds, options.calls = 300, 3, 3000
    texts = list(islice(questions(), options.questions))
    calls = ways()
    for call in calls.values():
        for text in texts[:100]:
            call(text)
    took = latencies(calls, texts, options.rounds)
    bare = took["Tokenizer.encode"]
    print(f"{len(texts):,} questions of {WORDS} words, {options.rounds} rounds\n\n| | p50 µs | of Tokenizer.encode |\n"
          "| --- | ---: | ---: |")  # fmt: skip
    for name, medians in took.items():
        ratio = statistics.median(own / least for own, least in zip(medians, bare, strict=True))
        print(f"| {name} | {statistics.median(medians):.1f} | {ratio:.2f} |")
    rewrite = calls["QueryRewriter.rewrite"]
    pairs = [(rate(rewrite, texts, 1), rate(rewrite, texts, THREADS)) for _ in range(options.rounds)]
    alone, together = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(many / one for one, many in pairs)
    print(f"\none thread: {alone:,.0f} calls/s; {THREADS} threads: {together:,.0f} ({ratio:.2f} times)")
    seen = [memory("VmRSS") / 1e6]
    for number in range(options.calls):
        rewrite(texts[number % len(texts)])
        if (number + 1) % (options.calls // 5) == 0:
            seen.append(memory("VmRSS") / 1e6)
    print(f"memory after each fifth of {options.calls:,} calls: {', '.join(f'{one:.1f}' for one in seen)} MB")
    seconds = cold(texts[0].replace('"', ""), options.rounds)
    print(f"a fresh process to its first query: {seconds['bridge']:.3f} s, bare {seconds['bare']:.3f} s "
          f"({seconds['bridge'] / seconds['bare']:.2f} times)")  # fmt: skip


if __name__ == "__main__":
    main()
