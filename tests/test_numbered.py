"""Terms as numbers: the way over tables and arrays gives what the analyzer gives, word by word."""

from __future__ import annotations

import random
import threading
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.encode import numbered
from bridge.encode.analysis import WordAnalyzer, parted
from bridge.encode.numbered import NumberedWords
from bridge.encode.runtable import LONGEST, UNKNOWN, Runs, RunTable

# --- The table ------------------------------------------------------------------------------------------------------

Run = st.binary(min_size=1, max_size=LONGEST + 4).map(lambda run: run.translate(None, b"\0 ") or b"x")


def looked_up(table: RunTable, runs: Sequence[bytes]) -> list[int]:
    found: list[int] = table.get(Runs([b" ".join(runs)])).tolist()
    return found


@settings(deadline=None)
@given(st.lists(st.lists(Run, max_size=30), max_size=5))
def test_runs_of_several_texts(texts: list[list[bytes]]) -> None:
    runs = Runs([b" ".join(text) for text in texts])
    assert len(runs) == sum(map(len, texts))
    assert runs.counts.tolist() == list(map(len, texts))
    assert runs.at(np.arange(len(runs))) == [run for text in texts for run in text]
    first, second = runs.halves()
    for place, run in enumerate(run for text in texts for run in text):
        held = run[:LONGEST].ljust(LONGEST, b"\0")
        assert int(first[place]).to_bytes(8, "little") + int(second[place]).to_bytes(8, "little") == held


def test_blanks_anywhere_are_between_runs() -> None:
    runs = Runs([b"", b"  a  b ", b" ", b"c"])
    assert runs.counts.tolist() == [0, 2, 0, 1]
    assert runs.at(np.ones(3, bool)) == [b"a", b"b", b"c"]
    assert len(Runs([])) == len(Runs([b""])) == 0


@settings(deadline=None)
@given(st.lists(st.dictionaries(Run, st.integers(UNKNOWN + 1, 2**31 - 1), max_size=30), max_size=5))
def test_a_table_gives_what_was_put_there_first(portions: list[dict[bytes, int]]) -> None:
    table, known = RunTable(), dict[bytes, int]()
    for portion in portions:
        table.put({run: number for run, number in portion.items() if len(run) <= LONGEST})
        known = portion | known
        runs = list(known)
        assert looked_up(table, runs) == [known[run] if len(run) <= LONGEST else UNKNOWN for run in runs]
    assert len(table) == sum(len(run) <= LONGEST for run in known)


def test_a_table_grows() -> None:
    table, runs = RunTable(), [b"%d" % number for number in range(20_000)]
    for start in range(0, len(runs), 1000):
        table.put({run: int(run) for run in runs[start : start + 1000]})
        assert looked_up(table, runs) == [number if number < start + 1000 else UNKNOWN for number in range(20_000)]
    assert len(table) == 20_000


@pytest.mark.parametrize("factor", [0, 2**64 - 1])
def test_runs_that_all_collide(factor: int) -> None:
    """At the table's beginning, and at its end."""
    table, runs = RunTable(), {b"r%d" % number: number for number in range(300)}
    table._factors = [np.uint64(factor), np.uint64(0)]
    table.put(runs)
    table.put({run: -number for run, number in runs.items()})
    assert looked_up(table, [*runs, b"r300", b"other"]) == [*runs.values(), UNKNOWN, UNKNOWN]


def test_no_two_tables_collide_alike() -> None:
    assert len({int(factor) for _ in range(5) for factor in RunTable()._factors}) == 10


# --- Terms ----------------------------------------------------------------------------------------------------------

ENGLISH = "The cats' get_HTTPResponse strange\0dogs 2024 naïve ÉTUDE __init__ _ '' e-mail don't a camelCaseWord"
OTHERS = "字 学而时习之 ไทย café\u0301 \ud800 exactly16bytes__ exactly_17_bytes_ 学而时习之不亦说乎有朋自远方来不亦乐乎"
WORDS = [*ENGLISH.split(" "), *OTHERS.split(" "), "x" * 30, *(f"word{number}" for number in range(50))]


class Numbers:
    """Numbers for what an index does not list, as an overlay on it gives them."""

    def __init__(self, index: dict[str, int]) -> None:
        self.given = dict(index)
        self.asked: list[str] = []

    def __call__(self, terms: list[str]) -> list[int]:
        self.asked += terms
        return [self.given.setdefault(term, len(self.given)) for term in terms]


def check(words: NumberedWords, analyzer: WordAnalyzer, index: dict[str, int], texts: list[str]) -> None:
    others = Numbers(index)
    numbers, places = words.of(texts, others)
    terms = {number: term for term, number in others.given.items()}
    read = analyzer.terms(texts)
    assert [terms[number] for number in numbers.tolist()] == [term for text in read for term in text]
    assert places.tolist() == [place for place, text in enumerate(read) for _ in text]
    new = dict.fromkeys(term for text in read for term in text if term not in index)
    assert others.asked == list(new)


@pytest.fixture
def analyzer() -> WordAnalyzer:
    return WordAnalyzer("english")


@pytest.fixture
def index(analyzer: WordAnalyzer) -> dict[str, int]:
    listed = sorted({term for word in WORDS[::2] for term in analyzer.terms([word])[0]})
    return {term: number for number, term in enumerate(listed)}


@pytest.mark.parametrize("few", [0, 10**9], ids=["array by array", "word by word"])
def test_they_are_the_terms(
    analyzer: WordAnalyzer, index: dict[str, int], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbered, "_FROM_BYTES", few)
    words = NumberedWords(analyzer, index)
    choose = random.Random(0)
    for size in (0, 1, 3, 50, 400, 400):
        texts = [" ".join(choose.choices(WORDS, k=choose.choice([0, 1, 20]))) for _ in range(size)]
        check(words, analyzer, index, ["", *texts, " "])


def test_long_texts_are_taken_in_portions(
    analyzer: WordAnalyzer, index: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbered, "_PORTION", 5000)
    choose = random.Random(0)
    texts = [" ".join(choose.choices(WORDS, k=k)) for k in (10, 3000, 0, 1, 900, 10, 10, 700)]
    texts += ["x" * 12_000, "", "y " + "z" * 9000]
    check(NumberedWords(analyzer, index), analyzer, index, texts)


def test_memory_is_a_portions() -> None:
    words = NumberedWords(WordAnalyzer("english"), {"word": 0})
    words.of(["word " * 10_000], lambda new: [])
    text = "word " * 2_000_000
    tracemalloc.start()
    numbers, _ = words.of([text], lambda new: [])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert numbers.tolist() == [0] * 2_000_000
    # The text in bytes twice, and a number and a place for each word a few times.
    assert peak < 2 * len(text) + 5 * 8 * 2_000_000 + 40 * numbered._PORTION


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text(alphabet=st.sampled_from("aB1_'’.,=-/ \n\0éßЖ̸́̈字仮ไทยक्षि½ﬁ™①🙂\u2028\u00a0\ud800"), max_size=40))
)
def test_any_texts(texts: list[str]) -> None:
    analyzer, index = WordAnalyzer("english"), {"a": 0, "é": 1, "字": 2}
    words = NumberedWords(analyzer, index)
    known = words._known
    for _ in range(2):
        check(words, analyzer, index, texts)
        numbers, places = known.of_many(list(map(parted, texts)))
        alone, there = known.of_few(list(map(parted, texts)))
        assert numbers.tolist() == alone.tolist()
        assert places.tolist() == there.tolist()


@pytest.mark.parametrize("few", [0, 10**9])
def test_what_is_remembered_is_bounded(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbered, "_FROM_BYTES", few)
    monkeypatch.setattr(numbered, "_REMEMBERED", 100)
    words = NumberedWords(WordAnalyzer("english"), {})
    for i in range(500):
        numbers, _ = words.of([f"word{i} other"], lambda new: list(range(len(new))))
        assert numbers.tolist() == [0, 1]
    assert len(words._known.others) <= 102


def test_words_that_the_index_lists_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbered, "_REMEMBERED", 500)
    words = NumberedWords(WordAnalyzer(None), {"word": 0})
    tracemalloc.start()
    for start in range(0, 40_000, 500):
        # Each run gives three terms, or is one that was never there before.
        texts = [f"word_{number}" for number in range(start, start + 500)]
        words.of(texts, lambda new: list(range(1, 1 + len(new))))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_threads_share_them(analyzer: WordAnalyzer, index: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbered, "_REMEMBERED", 600)
    words = NumberedWords(analyzer, index)
    begin = threading.Barrier(8)

    def work(seed: int) -> None:
        choose = random.Random(seed)
        begin.wait()
        for number in range(30):
            mine = [f"own{seed}x{number}y{choose.randrange(20)}" for _ in range(10)]
            texts = [" ".join(choose.choices(WORDS + mine, k=20)) for _ in range(60)]
            check(words, analyzer, index, texts)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
