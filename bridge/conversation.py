"""Turns ─▶ the text that a query encoder reads.

`flatten` is the form that the DiSCo encoders were trained on (Lupart et al., "DiSCo: LLM Knowledge
Distillation for Efficient Sparse Retrieval in Conversational Search", SIGIR 2025), as on their cards::

    q_n [SEP] a_{n-1} [SEP] q_{n-1} [SEP] … [SEP] a_0 [SEP] q_0

Newest first, so that a truncation at the end takes the oldest turns. `plain` makes a question for any
other encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bridge.errors import UsageError
from bridge.offsets import TokenOffsets
from bridge.records import Turn

Form = Literal["last", "all", "rewrite"]


SEPARATOR = " [SEP] "
"""Between the turns of a DiSCo input: BERT's separator token."""


def as_turns(turns: Sequence[Turn | tuple[str, str | None]]) -> list[Turn]:
    """`turns` as records.

    Raises:
        UsageError: one is not a question with its answer, or None in the answer's place.
    """
    found = []
    for turn in turns:
        pair = (turn.question, turn.answer) if isinstance(turn, Turn) else turn
        if (
            not isinstance(pair, (tuple, list))
            or len(pair) != 2
            or not isinstance(pair[0], str)
            or not isinstance(pair[1], str | None)
        ):
            raise UsageError(f"a turn is (question, answer), with None for no answer; not {turn!r}")
        found.append(Turn(*pair))
    return found


def flatten(
    turns: Sequence[Turn],
    *,
    separator: str = SEPARATOR,
    max_tokens: int | None = None,
    tokenizer: TokenOffsets | None = None,
) -> str:
    """`turns`, oldest first, as a conversational query encoder's input, newest first.

    The last question is the query; an answer to it is not known yet, and is left out. So are missing and
    blank answers and blank earlier questions, with their separators.

    Args:
        separator: what stands between two texts; the model's separator token.
        max_tokens: the model's longest input, special tokens counted. The text ends where its tokens do;
            the encoder would cut the same off. Where ending there would change the last word's tokens,
            that word stays whole for the encoder to cut.
        tokenizer: the model's; needed with `max_tokens`.

    Raises:
        UsageError: there is no question, or `max_tokens` comes without a tokenizer or leaves no room.
    """
    question, budget = _question(turns), _budget(max_tokens, tokenizer)
    parts = [question]
    for turn in reversed(turns[:-1]):
        parts += [text for text in (turn.answer, turn.question) if text and text.strip()]
    text = separator.join(parts)
    return text if tokenizer is None or budget is None else _first_tokens(text, tokenizer, budget)


def plain(
    turns: Sequence[Turn],
    form: Form = "last",
    *,
    rewrite: str | None = None,
    max_tokens: int | None = None,
    tokenizer: TokenOffsets | None = None,
) -> str:
    """`turns`, oldest first, as a question for an encoder that knows nothing of conversations.

    Args:
        form: ``last``, the last question; ``all``, every question, oldest first, with spaces between; or
            ``rewrite``, the given one.
        rewrite: the last question in words that need no context.
        max_tokens: for ``all``, the encoder's longest input, special tokens counted: the oldest questions
            that do not fit are left out, because the encoder would cut the newest.
        tokenizer: the model's; needed with `max_tokens`.

    Raises:
        UsageError: there is no question, no rewrite where one was asked for, an unknown form, or `max_tokens`
            comes without a tokenizer or leaves no room.
    """
    budget = _budget(max_tokens, tokenizer)
    if form == "rewrite":
        if not rewrite or not rewrite.strip():
            raise UsageError("there is no rewrite of the question")
        return rewrite
    question = _question(turns)
    if form == "last":
        return question
    if form != "all":
        raise UsageError(f"form {form!r} is not known; it is one of last, all, rewrite")
    asked = [turn.question for turn in turns if turn.question.strip()]
    if tokenizer is not None and budget is not None:
        asked = _newest(asked, tokenizer, budget)
    return " ".join(asked)


def _question(turns: Sequence[Turn]) -> str:
    question = turns[-1].question if turns else ""
    if not question.strip():
        raise UsageError("the conversation has no last question")
    return question


def _budget(max_tokens: int | None, tokenizer: TokenOffsets | None) -> int | None:
    """How many tokens of text there may be; None for any number."""
    if max_tokens is None:
        return None
    if tokenizer is None:
        raise UsageError("max_tokens needs the model's tokenizer")
    budget = max_tokens - tokenizer.special
    if budget < 1:
        raise UsageError(f"max_tokens is {max_tokens}; {tokenizer.special} special tokens leave no room for text")
    return budget


def _first_tokens(text: str, tokenizer: TokenOffsets, budget: int) -> str:
    """`text` up to the end of its token number `budget`, or of the word that holds it."""
    starts = tokenizer.starts(text)
    if len(starts) <= budget:
        return text
    end = starts[budget]
    wanted = list(tokenizer.ids(text)[:budget])
    # Word pieces are found from the left, so that the start of a word keeps its pieces. The merges of other
    # tokenizers look at the whole word, and a space may be a token there.
    for kept in (text[:end].rstrip(), text[:end]):
        if list(tokenizer.ids(kept)) == wanted:
            return kept
    while end < len(text) and not text[end].isspace():
        end += 1
    return text[:end]


def _newest(asked: list[str], tokenizer: TokenOffsets, budget: int) -> list[str]:
    """The last questions that fit together; always the very last."""
    kept, count = len(asked), 0
    while kept:
        count += len(tokenizer.ids(asked[kept - 1]))
        if count > budget and kept < len(asked):
            break
        kept -= 1
    return asked[kept:]
