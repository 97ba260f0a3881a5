"""API keys: what is kept of them, who they let in, and the commands that make them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from bridge.daemon.keys import KeyFile
from bridge.errors import SettingsError, UsageError

Bridge = Callable[..., tuple[int, str, str]]


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> KeyFile:
    return KeyFile(tmp_path / "deep" / "keys.json", clock)


def test_a_key_is_found_by_itself_and_the_file_does_not_hold_it(keys: KeyFile) -> None:
    presented, key = keys.add("reader", "read")
    assert keys.find(presented) == key
    content = keys.path.read_text()
    assert presented not in content
    assert presented.rpartition("_")[2] not in content
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert not [path for path in keys.path.parent.iterdir() if path != keys.path]


@pytest.mark.parametrize("scope", ["read", "write", "admin"])
def test_a_scope_includes_the_lesser_ones(keys: KeyFile, scope: str) -> None:
    ranks = ["read", "write", "admin"]
    _, key = keys.add("one", scope)  # type: ignore[arg-type]
    allowed = [rank for rank in ranks if key.allows(rank)]  # type: ignore[arg-type]
    assert allowed == ranks[: ranks.index(scope) + 1]


def test_what_is_not_the_key_finds_nothing(keys: KeyFile) -> None:
    presented, _ = keys.add("one", "admin")
    last = "A" if presented[-1] != "A" else "B"
    for wrong in (
        "",
        "nsb_",
        presented[:-1],
        presented + "A",
        presented[:-1] + last,
        presented.upper(),
        f" {presented}",
    ):
        assert keys.find(wrong) is None


def test_a_key_ends_when_it_is_said_to(keys: KeyFile, clock: Clock) -> None:
    presented, key = keys.add("one", "read", timedelta(hours=1))
    clock.now += 3599
    assert keys.find(presented) == key
    clock.now += 1
    assert keys.find(presented) is None


def test_a_change_by_another_process_is_noticed(keys: KeyFile, clock: Clock) -> None:
    other = KeyFile(keys.path, clock)
    presented, key = other.add("late", "read")
    clock.now += 3
    assert keys.find(presented) == key
    other.revoke(key.id)
    clock.now += 3
    assert keys.find(presented) is None


def test_a_file_that_is_spoiled_meanwhile_takes_no_key_away(keys: KeyFile, clock: Clock) -> None:
    presented, key = keys.add("one", "read")
    keys.path.write_text("{")
    clock.now += 3
    assert keys.find(presented) == key
    with pytest.raises(SettingsError, match="is not one of bridge keys"):
        KeyFile(keys.path, clock)


def test_a_file_that_is_not_there_lets_nobody_in(keys: KeyFile) -> None:
    assert keys.all() == []
    assert keys.find(f"nsb_{'0' * 12}_{'A' * 43}") is None


def test_what_cannot_be(keys: KeyFile) -> None:
    with pytest.raises(UsageError, match="needs a name"):
        keys.add(" ", "read")
    with pytest.raises(UsageError, match="has no key 0123"):
        keys.revoke("0123")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SettingsError, match="cannot be written"):
        KeyFile(tmp_path / "keys.json").add("one", "read")


def test_the_commands(bridge: Bridge) -> None:
    code, out, err = bridge("keys", "add", "writer", "--file", "keys.json", "--scope", "write", "--expires", "90d")
    assert code == 0, err
    presented = out.strip()
    key = KeyFile(Path("keys.json")).find(presented)
    assert key is not None
    assert (key.name, key.scope) == ("writer", "write")
    assert key.expires == key.created + timedelta(days=90)
    (row,) = json.loads(bridge("keys", "list", "--file", "keys.json", "--json")[1])
    assert row["id"] == key.id
    assert presented not in bridge("keys", "list", "--file", "keys.json")[1]
    assert bridge("keys", "revoke", key.id, "--file", "keys.json")[0] == 0
    assert KeyFile(Path("keys.json")).find(presented) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "x"), "name the file of keys"),
        (("add", "x", "--file", "k", "--expires", "soon"), "is no time"),
        (("add", "x", "--file", "k", "--expires", "0d"), "is no time"),
        (("revoke", "0123", "--file", "k"), "has no key 0123"),
    ],
)
def test_what_a_command_refuses(bridge: Bridge, words: tuple[str, ...], said: str) -> None:
    code, out, err = bridge("keys", *words)
    assert (code, out) == (2, "")
    assert said in err
