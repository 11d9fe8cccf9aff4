"""Runs in one table: what noise does not tell apart is tied, what is not comparable stands apart."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from colmrl.cli.evaluate import eval_app
from colmrl.cli.main import main_app
from colmrl.errors import InputError
from colmrl.evaluation.each_query import join_each, read_each, write_each
from colmrl.evaluation.leaderboard import leaderboard
from colmrl.evaluation.run import write_results
from colmrl.evaluation.significance import difference

JUDGED = {"queries": 60, "documents": 9, "hash": "abcdef123"}
RNG = np.random.default_rng(0)
BASE = RNG.random(60).round(6)


def write(folder, each=True, judged=JUDGED, number=None, **systems):
    """view=numbers of each query"""
    rows = [
        {"round": number, "view": view, "metric": "ndcg_at_5", "value": float(np.mean(values))}
        for view, values in systems.items()
    ]
    write_results(folder / "results.json", rows, 0)
    if each:
        named = [
            ({"round": number, "view": view}, {f"q{n}": {"ndcg_at_5": float(v)} for n, v in enumerate(values)})
            for view, values in systems.items()
        ]
        write_each(folder / "results.json", judged, named)
    return str(folder)


def test_what_noise_does_not_tell_apart_is_a_tie(tmp_path):
    noise = RNG.normal(0, 0.3, 60)
    noisy = BASE + noise - noise.mean() - 0.02
    folders = [
        write(tmp_path / "one", a=BASE, b=noisy, c=BASE - 0.2),
        write(tmp_path / "two", d=BASE - 0.2001 + RNG.normal(0, 0.001, 60)),
        write(tmp_path / "old", each=False, e=BASE - 0.3),
    ]
    board, unknown = leaderboard(folders, "ndcg_at_5")
    assert [entry.name for entry in board.entries] == ["a", "b", "c", "d"]
    assert difference(BASE.tolist(), noisy.tolist()).p_bootstrap > 0.05
    assert difference((BASE - 0.2).tolist(), [*board.entries[3].each["ndcg_at_5"].values()]).p_bootstrap > 0.05
    assert board.marks == ["1", "=1", "3", "=3"] and [entry.run for entry in board.entries] == ["one"] * 3 + ["two"]
    assert unknown.judged.startswith("not known (") and [entry.run for entry in unknown.entries] == ["old"]


def test_queries_are_paired_by_their_ids_whatever_their_order(tmp_path):
    better = BASE + 0.02 + RNG.normal(0, 0.02, 60)
    folders = [write(tmp_path / "one", a=better), write(tmp_path / "two", b=BASE)]
    (board,) = leaderboard(folders, "ndcg_at_5")
    beside = tmp_path / "two/results.queries.json"
    each = json.loads(beside.read_text())
    each["queries"].reverse()
    each["rows"][0]["ndcg_at_5"].reverse()
    beside.write_text(json.dumps(each))
    assert [other.marks for other in leaderboard(folders, "ndcg_at_5")] == [board.marks] == [["1", "2"]]


def test_models_of_mteb_are_rows_of_their_own_and_tasks_tables(tmp_path):
    rows = [
        {"task": task, "view": "single@64", "model": model, "metric": "ndcg_at_5", "value": value}
        for task, model, value in (
            ("A", "m-once", 0.4),
            ("A", "m-again", 0.3),
            ("B", "m-once", 0.9),
        )
    ]
    write_results(tmp_path / "results.json", rows, 0)
    first, second = leaderboard([str(tmp_path)], "ndcg_at_5")
    assert (first.judged, second.judged) == ("A", "B")
    assert [(e.name, e.values["ndcg_at_5"]) for e in first.entries] == [
        ("m-once", 0.4),
        ("m-again", 0.3),
    ]


def test_two_files_of_a_folder_have_names_of_their_own(tmp_path):
    write(tmp_path, a=BASE)
    (tmp_path / "other.json").write_text((tmp_path / "results.json").read_text())
    boards = leaderboard([str(tmp_path / "results.json"), str(tmp_path / "other.json")], "ndcg_at_5")
    assert len({entry.run for board in boards for entry in board.entries}) == 2


def test_noise_is_unknown_where_single_queries_are(tmp_path):
    folder = write(tmp_path / "old", each=False, a=BASE, b=BASE - 0.3)
    assert leaderboard([folder], "ndcg_at_5")[0].marks == ["1", "?"]


def test_other_judgements_are_another_table_and_a_loop_s_rounds_are_one_run(tmp_path):
    parts = [write(tmp_path / f"loop/round-{n}", number=n, a=BASE + n / 10) for n in (0, 1)]
    rows = [row for part in parts for row in json.loads(open(f"{part}/results.json").read())["rows"]]  # noqa: PTH123, SIM115
    write_results(tmp_path / "loop/results.json", rows, 0)
    join_each(tmp_path / "loop/results.json", [tmp_path / f"loop/round-{n}/results.json" for n in (0, 1)])
    assert len(read_each(tmp_path / "loop/results.json")["rows"]) == 2
    other = write(tmp_path / "other", judged={**JUDGED, "hash": "other"}, a=BASE)
    first, second = leaderboard([str(tmp_path / "loop"), other], "ndcg_at_5")
    assert [(entry.run, entry.round) for entry in first.entries] == [("loop", 1), ("loop", 0)] and first.marks[1] == "2"
    assert [entry.run for entry in second.entries] == ["other"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("results.json", "{}", "not results of eval.py"),
        ("results.json", '{"rows": [{"view": "a"}]}', "not results of eval.py"),
        ("other.json", "{}", "no results.json here or below"),
    ],
)
def test_what_holds_no_results_is_said(name, content, says, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=says):
        leaderboard([str(tmp_path)], "ndcg_at_5")
    folder = write(tmp_path / "a", a=BASE)
    with pytest.raises(InputError, match=r"--metric mrr: none of these results has it: choose from ndcg_at_5"):
        leaderboard([folder], "mrr")


def test_the_command_takes_what_eval_wrote(store, tmp_path):
    flags = ["--store", store, "--split", "train", "threads=1", "--out"]
    for name, views in (("a", "single@32,single@128"), ("b", "multi@16:binary")):
        made = CliRunner().invoke(eval_app, [*map(str, flags), str(tmp_path / name / "results.json"), "--views", views])
        assert made.exit_code == 0, made.stderr
    shown = CliRunner().invoke(main_app, ["leaderboard", str(tmp_path), "--out", str(tmp_path / "board.md")])
    assert shown.exit_code == 0, shown.stderr
    text = (tmp_path / "board.md").read_text()
    assert all(view in text for view in ("single@32", "single@128", "multi@16:binary")) and "| 1 |" in text
    assert "?" not in [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
