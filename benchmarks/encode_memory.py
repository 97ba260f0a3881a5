"""Whether `bridge encode` takes more memory for more documents.

    python benchmarks/encode_memory.py                         MiniLM's size, up to 20,000 passages; half an hour
    python benchmarks/encode_memory.py --documents 500 2000 --ways bridge-int8

Each run is a `bridge encode` of its own over the first passages of msdocs100k, of all lengths, with random weights of
which about 150 entries a text are active. Its peak is the kernel's (VmHWM), told at its end; what it was for a single
short text, the model loaded and every weight touched, is taken off.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.encode import ROOT, SHARED, SIZES, WAYS, make_model, read_texts

OWN = [way for way in WAYS if way.startswith("bridge-")]
PROGRAM = """
import sys
from benchmarks.encode import memory
from bridge.cli import main
try:
    main()
finally:
    print("peak", memory("VmHWM"), file=sys.stderr)
"""


def peak(folder: Path, source: Path) -> int:
    """Bytes at most, of one `bridge encode` of `source`."""
    command = [sys.executable, "-c", PROGRAM, "encode", str(source), "-o", str(source.with_suffix(".vectors.jsonl"))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--model", str(folder), "--fresh"], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr.strip())
    return int(done.stderr.strip().splitlines()[-1].removeprefix("peak "))


def sources(home: Path, counts: list[int]) -> dict[int, Path]:
    """A file of so many passages each; the one of a single text is short."""
    found = {count: home / f"{count}.jsonl" for count in counts}
    corpus = SHARED / "data" / "corpora" / "msdocs100k" / "corpus.jsonl.gz"
    for count, path in found.items():
        with gzip.open(corpus, "rt", encoding="utf-8") as lines, path.open("w", encoding="utf-8") as out:
            out.writelines(islice(lines, count))
    found[1] = home / "1.jsonl"
    found[1].write_text(json.dumps({"_id": "one", "text": "two words"}) + "\n")
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="minilm")
    parser.add_argument("--ways", nargs="+", choices=OWN, default=OWN)
    parser.add_argument("--documents", nargs="+", type=int, default=[500, 4000, 20000])
    options = parser.parse_args()
    from bridge.export import export

    print(f"| {options.size}'s size | the model loaded | {' | '.join(f'{n:,} documents' for n in options.documents)} |")
    print(f"| --- | ---: |{' ---: |' * len(options.documents)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = home / "torch"
        make_model(model, SIZES[options.size], read_texts(8)[0])
        files = sources(home, options.documents)
        for way in options.ways:
            asked = model
            if way != "bridge-torch":
                asked = home / way
                export(model, asked, int8=way == "bridge-int8")
            loaded = peak(asked, files[1])
            above = [f"{(peak(asked, files[count]) - loaded) / 1e6:+.0f} MB" for count in options.documents]
            print(f"| {WAYS[way]} | {loaded / 1e6:.0f} MB | {' | '.join(above)} |", flush=True)


if __name__ == "__main__":
    main()
