"""What is submitted to mteb: read by its loader, shown by its leaderboard's code, loaded by its ModelMeta."""

import json
import runpy
import shutil

import mteb
import pytest
from datasets import Dataset
from mteb.benchmarks import Benchmark, _create_table
from mteb.cache import ResultCache
from mteb.models.model_implementations import MODEL_REGISTRY

from colmrl.configure import load_config
from colmrl.errors import InputError
from colmrl.evaluation.mteb_meta import load_model, model_meta
from colmrl.evaluation.mteb_run import Judge
from colmrl.evaluation.mteb_stores import TaskStores
from colmrl.evaluation.mteb_submission import check_submission, write_submission
from colmrl.evaluation.mteb_ways import parse_way, parse_ways
from colmrl.models.retriever import Retriever
from colmrl.reranking.pointwise import PointwiseModel

SAID = ["mteb.name=some/model", "mteb.license=apache-2.0", "mteb.languages=[eng-Latn]"]
SAID += ["mteb.training_datasets=[SciFact]", "mteb.release_date=2026-01-02", "mteb.reference=https://some.where"]
WORDS = ["red ring", "blue star", "green square", "a red star", "two blue rings", "black cross"]


@pytest.fixture(scope="module")
def reader(tiny, tmp_path_factory):
    """A text model with both heads, which has learnt nothing; and a reranker."""
    folder = tmp_path_factory.mktemp("reader")
    heads = ["single.dims=[128,64,32]", "multi.dims=[64,16]", "model.document_fields=[text]", "device=cpu"]
    Retriever.create(load_config(None, [f"model.backbone={tiny('bert')}", *heads])).save(folder / "run/checkpoint")
    lengths = ["model.max_query_tokens=100", "model.max_document_tokens=200", "model.document_fields=[text]"]
    config = load_config(None, ["task=pointwise", f"model.backbone={tiny('bert')}", *lengths])
    PointwiseModel.create(config).save(folder / "judge/checkpoint")
    return folder


@pytest.fixture(scope="module")
def task():
    """mteb's SciFact with some words in it, on this machine."""
    made = mteb.get_task("SciFact")
    documents = [f"{a} and {b}" for a in WORDS for b in WORDS]
    corpus = Dataset.from_dict({"id": [f"d{i}" for i in range(36)], "title": [""] * 36, "text": documents})
    queries = Dataset.from_dict({"id": [f"q{i}" for i in range(6)], "text": WORDS})
    qrels = {f"q{i}": {f"d{6 * i + j}": 1 for j in range(3)} for i in range(6)}
    split = {"corpus": corpus, "queries": queries, "relevant_docs": qrels, "top_ranked": None}
    made.dataset, made.data_loaded = {"default": {"test": split}}, True
    made.unload_data = lambda: None
    return made


@pytest.fixture(scope="module")
def submitted(reader, task, tmp_path_factory):
    """Results, and the folder of them."""
    out = tmp_path_factory.mktemp("out")
    config = load_config(None, ["device=cpu", "threads=1", *SAID])
    stores = TaskStores(config, reader / "run/checkpoint", reader / "run/mteb/stores")
    ways = [*parse_ways("single@64,multi@64x4:int8", None, None), parse_way("single@64", "flat")]
    ways.append(parse_way("single@64", None, str(reader / "judge/checkpoint")))
    results = Judge(stores, out).judge([task], ways)
    write_submission(results, out, out / "submit")
    return results, out / "submit"


def test_mtebs_loader_reads_what_is_submitted_and_nothing_else(submitted):
    results, folder = submitted
    loaded = ResultCache(folder).load_results(tasks=["SciFact"], validate_and_filter=True)
    scores = {model.model_name: model.task_results[0].get_score() for model in loaded}
    assert scores == pytest.approx({one.meta.name: one.scores.get_score() for one in results}, abs=1e-6)
    assert len(results) == 4 == len(scores)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = {"colmrl_models.py"}
    for one in results:
        place = f"results/{one.meta.name.replace('/', '__')}/{one.meta.revision}"
        expected |= {f"{place}/{name}" for name in ("SciFact.json", "model_meta.json", "run_settings.jsonl")}
    assert files == expected


def test_the_leaderboards_table_shows_every_entry(submitted, task, monkeypatch):
    results, folder = submitted
    for one in results:
        monkeypatch.setitem(MODEL_REGISTRY, one.meta.name, one.meta)
    cached = [_create_table._static_model_meta, _create_table._meta_df_no_zs, _create_table._meta_df_with_zs]
    cached += [_create_table._training_datasets_cached, _create_table._zero_shot_pct_cached]
    for function in cached:
        function.cache_clear()
    board = Benchmark(name="ours", tasks=[task], description="", reference=None, citation=None)
    table = ResultCache(folder).load_results(tasks=board, validate_and_filter=True).get_benchmark_result()
    for function in cached:
        function.cache_clear()
    rows = {row["Model"]: row for row in table.to_dict("records")}
    assert set(rows) == {one.meta.name for one in results}
    for one in results:
        row = rows[one.meta.name]
        assert row["Mean (Task)"] == pytest.approx(one.scores.get_score(), abs=1e-5)
        assert row["Embedding Dimensions"] == 64 and row["Max Tokens"] == 512 and row["Zero-shot"] == 0


def test_an_entry_says_what_the_view_is(submitted, reader):
    single, multi, flat, two = (one.meta for one in sorted(submitted[0], key=lambda one: bool(one.way.reranker)))
    assert [single.name, multi.name] == ["some/model-single-64", "some/model-multi-64x4-int8"]
    assert flat.name == "some/model-single-64-flat" and two.name == "some/model-single-64-rerank-judge-top_k20"
    assert single.embed_dim == [64, 32] and multi.embed_dim == [64, 16] and flat.embed_dim == [64]
    assert [str(one.similarity_fn_name.value) for one in (single, multi)] == ["cosine", "MaxSim"]
    assert [single.model_type, multi.model_type] == [["dense"], ["late-interaction"]]
    assert two.model_type == ["dense", "cross-encoder"] and two.revision != single.revision == multi.revision
    assert multi.output_dtypes.value == "int8" and single.output_dtypes is None
    model = Retriever.load(reader / "run/checkpoint")
    assert single.n_parameters == sum(p.numel() for p in model.parameters())
    assert single.n_embedding_parameters == model.backbone.model.get_input_embeddings().weight.numel()
    assert single.memory_usage_mb == pytest.approx(single.n_parameters * 4 / 2**20, abs=0.1)
    assert single.max_tokens == 512 and single.modalities == ["text"] and single.training_datasets == {"SciFact"}
    assert single.license == "apache-2.0" and single.languages == ["eng-Latn"] and not single.use_instructions


def test_modelmeta_loads_the_model_from_its_folder(submitted, task):
    results, folder = submitted
    written = runpy.run_path(str(folder / "colmrl_models.py"))["models"]
    assert written == list({one.meta.name: one.meta for one in results}.values())
    of_name = {one.meta.name: one.scores.get_score() for one in results}
    for meta in written:
        model = meta.load_model()
        assert isinstance(model, mteb.SearchProtocol) and model.mteb_model_meta.name == meta.name
        score = mteb.evaluate(model, task, cache=None, show_progress_bar=False).task_results[0].get_score()
        task.dataset["default"]["test"]["top_ranked"], task._top_k = None, 1000
        assert score == pytest.approx(of_name[meta.name], abs=1e-6), meta.name
    assert written[0].load_model(embed_dim=32)._way.plan.view.dim == 32
    with pytest.raises(InputError, match=f"is revision {written[0].revision}, not 0123 "):
        load_model("some/model", "0123", **written[0].loader_kwargs)


def test_a_result_that_mteb_does_not_read_is_told(submitted, tmp_path):
    results, folder = submitted
    shutil.copytree(folder, tmp_path / "cut")
    (path,) = (tmp_path / "cut").glob("results/some__model-single-64/*/SciFact.json")
    said = json.loads(path.read_text())
    said["scores"]["test"][0]["main_score"] += 0.01
    path.write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"mteb reads 0\.\d+ for some/model-single-64 on SciFact, not"):
        check_submission(results, tmp_path / "cut")
    path.unlink()
    with pytest.raises(InputError, match="mteb does not read some/model-single-64 on SciFact"):
        check_submission(results, tmp_path / "cut")


def test_what_modelmeta_does_not_take_is_a_line(submitted, reader):
    config = load_config(None, ["mteb.license=mine"])
    stores = TaskStores(config, reader / "run/checkpoint", reader)
    with pytest.raises(InputError, match=r"^mteb.license: "):
        model_meta(stores, parse_way("single@64"))
    for said, told in (
        ("name=nameless", r"^mteb.name: .*organization/model_name"),
        ("licence=mit", r"^mteb.licence: ModelMeta has no such field: did you mean license"),
        ("revision=1", r"^mteb.revision: is measured, not said"),
    ):
        stores = TaskStores(load_config(None, [f"mteb.{said}"]), reader / "run/checkpoint", reader)
        with pytest.raises(InputError, match=told):
            model_meta(stores, parse_way("single@64"))
