"""Measures by hand, the randomisation test by brute force, and the files that go in and out."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bridge.errors import EvaluationError, MissingExtra
from bridge.evaluate import (
    DocumentStats,
    Evaluation,
    Judged,
    Run,
    compare,
    document_stats,
    evaluate,
    flops,
    read_judged,
    read_run,
    write_per_query,
    write_run,
)
from bridge.records import Hit, Ids, SparseVector

ir_measures = pytest.importorskip("ir_measures")
stats = pytest.importorskip("scipy.stats")


class Letters:
    """A vocabulary of the letters a to z."""

    def __len__(self) -> int:
        return 26

    def tokens(self, ids: Ids) -> tuple[str, ...]:
        return tuple(chr(ord("a") + number) for number in ids.tolist())


def vector(letters: str) -> SparseVector:
    numbers = sorted({ord(letter) - ord("a") for letter in letters})
    return SparseVector(np.array(numbers, np.int32), np.ones(len(numbers), np.float32), Letters())


def hits(*pairs: tuple[str, float]) -> list[Hit]:
    return [Hit(document, score, {}) for document, score in pairs]


def ranked(*documents: str) -> list[Hit]:
    return hits(*((document, float(100 - rank)) for rank, document in enumerate(documents)))


JUDGED = Judged(
    queries={"q1": "ab", "q2": "bc", "q3": "c", "q4": "d"},
    qrels={"q1": {"d1": 2, "d2": 1, "d3": 0}, "q2": {"d4": 1, "d5": 1}, "q3": {"d6": 1}, "q4": {"d7": 0}},
)
RESULTS: dict[str, list[Hit]] = {
    "ab": ranked("x", "d2", "d1"),
    "bc": ranked(*(f"x{n}" for n in range(10)), "d4"),
    "c": [],
    "d": ranked("d7"),
}


def evaluated(results: dict[str, list[Hit]] = RESULTS) -> tuple[Evaluation, Run]:
    return evaluate(
        JUDGED,
        results.__getitem__,
        query_vector=vector,
        document_stats=DocumentStats(10, 2.5, {"a": 0.5, "b": 0.2, "z": 1.0}),
    )


# --- measures -----------------------------------------------------------------------------------------------


def test_measures_by_hand() -> None:
    evaluation, run = evaluated()
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert evaluation.per_query["q1"] == pytest.approx(
        {"ndcg@10": (1 / math.log2(3) + 2 / math.log2(4)) / ideal, "mrr@10": 1 / 2, "recall@100": 1.0}
    )
    assert evaluation.per_query["q2"] == {"ndcg@10": 0.0, "mrr@10": 0.0, "recall@100": 0.5}
    # No results, and nothing relevant to find: both count 0 and stay in the mean.
    nothing = {"ndcg@10": 0.0, "mrr@10": 0.0, "recall@100": 0.0}
    assert evaluation.per_query["q3"] == evaluation.per_query["q4"] == nothing
    assert evaluation.measures == pytest.approx(
        {"ndcg@10": evaluation.per_query["q1"]["ndcg@10"] / 4, "mrr@10": 0.5 / 4, "recall@100": 1.5 / 4}
    )
    assert run == {"q1": RESULTS["ab"], "q2": RESULTS["bc"], "q3": [], "q4": RESULTS["d"]}


def test_costs_by_hand() -> None:
    evaluation, _ = evaluated()
    assert evaluation.active_terms == {"query": 6 / 4, "document": 2.5}
    # a is in 1 of 4 queries and half of the documents, b in 2 of 4 and a fifth; c, d and z do not meet.
    assert evaluation.flops == pytest.approx(1 / 4 * 0.5 + 2 / 4 * 0.2)


def test_as_dict_is_the_contract_of_the_command_line() -> None:
    found = json.loads(json.dumps(evaluated()[0].as_dict()))
    assert list(found) == ["ndcg@10", "mrr@10", "recall@100", "active_terms", "flops", "queries"]
    assert list(found["active_terms"]) == ["query", "document"]
    assert found["queries"] == 4


def test_the_figures_are_those_of_ir_measures_for_the_written_run(tmp_path: Path) -> None:
    # Ties, which each tool breaks in its own way, and scores that need all their digits.
    results = {
        "ab": hits(("x", 0.1 + 0.2), ("d2", 0.1 + 0.2), ("d1", 0.1 + 0.2), ("d3", 1 / 3)),
        "bc": hits(("d4", 1.0), ("x", 1.0), ("e", 1.0)),
        "c": [],
        "d": [],
    }
    evaluation, run = evaluated(results)
    write_run(run, tmp_path / "run", "test")
    measures = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "recall@100": "R@100"}
    theirs = ir_measures.calc_aggregate(
        [ir_measures.parse_measure(name) for name in measures.values()],
        JUDGED.qrels,
        ir_measures.read_trec_run(str(tmp_path / "run")),
    )
    assert evaluation.measures == pytest.approx(
        {ours: theirs[ir_measures.parse_measure(name)] for ours, name in measures.items()}
    )


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []

    def none(_text: str) -> Sequence[Hit]:
        return ()

    evaluate(
        JUDGED,
        none,
        query_vector=vector,
        document_stats=document_stats([]),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_nothing_judged_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="no judged queries"):
        evaluate(Judged({}, {}), lambda _: (), query_vector=vector, document_stats=document_stats([]))


@pytest.mark.parametrize(
    ("module", "message"),
    [("ir_measures", "evaluation needs the extra"), ("scipy", "comparing runs needs the extra")],
)
def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, module: str, message: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"{module}.stats", raising=False)
    run = {"q1": ranked("d1"), "q2": ranked("d4")}
    with pytest.raises(MissingExtra, match=message) as error:
        compare(JUDGED.qrels, run, run)
    assert "neural-sparse-bridge[eval]" in str(error.value)


def test_document_stats() -> None:
    found = document_stats([{"a": 1.0, "b": 2.0}, {"a": 0.5, "c": 0.0}, {}, {"b": 1.0}])
    assert found == DocumentStats(4, 1.0, {"a": 0.5, "b": 0.5})
    assert document_stats([]) == DocumentStats(0, 0.0, {})


def test_flops_is_the_mean_number_of_shared_terms() -> None:
    queries, documents = ["ab", "bc", "c"], ["abc", "ad", "z", "c"]
    pairs = [len(set(query) & set(document)) for query in queries for document in documents]
    shares = [document_stats(dict.fromkeys(text, 1.0) for text in texts) for texts in (queries, documents)]
    assert flops(shares[0].term_share, shares[1].term_share) == pytest.approx(sum(pairs) / len(pairs))


# --- comparing ----------------------------------------------------------------------------------------------


def runs_of(ranks_a: Sequence[int], ranks_b: Sequence[int]) -> tuple[dict[str, dict[str, int]], Run, Run]:
    """Runs with the one relevant document of each query at these ranks, so that RR is 1/rank."""

    def run(ranks: Sequence[int]) -> Run:
        return {f"q{n}": ranked(*(f"x{i}" for i in range(rank - 1)), "good") for n, rank in enumerate(ranks)}

    return {f"q{n}": {"good": 1} for n in range(len(ranks_a))}, run(ranks_a), run(ranks_b)


def test_comparison_against_every_sign_flip() -> None:
    ranks_a, ranks_b = (5, 2, 1, 4, 3, 1, 6, 2), (1, 1, 1, 2, 5, 2, 2, 1)
    row = compare(*runs_of(ranks_a, ranks_b)).rows["mrr@10"]
    a, b = np.array([1 / rank for rank in ranks_a]), np.array([1 / rank for rank in ranks_b])
    flips = [abs(np.mean((b - a) * signs)) for signs in itertools.product((1, -1), repeat=len(a))]
    exact = np.mean(np.array(flips) >= abs(np.mean(b - a)) - 1e-12)
    assert row.p_value == pytest.approx(exact)
    assert row.t_test_p == pytest.approx(stats.ttest_rel(b, a).pvalue)
    low, high = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert row.interval == pytest.approx((low, high))
    assert (row.mean_a, row.mean_b) == pytest.approx((a.mean(), b.mean()))
    assert row.difference == pytest.approx(b.mean() - a.mean())
    assert (row.wins, row.losses, row.ties) == (5, 2, 1)


def test_comparison_of_many_queries_is_sampled_and_repeatable() -> None:
    draw = np.random.default_rng(1)
    ranks = draw.integers(1, 10, (2, 60)).tolist()
    qrels, a, b = runs_of(*ranks)
    row = compare(qrels, a, b).rows["mrr@10"]
    differences = 1 / np.array(ranks[1]) - 1 / np.array(ranks[0])
    signs = np.random.default_rng(2).choice((-1, 1), (40_000, 60))
    sampled = np.mean(np.abs((signs * differences).mean(axis=1)) >= abs(differences.mean()))
    assert row.p_value == pytest.approx(sampled, abs=0.02)
    assert compare(qrels, a, b).rows["mrr@10"] == row
    assert compare(qrels, b, a).rows["mrr@10"].difference == pytest.approx(-row.difference)


def test_equal_runs() -> None:
    qrels, run, _ = runs_of((1, 2, 3), (1, 2, 3))
    comparison = compare(qrels, run, run)
    assert comparison.queries == 3
    for row in comparison.rows.values():
        assert (row.difference, row.p_value, row.t_test_p, row.interval) == (0.0, 1.0, 1.0, (0.0, 0.0))
        assert (row.wins, row.losses, row.ties) == (0, 0, 3)


def test_one_query_tells_nothing() -> None:
    row = compare(*runs_of((2,), (1,))).rows["mrr@10"]
    assert (row.difference, row.p_value, row.t_test_p) == (0.5, 1.0, 1.0)
    assert row.interval == (-math.inf, math.inf)


def test_a_query_missing_in_a_run_counts_0() -> None:
    qrels, a, b = runs_of((1, 1, 1, 1), (1, 1, 1, 1))
    del b["q0"]
    b["unjudged"] = ranked("good")
    row = compare(qrels, a, b).rows["recall@100"]
    assert (row.mean_a, row.mean_b, row.losses, row.ties) == (1.0, 0.75, 1, 3)


def test_runs_of_other_queries_are_refused() -> None:
    qrels, a, _ = runs_of((1, 1), (1, 1))
    with pytest.raises(EvaluationError, match="the second run has results for none of the 2 judged queries"):
        compare(qrels, a, {"other": ranked("good")})


# --- files --------------------------------------------------------------------------------------------------


def beir(folder: Path, queries: str, qrels: str | bytes) -> Path:
    (folder / "qrels").mkdir()
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels" / "test.tsv").write_bytes(qrels.encode() if isinstance(qrels, str) else qrels)
    return folder


QUERIES = '{"_id": "q1", "text": "one"}\n{"_id": "q2", "text": "two", "metadata": {}}\n{"_id": "q3", "text": "3"}\n'


@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n", "\ufeffquery-id\tcorpus-id\tscore\r\n"])
def test_read_judged(tmp_path: Path, header: str) -> None:
    beir(tmp_path, QUERIES, header + "q2\td1\t1\r\n\nq2\td 2\t0\nq1\td1\t-1\nq1\td1\t-1\n")
    assert read_judged(tmp_path) == Judged({"q2": "two", "q1": "one"}, {"q2": {"d1": 1, "d 2": 0}, "q1": {"d1": -1}})


def test_read_judged_with_other_queries_and_split(tmp_path: Path) -> None:
    beir(tmp_path, QUERIES, "q1\td1\t1\n")
    (tmp_path / "qrels" / "dev.tsv").write_text("q3\td1\t1\n")
    (tmp_path / "raw.jsonl").write_text('{"_id": "q3", "text": "raw"}\n')
    assert read_judged(tmp_path, tmp_path / "raw.jsonl", "dev").queries == {"q3": "raw"}


@pytest.mark.parametrize(
    ("queries", "qrels", "message"),
    [
        (QUERIES, "", "qrels/test.tsv: holds no judgements"),
        (QUERIES, "query-id\tcorpus-id\tscore\n", "qrels/test.tsv: holds no judgements"),
        (
            QUERIES,
            "q1\td1\t1\nq1 d1 1\n",
            "qrels/test.tsv:2: not three columns: query-id, corpus-id, score, tab between",
        ),
        (
            QUERIES,
            "q1\t\t1\n",
            "qrels/test.tsv:1: not three columns: query-id, corpus-id, score, tab between",
        ),
        (QUERIES, "q1\td1\t1\nq1\td2\thigh\n", "qrels/test.tsv:2: the score 'high' is not a whole number"),
        (QUERIES, "q1\td1\t0.5\n", "qrels/test.tsv:1: the score '0.5' is not a whole number"),
        (QUERIES, "q1\td1\t1\nq1\td1\t2\n", "qrels/test.tsv:2: judges d1 for q1 again, and differently"),
        (QUERIES, b"q1\td1\t1\nq\xff\td1\t2\n", "qrels/test.tsv:2: not UTF-8"),
        (
            QUERIES,
            "".join(f"x{n}\td\t1\n" for n in range(5)),
            "queries.jsonl: lacks judged queries of {0}/qrels/test.tsv: x0, x1, x2 and 2 more",
        ),
        ("", "q1\td1\t1\n", "queries.jsonl: holds no queries"),
        (
            QUERIES + "{broken\n",
            "q1\td1\t1\n",
            "queries.jsonl:4: not JSON: object keys must be strings (column 2)",
        ),
        (
            '{"text": "a"}\n',
            "q1\td1\t1\n",
            "queries.jsonl:1: no id: field _id is missing (name another with --id-field, or use --id-from content)",
        ),
        ('{"_id": "q1", "text": " "}\n', "q1\td1\t1\n", "queries.jsonl:1: its text is empty (text)"),
        (QUERIES + QUERIES, "q1\td1\t1\n", "queries.jsonl:4: the query q1 comes twice"),
    ],
)
def test_ill_formed_judgements(tmp_path: Path, queries: str, qrels: str | bytes, message: str) -> None:
    beir(tmp_path, queries, qrels)
    with pytest.raises(EvaluationError) as error:
        read_judged(tmp_path)
    assert str(error.value) == f"{tmp_path}/" + message.format(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"qrels/test\.tsv: cannot be read: No such file"):
        read_judged(tmp_path)
    beir(tmp_path, QUERIES, "q1\td1\t1\n")
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(EvaluationError, match=r"queries\.jsonl: no such file"):
        read_judged(tmp_path)
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_run(tmp_path)


def test_a_run_reads_back_equal(tmp_path: Path) -> None:
    run = {
        "q1": hits(("d1", 0.1 + 0.2), ("dé#2", 1 / 3), ("d3", 5e-324), ("d4", -1e300)),
        "q2": hits(("d1", float(np.float32(0.1)))),
    }
    write_run(run | {"q3": []}, tmp_path / "run.txt", "bridge")
    first = (tmp_path / "run.txt").read_text("utf-8").splitlines()[0]
    assert first == "q1 Q0 d1 1 0.30000000000000004 bridge"
    assert read_run(tmp_path / "run.txt") == run


def test_scores_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    write_run({"q": [Hit("d", np.float32(1.5), {})]}, tmp_path / "run", "t")  # type: ignore[arg-type]
    assert (tmp_path / "run").read_text() == "q Q0 d 1 1.5 t\n"


@pytest.mark.parametrize(
    ("run", "tag", "message"),
    [
        ({"q": ranked("a b")}, "t", "the document id 'a b' is empty or holds white space"),
        ({"q": ranked("a\u00a0b")}, "t", "the document id 'a\\xa0b' is empty or holds white space"),
        ({"q": ranked("")}, "t", "the document id '' is empty"),
        ({" q": ranked("a")}, "t", "the query id ' q' is empty or holds white space"),
        ({"q": ranked("a")}, "my run", "the tag 'my run' is empty or holds white space"),
        ({"q": hits(("a", math.nan))}, "t", "the score of a for q is nan, not a finite number"),
    ],
)
def test_runs_that_the_format_cannot_hold(tmp_path: Path, run: Run, tag: str, message: str) -> None:
    with pytest.raises(EvaluationError) as error:
        write_run(run, tmp_path / "run", tag)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": holds no results"),
        ("q Q0 d 1 1.0 t\nq Q0 d2 2 0.5\n", ":2: not the six columns of a TREC run: q Q0 d2 2 0.5"),
        ("q Q0 d 1 high t\n", ":1: the score high is not a finite number"),
        ("q Q0 d 1 inf t\n", ":1: the score inf is not a finite number"),
        ("q Q0 d 1 2 t\n\nq Q0 d 2 1 t\n", ":3: d comes twice for the query q"),
    ],
)
def test_ill_formed_runs(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run"
    path.write_text(text)
    with pytest.raises(EvaluationError) as error:
        read_run(path)
    assert str(error.value) == f"{path}{message}"


def test_per_query_file(tmp_path: Path) -> None:
    write_per_query(evaluated()[0], tmp_path / "queries.tsv")
    rows = [line.split("\t") for line in (tmp_path / "queries.tsv").read_text().splitlines()]
    assert rows[0] == ["query-id", "ndcg@10", "mrr@10", "recall@100"]
    assert rows[2] == ["q2", "0.0", "0.0", "0.5"]
    assert len(rows) == 5


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be written: No such file or directory"):
        write_run({"q": ranked("a")}, tmp_path / "gone" / "run", "t")
    odd = Evaluation({}, {"a\tb": {}}, {}, 0.0, 1)
    with pytest.raises(EvaluationError, match="holds a tab"):
        write_per_query(odd, tmp_path / "per-query.tsv")
