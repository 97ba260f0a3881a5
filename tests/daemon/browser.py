"""A real browser for the daemon's page, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NAMED = os.environ.get("BRIDGE_TEST_BROWSER")
"""Taken before any test empties the environment."""


def find_browser() -> str:
    """The browser's program; skips where there is none, in CI too: make can install none without being root."""
    found = shutil.which(NAMED) if NAMED else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        asked = f"BRIDGE_TEST_BROWSER is {NAMED}" if NAMED else f"none of {', '.join(NAMES)} is on the PATH"
        pytest.skip(f"no browser here, and make can install none: {asked} (on Debian: apt install chromium)")
    return found


@dataclass
class Watch:
    """What a page asks for and complains of; `allowed` are parts of complaints that belong to a test."""

    asked: list[Any] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def check(self, url: str) -> None:
        """Nothing but the daemon was asked for anything, and nothing was complained of."""
        assert self.asked
        elsewhere = [one.url for one in self.asked if not one.url.startswith((f"{url}/", "data:image/"))]
        assert not elsewhere
        assert [one for one in self.complaints if not any(part in one for part in self.allowed)] == []

    def sent(self, path: str) -> list[Any]:
        """The JSON bodies that were sent there."""
        return [one.post_data_json for one in self.asked if one.url.endswith(path)]


@contextmanager
def launched() -> Iterator[Any]:
    """The browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    words = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    program = find_browser()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=words)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, url: str, **how: Any) -> Iterator[tuple[Any, Watch]]:
    """A page of a fresh profile, and what it asks for; checked at the end of the block."""
    how = {"viewport": {"width": 1360, "height": 900}, "locale": "en-US", "base_url": url} | how
    context = browser.new_context(**how)
    context.set_default_timeout(60_000)
    watch = Watch()
    context.on("request", lambda one: watch.asked.append(one))  # no builtin: playwright keeps something on it
    context.on("console", lambda one: watch.complaints.append(one.text) if one.type in ("error", "warning") else None)
    context.on("weberror", lambda one: watch.complaints.append(str(one.error)))
    try:
        yield context.new_page(), watch
        watch.check(url)
    finally:
        context.close()
