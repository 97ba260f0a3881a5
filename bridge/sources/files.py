"""From what the user names to the files that are read."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from bridge.errors import SourceError
from bridge.sources import remote
from bridge.sources.remote import RemoteFile
from bridge.sources.streams import MAGIC, Compression, Cursor, Spool, decompressed

if TYPE_CHECKING:
    from bridge.sources.ahead import FileAhead
    from bridge.sources.index import IndexReader, Opener

Format = Literal["jsonl", "csv", "tsv", "parquet", "letters", "index"]

FORMS = (
    ".jsonl .ndjson .json .csv .tsv .parquet (each also .gz or .zst), a glob, a BEIR folder, here or in a store "
    "(s3://, gs://), an index (index:NAME), or - for stdin"
)
STDIN = "<stdin>"
INDEX = "index:"

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_CORPUS = ("corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.zst")
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file (or stdin) of a source: `name` is its path or URL as the user gave it, or as a glob found it."""

    name: str
    format: Format
    compression: Compression
    spool: Spool | None = None
    remote: RemoteFile | None = None
    """Where it lies, if that is not this machine."""
    ahead: FileAhead | None = field(default=None, compare=False)
    """Who has begun to read it."""
    reader: IndexReader | None = field(default=None, compare=False)
    """What reads it, where it is an index."""

    @property
    def key(self) -> str:
        """The one name of the file, whatever folder it is named from."""
        return self.name if self.remote or self.reader else str(Path(self.name).resolve())

    @property
    def size(self) -> int | None:
        """Bytes as they are stored; None for stdin until it has come to its end."""
        if self.reader:
            return self.reader.size
        if self.remote:
            return self.remote.size
        if self.spool:
            return self.spool.size
        try:
            return Path(self.name).stat().st_size
        except OSError as error:
            raise SourceError(f"{self.name}: cannot be read: {error.strerror}") from error

    def open(self) -> BinaryIO:
        """The stored bytes, unbuffered. Raises `SourceError`."""
        if self.remote:
            return self.remote.open()  # type: ignore[return-value]
        if self.spool:
            return self.spool.open()
        try:
            return Path(self.name).open("rb", buffering=0)
        except OSError as error:
            raise SourceError(f"{self.name}: cannot be read: {error.strerror}") from error

    def chunks(self, cursor: Cursor) -> Generator[bytes, None, None]:
        """The bytes without their compression; `cursor` follows along. Raises `SourceError`."""
        if self.ahead:
            yield from self.ahead.pieces(cursor)
            return
        with self.open() as stream:
            # Stdin has no suffix, and a plain suffix on compressed data is a common slip.
            compression = self.compression or _sniff(stream)
            for chunk in decompressed(stream, compression, self.name):
                cursor.at(stream.tell())
                yield chunk

    def sample(self) -> bytes:
        """A digest of name, size, head, middle and tail: cheap, and free of times and folders."""
        if self.reader:
            return self.reader.fingerprint()
        if self.remote:
            return self.remote.sample()
        size = self.spool.drain() if self.spool else self.size or 0
        digest = hashlib.sha256(f"{Path(self.name).name}\0{size}\0".encode("utf-8", "surrogateescape"))
        with self.open() as stream:
            for offset in (0, size // 2, max(0, size - _SAMPLE_BYTES)):
                stream.seek(offset)
                digest.update(stream.read(_SAMPLE_BYTES))
        return digest.digest()


def _sniff(stream: BinaryIO) -> Compression:
    head = stream.read(4)
    stream.seek(0)
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def resolve(spec: str, stdin: BinaryIO, indexes: Opener) -> list[SourceFile]:
    """The files that `spec` names, in a stable order. Raises `SourceError` when there is none to read."""
    if spec == "-":
        return [SourceFile(STDIN, "jsonl", None, Spool(stdin))]
    if not spec:
        raise SourceError("a source's name is empty")
    if spec.startswith(INDEX):
        reader = indexes(spec)
        return [SourceFile(reader.name, "index", None, reader=reader)]
    if remote.is_url(spec):
        return _in_store(spec)
    try:
        mode = Path(spec).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _globbed(spec)
    except (OSError, ValueError) as error:
        raise SourceError(f"{spec}: cannot be read: {getattr(error, 'strerror', error)}") from error
    if stat.S_ISDIR(mode):
        return [_corpus(spec)]
    if not stat.S_ISREG(mode):
        raise SourceError(f"{spec}: is not a regular file; pipe it in, and name the source -")
    return [_file(spec)]


def _file(path: str) -> SourceFile:
    file = SourceFile(path, *_form(path))
    file.open().close()
    return file


def _form(name: str) -> tuple[Format, Compression]:
    """What a file of that name holds. Raises `SourceError` where that is unknown."""
    stem, suffix = os.path.splitext(name.lower())  # noqa: PTH122
    compression = _COMPRESSIONS.get(suffix)
    if compression:
        suffix = os.path.splitext(stem)[1]  # noqa: PTH122
    if suffix not in _FORMATS:
        raise SourceError(f"{name}: of no known form; understood are {FORMS}")
    return _FORMATS[suffix], compression


def _in_store(url: str) -> list[SourceFile]:
    """The files of a store that `url` names: a file, a BEIR folder, or a pattern."""
    found: list[RemoteFile]
    if remote.is_pattern(url):
        found = [file for file in remote.find_all(url) if not _describes_vectors(file.name)]
        if not found:
            raise SourceError(f"{remote.shown(url)}: no file matches")
    else:
        found = [remote.find(url) or _corpus_in_store(url)]
    return [SourceFile(file.name, *_form(file.name), remote=file) for file in found]


def _corpus_in_store(url: str) -> RemoteFile:
    folder = url.rstrip("/")
    found = {file.name.rpartition("/")[2]: file for file in remote.find_all(f"{folder}/{_CORPUS[0]}*")}
    name = next((name for name in _CORPUS if name in found), None)
    if name is None:
        raise SourceError(f"{folder}: is a folder without {', '.join(_CORPUS[:-1])} or {_CORPUS[-1]}")
    return found[name]


def _describes_vectors(name: str) -> bool:
    """Whether a file is the description that lies beside a vector file."""
    described = name.removesuffix(".meta.json")
    return described != name and os.path.splitext(described)[1] in (*_FORMATS, *_COMPRESSIONS)  # noqa: PTH122


def _corpus(folder: str) -> SourceFile:
    try:
        found = [name for name in _CORPUS if (Path(folder) / name).is_file()]
    except OSError as error:
        raise SourceError(f"{folder}: cannot be read: {error.strerror}") from error
    if not found:
        raise SourceError(f"{folder}: is a folder without {', '.join(_CORPUS[:-1])} or {_CORPUS[-1]}")
    return _file(str(Path(folder) / found[0]))


def _is_source(path: str) -> bool:
    """Whether `path` is a file, and not the description that lies beside a vector file."""
    described = path.removesuffix(".meta.json")
    return Path(path).is_file() and (described == path or not Path(described).is_file())


def _globbed(spec: str) -> list[SourceFile]:
    if not glob.has_magic(spec):
        raise SourceError(f"{spec}: no such file or folder")
    # Not Path.glob: a user expects the shell's rules, which leave hidden files out.
    found = sorted(path for path in glob.glob(spec, recursive=True) if _is_source(path))  # noqa: PTH207
    if not found:
        raise SourceError(f"{spec}: no file matches")
    return [_file(path) for path in found]
