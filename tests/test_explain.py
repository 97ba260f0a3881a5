"""Where a hit's tokens stand in its text, and what is shown of them."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import load_encoder
from bridge.encode.analysis import WordAnalyzer
from bridge.encode.lookup import LookupEncoder
from bridge.explain import Explained, explained, from_engine, marks, page
from bridge.fit import FitOptions, fit
from bridge.offsets import Span
from bridge.records import Hit, PassageHit, TokenScore
from bridge.rewrite import QueryRewriter

Bridge = Callable[..., tuple[int, str, str]]
Fails = Callable[..., str]

TEXT = "The Moon's tides; naïve getUserName (東京都) rise. <b>Tides</b> again."


def placed(text: str, spans: list[Span]) -> list[tuple[str, str]]:
    return [(span.token, text[span.start : span.end]) for span in spans]


def test_words_stand_where_they_were_made_from() -> None:
    found = placed(TEXT, WordAnalyzer("english").spans(TEXT))
    words = [("moon", "Moon's"), ("tide", "tides"), ("naiv", "naïve"), ("user", "getUserName"), ("tide", "Tides")]
    characters = [("東", "東"), ("京", "京"), ("都", "都"), ("東京", "東京"), ("京都", "京都")]
    assert set(found) >= {*words, *characters}


@given(st.text(max_size=200))
def test_a_span_holds_what_its_term_is_made_from(text: str) -> None:
    analyzer = WordAnalyzer("english")
    for span in analyzer.spans(text):
        assert 0 <= span.start < span.end <= len(text)
        assert span.token in analyzer.terms([text[span.start : span.end]])[0]


@given(st.text(st.characters(max_codepoint=127), max_size=200))
def test_every_term_has_its_place(text: str) -> None:
    analyzer = WordAnalyzer("english")
    assert [span.token for span in analyzer.spans(text)] == analyzer.terms([text])[0]


def test_word_pieces_stand_where_the_tokenizer_says(shared: Path) -> None:
    encoder = LookupEncoder(shared / "bert-uncased")
    text = "Überweisung: tokenization of NY 🙂"
    found = placed(text, encoder.spans(text))
    assert ("token", "token") in found
    assert ("##ization", "ization") in found
    assert ("ny", "NY") in found
    assert found[0][1].startswith("Ü")
    assert all(token != "[UNK]" for token, _ in found)


def test_marks_are_of_matches_and_do_not_overlap() -> None:
    spans = [Span("ab", 0, 2), Span("bc", 1, 3), Span("x", 4, 5), Span("ab", 6, 8), Span("empty", 9, 9)]
    matches = [TokenScore("ab", 2.0, 1.0), TokenScore("bc", 1.0, 0.5), TokenScore("empty", 1.0, 1.0)]
    first, second = marks(spans, matches)
    assert (first.start, first.end, [token.token for token in first.tokens]) == (0, 3, ["ab", "bc"])
    assert (second.start, second.end, second.contribution) == (6, 8, 2.0)


def leaf(name: str, weight: float, value: float) -> dict[str, object]:
    details = [
        {"value": weight, "description": "w, weight of this function", "details": []},
        {"value": value, "description": "S, feature value", "details": []},
    ]
    said = f"Linear function on the embedding field for the {name} feature, computed as w * S from:"
    return {"value": weight * value, "description": said, "details": details}


def test_the_engines_explanation_is_read_at_any_depth() -> None:
    tree = {"value": 0, "description": "sum of:", "details": [
        {"value": 0, "description": "sum of:", "details": [leaf("sun", 3.0, 2.0), leaf("u․s", 1.0, 4.0)]},
        leaf("sun", 1.5, 2.0), leaf("e.g.", 1.0, 1.0),
        {"value": 0.0, "description": "match on required clause, product of:", "details": []},
    ]}  # fmt: skip
    found = from_engine(tree, {"sun": 3.0})
    assert [(one.token, one.query_weight, one.contribution) for one in found] == [
        ("sun", 3.0, 9.0), ("u.s", 1.0, 4.0), ("e.g.", 1.0, 1.0)
    ]  # fmt: skip
    assert from_engine({"value": 1.0, "description": "something else"}, {}) == ()


class Text(HTMLParser):
    """The text of a page, and that of its marks."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.marked, self._inside = "", [], False

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self._inside = tag == "mark" or self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "mark"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside:
            self.marked.append(data)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=80), st.data())
def test_the_page_shows_any_text_as_it_is(text: str, data: st.DataObject) -> None:
    ends = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = [Span("<t>", start, end) for start, end in zip(ends[::2], ends[1::2], strict=False)]
    matches = (TokenScore("<t>", 1.0, 2.0),)
    hit = Explained(2.0, matches, text, marks(spans, matches))
    parser = Text()
    parser.feed(hit.as_html())
    parser.close()
    assert parser.text == text
    assert "".join(parser.marked) == "".join(text[span.start : span.end] for span in spans)
    assert "<t>" not in page("<t>", "<t>", [("<t>", hit)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "lexical"
    fit(["the tides of the moon rise", "bread rises in the warm kitchen"], folder, FitOptions(language="en"))
    return folder


def test_a_hit_is_explained_by_its_text_or_its_best_passage(model: Path) -> None:
    rewriter = QueryRewriter.load(model, text_fields=["text"])
    matches = (TokenScore("tide", 1.0, 2.0), TokenScore("sea", 1.0, 0.5))
    hit = Hit("1", 2.5, {"text": TEXT}, matches)
    why = explained(hit, rewriter)
    assert [TEXT[mark.start : mark.end] for mark in why.marks] == ["tides", "Tides"]
    found = why.as_dict()
    assert json.loads(json.dumps(found)) == found
    assert [one["words"] for one in found["tokens"]] == [[[11, 16], [51, 56]], []]
    inner = PassageHit(2.5, "Low tide.", 40, 49, matches=matches)
    best = explained(Hit("1", 2.5, {"text": TEXT}, matches, (inner,)), rewriter)
    assert (best.text, best.marks[0].start, best.marks[0].end) == ("Low tide.", 4, 8)
    unknown = explained(Hit("1", 2.5, {"other": "x"}, matches), rewriter)
    assert (unknown.text, unknown.marks, unknown.as_html()) == (None, (), "")


def test_the_command_shows_it(
    bridge: Bridge, fails: Fails, index: str, opensearch_url: str, tmp_path: Path, model: Path
) -> None:
    rows = [{"_id": "1", "text": "The tides rise with the moon."}, {"_id": "2", "text": "Bread & <butter>: it rises."}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert bridge("ingest", index, "a.jsonl", "--model", str(model), url=opensearch_url)[0] == 0
    asked = ["search", index, "rising bread"]
    told = {}
    for by in ("vectors", "engine"):
        out = bridge(*asked, "--explain", "--explained-by", by, "--json", url=opensearch_url)[1]
        hits = json.loads(out)["hits"]
        assert [hit["id"] for hit in hits] == ["2", "1"]
        told[by] = [hit["explanation"]["tokens"] for hit in hits]
        assert sum(one["contribution"] for one in told[by][0]) == pytest.approx(hits[0]["score"], rel=1e-6)
        text = hits[0]["explanation"]["text"]
        words = {one["token"]: [text[start:end] for start, end in one["words"]] for one in told[by][0]}
        assert words == {"bread": ["Bread"], "rise": ["rises"]}
    for one, other in zip(*told.values(), strict=True):
        assert [token["token"] for token in one] == [token["token"] for token in other]
        assert [token["contribution"] for token in one] == pytest.approx([token["contribution"] for token in other])
    code, out, _ = bridge(*asked, "--explain", "--html", "why.html", url=opensearch_url)
    assert code == 0
    assert "in the text" in out
    written = (tmp_path / "why.html").read_text("utf-8")
    assert written.count("<mark") == 3
    assert html.escape("& <butter>: it ") in written
    assert "cannot be written" in fails(2, *asked, "--html", "no/such/folder.html", url=opensearch_url)


def test_every_encoder_says_where_its_tokens_stand(model: Path, shared: Path) -> None:
    for folder in (model, shared / "bert-uncased"):
        encoder = load_encoder(folder)
        assert encoder.spans("") == []
        assert [span.start for span in encoder.spans("moon tide")] == [0, 5]
