"""A source that is broken off, for tests of what goes on after that."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.sources import Item, Source


class Interrupted(Source):
    """A source whose reader is interrupted (as by Ctrl-C) after so many items."""

    after = 0

    def read(self, skip: int = 0) -> Iterator[Item]:
        for count, item in enumerate(super().read(skip)):
            if count == self.after:
                raise KeyboardInterrupt
            yield item
