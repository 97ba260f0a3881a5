"""`bridge serve` as a process of its own: asked over HTTP, stopped, killed, and started again."""

from __future__ import annotations

import gzip
import json
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.engines import Engine
from tests.daemon.running import serving

DOCUMENTS = 5_000

Bridge = Callable[..., tuple[int, str, str]]
Answer = dict[str, Any]


@dataclass
class Daemon:
    """A daemon that runs, and a client of it."""

    process: subprocess.Popen[str]
    client: httpx.Client
    said: list[str]

    def ok(self, method: str, path: str, status: int = 200, **how: Any) -> Any:
        answer = self.client.request(method, path, **how)
        assert answer.status_code == status, answer.text
        return answer.json()

    def wait(self, job: Answer, until: Callable[[Answer], bool] | None = None, seconds: float = 120) -> Answer:
        """A job as it is when it has ended, or when something is so."""
        deadline = time.monotonic() + seconds
        while not (until(job) if until else job["state"] not in ("queued", "running")):
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
            job = self.ok("GET", f"/v1/jobs/{job['id']}")
        return job

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise AssertionError("".join(self.said)) from None


@contextmanager
def daemon(folder: Path, url: str, *words: str, verify: Any = True, **environment: str) -> Iterator[Daemon]:
    """`bridge serve` on a free port, with its settings in `folder`."""
    words = ("--url", url, "serve", "--port", "0", *words)
    with (
        serving(folder, *words, **environment) as (found, process, said),
        httpx.Client(base_url=found, timeout=60, verify=verify) as client,
    ):
        yield Daemon(process, client, said)


def scifact(shared: Path, count: int) -> list[Answer]:
    with gzip.open(shared / "corpora" / "scifact" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, count)]


def test_from_registering_to_measuring_with_a_kill_in_the_middle(
    bridge: Bridge, engine: Engine, index: str, opensearch_url: str, shared: Path, tmp_path: Path
) -> None:
    corpus = shared / "corpora" / "scifact"
    assert bridge("fit", str(corpus), "-o", "model")[0] == 0
    (tmp_path / "bridge.toml").write_text(
        f'[serve]\ndata = "{tmp_path / "serve"}"\nroots = ["{corpus.parent}"]\n'
        f'[serve.models]\nown = "{tmp_path / "model"}"\n'
    )
    documents = scifact(shared, DOCUMENTS)
    body = "".join(json.dumps(one) + "\n" for one in documents)
    with daemon(tmp_path, opensearch_url) as one:
        assert one.ok("PUT", f"/v1/indexes/{index}", json={"model": "own"})["steps"]
        headers = {"content-type": "application/x-ndjson"}
        taken = one.ok("POST", "/v1/ingest", 202, content=body, headers=headers, params={"index": index})
        # In the middle of the job: some documents are in, and not all are.
        one.wait(taken, lambda job: job["progress"].get("documents", 0) > 0)
        one.stop(signal.SIGKILL)
    engine.refresh(index)
    assert engine.count(index) <= len(documents)
    with daemon(tmp_path, opensearch_url) as one:
        done = one.wait(taken)
        assert (done["state"], done["error"]) == ("done", None)
        result = done["result"]
        assert result["source"] == len(documents) == sum(
            result[name] for name in ("indexed", "unchanged", "deleted", "dead")
        )  # fmt: skip
        assert engine.count(index) == len(documents)
        ids = {hit["_id"] for hit in engine.search(index, {"size": 10_000, "_source": False})["hits"]["hits"]}
        assert ids == {document["_id"] for document in documents}
        assert one.ok("GET", f"/v1/jobs/{taken['id']}/dead-letters")["total"] == 0
        (best, *_) = one.ok("POST", "/v1/search", json={"index": index, "text": documents[7]["title"]})["hits"]
        assert best["id"] == documents[7]["_id"]
        assert sum(best["tokens"].values()) == pytest.approx(best["score"], rel=1e-6)
        measured = one.wait(one.ok("POST", "/v1/evaluate", 202, json={"index": index, "folder": "scifact"}))
        assert measured["result"]["ndcg@10"] > 0.6
        assert one.stop() == 0
    assert not [line for line in one.said if "Traceback" in line]


def test_a_stop_leaves_the_job_at_its_checkpoint(
    bridge: Bridge, engine: Engine, index: str, opensearch_url: str, shared: Path, tmp_path: Path
) -> None:
    documents = scifact(shared, 2_000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    (tmp_path / "bridge.toml").write_text(f'[serve]\ndata = "{tmp_path / "serve"}"\nroots = ["{tmp_path / "in"}"]\n')
    with daemon(tmp_path, opensearch_url) as one:
        taken = one.ok("POST", "/v1/ingest", 202, json={"index": index, "source": "a.jsonl"})
        one.wait(taken, lambda job: job["state"] == "running")
        assert one.stop() == 0
    with daemon(tmp_path, opensearch_url) as one:
        assert one.wait(taken)["state"] == "done"
    engine.refresh(index)
    assert engine.count(index) == len(documents)


def test_files_that_arrive(engine: Engine, index: str, opensearch_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "bridge.toml").write_text(
        f'[serve]\ndata = "{tmp_path / "serve"}"\n'
        f'[[serve.watch]]\nfolder = "{folder}"\nindex = "{index}"\nseconds = 0.2\n'
    )

    def write(name: str, ids: Sequence[int]) -> None:
        (folder / name).write_text("".join(json.dumps({"_id": str(n), "text": f"word{n} sea"}) + "\n" for n in ids))

    def jobs(one: Daemon, count: int) -> list[Answer]:
        deadline = time.monotonic() + 60
        while True:
            found: list[Answer] = one.ok("GET", "/v1/jobs")["jobs"]
            if [job["state"] for job in found].count("done") >= count:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    write("a.jsonl", range(10))
    (folder / "not-this.txt").write_text("no documents")
    with daemon(tmp_path, opensearch_url) as one:
        jobs(one, 1)
        write("b.jsonl", range(10, 15))
        assert [job["result"]["indexed"] for job in jobs(one, 2)] == [5, 10]
        assert one.stop() == 0
    # Not again because the daemon was started again; but what has changed is.
    with daemon(tmp_path, opensearch_url) as one:
        time.sleep(1)
        assert len(one.ok("GET", "/v1/jobs")["jobs"]) == 2
        write("a.jsonl", range(20))
        (newest, *_) = jobs(one, 3)
        assert (newest["result"]["indexed"], newest["result"]["unchanged"]) == (5, 15)
    engine.refresh(index)
    assert engine.count(index) == 20


def test_a_connection_that_nobody_reads(tmp_path: Path, opensearch_url: str) -> None:
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    files = {"BRIDGE_SERVE_TLS_CERTIFICATE": "cert.pem", "BRIDGE_SERVE_TLS_KEY": "key.pem"}
    with daemon(tmp_path, opensearch_url, verify=context, **files) as one:
        assert str(one.client.base_url).startswith("https://")
        assert one.ok("GET", "/health/ready")["status"] == "ok"
        assert one.stop() == 0


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (("--host", "0.0.0.0"), "", "others can reach 0.0.0.0, and no keys are asked for"),
        ((), '[serve]\ntls_key = "k"\n', "tls_certificate and tls_key go together"),
        ((), '[serve]\nroots = ["gone"]\n', "the root gone is not a folder that is there"),
        ((), '[serve]\nkeys_file = "gone"\n', "the keys_file gone is not there"),
        ((), "[serve]\nprot = 1\n", "unknown field `prot`"),
        ((), '[serve]\nport = "many"\n', "`serve.port`"),
        (
            (),
            '[[serve.indexes]]\nname = "a"\nmodel = "m"\n[[serve.indexes]]\nname = "a"\nmodel = "m"\n',
            "declared twice",
        ),
    ],
)
def test_settings_that_cannot_be(
    bridge: Bridge, tmp_path: Path, words: tuple[str, ...], settings: str, said: str
) -> None:
    (tmp_path / "bridge.toml").write_text(settings)
    code, out, err = bridge("serve", "--check", *words)
    assert (code, out) == (2, "")
    assert said in err


def test_what_the_settings_come_to(bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bridge.toml").write_text('[serve]\nport = 0\nhost = "127.0.0.2"\n')
    assert bridge("serve", "--check")[1].splitlines()[0] == "listens on 127.0.0.2:0"
    monkeypatch.setenv("BRIDGE_SERVE_HOST", "127.0.0.3")
    assert bridge("serve", "--check")[1].splitlines()[0] == "listens on 127.0.0.3:0"
    said = json.loads(bridge("serve", "--check", "--host", "127.0.0.4", "--json")[1])
    assert said["says"] == ["listens on 127.0.0.4:0", "asks for no keys: whoever reaches it may do everything"]


def test_an_address_that_is_taken(bridge: Bridge) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = bridge("serve", "--check", "--port", str(taken.getsockname()[1]))
    assert code == 2
    assert "is not to be had: Address already in use" in err
