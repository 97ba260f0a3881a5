"""Logs as JSON, a line an event, on stderr."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

_TOGETHER = 0.1
"""Seconds for which the access log's lines are gathered."""
_MOST = 64
"""Lines that are: what comes while they are written does not wait for more than these."""

_OWN = ("request_id", "key", "milliseconds")

_SECRET = re.compile(r"nsb_[0-9a-f]{12}_[\w-]+|(?<=://)[^/@\s]+@|(?i:(?<=bearer )|(?<=basic ))[\w.~+/=-]{8,}")
"""API keys, the credentials of a URL, and those of a header: none belongs into a log, however it came there."""


class JsonFormatter(logging.Formatter):
    """One event as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        for name in _OWN:
            value = getattr(record, name, None)
            if value not in (None, ""):
                found[name] = value
        if record.exc_info:
            found["error"] = redacted(self.formatException(record.exc_info))
        return msgspec.json.encode(found).decode()


def redacted(text: str) -> str:
    """`text` without secrets."""
    return _SECRET.sub("…", text)


@lru_cache(256)
def _as_json(text: str) -> bytes:
    """A string of JSON, without secrets and without its quotes."""
    return msgspec.json.encode(redacted(text))[1:-1]


_LINE = (
    b'{"time":"%b.%03d+00:00","level":"info","logger":"bridge.access","message":"%b %b %d","request_id":"%b"%b,'
    b'"milliseconds":%.3f}\n'
)


class AccessLog:
    """A line for each request, in the form of all others.

    They are written together, ten times a second: to write one costs as much as to look up a question's words. A
    process that is killed takes the last of them with it; one that ends writes them.

    Args:
        write: takes lines; stderr by default.
    """

    def __init__(self, write: Callable[[bytes], object] | None = None) -> None:
        self._write = write or _to_stderr
        self._lines: list[bytes] = []
        self._logger = logging.getLogger("bridge.access")
        self._second, self._date = 0, b""

    def __call__(self, method: str, path: str, status: int, identity: str, key: str, seconds: float) -> None:
        """A request that was answered; from an event loop. `identity` can stand in a log as it is."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(_TOGETHER, self.flush)
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._date = second, datetime.fromtimestamp(second, UTC).isoformat()[:19].encode()
        shown = b',"key":"%b"' % _as_json(key) if key else b""
        parts = (
            self._date, int((now - second) * 1e3), method.encode(), _as_json(path), status, identity.encode(), shown,
            seconds * 1e3,
        )  # fmt: skip
        self._lines.append(_LINE % parts)
        if len(self._lines) >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Write what has not been written yet."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._write(b"".join(lines))


def _to_stderr(lines: bytes) -> None:
    sys.stderr.write(lines.decode())
    sys.stderr.flush()


def start_logging(level: str) -> None:
    """All loggers of this process write so from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("opensearch", "elastic_transport", "elasticsearch", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
