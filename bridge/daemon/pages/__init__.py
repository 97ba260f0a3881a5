"""The pages of the daemon: files that ask for nothing from any other host."""

from __future__ import annotations

from importlib.resources import files

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " \
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"  # fmt: skip
"""What a browser may load for a page (Content-Security-Policy): this daemon's own files."""


def page(name: str) -> tuple[bytes, str] | None:
    """A file and its media type; None where there is no such."""
    kind = KINDS.get(name.rpartition(".")[2])
    if kind is None or "/" in name or name.startswith("."):
        return None
    try:
        return files(__name__).joinpath(name).read_bytes(), kind
    except FileNotFoundError:
        return None
