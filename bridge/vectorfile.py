"""Files of encoded documents, so that encoding can happen on another machine than ingesting.

Four forms, one document a line (or row)::

    jsonl      {"id", "tokens": [..], "weights": [..]}
    parquet    the same as columns: string, list<string>, list<float>
    anserini   {"id", "contents", "vector": {token: weight}}: Anserini's and Pyserini's JsonVectorCollection
    engine     see `bridge.readyfile`: checked, and in the engine's own words, so that it goes in fastest

Where passages are nested, the first two hold ``passages``, each ``{"start", "end", "tokens": [..], "weights": [..]}``,
instead of the tokens and weights of the whole; start and end count characters of the text that was encoded.
With `source` kept, a line of all but `anserini` also holds the document's own fields. Beside each file FILE lies
FILE.meta.json, which says whose vectors they are: an index of another model refuses them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import numpy as np

from bridge.chunk import Passage
from bridge.encode.base import Encoder, TokenVocabulary
from bridge.errors import DocumentError, ModelMismatch, SourceError, UsageError
from bridge.offsets import Span
from bridge.prepare import WHOLE, Preparation, parse_preparation
from bridge.readyfile import RAW_FIELDS, parsed, read_ready, ready_fields
from bridge.records import Ids, SparseVector, Weights
from bridge.tokens import shortest

Form = Literal["jsonl", "parquet", "anserini", "engine"]

ID_FIELD = "id"
META_SUFFIX = ".meta.json"


class VectorMeta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What FILE.meta.json holds: the form, and whose vectors these are."""

    format: Literal[1] = 1
    form: Form
    model: str
    space: str
    document_encoder: str
    query_encoders: tuple[str, ...]
    vocabulary: int | None
    """Number of tokens; None where it is open."""
    ceilings: tuple[float, float]
    text_fields: tuple[str, ...]
    documents: int
    scale: float | None = None
    """Weights were multiplied by this and rounded to whole numbers."""
    preparation: str = str(WHOLE)
    """How texts became vectors, in `bridge.prepare`'s canonical form."""

    @property
    def prepared(self) -> Preparation:
        """`preparation`, read.

        Raises:
            UsageError: it is not of that form.
        """
        return parse_preparation(self.preparation)

    @classmethod
    def of(cls, encoder: Encoder, form: Form, **facts: Any) -> VectorMeta:
        """The description of a file of `encoder`'s vectors."""
        return cls(
            form=form,
            model=encoder.name,
            space=encoder.space,
            document_encoder=encoder.fingerprint,
            query_encoders=(encoder.query_fingerprint,),
            vocabulary=None if encoder.open_vocabulary else len(encoder.vocabulary),
            ceilings=encoder.ceilings,
            **facts,
        )


def form_of(path: Path, asked: str | None = None) -> Form:
    """The form that was asked for, or that the file's name has.

    Raises:
        UsageError: the two contradict each other.
    """
    is_parquet = path.suffix == ".parquet"
    if asked is None:
        return "parquet" if is_parquet else "jsonl"
    if is_parquet != (asked == "parquet"):
        raise UsageError(f"{path.name} is no name for {asked}: a Parquet file ends in .parquet, and no other does")
    found: Form = next(form for form in get_args(Form) if form == asked)
    return found


def meta_path(file: Path) -> Path:
    """Where the description of a vector file lies."""
    return file.with_name(file.name + META_SUFFIX)


def read_meta(file: Path) -> VectorMeta | None:
    """The description of a vector file, or None where there is none beside it.

    Raises:
        SourceError: it cannot be read, or is of another release.
    """
    path = meta_path(file)
    try:
        return msgspec.json.decode(path.read_bytes(), type=VectorMeta)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} does not describe a vector file: {error}") from error


def shared_meta(files: Sequence[str]) -> VectorMeta | None:
    """The description that all of `files` share, or None where none of them is a vector file.

    Raises:
        SourceError: some are vector files and some are not.
        ModelMismatch: they are of different models.
    """
    found = {name: read_meta(Path(name)) for name in files}
    known = {name: meta for name, meta in found.items() if meta is not None}
    if not known:
        return None
    if len(known) < len(found):
        plain = next(name for name, meta in found.items() if meta is None)
        raise SourceError(
            f"{next(iter(known))} holds vectors and {plain} has no {META_SUFFIX} beside it; ingest them one by one"
        )
    (first, meta), *rest = known.items()
    for name, other in rest:
        if (other.document_encoder, other.space) != (meta.document_encoder, meta.space):
            raise ModelMismatch(
                f"{first} holds vectors of {meta.model} ({meta.document_encoder}), "
                f"{name} of {other.model} ({other.document_encoder})"
            )
        if other.preparation != meta.preparation:
            raise ModelMismatch(
                f"{first} was encoded with {meta.preparation!r}, {name} with {other.preparation!r}; "
                "an index holds vectors that were made alike"
            )
    return meta


def write_meta(file: Path, meta: VectorMeta) -> None:
    """Write FILE.meta.json."""
    meta_path(file).write_bytes(msgspec.json.format(msgspec.json.encode(meta), indent=2) + b"\n")


Nested = Sequence[tuple[Passage, SparseVector]]
"""The passages of a text, in order, each with its vector."""


def line_of(
    form: Form, identity: str, vector: SparseVector | Nested, text: str, *,
    source: Mapping[str, Any] | msgspec.Raw | None = None, scale: float | None = None,
) -> bytes:  # fmt: skip
    """One document as a line of `form`, its newline included; Parquet has the line of jsonl.

    Args:
        form: see the module.
        identity: the document's id.
        vector: of the whole, or of each of its passages; weights are written as the shortest text that reads back to
            the same float32.
        text: what was encoded; only `anserini` keeps it.
        source: the document's own fields, kept under ``source``.
        scale: multiply the weights by this and round; a token that rounds to nothing is left out.

    Raises:
        UsageError: passages in a form that has no place for them.
        DocumentError: a weight that no engine takes, in the engine form.
    """
    fields: dict[str, Any] = {"id": identity}
    if isinstance(vector, SparseVector) and form == "engine":
        fields |= ready_fields(vector)
    elif isinstance(vector, SparseVector):
        tokens, weights = _written(vector, scale)
        if form == "anserini":
            fields |= {"contents": text, "vector": dict(zip(tokens, weights, strict=True))}
        else:
            fields |= {"tokens": tokens, "weights": weights}
    else:
        check_nested(form)
        fields["passages"] = [
            {"start": passage.start, "end": passage.end} | dict(zip(_LISTS, _written(one, scale), strict=True))
            for passage, one in vector
        ]
    if source is not None and form != "anserini":
        fields["source"] = source
    return msgspec.json.encode(fields) + b"\n"


def check_nested(form: Form) -> None:
    """Raises UsageError where `form` has no place for passages."""
    if form in ("anserini", "engine"):
        raise UsageError(f"the {form} form has one vector a document; take --passages merge, or another form")


_LISTS = ("tokens", "weights")


def _written(vector: SparseVector, scale: float | None) -> tuple[Sequence[str], list[float]]:
    tokens: Sequence[str] = vector.tokens
    if scale is None:
        return tokens, shortest(vector.weights)
    whole = [round(weight * scale) for weight in vector.weights.tolist()]
    kept = [place for place, weight in enumerate(whole) if weight > 0]
    return [tokens[place] for place in kept], [whole[place] for place in kept]


def to_parquet(
    lines: Iterator[Mapping[str, Any]], target: Path, *, with_source: bool, nested: bool = False, rows: int = 4096
) -> None:
    """Write documents of the jsonl form as Parquet, `rows` at a time; a document's own fields become a JSON string."""
    import pyarrow as pa
    from pyarrow import parquet

    vector = [("tokens", pa.list_(pa.string())), ("weights", pa.list_(pa.float32()))]
    passage = pa.struct([("start", pa.int32()), ("end", pa.int32()), *vector])
    columns = [("id", pa.string()), *([("passages", pa.list_(passage))] if nested else vector)]
    schema = pa.schema(columns + ([("source", pa.string())] if with_source else []))
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch.clear()

        for line in lines:
            row = dict(line)
            if with_source:
                row["source"] = msgspec.json.encode(row["source"]).decode()
            batch.append(row)
            if len(batch) >= rows:
                flush()
        flush()


def read_vector(fields: Mapping[str, Any], vocabulary: TokenVocabulary | None = None) -> SparseVector:
    """The vector in one document of a vector file.

    Args:
        fields: the line's, in any of the forms.
        vocabulary: the model's, whose ids the vector gets; without it ids mean nothing outside of the vector.

    Raises:
        DocumentError: it is no such document, or a token is not in the vocabulary.
    """
    tokens, weights = _listed(fields)
    if vocabulary is None:
        return SparseVector(np.arange(len(tokens), dtype=np.int32), weights, _Listed(tokens))
    found = list(map(vocabulary.index.get, tokens))
    if None in found:
        raise DocumentError(f"its token {tokens[found.index(None)]!r} is not in the model's vocabulary")
    ids = np.array(found, dtype=np.int32)
    order = np.argsort(ids)
    return SparseVector(ids[order], weights[order], vocabulary)


def read_passages(
    fields: Mapping[str, Any], vocabulary: TokenVocabulary | None = None
) -> list[tuple[int, int, SparseVector]]:
    """The passages in one document of a vector file: start, end and vector of each, in the text's order.

    Args:
        fields: the line's, jsonl or Parquet.
        vocabulary: as for `read_vector`.

    Raises:
        DocumentError: it is no such document, or a token is not in the vocabulary.
    """
    passages = fields.get("passages")
    if not isinstance(passages, list) or not all(isinstance(passage, Mapping) for passage in passages):
        raise DocumentError("it has no passages: a list of objects with start, end, tokens and weights")
    found: list[tuple[int, int, SparseVector]] = []
    for passage in passages:
        start, end = passage.get("start"), passage.get("end")
        if type(start) is not int or type(end) is not int or not 0 <= start <= end:
            raise DocumentError(f"a passage of it goes from {start!r} to {end!r}; these are offsets into the text")
        found.append((start, end, read_vector(passage, vocabulary)))
    return found


class _Listed:
    """The tokens of one vector, by their place in it."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tuple(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def tokens(self, ids: Ids) -> tuple[str, ...]:
        # Nearly always all of them, and in ascending order, as a vector's ids are.
        return self._tokens if len(ids) == len(self._tokens) else tuple(self._tokens[i] for i in ids.tolist())


def raw_fields(meta: VectorMeta | None) -> frozenset[str]:
    """The fields of a line that are read fastest as they are written."""
    if meta is None or meta.form not in ("jsonl", "engine"):
        return frozenset()
    return RAW_FIELDS if meta.form == "engine" else frozenset(_LISTS)


def _listed(fields: Mapping[str, Any]) -> tuple[list[str], Weights]:
    """Distinct tokens and their weights, float32 above zero."""
    checked = False
    if "vector" in fields and "hash" in fields:
        tokens, weights = parsed(read_ready(fields))
    elif isinstance(fields.get("vector"), Mapping):
        tokens, weights = list(fields["vector"]), list(fields["vector"].values())
    else:
        tokens, weights, checked = _unwritten(fields.get("tokens"), fields.get("weights"))
    if not isinstance(tokens, list) or not isinstance(weights, list) or len(tokens) != len(weights):
        raise DocumentError("it has no vector: tokens and weights of one length, or an object `vector`")
    if not checked:
        try:
            weights, tokens = msgspec.convert(weights, _Weights), msgspec.convert(tokens, _Tokens)
        except msgspec.ValidationError:
            wrong = [weight for weight in weights if not _is_weight(weight)]
            if wrong:
                raise DocumentError(f"its weight {wrong[0]!r} is not a number above zero") from None
            raise DocumentError(_NOT_DISTINCT) from None
    if len(set(tokens)) < len(tokens):
        raise DocumentError(_NOT_DISTINCT)
    return tokens, np.array(weights, dtype=np.float32)


def _unwritten(tokens: Any, weights: Any) -> tuple[Any, Any, bool]:
    """Lists that came as they are written, parsed; and whether each element was looked at on the way."""
    if type(tokens) is not msgspec.Raw or type(weights) is not msgspec.Raw:
        return tokens, weights, False
    try:
        return _decode_tokens(tokens), _decode_weights(weights), True
    except msgspec.DecodeError:
        pass
    try:
        # What is wrong with an element is said in the caller's words.
        return msgspec.json.decode(tokens), msgspec.json.decode(weights), False
    except msgspec.DecodeError as error:
        raise DocumentError(f"its tokens and weights cannot be kept: {error}") from None


def _is_weight(weight: Any) -> bool:
    return type(weight) in (int, float) and 0 < weight <= _LARGEST


_LARGEST = float(np.finfo(np.float32).max)
"""Past it a float32 would be infinite."""

_Tokens = list[str]
_Weights = list[Annotated[float, msgspec.Meta(gt=0, le=_LARGEST)]]
# Compiled looks at each element, on the way from text where the lists come as text.
_decode_tokens = msgspec.json.Decoder(_Tokens).decode
_decode_weights = msgspec.json.Decoder(_Weights).decode

_NOT_DISTINCT = "its tokens are not distinct strings"


def source_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The document's own fields, as far as the file kept them."""
    if "contents" in fields and "hash" not in fields and isinstance(fields.get("vector"), Mapping):
        return {"contents": fields["contents"]} if fields.get("contents") else {}
    kept = fields.get("source")
    if isinstance(kept, str):
        try:
            kept = msgspec.json.decode(kept)
        except msgspec.DecodeError as error:
            raise DocumentError(f"its source is not JSON: {error}") from None
    if kept is None:
        return {}
    if not isinstance(kept, dict):
        raise DocumentError("its source is not an object")
    return kept


def looks_encoded(fields: Mapping[str, Any]) -> bool:
    """Whether a document of an ordinary source is a line of a vector file whose description was left behind."""
    passages = fields.get("passages")
    first = passages[0] if isinstance(passages, list) and passages and isinstance(passages[0], Mapping) else fields
    lists = all(isinstance(first.get(name), list) for name in _LISTS)
    return lists or (isinstance(fields.get("vector"), Mapping) and ("contents" in fields or "hash" in fields))


class StoredEncoder:
    """The encoder of a vector file as an index sees it: its names, without its weights."""

    encodes_documents = True

    def __init__(self, meta: VectorMeta) -> None:
        self.meta = meta
        self.name, self.space, self.fingerprint = meta.model, meta.space, meta.document_encoder
        self.query_fingerprint = meta.query_encoders[0]
        self.ceilings = meta.ceilings
        self.open_vocabulary = meta.vocabulary is None
        self.vocabulary = _Unnamed(meta.vocabulary or 0)
        self.portable: dict[str, tuple[Path, ...]] = {}

    def encode_document(self, texts: Sequence[str]) -> list[SparseVector]:
        del texts
        raise UsageError(f"{self.name} is known from a vector file alone; name the model with --model")

    def spans(self, text: str) -> list[Span]:
        del text
        raise UsageError(f"{self.name} is known from a vector file alone; name the model with --model")

    encode_query = encode_document


class _Unnamed:
    """A vocabulary of which only the size is known."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def tokens(self, ids: Any) -> tuple[str, ...]:
        raise UsageError(f"the tokens of {len(ids)} ids are not known without the model; name it with --model")
