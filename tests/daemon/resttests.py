"""OpenSearch's YAML REST tests, which all of its clients are tested with, run over its official Python client.

A test is run twice, directly and through something; `differences` says where the two went apart. What differs by its
nature (times, ids that the engine makes up) is left out of the comparison, and nothing else.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from opensearchpy import OpenSearch, OpenSearchWarning, TransportError, Urllib3HttpConnection

from bridge.node import NodePaths
from bridge.node.artifacts import fetch_all, read_lock

LOCK = Path(__file__).parent.parent / "nodes" / "locks" / "rest-tests.lock.json"

_RENAMED = {"type": "doc_type", "from": "from_"}
"""Parameters that are words of Python."""
_CAUGHT = {
    "bad_request": (400,), "unauthorized": (401,), "forbidden": (403,), "missing": (404,), "request_timeout": (408,),
    "conflict": (409,), "request": range(400, 600), "unavailable": (503,),
}  # fmt: skip
_FEATURES = {
    "allowed_warnings", "arbitrary_key", "close_to", "contains", "default_shards", "gtelte", "headers", "stash_in_path",
    "warnings",
}  # fmt: skip
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class RestTest:
    """One test of a file, with what goes before and after it."""

    name: str
    setup: list[Any]
    steps: list[Any]
    teardown: list[Any]

    @property
    def indices(self) -> set[str]:
        """The names that may be an index's."""
        return {name for name in _words([self.setup, self.steps]) if re.fullmatch(r"[a-z][a-z0-9._-]*", name)}


@dataclass
class Went:
    """How a test went."""

    outcome: str = ""
    answers: list[tuple[Any, ...]] = field(default_factory=list)
    """Method, path, status, headers and body of each."""


def stored_tests() -> Path:
    """The archive of the tests, as their makers publish it, fetched into the cache that nodes come from."""
    return next(iter(fetch_all(read_lock(LOCK), NodePaths.default().store).values()))


def load(where: Path, parts: frozenset[str]) -> list[RestTest]:
    """The tests of an archive, or of a folder, whose folder is one of `parts`; all of them where there is none."""
    return [test for name, text in _files(where) if not parts or name.split("/")[0] in parts
            for test in _tests(name, text)]  # fmt: skip


def _files(where: Path) -> Iterator[tuple[str, str]]:
    if where.is_dir():
        for path in sorted(where.glob("*/*.yml")):
            yield path.relative_to(where).as_posix(), path.read_text(encoding="utf-8")
        return
    with zipfile.ZipFile(where) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".yml") and "/test/" in name:
                yield name.partition("/test/")[2], archive.read(name).decode()


def _tests(name: str, text: str) -> Iterator[RestTest]:
    found = [pair for document in yaml.safe_load_all(text) for pair in (document or {}).items()]
    around = dict(found)
    for title, steps in found:
        if title not in ("setup", "teardown"):
            yield RestTest(f"{name}: {title}", around.get("setup") or [], steps or [], around.get("teardown") or [])


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from value.split(",")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _words(key)
            yield from _words(one)
    elif isinstance(value, list):
        for one in value:
            yield from _words(one)


class Skipped(Exception):
    """A test that is not for this engine, or not for this runner."""


class Recording(Urllib3HttpConnection):
    """The client's own connection; `answers` is what came over it."""

    answers: list[tuple[Any, ...]]

    def perform_request(self, method: str, url: str, *rest: Any, **how: Any) -> Any:
        try:
            status, headers, raw = super().perform_request(method, url, *rest, **how)
        except TransportError as error:
            said = json.dumps(error.info, separators=(",", ":"), default=str)
            self.answers.append((method, url, error.status_code, {}, said))
            raise
        self.answers.append((method, url, status, dict(headers), raw))
        return status, headers, raw


class Runner:
    """Runs tests against one URL, and leaves nothing behind."""

    def __init__(self, url: str) -> None:
        self._answers: list[tuple[Any, ...]] = []

        class Connection(Recording):
            answers = self._answers

        # Each request is sent once, so that what was answered is what the test saw.
        self._client = OpenSearch(url, connection_class=Connection, max_retries=0, timeout=60)
        version = self._client.info()["version"]["number"]
        self._version = tuple(int(part) for part in version.split("."))
        self._kept = set(self._client.indices.get(index="*", expand_wildcards="all"))
        self._said: Any = None
        self._stash: dict[str, Any] = {}

    def close(self) -> None:
        self._client.close()

    def run(self, test: RestTest) -> Went:
        """One test, from a clean cluster to a clean cluster."""
        went = Went()
        self._stash.clear()
        self._answers.clear()
        try:
            for number, step in enumerate([*test.setup, *test.steps]):
                ((kind, what),) = step.items()
                try:
                    getattr(self, f"_{kind}")(what)
                except Skipped as skipped:
                    went.outcome = f"skipped: {skipped}"
                    break
                except (AssertionError, TypeError, KeyError, IndexError, AttributeError, TransportError) as error:
                    went.outcome = f"failed at step {number} ({kind}): {type(error).__name__} {str(error)[:300]}"
                    break
            else:
                went.outcome = "passed"
        finally:
            went.answers = list(self._answers)
            self._clean(test)
        return went

    def _clean(self, test: RestTest) -> None:
        for step in test.teardown:
            for what in step.values():
                try:
                    self._do(dict(what))
                except (AssertionError, TypeError, TransportError):
                    continue
        client = self._client
        client.delete_pit(all_pits=True) if hasattr(client, "delete_pit") and "pit" in test.name else None
        for name in set(client.indices.get(index="*", expand_wildcards="all")) - self._kept:
            client.indices.delete(index=name, ignore=404)
        for name in client.indices.get_template():
            client.indices.delete_template(name=name)
        for one in client.indices.get_index_template()["index_templates"]:
            client.indices.delete_index_template(name=one["name"])
        for name in client.ingest.get_pipeline(ignore=404):
            client.ingest.delete_pipeline(id=name)

    # Steps

    def _skip(self, what: Mapping[str, Any]) -> None:
        features = what.get("features", [])
        wanted = re.split(r",\s*", features) if isinstance(features, str) else features
        if missing := set(wanted) - _FEATURES:
            raise Skipped(f"it needs {', '.join(sorted(missing))}")
        if version := what.get("version"):
            low, _, high = str(version).partition("-")
            if version == "all" or _number(low, (0,)) <= self._version <= _number(high, (999,)):
                raise Skipped(str(what.get("reason")))

    def _do(self, what: Mapping[str, Any]) -> None:
        more = dict(what)
        catch, headers = more.pop("catch", None), more.pop("headers", None)
        expected, allowed = more.pop("warnings", []), more.pop("allowed_warnings", [])
        more.pop("node_selector", None)
        # Some tests name several, one after the other, where one is meant.
        for name, arguments in more.items():
            self._call(name, arguments, catch, headers, expected, allowed)

    def _call(
        self, name: str, arguments: Any, catch: Any, headers: Any, expected: Sequence[str], allowed: Sequence[str]
    ) -> None:
        call: Any = self._client
        for part in name.split("."):
            call = getattr(call, part)
        given = {_RENAMED.get(key, key): self._filled(value) for key, value in (arguments or {}).items()}
        if isinstance(wait := given.get("timeout"), str) and (found := re.fullmatch(r"(\d+)(ms|s|m)", wait)):
            given["timeout"] = int(found[1]) * _UNITS[found[2]]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self._said = call(**given, headers=headers)
            except TypeError:
                if catch != "param":
                    raise
            except TransportError as error:
                if catch is None:
                    raise
                self._said = error.info
                _is(error, catch)
            else:
                assert catch is None, f"it was answered, and not refused: {catch}"
        said = {str(one.message) for one in caught if one.category is OpenSearchWarning} - set(allowed)
        assert not expected or said == set(expected), (said, expected)

    def _set(self, what: Mapping[str, str]) -> None:
        for path, name in what.items():
            self._stash[name] = self._found(path)

    def _match(self, what: Mapping[str, Any]) -> None:
        for path, wanted in what.items():
            wanted = self._filled(wanted)
            if wanted is None:
                try:
                    found = self._found(path)
                except (AssertionError, KeyError):
                    continue
                assert found is None, (path, found)
            elif isinstance(wanted, str) and re.fullmatch(r"\s*/.*/\s*", wanted, re.DOTALL):
                found = self._found(path)
                assert re.search(wanted.strip()[1:-1], found, re.VERBOSE | re.MULTILINE), (path, found, wanted)
            else:
                found = self._found(path)
                same = found == wanted or (isinstance(found, float) and str(found) == str(wanted))
                assert same, (path, found, wanted)

    def _length(self, what: Mapping[str, Any]) -> None:
        for path, wanted in what.items():
            assert len(self._found(path)) == self._filled(wanted), path

    def _is_true(self, path: str) -> None:
        assert self._found(path) not in ("", None, False, 0, "false"), path

    def _is_false(self, path: str) -> None:
        try:
            found = self._found(path)
        except (AssertionError, KeyError):
            return
        assert found in ("", None, False, 0, "false"), (path, found)

    def _contains(self, what: Mapping[str, Any]) -> None:
        for path, wanted in what.items():
            found, wanted = self._found(path), self._filled(wanted)
            assert any(one == wanted or (isinstance(wanted, dict) and wanted.items() <= one.items()) for one in found)

    def _gt(self, what: Mapping[str, Any]) -> None:
        assert all(self._found(path) > self._filled(value) for path, value in what.items()), what

    def _gte(self, what: Mapping[str, Any]) -> None:
        assert all(self._found(path) >= self._filled(value) for path, value in what.items()), what

    def _lt(self, what: Mapping[str, Any]) -> None:
        assert all(self._found(path) < self._filled(value) for path, value in what.items()), what

    def _lte(self, what: Mapping[str, Any]) -> None:
        assert all(self._found(path) <= self._filled(value) for path, value in what.items()), what

    def _close_to(self, what: Mapping[str, Any]) -> None:
        for path, wanted in what.items():
            assert abs(self._found(path) - wanted["value"]) <= wanted["error"], path

    # Values

    def _filled(self, value: Any) -> Any:
        """With what earlier steps have set aside."""
        if isinstance(value, dict):
            return {self._filled(key): self._filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        if not isinstance(value, str) or "$" not in value:
            return value
        if value.startswith("$") and (name := value[1:].strip("{}")) in self._stash:
            return self._stash[name]
        return re.sub(r"\$\{(\w+)\}", lambda found: str(self._stash.get(found[1], found[0])), value)

    def _found(self, path: str) -> Any:
        value = self._said
        if path in ("$body", ""):
            return value
        for part in re.split(r"(?<!\\)\.", str(path)):
            step = self._filled(part.replace("\\.", "."))
            if step == "_arbitrary_key_":
                return next(iter(value))
            if isinstance(value, list):
                assert int(step) < len(value), path
                value = value[int(step)]
            elif step:
                assert isinstance(value, dict) and step in value, path  # noqa: PT018
                value = value[step]
        return value


def _is(error: TransportError, wanted: str) -> None:
    """That a request was refused as it should be."""
    if wanted.startswith("/"):
        assert re.search(wanted[1:-1], json.dumps(error.info, ensure_ascii=False)), (wanted, error.info)
    else:
        assert error.status_code in _CAUGHT[wanted], (wanted, error.status_code)


def _number(text: str, otherwise: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip().split(".")) if text.strip() else otherwise


_VARYING = re.compile(
    r"""(?x)
    "(?:took|ingest_took|number_of_pending_tasks|total_opening_millis|creation_time|creation_date|time_in_nanos|expiration_time_in_millis)":"?\d+"?
    | "(?:_scroll_id|pit_id|id|uuid|index_uuid|_node|node)":"[^"]*"
    | "_id":"[\w-]{20}"                       # one that the engine made up
    | "[a-z_]*_in_(?:nanos|millis)":\d+ | "[a-z_]*(?:_t|T)ime":"[\d.]+\w+"
    | \[[\w-]{22}\]\[                         # a node's name
    | "_shard":"[^"]*" | "time":\d+ | "breakdown":\{[^}]*\}
    | (?<=Automaton)@[0-9a-f]+                # an object's place in the engine's memory
    """
)
_MADE_UP = re.compile(r"/[\w-]{20}(?=[/?]|$)|/_search/scroll/[^?]*|scroll_id=[^&]*|localhost:\d+|127\.0\.0\.1:\d+")
_OF_THE_HOP = {"content-length", "date"}
"""Of an answer whose varying values have other lengths."""


def differences(direct: Went, through: Went) -> list[str]:
    """Where two runs of one test went apart."""
    found = [] if direct.outcome == through.outcome else [f"{direct.outcome} directly, but {through.outcome}"]
    if len(direct.answers) != len(through.answers):
        found.append(f"{len(direct.answers)} answers directly, but {len(through.answers)}")
    for a, b in zip(map(_plain, direct.answers), map(_plain, through.answers), strict=False):
        if a != b:
            found.append(f"{a}\n  but {b}")
    return found


def _plain(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    method, path, status, headers, body = answer
    kept = {key.lower(): value for key, value in headers.items() if key.lower() not in _OF_THE_HOP}
    if "location" in kept:
        kept["location"] = _MADE_UP.sub("", kept["location"])
    text = body if isinstance(body, str) else str(body)
    return method, _MADE_UP.sub("", path.partition("//")[2].partition("/")[2]), status, kept, _VARYING.sub("", text)
