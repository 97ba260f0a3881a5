"""Hugging Face repositories ─▶ local folders, by the hub's own client and cache."""

from __future__ import annotations

import re
from pathlib import Path

from bridge.errors import ModelNotFound
from bridge.models import find_card

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_FILES = [
    "*.json",
    "*.txt",
    "*.safetensors",
    "*/config.json",
    "*/*.safetensors",
    "*/tokenizer*.json",
    "*/special_tokens_map.json",
    "*/idf.json",
]
_PICKLE = ["pytorch_model.bin"]
_ONNX = ["onnx/*.onnx"]


def is_repository(name: str) -> bool:
    """Whether `name` has the form of a Hugging Face id."""
    return bool(_REPOSITORY.fullmatch(name))


def cached_repository(name: str) -> Path | None:
    """The folder of a repository whose config and weights the hub's cache holds; nothing is fetched."""
    import huggingface_hub

    config = huggingface_hub.try_to_load_from_cache(name, "config.json")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin")) else None


def fetch_repository(name: str, *, revision: str | None = None, allow_pickle: bool = False) -> Path:
    """The local snapshot of a repository; what the cache holds is not fetched again.

    `HF_TOKEN`, `HF_HOME`, `HF_HUB_OFFLINE` and the other variables of the hub's client apply.

    Raises:
        ModelNotFound: no such repository or revision, no permission, no network, or offline and not cached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    card = find_card(name)
    patterns = [*_FILES, *(_PICKLE if allow_pickle or (card and card.allow_pickle) else [])]
    if card and card.family == "splade-pp":
        patterns += _ONNX
    at = f" at revision {revision}" if revision else ""
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise ModelNotFound(
            f"{name} asks for its licence to be accepted on the hub, and for HF_TOKEN of an account that did"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(f"the hub has no repository {name}, or HF_TOKEN may not read it") from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(f"{name} has no revision {revision}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ModelNotFound(
            f"{name}{at} is not in the local cache and the hub is not reached; download it on a machine that does, "
            "and name the folder"
        ) from error
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        raise ModelNotFound(
            f"{name}{at} cannot be fetched from the hub: {' '.join(str(error).split())[:200]}"
        ) from error
