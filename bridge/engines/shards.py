"""What the engines say of an index's shards, aliases and documents: in REST terms that both share.

Every write of a shard gets the next sequence number, so a shard read in that order is read in the order of its
writes, and what was written since is what has a higher number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.engines.base import Engine, Json, encode, path_part
from bridge.errors import EngineBusy, EngineForbidden, IndexNotFound, RequestRejected


@dataclass(frozen=True, slots=True)
class Shard:
    """How far the writes of a primary shard have come."""

    number: int
    written: int
    """The highest sequence number; -1 where nothing was ever written."""
    settled: int
    """All writes up to this number are in every copy that searches may read; -1 where there are none."""


@dataclass(frozen=True, slots=True)
class Volume:
    """How much an index holds, without its replicas."""

    documents: int
    bytes: int


def shards_of(engine: Engine, index: str) -> list[Shard]:
    """The shards of one index, in the order of their numbers.

    Raises:
        EngineBusy: a primary is not there for now.
    """
    wanted = "indices.*.shards.*.routing,indices.*.shards.*.seq_no"
    answer = engine.request(
        "GET", f"/{path_part(index)}/_stats/docs", params={"level": "shards", "filter_path": wanted}
    )
    found = []
    for state in (answer or {}).get("indices", {}).values():
        for number, copies in state.get("shards", {}).items():
            primary = next((copy for copy in copies if copy.get("routing", {}).get("primary")), None)
            if primary is None or "seq_no" not in primary:
                raise EngineBusy(f"the primary of shard {number} of {index} is not there for now", status=503)
            numbers = primary["seq_no"]
            found.append(Shard(int(number), int(numbers["max_seq_no"]), int(numbers["global_checkpoint"])))
    state = engine.require_index(index)
    if len(found) != int(state.settings.get("index.number_of_shards", "1")):
        raise EngineBusy(f"not every primary shard of {index} is there for now", status=503)
    return sorted(found, key=lambda shard: shard.number)


def volume_of(engine: Engine, index: str) -> Volume:
    """How many documents there are, nested ones apart, and the bytes of the primaries' segments."""
    wanted = "_all.primaries.store.size_in_bytes"
    answer = engine.request("GET", f"/{path_part(index)}/_stats/store", params={"filter_path": wanted})
    size = (answer or {}).get("_all", {}).get("primaries", {}).get("store", {}).get("size_in_bytes", 0)
    return Volume(engine.count(index), int(size))


def aliases_of(engine: Engine, name: str) -> dict[str, Json]:
    """Index ─▶ the properties with which it has the alias `name`; empty where there is no such alias."""
    try:
        found = engine.request("GET", f"/_alias/{path_part(name)}")
    except IndexNotFound:
        return {}
    return {index: state["aliases"][name] for index, state in found.items() if name in state.get("aliases", {})}


def given_aliases(engine: Engine, index: str) -> set[str]:
    """The aliases that index templates would give a new index of that name, as far as this user may know."""
    try:
        answer = engine.request("POST", f"/_index_template/_simulate_index/{path_part(index)}")
    except (IndexNotFound, RequestRejected, EngineForbidden):
        return set()
    return set((answer.get("template") or {}).get("aliases") or {})


def move_alias(engine: Engine, name: str, properties: Mapping[str, Any], *, old: str, new: str) -> None:
    """Take the alias from `old` and give it to `new` with the same properties, in one step.

    Raises:
        IndexNotFound: `old` does not have the alias any more; nothing was changed.
    """
    actions = [
        {"remove": {"index": old, "alias": name, "must_exist": True}},
        {"add": {"index": new, "alias": name, **properties}},
    ]
    answer = engine.request("POST", "/_aliases", body=encode({"actions": actions}))
    if not answer.get("acknowledged"):
        raise EngineBusy(f"POST /_aliases: not every node has confirmed that {name} has moved", status=503)


def block_writes(engine: Engine, index: str) -> None:
    """Let the index take no more writes; those that were under way are in when this returns.

    Raises:
        EngineBusy: some shard has not confirmed it.
    """
    answer = engine.request("PUT", f"/{path_part(index)}/_block/write")
    if not (answer.get("acknowledged") and answer.get("shards_acknowledged")):
        raise EngineBusy(f"PUT /{index}/_block/write: not every shard has confirmed it", status=503)


def await_status(engine: Engine, index: str, status: str, seconds: float) -> str:
    """The index's health, as soon as it is `status` or better, or else after `seconds`."""
    params = {"wait_for_status": status, "timeout": f"{seconds:.0f}s"}
    path = f"/_cluster/health/{path_part(index)}"
    try:
        answer = engine.request("GET", path, params=params, timeout=seconds + 30)
    except (EngineBusy, RequestRejected) as error:
        # An index that does not get there in time is a 408, with the health in the body.
        if error.status not in (408, 503):
            raise
        answer = engine.index_health(index)
    return str(answer.get("status", "unknown"))


def existing(engine: Engine, index: str, documents: Sequence[tuple[str, str | None]]) -> set[str]:
    """Which of these (id and routing) exist, also where no refresh has shown them yet.

    Raises:
        EngineError: of some document it is not to be known.
    """
    if not documents:
        return set()
    wanted: list[Json] = [
        {"_id": name} | ({"routing": routing} if routing is not None else {}) for name, routing in documents
    ]
    return set(engine.get_documents(index, {"docs": wanted}, {"_source": "false"}))


def settings_of(engine: Engine, index: str) -> Json:
    """An index's settings, flat, each in its own form: a list is a list."""
    (found,) = engine.request("GET", f"/{path_part(index)}/_settings", params={"flat_settings": "true"}).values()
    settings: Json = found["settings"]
    return settings


def metas_of(engine: Engine, pattern: str) -> dict[str, Json]:
    """Index ─▶ its mapping's `_meta`, of the indices that `pattern` matches."""
    params = {"filter_path": "*.mappings._meta", "expand_wildcards": "open,hidden"}
    found = engine.request("GET", f"/{path_part(pattern)}/_mapping", params=params)
    return {index: state["mappings"]["_meta"] for index, state in (found or {}).items()}
