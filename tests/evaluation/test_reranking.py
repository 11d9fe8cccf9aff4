"""Judging rerankers on candidates, with rerankers whose answers are known."""

import json
import random

import numpy as np
import pytest
import pytrec_eval

from colmrl.data.records import Collection, Document, Query, Records
from colmrl.errors import InputError
from colmrl.evaluation.metrics import METRICS, mean, of_orders, per_query
from colmrl.evaluation.rerank_report import rows_of, table_lines
from colmrl.evaluation.reranking import (
    Judged,
    beside,
    by_position,
    metrics_of,
    ordered,
    save_scores,
    score_all,
    scored,
    validate,
)
from colmrl.reranking.candidates import Candidates, from_run

WORDS = ["red", "blue", "green", "ring", "star", "square"]


class Overlap:
    """Scores by how many of the query's words a document has; may die after some queries."""

    name = "overlap"

    def __init__(self, dies_after: int | None = None):
        self.asked, self._dies_after = 0, dies_after

    def score(self, query, documents):
        if self.asked == self._dies_after:
            raise KeyboardInterrupt
        self.asked += 1
        words = query.text.split()
        return np.array([sum(w in one.body.split() for w in words) / 3 for one in documents], dtype=np.float32)


class FirstIsBest:
    """Nothing but position bias."""

    name = "first"

    def score(self, query, documents):
        return -np.arange(len(documents), dtype=np.float32)


@pytest.fixture(scope="module")
def world():
    """30 documents, 25 queries with graded judgements, lists of 2 to 14."""
    rng = random.Random(0)
    documents = Records.of([Document(f"d{n}", " ".join(rng.choices(WORDS, k=3))) for n in range(30)])
    queries = Records.of([Query(f"q{n}", " ".join(rng.choices(WORDS, k=2))) for n in range(25)])
    of = {query: tuple(rng.sample(documents.ids, rng.randint(2, 14))) for query in queries.ids}
    qrels = {query: {name: rng.randint(0, 2) for name in rng.sample(documents.ids, 6)} | {"d0": 1} for query in of}
    collection = Collection("made", documents, queries, {"test": qrels})
    return collection, Candidates("retrieval", "a run", of, None, qrels)


def test_metrics_of_orders_are_pytrec_evals(world):
    _collection, candidates = world
    names = ("recall_at_7", "recall_at_10", "mrr_at_10", "mrr_at_100", "map_at_10", "ndcg_at_5", "ndcg_at_10")
    ours = of_orders(candidates.of, candidates.qrels, names)
    run = {query: {name: 1 / (place + 1) for place, name in enumerate(of)} for query, of in candidates.of.items()}
    judged = {query: dict(of) for query, of in candidates.qrels.items()}
    measures = {"recall.7,10", "map_cut.10", "ndcg_cut.5,10"}
    theirs = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(run)
    whole = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"}).evaluate(run)
    for query, values in ours.items():
        kinds = {"recall": "recall", "map": "map_cut", "ndcg": "ndcg_cut"}
        for name in set(names) - {"mrr_at_10", "mrr_at_100"}:
            kind, _, k = name.partition("_at_")
            assert values[name] == theirs[query][f"{kinds[kind]}_{k}"]
        first = whole[query]["recip_rank"]
        assert values["mrr_at_100"] == first and values["mrr_at_10"] == (first if first >= 0.1 else 0)
    assert any(0 < values["mrr_at_100"] < 0.1 for values in ours.values()) and set(METRICS) >= set(per_query({}, {}))


def test_recall_is_asked_at_ten_or_as_deep_as_lists_go(world):
    assert metrics_of(world[1])[0] == "recall_at_10" and metrics_of(world[1], 5)[0] == "recall_at_5"
    short = Candidates("shown", "s", {"q0": ("a", "b", "c")}, None, {"q0": {"a": 1}})
    assert metrics_of(short)[0] == "recall_at_3"


def test_validation_orders_by_score_and_breaks_ties_as_the_candidates_came(world):
    collection, candidates = world
    expected = {
        query: sorted(
            of,
            key=lambda name: (
                -sum(
                    word in collection.documents.named(name).text.split()
                    for word in collection.queries.named(query).text.split()
                )
            ),
        )
        for query, of in candidates.of.items()
    }
    values = mean(of_orders(expected, candidates.qrels, metrics_of(candidates)))
    assert validate(Overlap(), candidates, collection) == values
    came = mean(of_orders(candidates.of, candidates.qrels, metrics_of(candidates)))
    assert validate(FirstIsBest(), candidates, collection) == came != values


def test_a_model_that_gives_no_numbers_is_said(world):
    class Broken(Overlap):
        def score(self, query, documents):
            return np.full(len(documents), np.nan, np.float32)

    with pytest.raises(InputError, match="overlap: scores of query 'q0' are not all numbers"):
        validate(Broken(), world[1], world[0])


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(world, tmp_path):
    collection, candidates = world
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    scores, seconds = score_all(Overlap(), candidates, collection, whole, "m")
    assert seconds and scores == dict(scored(Overlap(), candidates, collection))
    with pytest.raises(KeyboardInterrupt):
        score_all(Overlap(dies_after=9), candidates, collection, killed, "m")
    with killed.open("ab") as file:
        file.write(b'["q9", [0.33')  # torn by the kill
    rest = Overlap()
    again, _ = score_all(rest, candidates, collection, killed, "m")
    assert again == scores and rest.asked == len(candidates) - 9
    assert killed.read_bytes() == whole.read_bytes()
    none = Overlap(dies_after=0)
    assert score_all(none, candidates, collection, killed, "m") == (scores, None)
    killed.write_bytes(whole.read_bytes()[:20])  # within the first line
    assert score_all(Overlap(), candidates, collection, killed, "m")[0] == scores
    assert killed.read_bytes() == whole.read_bytes()


def test_scores_of_another_model_or_other_candidates_are_refused(world, tmp_path):
    collection, candidates = world
    path = tmp_path / "scores.jsonl"
    score_all(Overlap(), candidates, collection, path, "m")
    for other, stamp in ((candidates, "n"), (candidates.only(list(candidates.of)[1:]), "m")):
        with pytest.raises(InputError, match=r"scores\.jsonl: is of other candidates or another model"):
            score_all(Overlap(), other, collection, path, stamp)


def test_the_reranked_run_reads_back_in_the_reranked_order(world, tmp_path):
    collection, candidates = world
    scores = dict(scored(Overlap(), candidates, collection))
    save_scores(tmp_path / "r.trec", candidates, scores, "two words")
    read = from_run(tmp_path / "r.trec", collection, "test", 100)
    assert read.of == ordered(candidates, scores)
    assert read.scores == {query: tuple(sorted(of, reverse=True)) for query, of in scores.items()}


def test_what_stands_beside_a_model(world):
    collection, candidates = world
    names = metrics_of(candidates)
    by_name = {one.system: one for one in beside(candidates, collection, 0, names)}
    assert list(by_name) == ["first stage", "random order", "BM25"]
    assert by_name["first stage"].values == mean(of_orders(candidates.of, candidates.qrels, names))
    shown = Candidates("shown", "s", candidates.of, None, candidates.qrels)
    assert next(one.system for one in beside(shown, collection, 0, names)) == "position order"
    drawn = Candidates("ground_truth", "s", candidates.of, None, candidates.qrels)
    assert [one.system for one in beside(drawn, collection, 0, names)] == ["random order", "BM25"]


def test_random_order_is_as_good_as_chance():
    """One answer among ten: Recall@5 half, MRR the mean of 1/rank."""
    of = {f"q{n}": tuple(f"d{n}" for n in range(10)) for n in range(200)}
    qrels = {query: {"d3": 1} for query in of}
    documents = Records.of([Document(f"d{n}") for n in range(10)])
    collection = Collection("c", documents, Records.of([Query(name) for name in of]), {"test": qrels})
    (drawn,) = beside(Candidates("ground_truth", "s", of, None, qrels), collection, 0, ("recall_at_5", "mrr_at_100"))
    assert drawn.values["recall_at_5"] == pytest.approx(0.5, abs=0.03)
    assert drawn.values["mrr_at_100"] == pytest.approx(sum(1 / rank for rank in range(1, 11)) / 10, abs=0.02)


def test_position_bias_is_seen_by_position():
    names = tuple("abcde")
    of = {f"q{n}": names for n in range(10)} | {"two": names, "none": names}
    qrels = {f"q{n}": {names[n % 5]: 1} for n in range(10)} | {"two": {"a": 1, "b": 1}, "none": {"x": 1}}
    candidates = Candidates("ground_truth", "s", of, None, qrels)
    biased = by_position(candidates, dict.fromkeys(of, names), qrels)
    assert biased == [
        {"position": p, "queries": 2, "accuracy": float(p == 1), "mrr": 1 / p} for p in range(1, 6)
    ]  # of queries with two answers or none nothing is said
    right = {query: tuple(sorted(names, key=lambda name: name not in qrels[query])) for query in of}
    assert {row["accuracy"] for row in by_position(candidates, right, qrels)} == {1.0}


def test_numbers_of_different_modes_are_never_in_one_table(world):
    _, candidates = world
    one = [Judged("a", {"ndcg_at_10": 0.5, "seconds_per_query": 0.25}, {}), Judged("b", {"ndcg_at_10": 0.25}, {})]
    rows = rows_of(one, candidates, "test")
    assert table_lines(rows) == [
        ["system", "nDCG@10", "s/query"],
        ["a", "0.5000", "0.250"],
        ["b", "0.2500", ""],
    ]
    assert json.loads(json.dumps(rows)) == rows and all(row["mode"] == "retrieval" for row in rows)
    drawn = rows_of(one, Candidates("ground_truth", "s", candidates.of, None, candidates.qrels), "test")
    with pytest.raises(InputError, match="results of mode retrieval and ground_truth: cannot be compared"):
        table_lines(rows + drawn)
    with pytest.raises(InputError, match="results of protocol qilin and None"):
        table_lines(rows_of(one, candidates, "test", "qilin") + rows)
