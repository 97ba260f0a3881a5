"""Where to connect and how: a TOML file and the environment ─▶ frozen `Settings`.

The environment wins over the file, and an argument of the command line over both. Secrets come
from here only, never from the command line, and `repr` never shows them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from bridge.errors import SettingsError
from bridge.records import Product as Product
from bridge.servesettings import ServeSettings, with_environment

APP = "neural-sparse-bridge"

_CREDENTIALS = ("username", "password", "api_key", "ca_file")


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
    serve: ServeSettings = ServeSettings()


def without_credentials(url: str) -> str:
    """`url` fit to be printed, even where it is ill-formed."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _masked(url)
    if parts.scheme and parts.hostname and "@" not in f"{parts.path}{parts.query}{parts.fragment}":
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return _masked(url)


def _masked(url: str) -> str:
    # A password with a / ? or # in it ends the host's part early: whatever stands before the last @ may be secret.
    before, at, after = url.rpartition("@")
    scheme, colon, _ = before.partition("://")
    return f"{scheme if colon else ''}{colon}…@{after}" if at else url


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
    read = _read(file, env)
    engine = msgspec.structs.asdict(read.engine)
    prefixes = ["OPENSEARCH", "ELASTICSEARCH"]
    if (product or engine["product"]) == "elasticsearch":
        prefixes.reverse()
    # One product's variables, never a mixture: those with a URL, else (for a URL from elsewhere) those with any.
    described = [found for prefix in prefixes if (found := _from_environment(env, prefix, ("url", *_CREDENTIALS)))]
    if described:
        found = next((one for one in described if "url" in one), described[0])
        if "url" in found:
            engine["product"] = None
        _lay_over(engine, found)
    _lay_over(engine, _from_environment(env, "BRIDGE", (*_CREDENTIALS, "aws_region", "aws_service")))
    if (verify := env.get("BRIDGE_VERIFY_TLS")) is not None:
        engine["verify_tls"] = _boolean("BRIDGE_VERIFY_TLS", verify)
    if timeout := env.get("BRIDGE_TIMEOUT"):
        engine["timeout"] = _number("BRIDGE_TIMEOUT", timeout)
    if url:
        if engine["url"] and url != engine["url"]:
            engine["product"] = None
        engine["url"] = url
    if product:
        engine["product"] = product
    if engine["url"]:
        _lay_over(engine, _split_url(engine["url"]))
    try:
        checked = msgspec.convert(engine, EngineSettings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {_plain(error)}") from error
    if checked.api_key and not re.fullmatch("[!-~]+", checked.api_key):
        # It becomes a header as it stands; the HTTP library's own complaint would quote it.
        raise SettingsError("settings: the API key holds white space, or characters that are not ASCII")
    if checked.ca_file:
        _check_ca_file(checked.ca_file)
    return Settings(engine=checked, serve=with_environment(read.serve, env))


def _from_environment(env: Mapping[str, str], prefix: str, keys: tuple[str, ...]) -> dict[str, str]:
    return {key: value for key in keys if (value := env.get(f"{prefix}_{key.upper()}"))}


def _lay_over(engine: dict[str, Any], found: Mapping[str, str]) -> None:
    """`found` wins, and a user name in it also over an API key of a weaker place, which would be used first."""
    if "username" in found and "api_key" not in found:
        engine["api_key"] = None
    engine |= found


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
        except UnicodeDecodeError as error:
            raise SettingsError(f"the settings file {path} is not UTF-8: byte {error.start + 1}") from error
        except msgspec.ValidationError as error:
            raise SettingsError(f"the settings file {path}: {_plain(error)}") from error
        except msgspec.DecodeError as error:
            raise SettingsError(f"the settings file {path} is not TOML: {error}") from error
    return Settings()


def _plain(error: msgspec.ValidationError) -> str:
    """`error` in the words of the settings file: which key, and what it should be."""
    text = str(error).replace("`$.", "`").replace("`$`", "the top level")
    if "unknown field" in text:
        known = (("engine", EngineSettings), ("serve", ServeSettings))
        tables = (f"[{name}] with {', '.join(struct.__struct_fields__)}" for name, struct in known)
        text += f"; the file has the tables {' and '.join(tables)}"
    return text


def _check_ca_file(ca_file: str) -> None:
    import ssl

    try:
        ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise SettingsError(f"settings: the CA file {ca_file} holds no certificate in PEM form") from error
    except OSError as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise SettingsError(f"settings: the CA file {ca_file} {reason}") from error


def _split_url(url: str) -> dict[str, str]:
    """The URL without credentials, and the credentials that it carried."""
    shown = without_credentials(url)
    hint = "it should look like https://host:9200"
    if "@" in url:
        hint += "; a password with / ? # @ or : in it is better kept in OPENSEARCH_PASSWORD or the settings file"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # `from None`: the error quotes what it took for the port, and that may be a piece of a password.
        raise SettingsError(f"{shown} is not a URL: {hint}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or "…" in shown:
        raise SettingsError(f"{shown} is not a URL of an engine; {hint}")
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
