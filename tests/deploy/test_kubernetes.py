"""The Kubernetes manifest: by the schemas of several versions, by what is asked of a pod, and its settings run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bridge.daemon.app import GRACE
from bridge.daemon.run import _DRAIN
from bridge.settings import load_settings
from tests.conftest import ROOT
from tests.deploy.dockerfile import chain, read

FILE = ROOT / "docs" / "deploy" / "kubernetes.yaml"
VERSIONS = ("1.29", "1.31", "1.33", "1.35")
DOCUMENTS: dict[str, dict[str, Any]] = {one["kind"]: one for one in yaml.safe_load_all(FILE.read_text("utf-8"))}
POD = DOCUMENTS["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
SETTINGS = DOCUMENTS["ConfigMap"]["data"]["bridge.toml"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_schema(kind: str, version: str) -> None:
    """Strictly: a key that is not known is an error."""
    kubernetes_validate.validate(DOCUMENTS[kind], version, strict=True)


def test_the_schema_would_notice() -> None:
    wrong = copy.deepcopy(DOCUMENTS["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_kinds() -> None:
    assert set(DOCUMENTS) == {"ConfigMap", "PersistentVolumeClaim", "Deployment", "Service", "NetworkPolicy"}


def test_one_daemon_at_a_time() -> None:
    """Jobs are in one SQLite file."""
    spec = DOCUMENTS["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert DOCUMENTS["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert POD["terminationGracePeriodSeconds"] > GRACE + _DRAIN


def test_what_the_pod_may_do() -> None:
    """What the Pod Security Standards call restricted, and a file system that it cannot write."""
    pod, own = POD["securityContext"], CONTAINER["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert CONTAINER["resources"]["limits"]["memory"]


def test_it_is_the_image_that_the_dockerfile_makes() -> None:
    _, stages = read()
    target = CONTAINER["image"].removeprefix("neural-sparse-bridge:")
    last = {step.name: step for step in chain(stages, target)}
    uid, gid = map(int, last["USER"].text.split(":"))
    pod = POD["securityContext"]
    assert (pod["runAsUser"], pod["runAsGroup"], pod["fsGroup"]) == (uid, gid, gid)
    assert (last["ENTRYPOINT"].words, CONTAINER["args"]) == (["bridge"], last["CMD"].words)
    mounts = {one["name"]: one["mountPath"] for one in CONTAINER["volumeMounts"]}
    assert mounts["data"] == last["VOLUME"].text
    variables = dict(word.split("=", 1) for word in last["ENV"].words)
    assert variables["BRIDGE_CONFIG"] == f"{mounts['settings']}/bridge.toml"
    # What it writes lies where it can.
    assert all(
        variables[name].startswith(mounts["data"]) for name in ("BRIDGE_CACHE_DIR", "BRIDGE_DATA_DIR", "HF_HOME")
    )
    assert not [name for name in variables if name.startswith("BRIDGE_SERVE_")], "would go before the ConfigMap's file"


def test_names_and_ports_meet() -> None:
    labels = {"app.kubernetes.io/name": "bridge"}
    assert DOCUMENTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert DOCUMENTS["Deployment"]["spec"]["template"]["metadata"]["labels"] == labels
    assert DOCUMENTS["Service"]["spec"]["selector"] == labels
    assert DOCUMENTS["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": labels}
    (port,) = CONTAINER["ports"]
    assert DOCUMENTS["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    probes = {name: CONTAINER[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert probes["livenessProbe"]["path"] == "/health/live"
    assert probes["readinessProbe"]["path"] == "/health/ready"
    ((rule,), (dns, engine)) = (DOCUMENTS["NetworkPolicy"]["spec"][way] for way in ("ingress", "egress"))
    assert rule["ports"] == [{"protocol": "TCP", "port": port["name"]}]
    assert rule["from"]
    assert {one["port"] for one in dns["ports"]} == {53}
    assert {one["port"] for one in engine["ports"]} == {9200}
    volumes = {one["name"]: one for one in POD["volumes"]}
    assert set(volumes) == {one["name"] for one in CONTAINER["volumeMounts"]}
    assert (
        volumes["data"]["persistentVolumeClaim"]["claimName"] == DOCUMENTS["PersistentVolumeClaim"]["metadata"]["name"]
    )
    assert volumes["settings"]["configMap"]["name"] == DOCUMENTS["ConfigMap"]["metadata"]["name"]


def test_secrets_are_only_named() -> None:
    assert "Secret" not in DOCUMENTS
    assert CONTAINER["envFrom"] == [{"secretRef": {"name": "bridge-engine"}}]
    page = (FILE.parent / "README.md").read_text("utf-8")
    for name in ("bridge-engine", "bridge-keys"):
        assert f"kubectl create secret generic {name}" in page


def written(folder: Path) -> Path:
    file = folder / "bridge.toml"
    file.write_text(SETTINGS, "utf-8")
    return file


def test_its_settings_are_taken(tmp_path: Path, bridge: Callable[..., tuple[int, str, str]]) -> None:
    file = written(tmp_path)
    settings = load_settings(file=file, environment={})
    own = settings.serve
    own.check()
    assert not own.is_loopback, "the probes come from outside of the pod"
    assert own.port == CONTAINER["ports"][0]["containerPort"]
    assert str(settings.engine.url).endswith(":9200")
    mounts = {one["name"]: one["mountPath"] for one in CONTAINER["volumeMounts"]}
    assert str(own.keys_file).startswith(f"{mounts['keys']}/")
    assert str(own.data).startswith(f"{mounts['data']}/")
    keys = tmp_path / "keys.json"
    assert bridge("keys", "add", "me", "--file", str(keys))[0] == 0
    file.write_text(SETTINGS.replace(str(own.keys_file), str(keys)), "utf-8")
    # Here it must not listen where others reach it.
    code, out, err = bridge("--config", str(file), *CONTAINER["args"], "--check", "--host", "127.0.0.1", "--port", "0")
    assert (code, out) == (0, "listens on 127.0.0.1:0\nasks for API keys\n"), err
