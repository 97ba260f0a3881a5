"""What an engine's answers mean, where they are not what was asked for: each a leaf of `bridge.errors`."""

from __future__ import annotations

import re
from typing import Any

from bridge.errors import (
    EngineBusy,
    EngineError,
    EngineForbidden,
    EngineTimeout,
    EngineTlsError,
    EngineUnreachable,
    IndexNotFound,
    IndexReadOnly,
    NotAnEngine,
    RequestRejected,
    RequestTooLarge,
)


def not_an_engine(url: str, why: str) -> NotAnEngine:
    return NotAnEngine(
        f"what answers at {url} is neither OpenSearch nor Elasticsearch ({why}); check the URL's host, port and path"
    )


def unreachable(url: str, error: object) -> EngineUnreachable:
    """No connection, or a broken one; `error` is what the client's transport said."""
    hint = "is the engine running there?"
    text = str(error)
    if url.startswith("http:") and re.search(r"closed connection|reset by peer|BadStatusLine|EOF", text):
        hint = "if the engine speaks TLS, write https://"
    return EngineUnreachable(f"cannot reach {url}: {_bare(text)}; {hint}")


def timed_out(url: str, what: str, seconds: float) -> EngineTimeout:
    return EngineTimeout(f"{what}: {url} did not answer in {seconds:g} s; BRIDGE_TIMEOUT gives it longer")


def tls_failed(url: str, error: object) -> EngineTlsError:
    """The handshake failed; `error` is what the TLS library said."""
    text = _bare(str(error))
    hint = "name the certificate authority's PEM file with BRIDGE_CA_FILE"
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        hint = "what listens there speaks no TLS: write http:// if that is meant"
    return EngineTlsError(f"the TLS handshake with {url} failed: {text}; {hint}")


def _bare(text: str) -> str:
    """What a transport says, without the Python objects that it prints around it."""
    _, _, reason = text.partition("): ")
    text = reason or text
    # ('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))
    inner = re.fullmatch(r"\('[^']*', \w+\((?:\d+, )?['\"](.*)['\"]\)\)", text)
    return inner[1] if inner else text


def error_of_status(status: int, answer: Any, what: str) -> EngineError:
    """The leaf of the tree that an HTTP status and its body mean; `what` names the request."""
    reason = reason_of(answer) or f"HTTP {status}"
    if status in (401, 403):
        if "blocked by: [FORBIDDEN/" in reason:
            return IndexReadOnly(f"{what}: the index is blocked for writing: {reason}", status=status)
        hint = (
            "set OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD (ELASTICSEARCH_… alike) or BRIDGE_API_KEY"
            if status == 401
            else "the user lacks a permission"
        )
        return EngineForbidden(
            f"{what}: the engine refused the credentials ({status}): {reason}; {hint}", status=status
        )
    if status == 404 and not isinstance(answer, dict):
        # An engine explains in JSON what it did not find; a web server has a page for it.
        return NotAnEngine(
            f"{what}: what answers is not an engine but says (404): {reason}; check the URL's host, port and path"
        )
    if 300 <= status < 400:
        return NotAnEngine(f"{what}: what answers redirects ({status}); check the URL: is it that of a login page?")
    if status == 404:
        return IndexNotFound(f"{what}: not found: {reason}", status=status)
    if status == 413:
        return RequestTooLarge(f"{what}: the body is larger than the engine takes", status=status)
    if status in (429, 502, 503, 504):
        if "read_only_allow_delete" in reason or "read-only-allow-delete" in reason:
            return IndexReadOnly(f"{what}: the index is blocked for writing: {reason}", status=status)
        return EngineBusy(f"{what}: the engine asks to wait ({status}): {reason}", status=status)
    if status == 400 and _NO_PIPELINE.search(reason):
        reason += "; put it there (bridge register puts an index's own), or name another one"
    return RequestRejected(f"{what}: the engine refused it ({status}): {reason}", status=status)


_NO_PIPELINE = re.compile(r"^Pipeline \S+ is not defined$")


def reason_of(answer: Any) -> str:
    """The most telling line of an error answer: the innermost cause, in the engine's words."""
    if isinstance(answer, (bytes, str)):
        text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
        return " ".join(text.split())[:300]
    # Gateways in front of an engine (AWS's, say) answer with a message alone.
    error = answer.get("error", answer.get("message", answer)) if isinstance(answer, dict) else None
    if isinstance(error, str):
        return error[:500]
    if not isinstance(error, dict):
        return ""
    parts: list[str] = []
    while isinstance(error, dict):
        reason = error.get("reason")
        if isinstance(reason, str) and reason not in parts:
            parts.append(reason)
        error = error.get("caused_by")
    return ": ".join(" ".join(part.split()) for part in parts)[:500]
