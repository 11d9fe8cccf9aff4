"""All that mining writes of a few given vectors, beside loops over them."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from made import mining, write_data, write_store

from colmrl import provenance
from colmrl.data.records import Triple
from colmrl.mining import run
from colmrl.mining.report import Tally, picture_path, read_report, readable_path, step_lines
from colmrl.store import EmbeddingStore

ANSWERS = {0: [3], 1: [7, 2], 2: [5], 3: [0, 1, 11], 4: [9]}
K, NEGATIVES, MARGIN = 8, 2, 0.05


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    """triples.jsonl, where its store is, and the scores of all queries and documents."""
    folder = tmp_path_factory.mktemp("given")
    texts = ["  a  question ", "b " * 200, "c", "d", "e", "f"]
    data = write_data(folder / "data", 6, [{"text": f"page {n}"} for n in range(12)], ANSWERS, texts)
    vectors = np.random.default_rng(3).normal(size=(18, 4))
    for query, answers in ANSWERS.items():  # near its answers
        vectors[query] = vectors[6:][answers].sum(0) + 0.5 * vectors[query]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_store(folder / "store", data, vectors[:6], vectors[6:])
    given = json.dumps([{"range_min": 1}, {"absolute_margin": MARGIN}])
    config = mining(f"mine.k={K}", f"mine.negatives={NEGATIVES}", f"mine.filters={given}", "seed=5")
    return run.mine(config, folder / "store", folder / "triples.jsonl"), folder / "store", vectors[:6] @ vectors[6:].T


def looped(scores):
    """Of each query that is judged: candidates, those that no step removes one after another, and the negatives."""
    for query, answers in ANSWERS.items():
        found = sorted(range(12), key=lambda document: -scores[query, document])[:K]
        unknown = [document for document in found if document not in answers]
        later = unknown[1:]
        lowest = min(scores[query, document] for document in answers)
        far = [document for document in later if scores[query, document] + MARGIN <= lowest]
        yield query, [found, unknown, later, far, far[:NEGATIVES]]


def test_each_pair_has_the_first_negatives_that_all_steps_leave(mined):
    out, _, scores = mined
    rows = [json.loads(line) for line in out.open()]
    wanted = [(q, d, kept[-1]) for q, kept in looped(scores) for d in sorted(ANSWERS[q], key=lambda n: f"d{n}")]
    assert [(r["query_id"], r["pos_id"]) for r in rows] == [(f"q{q}", f"d{d}") for q, d, _ in wanted]
    for row, (query, document, negatives) in zip(rows, wanted, strict=True):
        assert row["neg_ids"] == [f"d{n}" for n in negatives]
        assert row["pos_score"] == pytest.approx(scores[query, document], abs=1e-6)
        assert row["neg_scores"] == pytest.approx([scores[query, n] for n in negatives], abs=1e-6)


def test_the_report_is_the_sum_of_what_the_loops_count(mined):
    out, store, scores = mined
    report, kept = read_report(out), dict(looped(scores))
    sizes = np.sum([[len(some) for some in steps] for steps in kept.values()], axis=0)
    pairs = [(query, len(kept[query][-1])) for query, answers in ANSWERS.items() for _ in answers]
    without = sum(count == 0 for _, count in pairs)
    assert report["counts"] == {
        "queries": 5,
        "candidates": sizes[0],
        "kept candidates": sizes[4],
        "pairs": len(pairs),
        "negatives": sum(count for _, count in pairs),
        "pairs left without negatives": without,
    }
    names = ("known answers", "range_min 1", f"absolute_margin {MARGIN}")
    assert report["steps"] == [
        {"step": name, "removed": sizes[n] - sizes[n + 1], "left": sizes[n + 1]} for n, name in enumerate(names)
    ]
    assert report["share_without_negatives"] == without / len(pairs)
    bins = {
        "positives": [scores[query, d] for query, answers in ANSWERS.items() for d in answers],
        "candidates": [scores[query, d] for query, steps in kept.items() for d in steps[1]],
        "negatives": [scores[query, d] for query, steps in kept.items() for d in steps[4]],
    }
    found = report["histograms"]
    first = round((found["low"] + 1) / 0.01)
    for kind, values in bins.items():
        counted = Counter(math.floor((value + 1) / 0.01) for value in values)
        assert {first + n: count for n, count in enumerate(found[kind]) if count} == counted, kind
    assert found["width"] == 0.01 and all(any(found[kind][end] for kind in bins) for end in (0, -1)), "no empty ends"
    manifests = EmbeddingStore(store / "documents"), EmbeddingStore(store / "queries")
    assert (report["store"], report["fingerprint"], report["index_stamp"]) == (str(store), "made", None)
    assert (report["store_stamp"], report["queries_stamp"]) == (manifests[0].stamp, manifests[1].stamp)
    assert (report["seed"], report["command"], report["commit"]) == (5, provenance.command(), provenance.commit())
    assert report["view"] == report["scores"] == report["mine"]["view"] == "single@4"
    assert report["mine"]["filters"] == [{"range_min": 1}, {"absolute_margin": MARGIN}]
    assert {path.name for path in out.parent.glob("triples*")} == {
        out.name, "triples.jsonl.report.json", readable_path(out).name, picture_path(out).name,
    }  # fmt: skip


def test_the_readable_report_has_the_same_numbers_and_all_examples(mined):
    out, store, _ = mined
    report, triples = read_report(out), [json.loads(line) for line in out.open()]
    counts, steps = report["counts"], report["steps"]
    table = [["step", "removed", "left"], ["search", "", "40"]]
    table += [[step["step"], str(step["removed"]), str(step["left"])] for step in steps]
    kept = counts["kept candidates"]
    table.append(["sampling (top)", str(steps[-1]["left"] - kept), str(kept)])
    assert step_lines(report) == table
    texts = {"q0": "a question", "q1": ("b " * 150)[:299] + "…", **{f"q{n}": "cdef"[n - 2] for n in range(2, 6)}}
    examples = []
    for row in (row for row in triples if row["neg_ids"]):
        named = [("positive", row["pos_score"], row["pos_id"])]
        named += [("negative", *pair) for pair in zip(row["neg_scores"], row["neg_ids"], strict=True)]
        lines = [f"- {kind} {score:.4f} `{name}` page {name[1:]}" for kind, score, name in named]
        examples.append("\n".join([f"**{row['query_id']}** {texts[row['query_id']]}", "", *lines]))
    head, *body = ["| " + " | ".join(line) + " |" for line in table]
    parts = [
        "# triples.jsonl",
        f"`{report['command']}`, commit {report['commit']}, seed 5.",
        f"5 queries searched at single@4 in {store}: {counts['pairs']} pairs of a query and a positive, "
        f"{counts['negatives']} negatives, {counts['pairs left without negatives']} pairs "
        f"({report['share_without_negatives']:.1%}) left without. Triples carry the scores of single@4.",
        "\n".join([head, "|---|--:|--:|", *body]),
        "![Scores of positives, candidates and negatives](triples.mining.png)",
        f"## {len(examples)} triples, drawn at random from those with negatives",
        *examples,
    ]
    assert readable_path(out).read_text() == "\n\n".join(parts) + "\n"


def test_scores_at_both_ends_are_in_the_first_and_the_last_bin():
    tally = Tally([])
    assert tally.histograms() == {"low": -1.0, "width": 0.01, "positives": [0], "candidates": [0], "negatives": [0]}
    tally.score("positives", np.array([-1.5, -1.0, 1.0, 1.5], dtype=np.float32))
    tally.score("positives", np.array([0.005], dtype=np.float32))
    counts = tally.bins["positives"]
    assert len(counts) == 201 and (counts[0], counts[100], counts[200], counts.sum()) == (2, 1, 2, 5)


def test_the_first_examples_are_in_their_order_and_no_more_than_are_shown():
    triples = [Triple(f"q{n}", "d", ("x", "y"), 0.5, (0.1, 0.2)) for n in range(20)] + [Triple("q", "d", (), 0.5, ())]
    tally = Tally(["known answers"])
    assert list(run._counted(iter(triples), tally, 1)) == triples and tally.examples == triples[:20]
    assert (tally.counts["pairs"], tally.counts["negatives"], tally.counts["pairs left without negatives"]) == (
        21,
        40,
        1,
    )
