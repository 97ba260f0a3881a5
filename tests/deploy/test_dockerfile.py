"""The image: what stands in its Dockerfile, and every command of it, done in an empty folder and environment."""

from __future__ import annotations

import fnmatch
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from bridge.daemon.app import GRACE
from bridge.engines import Engine
from bridge.settings import load_settings
from tests.deploy.dockerfile import DOCKERFILE, FOLDERS, ROOT, Image, chain, lineage, read
from tests.faults.engines import only_torture
from tests.nodes import open_folder
from tests.nodes.cluster import free_ports

DEFAULTS, STAGES = read()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OWN = ROOT / "docker" / "bridge.toml"
CI = bool(os.environ.get("CI"))
TARGETS = ("slim", "torch")


# --- what stands there ------------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        if CI:
            pytest.fail("hadolint is not installed")
        pytest.skip("hadolint is not installed")
    done = subprocess.run([program, str(DOCKERFILE)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_targets() -> None:
    assert set(TARGETS) < set(STAGES)
    assert [*STAGES][-1] == "slim", "what is built where nobody says which"


def test_the_base_is_one_that_the_project_runs_on() -> None:
    """The newest Python of the classifiers, on a Debian by its name, and no digest: none can be known."""
    bases = {stage.base for stage in STAGES.values()} - set(STAGES)
    assert bases == {"${PYTHON_IMAGE}"}
    found = re.fullmatch(r"python:(3\.\d+)-slim-(bookworm|trixie)", DEFAULTS["PYTHON_IMAGE"])
    assert found, DEFAULTS["PYTHON_IMAGE"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert found[1] == max(named, key=lambda one: int(one.split(".")[1]))
    least = PROJECT["requires-python"].removeprefix(">=")
    assert int(found[1].split(".")[1]) >= int(least.split(".")[1])


def test_the_extras_are_there() -> None:
    arguments = dict(step.text.split("=") for step in STAGES["build"].all("ARG") if "=" in step.text)
    named = set(arguments["EXTRAS"].split(","))
    assert named | {"encode"} <= set(PROJECT["optional-dependencies"])
    assert "daemon" in named


def test_nothing_else_goes_into_a_build() -> None:
    """What is let in is what is copied; all else, secrets in a checkout included, stays outside."""
    lines = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    steps = (step for stage in STAGES.values() for step in stage.all("COPY") if "from" not in step.options)
    assert let_in == {name for step in steps for name in step.words[:-1]}
    assert all((ROOT / name).exists() for name in let_in)
    left_out = [rule for rule in rules[1:] if not rule.startswith("!")]
    assert {"**/__pycache__", "**/*.pyc"} == set(left_out)


@pytest.mark.parametrize("target", TARGETS)
def test_who_runs_it_and_how(target: str) -> None:
    steps = chain(STAGES, target)
    last = {step.name: step for step in steps}
    uid, _, gid = last["USER"].text.partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert last["HEALTHCHECK"].options.keys() >= {"interval", "timeout", "start-period"}
    # No shell between the signal and the daemon.
    assert last["ENTRYPOINT"].text.startswith("[")
    assert last["CMD"].text.startswith("[")
    after = steps[[step.name for step in steps].index("USER") :]
    assert not [step for step in after if step.name == "RUN"], "what the user could change"
    assert last["VOLUME"].text in FOLDERS
    assert load_settings(file=OWN, environment={}).serve.port == int(last["EXPOSE"].text)


def test_the_image_is_closed_until_somebody_opens_it() -> None:
    own = load_settings(file=OWN, environment={}).serve
    own.check()
    assert not own.is_loopback
    assert own.keys_file
    assert not own.allow_anonymous


def test_nothing_secret_is_written() -> None:
    text = DOCKERFILE.read_text("utf-8")
    assert not re.search(r"(?i)(password|token|secret|api_key)\s*=", text)
    assert "sha256:" not in text.replace("python@sha256:…", "")


# --- what it does -----------------------------------------------------------------------------------


@contextmanager
def made(target: str) -> Iterator[Image]:
    """The image of a target, built of what a build gets to see, in a folder that every user may pass through."""
    with open_folder() as folder:
        context, image = folder / "context", Image(folder / "image")
        image.folder.mkdir()
        rules = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
        left_out = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
        for name in (rule[1:] for rule in rules if rule.startswith("!")):
            source, place = ROOT / name, context / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, place, ignore=lambda _, names: [
                    one for one in names if any(fnmatch.fnmatch(one, rule) for rule in left_out)
                ])  # fmt: skip
            else:
                shutil.copyfile(source, place)
        image.build(STAGES, target, context)
        # The context and the stages before are not in the image.
        shutil.rmtree(context)
        shutil.rmtree(image.place("/src"))
        yield image


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    try:
        with made("slim") as found:
            yield found
    except AssertionError as error:
        # Of the commands only pip's need what may be missing.
        if CI or "No matching distribution" not in str(error):
            raise
        pytest.skip(f"the distributions cannot be had: {str(error)[-600:]}")


@pytest.mark.timeout(1200)
def test_every_command_is_run(image: Image) -> None:
    runs = [step.text for stage in lineage(STAGES, "slim") for step in stage.all("RUN")]
    done = len(image.ran)
    assert done == len(runs) - (1 if os.geteuid() else 0)
    assert not [path for path in image.folder.rglob("*.pyc") if image.place("/var/lib/bridge") in path.parents]
    assert image.run(["bridge", "--version"]).stdout.startswith("bridge")
    said = image.run(["python", "-c", "import bridge, sys; print(bridge.__file__, sys.prefix)"]).stdout.split()
    assert all(Path(one).is_relative_to(image.place("/opt/bridge")) for one in said)
    assert image.run(["python", "-m", "pip", "check"]).returncode == 0
    absent = image.run(["python", "-c", "import torch"])
    assert "No module named 'torch'" in absent.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to make a user")
def test_the_user(image: Image) -> None:
    uid, gid = map(int, image.user.split(":"))
    (row,) = (image.folder / "etc" / "passwd").read_text().splitlines()
    name, _, *numbers, _, home, shell = row.split(":")
    own = str(image.place("/var/lib/bridge"))
    assert ([int(number) for number in numbers], home, shell) == ([uid, gid], own, "/usr/sbin/nologin")
    assert name == "bridge"
    facts = Path(own).stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (uid, gid, 0o750)
    assert uid not in {entry.pw_uid for entry in pwd.getpwall()}
    script = "import os, pathlib; print(os.getuid()); pathlib.Path({!r}).write_text('')"
    there = image.run(["python", "-c", script.format(f"{own}/a")])
    assert (there.returncode, there.stdout.strip()) == (0, str(uid))
    elsewhere = image.run(["python", "-c", script.format(str(image.place("/opt/bridge/a")))])
    assert "PermissionError" in elsewhere.stderr


def test_the_image_serves_and_says_how_it_is(image: Image, opensearch_url: str) -> None:
    """Its entry point and command, its health check, and a key that is made in it."""
    (port,) = free_ports(1)
    # In a container it is to be reached from outside; here nobody else is to.
    more = {"BRIDGE_SERVE_HOST": "127.0.0.1", "BRIDGE_SERVE_PORT": str(port), "OPENSEARCH_URL": opensearch_url}
    command = [image.program(image.entrypoint[0]), *image.entrypoint[1:], *image.command]
    before = image.run(image.health, **more)
    assert before.returncode == 1
    assert "refused" in before.stderr
    ready = [*image.health[:-1], "ready"]
    process = subprocess.Popen(
        command, env=image.environment(more), cwd=image.place(image.at), stderr=subprocess.PIPE, **image.account()
    )
    try:
        deadline = time.monotonic() + 60
        while (done := image.run(image.health, **more)).returncode:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline, done.stderr
        assert image.run(ready, **more).returncode == 0
        assert process.stderr
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            assert client.get("/v1").status_code == 401
            made_key = image.run(["bridge", "keys", "add", "me", "--json"], **more)
            assert made_key.returncode == 0, made_key.stderr
            headers = {"x-api-key": json.loads(made_key.stdout)["key"]}
            deadline = time.monotonic() + 30
            while (answer := client.get("/v1", headers=headers)).status_code == 401:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert answer.json()["engine"]
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert time.monotonic() - begun < GRACE
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
    assert image.run(ready, **more).returncode == 1
    written = {path.relative_to(image.place("/var/lib/bridge")).parts[0]
               for path in image.place("/var/lib/bridge").rglob("*") if path.is_file()}  # fmt: skip
    assert "keys.json" in written


def test_the_image_has_what_the_demo_needs(image: Image, engine: Engine) -> None:
    try:
        done = image.run(["bridge", "--json", "demo"], OPENSEARCH_URL=engine.url)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["evaluate"]["ndcg@10"] > 0.5
    finally:
        if engine.get_index("bridge-demo"):
            engine.delete_index("bridge-demo")


@pytest.mark.parametrize("with_tls", [False, True])
def test_a_daemon_that_is_live_and_not_ready(image: Image, with_tls: bool) -> None:
    """The engine is gone: nothing is to be asked, and nothing is to be started anew."""
    (port,) = free_ports(1)
    more = {"BRIDGE_SERVE_HOST": "127.0.0.1", "BRIDGE_SERVE_PORT": str(port)}
    if with_tls:
        folder = image.place("/etc/bridge")
        certificate = trustme.CA().issue_cert("bridge.example.org")
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "tls.pem")
        more |= {f"BRIDGE_SERVE_TLS_{what}": f"{folder}/tls.pem" for what in ("CERTIFICATE", "KEY")}
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        more["OPENSEARCH_URL"] = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        process = subprocess.Popen(
            [image.program("bridge"), *image.command], env=image.environment(more), cwd=image.place(image.at),
            stderr=subprocess.DEVNULL, **image.account(),
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while image.run(image.health, **more).returncode:
                assert process.poll() is None
                assert time.monotonic() < deadline
            done = image.run([*image.health[:-1], "ready"], **more)
            assert done.returncode == 1
            assert done.stderr.startswith(f"{'https' if with_tls else 'http'}://127.0.0.1:{port}/health/ready: 503")
        finally:
            process.terminate()
            process.wait(60)


@only_torture
@pytest.mark.timeout(3000)
def test_the_target_with_torch() -> None:
    """Gigabytes: `make torture` only."""
    with made("torch") as image:
        runs = [step.text for stage in lineage(STAGES, "torch") for step in stage.all("RUN")]
        assert len(image.ran) == len(runs) - (1 if os.geteuid() else 0)
        done = image.run(["python", "-c", "import torch, transformers; print(torch.ones(2).sum().item())"])
        assert done.stdout.strip() == "2.0", done.stderr
        assert image.run(["bridge", "doctor"]).stdout
