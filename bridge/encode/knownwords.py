"""Words whose token ids are known: of a plain question there is nothing left to tokenize.

What BERT's tokenizers make of a text of ASCII's printable characters they make of each of its words alone: they split
at spaces and take punctuation apart, and nothing else. So the ids of what stands between its spaces, put together, are
the text's, and most words of a question have been asked before. The tokenizer itself says what a word's are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_WORDS = 65_536
"""That are known at once, some 10 MB; then it begins anew."""
LONGEST = 2_000
"""Characters of a text; longer ones have many words that are never asked again."""
LONGEST_WORD = 64
"""Characters of a word, with the punctuation that stands at it; what is longer is none."""


class KnownWords:
    """The ids of plain texts. Safe to share between threads.

    Args:
        tokenizer: with truncation and padding off.
        content: its file's.
    """

    def __init__(self, tokenizer: Tokenizer, content: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, Sequence[int]] = {}
        kinds = [(content.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
        added = [entry["content"] for entry in content.get("added_tokens", [])]
        # An added token is found in a text before it is split.
        self._no_words = {token[:1] for token in added}
        self._usable = kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"] and not any(
            one.isalnum() or not one.isascii() or not one.strip() for one in self._no_words
        )

    def ids(self, text: str) -> list[int] | None:
        """As the tokenizer's without special tokens; None where it is to be asked itself."""
        if not (self._usable and len(text) <= LONGEST and text.isascii() and text.isprintable()):
            return None
        words = text.split()
        # It only grows, until there is another.
        known = self._ids
        try:
            return list(chain.from_iterable([known[word] for word in words]))
        except KeyError:
            new = list({word for word in words if word not in known})
            if max(map(len, new)) > LONGEST_WORD or not self._no_words.isdisjoint("".join(new)):
                return None
        if len(known) + len(new) > MOST_WORDS:
            known, new = {}, list(set(words))
            self._ids = known
        found = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        known.update((word, tuple(one.ids)) for word, one in zip(new, found, strict=True))
        return list(chain.from_iterable([known[word] for word in words]))
