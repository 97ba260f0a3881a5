"""Where to connect and how: a TOML file and the environment ─▶ frozen `Settings`.

The environment wins over the file, and an argument of the command line over both. Secrets come
from here only, never from the command line, and `repr` never shows them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from bridge.errors import SettingsError

APP = "neural-sparse-bridge"
Product = Literal["opensearch", "elasticsearch"]


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[engine]` table of the settings file."""

    url: str | None = None
    """http(s)://host:port[/path]; without one the embedded node is used."""
    product: Product | None = None
    """Skips detection where the root path is not to be had (a proxy, a serverless collection)."""
    username: str | None = None
    password: str | None = None
    api_key: str | None = None
    ca_file: str | None = None
    verify_tls: bool = True
    aws_region: str | None = None
    """Signs requests with AWS SigV4 (OpenSearch only)."""
    aws_service: Literal["es", "aoss"] = "es"
    timeout: float = 60.0
    """Seconds a request may take."""

    def __repr__(self) -> str:
        # Never the secrets: a repr ends up in tracebacks and logs.
        return f"EngineSettings(url={self.shown_url!r}, product={self.product!r})"

    @property
    def shown_url(self) -> str:
        """The URL without the credentials that it may carry."""
        return without_credentials(self.url) if self.url else "the embedded node"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole settings file."""

    engine: EngineSettings = EngineSettings()


def without_credentials(url: str) -> str:
    """`url` fit to be printed."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def load_settings(
    *,
    url: str | None = None,
    product: str | None = None,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from the file, then the environment, then the arguments.

    The file is `file`, else `$BRIDGE_CONFIG`, else ``bridge.toml`` in this folder, else
    ``config.toml`` in the user's configuration folder; it may be missing only where nobody named it.

    Raises:
        SettingsError: unreadable, not TOML, an unknown key, or a value of the wrong kind.
    """
    env = os.environ if environment is None else environment
    engine = msgspec.structs.asdict(_read(file, env).engine)
    for product_name in ("opensearch", "elasticsearch"):
        prefix = product_name.upper()
        if address := env.get(f"{prefix}_URL"):
            engine |= {"url": address, "product": None}
            for key in ("username", "password", "api_key", "ca_file"):
                if value := env.get(f"{prefix}_{key.upper()}"):
                    engine[key] = value
            break
    for key in ("username", "password", "api_key", "ca_file", "aws_region", "aws_service"):
        if value := env.get(f"BRIDGE_{key.upper()}"):
            engine[key] = value
    if (verify := env.get("BRIDGE_VERIFY_TLS")) is not None:
        engine["verify_tls"] = _boolean("BRIDGE_VERIFY_TLS", verify)
    if timeout := env.get("BRIDGE_TIMEOUT"):
        engine["timeout"] = _number("BRIDGE_TIMEOUT", timeout)
    if url:
        engine["url"] = url
    if product:
        engine["product"] = product
    if engine["url"]:
        engine |= _split_url(engine["url"])
    try:
        checked = msgspec.convert(engine, EngineSettings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {error}") from error
    if checked.ca_file and not Path(checked.ca_file).is_file():
        raise SettingsError(f"settings: the CA file {checked.ca_file} is not there")
    return Settings(engine=checked)


def _read(file: Path | None, env: Mapping[str, str]) -> Settings:
    named = file or (Path(env["BRIDGE_CONFIG"]) if env.get("BRIDGE_CONFIG") else None)
    for path in [named] if named else [Path("bridge.toml"), _config_file()]:
        try:
            return msgspec.toml.decode(path.read_bytes(), type=Settings)
        except FileNotFoundError:
            if named:
                raise SettingsError(f"the settings file {path} is not there") from None
        except OSError as error:
            raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"the settings file {path}: {error}") from error
    return Settings()


def _split_url(url: str) -> dict[str, str]:
    """The URL without credentials, and the credentials that it carried."""
    shown = without_credentials(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"{shown} is not a URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise SettingsError(f"{shown} is not a URL of an engine; it should look like https://host:9200")
    found = {"url": shown.rstrip("/")}
    if parts.username:
        found["username"] = unquote(parts.username)
    if parts.password:
        found["password"] = unquote(parts.password)
    return found


def _boolean(name: str, value: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    try:
        return known[value.lower()]
    except KeyError:
        raise SettingsError(f"{name} must be true or false, not {value!r}") from None


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number < 86_400:
        raise SettingsError(f"{name} must be a number of seconds, not {value!r}")
    return number


def _config_file() -> Path:
    import platformdirs

    return Path(platformdirs.user_config_dir(APP)) / "config.toml"


def cache_folder() -> Path:
    """`$BRIDGE_CACHE_DIR`, else the user's cache folder: things that can be made again."""
    import platformdirs

    return Path(os.environ.get("BRIDGE_CACHE_DIR") or platformdirs.user_cache_dir(APP))


def data_folder() -> Path:
    """`$BRIDGE_DATA_DIR`, else the user's data folder: checkpoints and the embedded node's data."""
    import platformdirs

    return Path(os.environ.get("BRIDGE_DATA_DIR") or platformdirs.user_data_dir(APP))
