"""Corpora with poison in them, and what an undisturbed run makes of them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge import register as registering
from bridge.encode import load_encoder
from bridge.engines import Engine

POISON = 100
"""One document of so many cannot go in."""


KINDS = ("json", "id", "text", "type", "duplicate")
"""What makes a document poison: it is not JSON, has no id, no text, a field of a wrong type, or another one's id."""


@dataclass(frozen=True, slots=True)
class State:
    """All that a load leaves behind, in comparable form."""

    documents: dict[str, str]
    """Id ─▶ digest of its `_source`, vector and hash included."""
    dead: list[tuple[str | None, int, str]]
    """Id, line and reason of each dead letter, in line order."""


def write_corpus(path: Path, count: int, seed: int = 0, kinds: Sequence[str] = KINDS) -> Path:
    """`count` lines, one in `POISON` of them poison, of these kinds in turn."""
    source = random.Random(seed)
    words = [f"word{i}" for i in range(3000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            text = " ".join(source.choices(words, k=source.randint(5, 40)))
            document: dict[str, Any] = {"_id": f"d{number}", "text": text, "year": 2000 + number % 25}
            poison = kinds[(number // POISON) % len(kinds)] if number % POISON == POISON // 2 else None
            if poison == "json":
                file.write(json.dumps(document)[:-5] + "\n")
                continue
            if poison == "id":
                del document["_id"]
            elif poison == "text":
                document["text"] = "  "
            elif poison == "type":
                document["year"] = "not a year"
            elif poison == "duplicate":
                document["_id"] = f"d{number - 3}"
            file.write(json.dumps(document) + "\n")
    return path


def register_for_poison(
    engine: Engine, index: str, model: Path, options: registering.RegisterOptions | None = None
) -> None:
    """An index whose `year` is a number, so that poison of a wrong type is refused by the engine."""
    registering.apply(engine, registering.plan(engine, index, load_encoder(model), options))
    engine.put_mapping(index, {"properties": {"year": {"type": "integer"}}})


def state_of(engine: Engine, index: str, dead_letters: Path, copies: str | None = None) -> State:
    """What is in `index`, and in the dead-letter file; `copies` is a search's preference, such as `_primary`."""
    engine.refresh(index)
    documents = dict(_documents(engine, index, {"preference": copies} if copies else {}))
    letters = []
    if dead_letters.is_file():
        for line in dead_letters.read_text().splitlines():
            letter = json.loads(line)
            letters.append((letter["id"], letter["line"], letter["reason"]))
    return State(documents, sorted(letters, key=lambda letter: letter[1]))


def _documents(engine: Engine, index: str, preference: dict[str, str]) -> Iterator[tuple[str, str]]:
    body: dict[str, Any] = {"size": 5000, "query": {"match_all": {}}, "sort": ["_doc"]}
    params = {"scroll": "1m", **preference}
    answer = engine.request("POST", f"/{index}/_search", params=params, body=json.dumps(body).encode())
    while True:
        assert answer["_shards"]["failed"] == 0, answer["_shards"]
        hits = answer["hits"]["hits"]
        scroll = answer["_scroll_id"]
        for hit in hits:
            source = json.dumps(hit["_source"], sort_keys=True).encode()
            yield hit["_id"], hashlib.sha256(source).hexdigest()
        if not hits:
            engine.request("DELETE", "/_search/scroll", body=json.dumps({"scroll_id": [scroll]}).encode())
            return
        content = json.dumps({"scroll": "1m", "scroll_id": scroll}).encode()
        answer = engine.request("POST", "/_search/scroll", body=content)
