"""Settings: file, environment and arguments, in that order; what is secret stays so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.errors import SettingsError
from bridge.settings import (
    EngineSettings,
    Settings,
    cache_folder,
    data_folder,
    load_settings,
    without_credentials,
)

URL = "https://search.example.org:9200"
FILE = f"""
[engine]
url = "{URL}"
product = "elasticsearch"
username = "file"
password = "file-secret"
verify_tls = false
timeout = 5.5
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(environment: dict[str, str] | None = None, **arguments: Any) -> EngineSettings:
    return load_settings(environment=environment or {}, **arguments).engine


# --- where they come from ---------------------------------------------------------------------------


def test_nothing_is_set():
    assert load() == EngineSettings()
    assert load().url is None
    assert load().verify_tls is True


def test_the_file(folder: Path):
    (folder / "bridge.toml").write_text(FILE)
    found = load()
    assert (found.url, found.product, found.username, found.password) == (URL, "elasticsearch", "file", "file-secret")
    assert (found.verify_tls, found.timeout) == (False, 5.5)


def test_the_file_is_the_first_that_is_there(folder: Path):
    user = folder / "home" / "config" / "neural-sparse-bridge" / "config.toml"  # XDG_CONFIG_HOME of the tests
    user.parent.mkdir(parents=True)
    user.write_text("[engine]\nurl = 'http://user:1'")
    found = load()
    if found.url is None:
        pytest.skip("the user's configuration folder is elsewhere on this system")
    assert found.url == "http://user:1"
    (folder / "bridge.toml").write_text("[engine]\nurl = 'http://here:1'")
    assert load().url == "http://here:1"
    (folder / "variable.toml").write_text("[engine]\nurl = 'http://variable:1'")
    assert load({"BRIDGE_CONFIG": "variable.toml"}).url == "http://variable:1"
    (folder / "argument.toml").write_text("[engine]\nurl = 'http://argument:1'")
    assert load({"BRIDGE_CONFIG": "variable.toml"}, file=Path("argument.toml")).url == "http://argument:1"


def test_the_environment_wins_over_the_file(folder: Path):
    (folder / "bridge.toml").write_text(FILE)
    found = load({"OPENSEARCH_URL": "http://other:1", "OPENSEARCH_PASSWORD": "other-secret"})
    assert (found.url, found.username, found.password) == ("http://other:1", "file", "other-secret")
    assert found.product is None, "the file says what answers at its own URL, not at this one"
    assert load({"BRIDGE_VERIFY_TLS": "true"}).verify_tls is True
    assert load({"BRIDGE_TIMEOUT": "7"}).timeout == 7


def test_arguments_win_over_the_environment():
    environment = {"OPENSEARCH_URL": "http://other:1"}
    assert load(environment, url="http://third:1").url == "http://third:1"
    assert load(environment, product="elasticsearch").product == "elasticsearch"


def test_another_url_is_another_product(folder: Path):
    (folder / "bridge.toml").write_text(FILE)
    assert load(url=URL).product == "elasticsearch"
    assert load(url="http://other:1").product is None
    assert load(url="http://other:1", product="opensearch").product == "opensearch"


# --- two products in one environment ----------------------------------------------------------------

BOTH = {
    "OPENSEARCH_URL": "http://opensearch:1",
    "OPENSEARCH_USERNAME": "o",
    "ELASTICSEARCH_URL": "http://elasticsearch:1",
    "ELASTICSEARCH_API_KEY": "e",
}


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        (None, ("http://opensearch:1", "o", None)),
        ("opensearch", ("http://opensearch:1", "o", None)),
        ("elasticsearch", ("http://elasticsearch:1", None, "e")),
    ],
)
def test_the_product_that_is_asked_for(product: str | None, expected: tuple[Any, ...]):
    found = load(BOTH, product=product)
    assert (found.url, found.username, found.api_key) == expected


def test_credentials_are_never_mixed():
    """One product's key must not go to the other's cluster."""
    environment = {key: value for key, value in BOTH.items() if key != "OPENSEARCH_URL"}
    found = load(environment)
    assert (found.url, found.username, found.api_key) == ("http://elasticsearch:1", None, "e")


def test_credentials_for_a_url_from_elsewhere(folder: Path):
    environment = {"OPENSEARCH_USERNAME": "o", "OPENSEARCH_PASSWORD": "p"}
    found = load(environment, url="http://third:1")
    assert (found.url, found.username, found.password) == ("http://third:1", "o", "p")
    (folder / "bridge.toml").write_text("[engine]\nurl = 'http://file:1'")
    assert load(environment).username == "o"
    both = {**environment, "ELASTICSEARCH_API_KEY": "e"}
    assert load(both, url="http://third:1").api_key is None
    found = load(both, url="http://third:1", product="elasticsearch")
    assert (found.username, found.api_key) == (None, "e")


@pytest.mark.parametrize("key", ["username", "password", "api_key"])
def test_bridge_variables_are_for_any_url(key: str):
    for environment in ({"OPENSEARCH_URL": URL}, {"ELASTICSEARCH_URL": URL}, {}):
        found = load({**environment, f"BRIDGE_{key.upper()}": "ours"}, url=URL)
        assert getattr(found, key) == "ours"


def test_a_user_name_takes_the_place_of_a_key_from_a_weaker_place(folder: Path):
    (folder / "bridge.toml").write_text("[engine]\nurl = 'http://file:1'\napi_key = 'file-key'")
    assert load().api_key == "file-key"
    found = load({"OPENSEARCH_USERNAME": "o", "OPENSEARCH_PASSWORD": "p"})
    assert (found.username, found.api_key) == ("o", None)
    assert load(url="http://u:p@file:1").api_key is None
    assert load({"BRIDGE_USERNAME": "o", "BRIDGE_API_KEY": "key"}).api_key == "key"


# --- URLs -------------------------------------------------------------------------------------------


def test_credentials_in_a_url():
    found = load(url="https://us%40er:p%2Fw%3A@host:9200/path/")
    assert (found.url, found.username, found.password) == ("https://host:9200/path", "us@er", "p/w:")
    found = load({"OPENSEARCH_USERNAME": "o", "OPENSEARCH_PASSWORD": "p"}, url="https://u:q@host")
    assert (found.username, found.password) == ("u", "q")


@pytest.mark.parametrize(
    "url",
    ["localhost", "localhost:9200", "ftp://host", "http://", "http://:9200", "http://host:0", "http://host:99999",
     "http://host:port", "http://[::1", "//host", "http:/host", "https://user:pa/ss@host", "user:pass@host:9200"],
)  # fmt: skip
def test_what_is_not_a_url(url: str):
    with pytest.raises(SettingsError, match="it should look like https://host:9200") as caught:
        load(url=url)
    assert "pass" not in str(caught.value).partition(";")[0]


@pytest.mark.parametrize("url", ["http://host", "https://host:9200", "http://[::1]:9200", "http://127.0.0.1:9200/a/b"])
def test_what_is_a_url(url: str):
    assert load(url=url).url == url
    assert load(url=f"{url}/").url == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host:9200/path", "https://host:9200/path"),
        ("https://user:secret@host:9200/path", "https://host:9200/path"),
        ("https://user@host", "https://host"),
        ("https://user:se@cret@host", "https://host"),
        ("https://user:se/cret@host", "https://…@host"),
        ("https://user:se?cret@host", "https://…@host"),
        ("https://user:se#cret@host", "https://…@host"),
        ("user:secret@host:9200", "…@host:9200"),
        ("https://user:secret@[host", "https://…@[host"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_url_without_its_credentials(url: str, shown: str):
    assert without_credentials(url) == shown


def test_no_secret_in_a_repr():
    settings = Settings(engine=EngineSettings(url="https://u:s3cret@host", password="s3cret", api_key="s3cret"))
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in repr(settings.engine)
    assert "https://host" in repr(settings)
    assert EngineSettings().shown_url == "the embedded node"


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("TRUE", True), ("yes", True), ("0", False), ("False", False), ("no", False)]
)
def test_verify_tls(text: str, value: bool):
    assert load({"BRIDGE_VERIFY_TLS": text}).verify_tls is value


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"BRIDGE_VERIFY_TLS": ""}, "BRIDGE_VERIFY_TLS must be true or false"),
        ({"BRIDGE_TIMEOUT": "nan"}, "BRIDGE_TIMEOUT must be a number of seconds"),
        ({"BRIDGE_TIMEOUT": "0"}, "BRIDGE_TIMEOUT must be a number of seconds"),
        ({"BRIDGE_TIMEOUT": "1e9"}, "BRIDGE_TIMEOUT must be a number of seconds"),
        ({"BRIDGE_AWS_SERVICE": "s3"}, "aws_service"),
        ({"BRIDGE_CA_FILE": "gone.pem"}, "the CA file gone.pem is not there"),
        ({"BRIDGE_CA_FILE": "."}, "the CA file ."),
        ({"BRIDGE_API_KEY": "line\n"}, "the API key holds white space"),
        ({"BRIDGE_API_KEY": "schlüssel"}, "characters that are not ASCII"),
    ],
)
def test_values_that_cannot_be(environment: dict[str, str], said: str):
    with pytest.raises(SettingsError) as caught:
        load(environment, url=URL)
    assert said in str(caught.value)
    assert "schlüssel" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[engine]\npassword = 12345", "got `int` - at `engine.password`"),
        ("[engine]\nverify_tls = 'yes'", "`engine.verify_tls`"),
        ("[server]\nport = 1", "unknown field `server`"),
        ("[engine]\npasword = 'x'", "unknown field `pasword`"),
        ("engine = 1", "engine"),
        ("[engine", "is not TOML"),
    ],
)
def test_a_file_that_cannot_be_used(folder: Path, content: str, said: str):
    (folder / "bridge.toml").write_text(content)
    with pytest.raises(SettingsError) as caught:
        load()
    assert said in str(caught.value)
    assert "bridge.toml" in str(caught.value)
    assert "12345" not in str(caught.value)


def test_a_file_that_somebody_named_must_be_there(folder: Path):
    with pytest.raises(SettingsError, match=r"gone\.toml is not there"):
        load(file=Path("gone.toml"))
    with pytest.raises(SettingsError, match=r"gone\.toml is not there"):
        load({"BRIDGE_CONFIG": "gone.toml"})


def test_settings_do_not_change():
    settings = load(url=URL)
    with pytest.raises(AttributeError):
        settings.url = "other"  # type: ignore[misc]


# --- folders ----------------------------------------------------------------------------------------


def test_folders(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRIDGE_CACHE_DIR", "/c")
    monkeypatch.setenv("BRIDGE_DATA_DIR", "/d")
    assert (cache_folder(), data_folder()) == (Path("/c"), Path("/d"))
    monkeypatch.delenv("BRIDGE_CACHE_DIR")
    monkeypatch.delenv("BRIDGE_DATA_DIR")
    assert cache_folder().name == data_folder().name == "neural-sparse-bridge"
    assert cache_folder() != data_folder()
