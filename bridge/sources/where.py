"""Which documents of a source are meant: a small language for conditions on their fields.

::

    any        all ("or" all)*
    all        negation ("and" negation)*
    negation   "not" negation | "(" any ")" | test
    test       operand [("==" | "!=" | "<" | "<=" | ">" | ">=" | ["not"] "in" | ["not"] "contains") operand]
    operand    FIELD | STRING | NUMBER | true | false | null | "[" literal, … "]"

A field with several values (a list, a path through a list of objects) passes a test where one of them does. A missing
field is null. Against a number, a string that is a number counts as one: CSV has nothing but strings.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.errors import UsageError
from bridge.sources.fields import reach

MAX_DEPTH = 50
"""Parentheses and negations inside each other."""

_NAME = r"(?:`[^`]+`|[^\W\d][\w@$-]*|[@$][\w@$-]*)"
_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.-]))
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<name>{_NAME}(?:\.(?:`[^`]+`|[\w@$-]+))*)
    | (?P<sign>[=!<>]=|<(?!>)|>|[()\[\],])
    | (?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
_WORDS = ("and", "or", "not", "in", "contains")
_CONSTANTS = {"true": True, "false": False, "null": None}
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBER = re.compile(r"\s*-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\s*", re.ASCII)
_MEANT = {"=": "==", "&": "and", "|": "or", "!": "not", "~": "contains", "<>": "!="}

Fields = Mapping[str, Any]


class Condition(Protocol):
    """What a document is or is not."""

    def holds(self, fields: Fields) -> bool:
        """Whether a document of these fields is so."""
        ...


class _Operand(Protocol):
    def raw(self, fields: Fields) -> list[Any]:
        """Its values; a list in the document is one of them."""
        ...


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Any

    def raw(self, fields: Fields) -> list[Any]:
        del fields
        return [self.value]


@dataclass(frozen=True, slots=True)
class _Field:
    path: str

    def raw(self, fields: Fields) -> list[Any]:
        return list(reach(fields, self.path))


@dataclass(frozen=True, slots=True)
class _All:
    parts: tuple[Condition, ...]

    def holds(self, fields: Fields) -> bool:
        return all(part.holds(fields) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Any:
    parts: tuple[Condition, ...]

    def holds(self, fields: Fields) -> bool:
        return any(part.holds(fields) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Not:
    part: Condition

    def holds(self, fields: Fields) -> bool:
        return not self.part.holds(fields)


@dataclass(frozen=True, slots=True)
class _There:
    """The field has a value that is neither null, nor false, nor empty."""

    field: _Operand

    def holds(self, fields: Fields) -> bool:
        found = _flat(self.field, fields)
        return any(value is not None and value is not False and value not in ("", {}) for value in found)


@dataclass(frozen=True, slots=True)
class _Equal:
    left: _Operand
    right: _Operand

    def holds(self, fields: Fields) -> bool:
        lefts, rights = _values(self.left, fields), _values(self.right, fields)
        return any(_equal(left, right) for left in lefts for right in rights)


@dataclass(frozen=True, slots=True)
class _Order:
    sign: str
    left: _Operand
    right: _Operand

    def holds(self, fields: Fields) -> bool:
        compare = _ORDERS[self.sign]
        pairs = (
            _comparable(left, right) for left in _values(self.left, fields) for right in _values(self.right, fields)
        )
        return any(compare(*pair) for pair in pairs if pair)


@dataclass(frozen=True, slots=True)
class _Contains:
    """A list has the value as a member, or a string has it in itself."""

    whole: _Operand
    part: _Operand

    def holds(self, fields: Fields) -> bool:
        parts = _values(self.part, fields)
        return any(_contains(whole, part) for whole in self.whole.raw(fields) for part in parts)


def _flat(operand: _Operand, fields: Fields) -> Iterator[Any]:
    for value in operand.raw(fields):
        yield from _members(value)


def _members(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for member in value:
            yield from _members(member)
    else:
        yield value


def _values(operand: _Operand, fields: Fields) -> list[Any]:
    return list(_flat(operand, fields)) or [None]


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(whole, list | tuple):
        return any(_equal(member, part) for member in _members(whole))
    return isinstance(whole, str) and isinstance(part, str) and part in whole


def _equal(left: Any, right: Any) -> bool:
    if pair := _comparable(left, right):
        return bool(pair[0] == pair[1])
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _comparable(left: Any, right: Any) -> tuple[Any, Any] | None:
    """Both as numbers or both as strings, where they are."""
    if isinstance(left, str) and isinstance(right, str):
        return left, right
    if _is_number(left) and (other := _number(right)) is not None:
        return left, other
    if _is_number(right) and (other := _number(left)) is not None:
        return other, right
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value) or len(value) > 1_000:
            return None
        return int(value) if value.strip().lstrip("-").isdigit() else float(value)
    return value if _is_number(value) else None


def parse_where(expression: str) -> Condition:
    """The condition that `expression` states.

    Raises:
        UsageError: it cannot be understood; the message says what was expected, and marks the place with ▸.
    """
    return _Parser(expression).whole()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def word(self) -> str:
        """The word of the language that it is, or nothing."""
        return self.text.lower() if self.kind == "name" and self.text.lower() in (*_WORDS, *_CONSTANTS) else ""


class _Parser:
    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.depth = 0
        self.token = self._token_at(0)

    def whole(self) -> Condition:
        found = self._any()
        if self.token.kind != "end":
            raise self._wrong("expected and, or, or the end")
        return found

    def _any(self) -> Condition:
        parts = [self._all()]
        while self.token.word == "or":
            self._next()
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else _Any(tuple(parts))

    def _all(self) -> Condition:
        parts = [self._negation()]
        while self.token.word == "and":
            self._next()
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else _All(tuple(parts))

    def _negation(self) -> Condition:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._wrong(f"nested deeper than {MAX_DEPTH} levels")
        try:
            if self.token.word == "not":
                self._next()
                return _Not(self._negation())
            if self.token.text == "(":
                self._next()
                found = self._any()
                self._take(")")
                return found
            return self._test()
        finally:
            self.depth -= 1

    def _test(self) -> Condition:
        left = self._operand("a field or a value")
        sign = self.token.word or self.token.text
        negated = sign == "not"
        if negated:
            self._next()
            sign = self.token.word
            if sign not in ("in", "contains"):
                raise self._wrong("expected in or contains after not")
        found: Condition
        if sign in ("==", "!="):
            self._next()
            found, negated = _Equal(left, self._operand("a value")), sign == "!="
        elif sign in _ORDERS:
            self._next()
            found = _Order(sign, left, self._operand("a value"))
        elif sign == "in":
            self._next()
            found = _Contains(self._whole(), left)
        elif sign == "contains":
            self._next()
            found = _Contains(left, self._operand("a value"))
        elif isinstance(left, _Field):
            return _There(left)
        else:
            raise self._wrong("expected ==, !=, <, <=, >, >=, in or contains")
        return _Not(found) if negated else found

    def _whole(self) -> _Operand:
        """What something may be in."""
        token = self.token
        # As in SQL, too.
        found = self._list(")") if token.text == "(" else self._operand("a list or a field")
        if isinstance(found, _Literal) and not isinstance(found.value, list | str):
            raise self._wrong("expected a list or a field", token)
        return found

    def _operand(self, wanted: str) -> _Operand:
        token = self.token
        if token.text == "[":
            return self._list("]")
        if token.kind == "name" and not token.word:
            self._next()
            return _Field(token.text.replace("`", ""))
        return _Literal(self._literal(wanted))

    def _list(self, closing: str) -> _Literal:
        members: list[Any] = []
        self._next()
        while self.token.text != closing:
            members.append(self._literal("a value"))
            if self.token.text != closing:
                self._take(",")
        self._next()
        return _Literal(members)

    def _literal(self, wanted: str) -> Any:
        token = self.token
        value: Any
        if token.kind == "number":
            value = _number(token.text)
        elif token.kind == "string":
            value = _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), token.text[1:-1])
        elif token.word in _CONSTANTS:
            value = _CONSTANTS[token.word]
        else:
            hint = " (a field of that name is written in backticks)" if token.word else ""
            raise self._wrong(f"expected {wanted}{hint}")
        self._next()
        return value

    def _take(self, text: str) -> None:
        if self.token.text != text:
            raise self._wrong(f"expected {text}")
        self._next()

    def _next(self) -> None:
        self.token = self._token_at(self.token.start + len(self.token.text))

    def _token_at(self, start: int) -> _Token:
        match = _TOKEN.match(self.expression, start)
        if match is None:
            rest = self.expression[start:]
            at = start + len(rest) - len(rest.lstrip())
            raise self._wrong(self._slip(self.expression[at:]), _Token("", "", at))
        kind = match.lastgroup or "end"
        return _Token(kind, match[kind], match.start(kind))

    @staticmethod
    def _slip(rest: str) -> str:
        if rest[0] in "\"'`":
            return "the quote is not closed"
        meant = _MEANT.get(rest[:2]) or _MEANT.get(rest[0])
        if meant:
            return f"not understood; {meant} is meant?"
        return "not understood; a text is put in quotes, an unusual field name in backticks"

    def _wrong(self, what: str, token: _Token | None = None) -> UsageError:
        at = (token or self.token).start
        marked = f"{self.expression[:at]}▸{self.expression[at:]}"
        return UsageError(f"the condition cannot be understood at character {at + 1}, {what}: {marked}")
