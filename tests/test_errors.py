"""The error tree: its picture is its code, and every leaf says how the command line ends."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

from bridge import errors
from bridge.errors import BridgeError, EngineError, MissingExtra


class Entry(NamedTuple):
    depth: int
    name: str
    exit_code: int
    retryable: bool


def drawn() -> list[Entry]:
    """The tree in the module's docstring, line by line."""
    assert errors.__doc__
    entries = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ((?:│   |    )*(?:├── |└── )?)(\w+) +exit (\d)(.*)", line)
        if found:
            branch, name, code, remark = found.groups()
            entries.append(Entry(len(branch) // 4, name, int(code), remark.strip().startswith("retryable")))
    return entries


def coded(parent: type[BridgeError] = BridgeError, depth: int = 0) -> list[Entry]:
    """The tree as the classes make it, children in the order of their definition."""
    entries = [Entry(depth, parent.__name__, parent.exit_code, parent.retryable)]
    for child in parent.__subclasses__():
        if child.__module__ == errors.__name__:
            entries += coded(child, depth + 1)
    return entries


def test_the_picture_is_the_code():
    assert drawn() == coded()


def test_the_picture_is_a_tree():
    """Each branch is drawn as what it is: the last child of its parent or not."""
    entries = drawn()
    assert errors.__doc__
    lines = [line for line in errors.__doc__.splitlines() if re.search(r"exit \d", line)]
    for place, (entry, line) in enumerate(zip(entries, lines, strict=True)):
        following = [later.depth for later in entries[place + 1 :]]
        last = entry.depth not in _until_below(following, entry.depth)
        if entry.depth:
            assert ("└── " if last else "├── ") in line, line


def _until_below(depths: list[int], depth: int) -> list[int]:
    below = next((place for place, found in enumerate(depths) if found < depth), len(depths))
    return depths[:below]


def test_every_error_is_in_the_tree():
    raised = {value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, BaseException)}
    assert {kind.__name__ for kind in raised} == {entry.name for entry in drawn()}


def test_every_error_says_what_it_is():
    for name in (entry.name for entry in drawn()):
        text = inspect.getdoc(getattr(errors, name))
        assert text, name
        assert text.splitlines()[0].endswith("."), name


def test_exit_codes_are_those_of_the_contract():
    codes = {entry.name: entry.exit_code for entry in drawn()}
    assert set(codes.values()) == {1, 2, 3, 4, 5}
    assert {name for name, code in codes.items() if code == 5} == {"ModelMismatch"}
    assert {name for name, code in codes.items() if code == 3} == {"DocumentError"}
    assert {name for name, code in codes.items() if code == 2} == {"UsageError", "SettingsError"}


def test_an_engine_error_keeps_its_status():
    assert EngineError("what", status=429).status == 429
    assert EngineError("what").status is None


def test_a_missing_extra_says_what_to_install():
    error = MissingExtra("evaluation", "eval")
    assert str(error) == 'evaluation needs the extra "eval": pip install "neural-sparse-bridge[eval]"'
    assert error.extra == "eval"
