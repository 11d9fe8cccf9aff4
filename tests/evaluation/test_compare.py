"""Run files beside each other: what ties, duplicates and unknown ids give, and what is written."""

import json

import pytest
import pytrec_eval
from typer.testing import CliRunner

from colmrl.cli.evaluate import eval_app
from colmrl.cli.main import main_app
from colmrl.data.reading import read_collection
from colmrl.evaluation.compare import compare_runs, judged_run
from colmrl.evaluation.each_query import read_each
from colmrl.evaluation.report import by_view

DOCUMENTS = [f"d{n}" for n in range(6)]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": name, "text": f"text of {name}"}) for name in DOCUMENTS]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": f"q{n}", "text": f"ask {n}"}) for n in range(4)))
    grades = [("q0", "d0", 1), ("q0", "d1", 2), ("q1", "d2", 1), ("q2", "d3", 1)]
    (folder / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, d, g in grades)
    )
    return folder


def run_file(path, **ranked):
    """query=[(document, score), …]"""
    path.write_text("".join(f"{q} Q0 {d} 1 {s} x\n" for q, of in ranked.items() for d, s in of))
    return path


@pytest.fixture
def judge(data, settings, tmp_path):
    config = settings(tmp_path, f"data.path={data}", "data.eval_split=test")
    collection = read_collection(str(data), config.data, config.show)

    def make(path):
        return judged_run("a", path, collection, collection.judged("test"))

    return make


def refused(result, says):
    assert result.exit_code == 2, result.output
    assert says in result.stderr


def test_ties_are_ordered_by_falling_id_as_trec_eval_does(judge, tmp_path):
    found = judge(
        run_file(
            tmp_path / "a.trec",
            q0=[("d0", 1.0), ("d1", 1.0), ("d5", 1.0)],
            q1=[("d2", 2.0), ("d4", 1.0)],
            q2=[("d4", 0.1 + 0.2), ("d3", 0.3)],  # the same as 32-bit floats
        )
    )
    assert found.order["q0"] == ["d5", "d1", "d0"] and found.order["q2"] == ["d4", "d3"] and found.tied == 2
    theirs = pytrec_eval.RelevanceEvaluator({"q0": {"d0": 1, "d1": 2}, "q2": {"d3": 1}}, {"recip_rank", "ndcg_cut.5"})
    run = {"q0": {"d0": 1.0, "d1": 1.0, "d5": 1.0}, "q2": {"d4": 0.1 + 0.2, "d3": 0.3}}
    for query, values in theirs.evaluate(run).items():
        assert found.each[query]["mrr_at_10"] == values["recip_rank"] == 0.5
        assert found.each[query]["ndcg_at_5"] == pytest.approx(values["ndcg_cut_5"])


def test_a_query_without_a_line_counts_zero_and_one_that_is_not_judged_is_left_out(judge, tmp_path, caplog):
    caplog.set_level("INFO")
    found = judge(run_file(tmp_path / "a.trec", q1=[("d2", 1.0)], q3=[("d0", 1.0)]))
    assert {query: values["ndcg_at_10"] for query, values in found.each.items()} == {"q0": 0, "q1": 1, "q2": 0}
    assert found.missing == 2
    assert (
        "2 judged queries have no line: they count 0" in caplog.text and "1 queries that are not judged" in caplog.text
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("q1 Q0 d2 2 0.5 x", "a.trec:3: query 'q1' and document 'd2' stand on an earlier line: keep one"),
        ("q1 Q0 nobody 2 0.5 x", "a.trec:3: document 'nobody' is not in"),
        ("nobody Q0 d2 2 0.5 x", "a.trec:3: query 'nobody' is not in"),
        ("q1 Q0 d3 2 much x", "a.trec:3: not `query-id Q0 doc-id rank score tag`"),
        ("q1 Q0 d3 2 nan x", "a.trec:3: score: nan is not finite"),
    ],
)
def test_a_bad_line_is_named(line, says, data, tmp_path):
    path = run_file(tmp_path / "a.trec", q0=[("d0", 1.0)], q1=[("d2", 1.0)])
    path.write_text(path.read_text() + line + "\n")
    refused(CliRunner().invoke(main_app, ["eval", "run", "--run", str(path), "--data", str(data)]), says)
    assert not (tmp_path / "compared").exists()


def test_a_run_of_nothing_that_is_judged_is_refused(data, tmp_path):
    (tmp_path / "a.trec").write_text("")
    asked = ["eval", "run", "--run", str(tmp_path / "a.trec"), "--data", str(data)]
    refused(CliRunner().invoke(main_app, asked), "a.trec: no line is of a judged query")


def test_runs_are_compared_query_by_query(data, settings, tmp_path):
    a = run_file(tmp_path / "a.trec", q0=[("d1", 2.0), ("d0", 1.0)], q1=[("d2", 1.0)], q2=[("d4", 2.0), ("d3", 1.0)])
    b = run_file(tmp_path / "b.trec", q0=[("d1", 2.0), ("d0", 1.0)], q1=[("d4", 1.0)], q2=[("d3", 2.0), ("d4", 1.0)])
    config = settings(tmp_path, f"data.path={data}", "data.eval_split=test")
    compared = compare_runs(config, [str(a), str(b)], tmp_path / "o")
    (found,) = [one.found for one in compared.comparisons if one.metric == "mrr_at_10"]
    assert (found.wins, found.ties, found.losses) == (1, 1, 1) and found.mean == pytest.approx((0 - 1 + 0.5) / 3)
    of_a, of_b = ([one for one in compared.worst if one.run == name] for name in ("a", "b"))
    assert [one.query for one in of_a] == ["q2", "q0", "q1"] and [one.query for one in of_b] == ["q1"]
    assert of_b[0].answers == ("d2: text of d2",) and of_b[0].returned == ("d4: text of d4",)
    assert of_b[0].returned_first == ("✓ d2: text of d2",) and of_b[0].asked == "ask 1"
    text = (tmp_path / "o/report.md").read_text()
    assert "**q1**: ask 1" in text and "1/1/1" in text
    results = json.loads((tmp_path / "o/results.json").read_text())
    assert {c["metric"] for c in results["comparisons"]} >= {"ndcg_at_10"} and results["comparisons"][0]["of"] == "a"
    each = read_each(tmp_path / "o/results.json")
    assert each["queries"] == ["q0", "q1", "q2"] and each["rows"][1]["mrr_at_10"] == [1, 0, 1]


def test_runs_that_evaluation_wrote_have_its_numbers(store, sample, tmp_path):
    """Written from a store, read as run files: the same to the last digit."""
    flags = ["--store", store, "--split", "train", "--views", "single@32,multi@16x4:binary", "--runs", tmp_path / "r"]
    judged = CliRunner().invoke(eval_app, [*map(str, flags), "--out", str(tmp_path / "results.json"), "threads=1"])
    assert judged.exit_code == 0, judged.stderr
    rows = by_view(json.loads((tmp_path / "results.json").read_text())["rows"])
    runs = [tmp_path / "r/single-32.trec", tmp_path / "r/multi-16x4-binary.trec"]
    flags = [*(x for run in runs for x in ("--run", run)), "--data", sample / "train", "--split", "train"]
    again = CliRunner().invoke(eval_app, ["run", *map(str, flags)])
    assert again.exit_code == 0, again.stderr
    compared = json.loads((tmp_path / "r/compared/results.json").read_text())["rows"]
    for name, view in (("single-32", "single@32"), ("multi-16x4-binary", "multi@16x4:binary")):
        found = {row["metric"]: row["value"] for row in compared if row["system"] == name}
        for metric in ("ndcg_at_5", "ndcg_at_10", "recall_at_10", "mrr_at_10"):
            assert found[metric] == pytest.approx(rows[None, view][metric], abs=1e-12), (name, metric)
    assert read_each(tmp_path / "results.json")["judged"] == read_each(tmp_path / "r/compared/results.json")["judged"]


def test_one_run_given_twice_is_refused(data, tmp_path):
    path = str(run_file(tmp_path / "a.trec", q0=[("d0", 1.0)]))
    refused(CliRunner().invoke(eval_app, ["run", "--run", path, "--run", path, "--data", str(data)]), "given twice")
    refused(CliRunner().invoke(eval_app, ["run", "--data", str(data)]), "nothing to judge: give --run")
