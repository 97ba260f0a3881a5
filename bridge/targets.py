"""Which vector fields a query asks, and what the score of each counts.

Several fields, or one with a boost, are the parts of one `bool`: a document's score is the sum of theirs. Fields of
the same nested passages are summed passage by passage, and the best passage counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.dialects import Dialect, boosted, check, default_dialect, passages
from bridge.dialects.features import Query
from bridge.errors import UsageError
from bridge.records import Product
from bridge.tokens import Kind

_KINDS: tuple[Kind, ...] = ("rank_features", "sparse_vector")
_DENSE = ("knn_vector", "dense_vector")


@dataclass(frozen=True, slots=True)
class Target:
    """A vector field.

    Attributes:
        path: its full path.
        kind: its type in the mapping.
        dialect: how it is asked.
        boost: what its score is multiplied with.
        nested_path: the nested field that it is in, for passages.
    """

    path: str
    kind: Kind
    dialect: Dialect
    boost: float = 1.0
    nested_path: str | None = None

    @property
    def name(self) -> str:
        """Its name in what holds it: a document, or a passage."""
        return self.path.removeprefix(f"{self.nested_path}.") if self.nested_path else self.path

    @property
    def outermost(self) -> str:
        """What holds the vectors in a document's `_source`."""
        return self.nested_path or self.path


def read_field(text: str) -> tuple[str, float]:
    """The field and the boost that ``field`` or ``field^boost`` names.

    Raises:
        UsageError: no field, or a boost that is no number above zero.
    """
    name, mark, number = text.rpartition("^")
    if not mark:
        name, number = text, "1"
    try:
        boost = float(number)
    except ValueError:
        boost = math.nan
    if not name or not (0 < boost < math.inf):
        raise UsageError(f"{text!r} is not a field: it looks like embedding, or title_embedding^2")
    return name, boost


def vector_fields(mappings: Mapping[str, Any]) -> dict[str, tuple[Kind, str | None]]:
    """Full path ─▶ kind, and the nested field that it is in, of every sparse vector field of an index's mappings."""
    return dict(_found(mappings, "", None, _KINDS))


def unasked(mappings: Mapping[str, Any], targets: Iterable[Target]) -> tuple[str, ...]:
    """The full paths of an index's vector fields, dense ones too, that are not among `targets`."""
    asked = {target.path for target in targets}
    return tuple(path for path, _ in _found(mappings, "", None, (*_KINDS, *_DENSE)) if path not in asked)


def _found(
    holder: Mapping[str, Any], prefix: str, nested: str | None, kinds: tuple[Any, ...]
) -> Iterator[tuple[str, tuple[Kind, str | None]]]:
    for name, field in (holder.get("properties") or {}).items():
        path, kind = f"{prefix}{name}", field.get("type")
        if kind in kinds:
            yield path, (kind, nested)
        elif "properties" in field:
            yield from _found(field, f"{path}.", path if kind == "nested" else nested, kinds)


def targets_of(
    mappings: Mapping[str, Any],
    index: str,
    asked: Iterable[tuple[str, float]],
    product: Product,
    version: tuple[int, ...],
    dialect: Dialect | None = None,
) -> tuple[Target, ...]:
    """The fields `asked` for, by path and boost, as the index's mappings know them.

    Raises:
        UsageError: the index has no such field, or it is asked twice.
        UnsupportedByEngine: `dialect` does not ask a field of that kind.
    """
    known = vector_fields(mappings)
    found: dict[str, Target] = {}
    for path, boost in asked:
        if path not in known:
            there = ", ".join(known) or "none"
            raise UsageError(f"index {index} has no sparse vector field {path!r}; those that it has: {there}")
        if path in found:
            raise UsageError(f"field {path!r} is asked twice; give it one boost")
        kind, nested = known[path]
        spoken = dialect or default_dialect(product, version, kind)
        check(spoken, product, version, kind)
        found[path] = Target(path, kind, spoken, boost, nested)
    return tuple(found.values())


def clause_for(
    targets: Sequence[Target], ask: Callable[[Target], Query], inner: Mapping[str, Any] | None = None
) -> Query:
    """One query clause over all `targets`.

    Args:
        targets: at least one.
        ask: the clause of one of them, without its boost.
        inner: the inner hits of the first nested field.
    """
    if len(targets) == 1 and targets[0].nested_path is None:
        return boosted(ask(targets[0]), targets[0].boost)
    groups: dict[str | None, list[Query]] = {}
    for target in targets:
        groups.setdefault(target.nested_path, []).append(boosted(ask(target), target.boost))
    parts: list[Query] = []
    for nested, clauses in groups.items():
        if nested is None:
            parts += clauses
        else:
            parts.append(passages.nested(nested, _any_of(clauses), inner))
            inner = None
    return _any_of(parts)


def _any_of(clauses: Sequence[Query]) -> Query:
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": list(clauses)}}
