import hashlib
import json

import numpy as np
import pytest
from conftest import search_store
from made import mining, write_data, write_store

from colmrl.data.beir import read_corpus, read_qrels, read_queries
from colmrl.data.records import Triple, relevant
from colmrl.data.triples import read_triples
from colmrl.errors import InputError
from colmrl.mining import mine, read_report, report_path, run
from colmrl.mining.report import EXAMPLES, Tally, picture_path, readable_path, step_lines
from colmrl.search import Plan
from colmrl.search.building import build_indexes
from colmrl.store import EmbeddingStore
from colmrl.view import View

MARGIN_0 = "mine.filters=[{relative_margin: 0}]"


@pytest.fixture
def judged(sample):
    folder = sample / "train"
    queries, documents = read_queries(folder), read_corpus(folder)
    return read_qrels(folder, "train", {q.id for q in queries}, {d.id for d in documents})


def run_mine(settings, store, out, *overrides):
    path = mine(settings(out, *overrides), store, out)
    store_ids = (set(EmbeddingStore(store / kind).ids) for kind in ("queries", "documents"))
    return read_triples(path, *store_ids), read_report(path)


@pytest.mark.parametrize(("view", "margin"), [("single@32", 0.01), ("multi@64", 0.0), ("single@32/20+multi@64", 0.0)])
def test_negatives_are_the_best_that_pass_both_filters(settings, store, tmp_path, judged, view, margin):
    """Against brute force over the whole ranking; a funnel's candidates are those of its first stage."""
    filters = f"mine.filters=[{{duplicates: true}}, {{relative_margin: {margin}}}]"
    overrides = (f"mine.view={view}", "mine.k=12", "mine.negatives=3", filters)
    triples, _ = run_mine(settings, store, tmp_path / "t.jsonl", *overrides)
    full = search_store(store, Plan.parse(view).view, 10_000).run()
    first = search_store(store, View.parse("single@32"), 20).run()
    assert [(t.query_id, t.pos_id) for t in triples] == [
        (query, positive) for query, grades in judged.items() for positive in sorted(relevant(grades))
    ]
    for t in triples:
        scores = full[t.query_id]
        known = relevant(judged[t.query_id])
        among = first[t.query_id] if "+" in view else scores
        deep = sorted(among, key=scores.__getitem__, reverse=True)[:12]
        lowest = min(scores[name] for name in known)
        expected = [name for name in deep if name not in known and scores[name] <= lowest - margin * abs(lowest)][:3]
        assert not known & set(t.neg_ids) and len(t.neg_ids) == len(expected)
        assert [scores[name] for name in t.neg_ids] == pytest.approx([scores[name] for name in expected], abs=1e-5)
        assert t.pos_score == pytest.approx(scores[t.pos_id], abs=1e-5)
        assert t.neg_scores == pytest.approx([scores[name] for name in expected], abs=1e-5)


def test_an_index_that_finds_all_gives_the_same_triples_and_the_report_names_it(settings, store, tmp_path):
    (built,) = build_indexes(settings(tmp_path), store, [View.parse("single@32")], tmp_path / "indexes")
    exact, _ = run_mine(settings, store, tmp_path / "a.jsonl", "mine.view=single@32", "mine.k=12", MARGIN_0)
    indexed, report = run_mine(
        settings, store, tmp_path / "b.jsonl", f"mine.index={built.folder}", "mine.k=12", MARGIN_0
    )
    assert indexed == exact
    assert report["view"] == "single@32" and report["index_stamp"] == built.manifest.hash
    with pytest.raises(InputError, match="is of view single@32, not single@128"):
        mine(settings(tmp_path, f"mine.index={built.folder}", "mine.view=single@128"), store, tmp_path / "c.jsonl")


def test_the_report_counts_what_each_step_removed(settings, store, tmp_path, judged):
    out = tmp_path / "t.jsonl"
    triples, report = run_mine(settings, store, out, "mine.k=12", "mine.negatives=12", MARGIN_0)
    counts, (known, margin) = report["counts"], report["steps"]
    queries = {t.query_id: t for t in triples}
    assert counts["candidates"] == 12 * len(queries) and counts["pairs"] == len(triples)
    assert known["step"] == "known answers" and margin["step"] == "relative_margin 0"
    deep = search_store(store, View.parse("single@128"), 12).run()
    assert known["removed"] == sum(len(relevant(judged[query]) & deep[query].keys()) for query in queries)
    assert (
        known["left"] == counts["candidates"] - known["removed"] and margin["left"] == known["left"] - margin["removed"]
    )
    assert margin["left"] == counts["kept candidates"] == sum(len(t.neg_ids) for t in queries.values())
    assert counts["negatives"] == sum(len(t.neg_ids) for t in triples)
    empty = sum(1 for t in triples if not t.neg_ids)
    assert counts["pairs left without negatives"] == empty
    assert report["share_without_negatives"] == empty / len(triples)
    assert report["view"] == report["scores"] == "single@128" and report["fingerprint"] and report["seed"] == 0
    assert report["store_stamp"] == EmbeddingStore(store / "documents").stamp
    assert report["triples_sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    histograms = report["histograms"]
    expected = {"positives": len(triples), "candidates": known["left"], "negatives": counts["kept candidates"]}
    assert {kind: sum(histograms[kind]) for kind in expected} == expected
    mean = sum((histograms["low"] + (i + 0.5) * 0.01) * n for i, n in enumerate(histograms["positives"])) / len(triples)
    assert mean == pytest.approx(np.mean([t.pos_score for t in triples]), abs=0.005)


def test_the_report_can_be_read(settings, store, tmp_path, sample):
    out = tmp_path / "t.jsonl"
    triples, report = run_mine(settings, store, out, "mine.k=12", MARGIN_0)
    text = readable_path(out).read_text()
    assert f"## {EXAMPLES} triples" in text and picture_path(out).name in text
    assert picture_path(out).read_bytes().startswith(b"\x89PNG")
    queries = {query.id: query.text for query in read_queries(sample / "train")}
    shown = [t for t in triples if f"**{t.query_id}** {queries[t.query_id]}\n" in text and f"`{t.pos_id}`" in text]
    assert len(shown) >= EXAMPLES
    assert "- negative" in text and all("- negative" in part for part in text.split("\n\n**")[1:])
    assert f"positive {shown[0].pos_score:.4f} `{shown[0].pos_id}` `{sample}/train/images/" in text
    *_, sampling = step_lines(report)
    assert sampling[0] == "sampling (top)" and sampling[2] == f"{report['counts']['kept candidates']:,}"


def test_the_examples_are_drawn_from_all_triples_with_negatives():
    """Of 30 triples every third has negatives, then of 3000."""
    for count in (30, 3000):
        triples = [Triple(f"q{n}", "d", ("x",) if n % 3 == 0 else (), 0.5, None) for n in range(count)]
        drawn = []
        for seed in (0, 0, *range(1, 100)):
            tally = Tally(["known answers"])
            assert list(run._counted(iter(triples), tally, seed)) == triples
            drawn.append([int(t.query_id[1:]) for t in tally.examples])
        assert drawn[0] == drawn[1] and all(one == sorted(one) and not any(n % 3 for n in one) for one in drawn)
        assert {len(set(one)) for one in drawn} == {min(EXAMPLES, count // 3)}
        if count == 3000:
            assert drawn[0] != drawn[2] and np.mean(drawn) == pytest.approx(1500, abs=100)


def test_one_triple_more_than_is_shown_is_left_out_as_often_as_any():
    triples, left_out = [Triple(f"q{n}", "d", ("x",), 0.5, None) for n in range(EXAMPLES + 1)], 0
    for seed in range(400):
        tally = Tally(["known answers"])
        list(run._counted(iter(triples), tally, seed))
        left_out += triples[-1] not in tally.examples
    assert left_out == pytest.approx(400 / (EXAMPLES + 1), abs=14)  # three standard deviations


def test_the_report_says_what_was_set_and_the_view_that_was_used(settings, store, tmp_path):
    filters = "mine.filters=[{duplicates: true}, {relative_margin: 0}, {max_score: 2}]"
    _, report = run_mine(settings, store, tmp_path / "t.jsonl", "mine.k=12", filters)
    assert report["mine"]["filters"] == [{"duplicates": True}, {"relative_margin": 0}, {"max_score": 2}]
    assert report["mine"]["view"] == report["view"] == "single@128"


def test_random_sampling_draws_from_what_passed_and_repeats_with_its_seed(settings, store, tmp_path):
    common = (MARGIN_0, "mine.k=48", "mine.negatives=2", "mine.sampling=random")
    pool, _ = run_mine(settings, store, tmp_path / "all.jsonl", MARGIN_0, "mine.k=48", "mine.negatives=48")
    first, _ = run_mine(settings, store, tmp_path / "a.jsonl", *common)
    same, _ = run_mine(settings, store, tmp_path / "b.jsonl", *common)
    other, _ = run_mine(settings, store, tmp_path / "c.jsonl", *common, "seed=1")
    assert first == same and first != other
    assert all(set(drawn.neg_ids) <= set(whole.neg_ids) for drawn, whole in zip(first, pool, strict=True))
    assert [len(drawn.neg_ids) for drawn in first] == [min(2, len(whole.neg_ids)) for whole in pool]


@pytest.mark.parametrize("sampling", ["top", "random"])
def test_the_size_of_a_block_of_queries_changes_nothing(settings, store, tmp_path, monkeypatch, sampling):
    common = ("mine.k=20", f"mine.sampling={sampling}", "mine.filters=[{duplicates: true}, {range_max: 15}]")
    whole, report = run_mine(settings, store, tmp_path / "a.jsonl", *common)
    monkeypatch.setattr(run, "_QUERIES", 7)
    cut, again = run_mine(settings, store, tmp_path / "b.jsonl", *common)
    assert [(t.query_id, t.pos_id, t.neg_ids) for t in cut] == [(t.query_id, t.pos_id, t.neg_ids) for t in whole]
    for a, b in zip(cut, whole, strict=True):
        assert [a.pos_score, *a.neg_scores] == pytest.approx([b.pos_score, *b.neg_scores], abs=1e-6)
    assert again["steps"] == report["steps"] and again["counts"] == report["counts"]
    shown = [
        [line for line in readable_path(tmp_path / f"{name}.jsonl").read_text().splitlines() if line.startswith("**")]
        for name in "ab"
    ]
    assert shown[0] == shown[1] and len(shown[0]) == EXAMPLES


def test_what_does_not_fit_is_refused_and_nothing_overwritten(settings, store, tmp_path, sample):
    out = tmp_path / "t.jsonl"
    with pytest.raises(InputError, match="was encoded from other documents"):
        mine(settings(out, f"data.path={sample}/test", "data.train_split=test"), store, out)
    with pytest.raises(InputError, match=r"no pair keeps a negative .*max_score -1 left 0"):
        mine(settings(out, "mine.k=1", "mine.filters=[{max_score: -1}]"), store, out)
    with pytest.raises(InputError, match="was not trained"):
        mine(settings(out, "mine.view=single@48"), store, out)
    assert list(tmp_path.iterdir()) == []
    out.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        mine(settings(out), store, out)
    assert out.read_text() == "precious"


class Killed(BaseException):
    """As kill -9: nothing that handles errors may notice."""


def test_killed_at_any_file_it_writes_and_run_again_the_triples_are_the_same(settings, store, tmp_path, monkeypatch):
    whole = tmp_path / "whole.jsonl"
    mine(settings(whole, MARGIN_0), store, whole)
    rename, died = type(whole).replace, 0
    for moment in range(6):
        out, left = tmp_path / f"{moment}.jsonl", moment

        def dying(self, target):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return rename(self, target)

        monkeypatch.setattr(type(whole), "replace", dying)
        try:
            mine(settings(out, MARGIN_0), store, out)
        except Killed:
            died += 1
            assert not out.exists()
            (tmp_path / f"{out.name}.partial.4.partial").write_text("of another process")
            (tmp_path / f"{out.stem}.mining.png.4.partial").write_text("likewise")
        monkeypatch.setattr(type(whole), "replace", rename)
        if not out.exists():
            mine(settings(out, MARGIN_0), store, out)
        assert out.read_bytes() == whole.read_bytes()
        assert read_report(out)["triples_sha256"] == read_report(whole)["triples_sha256"]
        assert not list(tmp_path.glob("*.partial"))
    assert died == 5  # triples, picture, reading, report, and the name that says it is done


def test_those_who_ask_the_same_share_their_answers_and_no_query_is_its_own_negative(tmp_path):
    """q0 and q1 ask the same; nothing else tells that d1 answers q0 too."""
    vectors = np.eye(4)[[0, 0, 0, 1]] + 0.1 * np.arange(4)[:, None]
    data = write_data(tmp_path / "d", 2, [{"text": f"{n}"} for n in range(4)], {0: [0], 1: [1]}, texts=["a", "a"])
    store, out = write_store(tmp_path / "s", data, vectors[:2], vectors), tmp_path / "t.jsonl"
    mine(mining("mine.filters=[]", "mine.negatives=9"), store, out)
    assert [set(json.loads(line)["neg_ids"]) for line in out.open()] == [{"d2", "d3"}] * 2
    assert report_path(out).is_file()
