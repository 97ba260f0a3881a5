"""Templates: slots are filled whole, objects are merged, and every file is used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bridge import templates
from bridge.errors import BridgeError
from bridge.templates import fill, load_template, merge, template_folder

PACKAGE = Path(templates.__file__).parent


def test_a_slot_is_a_whole_key_or_a_whole_value_of_any_type() -> None:
    template = {"${field}": {"type": "x", "dims": "${dimension}", "on": "${flag}"}, "list": ["${field}", "as it is", 3]}
    slots = {"field": "v", "dimension": 384, "flag": False}
    assert fill(template, slots) == {"v": {"type": "x", "dims": 384, "on": False}, "list": ["v", "as it is", 3]}


def test_a_value_of_none_takes_its_key_away() -> None:
    assert fill({"a": "${gone}", "b": {"c": "${gone}"}}, {"gone": None}) == {"b": {}}


def test_what_fills_a_slot_is_not_filled_itself() -> None:
    assert fill({"a": "${x}"}, {"x": "${y}"}) == {"a": "${y}"}


@pytest.mark.parametrize("text", ["a ${field}", "${field} ", "$field", "${Field}", "${}"])
def test_a_slot_inside_of_a_text_is_text(text: str) -> None:
    assert fill({"a": text}, {"field": "v"}) == {"a": text}


def test_a_slot_that_nothing_fills_is_an_error() -> None:
    with pytest.raises(BridgeError, match=r"the slot \$\{missing\}, which nothing fills"):
        fill({"a": ["${missing}"]}, {"field": "v"})


def test_filling_leaves_the_template_alone() -> None:
    template = {"${field}": {"a": ["${field}"]}}
    before = json.dumps(template)
    fill(template, {"field": "v"})
    assert json.dumps(template) == before


def test_merging_goes_into_objects_and_replaces_everything_else() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merge(base, {"a": {"c": [3], "e": 2}, "d": {"f": 1}}) == {"a": {"b": 1, "c": [3], "e": 2}, "d": {"f": 1}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def test_a_template_that_is_not_there_is_an_error() -> None:
    with pytest.raises(BridgeError, match="cannot be read"):
        load_template("mappings", "opensearch", "nonsense")


FILES = sorted(path for kind in ("mappings", "pipelines") for path in template_folder(kind).rglob("*.*"))


def name_of(path: Path) -> str:
    return "/".join(path.parts[-3:])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_template_is_a_json_object_in_a_products_folder_whose_slots_are_whole(path: Path) -> None:
    assert path.suffix == ".json"
    assert path.parent.name in {"opensearch", "elasticsearch"}
    text = path.read_text("utf-8")
    assert isinstance(json.loads(text), dict)
    assert [
        string for string in re.findall(r'"([^"]*\$\{[^"]*)"', text) if not re.fullmatch(r"\$\{[a-z_]+\}", string)
    ] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_template_is_named_where_templates_are_loaded(path: Path) -> None:
    """One that nothing names can be deleted."""
    modules = [file.read_text("utf-8") for file in PACKAGE.rglob("*.py")]
    loading = [code for code in modules if "load_template(" in code and "def load_template" not in code]
    assert any(f'"{path.stem}"' in code for code in loading)


@pytest.mark.parametrize("name", ["rank_features", "sparse_vector", "dense", "models"])
def test_the_products_have_the_same_mappings(name: str) -> None:
    for product in ("opensearch", "elasticsearch"):
        assert load_template("mappings", product, name)["mappings"]["properties"]
