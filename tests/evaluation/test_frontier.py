"""One encoding at every size: points are what eval.py says, nothing is done twice, names do not cover each other."""

import csv
import itertools
import json

import pytest
from matplotlib.text import Text
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.configure import replace
from colmrl.errors import InputError
from colmrl.evaluation import frontier
from colmrl.evaluation.frontier import Held, Point, Way, sweep, ways
from colmrl.evaluation.frontier_plot import Peer, frontier_figure
from colmrl.evaluation.frontier_report import advice_lines, best_by, read_peers, recommend, run_frontier
from colmrl.evaluation.naming import place_names
from colmrl.evaluation.run import judge, open_task
from colmrl.search import Plan, search
from colmrl.store import EmbeddingStore
from colmrl.view import View

SWEEP = {"budgets": (None, 4), "precisions": ("fp32", "binary"), "timed": 2}


@pytest.fixture
def config(settings, tmp_path):
    return replace(settings(tmp_path, "data.eval_split=train"), frontier=SWEEP)


def made_up(*numbers):
    """(name of a view, bytes, ms, nDCG@5) each."""
    return [Point(Way(name), size, ms, {"q": {"ndcg_at_5": quality}}) for name, size, ms, quality in numbers]


def test_a_point_is_what_evaluation_says_at_the_bytes_of_the_view(config, store, tmp_path):
    task = open_task(config, store)
    points = {point.name: point for point in sweep(config, task, tmp_path)}
    single, multi = ("single@128", "single@32"), ("multi@64", "multi@16", "multi@64x4", "multi@16x4")
    assert set(points) == {f"{view}{how}" for view in (*single, *multi) for how in ("", ":binary")}
    rows = judge(config, store, [View.parse(name) for name in points])
    for row in rows:
        if row["metric"] == "bytes_per_document":
            assert points[row["view"]].bytes == row["value"]
        elif row["metric"] != "vectors_per_document":
            assert points[row["view"]].values[row["metric"]] == pytest.approx(row["value"], abs=1e-12), row
    assert all(point.ms > 0 for point in points.values())


def test_indexes_and_two_stages_are_searched_as_they_are_served(config, store, tmp_path):
    settings = {"indexes": ("flat", "ivf"), "depths": (5, 9999), "dims": (32, 16), "precisions": ("fp32", "int8")}
    config = replace(config, frontier=settings | {"budgets": (4,)}, index={"lists": 2, "queries": 4})
    task = open_task(config, store)
    points = {point.name: point for point in sweep(config, task, tmp_path)}
    assert {name for name in points if " " in name or "+" in name} == {
        "single@32 flat", "single@32 ivf", "multi@16x4 ivf", "multi@16x4:int8 ivf",
        "single@32/5+multi@64", "single@32:int8/5+multi@64",
    }  # fmt: skip
    assert points["single@32 flat"].each == points["single@32"].each
    flat = (tmp_path / "indexes/single-32-flat/index.faiss").stat().st_size
    ivf = (tmp_path / "indexes/multi-16x4-ivf/index.faiss").stat().st_size
    documents = len(task.documents)
    assert points["single@32 flat"].bytes == flat / documents
    assert points["multi@16x4 ivf"].bytes == ivf / documents + 4 * 16 * 4  # candidates are scored from the store
    tokens = task.documents.vectors_per_record(View("multi", 64))
    assert points["single@32:int8/5+multi@64"].bytes == 32 + 4 + tokens * 64 * 4
    funnel = search(task.queries, task.documents, Plan.parse("single@32/5+multi@64"), 100, only=set(task.qrels)).run()
    found = points["single@32/5+multi@64"].each
    assert {q for q, of in found.items() if of["recall_at_5"]} == {
        q for q, of in funnel.items() if task.qrels[q].keys() & of.keys()
    }


def test_each_document_is_pooled_once_and_each_array_coded_once(config, store, tmp_path, monkeypatch):
    pooled, coded = [], []
    pool, read = EmbeddingStore._pooled_items, EmbeddingStore.coded
    monkeypatch.setattr(
        EmbeddingStore, "_pooled_items", lambda self, i, b: pooled.append((len(i), tuple(b))) or pool(self, i, b)
    )
    monkeypatch.setattr(EmbeddingStore, "coded", lambda self, view: coded.append(view) or read(self, view))
    config = replace(config, frontier={"budgets": (8, 4, 2)})
    task = open_task(config, store)
    sweep(config, task, tmp_path)
    assert sum(count for count, _ in pooled) == len(task.documents) and {b for _, b in pooled} == {(8, 4, 2)}
    assert len(coded) == len(set(coded)) == 12


def test_what_is_held_is_what_the_store_reads(store):
    kept, held = EmbeddingStore(store / "documents"), Held(store / "documents")
    held.hold_pooled([8, 4])
    for view in map(View.parse, ("multi@64", "multi@16x4:int8", "multi@64x8:binary", "multi@16:fp16")):
        for rows in ([3], [47, 0, 11, 10], range(48)):
            mine, theirs = held.coded_rows(view, list(rows)), kept.coded_rows(view, list(rows))
            for a, b in zip(mine, theirs, strict=True):
                assert (a.decode() - b.decode()).abs().max() < 1e-6


def test_known_points_are_not_computed_again_and_others_of_settings_are(config, store, tmp_path, monkeypatch):
    computed = []
    point = frontier._point
    monkeypatch.setattr(frontier, "_point", lambda *a: computed.append(str(a[4])) or point(*a))
    task = open_task(config, store)
    small = replace(config, frontier={"heads": ("single",)})
    first = sweep(small, task, tmp_path)
    content = (tmp_path / "points.jsonl").read_bytes()
    (tmp_path / "points.jsonl").write_bytes(content[:-20])  # killed while it wrote the last
    assert [p.name for p in sweep(small, task, tmp_path)] == [p.name for p in first]
    assert computed == [p.name for p in first] + [first[-1].name]
    computed.clear()
    again = sweep(config, task, tmp_path)
    assert {p.name for p in again} - {p.name for p in first} == set(computed)
    assert [p for p in again if p.name in {f.name for f in first}][:-1] == first[:-1]
    computed.clear()
    sweep(replace(small, eval={"k": 20}), task, tmp_path)
    assert computed == [p.name for p in first]
    (tmp_path / "points.jsonl").write_text('{"of": 1}\n{oops\n')
    with pytest.raises(InputError, match=r"points.jsonl:2: cannot be read"):
        sweep(small, task, tmp_path)


def test_what_cannot_be_is_left_out_or_refused(config, store):
    documents = EmbeddingStore(store / "documents")
    names = list(map(str, ways(replace(config, frontier={"budgets": (None, 9999), "dims": (16,)}), documents)))
    assert names == ["multi@16", "multi@16:binary"]
    with pytest.raises(InputError, match=r"single@48' was not trained: choose from"):
        ways(replace(config, frontier={"dims": (48,)}), documents)
    with pytest.raises(InputError, match="nothing to sweep"):
        ways(replace(config, frontier={"heads": ("multi",), "budgets": (9999,)}), documents)


def test_advice_is_the_cheapest_within_a_share_and_the_best_under_a_bound():
    points = made_up(
        ("multi@64", 100, 9, 0.800), ("multi@32", 50, 8, 0.795), ("multi@16", 25, 2, 0.785),
        ("single@64", 20, 1, 0.7605),
        ("single@32", 10, 1, 0.76), ("single@16", 5, 0.5, 0.4), ("multi@64:fp16", 90, 9, 0.800),
    )  # fmt: skip
    advice = {one.why: one.point and one.point.name for one in recommend(points, 20, 3)}
    assert advice == {
        "best": "multi@64:fp16",
        "cheapest within 1 %": "multi@32",
        "cheapest within 2 %": "multi@16",
        "cheapest within 5 %": "single@32",
        "best of at most 20 bytes": "single@64",
        "best of at most 3 ms": "multi@16",
        "best of both": "single@64",
    }
    assert [p.name for p in best_by(points, "bytes")] == [
        "single@16", "single@32", "single@64", "multi@16", "multi@32", "multi@64:fp16",
    ]  # fmt: skip
    nothing = recommend(points, max_bytes=1)[-1]
    assert nothing.point is None and advice_lines([recommend(points)[0], nothing], 0)[-1][1] == "none"


def test_names_do_not_cover_each_other_and_stay_in_the_picture():
    points = made_up(*((f"multi@{8 * n}x{n}:int8", 2.0**n, 1.0 + n / 50, 0.5 + n / 1000) for n in range(1, 15)))
    peers = [Peer(f"a published model {n}", 900.0 + n, 0.51) for n in range(4)]
    figure = frontier_figure(points, peers, "crowded")
    for axes in figure.axes:
        renderer, inside = figure.canvas.get_renderer(), axes.get_window_extent()
        texts = [text for text in axes.texts if text.get_text()]
        assert len(texts) >= 14
        plain = [Text.get_window_extent(text, renderer) for text in texts]  # without the line that leads to it
        assert not any(a.overlaps(b) for a, b in itertools.combinations(plain, 2))
        assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in plain)
    assert place_names(figure.axes[0], [], []) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("name,bytes\na,1\n", ":1: no column ndcg_at_5"),
        ("name,bytes,ndcg_at_5\na,1,0.5\nb,many,0.5\n", ":3: bytes: 'many': not a number of bytes above 0"),
        ("name,bytes,ndcg_at_5\na,1,55\n", ":2: ndcg_at_5: '55': not between 0 and 1"),
        ("name,bytes,ndcg_at_5\na,1\n", ":2: ndcg_at_5: None: not between 0 and 1"),
        ("name,bytes,ndcg_at_5\n,1,0.5\n", ":2: name: empty"),
    ],
)
def test_a_bad_line_of_peers_is_named(content, says, tmp_path):
    (tmp_path / "peers.csv").write_text(content)
    with pytest.raises(InputError) as error:
        read_peers(tmp_path / "peers.csv")
    assert says in str(error.value)


def test_the_command_encodes_once_and_writes_everything(checkpoint, sample, tmp_path):
    (tmp_path / "peers.csv").write_text("name,bytes,ndcg_at_5\nColPali,257000,0.81\n")
    flags = ["--checkpoint", checkpoint, "--data", sample / "test", "--store", tmp_path / "s", "--out", tmp_path / "f"]
    flags += ["--peers", tmp_path / "peers.csv", "--max-bytes", 64, "frontier.timed=1", "threads=1", "device=cpu"]
    flags += ["frontier.precisions=[fp32,int8]", "frontier.budgets=[null,4]"]
    made = CliRunner().invoke(main_app, ["frontier", *map(str, flags)])
    assert made.exit_code == 0, made.stderr
    assert "cheapest within 5 %" in made.stdout and "best of at most 64 bytes" in made.stdout
    names = {path.name for path in (tmp_path / "f").iterdir()}
    assert names == {
        "frontier.csv", "frontier.md", "frontier.png", "points.jsonl", "results.json", "results.queries.json",
    }  # fmt: skip
    table = list(csv.DictReader((tmp_path / "f/frontier.csv").open()))
    assert len(table) == 12 and {"single", "multi"} == {line["head"] for line in table}
    (line,) = [line for line in table if line["way"] == "multi@16x4:int8"]
    assert (line["dim"], line["vectors"], line["precision"]) == ("16", "4", "int8")
    assert float(line["bytes_per_document"]) == 4 * (16 + 4)
    assert {line["pareto"] for line in table} == {"0", "1"}
    text = (tmp_path / "f/frontier.md").read_text()
    assert "ColPali" in text and "(frontier.png)" in text
    results = json.loads((tmp_path / "f/results.json").read_text())
    assert {row["metric"] for row in results["rows"]} >= {"ndcg_at_5", "bytes_per_document", "ms_per_query"}
    refused = CliRunner().invoke(main_app, ["frontier", "--data", str(sample)])
    assert refused.exit_code == 2 and "nothing to sweep: give --checkpoint" in refused.stderr


def test_a_store_that_keeps_less_gives_the_points_it_serves(settings, checkpoint, sample, tmp_path):
    from colmrl.encoding import encode

    config = settings(tmp_path, "encode.views=[single@32:fp16,multi@16x4:int8]", f"data.path={sample}/test")
    config = replace(config, frontier={"timed": 1})
    store = encode(config, checkpoint, sample / "test", tmp_path / "store")
    _, advice = run_frontier(config, None, store, tmp_path / "f")
    ways_there = {line["way"] for line in csv.DictReader((tmp_path / "f/frontier.csv").open())}
    assert ways_there == {"single@32:fp16", "single@32:int8", "single@32:binary", "multi@16x4:int8"}
    assert advice[0].point.name in ways_there
