"""What goes wrong gives one clear line, the right exit code and no traceback; `fails` checks the form."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.engines import Engine, open_engine
from bridge.ingest import ingest
from bridge.settings import EngineSettings
from bridge.sources import open_source

Bridge = Callable[..., tuple[int, str, str]]
Fails = Callable[..., str]

GOOD = '{"_id": "1", "title": "Tides", "text": "The moon pulls the sea."}\n'


@pytest.fixture
def model(bridge: Bridge, tmp_path: Path) -> str:
    """A fitted model's folder, named as seen from the working folder; `a.jsonl` is what it was fitted on."""
    (tmp_path / "a.jsonl").write_text(GOOD)
    assert bridge("fit", "a.jsonl", "-o", "model")[0] == 0
    return "model"


@pytest.fixture
def filled(bridge: Bridge, model: str, index: str, opensearch_url: str) -> str:
    """An index of that model."""
    assert bridge("ingest", index, "a.jsonl", "--model", model, url=opensearch_url)[0] == 0
    return index


@pytest.fixture(scope="module")
def standing(opensearch_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Like `filled`, for tests that only ask it."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    folder = tmp_path_factory.mktemp("standing")
    (folder / "a.jsonl").write_text(GOOD)
    with pytest.MonkeyPatch.context() as patch, open_engine(settings=EngineSettings(url=opensearch_url)) as engine:
        patch.setenv("BRIDGE_CACHE_DIR", str(folder / "cache"))
        patch.setenv("BRIDGE_DATA_DIR", str(folder / "data"))
        with open_source([str(folder / "a.jsonl")]) as source:
            ingest(engine, name, source)
        yield name
        engine.delete_index(name)


# --- how a command is called ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said", "see"),
    [
        (["serch", "a", "b"], "No such command 'serch'. Did you mean 'search'?", "bridge --help"),
        (["xyzzy"], "No such command 'xyzzy'", "bridge --help"),
        (["node", "strat"], "No such command 'strat'. Did you mean 'start'?", "bridge node --help"),
        (["search", "a", "b", "--fliter", "{}"], "--filter", "bridge search --help"),
        (["ingest", "a", "b", "--modle", "m"], "--model", "bridge ingest --help"),
        (["--jsno", "doctor"], "--json", "bridge --help"),
        (["search", "a"], "Missing argument 'TEXT'", "bridge search --help"),
        (["ingest", "a"], "Missing argument 'SOURCE...'", "bridge ingest --help"),
        (["register", "a"], "Missing option '--model'", "bridge register --help"),
        (["search", "a", "b", "c"], "unexpected extra argument (c)", "bridge search --help"),
        (["search", "a", "b", "-n", "0"], "'-n' / '--size'", "bridge search --help"),
        (["search", "a", "b", "-n", "many"], "'many' is not a valid integer", "bridge search --help"),
        (["register", "a", "--kind", "text"], "'text' is not one of", "bridge register --help"),
        (["--engine", "solr", "doctor"], "'solr' is not one of", "bridge --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(fails: Fails, arguments: list[str], said: str, see: str):
    line = fails(2, *arguments)
    assert said in line
    assert line.endswith(f"see: {see}")


def test_an_option_without_its_value(fails: Fails):
    assert "Option '-o' requires an argument" in fails(2, "fit", "a.jsonl", "-o")


def test_rewrite_needs_to_know_the_model(fails: Fails):
    line = fails(2, "rewrite", "moon")
    assert "--model" in line
    assert "--index" in line


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_query(fails: Fails, model: str, standing: str, opensearch_url: str, text: str):
    assert "the query is empty" in fails(2, "search", standing, text, url=opensearch_url)
    assert "the query is empty" in fails(2, "rewrite", text, "--index", standing, url=opensearch_url)
    assert "the query is empty" in fails(2, "rewrite", text, "--model", "model")


def test_a_query_that_is_not_utf8(fails: Fails, model: str):
    text = os.fsdecode(b"caf\xe9")
    assert "not Unicode text" in fails(2, "rewrite", text, "--model", model)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{bad", "--filter is not JSON"),
        ("", "--filter is not JSON"),
        ("[]", "one query clause"),
        ("{}", "one query clause"),
        ('{"term": {}, "range": {}}', "one query clause"),
        ('"lang"', "one query clause"),
    ],
)
def test_a_filter_that_is_none(fails: Fails, model: str, standing: str, opensearch_url: str, text: str, said: str):
    assert said in fails(2, "search", standing, "moon", "--filter", text, url=opensearch_url)
    assert said in fails(2, "rewrite", "moon", "--model", "model", "--filter", text)


def test_a_filter_that_the_engine_refuses(fails: Fails, standing: str, opensearch_url: str):
    line = fails(1, "search", standing, "moon", "--filter", '{"nonsense": {}}', url=opensearch_url)
    assert "refused it (400)" in line
    assert "unknown query [nonsense]" in line


@pytest.mark.parametrize("name", ["", "_all", "te*", "a,b", "-a", "a b", "a/b", os.fsdecode(b"\xe9"), ".."])
def test_what_is_no_name_of_an_index(fails: Fails, model: str, opensearch_url: str, name: str):
    for arguments in (
        ["search", "--", name, "moon"],
        ["rewrite", "moon", f"--index={name}"] if name else ["search", "--", name, "moon"],
        ["register", "--model", model, "--", name],
        ["ingest", "--model", model, "--", name, "a.jsonl"],
    ):
        assert "is not the name of an index" in fails(2, *arguments, url=opensearch_url)


def test_an_index_that_is_not_there(fails: Fails, opensearch_url: str, tmp_path: Path):
    for arguments in (["search", "test-none", "moon"], ["rewrite", "moon", "--index", "test-none"]):
        line = fails(1, *arguments, url=opensearch_url)
        assert line == f"there is no index test-none at {opensearch_url}"


def test_an_index_that_the_bridge_did_not_make(fails: Fails, engine: Engine, index: str, opensearch_url: str):
    engine.create_index(index, {})
    line = fails(2, "search", index, "moon", url=opensearch_url)
    assert f"{index} was not made by the bridge" in line
    assert "register" in line


def test_an_alias_of_two_indices(fails: Fails, bridge: Bridge, filled: str, engine: Engine, opensearch_url: str):
    other = f"{filled}-b"
    assert bridge("register", other, "--model", "model", url=opensearch_url)[0] == 0
    try:
        for name in (filled, other):
            engine.request("PUT", f"/{name}/_alias/{filled}-both")
        line = fails(1, "search", f"{filled}-both", "moon", url=opensearch_url)
        assert f"stands for 2 indices ({filled}, {other})" in line
    finally:
        engine.delete_index(other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "sparse_vector"], "open vocabulary"),
        (["--field", "a.b"], "without dots"),
        (["--dense", "nothing"], "no model nothing"),
    ],
)
def test_an_index_that_cannot_be(fails: Fails, model: str, opensearch_url: str, options: list[str], said: str):
    code = 1 if "--dense" in options else 2
    assert said in fails(code, "register", "test-none", "--model", model, *options, url=opensearch_url)


# --- sources ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.jsonl", "gone.jsonl: no such file or folder"),
        ("gone*.jsonl", "gone*.jsonl: no file matches"),
        ("notes.pdf", "notes.pdf: of no known form"),
        ("empty-folder", "empty-folder: is a folder without corpus.jsonl"),
        ("cut.jsonl.gz", "cut.jsonl.gz: the gzip data ends too early"),
        ("array.json", "array.json: is one JSON array"),
    ],
)
@pytest.mark.parametrize("command", [["ingest", "test-none"], ["fit", "-o", "new-model"]], ids=["ingest", "fit"])
def test_a_source_that_cannot_be_read(
    fails: Fails, engine: Engine, opensearch_url: str, tmp_path: Path, command: list[str], name: str, said: str
):
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    (tmp_path / "empty-folder").mkdir()
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(GOOD.encode() * 100)[:-20])
    (tmp_path / "array.json").write_text(f"[\n{GOOD}]\n")
    assert fails(1, *command, name, url=opensearch_url).startswith(said)
    assert engine.get_index("test-none") is None
    assert not (tmp_path / "new-model").exists()


def test_a_corpus_without_a_word(fails: Fails, tmp_path: Path, opensearch_url: str):
    (tmp_path / "a.jsonl").write_text('{"_id": "1", "text": "?!"}\n')
    assert "no document has a text with any word" in fails(1, "fit", "a.jsonl", "-o", "model")
    (tmp_path / "a.jsonl").write_text("")
    assert "no document has a text with any word" in fails(1, "ingest", "test-none", "a.jsonl", url=opensearch_url)


def test_a_folder_for_a_model_that_is_taken(fails: Fails, model: str):
    line = fails(2, "fit", "a.jsonl", "-o", model)
    assert "model exists and is not empty" in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--language", "english"], "ISO 639-1"),
        (["-b", "2"], "b must lie between 0 and 1"),
        (["--k1", "-1"], "k1 must be zero or more"),
    ],
)
def test_a_fit_that_cannot_be(fails: Fails, model: str, options: list[str], said: str):
    assert said in fails(2, "fit", "a.jsonl", "-o", "other", *options)


# --- documents --------------------------------------------------------------------------------------

BAD_DOCUMENTS: dict[str, tuple[bytes, str]] = {
    "bad JSON": (b'{"_id": "2", "text": ', "not JSON: it ends too early (column 21)"),
    "no object": (b'["2"]', "not a JSON object but an array"),
    "no id": (b'{"text": "words"}', "no id: field _id is missing"),
    "an empty id": (b'{"_id": "", "text": "words"}', "no id: field _id is empty"),
    "an id that is too long": (b'{"_id": "%s", "text": "words"}' % (b"x" * 513), "its id has 513 bytes"),
    "no text field": (b'{"_id": "2", "body": "words"}', "none of the text fields title, text is there; it has: body"),
    "empty text": (b'{"_id": "2", "text": "  "}', "its text is empty (text)"),
    "not UTF-8": (b'{"_id": "2", "text": "caf\xe9"}', "not UTF-8: byte 0xe9 at column 26"),
    "a duplicate id": (b'{"_id": "1", "text": "other words"}', "duplicate id '1'"),
    "a field of the bridge's": (
        b'{"_id": "2", "text": "words", "embedding": 1}',
        "it has a field embedding of its own",
    ),
    "what the engine refuses": (b'{"_id": "2", "text": {"a": "words"}}', "the text field text is an object"),
}


@pytest.mark.parametrize("what", BAD_DOCUMENTS)
def test_a_document_that_cannot_go_in(bridge: Bridge, index: str, opensearch_url: str, tmp_path: Path, what: str):
    line, reason = BAD_DOCUMENTS[what]
    (tmp_path / "a.jsonl").write_bytes(GOOD.encode() + line + b"\n")
    code, out, err = bridge("ingest", index, "a.jsonl", "--json", url=opensearch_url)
    assert code == 3
    summary = json.loads(out)
    assert (summary["source"], summary["indexed"], summary["dead"]) == (2, 1, 1)
    kept = tmp_path / f"{index}.dead-letter.jsonl"
    (said,) = [line for line in err.splitlines() if line.startswith("bridge: error: ")]
    assert err.splitlines()[-1] == said
    assert said.startswith(f"bridge: error: 1 of 2 documents did not go in; the first: a.jsonl:2: {reason}")
    assert said.endswith(f"they are kept in {kept}")
    assert "Traceback" not in err
    (letter,) = map(json.loads, kept.read_text().splitlines())
    assert list(letter) == ["file", "line", "id", "reason", "document"]
    assert (letter["file"], letter["line"]) == ("a.jsonl", 2)
    assert letter["reason"].startswith(reason)
    assert letter["document"]


def test_the_dead_letter_file_is_where_it_is_asked_for(bridge: Bridge, index: str, opensearch_url: str, tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(GOOD.encode() + b"nonsense\n")
    arguments = ["ingest", index, "a.jsonl", "--dead-letter", "kept/dead.jsonl"]
    code, out, err = bridge(*arguments, url=opensearch_url)
    assert code == 3
    assert "1 dead" in out
    assert str(tmp_path / "kept" / "dead.jsonl") in err
    assert len((tmp_path / "kept" / "dead.jsonl").read_text().splitlines()) == 1


def test_a_dead_letter_file_that_cannot_be(fails: Fails, index: str, opensearch_url: str, tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(GOOD.encode() + b"nonsense\n")
    (tmp_path / "folder").mkdir()
    line = fails(1, "ingest", index, "a.jsonl", "--dead-letter", "folder", url=opensearch_url)
    assert "folder cannot be written: Is a directory" in line
    assert "--dead-letter" in line


# --- models -----------------------------------------------------------------------------------------


def test_a_model_folder_without_a_tokenizer(fails: Fails, tmp_path: Path, opensearch_url: str):
    (tmp_path / "a.jsonl").write_text(GOOD)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "idf.json").write_text("{}")
    for arguments in (
        ["rewrite", "moon", "--model", "bare"],
        ["register", "test-none", "--model", "bare"],
        ["ingest", "test-none", "a.jsonl", "--model", "bare"],
    ):
        line = fails(1, *arguments, url=opensearch_url)
        assert line.startswith("bare is not a model folder: it has no tokenizer.json")
    assert "bare" in fails(1, "fit", "a.jsonl", "-o", "new", "--tokenizer", "bare")


def test_a_model_that_is_not_there(fails: Fails, tmp_path: Path):
    assert fails(1, "rewrite", "moon", "--model", "nowhere").startswith("no model nowhere")
    (tmp_path / "file").write_text("x")
    assert fails(1, "rewrite", "moon", "--model", "file") == "file is a file; a model is a folder"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bridge.json", b"{", "bridge.json is not a fitted model's card"),
        ("bridge.json", b'{"family": "unknown"}', "bridge.json is not a fitted model's card"),
        ("bridge.json", b"\xff", "bridge.json is not a fitted model's card"),
        ("idf.json", b'{"a": "b"}', "idf.json is not a JSON object of token weights"),
        ("idf.json", None, "idf.json cannot be read"),
    ],
)
def test_a_damaged_model(fails: Fails, model: str, tmp_path: Path, name: str, content: bytes | None, said: str):
    path = tmp_path / model / name
    path.unlink() if content is None else path.write_bytes(content)
    assert said in fails(1, "rewrite", "moon", "--model", model)


def test_a_damaged_tokenizer(fails: Fails, tmp_path: Path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "idf.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{")
    assert "tokenizer.json is not a tokenizer" in fails(1, "rewrite", "moon", "--model", "broken")


def test_a_tokenizer_without_weights(fails: Fails, shared: Path, tmp_path: Path):
    folder = tmp_path / "half"
    folder.mkdir()
    shutil.copy(shared / "bert-uncased" / "tokenizer.json", folder)
    line = fails(1, "rewrite", "moon", "--model", "half")
    assert "no idf.json" in line
    assert "bridge fit" in line


def test_a_query_model_for_documents(fails: Fails, shared: Path, tmp_path: Path, index: str, opensearch_url: str):
    (tmp_path / "a.jsonl").write_text(GOOD)
    model = str(shared / "bert-uncased")
    line = fails(2, "ingest", index, "a.jsonl", "--model", model, url=opensearch_url)
    assert "encodes queries only" in line
    assert "bridge fit" in line


def test_an_index_of_another_model(
    fails: Fails, bridge: Bridge, filled: str, engine: Engine, opensearch_url: str, tmp_path: Path
):
    (tmp_path / "b.jsonl").write_text('{"_id": "2", "text": "Bread is flour and water."}\n')
    assert bridge("fit", "b.jsonl", "-o", "other")[0] == 0
    theirs = engine.require_index(filled).meta["document_encoder"]
    for arguments in (
        ["ingest", filled, "b.jsonl", "--model", "other"],
        ["register", filled, "--model", "other"],
        ["register", filled, "--model", "other", "--dry-run"],
        ["search", filled, "bread", "--model", "other"],
        ["rewrite", "bread", "--index", filled, "--model", "other"],
    ):
        line = fails(5, *arguments, url=opensearch_url)
        assert filled in line
        assert theirs in line, "it names the index's model"
        assert line.count("lexical-") >= 2, "and the one that was given"
    assert engine.require_index(filled).meta["document_encoder"] == theirs
    assert engine.count(filled) == 1


def test_an_index_whose_model_is_lost(
    fails: Fails, bridge: Bridge, index: str, engine: Engine, opensearch_url: str, home: Path, tmp_path: Path
):
    (tmp_path / "a.jsonl").write_text(json.dumps({"_id": "1", "text": f"A model of its own: {index}"}))
    assert bridge("ingest", index, "a.jsonl", url=opensearch_url)[0] == 0
    fingerprint = engine.require_index(index).meta["document_encoder"]
    engine.request("DELETE", f"/.bridge-models/_doc/{fingerprint}", params={"refresh": "true"})
    shutil.rmtree(home)
    line = fails(1, "search", index, "moon", url=opensearch_url)
    assert f"model {fingerprint} is neither in the local cache nor in .bridge-models" in line
    assert "--model" in line


# --- judgements -------------------------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    folder = tmp_path / "judged"
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "moon"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t1\n")
    return folder


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("qrels/test.tsv", None, "judged/qrels/test.tsv: cannot be read: No such file or directory"),
        ("qrels/test.tsv", "q1\t1\t1\nq1 1 1\n", "judged/qrels/test.tsv:2: not three columns"),
        ("qrels/test.tsv", "q1\t1\thigh\n", "judged/qrels/test.tsv"),
        ("qrels/test.tsv", "h\th\th\nq1\t1\tx1.5\n", "judged/qrels/test.tsv:2: the score 'x1.5' is not a whole number"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", "judged/qrels/test.tsv: holds no judgements"),
        ("qrels/test.tsv", "q1\t1\t1\nq9\t1\t1\n", "judged/queries.jsonl: lacks judged queries"),
        ("queries.jsonl", None, "judged/queries.jsonl: no such file or folder"),
        ("queries.jsonl", "{\n", "judged/queries.jsonl:1: not JSON"),
        ("queries.jsonl", '{"_id": "q1"}\n', "judged/queries.jsonl:1: none of the text fields text is there"),
    ],
)
def test_judgements_that_cannot_be_used(
    fails: Fails, standing: str, opensearch_url: str, judged: Path, name: str, content: str | None, said: str
):
    path = judged / name
    path.unlink() if content is None else path.write_text(content)
    assert fails(1, "evaluate", standing, "judged", url=opensearch_url).startswith(said)


def test_a_run_that_cannot_be_compared(fails: Fails, standing: str, opensearch_url: str, judged: Path, tmp_path: Path):
    line = fails(1, "evaluate", standing, "judged", "--compare", "gone.trec", url=opensearch_url)
    assert line.startswith("gone.trec: cannot be read")
    (tmp_path / "bad.trec").write_text("q1 1 1\n")
    line = fails(1, "evaluate", standing, "judged", "--compare", "bad.trec", url=opensearch_url)
    assert line.startswith("bad.trec:1: not the six columns of a TREC run")


def test_a_run_that_cannot_be_written(fails: Fails, standing: str, opensearch_url: str, judged: Path):
    line = fails(1, "evaluate", standing, "judged", "--run", "gone/a.trec", url=opensearch_url)
    assert line.startswith("gone/a.trec: cannot be written")


# --- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = ", "bridge.toml is not TOML"),
        (b"[engine]\nurl = 3\n", "bridge.toml: Expected `str | null`, got `int` - at `engine.url`"),
        (b"[engine]\nurll = 'x'\n", "unknown field `urll`"),
        (b"url = 'x'\n", "the tables [engine] with url, product, username"),
        (b"[engine]\nurl = 'localhost:9200'\n", "localhost:9200 is not a URL of an engine"),
        (b"[engine]\nproduct = 'solr'\n", "Invalid enum value 'solr' - at `engine.product`"),
        (b"\xff\xfe", "bridge.toml is not UTF-8"),
    ],
)
def test_a_settings_file_that_cannot_be_used(fails: Fails, tmp_path: Path, content: bytes, said: str):
    (tmp_path / "bridge.toml").write_bytes(content)
    for arguments in (["search", "a", "b"], ["doctor"]):
        assert said in fails(2, *arguments)


def test_a_settings_file_that_is_not_there(fails: Fails, monkeypatch: pytest.MonkeyPatch):
    assert "gone.toml is not there" in fails(2, "--config", "gone.toml", "doctor")
    assert "cannot be read: Is a directory" in fails(2, "--config", ".", "doctor")
    monkeypatch.setenv("BRIDGE_CONFIG", "gone-too.toml")
    assert "gone-too.toml is not there" in fails(2, "doctor")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OPENSEARCH_URL", "search.example.org", "is not a URL of an engine; it should look like https://host:9200"),
        ("ELASTICSEARCH_URL", "ftp://search.example.org", "is not a URL of an engine"),
        ("BRIDGE_VERIFY_TLS", "maybe", "BRIDGE_VERIFY_TLS must be true or false, not 'maybe'"),
        ("BRIDGE_TIMEOUT", "soon", "BRIDGE_TIMEOUT must be a number of seconds, not 'soon'"),
        ("BRIDGE_TIMEOUT", "-1", "BRIDGE_TIMEOUT must be a number of seconds"),
        ("BRIDGE_CA_FILE", "/gone.pem", "the CA file /gone.pem is not there"),
        ("BRIDGE_API_KEY", "a b", "the API key holds white space"),
    ],
)
def test_an_environment_that_cannot_be_used(
    fails: Fails, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
):
    monkeypatch.setenv(name, value)
    assert said in fails(2, "search", "a", "b")


# --- the process itself -----------------------------------------------------------------------------

COMMAND = [sys.executable, "-c", "from bridge.cli import main; main()"]


def test_a_reader_that_goes_away(tmp_path: Path, model: str):
    """`bridge … | head -1`: the pipe closes, and nobody is told about it."""
    for arguments in (["--help"], ["rewrite", "moon", "--model", model], ["doctor"], ["doctor", "--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        with subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE) as process:
            os.close(writer)
            err = process.communicate(timeout=60)[1]
        assert err == b"", arguments
        assert process.returncode != 0, arguments


def test_a_terminal_that_cannot_show_a_character(tmp_path: Path, filled: str, opensearch_url: str):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    words = [*COMMAND, "search", filled, "moon", "--url", opensearch_url]
    shown = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
    assert shown.returncode == 0, shown.stderr
    assert b"moon" in shown.stdout
    words = [*COMMAND, "rewrite", "水", "--model", "model"]
    printed = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=True)
    assert "水" in printed.stdout.decode(), "JSON is UTF-8, whatever the terminal is"


def test_a_bug_is_one_line_too(fails: Fails, bridge: Bridge, model: str, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("bridge.rewrite.QueryRewriter.encode", broken)
    line = fails(1, "rewrite", "moon", "--model", model)
    assert line == "unexpected ZeroDivisionError: division by zero; this is a bug: -v shows where"
    assert "Traceback" in bridge("rewrite", "moon", "--model", model, "-v")[2]
