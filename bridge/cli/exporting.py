"""`bridge export`: a model as an ONNX folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from bridge.cli.common import BridgeCommand, State, pass_state


@click.command(cls=BridgeCommand, short_help="Write a model as a folder that runs without torch.")
@click.argument("model")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="A new or empty folder."
)
@click.option("--onnx", is_flag=True, help="As ONNX: the form that there is.")
@click.option("--int8", is_flag=True, help="Quantised: several times as fast on a CPU, and a little less exact.")
@click.option("--revision", metavar="REV", help="Of a Hugging Face repository.")
@click.option("--allow-pickle", is_flag=True, help="Read pytorch_model.bin, restricted to tensors.")
@pass_state
def export(
    state: State, /, model: str, output: Path, onnx: bool, int8: bool, revision: str | None, allow_pickle: bool
) -> int:
    """Write MODEL, sparse or dense, as a folder that runs without torch.

    The folder is a model like any other: name it where a model is asked for. An index made with MODEL takes the
    unquantised folder as the same model; an int8 one makes documents of its own, and may query those of MODEL.

    \b
    bridge export opensearch-project/opensearch-neural-sparse-encoding-doc-v2-mini -o mini --onnx --int8
    bridge ingest articles articles.jsonl --model mini
    """  # fmt: skip
    from bridge.errors import UsageError
    from bridge.export import export as run

    if not onnx:
        raise UsageError("bridge export writes ONNX: say so with --onnx")
    found = run(model, output, int8=int8, revision=revision, allow_pickle=allow_pickle)
    if state.json:
        state.out(asdict(found) | {"folder": str(found.folder)})
        return 0
    click.echo(
        f"{found.folder}: {found.precision}, {found.size / 1e6:,.0f} MB, {found.fingerprint}; against {model}: "
        f"largest difference {found.difference:.1e}, lowest cosine {found.cosine:.5f}"
    )
    return 0
