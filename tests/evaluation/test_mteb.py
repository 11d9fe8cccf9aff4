"""What mteb measures of our stores: the same numbers as eval.py's and as mteb's own search."""

import itertools
import json
import shutil
from pathlib import Path

import mteb
import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.cache import ResultCache

from colmrl.configure import load_config
from colmrl.data.beir import read_beir
from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.evaluation.baselines import Bm25
from colmrl.evaluation.metrics import mean, per_query
from colmrl.evaluation.mteb_meta import open_model
from colmrl.evaluation.mteb_records import documents_of
from colmrl.evaluation.mteb_run import Judge, table_lines, write_judged
from colmrl.evaluation.mteb_stores import TaskStores
from colmrl.evaluation.mteb_tasks import local_task
from colmrl.evaluation.mteb_ways import parse_way, parse_ways
from colmrl.evaluation.rerank_report import judge_rerankers
from colmrl.evaluation.run import judge, read_results
from colmrl.models.retriever import Retriever
from colmrl.search import Plan, search
from colmrl.store import EmbeddingStore
from colmrl.view import View, parse_views

VIEWS = "single@128,single@32,multi@64,multi@16x8,single@128:binary"


@pytest.fixture(scope="module")
def config(sample):
    return load_config(None, [f"data.path={sample}/test", "device=cpu", "threads=1", "encode.shard_size=10"])


@pytest.fixture(scope="module")
def stores(config, checkpoint, tmp_path_factory):
    return TaskStores(config, checkpoint, tmp_path_factory.mktemp("mteb") / "stores")


@pytest.fixture(scope="module")
def task(config, stores, sample):
    return local_task(config, str(sample / "test"), stores.description.show, stores.folder / "datasets")


@pytest.fixture(scope="module")
def store(config, checkpoint, sample, tmp_path_factory):
    """As eval.py encodes it."""
    return encode(config, checkpoint, sample / "test", tmp_path_factory.mktemp("ours") / "store")


@pytest.fixture(scope="module")
def judged(stores, task):
    """View → what mteb says of our search."""
    results = Judge(stores, stores.folder.parent).judge([task], parse_ways(VIEWS, None, None))
    return {str(result.way.plan): result.scores.scores["test"][0] for result in results}


@pytest.fixture(scope="module")
def reranker(tiny, tmp_path_factory):
    """One that sees, and has learnt nothing."""
    from colmrl.reranking.pointwise import PointwiseModel

    model = PointwiseModel.create(load_config(None, ["task=pointwise", f"model.backbone={tiny('internvl')}"]))
    torch.nn.init.normal_(model.classifier.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    model.save(folder := tmp_path_factory.mktemp("judge") / "judge" / "checkpoint")
    return str(folder)


def test_scores_at_every_view_are_eval_pys(judged, config, store):
    ours = {(row["view"], row["metric"]): row["value"] for row in judge(config, store, parse_views(VIEWS))}
    for view, scores in judged.items():
        for metric in ("ndcg_at_5", "ndcg_at_10", "recall_at_5", "recall_at_10"):
            assert scores[metric] == pytest.approx(ours[view, metric], abs=1e-5), (view, metric)
        assert scores["main_score"] == scores["ndcg_at_5"]  # pictures: as ViDoRe
    assert len({scores["ndcg_at_10"] for scores in judged.values()}) > 1


def test_mtebs_own_search_of_encoded_views_gives_the_same(judged, stores, task):
    """Prefixes, all vectors and pooled ones; mteb cuts nothing, pools nothing and has its own search."""
    plain = [way for way in parse_ways(VIEWS, None, None) if way.plan.view.precision == "fp32"]
    for result in Judge(stores, stores.folder.parent, as_encoder=True).judge([task], plain):
        there = judged[str(result.way.plan)]
        for metric in ("ndcg_at_1", "ndcg_at_5", "ndcg_at_10", "map_at_10", "recall_at_100"):
            assert result.scores.scores["test"][0][metric] == pytest.approx(there[metric], abs=1e-4), metric


def test_similarity_is_the_views_own(stores):
    rng = np.random.default_rng(0)
    single = open_model(stores, parse_way("single@32"), as_encoder=True)
    a, b = rng.standard_normal((4, 32)).astype(np.float32), rng.standard_normal((3, 32)).astype(np.float32)
    cosine = mteb.similarity_functions.cos_sim(a, b)
    assert torch.allclose(single.similarity(a, b), cosine, atol=1e-6)
    assert torch.allclose(single.similarity(a[0], b), cosine[:1], atol=1e-6)
    assert torch.allclose(single.similarity_pairwise(a[:3], b), cosine.diagonal(), atol=1e-6)
    multi = open_model(stores, parse_way("multi@16"), as_encoder=True)
    items = [torch.from_numpy(rng.standard_normal((n, 16)).astype(np.float32)) for n in (2, 5, 3)]
    asked = items[2][None]  # as mteb hands in one query
    expected = torch.stack([(items[2] @ item.T).amax(1).mean() for item in items])
    assert torch.allclose(multi.similarity(asked, items)[0], expected, atol=1e-5)
    assert torch.allclose(multi.similarity(items[2], items)[0], expected, atol=1e-5)
    assert torch.allclose(multi.similarity_pairwise(items, items)[2], expected[2], atol=1e-5)


def test_what_is_there_is_not_computed_again(judged, config, stores, task, monkeypatch):
    def no(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(Retriever, "load", no)
    out = stores.folder.parent
    again = TaskStores(config, stores.checkpoint, stores.folder)
    Judge(again, out).judge([task], parse_ways("multi@16,multi@64x4", None, None))  # new views, no new encoding
    monkeypatch.setattr("mteb.evaluate", no)
    results = Judge(again, out).judge([task], parse_ways(VIEWS, None, None))
    assert [result.scores.get_score() for result in results] == pytest.approx(
        [scores["main_score"] for scores in judged.values()], abs=1e-6
    )
    assert not task.data_loaded


def test_encoding_goes_on_where_it_stopped(config, checkpoint, sample, tmp_path, monkeypatch):
    import colmrl.encoding

    embed, asked = colmrl.encoding.embed, []

    def dies(model, kind, records, *more):
        asked.extend(record.id for record in records)
        if len(asked) > 10:
            raise KeyboardInterrupt
        return embed(model, kind, records, *more)

    documents = read_beir(sample / "test").documents
    monkeypatch.setattr(colmrl.encoding, "embed", dies)
    with pytest.raises(KeyboardInterrupt):
        TaskStores(config, checkpoint, tmp_path).encoded("documents", documents, "t")
    asked.clear()
    monkeypatch.setattr(colmrl.encoding, "embed", lambda *a: (asked.extend(r.id for r in a[2]), embed(*a))[1])
    store = TaskStores(config, checkpoint, tmp_path).encoded("documents", documents, "t")
    assert store.ids == documents.ids and asked == documents.ids[10:]


def test_given_lists_are_scored_exactly_and_nothing_else_is(stores, task, store):
    task.load_data()
    data = task.dataset["default"]["test"]
    queries, documents = EmbeddingStore(store / "queries"), EmbeddingStore(store / "documents")
    names = documents.ids
    lists = {queries.ids[0]: [names[3], names[1], names[3], names[5]], queries.ids[1]: []}
    common = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}}
    for view in ("single@32", "multi@16x8"):
        model = open_model(stores, parse_way(view))
        model.index(data["corpus"], **common)
        found = model.search(data["queries"], top_k=2, top_ranked=lists, **common)
        exact = search(queries, documents, View.parse(view), len(names)).run()[queries.ids[0]]
        best = sorted((names[3], names[1], names[5]), key=exact.get, reverse=True)[:2]
        assert list(found[queries.ids[0]]) == best
        assert found[queries.ids[0]] == pytest.approx({name: exact[name] for name in best}, abs=1e-5)
        assert found[queries.ids[1]] == {} and found[queries.ids[2]] == {} and len(found) == len(data["queries"])
        with pytest.raises(InputError, match="document 'nope' is not in the corpus"):
            model.search(data["queries"], top_k=2, top_ranked={queries.ids[0]: ["nope"]}, **common)
    task.unload_data()


def test_indexes_and_funnels_are_measured_as_they_serve(judged, config, checkpoint, stores, task, store):
    ways = [parse_way("single@128", "flat"), parse_way("multi@64", "ivf"), parse_way("single@32/6+multi@64")]
    flat, ivf, funnel = Judge(stores, stores.folder.parent).judge([task], ways)
    assert flat.scores.get_score() == pytest.approx(judged["single@128"]["main_score"], abs=1e-6)
    assert ivf.scores.scores["test"][0]["ndcg_at_10"] == pytest.approx(judged["multi@64"]["ndcg_at_10"], abs=1e-6)
    queries, documents = EmbeddingStore(store / "queries"), EmbeddingStore(store / "documents")
    passed_on = search(queries, documents, Plan.parse("single@32/6+multi@64"), 10).run()
    predicted = json.loads((predictions(stores, funnel) / task.prediction_file_name).read_text())["default"]["test"]
    for query, found in predicted.items():
        expected = passed_on[query]
        assert found == pytest.approx(expected, abs=1e-5) and len(found) == 6
    assert len({result.meta.name for result in (flat, ivf, funnel)}) == 3
    ten = TaskStores(load_config(None, ["eval.k=10", "device=cpu"]), checkpoint, stores.folder)
    (result,) = Judge(ten, stores.folder.parent).judge([task], ways[:1])
    predicted = json.loads((predictions(stores, result) / task.prediction_file_name).read_text())["default"]["test"]
    assert {len(found) for found in predicted.values()} == {10}  # of 24, though mteb asks for 1,000


def predictions(stores, result):
    return stores.folder.parent / "predictions" / result.meta.model_name_as_path() / result.meta.revision


def test_two_stages_are_eval_pys_rerank_on_the_same_candidates(config, stores, task, store, reranker, sample, tmp_path):
    """By mteb's predictions and lists to rerank; and in one go, as the loaded model searches."""
    overrides = ["rerank.top_k=6", "device=cpu", "threads=1", "encode.shard_size=10"]
    six = load_config(None, [f"data.path={sample}/test", *overrides])
    of_six = TaskStores(six, stores.checkpoint, stores.folder)
    first, second = Judge(of_six, stores.folder.parent).judge([task], parse_ways("single@32", None, reranker))
    assert first.meta.name != second.meta.name and first.meta.revision != second.meta.revision
    theirs = load_config(
        None, [f"data.path={sample}/test", f"rerank.store={store}", "rerank.view=single@32", *overrides]
    )
    judge_rerankers(theirs, [reranker], tmp_path / "rerank")
    rows = json.loads((tmp_path / "rerank/results.json").read_text())["rows"]
    for system, result in (("first stage", None), ("judge", second)):
        ours = {row["metric"]: row["value"] for row in rows if row["system"] == system}
        assert ours, {row["system"] for row in rows}
        if result is not None:
            for metric in ("ndcg_at_5", "ndcg_at_10", "recall_at_10", "map_at_10"):
                assert result.scores.scores["test"][0][metric] == pytest.approx(ours[metric], abs=1e-5), metric
    assert second.scores.get_score() != pytest.approx(first.scores.get_score(), abs=1e-3)
    shutil.rmtree(predictions(stores, first))  # by hand, or judged by an earlier version
    shutil.rmtree(ResultCache(stores.folder.parent).get_task_result_path(task.metadata.name, second.meta).parent)
    _, again = Judge(of_six, stores.folder.parent).judge([task], [second.way])
    assert again.scores.get_score() == pytest.approx(second.scores.get_score(), abs=1e-6)
    in_one_go = mteb.evaluate(open_model(of_six, second.way), task, cache=None, show_progress_bar=False)
    assert in_one_go.task_results[0].get_score() == pytest.approx(second.scores.get_score(), abs=1e-6)


def test_data_that_changed_is_judged_anew_and_other_settings_have_other_names(config, checkpoint, sample, tmp_path):
    shutil.copytree(sample / "test", tmp_path / "data")
    stores, out = TaskStores(config, checkpoint, tmp_path / "stores"), tmp_path / "out"

    def run():
        task = local_task(config, str(tmp_path / "data"), stores.description.show, tmp_path / "datasets")
        (result,) = Judge(stores, out).judge([task], parse_ways("single@32", None, None))
        return result.scores

    before = run()
    qrels = tmp_path / "data/qrels/test.tsv"
    lines = qrels.read_text().splitlines(keepends=True)
    qrels.write_text("".join(lines[:-20]))
    after = run()
    assert after.dataset_revision != before.dataset_revision and after.get_score() != before.get_score()
    probes = TaskStores(load_config(None, ["index.probes=3", "device=cpu"]), checkpoint, tmp_path)
    names = [open_model(s, parse_way(*way)).mteb_model_meta.name for s, way in names_of(stores, probes)]
    assert names[0] == "colmrl/a-single-32" and len(set(names)) == len(names), names
    assert "colmrl/a-single-128-ivf-probes3" in names and "colmrl/a-single-32-top8--multi-64" in names


def names_of(stores, probes):
    ways = [("single@32",), ("single@128",), ("multi@64",), ("multi@64x8",), ("multi@64x8:int8",)]
    ways += [("single@128", "ivf"), ("single@128", "hnsw"), ("single@32/8+multi@64",), ("single@32/9+multi@64",)]
    return [(stores, way) for way in ways] + [(probes, ("single@128", "ivf"))]


def test_bm25_beside_is_ours_on_the_tasks_texts(stores, tmp_path):
    words = ["red ring", "blue star", "green square", "a red star", "two blue rings"]
    texts = {f"d{i}": f"{a} and {b}" for i, (a, b) in enumerate(itertools.permutations(words, 2))}
    qrels = {f"q{i}": {f"d{4 * i + j}": 1 for j in range(3)} for i in range(5)}
    (tmp_path / "data/qrels").mkdir(parents=True)
    for name, of in (("corpus", texts), ("queries", {f"q{i}": text for i, text in enumerate(words)})):
        lines = [json.dumps({"_id": id_, "text": text}) for id_, text in of.items()]
        (tmp_path / f"data/{name}.jsonl").write_text("\n".join(lines))
    lines = [f"{query}\t{document}\t1" for query, judged in qrels.items() for document in judged]
    (tmp_path / "data/qrels/test.tsv").write_text("\n".join(lines))
    task = local_task(stores.config, str(tmp_path / "data"), stores.description.show, tmp_path)
    _, result = Judge(stores, tmp_path, bm25=True).judge([task], parse_ways("single@32", None, None))
    index, run = Bm25(texts.values()), {}
    for number, text in enumerate(words):
        scores = zip(texts, map(float, index.scores(text)), strict=True)
        run[f"q{number}"] = {name: score for name, score in scores if score}
    ours = mean(per_query(run, qrels))
    for metric in ("ndcg_at_5", "ndcg_at_10", "map_at_10"):
        assert result.scores.scores["test"][0][metric] == pytest.approx(ours[metric], abs=1e-5)
    assert table_lines([result])[1][0] == "colmrl/bm25" and task.metadata.main_score == "ndcg_at_10"


def test_bm25_is_left_out_of_a_task_of_pictures(stores, task, tmp_path):
    (only,) = Judge(stores, tmp_path, bm25=True).judge([task], parse_ways("single@32", None, None))
    assert only.way is not None


def test_rows_of_earlier_runs_stay(judged, config, stores, task, tmp_path):
    path, some = tmp_path / "results.json", ",".join(list(judged)[:2])
    first, second = Judge(stores, stores.folder.parent).judge([task], parse_ways(some, None, None))
    for one in (first, second, second):
        write_judged(path, [one], config)
    rows = [row for row in read_results(path)["rows"] if row["metric"] == "ndcg_at_5"]
    assert [row["model"] for row in rows] == [first.meta.name, second.meta.name]


def test_an_old_task_of_two_languages_has_one_corpus_encoded_once_and_can_be_reranked(config, stores, reranker, sample):
    """As ViDoRe v1 and v2 load: before mteb's second format, pictures as bytes, texts that are not to be shown."""
    files = sorted((sample / "test/images").iterdir())[:6]
    images = [{"bytes": file.read_bytes(), "path": None} for file in files]
    columns = {"id": [f"d{i}" for i in range(6)], "image": images, "text": ["red star"] * 6}
    corpus = Dataset.from_dict(columns).cast_column("image", Image())
    asked = {"english": ["red ring", "blue star"], "french": ["anneau rouge", "étoile bleue"]}
    said = {"name": "OldPages", "description": "", "dataset": {"path": "none", "revision": "1"}, "category": "t2i"}
    said |= {"type": "DocumentUnderstanding", "modalities": ["text", "image"], "main_score": "ndcg_at_5"}
    said |= {"eval_langs": {"english": ["eng-Latn"], "french": ["fra-Latn"]}, "eval_splits": ["test"]}

    class OldPages(AbsTaskRetrieval):
        metadata = TaskMetadata(**said)

        def load_data(self, num_proc=None, **_):
            self.queries = {
                lang: {"test": Dataset.from_dict({"id": [f"{lang}{i}" for i in range(2)], "text": texts})}
                for lang, texts in asked.items()
            }
            self.corpus = {lang: {"test": corpus} for lang in asked}
            self.relevant_docs = {lang: {"test": {f"{lang}{i}": {f"d{i}": 1} for i in range(2)}} for lang in asked}
            self.data_loaded = True

    of_three = TaskStores(load_config(None, ["rerank.top_k=3", "device=cpu"]), stores.checkpoint, stores.folder)
    judge = Judge(of_three, stores.folder.parent)
    first, second = judge.judge([OldPages()], parse_ways("multi@64", None, reranker))
    subsets = {entry["hf_subset"]: entry["main_score"] for entry in first.scores.scores["test"]}
    assert set(subsets) == {"english", "french"} and len(second.scores.scores["test"]) == 2
    (one,) = stores.task_folder("OldPages").glob("documents-*/documents")
    assert len(list(stores.task_folder("OldPages").glob("queries-*"))) == 2
    kept = [str(path) for path in stores.pictures.rglob("*") if path.is_file()]
    assert len(kept) == 6 and {Path(path).read_bytes() for path in kept} == {image["bytes"] for image in images}
    shown = documents_of(corpus, ["image"], stores.pictures)
    assert [one.body for one in shown] == [""] * 6
    expected = TaskStores(stores.config, stores.checkpoint, stores.folder).encoded("documents", shown, "again")
    assert EmbeddingStore(one).manifest.content_hash == expected.manifest.content_hash
    reranked = json.loads((predictions(stores, second) / "OldPages_predictions.json").read_text())
    assert all(len(found) == 3 for lang in asked for found in reranked[lang]["test"].values())
