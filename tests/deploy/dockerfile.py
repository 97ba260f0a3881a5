"""`docker/Dockerfile` without a container engine: its instructions, done one after the other in an empty folder.

The folder stands for the root of every stage. They may share it because what a stage takes from another lands where it
was there: an environment's programs know their place. What is not done for real is the base image, for which this
machine's own Python stands, and the bounds of a container.
"""

from __future__ import annotations

import copy
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from bridge.node.users import ServiceUser, closed_folder

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"

FOLDERS = ("/opt/bridge", "/src", "/etc/bridge", "/var/lib/bridge", "/usr/local/lib/bridge")
"""The folders of an image that are the bridge's own: here they lie under the root's folder."""

_OWN = re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, FOLDERS))})(?![\w-])")
_OPTION = re.compile(r"--(\w[\w-]*)=(\S+)\s+")
# What a builder passes on without being told.
_PREDEFINED = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction with its options (`--from`, `--mount`) taken out of its text."""

    name: str
    text: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """Of the JSON form where it is one."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


@dataclass(frozen=True, slots=True)
class Stage:
    """From one FROM to the next."""

    name: str
    base: str
    steps: list[Step]

    def all(self, name: str) -> list[Step]:
        return [step for step in self.steps if step.name == name]


def read(path: Path = DOCKERFILE) -> tuple[dict[str, str], dict[str, Stage]]:
    """The arguments before the first stage, with their defaults, and the stages in their order."""
    defaults: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for found in DockerfileParser(fileobj=io.BytesIO(path.read_bytes())).structure:
        name, text, options = found["instruction"], found["value"], {}
        if name == "COMMENT":
            continue
        while option := _OPTION.match(text):
            options[option[1]] = option[2]
            text = text[option.end() :]
        if name == "FROM":
            base, _, stage = text.split()
            stages[stage] = Stage(stage, base, [])
        elif stages:
            [*stages.values()][-1].steps.append(Step(name, text, options))
        else:
            key, _, value = text.partition("=")
            defaults[key] = value
    return defaults, stages


def chain(stages: Mapping[str, Stage], name: str) -> list[Step]:
    """The instructions that make `name` what it is, its bases' before its own."""
    stage = stages[name]
    return [*(chain(stages, stage.base) if stage.base in stages else []), *stage.steps]


def lineage(stages: Mapping[str, Stage], name: str) -> list[Stage]:
    """A stage, after those that it is made of, each once and each after its own."""
    found: dict[str, Stage] = {}
    stage = stages[name]
    for other in [stage.base, *(step.options["from"] for step in stage.steps if "from" in step.options)]:
        if other in stages:
            found |= {one.name: one for one in lineage(stages, other)}
    return [*(found | {name: stage}).values()]


@dataclass(slots=True)
class Image:
    """What has been built in `folder`, and how it is started."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    at: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    """The commands of the RUN instructions that were run."""

    def build(self, stages: Mapping[str, Stage], name: str, context: Path) -> None:
        """All that `name` is made of; nothing is read but `context`."""
        self._make_root()
        passed_on = {key: os.environ[key] for key in _PREDEFINED if key in os.environ}
        ends: dict[str, Image] = {}
        for stage in lineage(stages, name):
            # Each goes on from where its base was, in the one folder.
            one = copy.deepcopy(ends.get(stage.base, Image(self.folder, arguments=passed_on)))
            one.ran = []
            for step in stage.steps:
                one._do(step, stages, context)
            ends[stage.name] = one
        for known in fields(self):
            setattr(self, known.name, getattr(ends[name], known.name))
        self.ran = [command for one in ends.values() for command in one.ran]

    def place(self, path: str) -> Path:
        """Where a path of the image is here."""
        return self.folder / path.lstrip("/") if path.startswith("/") else self.folder / self.at.lstrip("/") / path

    def here(self, text: str) -> str:
        """A text of the Dockerfile with this machine's paths."""
        return _OWN.sub(lambda found: f"{self.folder}{found[0]}", text)

    def environment(self, more: Mapping[str, str] = {}) -> dict[str, str]:
        """What a process of the image finds, and nothing of ours."""
        path = self.here(self.variables.get("PATH", "/usr/local/bin:/usr/bin:/bin"))
        # Of the image's own programs there is Python; the rest of a Debian stands where it always does.
        path = path.replace("/usr/local/bin", f"{self.folder}/usr/local/bin")
        own = {key: self.here(value) for key, value in self.variables.items()}
        return {"HOME": f"{self.folder}/root", **own, "PATH": f"{path}:/usr/sbin", **more}

    def run(self, words: Sequence[str], *, shell: bool = False, **more: str) -> subprocess.CompletedProcess[str]:
        """A program of the image, as the image's user where we may choose one; `more` is for its environment."""
        command = ["/bin/sh", "-c", words[0]] if shell else [self.program(words[0], more), *map(self.here, words[1:])]
        return subprocess.run(
            command, env=self.environment(more), cwd=self.place(self.at), capture_output=True, text=True, timeout=600,
            check=False, stdin=subprocess.DEVNULL, **self.account(),
        )  # fmt: skip

    def program(self, name: str, more: Mapping[str, str] = {}) -> str:
        found = shutil.which(self.here(name), path=self.environment(more)["PATH"])
        assert found, f"{name} is not in the image"
        return found

    def account(self) -> dict[str, int | list[int]]:
        """What a process is started with, for the image's user."""
        uid, _, gid = self.user.partition(":")
        if os.geteuid() or uid == "0":
            return {}
        return {"user": int(uid), "group": int(gid), "extra_groups": []}

    @staticmethod
    def interpreter() -> Path:
        """A Python below any virtual environment, which brings no packages along, and which every user may run."""
        own = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
        nobody = ServiceUser("nobody", 65_534, 65_534)
        for place in (own, *sorted(Path("/usr/bin").glob("python3.[1-9][0-9]"), reverse=True)):
            asked = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
            whole = subprocess.run([place, "-c", asked], capture_output=True, check=False).returncode == 0
            if whole and (os.geteuid() or closed_folder(place.resolve(), nobody) is None):
                return place
        pytest.skip("no Python with venv that every user may run")

    def _make_root(self) -> None:
        programs = self.folder / "usr" / "local" / "bin"
        for folder in (programs, self.folder / "root", self.folder / "etc"):
            folder.mkdir(parents=True)
        (programs / "python").symlink_to(self.interpreter())
        for name in ("passwd", "group"):
            (self.folder / "etc" / name).touch()

    def _do(self, step: Step, stages: Mapping[str, Stage], context: Path) -> None:
        match step.name:
            case "ARG":
                key, given, default = step.text.partition("=")
                if given or key in os.environ:
                    self.arguments[key] = os.environ.get(key, default)
            case "ENV":
                self.variables |= dict(word.split("=", 1) for word in step.words)
            case "WORKDIR":
                self.at = step.text
                self.place(self.at).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = step.text
            case "COPY":
                self._copy(step, stages, context)
            case "RUN":
                self._run(step.text)
            case "ENTRYPOINT":
                self.entrypoint = step.words
            case "CMD":
                self.command = step.words
            case "HEALTHCHECK":
                self.health = json.loads(step.text.removeprefix("CMD "))
            case "VOLUME" | "EXPOSE":
                pass
            case _:
                raise AssertionError(f"nobody knows here how to do {step.name}")

    def _copy(self, step: Step, stages: Mapping[str, Stage], context: Path) -> None:
        *sources, target = step.words
        if "from" in step.options:
            assert step.options["from"] in stages
            assert sources == [target], "an environment works where it was made only"
            assert self.place(target).is_dir()
            return
        for name in sources:
            source, place = context / name, self.place(target)
            if source.is_dir():
                shutil.copytree(source, place)
            else:
                into = place / source.name if target.endswith("/") else place
                into.parent.mkdir(parents=True, exist_ok=True)
                # A file that names folders of the image names them here.
                into.write_text(self.here(source.read_text("utf-8")), encoding="utf-8")

    def _run(self, text: str) -> None:
        if text.startswith("useradd"):
            if os.geteuid():
                # It takes root to make a user: here its folder is ours.
                self.place("/var/lib/bridge").mkdir(parents=True)
                return
            # The users of the folder, not of this machine.
            text = text.replace("useradd", f"useradd --prefix {self.folder}", 1)
        done = self.run([self.here(text)], shell=True, **self.arguments)
        assert done.returncode == 0, f"RUN {text}\n{done.stdout}{done.stderr}"
        self.ran.append(text)
