"""Judged queries on disk: a BEIR folder's, and conversations.

::

    queries.jsonl          {"_id", "text"}                                               a query a line
    conversations.jsonl    {"query_id", "question", "history": [{"question", "answer"}], "rewrite"}    a turn a line
    qrels/SPLIT.tsv        query-id, corpus-id, score, with tabs between

A turn's `history` are the turns before it, oldest first; `rewrite` is its question in words that need none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from bridge.errors import DocumentError, EvaluationError, SourceError, UsageError
from bridge.records import DeadLetter, Doc, Turn
from bridge.sources import SourceOptions, open_source, text_of

Qrels = Mapping[str, Mapping[str, int]]
Query = TypeVar("Query")
CONVERSATIONS_FILE = "conversations.jsonl"


@dataclass(frozen=True, slots=True)
class Judged:
    """Queries that have judgements: id ─▶ text, and id ─▶ document id ─▶ relevance."""

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question in its conversation: `turns` oldest first, the last one the question."""

    turns: tuple[Turn, ...]
    rewritten: str | None = None
    """The question in words that need no context."""


@dataclass(frozen=True, slots=True)
class JudgedConversations:
    """Questions of conversations that have judgements: id ─▶ question, and id ─▶ document id ─▶ relevance."""

    queries: dict[str, Asked]
    qrels: dict[str, dict[str, int]]

    def as_queries(self, text: Callable[[Asked], str]) -> Judged:
        """The same with each question as one text.

        Raises:
            EvaluationError: `text` raised `UsageError`; names the question.
        """
        queries = {}
        for query, asked in self.queries.items():
            try:
                queries[query] = text(asked)
            except UsageError as error:
                raise EvaluationError(f"the question {query}: {error}") from error
        return Judged(queries, self.qrels)


def read_judged(folder: Path, queries: Path | None = None, split: str = "test") -> Judged:
    """The judged queries of a BEIR folder: `queries.jsonl` (or `queries`) and `qrels/SPLIT.tsv`.

    Queries without a judgement are left out, those judged only irrelevant are kept, as is the standard.
    Raises `EvaluationError` for a file that is missing, empty or ill-formed, naming the line, and for
    judgements of a query that has no text.
    """
    return Judged(*_with_judgements(folder, queries or folder / "queries.jsonl", split, _read_queries))


def read_conversations(folder: Path, conversations: Path | None = None, split: str = "test") -> JudgedConversations:
    """The judged questions of a folder's `conversations.jsonl` (or `conversations`); see `read_judged`."""
    path = conversations or folder / CONVERSATIONS_FILE
    return JudgedConversations(*_with_judgements(folder, path, split, read_turns))


def _with_judgements(
    folder: Path, path: Path, split: str, read: Callable[[Path], dict[str, Query]]
) -> tuple[dict[str, Query], dict[str, dict[str, int]]]:
    qrels_path = folder / "qrels" / f"{split}.tsv"
    qrels = _read_qrels(qrels_path)
    found = read(path)
    if absent := [query for query in qrels if query not in found]:
        raise EvaluationError(f"{path}: lacks judged queries of {qrels_path}: {_some(absent)}")
    return {query: found[query] for query in qrels}, qrels


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for number, line in numbered_lines(path):
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) != 3 or not columns[0] or not columns[1]:
            raise EvaluationError(f"{path}:{number}: not three columns: query-id, corpus-id, score, tab between")
        query, document, text = columns
        try:
            relevance = int(text)
        except ValueError:
            if number == 1 and text.isidentifier():
                continue
            raise EvaluationError(f"{path}:{number}: the score {text!r} is not a whole number") from None
        if qrels.setdefault(query, {}).setdefault(document, relevance) != relevance:
            raise EvaluationError(f"{path}:{number}: judges {document} for {query} again, and differently")
    if not qrels:
        raise EvaluationError(f"{path}: holds no judgements")
    return qrels


def read_turns(path: Path) -> dict[str, Asked]:
    """Every question of a conversations file. Raises `EvaluationError`, naming the line."""
    found: dict[str, Asked] = {}
    for name, doc in _documents(path, "query_id"):
        turn = _turn_of(doc)
        history = tuple(Turn(one.question, one.answer) for one in turn.history)
        found[name] = Asked((*history, Turn(turn.question)), turn.rewrite)
    return found


class _Exchange(msgspec.Struct, frozen=True):
    question: str
    answer: str | None = None


class _Line(msgspec.Struct, frozen=True):
    question: str
    history: tuple[_Exchange, ...] = ()
    rewrite: str | None = None


def _turn_of(doc: Doc) -> _Line:
    try:
        return msgspec.convert(doc.source, _Line)
    except msgspec.ValidationError as error:
        raise EvaluationError(f"{doc.position}: not a turn of a conversation: {error}") from error


def _read_queries(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, doc in _documents(path, "_id"):
        try:
            texts[name] = text_of(doc.source, ("text",))
        except DocumentError as error:
            raise EvaluationError(f"{doc.position}: {error}") from error
    return texts


def _documents(path: Path, id_field: str) -> Iterator[tuple[str, Doc]]:
    """Each line with its id, one at least; no id comes twice."""
    seen: set[str] = set()
    try:
        with open_source([str(path)], SourceOptions(id_field=id_field)) as source:
            for item in source.read():
                if isinstance(item, DeadLetter) or item.id is None:
                    raise EvaluationError(f"{item.position}: {getattr(item, 'reason', 'no id')}")
                if item.id in seen:
                    raise EvaluationError(f"{item.position}: the query {item.id} comes twice")
                seen.add(item.id)
                yield item.id, item
    except SourceError as error:
        raise EvaluationError(str(error)) from error
    if not seen:
        raise EvaluationError(f"{path}: holds no queries")


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a small text file that are not blank, numbered from 1."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise EvaluationError(f"{path}:{line}: not UTF-8") from error
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _some(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")
