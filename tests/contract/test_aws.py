"""SigV4: a gate in front of the real node lets in only what is rightly signed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.contract.test_connections import Answering, Guard, serving

Bridge = Callable[..., tuple[int, str, str]]
Fails = Callable[..., str]

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
DATE = "%Y%m%dT%H%M%SZ"


def signature(method: str, url: str, body: bytes, headers: dict[str, str]) -> str:
    """The Authorization header that AWS's own implementation gives the request at its own time."""
    named = headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    kept = {name: headers[name] for name in headers if name.lower() in named and name != "X-Amz-Date"}
    request = AWSRequest(method=method, url=url, data=body, headers=kept)
    request.context["timestamp"] = headers["X-Amz-Date"]
    auth = SigV4Auth(Credentials(KEY, SECRET), "es", "eu-west-1")
    request.headers["X-Amz-Date"] = headers["X-Amz-Date"]
    text = auth.string_to_sign(request, auth.canonical_request(request))
    scope = auth.credential_scope(request)
    signed = auth.signed_headers(auth.headers_to_sign(request))
    return (
        f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={signed}, Signature={auth.signature(text, request)}"
    )


@pytest.fixture
def gate(opensearch_url: str) -> Iterator[Guard]:
    guard = Guard(node=opensearch_url)

    class Gate(Answering):
        def do_GET(self) -> None:  # noqa: N802
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = self.headers.get("Authorization", "")
            guard.seen.append(said)
            headers = {name.title().replace("Sha256", "SHA256"): value for name, value in self.headers.items()}
            if (
                headers.get("X-Amz-Content-SHA256", hashlib.sha256(body).hexdigest())
                != hashlib.sha256(body).hexdigest()
            ):
                self.send(403, "application/json", b'{"message": "the body is not the signed one"}')
            elif said and said == signature(self.command, guard.url + self.path, body, headers):
                self.send(*guard.forward(self.command, self.path, self.headers.get("Content-Type"), body))
            else:
                self.send(403, "application/json", b'{"message": "The request signature does not match"}')

        do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

    with serving(Gate) as guard.url:
        yield guard


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "BRIDGE_AWS_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("aws")
def test_signed_requests_get_through(bridge: Bridge, gate: Guard, index: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"_id": "1", "text": "a signed document"}\n', encoding="utf-8")
    code, _, err = bridge("ingest", index, "a.jsonl", url=gate.url)
    assert code == 0, err
    code, out, err = bridge("search", index, "signed", "--json", url=gate.url)
    assert (code, '"id":"1"' in out) == (0, True), err
    assert gate.seen
    assert all(said.startswith(f"AWS4-HMAC-SHA256 Credential={KEY}/") for said in gate.seen)


@pytest.mark.usefixtures("aws")
def test_a_wrong_secret_is_refused(fails: Fails, gate: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert "credentials" in fails(4, "search", "articles", "weather", url=gate.url)
