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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bridge.deadletter import DeadLetterFile
from bridge.encode import Encoder
from bridge.errors import BridgeError, CheckpointError, SourceError, UsageError
from bridge.prepare import WHOLE, Preparation
from bridge.records import TEXT_FIELDS, Progress, Report
from bridge.runners.work import Encoded, InProcess, Reading, Runner, Work
from bridge.sources import Source
from bridge.vectorfile import Form, VectorMeta, check_nested, form_of, to_parquet, write_meta

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
    preparation: Preparation = WHOLE
    """How texts are cut, and vectors pruned."""
    dead_letter: Path | None = None
    fresh: bool = False
    """Forget what an interrupted run has written."""


@dataclass(frozen=True, slots=True)
class EncodeSummary:
    """The run's totals: `source` = `encoded` + `dead`; `active_terms` is a document's mean.

    `pruned_terms`, a document's mean, and `pruned_mass`, a share of all weight, are what pruning took.
    """

    source: int
    encoded: int
    dead: int
    active_terms: float
    seconds: float
    model: str
    output: str
    preparation: str = str(WHOLE)
    passages: int | None = None
    """How many the texts were cut into; None where they are taken whole."""
    pruned_terms: float | None = None
    pruned_mass: float | None = None
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
    passages: int = 0
    mass: float = 0.0
    removed: int = 0
    removed_mass: float = 0.0
    dead: int = 0
    dead_letter: str = ""
    dead_letter_bytes: int = 0


def encode_file(
    source: Source,
    output: Path,
    encoder: Encoder,
    options: EncodeOptions | None = None,
    *,
    runner: Runner | None = None,
    say: Callable[[str], None] = lambda line: None,
    report: Report = lambda progress: None,
) -> EncodeSummary:
    """Encode every document of `source` into the file `output`.

    Args:
        source: read once.
        output: replaced when the new file is whole; its description is written beside it.
        encoder: of documents.
        options: the form, the text fields, what is kept, where dead letters go.
        runner: who encodes; this process, unless another is given, which must have the same model.
        say: gets lines for the user.
        report: gets the progress.

    Raises:
        UsageError: the model encodes queries only, or the options contradict each other.
        CheckpointError: FILE.part is of another source, model or form.
        ModelMismatch: the runner has another model.
        SourceError: the source or the file cannot be read or written; the same call goes on there.
    """
    started = time.monotonic()
    options = options or EncodeOptions()
    form = form_of(_bare(output), options.form)
    _check(encoder, output, form, options)
    options = replace(options, preparation=options.preparation.resolved(encoder))
    run = _Run(source, output, encoder, form, options, runner or InProcess(encoder))
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
    preparation = options.preparation
    return EncodeSummary(
        source=place.position,
        encoded=place.encoded,
        dead=place.dead,
        active_terms=round(place.terms / place.encoded, 2) if place.encoded else 0.0,
        seconds=round(time.monotonic() - started, 3),
        model=encoder.fingerprint,
        output=str(output),
        preparation=str(preparation),
        passages=None if preparation.passages == "whole" else place.passages,
        pruned_terms=round(place.removed / max(place.encoded, 1), 2) if preparation.pruning else None,
        pruned_mass=round(place.removed_mass / ((place.mass + place.removed_mass) or 1.0), 6)
        if preparation.pruning
        else None,
        dead_letter=place.dead_letter if place.dead else None,
    )


def _check(encoder: Encoder, output: Path, form: Form, options: EncodeOptions) -> None:
    if not encoder.encodes_documents:
        raise UsageError(f"model {encoder.name} encodes queries only; name the model of the documents")
    if form == "anserini" and options.keep_source:
        raise UsageError("the anserini form has no place for a document's own fields; leave --keep-source out")
    if form == "engine" and options.scale is not None:
        raise UsageError("the engine form holds weights as the engine keeps them; leave --scale out")
    if options.preparation.passages == "nested":
        check_nested(form)
    if options.scale is not None and not 0 < options.scale < 1e6:
        raise UsageError(f"the scale must be above zero, not {options.scale}")
    if output.is_dir():
        raise UsageError(f"{output} is a folder; name a file")


def _bare(path: Path) -> Path:
    """`path` without the suffix of a compression."""
    return path.with_suffix("") if path.suffix in _COMPRESSED else path


class _Run:
    """One source into one file."""

    def __init__(
        self, source: Source, output: Path, encoder: Encoder, form: Form, options: EncodeOptions, runner: Runner
    ) -> None:
        self.source, self.output, self.encoder, self.form, self.options = source, output, encoder, form, options
        self.runner = runner
        self.part = output.with_name(output.name + ".part")
        self.sidecar = output.with_name(output.name + ".part.json")

    def begin(self, say: Callable[[str], None]) -> _Place:
        """Where to go on, or the start."""
        options = self.options
        letters = (options.dead_letter or self.output.with_name(self.output.name + ".dead-letter.jsonl")).absolute()
        now = _Place(
            source=self.source.fingerprint(),
            model=self.encoder.fingerprint,
            how=repr((self.form, options.text_fields, options.keep_source, options.scale, str(options.preparation))),
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
        options, kept = self.options, self.options.keep_source
        cut = options.preparation.passages != "whole"
        reading = Reading(self.source, place.position, _BATCH, options.text_fields, with_source=kept or cut)
        work = Work(self.form, self.encoder.fingerprint, kept, options.scale, options.preparation)
        with self.part.open("r+b") as file:
            file.truncate(place.bytes)
            file.seek(place.bytes)
            written = time.monotonic()
            try:
                with contextlib.closing(self.runner.run(reading, work)) as results:
                    for number, encoded in enumerate(results):
                        if encoded.number != number:
                            raise BridgeError(f"batch {encoded.number} came in the place of {number}; run it again")
                        place = _written(encoded, place, file, letters)
                        if time.monotonic() - written >= CHECKPOINT_SECONDS:
                            self._sync(place, file)
                            report(Progress("encode", place.position, encoded.bytes_read, self.source.bytes_total))
                            written = time.monotonic()
            except BaseException:
                # A second failure here must not hide the first; the older place stands, and is safe.
                with contextlib.suppress(BridgeError, OSError):
                    self._sync(place, file)
                raise
            self._sync(place, file)
            return place

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
            preparation=str(self.options.preparation),
        )
        try:
            if self.form == "parquet":
                nested = self.options.preparation.passages == "nested"
                to_parquet(_decoded(self.part), whole, with_source=self.options.keep_source, nested=nested)
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


def _written(encoded: Encoded, place: _Place, file: BinaryIO, letters: DeadLetterFile) -> _Place:
    """Write one batch; the new place, counted only when all of it is written."""
    file.write(encoded.lines)
    for letter in encoded.dead:
        letters.append(letter.outcome())
    return msgspec.structs.replace(
        place,
        position=place.position + encoded.items,
        bytes=place.bytes + len(encoded.lines),
        encoded=place.encoded + encoded.encoded,
        terms=place.terms + encoded.terms,
        passages=place.passages + encoded.passages,
        mass=place.mass + encoded.mass,
        removed=place.removed + encoded.removed,
        removed_mass=place.removed_mass + encoded.removed_mass,
        dead=place.dead + len(encoded.dead),
        # Taken here: what an interrupted batch wrote is cut off again when the run goes on.
        dead_letter_bytes=letters.sync() if encoded.dead else place.dead_letter_bytes,
    )


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
