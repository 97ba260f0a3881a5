"""What `bridge search --explain` and `--html` show of a hit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.cli.common import all_of
from bridge.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from bridge.explain import Explained

SHOWN_WORDS = 4

explain_options = all_of(
    click.option("--explain", is_flag=True,
                 help="Show for each hit what every token made of its score, and the words that carry it."),
    click.option("--explained-by", type=click.Choice(["vectors", "engine"]),
                 help="What says so: the stored vectors, or the engine's own explanation. Default: the engine where it "
                 "encodes the question, else the vectors."),
    click.option("--html", type=click.Path(path_type=Path), metavar="FILE",
                 help="Write the hits as a page, with the words marked that carry tokens of the question."),
)  # fmt: skip


def explained_table(name: str, hit: Explained) -> Table:
    """A row a token, the heaviest part first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{name}  {hit.score:.4f}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for column in ("token", "in the query", "in the document", "made", "of all", "in the text"):
        table.add_column(column, justify="left" if column in ("token", "in the text") else "right")
    for match, share in hit.shares:
        table.add_row(
            Text(match.token), f"{match.query_weight:.4f}", f"{match.document_weight:.4f}",
            f"{match.contribution:.4f}", f"{100 * share:.1f} %", Text(_words(hit, match.token)),
        )  # fmt: skip
    return table


def _words(hit: Explained, token: str) -> str:
    """The text's words that carry a token, each once."""
    if hit.text is None:
        return ""
    found = [hit.text[mark.start : mark.end] for mark in hit.marks if any(one.token == token for one in mark.tokens)]
    words = list(dict.fromkeys(found))
    return ", ".join(words[:SHOWN_WORDS]) + (f", +{len(words) - SHOWN_WORDS}" if len(words) > SHOWN_WORDS else "")


def write_page(path: Path, question: str, index: str, hits: Sequence[tuple[str, Explained]]) -> None:
    """Write the page of `--html`.

    Raises:
        UsageError: it cannot be written there.
    """
    from bridge.explain import page

    try:
        path.write_text(page(question, index, hits), "utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
