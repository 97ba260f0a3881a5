"""Parts of a migration that need no engine: who holds it, and what counts as the same vector."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import msgspec
import pytest

from bridge.errors import IndexConflict, SourceError, UsageError
from bridge.indexsource import IndexSpec, _next_size
from bridge.migration.checks import close
from bridge.migration.ledger import KEY, Entry, Letters, as_meta, check_free, entry_of, new_lease
from bridge.migration.target import base_of, check_alias_name, next_name
from bridge.sources.index import no_engine

ENTRY = Entry(
    alias="articles",
    old="articles-1",
    old_uuid="uuid",
    phase="fill",
    settings={"index.refresh_interval": None, "index.default_pipeline": "theirs"},
    letters=Letters(path="/somewhere/articles.dead-letter.jsonl", bytes=17),
    bounds={0: 12, 11: -1},
    lease=new_lease(),
)


def test_an_entry_comes_back_from_the_mapping() -> None:
    meta = msgspec.json.decode(msgspec.json.encode({"bridge": {}, KEY: as_meta(ENTRY)}))
    assert entry_of(meta) == ENTRY
    assert entry_of({}) is None
    assert entry_of(None) is None
    with pytest.raises(IndexConflict, match="another release"):
        entry_of({KEY: {"alias": 1}})


def test_a_lease_holds_until_its_time_is_over_or_its_holder_is_gone() -> None:
    lease = new_lease()
    own = msgspec.structs.replace(ENTRY, lease=lease)
    assert lease.pid == os.getpid()
    with pytest.raises(IndexConflict, match=f"process {os.getpid()} on"):
        check_free(own, "articles-2")
    check_free(msgspec.structs.replace(own, lease=None), "articles-2")
    over = msgspec.structs.replace(lease, until=time.time() - 1)
    check_free(msgspec.structs.replace(own, lease=over), "articles-2")
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone = msgspec.structs.replace(lease, pid=int(done.stdout))
    check_free(msgspec.structs.replace(own, lease=gone), "articles-2")
    # On another machine the same number is another process.
    elsewhere = msgspec.structs.replace(gone, place="elsewhere 1")
    with pytest.raises(IndexConflict, match="try again in"):
        check_free(msgspec.structs.replace(own, lease=elsewhere), "articles-2")


@pytest.mark.parametrize(
    ("stored", "made", "same"),
    [
        ({"a": 1.0, "b": 0.5}, {"a": 1.0, "b": 0.5}, True),
        ({"a": 1.0, "b": 0.5}, {"a": 1.01, "b": 0.495}, True),
        ({"a": 1.0, "b": 0.5}, {"a": 1.0, "b": 0.4}, False),
        ({"a": 1.0}, {"a": 1.0, "light": 0.01}, True),
        ({"a": 1.0}, {"a": 1.0, "heavy": 0.5}, False),
        ({}, {}, True),
        ({}, {"a": 1.0}, False),
        (None, {"a": 1.0}, False),
        ([0.1, -0.2], [0.1, -0.201], True),
        ([0.1, -0.2], [0.1, 0.2], False),
        ([0.1], [0.1, 0.0], False),
        ("hash", "hash", True),
        ("hash", "other", False),
        ([{"start": 0, "end": 5, "v": {"a": 1.0}}], [{"start": 0, "end": 5, "v": {"a": 1.001}}], True),
        ([{"start": 0, "end": 5, "v": {"a": 1.0}}], [{"start": 0, "end": 6, "v": {"a": 1.0}}], False),
        ([{"start": 0, "end": 5, "v": {"a": 1.0}}], [], False),
    ],
)
def test_what_counts_as_the_same_vector(stored: object, made: object, same: bool) -> None:
    assert close(stored, made) is same


def test_names() -> None:
    assert [base_of(name) for name in ("articles", "articles-2", "articles-v2", "a-1-2")] == [
        "articles",
        "articles",
        "articles-v2",
        "a-1",
    ]
    assert next_name("articles", ()) == "articles-2"
    assert next_name("articles-v1-9", ["articles-v1-10", "articles-v1-11-x", "articles-v1"]) == "articles-v1-11"
    for name in ("", "a*", "a,b", "_all", "-a", "a b"):
        with pytest.raises(UsageError):
            check_alias_name(name)


def test_specs_are_taken_apart() -> None:
    assert IndexSpec.parse("index:a") == IndexSpec("a")
    assert IndexSpec.parse("index:a@b#2/3") == IndexSpec("a@b", None, (2, 3))
    url = "https://user:secret@host:9200/path"
    assert IndexSpec.parse(f"index:a@{url}#1/4") == IndexSpec("a", url, (1, 4))
    for text in ("index:", "index:a#0/3", "index:a#4/3", "index:a#x/y", "index:a#1/2000", "index:a#1"):
        with pytest.raises(SourceError, match="is no index"):
            IndexSpec.parse(text)
    with pytest.raises(SourceError, match="give a file"):
        no_engine("index:a")


def test_a_page_grows_at_most_twofold_and_shrinks_at_once() -> None:
    light, heavy = [{"_source": {"t": "x"}}] * 32, [{"_source": {"t": "x" * 3_000_000}}] * 32
    assert _next_size(light, 32) == 64
    assert _next_size(light * 32, 2_000) == 2_000
    assert _next_size(heavy, 1_000) == 1
