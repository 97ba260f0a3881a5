"""Where a model's tokens stand in a text: what `chunk` and `conversation` ask of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Span(NamedTuple):
    """A token that a text's own words give, and where it stands there: from character `start` to before `end`."""

    token: str
    start: int
    end: int


class TokenOffsets(Protocol):
    """A tokenizer that never truncates nor pads, and leaves out the special tokens that it would add."""

    @property
    def special(self) -> int:
        """How many special tokens the model's input adds to a text: 2 for ``[CLS] … [SEP]``."""
        ...

    def ids(self, text: str) -> Sequence[int]:
        """The ids of the text's tokens, in reading order."""
        ...

    def starts(self, text: str) -> Sequence[int]:
        """The position in `text`, in characters, where each of those tokens starts; never descending."""
        ...


class TokenizerOffsets:
    """A Hugging Face tokenizer as `TokenOffsets`.

    Args:
        tokenizer: copied, so that truncation and padding that others switch on do not reach in here.
        special: what the model's input adds to a text; by default what the tokenizer adds to one alone.
    """

    def __init__(self, tokenizer: Tokenizer, *, special: int | None = None) -> None:
        self._tokenizer = deepcopy(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.special: int = self._tokenizer.num_special_tokens_to_add(is_pair=False) if special is None else special

    def ids(self, text: str) -> list[int]:
        # The fast form keeps no offsets, which is a sixth of the work.
        ids: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def starts(self, text: str) -> list[int]:
        return [start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets]


class PromptedOffsets:
    """The tokens of texts that a model reads with `prompt` before each; the prompt's own count as special."""

    def __init__(self, tokenizer: TokenOffsets, prompt: str) -> None:
        self._tokenizer, self._prompt = tokenizer, prompt
        self._own = len(tokenizer.ids(prompt))
        self.special: int = tokenizer.special + self._own

    def ids(self, text: str) -> Sequence[int]:
        # Tokenized together, as the model gets them: a tokenizer may join what stands at the seam.
        return self._tokenizer.ids(self._prompt + text)[self._own :]

    def starts(self, text: str) -> list[int]:
        found = self._tokenizer.starts(self._prompt + text)[self._own :]
        return [max(start - len(self._prompt), 0) for start in found]


@dataclass(frozen=True, slots=True)
class TokenWindow:
    """What a model reads of a query: its tokens, how many of them, and what stands between two texts in one input."""

    tokenizer: TokenOffsets
    max_tokens: int | None
    """Special tokens counted; None for any number."""
    separator: str
    """The model's separator token."""
