"""Connections: what stands between the bridge and an engine, each met for real on the loopback interface.

The secured cluster is a small reverse proxy in front of the real node: it demands credentials, speaks
TLS where it is asked to, and remembers who came.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from bridge.engines import open_engine
from bridge.errors import EngineForbidden, EngineTimeout, EngineTlsError, EngineUnreachable, NotAnEngine
from bridge.settings import EngineSettings

trustme = pytest.importorskip("trustme", reason="certificates for the TLS tests come from trustme")

Fails = Callable[..., str]
Bridge = Callable[..., tuple[int, str, str]]

USER, PASSWORD, API_KEY = "ingrid", "pw-Zq8/#?&@:é", "a2V5OnMzY3IzdA=="
READER, READER_PASSWORD = "reader", "pw-reader-91xq"
PRODUCTS = ("opensearch", "elasticsearch")


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server on a free loopback port for as long as the block runs; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    # A client that hangs up in the handshake is what some tests are about, not a fault of the server.
    server.handle_error = lambda request, address: None  # type: ignore[method-assign]
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Answering(BaseHTTPRequestHandler):
    """Answers everything with the class's `status`, `kind` and `body`."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int] = 200
    kind: ClassVar[str] = "application/json"
    body: ClassVar[bytes] = b""
    headers_added: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send(self.status, self.kind, self.body, self.headers_added)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def send(self, status: int, kind: str, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def answering(status: int, kind: str, body: bytes, **headers: str) -> type[Answering]:
    return type("Answer", (Answering,), {"status": status, "kind": kind, "body": body, "headers_added": headers})


@dataclass
class Guard:
    """The reverse proxy: who may come in, and what was asked by whom."""

    url: str = ""
    node: str = ""
    seen: list[str] = field(default_factory=list)

    def handler(self) -> type[Answering]:
        guard = self

        class Proxy(Answering):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                said = self.headers.get("Authorization", "")
                guard.seen.append(said)
                if said == basic(READER, READER_PASSWORD) and self.command not in ("GET", "HEAD"):
                    reason = f"no permissions for [indices:admin/create] and User [name={READER}]"
                    error = {"error": {"type": "security_exception", "reason": reason}, "status": 403}
                    self.send(403, "application/json", json.dumps(error).encode())
                elif said in (basic(USER, PASSWORD), basic(READER, READER_PASSWORD), f"ApiKey {API_KEY}"):
                    self.send(*guard.forward(self.command, self.path, self.headers.get("Content-Type"), body))
                else:
                    # What the security plugin of OpenSearch says.
                    self.send(401, "text/plain", b"Unauthorized", {"WWW-Authenticate": 'Basic realm="Security"'})

            do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

        return Proxy

    def forward(self, method: str, path: str, kind: str | None, body: bytes) -> tuple[int, str, bytes]:
        connection = HTTPConnection(str(urlsplit(self.node).netloc), timeout=30)
        connection.request(method, path, body or None, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        try:
            return answer.status, answer.getheader("Content-Type", "application/json"), answer.read()
        finally:
            connection.close()


@pytest.fixture
def guard(opensearch_url: str) -> Iterator[Guard]:
    """The secured cluster, over plain HTTP."""
    guard = Guard(node=opensearch_url)
    with serving(guard.handler()) as guard.url:
        yield guard


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def tls_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def tls_guard(opensearch_url: str, authority: trustme.CA) -> Iterator[Guard]:
    """The secured cluster over TLS, its certificate issued by `authority` for 127.0.0.1."""
    guard = Guard(node=opensearch_url)
    with serving(guard.handler(), tls_of(authority.issue_cert("127.0.0.1"))) as guard.url:
        yield guard


@pytest.fixture
def as_ingrid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENSEARCH_USERNAME", USER)
    monkeypatch.setenv("OPENSEARCH_PASSWORD", PASSWORD)


# --- nobody there -----------------------------------------------------------------------------------


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("product", ["", *PRODUCTS])
def test_an_unreachable_url(fails: Fails, closed_port: str, product: str):
    line = fails(4, *(["--engine", product] if product else []), "search", "articles", "moon", url=closed_port)
    assert line.startswith(f"cannot reach {closed_port}: ")
    assert "Connection refused" in line
    assert line.endswith("; is the engine running there?")
    assert "object at 0x" not in line
    assert "HTTPConnection" not in line, "what Python calls it is of no use to the reader"


def test_an_unreachable_url_from_the_environment(fails: Fails, closed_port: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENSEARCH_URL", closed_port)
    assert closed_port in fails(4, "search", "articles", "moon")


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_server_that_closes_the_connection(fails: Fails, product: str):
    class Closing(Answering):
        def do_GET(self) -> None:
            self.close_connection = True

    with serving(Closing) as url:
        line = fails(4, "--engine", product, "search", "articles", "moon", url=url)
        assert f"cannot reach {url}" in line
        assert "closed connection without response" in line
        assert "https://" in line


@pytest.mark.parametrize("product", PRODUCTS)
def test_an_answer_that_breaks_off(fails: Fails, product: str):
    class Breaking(Answering):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"version": ')
            self.close_connection = True

    with serving(Breaking) as url:
        assert f"cannot reach {url}" in fails(4, "--engine", product, "search", "articles", "moon", url=url)


@pytest.mark.parametrize("product", PRODUCTS)
def test_an_engine_that_does_not_answer_in_time(fails: Fails, product: str, monkeypatch: pytest.MonkeyPatch):
    release = threading.Event()

    class Silent(Answering):
        def do_GET(self) -> None:
            release.wait(10)
            self.close_connection = True

    monkeypatch.setenv("BRIDGE_TIMEOUT", "0.2")
    with serving(Silent) as url:
        line = fails(4, "--engine", product, "search", "articles", "moon", url=url)
        release.set()
    assert f"{url} did not answer in 0.2 s" in line
    assert "BRIDGE_TIMEOUT" in line


# --- somebody else there ----------------------------------------------------------------------------

HTML = b"<html><body><h1>Welcome</h1>\n<p>to our site</p></body></html>"
NO_ENGINES = {
    "a web page": answering(200, "text/html", HTML),
    "a page that is not found": answering(404, "text/html", HTML),
    "an empty answer": answering(200, "text/plain", b""),
    "other JSON": answering(200, "application/json", b'{"hello": "world"}'),
    "a JSON list": answering(200, "application/json", b"[1, 2]"),
    "half of a JSON document": answering(200, "application/json", b'{"version": '),
    "a redirect to a login page": answering(302, "text/html", b"", Location="http://127.0.0.1:1/login"),
}


@pytest.mark.parametrize("what", NO_ENGINES)
@pytest.mark.parametrize("product", ["", *PRODUCTS])
def test_what_is_not_an_engine(fails: Fails, what: str, product: str):
    with serving(NO_ENGINES[what]) as url:
        line = fails(4, *(["--engine", product] if product else []), "search", "articles", "moon", url=url)
    assert url in line or "GET /" in line
    assert "check the URL" in line


@pytest.mark.parametrize("command", [["register", "articles", "--model", "m"], ["ingest", "articles", "a.jsonl"]])
def test_nothing_is_written_to_what_is_not_an_engine(fails: Fails, tmp_path: Path, bridge: Bridge, command: list[str]):
    (tmp_path / "a.jsonl").write_text('{"_id": "1", "text": "the moon"}\n')
    assert bridge("fit", "a.jsonl", "-o", "m")[0] == 0
    with serving(NO_ENGINES["other JSON"]) as url:
        assert "neither OpenSearch nor Elasticsearch" in fails(4, *command, url=url)


def test_a_wrong_path_of_an_engine(fails: Fails, opensearch_url: str):
    line = fails(4, "search", "articles", "moon", url=f"{opensearch_url}/prefix")
    assert f"{opensearch_url}/prefix is neither OpenSearch nor Elasticsearch" in line
    assert "path" in line


def test_the_other_product(opensearch_url: str):
    settings = EngineSettings(url=opensearch_url, product="elasticsearch")
    with open_engine(settings=settings) as engine, pytest.raises(NotAnEngine, match="leave --engine out"):
        engine.info()


def test_an_engine_in_trouble_is_not_taken_for_something_else(fails: Fails):
    with serving(answering(503, "application/json", b'{"error": "no master"}')) as url:
        assert "asks to wait (503): no master" in fails(1, "search", "articles", "moon", url=url)


# --- credentials ------------------------------------------------------------------------------------


def test_no_credentials(fails: Fails, guard: Guard):
    line = fails(4, "search", "articles", "moon", url=guard.url)
    assert "401" in line
    assert "OPENSEARCH_USERNAME" in line


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_wrong_password(fails: Fails, guard: Guard, product: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRIDGE_USERNAME", USER)
    monkeypatch.setenv("BRIDGE_PASSWORD", "pw-wrong-77")
    line = fails(4, "--engine", product, "search", "articles", "moon", url=guard.url)
    assert "refused the credentials (401)" in line
    assert guard.seen == [basic(USER, "pw-wrong-77")]
    assert "pw-wrong-77" not in line


@pytest.mark.usefixtures("as_ingrid")
def test_the_right_password_gets_through(bridge: Bridge, guard: Guard, index: str, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"_id": "1", "text": "the moon pulls the sea"}\n')
    code, out, err = bridge("ingest", index, "a.jsonl", "--json", url=guard.url)
    assert code == 0, err
    assert json.loads(out)["indexed"] == 1
    assert set(guard.seen) == {basic(USER, PASSWORD)}
    code, out, _ = bridge("search", index, "moon", "--json", url=guard.url)
    assert [hit["id"] for hit in json.loads(out)["hits"]] == ["1"]


def test_an_api_key_gets_through(bridge: Bridge, guard: Guard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENSEARCH_URL", guard.url)
    monkeypatch.setenv("OPENSEARCH_API_KEY", API_KEY)
    code, out, _ = bridge("doctor", "--json")
    assert code == 0
    assert set(guard.seen) == {f"ApiKey {API_KEY}"}
    assert json.loads(out)["healthy"] is True


def test_credentials_of_the_settings_file_get_through(bridge: Bridge, guard: Guard, tmp_path: Path):
    (tmp_path / "bridge.toml").write_text(
        f'[engine]\nurl = "{guard.url}"\nusername = "{USER}"\npassword = "{PASSWORD}"\n', encoding="utf-8"
    )
    code, out, _ = bridge("doctor", "--json")
    assert code == 0
    assert set(guard.seen) == {basic(USER, PASSWORD)}
    assert PASSWORD not in out


def test_a_lacking_permission(
    fails: Fails, bridge: Bridge, guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENSEARCH_USERNAME", READER)
    monkeypatch.setenv("OPENSEARCH_PASSWORD", READER_PASSWORD)
    (tmp_path / "a.jsonl").write_text('{"_id": "1", "text": "the moon"}\n')
    line = fails(4, "ingest", "test-forbidden", "a.jsonl", url=guard.url)
    assert "(403)" in line
    assert "no permissions for [indices:admin/create]" in line
    assert "lacks a permission" in line


SECRETS = (PASSWORD, "pw-Zq8", "Zq8", API_KEY, basic(USER, PASSWORD).split()[1])


@pytest.mark.usefixtures("as_ingrid")
@pytest.mark.parametrize(
    "command",
    [
        ["doctor"],
        ["search", "test-none", "moon"],
        ["search", "test-none", "moon", "--engine", "elasticsearch"],
        ["rewrite", "moon", "--index", "test-none"],
        ["ingest", "test-none", "gone.jsonl"],
        ["evaluate", "test-none", "gone"],
    ],
    ids=" ".join,
)
def test_the_password_is_never_shown(bridge: Bridge, guard: Guard, command: list[str]):
    for more in ([], ["-v"], ["--json", "-v"]):
        _, out, err = bridge(*command, *more, url=guard.url)
        assert not [secret for secret in SECRETS if secret in out + err]


@pytest.mark.parametrize(
    "url",
    [
        f"http://{USER}:pw-Zq8@127.0.0.1:1",
        f"https://{USER}:pw-Zq8@127.0.0.1:1",
        f"http://{USER}:pw-Zq8%2F%23@127.0.0.1:1",
        f"http://{USER}:pw-Zq8/rest@127.0.0.1:1",
        f"http://{USER}:pw-Zq8#rest@127.0.0.1:1",
        f"http://{USER}:pw-Zq8?rest@127.0.0.1:1",
        f"{USER}:pw-Zq8@127.0.0.1:1",
        f"ftp://{USER}:pw-Zq8@127.0.0.1:1",
        f"http://{USER}:pw-Zq8@127.0.0.1:99999",
        f"http://{USER}:pw-Zq8@[::1",
    ],
)
def test_the_password_of_a_url_is_never_shown(bridge: Bridge, url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENSEARCH_URL", url)
    for command in (["search", "articles", "moon"], ["search", "articles", "moon", "-v"], ["doctor", "--json", "-v"]):
        code, out, err = bridge(*command)
        assert code in (1, 2, 4)
        assert "Zq8" not in out + err


def test_credentials_in_the_url_get_through(bridge: Bridge, guard: Guard):
    url = guard.url.replace("http://", f"http://{USER}:pw-Zq8%2F%23%3F%26%40%3A%C3%A9@")
    assert bridge("doctor", url=url)[0] == 0
    assert set(guard.seen) == {basic(USER, PASSWORD)}


# --- TLS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["", *PRODUCTS])
@pytest.mark.usefixtures("as_ingrid")
def test_an_unknown_authority(fails: Fails, tls_guard: Guard, product: str):
    engine = ["--engine", product] if product else []
    line = fails(4, *engine, "search", "articles", "moon", url=tls_guard.url)
    assert f"the TLS handshake with {tls_guard.url} failed" in line
    assert "certificate verify failed" in line
    assert "BRIDGE_CA_FILE" in line
    assert tls_guard.seen == [], "credentials went to a server that is not trusted"


@pytest.mark.parametrize("product", PRODUCTS)
def test_another_authority(
    fails: Fails, tls_guard: Guard, product: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("BRIDGE_CA_FILE", str(other))
    assert "certificate verify failed" in fails(4, "--engine", product, "search", "a", "moon", url=tls_guard.url)


@pytest.mark.usefixtures("as_ingrid")
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_certificate_of_another_host(
    fails: Fails, authority: trustme.CA, ca_file: Path, product: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BRIDGE_CA_FILE", str(ca_file))
    with serving(answering(200, "application/json", b"{}"), tls_of(authority.issue_cert("other.example"))) as url:
        line = fails(4, "--engine", product, "search", "articles", "moon", url=url)
    assert "127.0.0.1" in line
    assert "certificate" in line


def test_the_right_ca_file(bridge: Bridge, tls_guard: Guard, ca_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENSEARCH_URL", tls_guard.url)
    monkeypatch.setenv("OPENSEARCH_CA_FILE", str(ca_file))
    monkeypatch.setenv("OPENSEARCH_USERNAME", USER)
    monkeypatch.setenv("OPENSEARCH_PASSWORD", PASSWORD)
    assert bridge("doctor")[0] == 0


@pytest.mark.usefixtures("as_ingrid")
def test_verification_can_be_turned_off(bridge: Bridge, tls_guard: Guard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRIDGE_VERIFY_TLS", "false")
    code, _, err = bridge("doctor", url=tls_guard.url)
    assert code == 0
    assert "Warning" not in err


@pytest.mark.parametrize("product", PRODUCTS)
def test_plain_http_where_tls_is_spoken(fails: Fails, tls_guard: Guard, product: str):
    url = tls_guard.url.replace("https:", "http:")
    line = fails(4, "--engine", product, "search", "articles", "moon", url=url)
    assert f"cannot reach {url}" in line
    assert "https://" in line


@pytest.mark.parametrize("product", PRODUCTS)
def test_tls_where_plain_http_is_spoken(fails: Fails, guard: Guard, product: str):
    url = guard.url.replace("http:", "https:")
    line = fails(4, "--engine", product, "search", "articles", "moon", url=url)
    assert f"the TLS handshake with {url} failed" in line
    assert "http://" in line


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "is not there"), (b"no certificate\n", "holds no certificate in PEM form"), (b"", "holds no certificate")],
)
def test_a_ca_file_that_is_none(
    fails: Fails, content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("BRIDGE_CA_FILE", str(path))
    line = fails(2, "search", "articles", "moon", url="https://127.0.0.1:1")
    assert f"the CA file {path} {said}" in line


# --- as a library -----------------------------------------------------------------------------------


def test_what_the_library_raises(guard: Guard, tls_guard: Guard, closed_port: str, monkeypatch: pytest.MonkeyPatch):
    cases = [
        (EngineUnreachable, closed_port, True),
        (EngineTlsError, tls_guard.url, False),
        (EngineForbidden, guard.url, False),
    ]
    for kind, url, retryable in cases:
        with pytest.raises(kind) as caught:
            open_engine(url)
        assert type(caught.value) is kind
        assert caught.value.retryable is retryable
    with serving(NO_ENGINES["a web page"]) as url, pytest.raises(NotAnEngine) as refused:
        open_engine(url)
    assert refused.value.retryable is False


def test_a_timeout_is_told_from_a_refusal(monkeypatch: pytest.MonkeyPatch):
    # A socket that listens and never accepts: the connection stands, and no answer comes.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        settings = EngineSettings(url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        with pytest.raises(EngineTimeout, match=r"did not answer in 0\.2 s"):
            open_engine(settings=settings)
