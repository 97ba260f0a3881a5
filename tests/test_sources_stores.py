"""Sources in object stores: a real S3 endpoint, and an HTTP server whose connections break."""

from __future__ import annotations

import gzip
import http.server
import json
import subprocess
import sys
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from bridge.errors import MissingExtra, SourceError, UsageError
from bridge.records import Doc
from bridge.sources import Item, SourceOptions, open_source
from bridge.sources.remote import ATTEMPTS, BLOCK_BYTES

Bridge = Callable[..., tuple[int, str, str]]


def numbered(count: int, first: int = 0) -> bytes:
    return b"".join(b'{"_id": "%d", "text": "document %d"}\n' % (n, n) for n in range(first, first + count))


def wide(blocks: int) -> bytes:
    """Lines of a thousand bytes, for so many blocks and some more."""
    return b"".join(
        b'{"_id": "%d", "text": "%s"}\n' % (n, b"word " * 200) for n in range(blocks * BLOCK_BYTES // 1_000)
    )


def items(spec: str, skip: int = 0, **options: Any) -> list[Item]:
    with open_source([spec], SourceOptions(**options)) as source:
        return list(source.read(skip))


def ids(found: list[Item]) -> list[str | None]:
    return [item.id for item in found]


# --- S3 -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The URL of a server that speaks S3, on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A new bucket as boto3 sees it; what the environment says leads there."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    made = boto3.resource("s3").Bucket(f"test-{uuid.uuid4().hex[:12]}")
    made.create()
    yield made
    made.objects.delete()
    made.delete()


def put(bucket: Any, key: str, data: bytes) -> str:
    bucket.put_object(Key=key, Body=data)
    return f"s3://{bucket.name}/{key}"


def table(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink, row_group_size=1000)
    return sink.getvalue().to_pybytes()


FORMS: dict[str, bytes] = {
    "a.jsonl": numbered(3),
    "a.jsonl.gz": gzip.compress(numbered(3)),
    "a.jsonl.zst": zstandard.ZstdCompressor().compress(numbered(3)),
    "a.csv": b"_id,text\n0,document 0\n1,document 1\n2,document 2\n",
    "a.parquet": table(_id=["0", "1", "2"], text=[f"document {n}" for n in range(3)]),
    "a.parquet.gz": gzip.compress(table(_id=["0", "1", "2"], text=[f"document {n}" for n in range(3)])),
    "compressed without its suffix.jsonl": gzip.compress(numbered(3)),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read_from_a_store(bucket: Any, name: str) -> None:
    url = put(bucket, f"some folder/{name}", FORMS[name])
    with open_source([url]) as source:
        assert source.name == name
        assert source.bytes_total == len(FORMS[name])
        found = list(source.read())
        assert source.bytes_read == source.bytes_total
    assert [(item.id, item.source) for item in found if isinstance(item, Doc)] == [
        (str(n), {"text": f"document {n}"}) for n in range(3)
    ]
    assert found[0].position.file == url


def test_globs_and_folders_of_a_store(bucket: Any) -> None:
    for name in ("b", "a", ".hidden", "deep/c"):
        put(bucket, f"x/{name}.jsonl", json.dumps({"_id": name}).encode())
    put(bucket, "x/v.jsonl.meta.json", b"{}")
    put(bucket, "x/notes.txt", b"")
    root = f"s3://{bucket.name}"
    assert ids(items(f"{root}/x/*.js*")) == ["a", "b"]
    assert ids(items(f"{root}/x/**/*.jsonl")) == ["a", "b", "deep/c"]
    assert ids(items(f"{root}/x/[b-z].jsonl")) == ["b"]
    with open_source([f"{root}/x/a.jsonl", f"{root}/x/*.jsonl"]) as source:
        assert len(source.files) == 2
    put(bucket, "beir/corpus.jsonl.gz", gzip.compress(numbered(2)))
    put(bucket, "beir/queries.jsonl", numbered(5))
    assert ids(items(f"{root}/beir")) == ids(items(f"{root}/beir/")) == ["0", "1"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("s3://{}/gone.jsonl", "s3://{}/gone.jsonl: no such file or folder"),
        ("s3://{}/gone/*.jsonl", "s3://{}/gone/*.jsonl: no file matches"),
        ("s3://{}/x", "s3://{}/x: is a folder without corpus.jsonl, corpus.jsonl.gz or corpus.jsonl.zst"),
        ("s3://{}/x/notes.txt", "s3://{}/x/notes.txt: of no known form; understood are "),
        ("s3://{}-not-there/a.jsonl", "s3://{}-not-there/a.jsonl: no such file or folder"),
    ],
)
def test_what_a_store_has_not_is_said_at_once(bucket: Any, spec: str, message: str) -> None:
    put(bucket, "x/notes.txt", b"text")
    with pytest.raises(SourceError) as error:
        open_source([spec.format(bucket.name)])
    assert str(error.value).startswith(message.format(bucket.name))


def test_a_store_s_fingerprint_needs_no_reading(bucket: Any) -> None:
    url = put(bucket, "a.jsonl", numbered(100))
    with open_source([url]) as source:
        first = source.fingerprint()
    put(bucket, "a.jsonl", numbered(100))
    with open_source([url]) as source:
        assert source.fingerprint() == first
        key = source.files[0].key
    assert key == url
    put(bucket, "a.jsonl", numbered(100).replace(b"document 50", b"document 5x"))
    with open_source([url]) as source:
        assert source.fingerprint() != first
    other = put(bucket, "elsewhere/a.jsonl", numbered(100))
    with open_source([other]) as source:
        assert source.fingerprint() == first


def test_a_large_file_of_a_store_in_pieces(bucket: Any) -> None:
    data = wide(3)
    count = data.count(b"\n")
    url = put(bucket, "a.jsonl", data)
    with open_source([url]) as source:
        seen = []
        for number, item in enumerate(source.read()):
            assert item.id == str(number)
            seen.append(source.bytes_read)
        assert number == count - 1
        assert seen == sorted(seen)
        assert source.bytes_read == len(data)
        assert ids(list(source.read(count - 2))) == [str(count - 2), str(count - 1)]


def test_memory_stays_small(bucket: Any) -> None:
    url = put(bucket, "a.jsonl.gz", gzip.compress(numbered(100_000), 1))
    with open_source([url]) as source:
        tracemalloc.start()
        try:
            count = sum(1 for _ in source.read())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert count == 100_000
    assert peak < 15_000_000


def test_parquet_of_a_store_is_read_by_columns_and_row_groups(bucket: Any) -> None:
    rows = 5_000
    data = table(
        _id=[str(n) for n in range(rows)], text=["t"] * rows, bulk=[uuid.uuid4().hex * 20 for _ in range(rows)]
    )
    url = put(bucket, "a.parquet", data)
    whole = items(url, drop=("bulk",))
    assert ids(whole) == [str(n) for n in range(rows)]
    for readers in (1, 4):
        assert items(url, 4_321, drop=("bulk",), readers=readers) == whole[4_321:]


def test_a_file_that_is_replaced_while_it_is_read(bucket: Any) -> None:
    data = wide(12)
    url = put(bucket, "a.jsonl", data)
    with open_source([url]) as source:
        reading = source.read()
        assert next(reading).id == "0"
        put(bucket, "a.jsonl", data.replace(b"word", b"WORD"))
        with pytest.raises(SourceError, match=r"a\.jsonl: was replaced while it was read; start over with --fresh"):
            list(reading)


def test_no_credentials(bucket: Any, tmp_path: Path) -> None:
    url = put(bucket, "a.jsonl", numbered(1))
    code = (
        "import sys\nfrom bridge.sources import open_source\n"
        "try:\n    open_source([sys.argv[1]])\nexcept Exception as e:\n    print(type(e).__name__, e)"
    )
    clean = {
        "AWS_ENDPOINT_URL": bucket.meta.client.meta.endpoint_url,
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run([sys.executable, "-c", code, url], env=clean, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"SourceError {url}: no credentials in the environment: "), done.stderr


def test_the_command_line_reads_a_store(bridge: Bridge, bucket: Any, tmp_path: Path) -> None:
    for part in range(4):
        put(bucket, f"parts/{part}.jsonl.gz", gzip.compress(numbered(25, 25 * part)))
    url = f"s3://{bucket.name}/parts/*.jsonl.gz"
    code, out, err = bridge("encode", url, "-o", "v.jsonl", "--readers", "3", "--where", '_id != "7"', "--json")
    assert code == 0, err
    assert json.loads(out)["encoded"] == 99
    assert "99 of 100 documents match the condition" in err
    assert "secret-of-the-test" not in out + err
    lines = (tmp_path / "v.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [str(n) for n in range(100) if n != 7]


def test_vectors_of_a_store_go_in_as_they_are(
    bridge: Bridge, bucket: Any, tmp_path: Path, opensearch_url: str, index: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(numbered(20))
    assert bridge("encode", "a.jsonl", "-o", "v.jsonl", "--keep-source")[0] == 0
    url = put(bucket, "v/v.jsonl", (tmp_path / "v.jsonl").read_bytes())
    put(bucket, "v/v.jsonl.meta.json", (tmp_path / "v.jsonl.meta.json").read_bytes())
    other = put(bucket, "v/w.jsonl", (tmp_path / "v.jsonl").read_bytes())
    code, _, err = bridge("ingest", index, url, other, "--fresh", url=opensearch_url)
    assert (code, f"{url} holds vectors and {other} has no .meta.json beside it" in err) == (1, True), err
    code, _, err = bridge("ingest", index, url, "--drop", "text", "--fresh", url=opensearch_url)
    assert (code, "are options of that `bridge encode`" in err) == (2, True), err
    code, out, err = bridge("ingest", index, url, "--fresh", "--json", url=opensearch_url)
    assert (code, json.loads(out)["indexed"]) == (0, 20), err


# --- connections that break ---------------------------------------------------------------------------------


class Unsteady(http.server.ThreadingHTTPServer):
    """Serves `files` by ranges; every answer of more than `breaks_after` bytes is cut there, `breaks` times."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.breaks = 0
        self.breaks_after = 100_000
        self.ranges: list[tuple[int, int]] = []
        self.with_ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Unsteady

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        data = self.server.files.get(self.path.partition("?")[0])
        if data is None:
            self.send_error(404)
            return
        start, end, status = 0, len(data), 200
        if (asked := self.headers.get("Range")) and self.server.with_ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(int(last) + 1, len(data)), 206
        self.send_response(status)
        self.send_header("ETag", f'"{hash(data)}"')
        self.send_header("Accept-Ranges", "bytes" if self.server.with_ranges else "none")
        self.send_header("Content-Length", str(end - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return
        if status == 206:
            self.server.ranges.append((start, end))
        if self.server.breaks and end - start > self.server.breaks_after:
            self.server.breaks -= 1
            self.wfile.write(data[start : start + self.server.breaks_after])
            self.close_connection = True
        else:
            self.wfile.write(data[start:end])


@pytest.fixture
def unsteady() -> Iterator[Unsteady]:
    server = Unsteady()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_connection_that_breaks_is_opened_again_at_the_byte_reached(unsteady: Unsteady) -> None:
    data = wide(3)
    unsteady.files["/a.jsonl"] = data
    whole = items(f"{unsteady.url}/a.jsonl")
    assert len(whole) == data.count(b"\n")
    undisturbed = list(unsteady.ranges)
    unsteady.ranges.clear()
    unsteady.breaks = 2
    assert items(f"{unsteady.url}/a.jsonl") == whole
    first, *rest = undisturbed
    assert unsteady.ranges == [first, first, first, *rest]


@pytest.mark.timeout(120)
def test_a_connection_that_breaks_for_good_ends_the_reading_and_is_resumable(unsteady: Unsteady) -> None:
    data = wide(3)
    unsteady.files["/a.jsonl"] = data
    url = f"{unsteady.url}/a.jsonl"
    whole = items(url)
    found: list[Item] = []
    with open_source([url]) as source:
        before = source.fingerprint()
        reading = source.read()
        found += [next(reading)]
        # What the first block held, and perhaps the second, is there already.
        unsteady.breaks = 1_000
        with pytest.raises(SourceError, match=r"a\.jsonl: reading broke off at byte [\d,]+ of [\d,]+: .*goes on there"):
            found.extend(reading)
        assert source.fingerprint() == before
    assert 0 < len(found) < len(whole)
    assert found == whole[: len(found)]
    assert 1_000 - unsteady.breaks == ATTEMPTS
    unsteady.breaks = 0
    with open_source([url]) as source:
        assert source.fingerprint() == before
        assert found + list(source.read(len(found))) == whole


def test_a_server_that_gives_no_pieces(unsteady: Unsteady) -> None:
    unsteady.files["/a.jsonl"] = wide(2)
    unsteady.with_ranges = False
    with pytest.raises(SourceError, match=r"a\.jsonl: .*pipe it in, and name it -"):
        items(f"{unsteady.url}/a.jsonl")


def test_a_signature_in_a_url_is_not_shown(unsteady: Unsteady) -> None:
    unsteady.files["/a.jsonl"] = numbered(2)
    found = items(f"{unsteady.url}/a.jsonl?signature=abc")
    assert [item.position.file for item in found] == [f"{unsteady.url}/a.jsonl"] * 2
    with pytest.raises(SourceError) as error:
        items(f"{unsteady.url}/gone.jsonl?signature=abc")
    assert str(error.value) == f"{unsteady.url}/gone.jsonl: no such file or folder"


# --- any store ----------------------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def test_whatever_fsspec_knows_is_read(memory: Any) -> None:
    memory.pipe("/x/b.jsonl", numbered(2))
    memory.pipe("/x/a.jsonl.gz", gzip.compress(numbered(2, 2)))
    memory.pipe("/x/empty.jsonl", b"")
    memory.pipe("/beir/corpus.jsonl", numbered(1))
    assert ids(items("memory://x/*")) == ["2", "3", "0", "1"]
    assert ids(items("memory://beir")) == ["0"]
    with open_source(["memory://x/*"]) as source:
        assert [file.key for file in source.files] == [
            "memory:///x/a.jsonl.gz",
            "memory:///x/b.jsonl",
            "memory:///x/empty.jsonl",
        ]


def test_a_file_of_a_store_that_is_cut_off(memory: Any) -> None:
    memory.pipe("/a.jsonl.gz", gzip.compress(numbered(10_000))[:-20])
    with pytest.raises(SourceError, match=r"a\.jsonl\.gz: the gzip data ends too early; the file is cut off"):
        items("memory://a.jsonl.gz")
    memory.pipe("/a.parquet", b"PAR1 and nothing more PAR1")
    with pytest.raises(SourceError, match=r"a\.parquet: not Parquet, or damaged or cut off"):
        items("memory://a.parquet")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nosuch://x/a.jsonl", "nosuch://x/a.jsonl: cannot be read: Protocol not known: nosuch"),
        ("memory://gone.jsonl", "memory://gone.jsonl: no such file or folder"),
        ("abfs://x/a.jsonl", "abfs://x/a.jsonl: cannot be read: Install adlfs to access Azure Datalake Gen2"),
    ],
)
def test_a_store_that_is_not_to_be_had(spec: str, message: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source([spec])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("spec", ["s3://key:secret@bucket/a.jsonl", "https://me:secret@host/a.jsonl"])
def test_a_password_in_a_url_is_refused_and_not_shown(spec: str) -> None:
    with pytest.raises(UsageError, match="must not hold a password") as error:
        open_source([spec])
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "missing", "extra"),
    [
        ("s3://bucket/a.jsonl", "s3fs", "s3"),
        ("gs://bucket/a.jsonl", "gcsfs", "gcs"),
        ("gcs://bucket/*.parquet", "gcsfs", "gcs"),
        ("s3a://bucket/a.jsonl", "fsspec", "s3"),
    ],
)
def test_a_missing_extra_is_named(spec: str, missing: str, extra: str) -> None:
    code = f"""
import importlib.machinery, sys
real = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] == {missing!r} else real(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
from bridge.cli import main
main()
"""
    words = [sys.executable, "-W", "error", "-c", code, "fit", spec, "-o", "model"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    protocol = spec.partition("://")[0]
    expected = str(MissingExtra(f"reading {protocol}://", extra))
    assert (done.returncode, done.stderr) == (1, f"bridge: error: {expected}\n")


def test_gs_leads_to_gcsfs() -> None:
    from bridge.sources.remote import _store

    store, path = _store("gs://bucket/folder/a.jsonl")
    assert (type(store).__module__.partition(".")[0], path) == ("gcsfs", "bucket/folder/a.jsonl")
