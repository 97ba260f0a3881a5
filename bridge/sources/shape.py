"""Another shape for a source's documents: fields made from templates, fields left out.

A template is text with fields in braces, as in ``{headline}. {body}``; a brace itself is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import DocumentError, UsageError
from bridge.sources.fields import kind, put, reach, strings, without

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[^{}]+|[{}]")


@dataclass(frozen=True, slots=True)
class Template:
    """A template's pieces: (True, a field's path) or (False, text)."""

    text: str
    pieces: tuple[tuple[bool, str], ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises UsageError where a brace has no other, or holds no name; says at which character."""
        pieces: list[tuple[bool, str]] = []
        for match in _PIECE.finditer(text):
            piece = match[0]
            if piece in ("{{", "}}"):
                pieces.append((False, piece[0]))
            elif piece in ("{", "}"):
                other = "is not closed" if piece == "{" else "closes nothing"
                raise UsageError(
                    f"the template {text!r}: the brace at character {match.start() + 1} {other}; "
                    f"a brace in the text is written twice, {piece * 2}"
                )
            elif match[1] is None:
                pieces.append((False, piece))
            elif not match[1].strip():
                raise UsageError(f"the template {text!r}: the braces at character {match.start() + 1} name no field")
            else:
                pieces.append((True, match[1]))
        return cls(text, tuple(pieces))

    @property
    def fields(self) -> list[str]:
        """The paths of the fields that it names."""
        return [piece for named, piece in self.pieces if named]

    def value(self, fields: Mapping[str, Any]) -> Any:
        """What it comes to in a document; None where none of its fields is there.

        A field alone keeps its value as it is. Among others it becomes text: lists are joined by newlines, numbers
        and booleans are written as in JSON, and what is missing is empty. Without any field it is its own text.

        Raises:
            DocumentError: a field among others is an object.
        """
        if len(self.pieces) == 1 and self.pieces[0][0]:
            found = list(reach(fields, self.pieces[0][1]))
            return found[0] if len(found) == 1 else found or None
        parts, found_any = [], not self.fields
        for named, piece in self.pieces:
            if not named:
                parts.append(piece)
                continue
            texts = self._texts(fields, piece)
            found_any = found_any or bool(texts)
            parts.append("\n".join(texts))
        return "".join(parts) if found_any else None

    def _texts(self, fields: Mapping[str, Any], path: str) -> list[str]:
        try:
            return [text for value in reach(fields, path) for text in strings(path, value)]
        except DocumentError:
            raise DocumentError(f"the template {self.text!r}: {path} is an object; name a field in it") from None

    def identity(self, fields: Mapping[str, Any]) -> str:
        """What it comes to as an id: each of its fields has to be a string or a whole number.

        Raises:
            DocumentError: one is not.
        """
        parts = []
        for named, piece in self.pieces:
            if not named:
                parts.append(piece)
                continue
            match list(reach(fields, piece)):
                case [str() as text] if text:
                    parts.append(text)
                case [int() as number] if not isinstance(number, bool):
                    parts.append(str(number))
                case []:
                    raise DocumentError(f"no id: field {piece} of the template {self.text!r} is missing")
                case [value]:
                    lack = "empty" if value == "" else str(value) if isinstance(value, float) else kind(value)
                    raise DocumentError(
                        f"no id: field {piece} of the template {self.text!r} is {lack}, not a string or a whole number"
                    )
                case _:
                    raise DocumentError(f"no id: field {piece} of the template {self.text!r} has several values")
        return "".join(parts)


@dataclass(frozen=True, slots=True)
class Shape:
    """What is left out of a document, and then what is set in it; templates read the document as it was."""

    drop: tuple[str, ...]
    assign: tuple[tuple[str, Template], ...]

    @classmethod
    def parse(cls, drop: Sequence[str], assign: Sequence[str]) -> Shape | None:
        """From names, and from ``FIELD=TEMPLATE``; None where there is neither.

        Raises:
            UsageError: one cannot be understood, or sets what is no field.
        """
        return cls(tuple(_dropped(drop)), tuple(_assigned(assign))) if drop or assign else None

    def of(self, fields: Mapping[str, Any], source: dict[str, Any]) -> dict[str, Any]:
        """`source`, the document to be, in this shape; `fields` is the document as it was read.

        Raises:
            DocumentError: a template or a name does not go with this document.
        """
        for path in self.drop:
            source = without(source, path)
        for path, template in self.assign:
            value = template.value(fields)
            if value is not None:
                source = put(source, path, value)
        return source


def _dropped(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if not name.strip():
            raise UsageError("the name of a field to leave out is empty")
        yield name


def _assigned(assignments: Sequence[str]) -> Iterator[tuple[str, Template]]:
    seen: set[str] = set()
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        path = path.strip()
        if not sign or not path:
            raise UsageError(f"{assignment!r} sets no field; write FIELD=TEMPLATE, as in 'title={{headline}}'")
        if path == "_id":
            raise UsageError("an id is made with --id-template, not by setting _id")
        if path == "_op":
            raise UsageError("_op cannot be set; see --delete-field")
        if path in seen:
            raise UsageError(f"field {path} is set twice")
        seen.add(path)
        yield path, Template.parse(text)
