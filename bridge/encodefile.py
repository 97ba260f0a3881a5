"""Source ─▶ encode ─▶ a file of vectors: what `bridge encode SOURCE -o FILE` does.

The file grows as FILE.part and gets its name when it is whole. FILE.part.json remembers how far it has come,
so that the same command goes on after an interruption with the very bytes that a whole run would have written.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bridge.deadletter import DeadLetterFile
from bridge.encode import Encoder
from bridge.errors import BridgeError, CheckpointError, DocumentError, SourceError, UsageError
from bridge.records import TEXT_FIELDS, BulkOutcome, DeadLetter, Doc, Progress, Report
from bridge.sources import Source, text_of
from bridge.vectorfile import Form, VectorMeta, form_of, line_of, to_parquet, write_meta

_BATCH = 512
"""Documents encoded together: enough to sort by length, few enough to keep."""

CHECKPOINT_SECONDS = 2.0
_COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How to encode a source into a file."""

    form: str | None = None
    text_fields: tuple[str, ...] = TEXT_FIELDS
    keep_source: bool = False
    """Keep each document's own fields in the file, so that they are indexed with its vector."""
    scale: float | None = None
    dead_letter: Path | None = None
    fresh: bool = False
    """Forget what an interrupted run has written."""


@dataclass(frozen=True, slots=True)
class EncodeSummary:
    """The run's totals: `source` = `encoded` + `dead`; `active_terms` is a document's mean."""

    source: int
    encoded: int
    dead: int
    active_terms: float
    seconds: float
    model: str
    output: str
    dead_letter: str | None = None


class _Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """FILE.part.json: which run this is, and how much of the source is in FILE.part."""

    source: str
    model: str
    how: str
    position: int = 0
    bytes: int = 0
    encoded: int = 0
    terms: int = 0
    dead: int = 0
    dead_letter: str = ""
    dead_letter_bytes: int = 0


def encode_file(
    source: Source,
    output: Path,
    encoder: Encoder,
    options: EncodeOptions | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
    report: Report = lambda progress: None,
) -> EncodeSummary:
    """Encode every document of `source` into the file `output`.

    Args:
        source: read once.
        output: replaced when the new file is whole; its description is written beside it.
        encoder: of documents.
        options: the form, the text fields, what is kept, where dead letters go.
        say: gets lines for the user.
        report: gets the progress.

    Raises:
        UsageError: the model encodes queries only, or the options contradict each other.
        CheckpointError: FILE.part is of another source, model or form.
        SourceError: the source or the file cannot be read or written; the same call goes on there.
    """
    started = time.monotonic()
    options = options or EncodeOptions()
    form = form_of(_bare(output), options.form)
    _check(encoder, output, form, options)
    run = _Run(source, output, encoder, form, options)
    place = run.begin(say)
    letters = DeadLetterFile(Path(place.dead_letter), place.dead_letter_bytes)
    try:
        place = run.write(place, letters, report)
    except KeyboardInterrupt:
        say(f"interrupted; {run.part} remembers the place: the same command goes on there")
        raise
    except OSError as error:
        raise SourceError(
            f"{run.part} cannot be written: {error.strerror or error}; make room, and the same command goes on there"
        ) from error
    finally:
        letters.close()
    run.finish(place)
    return EncodeSummary(
        source=place.position,
        encoded=place.encoded,
        dead=place.dead,
        active_terms=round(place.terms / place.encoded, 2) if place.encoded else 0.0,
        seconds=round(time.monotonic() - started, 3),
        model=encoder.fingerprint,
        output=str(output),
        dead_letter=place.dead_letter if place.dead else None,
    )


def _check(encoder: Encoder, output: Path, form: Form, options: EncodeOptions) -> None:
    if not encoder.encodes_documents:
        raise UsageError(f"model {encoder.name} encodes queries only; name the model of the documents")
    if form == "anserini" and options.keep_source:
        raise UsageError("the anserini form has no place for a document's own fields; leave --keep-source out")
    if options.scale is not None and not 0 < options.scale < 1e6:
        raise UsageError(f"the scale must be above zero, not {options.scale}")
    if output.is_dir():
        raise UsageError(f"{output} is a folder; name a file")


def _bare(path: Path) -> Path:
    """`path` without the suffix of a compression."""
    return path.with_suffix("") if path.suffix in _COMPRESSED else path


class _Run:
    """One source into one file."""

    def __init__(self, source: Source, output: Path, encoder: Encoder, form: Form, options: EncodeOptions) -> None:
        self.source, self.output, self.encoder, self.form, self.options = source, output, encoder, form, options
        self.part = output.with_name(output.name + ".part")
        self.sidecar = output.with_name(output.name + ".part.json")

    def begin(self, say: Callable[[str], None]) -> _Place:
        """Where to go on, or the start."""
        options = self.options
        letters = (options.dead_letter or self.output.with_name(self.output.name + ".dead-letter.jsonl")).absolute()
        now = _Place(
            source=self.source.fingerprint(),
            model=self.encoder.fingerprint,
            how=repr((self.form, options.text_fields, options.keep_source, options.scale)),
            dead_letter=str(letters),
            dead_letter_bytes=letters.stat().st_size if letters.is_file() else 0,
        )
        there = None if options.fresh else self._read_place()
        if there is None:
            self.part.parent.mkdir(parents=True, exist_ok=True)
            self.part.write_bytes(b"")
            self._write_place(now)
            return now
        for name, what in (("source", "the source"), ("model", "the model"), ("how", "the form or an option")):
            if getattr(there, name) != getattr(now, name):
                raise CheckpointError(
                    f"cannot go on with {self.part} at document {there.position + 1:,}: {what} is another; "
                    "start over with --fresh"
                )
        size = self.part.stat().st_size if self.part.is_file() else 0
        if size < there.bytes:
            raise CheckpointError(f"{self.part} is shorter than {self.sidecar} says; start over with --fresh")
        say(f"going on with an interrupted run at document {there.position + 1:,} (--fresh starts over)")
        return there

    def write(self, place: _Place, letters: DeadLetterFile, report: Report) -> _Place:
        """Encode what is left of the source; whatever ends this, the place is kept."""
        items = self.source.read(place.position)
        with self.part.open("r+b") as file:
            file.truncate(place.bytes)
            file.seek(place.bytes)
            written = time.monotonic()
            try:
                while batch := list(islice(items, _BATCH)):
                    place = self._batch(batch, place, file, letters)
                    if time.monotonic() - written >= CHECKPOINT_SECONDS:
                        self._sync(place, file)
                        report(Progress("encode", place.position, self.source.bytes_read, self.source.bytes_total))
                        written = time.monotonic()
            except BaseException:
                # A second failure here must not hide the first; the older place stands, and is safe.
                with contextlib.suppress(BridgeError, OSError):
                    self._sync(place, file)
                raise
            self._sync(place, file)
            return place

    def _batch(self, batch: list[Doc | DeadLetter], place: _Place, file: BinaryIO, letters: DeadLetterFile) -> _Place:
        """Encode and write one batch; the new place, counted only when all of it is written."""
        texts: dict[int, str] = {}
        dead: list[DeadLetter] = []
        for number, item in enumerate(batch):
            if isinstance(item, DeadLetter):
                dead.append(item)
                continue
            try:
                if item.op == "delete":
                    raise DocumentError("a deletion has no vector; give it to `bridge ingest` itself")
                texts[number] = text_of(item.source, self.options.text_fields)
            except DocumentError as error:
                dead.append(DeadLetter(item.position, item.id, str(error), dict(item.source)))
        vectors = self.encoder.encode_document(list(texts.values()))
        lines = bytearray()
        for (number, text), vector in zip(texts.items(), vectors, strict=True):
            item = batch[number]
            kept = item.source if self.options.keep_source and isinstance(item, Doc) else None
            lines += line_of(self.form, item.id or "", vector, text, source=kept, scale=self.options.scale)
        file.write(lines)
        for letter in dead:
            letters.append(BulkOutcome(letter.position, letter.id, "dead", 0, letter.reason, letter.document))
        return msgspec.structs.replace(
            place,
            position=place.position + len(batch),
            bytes=place.bytes + len(lines),
            encoded=place.encoded + len(vectors),
            terms=place.terms + sum(map(len, vectors)),
            dead=place.dead + len(dead),
            # Taken here: what an interrupted batch wrote is cut off again when the run goes on.
            dead_letter_bytes=letters.sync() if dead else place.dead_letter_bytes,
        )

    def _sync(self, place: _Place, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._write_place(place)

    def finish(self, place: _Place) -> None:
        """Bring the part into its form, describe it, and give it its name."""
        whole = self.output.with_name(self.output.name + ".whole")
        meta = VectorMeta.of(
            self.encoder,
            self.form,
            text_fields=self.options.text_fields,
            documents=place.encoded,
            scale=self.options.scale,
        )
        try:
            if self.form == "parquet":
                to_parquet(_decoded(self.part), whole, with_source=self.options.keep_source)
            elif self.output.suffix in _COMPRESSED:
                _compress(self.part, whole, self.output.suffix)
            else:
                whole = self.part
            write_meta(self.output, meta)
            whole.replace(self.output)
            self.part.unlink(missing_ok=True)
            self.sidecar.unlink(missing_ok=True)
        except OSError as error:
            raise SourceError(
                f"{self.output} cannot be written: {error.strerror or error}; make room, and the same command goes on"
            ) from error

    def _read_place(self) -> _Place | None:
        try:
            return msgspec.json.decode(self.sidecar.read_bytes(), type=_Place)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self.sidecar} cannot be read ({error}); start over with --fresh") from error

    def _write_place(self, place: _Place) -> None:
        half = self.sidecar.with_name(self.sidecar.name + ".half")
        half.write_bytes(msgspec.json.encode(place))
        half.replace(self.sidecar)


def _decoded(path: Path) -> Iterator[dict[str, Any]]:
    decode = msgspec.json.Decoder().decode
    with path.open("rb") as file:
        for line in file:
            yield decode(line)


def _compress(part: Path, whole: Path, suffix: str) -> None:
    with part.open("rb") as plain, whole.open("wb") as raw:
        if suffix == ".gz":
            # Without a name and a time in it: the same vectors are the same bytes.
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
                shutil.copyfileobj(plain, packed)
            return
        import zstandard

        zstandard.ZstdCompressor().copy_stream(plain, raw)
