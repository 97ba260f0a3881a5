"""The options of commands that read documents, and what they come to."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.common import SectionOption, State, all_of
from bridge.errors import ModelMismatch, SourceError, UsageError

if TYPE_CHECKING:
    from bridge.sources import Source, SourceOptions
    from bridge.vectorfile import VectorMeta

_option = partial(click.option, cls=SectionOption, section="The documents")

feed_options = all_of(
    _option("--version-field", metavar="FIELD",
            help="The field that holds a document's version, a whole number: an older one never replaces a newer one."),
    _option("--delete-field", metavar="FIELD",
            help="The field that says, where it is true, that the document is to be deleted."),
)  # fmt: skip
"""What a feed of changes says of a document besides its content."""

id_options = all_of(
    _option("--id-field", default="_id", show_default=True, metavar="FIELD", help="The field that holds the id."),
    _option("--id-from", type=click.Choice(["field", "content"]), default="field", show_default=True,
            help="Take ids from a field, or make them from the content."),
)  # fmt: skip
"""Where a document's id comes from."""

source_options = all_of(
    id_options,
    _option("--id-template", metavar="TEMPLATE", help="Make ids of several fields: '{site}-{number}'."),
    _option("--where", metavar="CONDITION",
            help="Only the documents of which this holds: 'lang == \"en\" and year >= 2020'. A field alone has to be "
            "there; also !=, <, <=, >, in [..], contains, not, or, parentheses."),
    _option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N documents."),
    _option("--set", "assign", multiple=True, metavar="FIELD=TEMPLATE",
            help="Set a field from others: 'text={headline}. {body}'; may be repeated."),
    _option("--drop", multiple=True, metavar="FIELD", help="Leave a field out; may be repeated."),
    feed_options,
    _option("--readers", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N",
            help="Files that are opened, fetched and decompressed at a time, ahead of the parsing."),
)  # fmt: skip

_NAMES = (
    "id_field", "id_from", "id_template", "where", "limit", "assign", "drop", "version_field", "delete_field",
    "readers",
)  # fmt: skip


def chosen_source(options: dict[str, Any]) -> SourceOptions:
    """The values of `source_options`, or of those of them that the command has.

    Raises:
        UsageError: one cannot be understood, or two contradict each other.
    """
    from bridge.sources import SourceOptions

    return SourceOptions(**{name: options[name] for name in _NAMES if name in options})


def of_vectors(options: SourceOptions) -> SourceOptions:
    """`options` for files of vectors, whose ids and fields have places of their own.

    Raises:
        UsageError: fields are to be changed.
    """
    from bridge.vectorfile import ID_FIELD

    if options.assign or options.drop or options.id_template:
        raise UsageError(
            "the documents of a vector file are as they were encoded; --set, --drop and --id-template are options of "
            "that `bridge encode`"
        )
    return replace(options, id_field=ID_FIELD, id_from="field")


def described(source: Source) -> VectorMeta | None:
    """Whose vectors the files of `source` hold; None where they hold documents. Raises as `shared_meta` does."""
    from bridge.vectorfile import META_SUFFIX, shared_meta

    stored = [file.remote for file in source.files if file.remote]
    # Asking for each of thousands of files would take minutes, and vectors and documents do not go together.
    if not stored or stored[0].beside(META_SUFFIX) is None:
        return shared_meta([file.name for file in source.files])
    with TemporaryDirectory(prefix="bridge-meta-") as folder:
        names = [file.name for file in source.files if not file.remote]
        for file in stored:
            copy = Path(folder, file.name.replace("://", "/", 1))
            names.append(str(copy))
            if content := file.beside(META_SUFFIX):
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.with_name(copy.name + META_SUFFIX).write_bytes(content)
        try:
            return shared_meta(names)
        except (SourceError, ModelMismatch) as error:
            raise type(error)(re.sub(rf"{re.escape(folder)}/([^/]+)/", r"\1://", str(error))) from None


def say_matched(state: State, /, source: Source) -> None:
    """Of how many documents the condition held, where there was one."""
    if source.matched and source.matched[1]:
        matched, of = source.matched
        state.say(f"{matched:,} of {of:,} documents match the condition")
