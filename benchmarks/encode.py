"""How fast documents become sparse vectors: several ways, side by side, on the same weights, texts and threads.

    python benchmarks/encode.py                      both model sizes, a few minutes
    python benchmarks/encode.py --quick              one round of few texts: does it run, and are the vectors the same
    python benchmarks/encode.py --peer-python PY     another interpreter for sentence-transformers' ONNX backend, where
                                                     its dependencies do not go together with those of the rest

Each way is a process of its own, which stays alive; rounds go over all of them in turn, so that what else the machine
does falls on all alike. Figures are medians over the rounds; ratios are medians of the ratios within a round. Weights
are random, their last bias shifted so that about 150 entries a text are active, as a trained model has. The texts are
passages of 64 to 256 tokens from msdocs100k.

"Share" is the arithmetic that a text needs (padding not counted) over what the processor did in a large float32
matrix product in the same round. Above 1 it means that less arithmetic was done, or not in float32.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("BRIDGE_SHARED", ROOT.parent / "shared"))
SIZES = {
    "distilbert": {"kind": "distilbert", "layers": 6, "hidden": 768},
    "minilm": {"kind": "bert", "layers": 6, "hidden": 384},
    "bert": {"kind": "bert", "layers": 12, "hidden": 768},
}
WAYS = {
    "st-torch": "sentence-transformers SparseEncoder, torch",
    "st-onnx": "sentence-transformers SparseEncoder, ONNX",
    "card": "model card's code: all logits, then max and log1p",
    "bridge-torch": "bridge, torch fp32",
    "bridge-onnx": "bridge, ONNX fp32",
    "bridge-int8": "bridge, ONNX int8",
}
REFERENCE = "st-torch"
VOCABULARY, ACTIVE, BATCH = 30_522, 150, 32

Encode = Callable[[list[str]], Any]


def read_texts(count: int) -> tuple[list[str], list[int]]:
    """Passages of 64 to 256 tokens, and how many tokens each has."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(SHARED / "data" / "bert-uncased" / "tokenizer.json"))
    texts, lengths = [], []
    with gzip.open(SHARED / "data" / "corpora" / "msdocs100k" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in islice(lines, 20 * count):
            document = json.loads(line)
            text = f"{document.get('title', '')} {document['text']}".strip()
            length = len(tokenizer.encode(text).ids)
            if 64 <= length <= 256 and len(texts) < count:
                texts.append(text)
                lengths.append(length)
    return texts, lengths


def make_model(folder: Path, size: dict[str, Any], texts: list[str]) -> None:
    """A random masked language model with its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(0)
    hidden, layers = size["hidden"], size["layers"]
    if size["kind"] == "distilbert":
        config: Any = transformers.DistilBertConfig(dim=hidden, n_layers=layers, n_heads=12, hidden_dim=4 * hidden)
    else:
        config = transformers.BertConfig(hidden_size=hidden, num_hidden_layers=layers, intermediate_size=4 * hidden)
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(SHARED / "data" / "bert-uncased" / "tokenizer.json"),
        mask_token="[MASK]", model_max_length=512, **names,
    )  # fmt: skip
    with torch.inference_mode():
        best = torch.stack([model(**tokenizer(text, return_tensors="pt")).logits[0].amax(0) for text in texts[:8]])
    with torch.no_grad():
        model.get_output_embeddings().bias -= best.flatten().sort(descending=True).values[ACTIVE * len(best)]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # The name that every release of transformers knows.
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))


def flops(size: dict[str, Any], lengths: list[int]) -> float:
    """Multiplications and additions that the texts need."""
    hidden, layers = size["hidden"], size["layers"]
    token = 2 * (layers * 12 * hidden**2 + hidden**2 + hidden * VOCABULARY)
    return float(sum(length * token + layers * 4 * length**2 * hidden for length in lengths))


# --- one way, in a process of its own -----------------------------------------------------------------------------


def sentence_transformers(folder: str, backend: str, threads: int) -> Encode:
    from sentence_transformers import SparseEncoder

    more: dict[str, Any] = {}
    if backend == "onnx":
        import onnxruntime

        more["session_options"] = onnxruntime.SessionOptions()
        more["session_options"].intra_op_num_threads = threads
    model = SparseEncoder(folder, device="cpu", backend=backend, model_kwargs=more)
    return lambda texts: model.encode_document(
        texts, batch_size=BATCH, show_progress_bar=False, convert_to_sparse_tensor=True
    )


def card(folder: str) -> Encode:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()

    @torch.inference_mode()
    def encode(texts: list[str]) -> Any:
        found = []
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(texts[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
            batch.pop("token_type_ids", None)
            logits = model(**batch).logits
            weights = torch.log1p(torch.relu(logits)) * batch["attention_mask"].unsqueeze(-1)
            found.append(weights.max(dim=1).values.to_sparse())
        return torch.cat(found)

    return encode


def bridge(folder: str, threads: int) -> Encode:
    from bridge import load_encoder

    encoder = load_encoder(folder, threads=threads)
    return encoder.encode_document


def matrices(threads: int) -> Callable[[], float]:
    """GFLOP/s of a large float32 matrix product, the best of a few shapes."""
    import torch

    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    pairs = [(torch.randn(m, k), torch.randn(k, n)) for m, k, n in ((2048, 768, 3072), (2048, 2048, 2048))]

    def measure() -> float:
        best = 0.0
        for a, b in pairs:
            for _ in range(3):
                started = clock()
                torch.mm(a, b)
                best = max(best, 2 * a.shape[0] * a.shape[1] * b.shape[1] / (clock() - started) / 1e9)
        return best

    return measure


def table(found: Any, count: int) -> Any:
    """Vectors of whatever form as float32[n, V]."""
    if hasattr(found, "to_dense"):
        return found.to_dense().numpy()
    whole = np.zeros((count, VOCABULARY), dtype=np.float32)
    for row, vector in zip(whole, found, strict=True):
        row[vector.ids] = vector.weights
    return whole


def memory(name: str) -> int:
    """Bytes of this process, from the kernel: VmRSS now, VmHWM at most since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    return 0


def work(way: str, folder: str, texts_file: str, threads: int) -> None:
    """Answer each line of stdin with one line of JSON."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print does not belong to the answers
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
    texts = json.loads(Path(texts_file).read_text())
    measure = matrices(threads) if way == "sgemm" else None
    if measure is None:
        makers: dict[str, Callable[[], Encode]] = {
            "st-torch": lambda: sentence_transformers(folder, "torch", threads),
            "st-onnx": lambda: sentence_transformers(folder, "onnx", threads),
            "card": lambda: card(folder),
        }
        encode = makers.get(way, lambda: bridge(folder, threads))()
        encode([text[:80] for text in texts[:2]])  # touches every weight, with little else
        loaded = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        command = line.strip()
        answer: dict[str, Any] = {}
        if measure is not None:
            answer["gflops"] = measure()
        elif command == "run":
            started, spent = time.perf_counter(), time.process_time()
            found = encode(texts)
            answer |= {"seconds": time.perf_counter() - started, "cpu": time.process_time() - spent}
            del found
        elif command == "memory":
            answer["above"] = memory("VmHWM") - loaded
        else:
            np.save(command, table(encode(texts[:64]), len(texts[:64])))
        print(json.dumps(answer), file=out, flush=True)


class Worker:
    """A process that does one way's work."""

    def __init__(self, python: str, way: str, folder: Path, texts: Path, threads: int) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE",
        }  # fmt: skip
        command = [python, __file__, "--worker", way, str(folder), str(texts), str(threads)]
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(said[-1] if said else "it ended without a word")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(command, file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


# --- all of them ----------------------------------------------------------------------------------------------------


@contextmanager
def workers(asked: dict[str, tuple[str, Path]], texts: Path, threads: int) -> Iterator[dict[str, Worker]]:
    """The ways that start; what keeps another from it is said."""
    started = {}
    for way, (python, folder) in asked.items():
        worker = Worker(python, way, folder, texts, threads)
        try:
            worker.answer()
        except RuntimeError as error:
            print(f"  {way} is left out: {error}", file=sys.stderr)
            worker.close()
        else:
            started[way] = worker
    try:
        yield started
    finally:
        for worker in started.values():
            worker.close()


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All ways on one model size."""
    from bridge.export import export

    size = SIZES[name]
    texts, lengths = read_texts(24 if options.quick else options.texts)
    rounds = 1 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as home:
        model, listed = Path(home) / name, Path(home) / "texts.json"
        make_model(model, size, texts)
        listed.write_text(json.dumps(texts))
        folders = {"bridge-onnx": Path(home) / "onnx", "bridge-int8": Path(home) / "int8"}
        for way, folder in folders.items():
            export(model, folder, int8=way == "bridge-int8")
        asked = {
            way: (options.peer_python if way == "st-onnx" else sys.executable, folders.get(way, model))
            for way in WAYS
            if way in {REFERENCE, *options.ways}
        }
        asked["sgemm"] = sys.executable, model
        seconds: dict[str, list[float]] = {way: [] for way in asked}
        with workers(asked, listed, options.threads) as running:
            limits = []
            for _ in range(rounds):
                for way, worker in running.items():
                    answer = worker.ask("run")
                    if way == "sgemm":
                        limits.append(answer["gflops"])
                    else:
                        seconds[way].append(answer["cpu" if options.cpu_time else "seconds"])
            above = {way: one.ask("memory")["above"] for way, one in running.items() if way != "sgemm"}
            tables = {}
            for way, one in running.items():
                if way != "sgemm":
                    one.ask(f"{home}/{way}.npy")
                    tables[way] = np.load(f"{home}/{way}.npy")
    limit = statistics.median(limits)
    needed = flops(size, lengths) / 1e9
    rows = []
    for way, took in seconds.items():
        if not took:
            continue
        middle = statistics.median(took)
        ratios = [reference / own for reference, own in zip(seconds[REFERENCE], took, strict=True)]
        rows.append(
            {
                "way": way,
                "documents_s": len(texts) / middle,
                "tokens_s": sum(lengths) / middle,
                "ratio": statistics.median(ratios),
                "share": statistics.median(needed / own / top for own, top in zip(took, limits, strict=True)),
                "memory_mb": above[way] / 1e6,
                "difference": float(np.abs(tables[way] - tables[REFERENCE]).max()),
                "cosine": float(cosines(tables[way], tables[REFERENCE]).min()),
            }
        )
    return {
        "size": name, "texts": len(texts), "tokens": sum(lengths), "rounds": rounds, "threads": options.threads,
        "gflops": limit, "active": float((tables[REFERENCE] > 0).sum(1).mean()), "ways": rows,
    }  # fmt: skip


def cosines(a: Any, b: Any) -> Any:
    """Between the rows."""
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9)


def show(found: dict[str, Any]) -> None:
    """One size's figures as a table in Markdown."""
    print(
        f"\n{found['size']}: {found['texts']} texts, {found['tokens']:,} tokens, {found['active']:.0f} active entries, "
        f"{found['threads']} threads, {found['rounds']} rounds; float32 limit {found['gflops']:.0f} GFLOP/s\n"
    )
    print("| | documents/s | tokens/s | ratio | share | memory above weights | largest difference | lowest cosine |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in found["ways"]:
        print(
            f"| {WAYS[row['way']]} | {row['documents_s']:.1f} | {row['tokens_s']:,.0f} | {row['ratio']:.2f} "
            f"| {row['share']:.2f} | {row['memory_mb']:.0f} MB | {row['difference']:.1e} | {row['cosine']:.4f} |"
        )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["distilbert", "minilm"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help=f"beside {REFERENCE}")
    parser.add_argument("--texts", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="on a machine that does other work; with --threads 1")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peer-python", default=sys.executable)
    options = parser.parse_args()
    if not (SHARED / "data").is_dir():
        sys.exit(f"the shared data is not at {SHARED} (set BRIDGE_SHARED)")
    for name in options.size:
        found = compare(name, options)
        print(json.dumps(found)) if options.json else show(found)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main()
