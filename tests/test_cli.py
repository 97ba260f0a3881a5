"""The command line as a whole: its help, its global options, and `--json` of every command."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from bridge.cli import cli
from bridge.engines import Engine
from bridge.records import HASH_FIELD

Bridge = Callable[..., tuple[int, str, str]]
Fails = Callable[..., str]
Answer = Callable[..., Any]

DOCUMENTS = (
    {"_id": "moon", "title": "Tides", "text": "The moon pulls the sea, and the sea rises and falls.", "lang": "en"},
    {"_id": "bread", "text": "Bread is flour, water, salt and yeast.", "lang": "en"},
    {"_id": "rain", "text": "Rain falls when the drops in a cloud grow heavy.", "lang": "fr"},
)
QUERIES = ({"_id": "q1", "text": "why does the sea rise"}, {"_id": "q2", "text": "what is bread made of"})
QRELS = "query-id\tcorpus-id\tscore\nq1\tmoon\t1\nq2\tbread\t1\n"


def jsonl(path: Path, rows: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """A BEIR folder of three documents and two judged queries, named as seen from the working folder."""
    jsonl(tmp_path / "corpus" / "corpus.jsonl", DOCUMENTS)
    jsonl(tmp_path / "corpus" / "queries.jsonl", QUERIES)
    (tmp_path / "corpus" / "qrels").mkdir()
    (tmp_path / "corpus" / "qrels" / "test.tsv").write_text(QRELS)
    return "corpus"


@pytest.fixture
def model(bridge: Bridge, corpus: str) -> str:
    assert bridge("fit", corpus, "-o", "model")[0] == 0
    return "model"


@pytest.fixture
def filled(bridge: Bridge, corpus: str, index: str, opensearch_url: str) -> str:
    """An index with the documents."""
    assert bridge("ingest", index, corpus, url=opensearch_url)[0] == 0
    return index


@pytest.fixture
def answer(bridge: Bridge) -> Answer:
    """Run a command with --json: the one document on stdout."""

    def call(*arguments: str, url: str | None = None, code: int = 0) -> Any:
        found, out, err = bridge(*arguments, "--json", url=url)
        assert found == code, err
        return json.loads(out)

    return call


# --- help -------------------------------------------------------------------------------------------


def commands(command: click.Command = cli, words: tuple[str, ...] = ("bridge",)) -> Iterator[tuple[str, click.Command]]:
    """Every command with its words, groups included."""
    yield " ".join(words), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found
            yield from commands(found, (*words, name))


COMMANDS = dict(commands())


def test_the_commands_are_those_of_the_contract():
    assert set(COMMANDS) == {
        "bridge", "bridge demo", "bridge doctor", "bridge fit", "bridge register", "bridge ingest", "bridge rewrite",
        "bridge migrate", "bridge search", "bridge evaluate", "bridge node", "bridge node start", "bridge node stop",
        "bridge node status", "bridge node logs", "bridge node reset", "bridge encode", "bridge export",
        "bridge models", "bridge models list", "bridge models show", "bridge serve", "bridge proxy",
        "bridge keys", "bridge keys add", "bridge keys list", "bridge keys revoke", "bridge attach",
        "bridge dead-letter", "bridge dead-letter show", "bridge dead-letter retry",
    }  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_help(bridge: Bridge, words: str):
    for option in ("--help", "-h"):
        code, out, err = bridge(*words.split()[1:], option)
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: {words} [OPTIONS]")
        assert "Global options:" in out
        # A type's name says less than a word for the value.
        assert not [word for word in (" TEXT ", "INTEGER", "FLOAT", "PATH") if word in out.split("Options:")[1]]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_explained(words: str):
    for parameter in COMMANDS[words].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts
            assert parameter.help.endswith("."), parameter.help


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != "bridge"])
def test_every_command_has_a_line_that_fits(bridge: Bridge, words: str):
    *group, name = words.split()[1:]
    out = bridge(*group, "--help")[1]
    line = next(line for line in out.splitlines() if line.split()[:1] == [name])
    assert line.rstrip().endswith(".")
    assert not line.rstrip().endswith("...")


def test_without_a_command_there_is_help(bridge: Bridge):
    code, out, err = bridge()
    assert code in (0, 2)  # as click of this version does
    assert "bridge demo" in out + err
    assert "Commands:" in out + err


def test_the_version(bridge: Bridge):
    code, out, _ = bridge("--version")
    assert code == 0
    assert importlib.metadata.version("neural-sparse-bridge") in out


# --- the global options -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    ["doctor", "node status", "node stop", "node logs", "fit corpus -o new", "rewrite sea --model model"],
)
def test_json_may_stand_before_and_after_the_command(bridge: Bridge, words: str, model: str, tmp_path: Path):
    arguments = words.split()
    found = []
    for place in range(len(arguments) + 1 if arguments[0] == "node" else 1):
        found.append(bridge(*arguments[:place], "--json", *arguments[place:]))
    arguments = [word.replace("new", "other") for word in arguments]
    found.append(bridge(*arguments, "--json"))
    assert {code for code, _, _ in found} == {0}
    documents = [json.loads(out) for _, out, _ in found]
    for document in documents:
        document.pop("folder", None)
        assert document == documents[0]


def test_the_url_may_stand_after_the_command(bridge: Bridge, filled: str, opensearch_url: str):
    before = bridge("search", filled, "sea", "--json", url=opensearch_url)
    after = bridge("search", filled, "sea", "--json", "--url", opensearch_url)
    assert (before[0], after[0]) == (0, 0)
    assert json.loads(before[1])["hits"] == json.loads(after[1])["hits"]


def test_quiet_leaves_notices_out(bridge: Bridge, corpus: str, index: str, opensearch_url: str):
    code, out, err = bridge("ingest", index, corpus, "--quiet", url=opensearch_url)
    assert (code, err) == (0, "")
    assert "3 indexed" in out


@pytest.mark.parametrize("place", [0, 1, 4])
def test_verbose_shows_the_traceback_wherever_it_stands(bridge: Bridge, place: int):
    arguments = ["rewrite", "sea", "--model", "nothing-there"]
    code, out, err = bridge(*arguments[:place], "-v", *arguments[place:])
    assert (code, out) == (1, "")
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("bridge: error: no model nothing-there")


def test_a_settings_file_may_be_named(bridge: Bridge, fails: Fails, opensearch_url: str, tmp_path: Path):
    (tmp_path / "ours.toml").write_text(f'[engine]\nurl = "{opensearch_url}"\n')
    assert "test-none" in fails(1, "search", "test-none", "sea", "--config", "ours.toml")
    assert "test-none" in fails(1, "--config", "ours.toml", "search", "test-none", "sea")


# --- --json of every command ------------------------------------------------------------------------


def test_fit_json(answer: Answer, corpus: str):
    found = answer("fit", corpus, "-o", "model", "--language", "en")
    assert found["model"].startswith("lexical-")
    assert (found["folder"], found["documents"], found["language"]) == ("model", 3, "en")
    assert found["average_length"] > 1


def test_register_json(answer: Answer, model: str, index: str, engine: Engine, opensearch_url: str):
    dry = answer("register", index, "--model", model, "--dry-run", url=opensearch_url)
    assert dry["steps"] == [f"create index {index}"]
    assert '"rank_features"' in dry["diff"]
    assert dry["dry_run"] is True
    assert engine.get_index(index) is None
    real = answer("register", index, "--model", model, url=opensearch_url)
    assert (real["index"], real["dry_run"], real["steps"]) == (index, False, dry["steps"])
    state = engine.require_index(index)
    assert state.meta["document_encoder"] == real["model"]
    assert answer("register", index, "--model", model, url=opensearch_url)["steps"] == []


def test_ingest_json(answer: Answer, corpus: str, index: str, opensearch_url: str, tmp_path: Path):
    first = answer("ingest", index, corpus, url=opensearch_url)
    keys = ["source", "indexed", "unchanged", "deleted", "dead", "retried", "seconds"]
    assert list(first)[: len(keys)] == keys
    assert [first[key] for key in keys[:6]] == [3, 3, 0, 0, 0, 0]
    assert isinstance(first["seconds"], float)
    changed = (
        DOCUMENTS[0],
        {**DOCUMENTS[1], "text": "Bread is baked."},
        {"_id": "rain", "_op": "delete"},
        {"_id": "new", "text": "Snow is white."},
        {"_id": "empty", "text": ""},
    )
    jsonl(tmp_path / "changes.jsonl", changed)
    second = answer("ingest", index, "changes.jsonl", url=opensearch_url, code=3)
    assert [second[key] for key in keys[:5]] == [5, 2, 1, 1, 1]
    assert second["source"] == second["indexed"] + second["unchanged"] + second["deleted"] + second["dead"]
    assert second["dead_letter"].endswith(f"{index}.dead-letter.jsonl")
    assert second["first_dead"] == "changes.jsonl:5: its text is empty (text)"


def test_search_json(answer: Answer, filled: str, opensearch_url: str):
    found = answer("search", filled, "why does the sea rise", "-n", "2", url=opensearch_url)
    (hit,) = found["hits"]
    assert hit["id"] == "moon"
    assert hit["source"] == {key: value for key, value in DOCUMENTS[0].items() if key != "_id"}
    assert set(hit["tokens"]) == {"sea", "rise"}
    assert sum(hit["tokens"].values()) == pytest.approx(hit["score"], rel=1e-5)
    assert found["dropped"] == 0
    nothing = answer("search", filled, "xyzzy", url=opensearch_url)
    assert nothing["hits"] == []


def test_evaluate_json(answer: Answer, bridge: Bridge, filled: str, corpus: str, opensearch_url: str):
    found = answer("evaluate", filled, corpus, "--run", "a.trec", url=opensearch_url)
    assert list(found) == ["ndcg@10", "mrr@10", "recall@100", "active_terms", "flops", "queries"]
    assert list(found["active_terms"]) == ["query", "document"]
    assert [found[name] for name in ("ndcg@10", "mrr@10", "recall@100", "queries")] == [1.0, 1.0, 1.0, 2]
    assert found["flops"] > 0
    compared = answer("evaluate", filled, corpus, "--compare", "a.trec", url=opensearch_url)
    assert {key: value for key, value in compared.items() if key != "compare"} == found
    assert compared["compare"]["rows"]["ndcg@10"]["difference"] == 0
    # Without --json the same figures, for people.
    code, out, _ = bridge("evaluate", filled, corpus, url=opensearch_url)
    assert code == 0
    assert "nDCG@10" in out
    assert "1.0000" in out


def test_doctor_json(answer: Answer, opensearch_url: str):
    found = answer("doctor", url=opensearch_url)
    assert found["healthy"] is True
    assert {"name", "status", "found", "mend"} == set(found["checks"][0])


def test_node_json(answer: Answer):
    assert answer("node", "status") == {"running": False}
    assert answer("node", "stop") == {"stopped": False}
    assert answer("node", "logs") == {"lines": []}
    assert answer("node", "reset", "--yes") == {"reset": True}


def test_demo_json(answer: Answer, engine: Engine, opensearch_url: str):
    try:
        found = answer("demo", url=opensearch_url)
        assert engine.count("bridge-demo") == found["ingest"]["indexed"] == found["ingest"]["source"]
        assert 0.5 < found["evaluate"]["ndcg@10"] <= 1
    finally:
        engine.delete_index("bridge-demo")


def test_what_the_demo_says_to_type_next_works(bridge: Bridge, engine: Engine, opensearch_url: str):
    try:
        code, out, _ = bridge("demo", "--teacher", "none", url=opensearch_url)
        assert code == 0
        steps = [line[:1] for line in out.splitlines() if line[:1].isdigit()]
        assert steps == ["1", "2", "3", "4"]
        suggested = [line.strip() for line in out.partition("What to type next")[2].splitlines() if line.strip()]
        assert len(suggested) >= 5
        for line in suggested:
            # A command, at least three spaces, what it does.
            words = shlex.split(re.split(r" {3,}", line)[0])
            assert words[0] == "bridge"
            if words[1] != "ingest":  # of a file that the user has
                assert bridge(*words[1:])[0] == 0, line
    finally:
        engine.delete_index("bridge-demo")


def test_the_demo_leaves_an_index_of_others_alone(fails: Fails, engine: Engine, opensearch_url: str):
    engine.create_index("bridge-demo", {})
    try:
        assert "did not make" in fails(1, "demo", url=opensearch_url)
        assert engine.get_index("bridge-demo") is not None
    finally:
        engine.delete_index("bridge-demo")


@pytest.mark.parametrize(
    "words",
    [
        "demo", "fit gone.jsonl -o new", "register test-none --model model", "ingest test-none corpus",
        "rewrite sea --index test-none", "rewrite sea --model gone", "search test-none sea", "search",
        "evaluate test-none corpus", "evaluate test-none gone", "node start --port 0",
    ],
)  # fmt: skip
def test_nothing_is_on_stdout_where_a_command_fails(bridge: Bridge, model: str, words: str):
    code, out, err = bridge(*words.split(), "--json", url="http://127.0.0.1:1")
    assert code in (1, 2, 4)
    assert out == ""
    assert err.splitlines()[-1].startswith("bridge: error: ")


# --- rewrite: what it prints, an engine takes -------------------------------------------------------


@pytest.mark.parametrize("dialect", [[], ["--dialect", "neural_sparse"], ["--dialect", "rank_feature"]])
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_rewritten_query_is_taken_as_it_is(
    bridge: Bridge, filled: str, engine: Engine, opensearch_url: str, dialect: list[str], how: list[str]
):
    code, out, err = bridge("rewrite", "why does the sea rise", "--index", filled, *dialect, *how, url=opensearch_url)
    assert (code, err) == (0, "")
    hits = engine.request("POST", f"/{filled}/_search", body=out.encode())["hits"]["hits"]
    assert [hit["_id"] for hit in hits] == ["moon"]
    assert set(hits[0]["_source"]) == {"title", "text", "lang"}
    assert HASH_FIELD not in hits[0]["_source"]


def test_a_query_rewritten_without_a_cluster_is_the_same(bridge: Bridge, filled: str, home: Path, opensearch_url: str):
    (folder,) = (home / "cache" / "models").iterdir()
    text = "why does the sea rise"
    asked = bridge("rewrite", text, "--index", filled, "--json", url=opensearch_url)
    alone = bridge("rewrite", text, "--model", str(folder), "--engine-version", "3.6.0", "--json")
    assert asked == alone


def test_size_and_filter_of_a_rewritten_query(bridge: Bridge, filled: str, engine: Engine, opensearch_url: str):
    arguments = ["rewrite", "falls", "--index", filled, "--json"]
    out = bridge(*arguments, "-n", "1", url=opensearch_url)[1]
    assert len(engine.request("POST", f"/{filled}/_search", body=out.encode())["hits"]["hits"]) == 1
    out = bridge(*arguments, "--filter", '{"term": {"lang": "fr"}}', url=opensearch_url)[1]
    hits = engine.request("POST", f"/{filled}/_search", body=out.encode())["hits"]["hits"]
    assert [hit["_id"] for hit in hits] == ["rain"]


def test_a_query_without_tokens_is_taken_too(bridge: Bridge, filled: str, engine: Engine, opensearch_url: str):
    code, out, err = bridge("rewrite", "?!", "--index", filled, "--json", url=opensearch_url)
    assert code == 0
    assert "matches nothing" in err
    assert engine.request("POST", f"/{filled}/_search", body=out.encode())["hits"]["hits"] == []


def test_a_seismic_query_is_taken_as_it_is(
    bridge: Bridge, corpus: str, index: str, engine: Engine, opensearch_url: str, shared: Path
):
    tokenizer = str(shared / "bert-uncased")
    assert bridge("fit", corpus, "-o", "pieces", "--tokenizer", tokenizer)[0] == 0
    arguments = ["ingest", index, corpus, "--model", "pieces", "--kind", "sparse_vector"]
    assert bridge(*arguments, url=opensearch_url)[0] == 0
    out = bridge("rewrite", "why does the sea rise", "--index", index, "--json", url=opensearch_url)[1]
    hits = engine.request("POST", f"/{index}/_search", body=out.encode())["hits"]["hits"]
    assert hits[0]["_id"] == "moon"
    assert set(hits[0]["_source"]) == {"title", "text", "lang"}


def test_text_that_is_not_ascii_comes_out_whole(bridge: Bridge, tmp_path: Path, index: str, opensearch_url: str):
    jsonl(tmp_path / "a.jsonl", [{"_id": "ü", "text": "Ебола [bold] 水は冷たい \u2028 crème"}])
    assert bridge("ingest", index, "a.jsonl", url=opensearch_url)[0] == 0
    code, out, _ = bridge("search", index, "crème 水", "--json", url=opensearch_url)
    assert code == 0
    assert json.loads(out)["hits"][0]["source"]["text"] == "Ебола [bold] 水は冷たい \u2028 crème"
    assert "水は冷たい" in out
    code, out, _ = bridge("search", index, "crème 水", url=opensearch_url)
    assert code == 0
    # A document's own brackets are no markup.
    assert "[bold]" in out
