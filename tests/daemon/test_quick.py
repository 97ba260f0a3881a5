"""What makes a short request cheap, and changes nothing: answers at once, one timer for all, lines written together."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from bridge.daemon import service
from bridge.daemon.app import App, make_app
from bridge.daemon.deadlines import Deadlines
from bridge.daemon.logs import AccessLog
from bridge.servesettings import ServeSettings
from bridge.settings import Settings

REWRITE = (b"POST", b"/v1/rewrite")
HEADERS = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"x-request-id", b"mine")]


@pytest.fixture
def app(tmp_path: Path, shared: Path) -> App:
    models = {"bert": str(shared / "bert-uncased")}
    return make_app(Settings(serve=ServeSettings(data=str(tmp_path / "serve"), models=models)))


def test_an_answer_at_once_is_the_applications(app: App) -> None:
    body = json.dumps({"model": "bert", "text": "bread and the sea", "size": 3}).encode()
    ask = app.at_once[REWRITE]
    with TestClient(app, base_url="http://localhost") as client:
        # What has to be loaded first is waited for.
        assert ask(HEADERS, body) is None
        known = client.post(
            "/v1/rewrite", content=body, headers={name.decode(): value.decode() for name, value in HEADERS}
        )
        head, _, content = (ask(HEADERS, body) or b"").partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        assert first == "HTTP/1.1 200 OK"
        assert dict(line.split(": ") for line in lines) == dict(known.headers)
        assert content == known.content
        assert 'bridge_requests_total{operation="rewrite",status="200"} 2.0' in client.get("/metrics").text


WRONG: list[tuple[str, list[tuple[bytes, bytes]], Any]] = [
    ("another host", [(b"host", b"evil.example"), HEADERS[1]], {"model": "bert", "text": "bread"}),
    ("another origin", [*HEADERS, (b"origin", b"http://evil.example")], {"model": "bert", "text": "bread"}),
    ("another type", [HEADERS[0], (b"content-type", b"text/plain")], {"model": "bert", "text": "bread"}),
    ("no JSON", HEADERS, None),
    ("a field that is none", HEADERS, {"model": "bert", "text": "bread", "sise": 1}),
    ("an empty question", HEADERS, {"model": "bert", "text": " "}),
    ("a long question", HEADERS, {"model": "bert", "text": "bread " * 400}),
]


@pytest.mark.parametrize(("headers", "body"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG])
def test_what_is_wrong_or_long_is_the_applications_to_answer(app: App, headers: Any, body: Any) -> None:
    ask = app.at_once[REWRITE]
    with TestClient(app, base_url="http://localhost") as client:
        assert client.post("/v1/rewrite", json={"model": "bert", "text": "bread"}).status_code == 200
        assert ask(headers, b"{" if body is None else json.dumps(body).encode()) is None


def test_who_takes_too_long_is_told_so() -> None:
    async def main() -> list[str]:
        deadlines = Deadlines(0.2)

        async def work(seconds: float) -> str:
            task = deadlines.begin()
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                assert deadlines.end(task)
                assert not task.cancelling()
                return "late"
            assert not deadlines.end(task)
            return "in time"

        return await asyncio.gather(work(0), work(30), work(0.01), work(30))

    assert asyncio.run(main()) == ["in time", "late", "in time", "late"]


def test_who_is_cancelled_by_another_is_not_late() -> None:
    async def main() -> None:
        deadlines = Deadlines(30)

        async def work() -> bool:
            task = deadlines.begin()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                return deadlines.end(task)
            return True

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        assert not await task

    asyncio.run(main())


def test_lines_are_written_together(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    written: list[bytes] = []

    async def main() -> None:
        log = AccessLog(written.append)
        log("POST", "/v1/rewrite", 200, "one", 'a "key"', 0.00123)
        log("GET", "/v1/jobs/nsb_0123456789ab_" + "x" * 43, 404, "two", "", 1)
        assert written == []
        await asyncio.sleep(0.3)
        assert len(written) == 1
        log.flush()

    asyncio.run(main())
    first, second = map(json.loads, written[0].splitlines())
    assert (first["message"], first["key"], first["milliseconds"]) == ("POST /v1/rewrite 200", 'a "key"', 1.23)
    assert (first["request_id"], first["level"], first["logger"]) == ("one", "info", "bridge.access")
    assert (second["message"], "key" in second) == ("GET /v1/jobs/… 404", False)


class _NoIndex:
    """An engine that has none, and counts how often it is asked."""

    asked = 0

    def get_index(self, name: str) -> None:
        self.asked += 1


def test_names_that_are_no_indexs_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_INDEXES", 10)
    engine: Any = _NoIndex()
    known = service.Service(Settings(), lambda _: engine)
    for number in range(100):
        for _ in range(2):
            assert known.model_of(f"none-{number}") is None
        assert len(known._models) <= 10
    assert engine.asked == 100
