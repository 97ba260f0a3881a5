"""Logs as JSON, a line an event, on stderr."""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime

import msgspec

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
