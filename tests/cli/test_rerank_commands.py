"""eval.py rerank, eval.py baselines, colmrl search --rerank, with tiny models, as typed."""

import json

import numpy as np
import pytest
from commands import call, refused

from colmrl.cli.evaluate import eval_app
from colmrl.cli.main import main_app
from colmrl.configure import load_config
from colmrl.data.qilin_sample import write_qilin_sample
from colmrl.data.reading import read_collection
from colmrl.data.sequences_sample import write_sequences_sample
from colmrl.reranking.candidates import from_run, shown
from colmrl.reranking.reranker import open_reranker


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory):
    """A pointwise model that reads texts, and a listwise one that sees; neither has learnt anything."""
    from colmrl.reranking.listwise import ListwiseReranker
    from colmrl.reranking.pointwise import PointwiseModel

    folder, made = tmp_path_factory.mktemp("rerankers"), {}
    text = ["model.document_fields=[text]"]
    for task, family, kind, fields in (
        ("pointwise", "qwen3", PointwiseModel, text),
        ("listwise", "internvl", ListwiseReranker, []),
    ):
        config = load_config(None, [f"task={task}", f"model.backbone={tiny(family)}", *fields])
        made[task] = folder / task / "checkpoint"
        kind.create(config).save(made[task])
    return made


@pytest.fixture(scope="module")
def qilin(tmp_path_factory):
    return write_qilin_sample(tmp_path_factory.mktemp("qilin") / "q", searches=6, notes=30, test_searches=5)


def values_of(folder, protocol=None):
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return {(r["system"], r["metric"]): r["value"] for r in rows if r["protocol"] == protocol}


def test_shown_lists_are_judged_by_both_definitions_and_go_on_where_they_stopped(models, qilin, tmp_path):
    out = tmp_path / "out"
    flags = ["rerank", "--model", models["pointwise"], "--data", qilin, "--protocol", "qilin", "--out", out]
    done = call(eval_app, *flags, "device=cpu")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(out) and "qilin's protocol, shown" in done.stdout
    full, official = values_of(out), values_of(out, "qilin")
    systems = ["position order", "random order", "BM25", "pointwise"]
    assert list(dict.fromkeys(system for system, _ in full)) == systems
    for metric in ("recall_at_10", "mrr_at_10", "mrr_at_100", "map_at_10", "ndcg_at_10"):
        assert all(0 <= full[system, metric] <= 1 for system in systems)
    for system in systems:  # one definition, and random order is the mean of shuffles in both tables
        assert official[system, "mrr_at_10"] == pytest.approx(full[system, "mrr_at_10"])
    assert ("pointwise", "precision_at_100") in official and ("pointwise", "ndcg_at_10") not in official
    collection = read_collection(str(qilin), load_config(None).data)
    lists = shown(collection, "test")
    run = from_run(out / "reranked.trec", collection, "test", 1000)
    reranker = open_reranker(models["pointwise"])
    for query, names in lists.of.items():
        scores = reranker.score(collection.queries.named(query), [collection.documents.named(name) for name in names])
        assert run.of[query] == tuple(names[i] for i in np.argsort(-scores, kind="stable"))
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name.startswith("reranked")}
    scores = out / "reranked.scores.jsonl"
    scores.write_bytes(b"".join(scores.read_bytes().splitlines(keepends=True)[:3]))
    assert call(eval_app, *flags, "device=cpu").exit_code == 0
    assert {name: (out / name).read_bytes() for name in before} == before
    refused(call(eval_app, *flags, "device=cpu", "rerank.batch_size=3"), "another model")


def test_several_systems_share_a_table_and_a_store_is_one(models, store, sample, tmp_path):
    out, data = tmp_path / "out", sample / "train"
    first = ["--store", store, "--view", "single@32", "--split", "train"]
    judged = ["--model", models["listwise"], "--model", store, "rerank.top_k=5", "rerank.queries=12"]
    done = call(main_app, "eval", "rerank", *judged, *first, "--data", data, "--out", out, "device=cpu")
    assert done.exit_code == 0, done.output
    values = values_of(out)
    again = f"{store} at single@32"
    assert {"first stage", "listwise", again, "best possible"} <= {system for system, _ in values}
    assert values[again, "ndcg_at_5"] == pytest.approx(values["first stage", "ndcg_at_5"])  # by the same scores
    assert values["best possible", "recall_at_5"] == pytest.approx(values["listwise", "recall_at_5"])
    positions = json.loads((out / "results.json").read_text())["positions"]
    assert {row["system"] for row in positions} == {"listwise", again} and "by the position" in (
        out / "report.md"
    ).read_text()
    assert (out / "reranked.trec").is_file() and (out / "reranked-2.trec").is_file()


def test_a_run_of_the_baselines_is_reranked(models, tmp_path):
    data = write_sequences_sample(tmp_path / "data", users=6, items=16)
    made = call(eval_app, "baselines", "--data", data, "--out", tmp_path / "b", "--k", 4)
    assert made.exit_code == 0 and "Markov" in made.stdout, made.output
    flags = ["--model", models["pointwise"], "--data", data, "--run", tmp_path / "b/markov.trec", "device=cpu"]
    done = call(eval_app, "rerank", *flags, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    first = {key: value for key, value in values_of(tmp_path / "out").items() if key[0] == "first stage"}
    markov = {key[1]: value for key, value in values_of(tmp_path / "b").items() if key[0] == "Markov"}
    assert {metric: value for (_, metric), value in first.items()} == markov
    drawn = call(eval_app, "rerank", *flags[:4], "rerank.sampled=3", "device=cpu", "--out", tmp_path / "drawn")
    assert "ground_truth, split test, 6 queries" in drawn.stdout


def test_the_first_command_is_meant_where_none_is_named(store, tmp_path):
    one, two = (tmp_path / f"{n}.json" for n in range(2))
    flags = ["--store", store, "--views", "single@32", "--split", "train"]
    assert call(eval_app, *flags, "--out", one).exit_code == 0
    assert call(main_app, "eval", *flags, "--out", two).exit_code == 0
    assert json.loads(one.read_text())["rows"] == json.loads(two.read_text())["rows"]
    refused(call(eval_app), "nothing to judge: give --store")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to judge: give --model"),
        (["--model", "MODEL", "--protocol", "trec"], "--protocol trec: unknown"),
        (["--model", "MODEL", "--protocol", "qilin"], "is not of Qilin's tables"),
        (["--model", "MODEL", "--mode", "shown"], "has no lists that were shown"),
        (["--model", "MODEL", "--mode", "best"], "rerank.mode"),
        (["--model", "CHECKPOINT"], "a retriever's checkpoint, no reranker"),
        (["--model", "MODEL", "--model", "MODEL"], "one is given twice"),
        (["--model", "MODEL", "--run", "nowhere.trec"], "nowhere.trec: no such file"),
    ],
)
def test_wrong_input_is_one_line(arguments, says, models, checkpoint, sample, tmp_path):
    places = {"MODEL": models["pointwise"], "CHECKPOINT": checkpoint}
    given = [places.get(argument, argument) for argument in arguments]
    refused(call(eval_app, "rerank", *given, "--data", sample / "test", "device=cpu", "--out", tmp_path / "o"), says)
    assert not (tmp_path / "o").exists()


def test_a_search_is_reranked(models, store, tmp_path):
    flags = ["search", "--store", store, "--query", "red circle", "--k", 4, "device=cpu"]
    assert call(main_app, *flags, "--out", tmp_path / "a", "--view", "single@32").exit_code == 0
    more = ["--rerank", models["listwise"], "rerank.top_k=4", "rerank.permutations=2"]
    done = call(main_app, *flags, *more, "--out", tmp_path / "b", "--view", "single@32")
    assert done.exit_code == 0, done.output
    found, ranked = (
        [json.loads(line) for line in (tmp_path / name / "results.jsonl").read_text().splitlines()] for name in "ab"
    )
    assert {row["id"] for row in ranked} == {row["id"] for row in found}
    scores = [row["score"] for row in ranked]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-5)
    assert [row["rank"] for row in ranked] == [1, 2, 3, 4] and "reranked by listwise" in ranked[0]["view"]
    refused(call(main_app, *flags, "--rerank", store), "a store: give a reranker's checkpoint")
