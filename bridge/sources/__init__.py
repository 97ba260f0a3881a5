"""Reading the user's sources: a stream of `Doc | DeadLetter`, one for each document that is there.

::

    specs ─▶ files ─▶ streams (decompress, split) ─▶ jsonl | delimited | parquet ─▶ documents ─▶ items

Everything is streamed: memory depends on the longest record, not on the source.
"""

from bridge.sources.documents import Item, content_hash, text_of
from bridge.sources.files import FORMS, SourceFile
from bridge.sources.options import SourceOptions
from bridge.sources.reading import Source, open_letters, open_source

__all__ = [
    "FORMS",
    "Item",
    "Source",
    "SourceFile",
    "SourceOptions",
    "content_hash",
    "open_letters",
    "open_source",
    "text_of",
]
