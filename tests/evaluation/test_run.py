import shutil

import pytest
from conftest import search_store

from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.evaluation.report import by_view, markdown_table, pareto, table_lines, write_report
from colmrl.evaluation.run import judge, read_results, write_results
from colmrl.store import EmbeddingStore
from colmrl.view import View, parse_views


@pytest.fixture
def config(settings, tmp_path):
    return settings(tmp_path, "data.eval_split=train")


def test_a_view_is_judged_by_rank_of_its_answers(config, store, sample):
    ((_, values),) = by_view(judge(config, store, parse_views("single@32"))).items()
    run = search_store(store, View("single", 32), 100).run()
    answers = {}
    for line in (sample / "train/qrels/train.tsv").read_text().splitlines()[1:]:
        query, document, _ = line.split("\t")
        answers.setdefault(query, set()).add(document)
    ranks = [
        min(sorted(run[q], key=run[q].get, reverse=True).index(d) for d in documents)
        for q, documents in answers.items()
    ]
    assert values["mrr_at_10"] == pytest.approx(sum(1 / (r + 1) for r in ranks if r < 10) / len(ranks))
    assert values["bytes_per_document"] == 128 and values["vectors_per_document"] == 1


def test_bytes_of_a_multi_view_come_from_the_vectors_that_are_kept(config, store):
    table = by_view(judge(config, store, parse_views("multi@64,multi@64x4:int8")))
    counts = EmbeddingStore(store / "documents").vectors_per_record(View("multi", 64))
    assert table[None, "multi@64"]["bytes_per_document"] == counts * 64 * 4
    assert table[None, "multi@64x4:int8"]["bytes_per_document"] == 4 * (64 + 4)


def test_without_views_every_trained_dim_is_judged(config, store):
    assert [v for _, v in by_view(judge(config, store))] == ["single@128", "single@32", "multi@64", "multi@16"]


def test_a_wrong_view_or_other_data_is_said_before_anything_is_searched(config, settings, store, sample, tmp_path):
    with pytest.raises(InputError, match=r"single@48.*not trained"):
        judge(config, store, parse_views("single@32,single@48"))
    with pytest.raises(InputError, match="was encoded from other documents"):
        judge(settings(tmp_path, f"data.eval_path={sample}/test"), store)


def test_judgements_without_an_answer_are_an_error(settings, checkpoint, sample, tmp_path, store):
    data = shutil.copytree(sample / "train", tmp_path / "data")
    (data / "qrels/none.tsv").write_text("train-q0\ttrain-000-0\t0\n")
    with pytest.raises(InputError, match=r"split 'none': no score above 0"):
        judge(settings(tmp_path, f"data.path={data}", "data.eval_split=none"), store)


def test_results_and_report_hold_every_number_and_where_it_came_from(config, store, tmp_path):
    rows = judge(config, store, parse_views("single@32,multi@16,multi@16x4"), 1)
    write_results(tmp_path / "results.json", rows, 7)
    results = read_results(tmp_path / "results.json")
    assert results["rows"] == rows and results["seed"] == 7 and results["command"]
    assert {"round": 1, "view": "single@32", "metric": "ndcg_at_10"}.items() <= next(
        r for r in rows if r["metric"] == "ndcg_at_10"
    ).items()
    text = write_report(tmp_path, rows, ["commit abc"]).read_text()
    assert markdown_table(table_lines(rows)) in text and "commit abc" in text
    assert (tmp_path / "frontier.png").read_bytes()[:4] == b"\x89PNG"


def test_the_named_points_are_those_that_nothing_cheaper_beats():
    points = [(16.0, 0.5, "a"), (64.0, 0.4, "b"), (64.0, 0.7, "c"), (128.0, 0.7, "d"), (256.0, 0.8, "e")]
    assert [name for *_, name in pareto(points)] == ["a", "c", "e"]


def test_a_query_is_no_answer_to_itself(settings, checkpoint, tmp_path):
    """Two texts, each the other's answer: without the query itself only the right one is left to be found."""
    (tmp_path / "pairs.jsonl").write_text(
        '{"anchor": "red circle", "positive": "blue ring"}\n{"anchor": "blue ring", "positive": "red circle"}\n'
    )
    config = settings(tmp_path, f"data.path={tmp_path}/pairs.jsonl", "data.eval_split=train")
    store = encode(config, checkpoint, config.data.path, tmp_path / "store")
    rows = judge(config, store, parse_views("single@128,multi@64"))
    assert [row["value"] for row in rows if row["metric"] == "recall_at_1"] == [1.0, 1.0]
