"""The options of hybrid search, wherever questions are asked."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.common import SectionOption, all_of
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.hybrid import Hybrid

_option = partial(click.option, cls=SectionOption, section="Hybrid search")

hybrid_options = all_of(
    _option("--hybrid", metavar="PARTS",
            help="What is asked beside the sparse fields, each with a weight if wanted: bm25, or bm25^0.5,dense. "
            "sparse^0 leaves the sparse fields out."),
    _option("--fusion", type=click.Choice(["linear", "rrf"]), default="linear", show_default=True,
            help="linear: the weighted mean of the parts' scores, each brought to 0..1; rrf: reciprocal ranks."),
    _option("--fuse", "place", type=click.Choice(["auto", "engine", "client"]), default="auto", show_default=True,
            help="Who fuses the parts: the engine in one search, or bridge after one for each; auto is the engine "
            "where it can."),
    _option("--depth", type=click.IntRange(1, 10_000), default=100, show_default=True, metavar="N",
            help="How many hits of each part are fused."),
    _option("--rank-constant", type=click.IntRange(1, 10_000), default=60, show_default=True, metavar="K",
            help="Of rrf: a hit counts 1/(K + its rank)."),
    _option("--pipeline", metavar="NAME",
            help="Let this search pipeline of an OpenSearch fuse, with its own weights."),
    _option("--dense", metavar="MODEL",
            help="The dense encoder: a folder or a Hugging Face id; by default the one that the index was filled "
            "with."),
)  # fmt: skip


def hybrid_of(options: dict[str, Any]) -> Hybrid | None:
    """What the options say; None without `--hybrid`."""
    from bridge.hybrid import read_hybrid

    if options["hybrid"] is None:
        named = [f"--{name}" for name in ("pipeline", "dense") if options[name]]
        if named:
            raise UsageError(f"{named[0]} is for a hybrid search: name its parts with --hybrid")
        return None
    return read_hybrid(
        options["hybrid"],
        fusion=options["fusion"],
        where=options["place"],
        depth=options["depth"],
        rank_constant=options["rank_constant"],
        pipeline=options["pipeline"],
    )
