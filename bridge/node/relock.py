"""Write a recipe's lock file anew: `python -m bridge.node.relock` after changing versions in `recipe.py`.

Resolves the recipe's coordinates through their POMs, downloads every file and pins its sha256. Trusts
what the repository serves at that moment; review the diff.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bridge.node.artifacts import Artifact, pin, resolve_tree, write_lock
from bridge.node.recipe import OPENSEARCH, Module, Recipe

_Key = tuple[str, str, str, str, str]


def relock(recipe: Recipe, folder: Path) -> tuple[Artifact, ...]:
    """Resolve, download (into the Maven repository folder `folder`), pin and write `recipe.lock`."""
    places: dict[_Key, list[str]] = {}

    def put(key: _Key, place: str) -> None:
        if key[1] not in recipe.skip and place not in places.setdefault(key, []):
            places[key].append(place)

    in_lib: dict[str, _Key] = {}
    for root in recipe.roots:
        for key in resolve_tree(root, folder):
            in_lib.setdefault(key[1], key)
    for coordinate in recipe.lib:
        in_lib[_exact(coordinate)[1]] = _exact(coordinate)
    for key in in_lib.values():
        put(key, "lib")
    for coordinate in recipe.agent:
        put(_exact(coordinate), "agent")
    in_module: dict[str, set[str]] = {}
    for module in recipe.modules:
        _say(f"resolving {module.artifact}")
        keys = [key for key in resolve_tree(module.artifact, folder) if key[1] not in in_lib]
        inherited = {name for parent in module.extends for name in in_module[parent]}
        kept = [key for key in keys if key[1] not in inherited]
        in_module[module.name] = {key[1] for key in kept}
        for key in kept:
            put(key, _place(module))
    for coordinate in recipe.plugins:
        group, artifact, version, _, _ = _exact(coordinate)
        put((group, artifact, version, "zip", ""), f"plugin:{artifact}")
    pinned = []
    for number, (key, into) in enumerate(places.items(), start=1):
        _say(f"pinning {number}/{len(places)} {key[1]}")
        pinned.append(pin(*key, into, folder))
    write_lock(recipe.lock, recipe.name, pinned)
    return tuple(pinned)


def _place(module: Module) -> str:
    return f"module:{module.name}"


def _exact(coordinate: str) -> _Key:
    group, artifact, version = coordinate.split(":")
    return group, artifact, version, "jar", ""


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201


def main(recipes: tuple[Recipe, ...] = (OPENSEARCH,)) -> None:
    """Relock each recipe in a fresh folder, so that nothing is taken from an older download."""
    for recipe in recipes:
        with tempfile.TemporaryDirectory(prefix="relock-") as folder:
            pinned = relock(recipe, Path(folder))
        megabytes = sum(item.size for item in pinned) / 1e6
        _say(f"{recipe.lock.name}: {len(pinned)} artifacts, {megabytes:.0f} MB")


if __name__ == "__main__":
    main()
