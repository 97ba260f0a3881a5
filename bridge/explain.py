"""Why a hit scored what it did: its tokens, and the words of its text that carry them.

The tokens of a score come from the stored vectors (`bridge.search`), or from the engine's own explanation, which needs
no stored vector and no query vector: `from_engine` reads it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import DocumentError
from bridge.offsets import Span
from bridge.records import Hit, PassageHit, TokenScore
from bridge.rewrite import QueryRewriter
from bridge.sources import text_of
from bridge.tokens import token_of_key

# As Lucene describes a linear function of a feature, in every version that has them.
_LINEAR = re.compile(r"Linear function on the .+ field for the (.+) feature, computed as w \* S from:", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of a text, from character `start` to before `end`, whose words carry tokens of the query."""

    start: int
    end: int
    tokens: tuple[TokenScore, ...]

    @property
    def contribution(self) -> float:
        """What its tokens made of the score, all of the text's own occurrences together."""
        return sum(token.contribution for token in self.tokens)


@dataclass(frozen=True, slots=True)
class Explained:
    """A text that was found, or the best passage of it, with the tokens of its score.

    `text` is None where the text fields are not known, or not in the hit's source; then there are no `marks`.
    """

    score: float
    matches: tuple[TokenScore, ...]
    text: str | None
    marks: tuple[Mark, ...]

    @property
    def shares(self) -> list[tuple[TokenScore, float]]:
        """Each token with its share of what all of them made."""
        total = sum(match.contribution for match in self.matches) or 1.0
        return [(match, match.contribution / total) for match in self.matches]

    def as_dict(self) -> dict[str, Any]:
        """The document that `bridge search --explain --json` prints for a hit."""
        places: dict[str, list[list[int]]] = {match.token: [] for match in self.matches}
        for mark in self.marks:
            for token in mark.tokens:
                places[token.token].append([mark.start, mark.end])
        tokens = [
            {
                "token": match.token,
                "query_weight": match.query_weight,
                "document_weight": match.document_weight,
                "contribution": match.contribution,
                "words": places[match.token],
            }
            for match in self.matches
        ]
        return {"score": self.score, "text": self.text, "tokens": tokens}

    def as_html(self) -> str:
        """The text with a ``<mark>`` around each word that carries tokens, the darker the more they made."""
        text, done, parts = self.text or "", 0, []
        most = max((mark.contribution for mark in self.marks), default=0.0) or 1.0
        for mark in self.marks:
            said = ", ".join(f"{token.token} {token.contribution:.3f}" for token in mark.tokens)
            share = 0.15 + 0.85 * max(0.0, mark.contribution) / most
            parts.append(html.escape(text[done : mark.start]))
            parts.append(
                f'<mark style="--share:{share:.2f}" title="{html.escape(said)}">'
                f"{html.escape(text[mark.start : mark.end])}</mark>"
            )
            done = mark.end
        return "".join([*parts, html.escape(text[done:])])


def explained(hit: Hit, rewriter: QueryRewriter) -> Explained:
    """A hit of `bridge.search.search` with ``matches``, which came with its fields.

    Where documents keep passages, or collapse, it is the best passage that is explained.
    """
    best: Hit | PassageHit = hit.passages[0] if hit.passages else hit
    text = best.text if isinstance(best, PassageHit) else known_text(best.source, rewriter.text_fields)
    matches = tuple(best.matches)
    spans = rewriter.encoder.spans(text) if text and rewriter.encoder else []
    return Explained(hit.score, matches, text, marks(spans, matches))


def marks(spans: Iterable[Span], matches: Sequence[TokenScore]) -> tuple[Mark, ...]:
    """The stretches whose tokens are among `matches`, in the text's order; those that overlap are one."""
    known = {match.token: match for match in matches}
    found: list[Mark] = []
    for span in sorted((span for span in spans if span.token in known), key=lambda span: (span.start, span.end)):
        token = known[span.token]
        if found and span.start < found[-1].end:
            last = found.pop()
            tokens = dict.fromkeys((*last.tokens, token))
            found.append(Mark(last.start, max(last.end, span.end), tuple(tokens)))
        elif span.end > span.start:
            found.append(Mark(span.start, span.end, (token,)))
    return tuple(found)


def from_engine(explanation: Mapping[str, Any], weights: Mapping[str, float]) -> tuple[TokenScore, ...]:
    """The tokens of a score, heaviest first, read off an engine's `_explanation`.

    Args:
        explanation: its tree of ``value``, ``description`` and ``details``.
        weights: the query's own, by token; where one is not known (the cluster encoded the query) it is what the
            engine says, boosts included.
    """
    made: dict[str, float] = {}
    said: dict[str, float] = {}
    left = [explanation]
    while left:
        node = left.pop()
        details = node.get("details") or []
        found = _LINEAR.fullmatch(str(node.get("description")))
        if not found:
            left += details
            continue
        # A name with a plain dot is a token as it stands: a key has none.
        token = found[1] if "." in found[1] else token_of_key(found[1])
        made[token] = made.get(token, 0.0) + float(node["value"])
        said.setdefault(token, float(details[0]["value"]))
    asked = {token: weights.get(token, said[token]) for token in made}
    scores = [TokenScore(token, asked[token], value / asked[token]) for token, value in made.items()]
    return tuple(sorted(scores, key=lambda score: -score.contribution))


def known_text(source: Mapping[str, Any], fields: Sequence[str]) -> str | None:
    """The text that was encoded; None where its fields are not known, or not in `source`."""
    try:
        return text_of(source, fields) if fields else None
    except DocumentError:
        return None


def page(question: str, index: str, hits: Iterable[tuple[str, Explained]]) -> str:
    """A page of hits, id and explanation each: the text with its words marked, and a table of the tokens."""
    return _PAGE.format(
        question=html.escape(question), index=html.escape(index), hits="".join(_section(*hit) for hit in hits)
    )


def _section(name: str, hit: Explained) -> str:
    rows = "".join(
        f"<tr><th scope=row>{html.escape(match.token)}<td>{match.query_weight:.4f}<td>{match.document_weight:.4f}"
        f"<td>{match.contribution:.4f}<td>{100 * share:.1f} %"
        f'<td><meter min=0 max=1 value="{share:.4f}" aria-label="share"></meter>'
        for match, share in hit.shares
    )
    table = f"<table><thead><tr>{_COLUMNS}<tbody>{rows}</table>" if rows else "<p>No token is known of this hit."
    title = f"<h2>{html.escape(name)} <small>{hit.score:.4f}</small></h2>"
    return f"<section>{title}<p class=text>{hit.as_html()}</p>{table}</section>"


_COLUMNS = "".join(
    f"<th scope=col>{name}" for name in ("token", "in the query", "in the document", "made", "of all", "")
)
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{question}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
mark {{ background: rgb(255 176 0 / calc(var(--share) * 0.75)); color: inherit; border-radius: 3px; padding: 0 1px }}
.text {{ white-space: pre-wrap }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: 0.1rem 0.8rem 0.1rem 0; text-align: right }}
th {{ text-align: left; font-weight: normal }}
thead th {{ font-size: 0.85rem }}
small {{ font-weight: normal }}
</style>
<h1>{question}</h1>
<p>The best hits of {index}. Marked words carry tokens of the query; what no word carries, the model added.</p>
{hits}
</html>
"""
