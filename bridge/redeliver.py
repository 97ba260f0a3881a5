"""Dead letters, tried again: what goes in leaves the file, the rest stays with its new reason."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bridge.engines import Engine
from bridge.errors import SourceError, UsageError
from bridge.ingest import IngestOptions, IngestSummary, ingest
from bridge.records import Report
from bridge.sources import SourceOptions, open_letters
from bridge.sources.letters import Letter, letters, letters_file

SUFFIX = ".dead-letter.jsonl"


def index_of(path: Path) -> str:
    """The index that a dead-letter file is named after.

    Raises:
        UsageError: its name does not say.
    """
    name = path.name.removesuffix(SUFFIX)
    if name == path.name or not name:
        raise UsageError(f"{path} does not say which index its documents are for; name it with --index")
    return name


def read_letters(path: Path, shown: int) -> tuple[int, Counter[str], list[Letter]]:
    """How many letters there are, how many of each kind of reason, and the first `shown` of them.

    Raises:
        SourceError: the file cannot be read, or holds something else.
    """
    count, kinds, first = 0, Counter[str](), list[Letter]()
    for letter in letters(letters_file(path)):
        count += 1
        kinds[_kind(letter.reason)] += 1
        if len(first) < shown:
            first.append(letter)
    return count, kinds, first


def _kind(reason: str) -> str:
    """A reason without what is this document's alone: quoted values and numbers in the middle."""
    words = reason.split("'")
    return "'…'".join(words[::2])[:120]


def redeliver(
    engine: Engine,
    index: str,
    path: Path,
    options: IngestOptions,
    source_options: SourceOptions,
    *,
    say: Callable[[str], None] = lambda line: None,
    report: Report = lambda progress: None,
) -> IngestSummary:
    """Ingest the documents of the dead-letter file `path` into `index` again.

    Those that go in are no longer in the file afterwards; the others are, with the reason of this time. Broken
    off, the file is as it was, and the same call goes on: what is in the index is recognised.

    Raises:
        IndexNotFound: there is no such index.
        SourceError: the file cannot be read or written.
        EngineError: as `bridge.ingest.ingest` does.
    """
    engine.require_index(index)
    rest = path.with_name(path.name + ".rest")
    with open_letters(path, source_options) as source:
        size = source.bytes_total or 0
        summary = ingest(engine, index, source, replace(options, dead_letter=rest), say=say, report=report)
    try:
        # What another run has added meanwhile is not lost.
        if path.stat().st_size > size:
            with path.open("rb") as grown, rest.open("ab") as file:
                grown.seek(size)
                shutil.copyfileobj(grown, file)
        if rest.is_file():
            rest.replace(path)
        else:
            path.unlink()
    except OSError as error:
        raise SourceError(
            f"{path} cannot be replaced by {rest}: {error.strerror}; {rest} holds what is left"
        ) from error
    return replace(summary, dead_letter=str(path) if summary.dead else None)
