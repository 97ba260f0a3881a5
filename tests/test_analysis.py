"""Text ─▶ terms: words of any script, and identifiers."""

from __future__ import annotations

import tracemalloc
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.encode import analysis
from bridge.encode.analysis import MAX_TERM_LENGTH, STEMMERS, WordAnalyzer, fold_accents, stemmer_for


def terms(text: str, language: str | None = None) -> list[str]:
    return WordAnalyzer(stemmer_for(language)).terms([text])[0]


def meet(one: str, other: str, language: str | None = None) -> bool:
    """Whether a query of one finds the other."""
    return bool(terms(one, language)) and terms(one, language) == terms(other, language)


# --- Languages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "The cats' running wasn't John's", "the cat run wasn john"),
        ("yo", "Ẹ̀kọ́ ni ó ṣe pàtàkì jù, ọmọ Yorùbá", "eko ni o se pataki ju omo yoruba"),
        ("fr", "L’élève n'aime pas les œuvres d’art françaises", "elev aim pas le œuvr art franc"),
        ("de", "Die Häuser der Straße", "die haus der strass"),
        ("hi", "हिन्दी भाषा की किताबें", "हिन्द भाष क किताब"),
        ("ar", "الكتاب على الطاولة ١٢٣", "كتاب علي طاول 123"),
        ("th", "ภาษาไทย", "ภา าษ ษา าไ ไท ทย"),
        ("zh", "我爱北京", "我 爱 北 京 我爱 爱北 北京"),
        ("ja", "東京タワーへ。カタカナ", "東 京 東京 京タ タワ ワー ーへ カタ タカ カナ"),
        ("ko", "한국어 검색은 재미있다", "한국어 검색은 재미있다"),
        ("el", "Οδυσσεύς", "οδυσσε"),
        ("ru", "Книгами ёлка", "книг елк"),
        ("my", "မြန်မာ", "မြန် န်မ မာ"),
    ],
)
def test_terms_of_a_language(language: str, text: str, expected: str) -> None:
    assert terms(text, language) == expected.split()


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("en", "running", "RUN"),
        ("yo", "ẹ̀kọ́", "eko"),
        ("yo", "e\u0323\u0300ko\u0323\u0301", "\u1eb9\u0300k\u1ecd\u0301"),
        ("fr", "l’élève", "ELEVES"),
        ("fr", "aujourd'hui", "aujourd’hui"),
        ("de", "Straße", "STRASSE"),
        ("de", "Häuser", "haus"),
        ("hi", "किताबें", "किताब"),
        ("ar", "والكُتُب", "والكتب"),
        ("el", "Οδυσσεύς", "ΟΔΥΣΣΕΥΣ"),
        ("ru", "книги", "книгами"),
        ("zh", "ＡＢＣ１２３", "abc123"),
        ("ja", "ｶﾀｶﾅ", "カタカナ"),
        (None, "ﬁne", "fine"),
        (None, "café", "cafe\u0301"),
    ],
)
def test_spellings_of_one_word_meet(language: str | None, one: str, other: str) -> None:
    assert meet(one, other, language)


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [(None, "कि", "का"), ("th", "ไม่", "ไม"), (None, "10", "100"), ("ta", "தமிழ்", "தமிழி"), ("ja", "か", "が")],
)
def test_marks_that_carry_meaning_keep_words_apart(language: str | None, one: str, other: str) -> None:
    assert not meet(one, other, language)


def test_a_word_inside_of_an_unspaced_text_is_found_by_its_pairs() -> None:
    for text, word in (("我爱北京天安门", "北京"), ("東京タワーへ行きました", "タワー"), ("ภาษาไทยไม่มีช่องว่าง", "ไทย")):
        assert set(terms(word)) <= set(terms(text))


def test_one_unspaced_character_is_a_term_and_a_spaced_script_beside_it_another() -> None:
    assert terms("の") == ["の"]
    assert terms("iPhone15で買う") == ["i", "phone", "15", "iphone15", "買", "で買", "買う"]


def test_fold_accents_takes_accents_and_no_other_marks() -> None:
    assert fold_accents("ẹ̀kọ́ ñ ü") == "eko n u"
    assert fold_accents("हिन्दी ไม่ שָׁלוֹם が") == "हिन्दी ไม่ שָׁלוֹם が"


# --- Identifiers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("camelCase", "camel case camelcase"),
        ("snake_case", "snake case snakecase"),
        ("SCREAMING_CASE", "screaming case screamingcase"),
        ("HTTPServer", "http server httpserver"),
        ("getHTTPResponse_code", "get http response code gethttpresponsecode"),
        ("parseXML2JSON", "parse xml 2 json parsexml2json"),
        ("__init__", "init"),
        ("node.js", "node js"),
        ("utf8 x1 i18n", "utf8 x1 i18n"),
        ("np.zeros((3, 4))", "np zeros 3 4"),
        ("größteZahl", "großte zahl großtezahl"),
        ("C++ & C#", "c c"),
    ],
)
def test_identifiers_give_their_parts_and_the_whole(text: str, expected: str) -> None:
    assert terms(text) == expected.replace("ß", "ss").split()


@pytest.mark.parametrize("query", ["http response", "HTTPResponse", "get_http_response", "getHTTPResponse"])
def test_an_identifier_is_found_by_any_of_its_spellings(query: str) -> None:
    assert set(terms(query)) & set(terms("def getHTTPResponse(self):")) >= {"http", "response"}


# --- Rules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " \n\t", "...", "!?-–—", "😀👍🏽", "\u0301\u0301", "_ __ ___"])
def test_a_text_without_words_has_no_terms(text: str) -> None:
    assert terms(text) == []


@pytest.mark.parametrize("text", ["a.b", ".net", "3.14", "x...y", "e.g. this", "․ ‥ …", "www.example.org"])
def test_no_term_holds_a_dot_or_is_empty(text: str) -> None:
    assert all(term and not set(term) & set(".․‥") for term in terms(text))


def test_repeats_are_kept_in_reading_order() -> None:
    assert terms("b a b c a") == ["b", "a", "b", "c", "a"]


def test_a_long_run_is_cut_and_still_found() -> None:
    (term,) = terms("x" * 100_000)
    assert term == "x" * MAX_TERM_LENGTH
    assert meet("x" * 100_000, "X" * 100_000)


def test_ascii_has_the_words_that_it_has_among_other_letters() -> None:
    """ASCII takes a faster way; both must agree."""
    text = "It's John's getHTTPResponse_code(3.14) __init__ a_b O'Neil's 'quoted' x1 e-mail don't 'tis rock'n'roll _x1_"
    assert analysis._ASCII_WORD.findall(text) == analysis._WORD.findall(text)


LETTERS = "aB1_'’.,=-/ \n\0éßЖ̸́̈字仮ไทยक्षি½ﬁ™①🙂\u2028\u00a0\ud800"


def whole_words(text: str) -> list[str]:
    return analysis._WORD.findall(unicodedata.normalize("NFKC", text))


@settings(max_examples=2000, deadline=None)
@given(st.text(alphabet=st.sampled_from(LETTERS), max_size=40) | st.text(max_size=40))
def test_words_of_the_runs_of_a_text_are_the_words_of_the_text(content: str) -> None:
    runs = [run.decode("utf-8", "surrogatepass") for run in analysis.parted(content).split()]
    assert [word for run in runs for word in analysis._words(run)] == whole_words(content)


def test_a_sentence_without_spaces_is_analyzed_by_its_words() -> None:
    sentence = "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？" * 5
    assert terms(sentence) == [term for word in whole_words(sentence) for term in terms(word)]


def test_texts_of_a_batch_do_not_touch_each_other() -> None:
    analyzer = WordAnalyzer("english")
    assert analyzer.terms(["cats", "", "dogs"]) == [["cat"], [], ["dog"]]
    assert analyzer.terms(["cats"]) == [["cat"]]


def test_words_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "_CACHED_RUNS", 100)
    analyzer = WordAnalyzer("english")
    tracemalloc.start()
    for i in range(20_000):
        assert analyzer.terms([f"word{i:09}"]) == [[f"word{i:09}"]]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


# --- Stemmers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "stemmer"),
    [
        ("en", "english"),
        ("EN", "english"),
        ("de-AT", "german"),
        ("nb", "norwegian"),
        ("yo", None),
        ("zh", None),
        (None, None),
    ],
)
def test_a_language_has_its_stemmer_or_none(language: str | None, stemmer: str | None) -> None:
    assert stemmer_for(language) == stemmer


def test_every_stemmer_of_the_table_stems_or_is_not_in_this_release() -> None:
    usable = [language for language in STEMMERS if stemmer_for(language)]
    assert len(usable) >= 25
    for language in usable:
        assert terms("test", language)
