"""What is answered to questions that cannot be asked as they are; `docs/queries.md` prints the table of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.engines import Engine
from bridge.errors import BridgeError, ModelFormatError, ModelMismatch, RequestRejected, UsageError
from bridge.fit import FitOptions, fit
from bridge.hybrid import read_hybrid
from bridge.ingest import IngestOptions, ingest
from bridge.rewrite import QueryRewriter
from bridge.search import search
from bridge.sources import open_source

pytestmark = pytest.mark.node


@dataclass(frozen=True)
class Answer:
    """What is said, or done, and the error that it comes with."""

    said: str
    error: type[BridgeError] | None = None

    @property
    def row(self) -> str:
        if self.error is None:
            return self.said
        return f"`{self.error.__name__}` (exit code {self.error.exit_code}): “{self.said}”"


ANSWERS = {
    "a model that the index's vectors are not of": Answer(
        "holds vectors of … and is asked by …; the model … is …. Use the index's own model", ModelMismatch
    ),
    "a field that the index does not have": Answer(
        "has no sparse vector field 'nothing'; those that it has: embedding", UsageError
    ),
    "a search pipeline that is not there": Answer(
        "Pipeline … is not defined; put it there (bridge register puts an index's own), or name another one",
        RequestRejected,
    ),
    "more tokens than an engine takes": Answer(
        "The 1,000 heaviest are asked for, fewer beside a long filter; `EncodedQuery.dropped` counts the others, and "
        "the commands say so."
    ),
    "a filter of too many clauses": Answer("maxClauseCount is set to 1024", RequestRejected),
    "weights above 64, with `neural_sparse`": Answer(
        "All are scaled by a power of two, and the boost undoes it: the scores stay the same."
    ),
    "a table with a weight that is no finite number": Answer(
        "… holds weights that are not finite numbers", ModelFormatError
    ),
    "a table with a weight of zero, or below": Answer("The token is never asked for."),
    "nothing, or blanks": Answer("the query is empty", UsageError),
    "bytes that are no Unicode text": Answer("the query is not Unicode text", UsageError),
    "only function words (\"what is it\")": Answer(
        "A lexical model asks for them, since there is nothing else; a table of weights asks for what it gives them."
    ),
    "only tokens that the model does not know": Answer(
        "No error: the query is `match_none`, there are no hits, and the commands say why. The other parts of a hybrid "
        "search are asked."
    ),
}  # fmt: skip
"""What is asked ─▶ the answer; an ellipsis stands for names."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    fit(["the moon and the tides", "what is it about bread"], tmp_path / "model", FitOptions(language="en"))
    return tmp_path / "model"


@pytest.fixture
def filled(engine: Engine, index: str, model: Path, tmp_path: Path) -> str:
    rows = [{"_id": "1", "text": "the moon and the tides"}, {"_id": "2", "text": "what is it about bread"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_source([str(tmp_path / "a.jsonl")]) as source:
        ingest(engine, index, source, IngestOptions(model=str(model), dead_letter=tmp_path / "dead"))
    return index


def refused(what: str, ask: Callable[[], Any]) -> None:
    answer = ANSWERS[what]
    assert answer.error is not None
    with pytest.raises(answer.error) as caught:
        ask()
    place = 0
    for piece in answer.said.split("…"):
        assert piece in str(caught.value)[place:], str(caught.value)
        place = str(caught.value).index(piece, place) + len(piece)


def test_a_wrong_model_and_an_unknown_field(engine: Engine, filled: str, tmp_path: Path) -> None:
    fit(["another corpus altogether"], tmp_path / "other")
    refused(
        "a model that the index's vectors are not of",
        lambda: QueryRewriter.for_index(engine, filled, model=str(tmp_path / "other")),
    )
    refused("a field that the index does not have", lambda: QueryRewriter.for_index(engine, filled, fields=["nothing"]))


def test_a_missing_pipeline(engine: Engine, filled: str) -> None:
    rewriter = QueryRewriter.for_index(engine, filled, hybrid=read_hybrid("bm25", pipeline="gone"))
    refused("a search pipeline that is not there", lambda: search(engine, filled, rewriter, "moon"))
    # As where an index's own was deleted.
    engine.put_settings(filled, {"index.search.default_pipeline": "gone"})
    plain = QueryRewriter.for_index(engine, filled)
    refused("a search pipeline that is not there", lambda: search(engine, filled, plain, "moon"))


def test_too_many_clauses(engine: Engine, filled: str) -> None:
    rewriter = QueryRewriter.for_index(engine, filled)
    found = search(engine, filled, rewriter, "moon " + " ".join(f"word{number}" for number in range(3000)))
    assert (found.query.dropped, len(found.query.sparse or ())) == (2001, 1000)
    many = {"bool": {"should": [{"term": {"text": str(number)}} for number in range(2000)]}}
    refused("a filter of too many clauses", lambda: search(engine, filled, rewriter, "moon", filter=many))


def table(folder: Path, shared: Path, weights: dict[str, float]) -> Path:
    folder.mkdir()
    (folder / "tokenizer.json").symlink_to(shared / "bert-uncased" / "tokenizer.json")
    (folder / "idf.json").write_text(json.dumps(weights))
    return folder


def test_weights_out_of_range(engine: Engine, filled: str, tmp_path: Path, shared: Path) -> None:
    heavy = QueryRewriter.load(table(tmp_path / "heavy", shared, {"moon": 1000.0, "bread": 0.5}))
    light = QueryRewriter.load(table(tmp_path / "light", shared, {"moon": 10.0, "bread": 0.005}))
    scores = [{hit.id: hit.score for hit in search(engine, filled, one, "moon bread").hits} for one in (heavy, light)]
    assert scores[0] == pytest.approx({name: 100 * score for name, score in scores[1].items()}, rel=1e-6)
    without = QueryRewriter.load(table(tmp_path / "without", shared, {"moon": 0.0, "bread": -1.0, "the": 2.0}))
    assert [hit.id for hit in search(engine, filled, without, "moon bread the").hits] == ["1"]
    folder = table(tmp_path / "wrong", shared, {"moon": 1e39})
    refused("a table with a weight that is no finite number", lambda: QueryRewriter.load(folder))


def test_questions_without_anything_to_ask_for(engine: Engine, filled: str, shared: Path) -> None:
    rewriter = QueryRewriter.for_index(engine, filled)
    for text in ("", " \n\t"):
        refused("nothing, or blanks", lambda text=text: search(engine, filled, rewriter, text))
    refused("bytes that are no Unicode text", lambda: search(engine, filled, rewriter, "moon \udcff"))
    assert [hit.id for hit in search(engine, filled, rewriter, "what is it").hits] == ["2"]
    pieces = QueryRewriter.load(shared / "bert-uncased")
    for one, text in ((rewriter, "?!"), (pieces, "\U0001fae0")):
        assert search(engine, filled, one, text).hits == ()
        assert one.rewrite(text)["query"] == {"match_none": {}}


def test_the_commands_say_it(bridge: Callable[..., tuple[int, str, str]], filled: str, opensearch_url: str) -> None:
    code, _, err = bridge("search", filled, "?!", url=opensearch_url)
    assert code == 0
    assert "the text has no token that could be asked for: the query matches nothing" in err
    code, _, err = bridge("search", filled, " ".join(f"word{n}" for n in range(1500)), url=opensearch_url)
    assert code == 0
    assert "500 of the lightest tokens were dropped" in err
    assert bridge("search", filled, " ", url=opensearch_url)[0] == UsageError.exit_code
