"""The documentation says what the code does: every command, option, layer, file and template is named."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bridge.cli import cli
from bridge.cli.common import BridgeGroup

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bridge"
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


# --- docs/cli.md ------------------------------------------------------------------------------------


def sections(text: str) -> dict[str, str]:
    """Heading ─▶ what stands under it, up to the next heading of any depth; code blocks do not count as headings."""
    found: dict[str, str] = {}
    title, fenced = "", False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        heading = None if fenced else re.fullmatch(r"#+ (.+)", line)
        if heading:
            title = heading[1].strip("` ")
        found[title] = found.get(title, "") + line + "\n"
    return found


SECTIONS = sections(CLI)


def commands(command: click.Command = cli, words: str = "bridge") -> Iterator[tuple[str, click.Command]]:
    """Every command with its words, groups included."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found
            yield from commands(found, f"{words} {name}")


COMMANDS = {words: command for words, command in commands() if words != "bridge"}


def global_options() -> list[click.Option]:
    return [parameter for parameter in BridgeGroup("empty").params if isinstance(parameter, click.Option)]


def own_options(command: click.Command) -> list[click.Option]:
    shared = {name for option in global_options() for name in option.opts}
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return [option for option in options if not shared & set(option.opts)]


def test_there_are_commands_and_options():
    """The tests below find something to check."""
    assert len(COMMANDS) >= 14
    assert sum(len(own_options(command)) for command in COMMANDS.values()) >= 40
    assert {name for option in global_options() for name in option.opts} >= {"--url", "--json", "-q", "-v"}


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_a_section(words: str):
    assert words in SECTIONS, f"docs/cli.md has no section {words!r}"


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_named_under_its_command(words: str):
    text = SECTIONS[words]
    for option in own_options(COMMANDS[words]):
        for name in option.opts:
            assert f"`{name}`" in text, f"docs/cli.md does not name `{name}` under {words!r}"


@pytest.mark.parametrize("words", COMMANDS)
def test_no_section_names_an_option_that_is_gone(words: str):
    known = {name for option in [*own_options(COMMANDS[words]), *global_options()] for name in option.opts} | {"--help"}
    rows = [line for line in SECTIONS[words].splitlines() if line.startswith("| `-")]
    named = {name for row in rows for name in re.findall(r"`(--?[a-z][\w-]*)`", row.split("|")[1])}
    assert named <= known, f"docs/cli.md names options that {words!r} has not: {sorted(named - known)}"


def test_no_section_is_of_a_command_that_is_gone():
    documented = {title for title in SECTIONS if title.startswith("bridge ")}
    assert documented == set(COMMANDS)


def test_every_global_option_is_named():
    for option in global_options():
        for name in option.opts:
            assert f"`{name}`" in SECTIONS["Global options"]


def test_every_exit_code_is_named():
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert f"| {code} |" in SECTIONS["Exit codes"]


def test_every_variable_is_named():
    """Whatever the code reads from the environment, an administrator can look up."""
    read: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        read |= set(re.findall(r"\b(?:BRIDGE|OPENSEARCH|ELASTICSEARCH)_[A-Z_]*[A-Z]\b", path.read_text("utf-8")))
    for prefix in ("OPENSEARCH", "BRIDGE"):
        read |= {f"{prefix}_{key}" for key in ("USERNAME", "PASSWORD", "API_KEY", "CA_FILE")}
    # Made of parts in the code: BRIDGE_{name.upper()}_DIR.
    named = set(re.findall(r"`((?:BRIDGE|OPENSEARCH|ELASTICSEARCH)_[A-Z_]+)`", CLI))
    assert read <= named, f"docs/cli.md does not name {sorted(read - named)}"


# --- templates --------------------------------------------------------------------------------------


def strings(path: Path) -> set[str]:
    """Every string constant of a module."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


TEMPLATES = sorted(path for kind in ("mappings", "pipelines") for path in (ROOT / kind).rglob("*.json"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_template_is_used(path: Path):
    """By a module that loads templates of its kind, under its name; a file that nothing fills misleads its reader."""
    users = [strings(module) for module in PACKAGE.rglob("*.py") if "load_template(" in module.read_text("utf-8")]
    kind, product, name = path.relative_to(ROOT).parts[0], path.parent.name, path.stem
    assert product in ("opensearch", "elasticsearch")
    used = [found for found in users if kind in found and (name in found or name in FIELD_KINDS)]
    assert used, f"nothing in bridge/ loads {kind}/{product}/{name}.json"


FIELD_KINDS = ("rank_features", "sparse_vector")
"""Loaded under the name of the field's kind, whatever it is."""


def test_no_folder_holds_anything_but_templates():
    for kind in ("mappings", "pipelines"):
        others = [path for path in (ROOT / kind).rglob("*") if path.is_file() and path.suffix != ".json"]
        assert not [path for path in others if path.name != "README.md"]


# --- links ------------------------------------------------------------------------------------------

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def anchors(text: str) -> set[str]:
    """The fragments that GitHub gives to the headings."""
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in sections(text))
    return {title.replace(" ", "-") for title in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}, which is not there"
        if fragment:
            assert fragment in anchors(linked.read_text("utf-8")), f"{page.name} links to {target}: no such heading"


def test_the_readme_is_for_everybody():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "make demo" in readme
    assert "make test" in readme
    assert {"docs/cli.md", "docs/architecture.md"} <= set(re.findall(r"\]\(([^)\s]+)\)", readme))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_an_example_is_one(page: Path):
    """`bridge …` in a code block: the command is there, and so are its options."""
    for block in re.findall(r"```[a-z]*\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL):
        for words in re.findall(r"^\s*(?:[\w ]+\| )?bridge ((?:[a-z-]+ ?)+[^\n|]*)", block, flags=re.MULTILINE):
            names = words.split()
            command = COMMANDS.get(f"bridge {names[0]}")
            assert command, f"{page.name}: bridge {words}"
            options = {name for parameter in command.params for name in parameter.opts}
            named = set(re.findall(r"(?<=\s)(--[a-z][\w-]*)", re.sub(r'"[^"]*"', "", words)))
            assert isinstance(command, click.Group) or named <= options, f"{page.name}: bridge {words}"


# --- docs/architecture.md ---------------------------------------------------------------------------


def test_the_layers_are_those_that_are_checked():
    """The picture and import-linter's contract hold the same layers in the same order."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    checked = [line.replace("bridge.", "") for line in layers]
    pictures = [block.splitlines() for block in re.findall(r"```\n(.*?)```", ARCHITECTURE, flags=re.DOTALL)]
    (drawn,) = [picture for picture in pictures if picture[0] == "cli"]
    assert drawn == checked


def test_every_module_is_in_a_layer():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    layered = {name.removeprefix("bridge.") for line in layers for name in line.split(" | ")}
    assert layered == {path.stem for path in modules()} | {path.name for path in packages()}


def modules(folder: Path = PACKAGE) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith("__"))


def packages(folder: Path = PACKAGE) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/__init__.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.name)
def test_every_module_is_named(path: Path):
    assert re.search(rf"(?<![\w/]){re.escape(path.name)}`", ARCHITECTURE), f"docs/architecture.md lacks `{path.name}`"


@pytest.mark.parametrize("path", packages(), ids=lambda path: path.name)
def test_every_package_is_named_wholly_or_as_one(path: Path):
    """A package's row may name its files; then it names them all, or the reader takes the rest for nothing."""
    rows = [line for line in ARCHITECTURE.splitlines() if line.startswith(f"| `{path.name}/`")]
    assert len(rows) == 1, f"docs/architecture.md has no row for `{path.name}/`"
    named = set(re.findall(r"`(\w+\.py)`", rows[0]))
    files = {file.name for file in modules(path)}
    assert named in (set(), files), f"docs/architecture.md, `{path.name}/`: {sorted(named ^ files)}"


def test_no_file_is_named_that_is_gone():
    there = {path.name for path in PACKAGE.rglob("*.py")}
    assert set(re.findall(r"`(\w+\.py)`", ARCHITECTURE)) <= there


def test_every_data_file_is_in_a_folder_that_is_named():
    for folder in {path.parent for path in PACKAGE.rglob("*") if path.suffix in (".jsonl", ".tsv")}:
        assert f"`{folder.relative_to(PACKAGE).parts[0]}/`" in ARCHITECTURE
