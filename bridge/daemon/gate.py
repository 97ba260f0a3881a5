"""What stands before every operation: how many at once, who, and from where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from bridge.daemon.keys import ANONYMOUS, Key, KeyFile, Scope
from bridge.servesettings import Limits, ServeSettings

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

TITLES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    413: "RequestTooLarge",
    415: "UnsupportedMediaType",
    421: "MisdirectedRequest",
    422: "InvalidRequest",
    429: "TooManyRequests",
    503: "Unavailable",
}


class Refused(Exception):
    """A request that is not answered with what it asks for."""

    def __init__(self, status: int, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.status, self.headers = status, headers
        self.title = TITLES[status]


class Gate:
    """Lets requests in, or refuses them.

    Without keys only this machine is served, and then a page that some browser here has open could ask as well: so a
    request must be for a name of this machine (no other that points to it), and what changes something must not come
    from another origin.
    """

    def __init__(self, settings: ServeSettings, keys: KeyFile | None) -> None:
        self.limits: Limits = settings.limits
        self._keys = keys
        self._names = _LOCAL | set(settings.hosts) if settings.is_loopback else None
        self.under_way = 0

    @property
    def is_full(self) -> bool:
        """Whether as many are under way as may be."""
        return self.under_way >= self.limits.requests

    def enter(self) -> None:
        """Before a request; `leave` after it. Raises Refused where too many are under way."""
        if self.is_full:
            raise Refused(429, f"{self.limits.requests} requests are under way; try again in a moment")
        self.under_way += 1

    def leave(self) -> None:
        """After a request that has entered."""
        self.under_way -= 1

    def check_host(self, headers: Mapping[bytes, bytes]) -> str:
        """For whom a request is.

        Raises:
            Refused: not for this machine.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._names is not None and _name(host) not in self._names:
            named = _name(host) or "nothing"
            raise Refused(421, f"this daemon is asked as localhost, not as {named}; [serve] hosts allows other names")
        return host

    def check(self, scope: Scope | None, request: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Key:
        """Who asks.

        Raises:
            Refused: nobody who may.
        """
        host = self.check_host(headers)
        origin = headers.get(b"origin") if request["method"] not in _SAFE else None
        if origin and urlsplit(origin.decode("latin-1").lower()).netloc != host:
            raise Refused(403, "pages of other origins may not change anything here")
        if scope is None or self._keys is None:
            return ANONYMOUS
        presented = _presented(headers)
        challenge = (("www-authenticate", "Bearer"),)
        if not presented:
            raise Refused(401, "an API key is needed: Authorization: Bearer KEY", challenge)
        key = self._keys.find(presented)
        if key is None:
            raise Refused(401, "this API key is not known, or has expired", challenge)
        if not key.allows(scope):
            raise Refused(403, f"the key {key.name} has the scope {key.scope}; {scope} is needed")
        return key


def _presented(headers: Mapping[bytes, bytes]) -> str:
    """The key of a request, in one of the two places where clients put it."""
    if given := headers.get(b"x-api-key"):
        return given.decode("latin-1")
    scheme, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _name(host: str) -> str:
    """The host's name without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
