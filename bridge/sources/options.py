"""How a source is read: which of its documents, in what shape, and by what they are known."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from typing import Literal

import msgspec

from bridge.errors import UsageError
from bridge.sources.shape import Shape, Template
from bridge.sources.where import Condition, parse_where


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where a document's id comes from, which documents are read, and what becomes of their fields.

    Every name of a field may be a dotted path, but for `id_field`.

    Raises:
        UsageError: a condition or a template cannot be understood, or two options contradict each other.
    """

    id_field: str = "_id"
    """The field that holds the id; it is taken out of the document."""
    id_from: Literal["field", "content"] = "field"
    """The field, or a hash of the document's content."""
    id_template: str | None = None
    """Makes the id of several fields, which stay in the document: ``{site}-{number}``."""
    where: str | None = None
    """Only documents of which this holds are the source's: see `bridge.sources.where`."""
    limit: int | None = None
    """The most documents."""
    drop: tuple[str, ...] = ()
    """Fields that are left out."""
    assign: tuple[str, ...] = ()
    """Fields that are set, as ``FIELD=TEMPLATE``: see `bridge.sources.shape`."""
    version_field: str | None = None
    """Holds the external version, which stays in the document."""
    delete_field: str | None = None
    """Says, where it is true, that the document is to be deleted."""
    readers: int = 1
    """Files that are opened and decompressed at a time, ahead of the one that is parsed."""
    condition: Condition | None = field(init=False, repr=False, compare=False)
    shape: Shape | None = field(init=False, repr=False, compare=False)
    identity: Template | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"a limit is at least one document, not {self.limit}")
        if self.readers < 1:
            raise UsageError(f"there is at least one reader, not {self.readers}")
        if self.id_template is not None and (self.id_from == "content" or self.id_field != "_id"):
            raise UsageError("an id is made from a template, a field or the content: name one of the three")
        if self.delete_field is not None and self.id_from == "content":
            raise UsageError("ids from the content cannot say what to delete; --delete-field needs ids from a field")
        made = object.__setattr__
        made(self, "condition", None if self.where is None else parse_where(self.where))
        made(self, "shape", Shape.parse(self.drop, self.assign))
        made(self, "identity", self._identity())

    def _identity(self) -> Template | None:
        if self.id_template is None:
            return None
        template = Template.parse(self.id_template)
        if not template.fields:
            raise UsageError(f"the template {self.id_template!r} names no field: every document would have that id")
        return template

    @property
    def taken(self) -> str:
        """The field that is no part of the document: the id's, or ``_id``, which engines refuse in there."""
        return self.id_field if self.id_from == "field" else "_id"

    def digest(self) -> bytes:
        """What these options make of a source: alike where they give the same documents, empty for the defaults."""
        changed = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.init and one.name != "readers" and getattr(self, one.name) != getattr(_PLAIN, one.name)
        }
        return hashlib.sha256(msgspec.json.encode(changed, order="sorted")).digest() if changed else b""

    def unread(self) -> frozenset[str]:
        """Fields that are left out and that nothing else looks at: a format may pass over them."""
        looked_at = [template for _, template in self.shape.assign] if self.shape else []
        looked_at += [self.identity] if self.identity else []
        paths = {path for template in looked_at for path in template.fields}
        paths |= {path for path in (self.id_field, self.version_field, self.delete_field, "_op") if path}
        heads = {head for path in paths for head in _heads(path)}
        return frozenset() if self.where else frozenset(self.drop) - heads


def _heads(path: str) -> list[str]:
    """What a field may be called that `path` begins in: a name may hold dots itself."""
    steps = path.split(".")
    return [".".join(steps[: count + 1]) for count in range(len(steps))]


_PLAIN = SourceOptions()
