"""API keys: who may do what. The file keeps their hashes, never the keys.

A key is 256 random bits, which nobody guesses: one round of SHA-256 hides it as well as a slow hash would a password,
and costs a request nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bridge.errors import SettingsError, UsageError

Scope = Literal["read", "write", "admin"]
"""``read`` asks, ``write`` ingests and encodes documents as well, ``admin`` registers indexes and ends others' jobs."""

_INCLUDED: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "admin": frozenset({"read", "write", "admin"}),
}
_FORM = re.compile(r"nsb_([0-9a-f]{12})_([\w-]{43})")
_AGAIN = 2.0
"""Seconds after which a changed file is noticed."""


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file keeps of a key."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
    name: str
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    scope: Scope
    created: datetime
    expires: datetime | None = None

    def allows(self, scope: Scope) -> bool:
        return scope in _INCLUDED[self.scope]


ANONYMOUS = Key(id="0" * 12, name="anonymous", hash="0" * 64, scope="admin", created=datetime.fromtimestamp(0, UTC))
"""Who asks where no keys are kept."""


class KeyFile:
    """The keys of a file. A change of it is noticed within seconds; safe to share between threads."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._now = now
        self._looked = 0.0
        self._state: tuple[int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._read()

    def find(self, presented: str) -> Key | None:
        """The key that is presented, if it is one of these and has not expired."""
        form = _FORM.fullmatch(presented)
        if form is None:
            return None
        now = self._now()
        if now - self._looked > _AGAIN:
            # A file that cannot be read just now takes nobody's key away.
            with contextlib.suppress(SettingsError):
                self._read()
        key = self._keys.get(form[1])
        if key is None or not hmac.compare_digest(key.hash, _hash(presented)):
            return None
        return None if key.expires and key.expires.timestamp() <= now else key

    def all(self) -> list[Key]:
        """Every key, the oldest first."""
        self._read()
        return sorted(self._keys.values(), key=lambda key: key.created)

    def add(self, name: str, scope: Scope, lifetime: timedelta | None = None) -> tuple[str, Key]:
        """A new key, and what is kept of it. The key itself is not to be had again."""
        if not name.strip():
            raise UsageError("a key needs a name: who is it for?")
        number = secrets.token_hex(6)
        presented = f"nsb_{number}_{secrets.token_urlsafe(32)}"
        created = datetime.fromtimestamp(int(self._now()), UTC)
        expires = created + lifetime if lifetime else None
        key = Key(id=number, name=name, hash=_hash(presented), scope=scope, created=created, expires=expires)
        self._write({**{one.id: one for one in self.all()}, number: key})
        return presented, key

    def revoke(self, number: str) -> Key:
        """Takes a key away, by its id. Raises UsageError where there is none."""
        known = {one.id: one for one in self.all()}
        if number not in known:
            raise UsageError(f"{self.path} has no key {number}; bridge keys list shows those that it has")
        key = known.pop(number)
        self._write(known)
        return key

    def _read(self) -> None:
        self._looked = self._now()
        try:
            state = self.path.stat()
            if (state.st_mtime_ns, state.st_size) == self._state:
                return
            keys = msgspec.json.decode(self.path.read_bytes(), type=list[Key])
        except FileNotFoundError:
            # Nobody has a key: nobody gets in.
            self._state, self._keys = None, {}
            return
        except OSError as error:
            raise SettingsError(f"the keys file {self.path} cannot be read: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"the keys file {self.path} is not one of bridge keys: {error}") from error
        self._state, self._keys = (state.st_mtime_ns, state.st_size), {key.id: key for key in keys}

    def _write(self, keys: dict[str, Key]) -> None:
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(list(keys.values())), indent=1) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path)
        except OSError as error:
            raise SettingsError(f"the keys file {self.path} cannot be written: {error.strerror}") from error
        self._read()


def _hash(presented: str) -> str:
    return hashlib.sha256(presented.encode()).hexdigest()
