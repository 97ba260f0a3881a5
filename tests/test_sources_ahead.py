"""Files read ahead by threads: the same documents in the same order, in bounded memory, and nothing left behind."""

from __future__ import annotations

import gzip
import io
import json
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from bridge.errors import SourceError
from bridge.records import DeadLetter, Doc
from bridge.sources import Item, SourceOptions, open_source
from bridge.sources.ahead import AHEAD_BYTES


def ahead_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bridge-read-ahead"]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test ends its threads."""
    yield
    assert not ahead_threads()


def lines(first: int, count: int) -> bytes:
    """Documents of which every seventh is broken; blank lines between."""
    return b"".join(
        b"{broken %d\n\n" % n if n % 7 == 3 else b'{"_id": "%d", "text": "document %d"}\n' % (n, n)
        for n in range(first, first + count)
    )


def parts(folder: Path, count: int = 500) -> list[str]:
    """Files of every form and compression, three of them much larger than the others."""
    forms: list[tuple[str, Callable[[bytes], bytes]]] = [
        ("a.jsonl", bytes),
        ("b.jsonl.gz", gzip.compress),
        ("c.jsonl.zst", zstandard.ZstdCompressor().compress),
        ("d.jsonl.gz", lambda data: gzip.compress(data[: len(data) // 3]) + gzip.compress(data[len(data) // 3 :])),
        ("e.jsonl", gzip.compress),
    ]
    for place, (name, pack) in enumerate(forms):
        (folder / name).write_bytes(pack(lines(count * place, count * (1 + 20 * (place % 2)))))
    rows = "".join(f'c{n},"text\nof {n}"\n' if n % 9 else f"c{n}\n" for n in range(count))
    (folder / "f.csv.gz").write_bytes(gzip.compress(f"_id,text\n{rows}".encode()))
    columns = {
        "_id": [f"p{n}" for n in range(5 * count)],
        "x": [float("nan") if n % 11 == 0 else n for n in range(5 * count)],
    }
    parquet.write_table(pa.table(columns), folder / "g.parquet", row_group_size=400)
    (folder / "h.parquet.gz").write_bytes(gzip.compress((folder / "g.parquet").read_bytes()))
    (folder / "i.jsonl").write_bytes(b"")
    return [str(path) for path in sorted(folder.iterdir()) if path.is_file()]


def read(names: list[str], skip: int = 0, **options: Any) -> tuple[list[Item], int, int | None]:
    with open_source(names, SourceOptions(**options)) as source:
        found = list(source.read(skip))
        return found, source.bytes_read, source.bytes_total


@pytest.mark.parametrize("readers", [2, 3, 8, 64])
@pytest.mark.parametrize("options", [{}, {"where": '_id != "5"'}, {"limit": 12_345}], ids=["all", "where", "limit"])
def test_readers_change_nothing(tmp_path: Path, readers: int, options: dict[str, Any]) -> None:
    names = parts(tmp_path)
    plain = read(names, **options)
    assert len(plain[0]) > 10_000
    assert sum(isinstance(item, DeadLetter) for item in plain[0]) > 1_000
    ahead = read(names, readers=readers, **options)
    assert ahead[0] == plain[0]
    if "limit" not in options:
        assert ahead[1:] == plain[1:]
        assert ahead[1] == ahead[2]
    for skip in (1, 499, 500, 501, 11_000, 11_999, len(plain[0]) - 1, len(plain[0])):
        assert read(names, skip, readers=readers, **options)[0] == plain[0][skip:]


def test_bytes_read_are_those_of_what_was_parsed(tmp_path: Path) -> None:
    names = parts(tmp_path)
    with open_source(names) as plain, open_source(names, SourceOptions(readers=4)) as ahead:
        for one, other in zip(plain.read(), ahead.read(), strict=True):
            assert one == other
            assert plain.bytes_read == ahead.bytes_read


def test_what_came_before_damage_is_given_in_order(tmp_path: Path) -> None:
    names = parts(tmp_path)
    damaged = Path(names[3])
    damaged.write_bytes(damaged.read_bytes()[:-100])
    before: list[list[Item]] = []
    for readers in (1, 4):
        found: list[Item] = []
        with (
            open_source(names, SourceOptions(readers=readers)) as source,
            pytest.raises(SourceError, match=r"d\.jsonl\.gz: the gzip data ends too early; the file is cut off"),
        ):
            found.extend(source.read())
        before.append(found)
    assert before[0] == before[1]
    assert before[0][-1].position.file == names[3]


def test_a_file_that_vanishes_is_found_out_in_its_turn(tmp_path: Path) -> None:
    names = parts(tmp_path)
    with open_source(names, SourceOptions(readers=2)) as source:
        Path(names[2]).unlink()
        found: list[Item] = []
        with pytest.raises(SourceError, match=r"c\.jsonl\.zst: cannot be read: No such file"):
            found.extend(source.read())
    assert {item.position.file for item in found} == set(names[:2])


def test_reading_that_is_given_up_ends_the_threads(tmp_path: Path) -> None:
    names = parts(tmp_path, 20_000)
    with open_source(names, SourceOptions(readers=8)) as source:
        reading = source.read()
        assert next(reading).id == "0"
        assert len(ahead_threads()) > 1
        reading.close()  # type: ignore[attr-defined]
        assert not ahead_threads()
        again = source.read()
        next(again)
        del again
        assert not ahead_threads()
    limited = read(names, readers=8, limit=10)[0]
    assert len(limited) == 10


def test_memory_is_bounded_while_nobody_asks(tmp_path: Path) -> None:
    body = b'{"_id": "1", "text": "%s"}\n' % (b"word " * 1_000)
    for n in range(4):
        (tmp_path / f"{n}.jsonl.gz").write_bytes(gzip.compress(body * 10_000, 1))
    with open_source([str(tmp_path / "*.gz")], SourceOptions(readers=4)) as source:
        tracemalloc.start()
        try:
            reading = source.read()
            next(reading)
            time.sleep(2)
            peak = tracemalloc.get_traced_memory()[1]
            del reading
        finally:
            tracemalloc.stop()
    assert AHEAD_BYTES < peak < 6 * AHEAD_BYTES


def test_stdin_among_files_is_read_in_its_turn(tmp_path: Path) -> None:
    names = parts(tmp_path)
    with open_source([names[0], "-", *names[1:]], SourceOptions(readers=4), stdin=io.BytesIO(lines(0, 10))) as source:
        found = list(source.read())
        assert list(source.read()) == found
    assert [item.position.file for item in found][500:510] == ["<stdin>"] * 10


def test_a_source_is_read_ahead_more_than_once(tmp_path: Path) -> None:
    names = parts(tmp_path)
    with open_source(names, SourceOptions(readers=3)) as source:
        first = list(source.read())
        assert list(source.read()) == first


def test_one_long_line_over_many_pieces(tmp_path: Path) -> None:
    record = {"_id": "long", "text": "x" * (3 * AHEAD_BYTES)}
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(record).encode()))
    (tmp_path / "b.jsonl").write_bytes(lines(0, 1))
    found = read([str(tmp_path / "a.jsonl.gz"), str(tmp_path / "b.jsonl")], readers=2)[0]
    assert [item.id for item in found] == ["long", "0"]


# --- gzip, in large steps -----------------------------------------------------------------------------------


def test_gzip_members_and_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    one, two = gzip.compress(lines(0, 3)), gzip.compress(lines(4, 2))
    for data in (one + two, one + b"\0" * 1_000 + two + b"\0" * 600_000, gzip.compress(b"") + one + two):
        path.write_bytes(data)
        assert [item.id for item in read([str(path)])[0]] == ["0", "1", "2", "4", "5"]
    path.write_bytes(b"\0" * 100)
    with pytest.raises(SourceError, match="the gzip data is damaged"):
        read([str(path)])
    path.write_bytes(one + b"more")
    with pytest.raises(SourceError, match="the gzip data is damaged"):
        read([str(path)])


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_what_stands_before_damage_is_read(tmp_path: Path, place: float) -> None:
    """All but what zlib had not given away by then."""
    documents = [
        b'{"_id": "%d", "text": "%s"}\n' % (n, random.Random(n).randbytes(50).hex().encode()) for n in range(20_000)
    ]
    packed = bytearray(gzip.compress(b"".join(documents)))
    damaged = int(len(packed) * place)
    packed[damaged : damaged + 200] = b"\xff" * 200
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed)
    found: list[Item] = []
    with open_source([str(path)]) as source, pytest.raises(SourceError, match="the gzip data is damaged"):
        found.extend(source.read())
    whole = [item for item in found if isinstance(item, Doc)]
    assert [item.id for item in whole] == [str(n) for n in range(len(whole))]
    assert abs(len(whole) - place * len(documents)) < 0.02 * len(documents)


def test_a_checksum_that_is_wrong(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(lines(0, 3)))
    packed[-6] ^= 1
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed)
    found: list[Item] = []
    with open_source([str(path)]) as source, pytest.raises(SourceError, match="incorrect data check"):
        found.extend(source.read())
    assert [item.id for item in found] == ["0", "1", "2"]
