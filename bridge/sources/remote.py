"""Files in object stores, through fsspec. The only import of it.

Credentials come from where the store's own tools look for them: the environment, their files, the machine's role.
Nothing is cached, and no more of a file is held than one block of it.
"""

from __future__ import annotations

import glob
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_exponential

from bridge.errors import MissingExtra, SourceError, UsageError
from bridge.patience import tried
from bridge.sources.streams import PlacedReader

BLOCK_BYTES = 4 << 20
ATTEMPTS = 5
SAMPLE_BYTES = 1 << 16

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extras of this distribution by protocol; for other stores fsspec itself says what is missing."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SECRET = re.compile(r"^[^:/]+://[^/@]*:[^/@]*@", re.IGNORECASE)
_TAGS = ("ETag", "etag", "content_md5", "Content-MD5", "md5Hash", "Digest", "generation")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "modified", "created")

Result = TypeVar("Result")


def is_url(spec: str) -> bool:
    """Whether `spec` names something in a store rather than on this machine."""
    return _URL.match(spec) is not None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a store."""

    name: str
    """Its URL, without a query, which may be a signature."""
    root: str
    """The URL that leads to the store."""
    path: str
    """Its name there."""
    size: int
    """In bytes."""
    tag: str | None
    """Changes when the content does, where the store says such a thing."""

    def open(self, *, exact: bool = False) -> RemoteReader:
        """A reader from the start; `exact` reads what is asked for, not whole blocks, for leaps through a file."""
        return RemoteReader(self, exact=exact)

    def beside(self, suffix: str) -> bytes | None:
        """What the file of this name and `suffix` holds, a small one; None where there is none."""
        store, _ = _store(self.root)
        try:
            content: bytes = _ask(self.name, lambda: store.cat_file(self.path + suffix))
        except SourceError as error:
            if isinstance(error.__context__, FileNotFoundError):
                return None
            raise
        return content

    def sample(self) -> bytes:
        """A digest that changes when the file does: of its name, size and tag, else of its head, middle and tail."""
        name = self.name.rpartition("/")[2]
        digest = hashlib.sha256(f"{name}\0{self.size}\0{self.tag or ''}\0".encode("utf-8", "surrogateescape"))
        if self.tag is None:
            with self.open(exact=True) as stream:
                for offset in (0, self.size // 2, max(0, self.size - SAMPLE_BYTES)):
                    stream.seek(offset)
                    digest.update(stream.read(SAMPLE_BYTES))
        return digest.digest()


def is_pattern(url: str) -> bool:
    """Whether `url` may mean several files; in a web address, a question mark begins a query."""
    return glob.has_magic(shown(url))


def find(url: str) -> RemoteFile | None:
    """The file at `url`; None where there is a folder.

    Raises:
        SourceError: there is nothing, or the store is not reached or refuses.
        MissingExtra: what speaks to that store is not installed.
        UsageError: the URL holds a password.
    """
    store, path = _store(url)
    info = _ask(url, lambda: store.info(path))
    return None if info.get("type") == "directory" else _file(url, store, path, info)


def find_all(url: str) -> list[RemoteFile]:
    """The files that the pattern `url` matches, by name; hidden ones are left out. Raises as `find` does."""
    store, path = _store(url)
    found = _ask(url, lambda: store.glob(path, detail=True))
    return [
        _file(url, store, name, info)
        for name, info in sorted(found.items())
        if info.get("type") != "directory" and not name.rpartition("/")[2].startswith(".")
    ]


def _store(url: str) -> tuple[Any, str]:
    match = _URL.match(url)
    protocol = match[1].lower() if match else ""
    if _SECRET.match(url):
        raise UsageError(f"a {protocol}:// URL must not hold a password; credentials come from the environment")
    extra = EXTRAS.get(protocol)
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtra(f"reading {protocol}://", extra or "s3") from None
    try:
        store, path = url_to_fs(url)
    except ImportError as error:
        if extra:
            raise MissingExtra(f"reading {protocol}://", extra) from None
        raise SourceError(f"{shown(url)}: cannot be read: {_line(error)}") from None
    except ValueError as error:
        raise SourceError(f"{shown(url)}: cannot be read: {_line(error)}") from None
    # Listings are kept otherwise, as long as the process lives.
    store.invalidate_cache()
    return store, path


def _file(url: str, store: Any, path: str, info: dict[str, Any]) -> RemoteFile:
    name = shown(path if is_url(path) else store.unstrip_protocol(path))
    if info.get("size") is None:
        raise SourceError(f"{name}: its size is not known, so it cannot be read in pieces; pipe it in, and name it -")
    return RemoteFile(name, url, path, int(info["size"]), _tag(info))


def _tag(info: dict[str, Any]) -> str | None:
    return next((str(info[name]) for name in (*_TAGS, *_TIMES) if info.get(name)), None)


def _ask(url: str, call: Callable[[], Result]) -> Result:
    """What a store says about `url`; its errors in one line."""
    try:
        return call()
    except FileNotFoundError:
        raise SourceError(f"{shown(url)}: no such file or folder") from None
    except PermissionError as error:
        raise SourceError(f"{shown(url)}: the store does not allow it: {_line(error)}") from error
    except Exception as error:
        if "credential" in type(error).__name__.lower():
            raise SourceError(f"{shown(url)}: no credentials in the environment: {_line(error)}") from error
        raise SourceError(f"{shown(url)}: the store does not answer: {_line(error)}") from error


def shown(url: str) -> str:
    """`url` for a message, without a query, which may be a signature."""
    return url.partition("?")[0] if url.lower().startswith("http") else url


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


class RemoteReader(PlacedReader):
    """Ranges of a file, each asked for again from the byte reached where the connection breaks."""

    def __init__(self, file: RemoteFile, *, exact: bool) -> None:
        self._file = file
        self._exact = exact
        self._store, _ = _store(file.root)
        self._before: tuple[int | None, str | None] | None = None
        self._start = 0
        self._block = b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._offset = offset + (0, self._offset, self._file.size)[whence]
        return self._offset

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._file.size - self._offset)
        wanted = left if size < 0 else min(size, left)
        data = self._some(wanted)
        while len(data) < wanted and (self._exact or size < 0):
            data += self._some(wanted - len(data))
        return data

    def check(self) -> None:
        """Raises SourceError where the store has another file of that name by now: this one was read in pieces."""
        if self._before is not None and self._before != self._now():
            raise self._replaced()

    def _some(self, wanted: int) -> bytes:
        """At most `wanted` bytes from where it stands, at least one unless none is wanted."""
        if not wanted:
            return b""
        at = self._offset - self._start
        if not 0 <= at < len(self._block):
            end = self._offset + (wanted if self._exact else max(wanted, BLOCK_BYTES))
            self._block = self._fetch(self._offset, min(end, self._file.size))
            self._start, at = self._offset, 0
        data = self._block[at : at + wanted]
        self._offset += len(data)
        return data

    def _fetch(self, start: int, end: int) -> bytes:
        file = self._file
        if self._before is None and end - start < file.size:
            self._before = self._now()
            if self._before[0] != file.size:
                raise self._replaced()
        tries = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(0.5, max=30),
            retry=retry_if_not_exception_type((FileNotFoundError, PermissionError, SourceError)),
            reraise=True,
        )
        try:
            data: bytes = tried(tries, self._once, start, end)
        except FileNotFoundError:
            raise SourceError(f"{file.name}: is no longer there") from None
        except PermissionError as error:
            raise SourceError(f"{file.name}: the store no longer allows it: {_line(error)}") from error
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(
                f"{file.name}: reading broke off at byte {start:,} of {file.size:,}: {_line(error)}; "
                "the same command goes on there"
            ) from error
        if start + len(data) == file.size and not self._exact:
            self.check()
        return data

    def _once(self, start: int, end: int) -> bytes:
        file = self._file
        # One byte past the end shows that the file is longer now.
        asked = end + 1 if end == file.size else end
        data: bytes = self._store.cat_file(file.path, start=start, end=asked)
        if len(data) > asked - start:
            raise SourceError(f"{file.name}: the server gives no pieces of a file; pipe it in, and name it -")
        if start + len(data) > file.size:
            raise self._replaced()
        if not data:
            raise ConnectionError("nothing was sent")
        return data

    def _now(self) -> tuple[int | None, str | None]:
        """Size and tag of the file that has that name now."""
        self._store.invalidate_cache()
        info = _ask(self._file.name, lambda: self._store.info(self._file.path))
        return info.get("size"), _tag(info)

    def _replaced(self) -> SourceError:
        return SourceError(f"{self._file.name}: was replaced while it was read; start over with --fresh")
