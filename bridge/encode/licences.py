"""A non-commercial licence is said once, before the model is first used on this machine."""

from __future__ import annotations

import contextlib
import logging

import msgspec

from bridge.models import ModelCard
from bridge.settings import data_folder


def say_licence(card: ModelCard) -> None:
    """Warn, by the logger ``bridge``, that `card` is not for commercial use.

    Said once, and remembered in the data folder. Without any logging set up Python prints such a line on stderr.
    """
    if not card.non_commercial:
        return
    path = data_folder() / "licences.json"
    try:
        said = msgspec.json.decode(path.read_bytes(), type=list[str])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        said = []
    if card.id in said:
        return
    logging.getLogger("bridge").warning(
        "%s is licensed %s: not for commercial use, and what is derived from it is shared alike", card.id, card.licence
    )
    # A folder that cannot be written costs a second notice, nothing else.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(sorted({*said, card.id})))
