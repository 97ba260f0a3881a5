"""The systemd unit: taken by systemd, closed as far as it can be, and its command and settings run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.daemon.app import GRACE
from bridge.daemon.run import _DRAIN
from bridge.settings import load_settings
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "deploy"
UNIT = FOLDER / "bridge.service"
PROGRAM = "/opt/bridge/bin/bridge"
EXPOSURE = 1.5
"""Of ten, as `systemd-analyze security` counts; what it may reach without any of these lines is 9.6."""


def lines(name: str) -> list[str]:
    """What the unit says under a name, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), flags=re.MULTILINE)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that is there."""
    program = tmp_path / "bridge"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m bridge "$@"\n')
    program.chmod(0o755)
    found = tmp_path / "bridge.service"
    found.write_text(UNIT.read_text("utf-8").replace(PROGRAM, str(program)), "utf-8")
    return found


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is not here")
        pytest.skip("systemd-analyze is not here")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_takes_it(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_says_what_is_wrong(unit: Path) -> None:
    """The check above would notice: a key that is none, and a program that is not there."""
    text = unit.read_text("utf-8")
    unit.write_text(text.replace("ProtectSystem=", "ProtectSytem="), "utf-8")
    assert "ProtectSytem" in analyze("verify", "--man=no", str(unit)).stderr
    unit.write_text(text.replace("ExecStart=", "ExecStart=/gone"), "utf-8")
    assert analyze("verify", "--man=no", str(unit)).returncode != 0


def test_it_reaches_little(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={int(EXPOSURE * 10)}", str(unit))
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd judges no files (before 250)")
    assert done.returncode == 0, done.stdout
    found = re.search(r"exposure level for bridge\.service: ([\d.]+)", done.stdout)
    assert found
    assert float(found[1]) <= EXPOSURE


def test_it_ends_before_it_is_killed() -> None:
    assert int(lines("TimeoutStopSec")[0]) > GRACE + _DRAIN


def test_its_folders_are_those_of_the_settings() -> None:
    """Nothing is to be written but its two folders, so all that the settings name for writing lies there."""
    assert (lines("StateDirectory"), lines("CacheDirectory")) == (["bridge"], ["bridge"])
    (words,) = lines("Environment")
    variables = dict(word.split("=", 1) for word in words.split())
    assert variables["BRIDGE_DATA_DIR"] == "/var/lib/bridge"
    assert variables["BRIDGE_CACHE_DIR"] == "/var/cache/bridge"
    own = load_settings(file=FOLDER / "bridge.toml", environment=variables).serve
    assert {Path(str(path)).parts[:4] for path in (own.data, own.keys_file)} == {("/", "var", "lib", "bridge")}
    # Passwords are not in the file that everybody may read.
    assert "password" not in (FOLDER / "bridge.toml").read_text("utf-8").replace("passwords stand", "")


def test_its_command_is_one(
    tmp_path: Path, bridge: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is run before the start, with the settings beside it and a key: they are taken."""
    (before,), (command,) = lines("ExecStartPre"), lines("ExecStart")
    assert before == f"{command} --check"
    settings = tmp_path / "bridge.toml"
    settings.write_text((FOLDER / "bridge.toml").read_text("utf-8").replace("/var/lib/bridge", str(tmp_path)), "utf-8")
    monkeypatch.setenv("BRIDGE_SERVE_PORT", "0")
    words = before.replace("/etc/bridge/bridge.toml", str(settings)).split()
    assert words[0] == PROGRAM
    # Without the key that README.md has one make first, it says so.
    code, _, err = bridge(*words[1:])
    assert (code, "keys_file" in err) == (2, True)
    assert bridge("keys", "add", "me", "--file", str(tmp_path / "keys.json"))[0] == 0
    assert bridge(*words[1:])[:2] == (0, "listens on 127.0.0.1:0\nasks for API keys\n")
    assert int(lines("RestartPreventExitStatus")[0]) == code
