"""What an encoder reads of a question, or of a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.encode import Encoder
from bridge.errors import UsageError
from bridge.offsets import TokenWindow
from bridge.records import Conversation, Turn

Text = str | Sequence[Turn | tuple[str, str | None]]
"""A query, or a conversation: turns, oldest first, whose last question is the query."""


def query_text(
    encoder: Encoder | None, text: Text, conversation: Conversation = "auto", *, rewritten: str | None = None
) -> str:
    """What `encoder` reads for `text`.

    A question is read as it stands. Of a conversation, with ``auto``, an encoder that was made for conversations
    (DiSCo) reads all turns in its own form, cut to its own length, the oldest first to go; another one reads
    `rewritten` if that is given, else the last question. ``disco`` forces the first; ``last``, ``all`` (every
    question, the oldest left out where they do not fit) and ``rewrite`` are forms for any encoder.

    Args:
        encoder: of queries; None where the cluster has it, which reads words alone.
        text: a question, or turns, oldest first.
        conversation: the form.
        rewritten: the last question in words that need no context, made by someone else.

    Raises:
        UsageError: there is no question, a turn is none, no `rewritten` where that form is asked for, or the
            encoder cannot read DiSCo's form.
    """
    if not isinstance(text, str):
        from bridge.conversation import as_turns

        turns = as_turns(text)
        text = turns[-1].question if turns else ""
        if text.strip():
            text = _asked(encoder, turns, conversation, rewritten)
    if not text.strip():
        raise UsageError("the query is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        # Bytes of a command line that are no UTF-8 come as lone surrogates, which no tokenizer takes.
        raise UsageError(f"the query is not Unicode text: {text!r}") from None
    return text


def _asked(encoder: Encoder | None, turns: Sequence[Turn], form: Conversation, rewritten: str | None) -> str:
    # Of conversations alone: a process that asks plain questions starts sooner without.
    from bridge.conversation import flatten, plain
    from bridge.models import find_card

    if form == "auto":
        card = find_card(encoder.name) if encoder else None
        made_for_it = card is not None and card.query == "conversation"
        form = "disco" if made_for_it else "rewrite" if rewritten else "last"
    window: TokenWindow | None = getattr(encoder, "query_window", None)
    if form == "disco":
        if window is None:
            raise UsageError(
                f"{f'model {encoder.name}' if encoder else 'what encodes in the cluster'} reads words, not turns with "
                "separators between them; ask with conversation last, all or rewrite"
            )
        separator = f" {window.separator} "
        return flatten(turns, separator=separator, max_tokens=window.max_tokens, tokenizer=window.tokenizer)
    if window is None:
        return plain(turns, form, rewrite=rewritten)
    return plain(turns, form, rewrite=rewritten, max_tokens=window.max_tokens, tokenizer=window.tokenizer)
