"""eval.py mteb, with tiny models, as typed; and what it refuses."""

import importlib.util
import json
import shutil

import mteb
import pytest
from commands import call, refused
from PIL import Image

from colmrl.cli.evaluate import eval_app
from colmrl.config import ShowConfig
from colmrl.configure import load_config
from colmrl.errors import InputError
from colmrl.evaluation.mteb_records import documents_of
from colmrl.evaluation.mteb_run import Judge
from colmrl.evaluation.mteb_stores import TaskStores
from colmrl.evaluation.mteb_tasks import benchmark_tasks, is_retrieval, local_task, named_tasks
from colmrl.evaluation.mteb_ways import parse_ways
from colmrl.models.retriever import Retriever

FLAGS = ["device=cpu", "threads=1"]


@pytest.fixture(scope="module")
def reader(tiny, tmp_path_factory):
    """A text model."""
    folder = tmp_path_factory.mktemp("reader") / "run" / "checkpoint"
    Retriever.create(load_config(None, [f"model.backbone={tiny('bert')}", "single.dims=[64]", *FLAGS])).save(folder)
    return folder


def test_a_folder_is_judged_and_the_second_time_nothing_is_computed(checkpoint, sample, tmp_path, monkeypatch):
    flags = ["mteb", "--checkpoint", checkpoint, "--data", sample / "test", "--out", tmp_path / "out", *FLAGS]
    views = "single@128,single@32/6+multi@64x8"
    done = call(eval_app, *flags, "--views", views, "--submit", tmp_path / "submit")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-2:] == [str(tmp_path / "submit"), str(tmp_path / "out")]
    said = json.loads((tmp_path / "out/results.json").read_text())
    rows = {(row["view"], row["metric"]): row for row in said["rows"]}
    for view in views.split(","):
        row = rows[view, "ndcg_at_5"]
        assert row["task"] == "local-data-test" and f"{row['value']:.4f}" in done.stdout and row["model"] in done.stdout
    assert len(list((tmp_path / "submit").glob("results/*/*/local-data-test.json"))) == 2
    monkeypatch.setattr("mteb.evaluate", None)
    monkeypatch.setattr(Retriever, "load", None)
    again = call(eval_app, *flags, "--views", views)
    assert again.exit_code == 0, again.output
    assert again.stdout.splitlines()[:-1] == done.stdout.splitlines()[:-2]


def test_wrong_input_is_a_line(checkpoint, reader, sample, tmp_path, monkeypatch):
    def asked(*flags, model=checkpoint, views="single@32"):
        return call(eval_app, "mteb", "--checkpoint", model, "--views", views, "--out", tmp_path, *flags, *FLAGS)

    data = ["--data", sample / "test"]
    refused(asked(), "give one of --benchmark, --task (also several), --data")
    refused(asked(*data, "--task", "SciFact"), "give one of --benchmark")
    refused(asked("--task", "SciFacts"), "--task SciFacts: no task of mteb")
    refused(asked("--benchmark", "ViDoRe(v33)"), "Did you mean: ViDoRe(v3)")
    refused(asked("--benchmark", "SciFact"), "--benchmark SciFact: no benchmark of mteb")
    refused(asked("--task", "STS12"), "STS12: no retrieval")
    refused(asked("--task", "VidoreArxivQARetrieval", model=reader, views="single@64"), "does not see")
    refused(asked(*data, views="single@33"), "view 'single@33' was not trained: choose from single@128, single@32")
    refused(asked(*data, views=","), "--views: names none")
    refused(asked(*data, "--index", "hsnw"), "--index hsnw: neither a type (flat, ivf,")
    refused(asked(*data, "--index", "hnsw", views="multi@64"), "index.type: hnsw")
    refused(asked(*data, "--encoder", views="single@32/5+multi@64"), "--encoder: single@32/5+multi@64: mteb searches")
    refused(asked(*data, "--rerank", checkpoint), "a retriever's checkpoint, no reranker")
    refused(asked(*data, model=sample), "not a colmrl checkpoint")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mteb" else found(name))
    refused(asked(*data), 'mteb is not installed: pip install "mteb>=2.26"')


def test_a_task_whose_data_is_not_here_says_so(reader, tmp_path, monkeypatch):
    def no_hub(*_, **__):
        raise ConnectionError("Couldn't reach 'mteb/scifact' on the Hub")

    monkeypatch.setattr("mteb.abstasks.retrieval.RetrievalDatasetLoader", no_hub)
    flags = ["--checkpoint", reader, "--views", "single@64", "--task", "SciFact", "--out", tmp_path, *FLAGS]
    refused(call(eval_app, "mteb", *flags), "SciFact: its data cannot be had here (Couldn't reach 'mteb/scifact'")


def test_benchmarks_are_mtebs_and_of_mixed_ones_retrieval_is_judged(reader, tmp_path, monkeypatch):
    assert len(benchmark_tasks("ViDoRe(v3)")) == 10 and all(map(is_retrieval, benchmark_tasks("ViDoRe(v2)")))
    assert [task.metadata.name for task in named_tasks(["MIRACLVisionRetrieval"])] == ["MIRACLVisionRetrieval"]
    tasks = benchmark_tasks("MTEB(eng, v2)")
    kept = {task.metadata.name for task in tasks if is_retrieval(task)}
    listed = {task.metadata.name for task in tasks if task.metadata.type in ("Retrieval", "Reranking")}
    assert kept == listed and 8 < len(kept) < len(tasks)
    ways, stores = parse_ways("single@64", None, None), TaskStores(load_config(None, FLAGS), reader, tmp_path)
    for as_encoder, expected in ((False, kept), (True, {task.metadata.name for task in tasks})):
        judge = Judge(stores, tmp_path, as_encoder)
        assert {task.metadata.name for task in judge._fit(tasks, ways, [])} == expected


def test_several_pictures_and_what_mteb_cannot_open_come_into_a_local_task(tmp_path):
    """A document of two pictures, and a GIF's frames' like that are no files: here a table's cell."""
    folder = tmp_path / "my pages"
    (folder / "qrels").mkdir(parents=True)
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(folder / name)
    corpus = [{"_id": "1", "image": ["a.png", "b.png"]}, {"_id": "2", "title": "t", "text": "x"}]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "what?"}\n{"_id": "other", "text": "unjudged"}')
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t2\n")
    task = local_task(load_config(None, FLAGS), str(folder), ShowConfig(), tmp_path / "made")
    said = task.metadata
    assert (said.name, said.type, said.category) == (f"local-{tmp_path.name}-my_pages", "DocumentUnderstanding", "t2it")
    assert (said.main_score, said.is_public, said.languages) == ("ndcg_at_5", False, ["und"])
    task.load_data()
    data = task.dataset["default"]["test"]
    assert data["queries"]["id"] == ["q"] and data["relevant_docs"] == {"q": {"1": 2}}
    found = documents_of(data["corpus"], ["image", "text"], tmp_path / "pictures")
    assert found[0].images == (str(folder / "a.png"), str(folder / "b.png")) and found[1].images == ()
    assert found[1].body == "t x" and not (tmp_path / "pictures").exists()
    task.unload_data()
    assert task.metadata is said
    task.load_data()


def test_queries_that_are_documents_are_refused_since_mteb_would_count_them(tmp_path, sample):
    shutil.copytree(sample / "test", tmp_path / "data")
    lines = (tmp_path / "data/queries.jsonl").read_text().splitlines()
    first = json.loads(lines[0]) | {"itself": json.loads((tmp_path / "data/corpus.jsonl").open().readline())["_id"]}
    (tmp_path / "data/queries.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]))
    with pytest.raises(InputError, match="queries that are documents themselves"):
        local_task(load_config(None, FLAGS), str(tmp_path / "data"), ShowConfig(), tmp_path)


def test_the_pinned_mteb_is_the_one_that_was_read():
    assert mteb.__version__.startswith("2.26.")
