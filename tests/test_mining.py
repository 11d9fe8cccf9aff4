import json

import numpy as np
import pytest
from conftest import search_store

from colmrl.data.beir import read_corpus, read_qrels, read_queries
from colmrl.data.records import relevant
from colmrl.data.triples import read_triples
from colmrl.errors import InputError
from colmrl.mining import choose_negatives, mine, report_path
from colmrl.search import Ranking
from colmrl.store import EmbeddingStore
from colmrl.view import View


@pytest.fixture
def judged(sample):
    folder = sample / "train"
    queries, documents = read_queries(folder), read_corpus(folder)
    return read_qrels(folder, "train", {q.id for q in queries}, {d.id for d in documents})


def run_mine(settings, store, out, *overrides):
    report = mine(settings(out, *overrides), store, out)
    store_ids = (set(EmbeddingStore(store / kind).ids) for kind in ("queries", "documents"))
    return read_triples(report, *store_ids), json.loads(report_path(out).read_text())


@pytest.mark.parametrize(("view", "margin"), [("single@32", 0.01), ("multi@64", 0.0)])
def test_negatives_are_the_best_that_pass_both_filters(settings, store, tmp_path, judged, view, margin):
    """Against brute force over the whole ranking."""
    overrides = (f"mine.view={view}", "mine.k=12", "mine.negatives=3", f"mine.relative_margin={margin}")
    triples, _ = run_mine(settings, store, tmp_path / "t.jsonl", *overrides)
    full = search_store(store, View.parse(view), 10_000).run()
    assert [(t.query_id, t.pos_id) for t in triples] == [
        (query, positive) for query, grades in judged.items() for positive in sorted(relevant(grades))
    ]
    for t in triples:
        scores = full[t.query_id]
        known = relevant(judged[t.query_id])
        deep = sorted(scores, key=scores.__getitem__, reverse=True)[:12]
        bound = (1 - margin) * scores[t.pos_id]
        expected = [name for name in deep if name not in known and scores[name] <= bound][:3]
        assert not known & set(t.neg_ids) and len(t.neg_ids) == len(expected)
        assert [scores[name] for name in t.neg_ids] == pytest.approx([scores[name] for name in expected], abs=1e-5)
        assert t.pos_score == pytest.approx(scores[t.pos_id], abs=1e-5)
        assert t.neg_scores == pytest.approx([scores[name] for name in expected], abs=1e-5)


def test_the_margin_points_down_for_negative_scores_too(settings, tmp_path):
    """A candidate above its positive is never kept, whatever the sign."""
    names = ["above", "same", "below"]
    ranking = Ranking(["q"], names, np.array([[-0.19, -0.20, -0.30]]), np.array([[0, 1, 2]]))
    triples, _ = choose_negatives(settings(tmp_path), ranking, {"q": {"p": 1}}, {("q", "p"): -0.2})
    assert triples[0].neg_ids == ("below",)


def test_the_report_counts_what_each_filter_removed(settings, store, tmp_path, judged):
    overrides = ("mine.k=12", "mine.negatives=12", "mine.relative_margin=0")
    triples, report = run_mine(settings, store, tmp_path / "t.jsonl", *overrides)
    counts = report["counts"]
    assert counts["candidates"] == 12 * len(triples)
    removed = counts["known positives removed"] + counts["too close to the positive removed"]
    assert counts["candidates"] - removed == counts["negatives"] == sum(len(t.neg_ids) for t in triples)
    assert report["view"] == "single@128" and report["fingerprint"] and report["seed"] == 0
    empty = sum(1 for t in triples if not t.neg_ids)
    assert counts.get("pairs left without negatives", 0) == empty


def test_random_sampling_draws_from_what_passed_and_repeats_with_its_seed(settings, store, tmp_path):
    common = ("mine.relative_margin=0", "mine.k=48", "mine.negatives=2", "mine.sampling=random")
    pool, _ = run_mine(
        settings, store, tmp_path / "all.jsonl", "mine.relative_margin=0", "mine.k=48", "mine.negatives=48"
    )
    first, _ = run_mine(settings, store, tmp_path / "a.jsonl", *common)
    same, _ = run_mine(settings, store, tmp_path / "b.jsonl", *common)
    other, _ = run_mine(settings, store, tmp_path / "c.jsonl", *common, "seed=1")
    assert first == same and first != other
    assert all(set(drawn.neg_ids) <= set(whole.neg_ids) for drawn, whole in zip(first, pool, strict=True))


def test_what_does_not_fit_is_refused_and_nothing_overwritten(settings, store, tmp_path, sample):
    out = tmp_path / "t.jsonl"
    with pytest.raises(InputError, match="was encoded from other documents"):
        mine(settings(out, f"data.path={sample}/test", "data.train_split=test"), store, out)
    with pytest.raises(InputError, match="no pair keeps a negative"):
        mine(settings(out, "mine.k=1", "mine.relative_margin=0.999"), store, out)
    with pytest.raises(InputError, match="was not trained"):
        mine(settings(out, "mine.view=single@48"), store, out)
    assert not out.exists()
    out.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        mine(settings(out), store, out)
    assert out.read_text() == "precious"
