import math

import numpy as np
import pytest
import pytrec_eval

from colmrl.evaluation.metrics import METRICS, mean, per_query


def test_a_case_worked_by_hand():
    run = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}, "r": {"a": 1.0}}
    qrels = {"q": {"b": 1, "c": 2, "z": 1}, "r": {"b": 1}, "s": {"a": 1}}  # s was never searched
    values = per_query(run, qrels)
    gain = (1 / math.log2(3) + 2 / math.log2(4)) / (2 + 1 / math.log2(3) + 1 / math.log2(4))
    assert values["q"]["ndcg_at_5"] == pytest.approx(gain)
    assert values["q"]["ndcg_at_1"] == 0 and values["q"]["mrr_at_10"] == 0.5
    assert values["q"]["recall_at_5"] == pytest.approx(2 / 3)
    assert values["q"]["map_at_10"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert set(values["r"].values()) == set(values["s"].values()) == {0.0}
    assert mean(values)["mrr_at_10"] == pytest.approx(0.5 / 3)


def test_metrics_equal_pytrec_evals_on_random_runs():
    rng = np.random.default_rng(0)
    names = [f"d{n}" for n in range(40)]
    run = {f"q{q}": dict(zip(names, rng.integers(0, 12, 40).astype(float), strict=True)) for q in range(30)}  # ties
    qrels = {f"q{q}": {str(n): int(g) for n, g in zip(names, rng.integers(0, 3, 40), strict=True)} for q in range(30)}
    reference = pytrec_eval.RelevanceEvaluator(
        qrels, {"ndcg_cut.1,5,10", "recall.5,10", "map_cut.10", "recip_rank"}
    ).evaluate(run)
    ours = per_query(run, qrels)
    for query, theirs in reference.items():
        for k in (1, 5, 10):
            assert ours[query][f"ndcg_at_{k}"] == pytest.approx(theirs[f"ndcg_cut_{k}"])
        for k in (5, 10):
            assert ours[query][f"recall_at_{k}"] == pytest.approx(theirs[f"recall_{k}"])
        assert ours[query]["map_at_10"] == pytest.approx(theirs["map_cut_10"])
        whole = theirs["recip_rank"]
        assert ours[query]["mrr_at_10"] == pytest.approx(whole if whole >= 0.1 else 0)
    assert set(ours["q0"]) == set(METRICS)


def test_the_eleventh_rank_counts_for_no_reciprocal():
    run = {"q": {f"d{n:02d}": 100.0 - n for n in range(20)}}
    assert per_query(run, {"q": {"d10": 1}})["q"]["mrr_at_10"] == 0
    assert per_query(run, {"q": {"d09": 1}})["q"]["mrr_at_10"] == pytest.approx(0.1)
