"""Small helpers over the files of a model folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bridge.errors import ModelError, ModelFormatError


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Around what writes a model to `folder`, or beside it.

    Raises:
        ModelError: it cannot be written (a full disk, say).
    """
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"the model cannot be written to {folder}: {error.strerror or error}; make room, or name another folder "
            "(BRIDGE_CACHE_DIR moves the cache)"
        ) from error


CARD_FILE = "bridge.json"
"""What a fitted model says of itself."""

EXPORT_FILE = "bridge-onnx.json"
"""What an exported one does."""

TABLE_FILES = ("idf.json", "query_token_weights.txt")

_CHUNK = 1 << 20

_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Models whose first position comes after that of the padding token."""


def sha256(content: bytes) -> str:
    """The hash of `content`, in hex."""
    # With OpenSSL behind it, an import that takes longer than most: whoever needs no fingerprint does without.
    import hashlib

    return hashlib.sha256(content).hexdigest()


def file_hash(*paths: Path, salt: str = "") -> str:
    """sha256 (hex) over the contents of `paths`, in order, names included, and over `salt`."""
    import hashlib

    digest = hashlib.sha256(salt.encode())
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
                # Weights may be larger than memory has room for.
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise ModelFormatError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def read_json(path: Path) -> Any:
    """The JSON document in `path`.

    Raises:
        ModelFormatError: missing, unreadable, or not JSON.
    """
    try:
        return msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise ModelFormatError(f"{path.parent} has no {path.name}") from None
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelFormatError(f"{path} is not JSON: {error}") from error


def tokenizer_length(folder: Path) -> int | None:
    """`model_max_length` of tokenizer_config.json: the tokens of a query that its reference looks at; None for all."""
    path = folder / "tokenizer_config.json"
    length = read_json(path).get("model_max_length") if path.is_file() else None
    # Tokenizers write 10^30 for "no limit".
    return int(length) if isinstance(length, (int, float)) and 0 < length < 10**6 else None


def separator_token(folder: Path) -> str:
    """`sep_token` of tokenizer_config.json; BERT's where that names none."""
    path = folder / "tokenizer_config.json"
    found = read_json(path).get("sep_token") if path.is_file() else None
    # Written as a plain string, or with its stripping rules.
    return str((found.get("content") if isinstance(found, dict) else found) or "[SEP]")


def model_length(transformer: Path) -> int:
    """The tokens that a model takes, special ones included, as sentence-transformers and transformers decide it.

    The first of `max_seq_length` of sentence_bert_config.json and `model_max_length` of tokenizer_config.json, but
    no more than the model has positions; 512 where no file says.
    """
    config = read_json(transformer / "config.json")
    positions = config.get("max_position_embeddings")
    if positions and str(config.get("model_type", "")) in _POSITIONS_AFTER_PADDING:
        positions = int(positions) - int(config.get("pad_token_id") or 1) - 1
    module = transformer / "sentence_bert_config.json"
    length = read_json(module).get("max_seq_length") if module.is_file() else None
    known = [length or tokenizer_length(transformer), positions]
    return min((int(one) for one in known if isinstance(one, (int, float)) and one > 0), default=512)


def lowers_case(transformer: Path) -> bool:
    """Whether sentence-transformers lower-cases a text before this folder's tokenizer sees it."""
    module = transformer / "sentence_bert_config.json"
    return bool(module.is_file() and read_json(module).get("do_lower_case"))


def read_prompts(folder: Path) -> dict[str, str]:
    """The prompts that a sentence-transformers folder names, those that hold any text."""
    path = folder / "config_sentence_transformers.json"
    found: dict[str, Any] = (read_json(path).get("prompts") if path.is_file() else None) or {}
    return {str(name): str(text) for name, text in found.items() if text}


def find_table(folder: Path) -> Path | None:
    """The OpenSearch form's table of query weights, if the folder has one."""
    return next((folder / name for name in TABLE_FILES if (folder / name).is_file()), None)
