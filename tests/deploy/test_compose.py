"""The demo cluster: its file by the specification's schema and by our own rules, and its settings on real nodes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from bridge.daemon.app import GRACE
from bridge.daemon.run import _DRAIN
from bridge.errors import DownloadFailed
from bridge.node.recipe import OPENSEARCH
from bridge.settings import load_settings
from tests.conftest import NODE_CACHE
from tests.daemon.running import serving
from tests.deploy.compose import FILE, ROOT, Missing, filled, node_settings, raw, services, variables
from tests.deploy.dockerfile import read
from tests.nodes import NAMES, open_folder
from tests.nodes.cluster import Member, running_cluster

WORD = "Correct-horse-7"
"""Stands for the password that a user chooses."""

SERVICES = services({"ENGINE_PASSWORD": WORD})
NODES = {"opensearch-1": SERVICES["opensearch-1"], "opensearch-2": SERVICES["opensearch-2"]}
ENGINES = {*NODES, "elasticsearch"}
BRIDGES = {name: one for name, one in SERVICES.items() if one["image"].startswith("neural-sparse-bridge")}


# --- the file ---------------------------------------------------------------------------------------


def schema_errors(file: Path) -> list[dict[str, Any]]:
    """What the Compose specification's schema says of a file."""
    words = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "-o", "json")
    done = subprocess.run([*words, str(file)], capture_output=True, text=True, timeout=60, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout).get("errors", [])
    assert bool(found) == bool(done.returncode), done.stderr
    return found


def test_it_is_of_the_specification(tmp_path: Path) -> None:
    assert schema_errors(FILE) == []
    broken = tmp_path / "compose.yaml"
    broken.write_text(FILE.read_text("utf-8").replace("read_only: true", "readonly: true"), "utf-8")
    assert len(schema_errors(broken)) >= 1


def test_nothing_starts_without_a_password() -> None:
    with pytest.raises(Missing, match=r"ENGINE_PASSWORD: write one into docker/\.env"):
        services({})
    with pytest.raises(Missing):
        services({"ENGINE_PASSWORD": ""})


def test_every_variable_is_required_or_has_a_default_and_stands_in_the_example() -> None:
    example = (FILE.parent / "env.example").read_text("utf-8")
    named = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", example, flags=re.MULTILINE))
    found = variables(raw())
    assert {name for name, _ in found} == set(named)
    assert {kind for _, kind in found} == {"?", "-"}
    assert [name for name, kind in found if kind == "?"] == ["ENGINE_PASSWORD"]
    # The file that has it is not to be committed, nor is a password written here.
    assert named["ENGINE_PASSWORD"] == ""
    assert "docker/.env" in (ROOT / ".gitignore").read_text("utf-8").split()


def test_no_secret_is_written() -> None:
    """Whatever is named like one is a variable that a user has to set."""
    plain = raw()["services"]
    secrets = {
        (name, key): value
        for name, one in plain.items()
        for key, value in one.get("environment", {}).items()
        if re.search("PASSWORD|KEY|TOKEN|SECRET", key, flags=re.IGNORECASE)
    }
    assert {name for name, _ in secrets} == {*ENGINES, *BRIDGES}
    assert {value.partition(":")[0] for value in secrets.values()} == {"${ENGINE_PASSWORD"}
    # And none stands in a command line, where every process sees it.
    for one in SERVICES.values():
        assert WORD not in json.dumps([one.get("command"), one.get("healthcheck")])


def test_nobody_outside_reaches_anything() -> None:
    taken = []
    for one in SERVICES.values():
        assert "network_mode" not in one
        assert one["networks"] == ["engines"]
        for port in one.get("ports", []):
            address, outside, _ = port.split(":")
            assert address == "127.0.0.1"
            taken.append(outside)
    assert len(set(taken)) == len(taken), "both ways may run side by side"


@pytest.mark.parametrize("name", SERVICES)
def test_what_no_service_is_allowed(name: str) -> None:
    one = SERVICES[name]
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["mem_limit"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(one)
    # Nothing of the host is mounted.
    assert all(not volume.startswith((".", "/", "~")) for volume in one.get("volumes", []))
    if name in BRIDGES:
        assert one["read_only"] is True


def test_every_volume_and_network_is_declared() -> None:
    used = {volume.partition(":")[0] for one in SERVICES.values() for volume in one.get("volumes", [])}
    assert used == set(raw()["volumes"])
    assert set(raw()["networks"]) == {"engines"}


def test_whoever_waits_waits_for_what_is_well() -> None:
    for name, one in SERVICES.items():
        for other, how in one.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert SERVICES[other]["healthcheck"]["test"]
            # One that is there, whenever this is.
            assert SERVICES[other].get("profiles", []) == one.get("profiles", [])
        if name not in ENGINES:
            assert one["depends_on"]


def test_the_versions_are_those_that_are_tested() -> None:
    """No tag stands here that could not be known, and no digest at all."""
    images = {name: one["image"] for name, one in SERVICES.items()}
    assert {images[name] for name in NODES} == {f"opensearchproject/opensearch:{OPENSEARCH.version}"}
    assert images["dashboards"] == f"opensearchproject/opensearch-dashboards:{OPENSEARCH.version}"
    assert images["elasticsearch"].replace(":", "-") in NAMES
    assert "@" not in "".join(images.values())
    _, stages = read()
    for one in BRIDGES.values():
        assert (FILE.parent / one["build"]["context"]).resolve() == ROOT
        assert (ROOT / one["build"]["dockerfile"]).is_file()
        assert one["build"]["target"] in stages
        assert one["image"].endswith(f":{one['build']['target']}")


def test_what_opensearch_needs_of_a_machine() -> None:
    for one in NODES.values():
        settings = one["environment"]
        assert one["ulimits"]["memlock"] == {"soft": -1, "hard": -1}
        assert settings["bootstrap.memory_lock"] == "true"
        assert one["ulimits"]["nofile"]["hard"] >= 65_535
        # Half of the memory for the heap, as its makers advise.
        (least,), (most,) = (re.findall(rf"-{name}(\d+)g", settings["OPENSEARCH_JAVA_OPTS"]) for name in ("Xms", "Xmx"))
        assert 2 * int(least) == 2 * int(most) == int(one["mem_limit"].removesuffix("g"))
        (data,) = one["volumes"]
        assert data.endswith(":/usr/share/opensearch/data")


def test_the_bridge_ends_before_it_is_killed() -> None:
    for name, one in BRIDGES.items():
        if "command" not in one:
            assert int(one["stop_grace_period"].removesuffix("s")) > GRACE + _DRAIN, name


def test_the_bridges_settings_are_taken() -> None:
    own = ROOT / "docker" / "bridge.toml"
    for one in BRIDGES.values():
        settings = load_settings(file=own, environment=one["environment"])
        host = urlsplit(settings.engine.url or "").hostname
        assert host in one["depends_on"]
        assert settings.engine.password == WORD
        if "ports" in one:
            assert [port.rpartition(":")[2] for port in one["ports"]] == [str(settings.serve.port)]


# --- on real nodes ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, Member]]:
    """Both nodes with the settings that the images would make of the file, except for the security plugin's."""
    settings = {name: node_settings(one["environment"]) for name, one in NODES.items()}
    assert all(settings[name]["node.name"] == name for name in NODES)
    try:
        with open_folder() as folder, running_cluster(settings, folder, NODE_CACHE) as members:
            yield members
    except DownloadFailed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no real node to be had here: {error}")


def is_well(service: str, url: str) -> subprocess.CompletedProcess[str]:
    """The health check of an engine's service, at another address."""
    kind, command = SERVICES[service]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    assert "https://localhost:9200" in command
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("https://localhost:9200", url)], capture_output=True, text=True, timeout=30,
        check=False, env={"PATH": os.environ["PATH"], **NODES[service]["environment"]},
    )  # fmt: skip


def wait_for(code: int, url: str) -> None:
    """Until the first node's health check ends with `code`; a cluster takes a moment to notice."""
    deadline = time.monotonic() + 60
    while (done := is_well("opensearch-1", url)).returncode != code:
        assert time.monotonic() < deadline, done


@contextmanager
def as_in(service: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of a bridge's service, with the engine's address here."""
    own = {key: str(value) for key, value in BRIDGES[service]["environment"].items()}
    with monkeypatch.context() as patch:
        for key, value in {**own, "OPENSEARCH_URL": url}.items():
            patch.setenv(key, value)
        yield {**own, "OPENSEARCH_URL": url}


@pytest.mark.timeout(600)
def test_the_cluster_the_demo_and_the_bridge(
    cluster: dict[str, Member], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (cluster[name].start() for name in NODES)
    nodes = {row["name"]: row for row in httpx.get(f"{first}/_cat/nodes?format=json").json()}
    assert set(nodes) == set(NODES)
    assert [name for name, row in nodes.items() if row["cluster_manager"] == "*"] == ["opensearch-1"]
    assert nodes["opensearch-2"]["node.roles"] == "data"
    done = [is_well("opensearch-1", first), is_well("opensearch-2", second)]
    assert [one.returncode for one in done] == [0, 0], done

    with as_in("demo", first, monkeypatch):
        command = [sys.executable, "-m", "bridge", "--json", *BRIDGES["demo"]["command"]]
        demo = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert demo.returncode == 0, demo.stderr
        assert json.loads(demo.stdout)["evaluate"]["ndcg@10"] > 0.5
    # Each document comes to both nodes.
    httpx.get(f"{first}/_cluster/health/bridge-demo?wait_for_status=green&timeout=60s", timeout=90).raise_for_status()
    shards = httpx.get(f"{first}/_cat/shards/bridge-demo?format=json").json()
    assert sorted(row["node"] for row in shards) == sorted(NODES)

    with as_in("bridge", first, monkeypatch) as own:
        keys = {"BRIDGE_SERVE_KEYS_FILE": str(tmp_path / "keys.json"), "BRIDGE_SERVE_HOST": "127.0.0.1"}
        test = BRIDGES["bridge"]["healthcheck"]["test"]
        assert test[:2] == ["CMD", "python"]
        script = ROOT / "docker" / Path(test[2]).name
        with serving(tmp_path, "serve", "--port", "0", **own, **keys) as (url, process, _):
            health = [sys.executable, str(script), *test[3:]]
            surroundings = {
                **os.environ, **own, **keys, "PYTHONPATH": str(ROOT), "BRIDGE_SERVE_PORT": url.rpartition(":")[2],
            }  # fmt: skip

            def ready() -> int:
                return subprocess.run(
                    health, env=surroundings, cwd=tmp_path, capture_output=True, timeout=30, check=False
                ).returncode

            assert ready() == 0
            asked = {"index": "bridge-demo", "text": "how do tides work"}
            assert httpx.post(f"{url}/v1/search", json=asked).status_code == 401
            # One node is gone: the cluster is not what it should be, and the bridge finds what it found.
            cluster["opensearch-2"].kill()
            wait_for(22, first)  # what curl says of a 408
            assert ready() == 0
            cluster["opensearch-2"].start()
            wait_for(0, first)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        assert ready() == 1


def test_our_reading_of_the_file_is_that_of_compose() -> None:
    """The three forms of a variable, on a text of our own."""
    text = yaml.safe_load("a: ['${A:?no A}', '${B:-b}', '$$C', 1]")
    assert filled(text, {"A": "x"}) == {"a": ["x", "b", "$C", 1]}
    assert variables(text) == {("A", "?"), ("B", "-")}
