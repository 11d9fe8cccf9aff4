"""The scripts as a person types them: wrong input is one line and exit code 2, and nothing is overwritten."""

import json
import shutil

import pyarrow.parquet
import pytest
from commands import call, refused

from colmrl.cli.evaluate import eval_app
from colmrl.cli.main import main_app
from colmrl.cli.mine import mine_app
from colmrl.cli.train import train_app
from colmrl.models.retriever import Retriever


@pytest.fixture
def data(sample, tmp_path):
    return shutil.copytree(sample / "train", tmp_path / "data")


def snapshot(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_four_stages_and_the_loop_go_by_hand(tiny, sample, tmp_path):
    run, data = tmp_path / "run", sample / "train"
    flags = ["--config", "demo", "--output", run, "--data", data, "--batch_size", 8, "--lora"]
    more = [f"model.backbone={tiny('qwen3_vl')}", "train.negatives=0", "train.max_steps=1", "device=cpu"]
    assert call(train_app, *flags, *more).stdout.strip() == str(run / "checkpoint")
    assert (run / "checkpoint/adapter").is_dir()
    views = "single@64,multi@64x8"
    made = call(main_app, "encode", "--checkpoint", run / "checkpoint", "--data", data, "--views", views)
    store = run / "store"
    assert made.stdout.strip() == str(store), made.stderr
    filters = "mine.filters=[{duplicates: true}, {relative_margin: 0}]"
    mined = call(mine_app, "--store", store, "--view", "single@64", "--k", 20, "--no-gpu", filters)
    assert mined.stdout.splitlines()[-1] == str(run / "triples.jsonl"), mined.stderr
    assert "known answers" in mined.stdout and "relative_margin 0" in mined.stdout
    assert json.loads((run / "triples.jsonl").read_text().splitlines()[0])["pos"].startswith("images/")
    judged = call(eval_app, "--store", store, "--views", "single@16,multi@32x8", "--split", "train")
    assert judged.exit_code == 0, judged.stderr
    rows = json.loads((store / "results.json").read_text())["rows"]
    assert {row["view"] for row in rows} == {"single@16", "multi@32x8"} and "multi@32x8" in judged.stdout
    again = [*flags[:2], "--output", tmp_path / "two", "--triples", run / "triples.jsonl", *flags[4:], *more]
    assert call(train_app, *again, "train.negatives=1", f"train.init_from={run}/checkpoint").exit_code == 0
    Retriever.load(tmp_path / "two/checkpoint")


def test_dashes_and_underscores_are_the_same_in_a_flag(tmp_path):
    for flag in ("--batch-size", "--batch_size"):
        refused(call(train_app, flag, 4, "--output", tmp_path / "o"), "data.path: not given")


def test_a_missing_image(data, settings, tmp_path, tiny):
    (data / "images/train-000-3.png").unlink()
    result = call(train_app, "--data", data, "--output", tmp_path / "o", f"model.backbone={tiny('internvl')}")
    refused(result, "corpus.jsonl:4: image: no such file")
    assert not (tmp_path / "o").exists()


def test_an_unknown_id_in_the_qrels(data, tmp_path, tiny):
    with (data / "qrels/train.tsv").open("a") as file:
        file.write("train-q0\tnobody\t1\n")
    number = len((data / "qrels/train.tsv").read_text().splitlines())
    result = call(train_app, "--data", data, "--output", tmp_path / "o", f"model.backbone={tiny('internvl')}")
    refused(result, f"train.tsv:{number}: corpus-id: unknown id 'nobody'")


def test_a_malformed_line(data, checkpoint, tmp_path):
    rows = (data / "queries.jsonl").read_text().splitlines()
    (data / "queries.jsonl").write_text("\n".join([*rows[:41], "{oops", *rows[42:]]))
    result = call(main_app, "encode", "--checkpoint", checkpoint, "--data", data, "--out", tmp_path / "s")
    refused(result, "queries.jsonl:42: line: not JSON")
    assert not (tmp_path / "s").exists()


def test_an_empty_corpus(data, checkpoint, tmp_path):
    (data / "corpus.jsonl").write_text("")
    result = call(main_app, "encode", "--checkpoint", checkpoint, "--data", data, "--out", tmp_path / "s")
    refused(result, "corpus.jsonl: empty corpus")
    assert not (tmp_path / "s").exists()


def test_a_view_that_was_not_trained(store, checkpoint, sample, tmp_path):
    before = snapshot(store)
    refused(call(eval_app, "--store", store, "--split", "train", "--views", "single@48"), "single@48' was not trained")
    arguments = ["encode", "--checkpoint", checkpoint, "--data", sample / "train", "--out", tmp_path / "s"]
    refused(call(main_app, *arguments, "--views", "multi@128"), "choose from single@128, single@32, multi@64, multi@16")
    assert snapshot(store) == before and not (tmp_path / "s").exists()


def test_a_store_of_another_checkpoint(store, checkpoint, sample, tmp_path):
    other = shutil.copytree(checkpoint, tmp_path / "other/checkpoint")
    model = Retriever.load(other)
    model.multi.projection.weight.data += 1
    model.save(other)
    mine = shutil.copytree(store, tmp_path / "other/store")
    before = snapshot(mine)
    result = call(
        main_app, "encode", "--checkpoint", other, "--data", sample / "train", "encode.shard_size=10", "device=cpu"
    )
    refused(result, "another fingerprint")
    assert snapshot(mine) == before


def test_places_that_cannot_be_written(checkpoint, data, tmp_path):
    (tmp_path / "file").write_text("precious")
    arguments = ["encode", "--checkpoint", checkpoint, "--data", data, "--out"]
    refused(call(main_app, *arguments, tmp_path / "file"), "file")
    refused(call(main_app, "prepare", "sample", "--out", tmp_path / "file"), "exists and is not empty")
    refused(call(train_app, "--data", data, "--output", tmp_path / "file"), "file: cannot be written (File exists)")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["eval"], "nothing to judge"),
        (
            ["train", "--config", "nowhere"],
            "no such config: give a YAML file or one of the recipes: amazon-beauty",
        ),
        (["train", "train.epoch=3"], "did you mean train.epochs?"),
        (["loop", "--config", "demo", "model.backbone=tiny:gpt", "--output"], "unknown: choose from qwen2_vl"),
        (["prepare", "tiny-model", "--family", "gpt", "--out"], "unknown: choose from qwen2_vl"),
        (["mine", "--view", "single@64", "--store"], "not a store"),
        (["prepare", "sample", "--searches", "5", "--out"], "--searches: of --kind qilin alone, not shapes"),
        (["export", "nowhere", "--out"], "nowhere: not a reranker"),
    ],
)
def test_other_wrong_input(arguments, says, tmp_path):
    paths = [tmp_path / "new"] if arguments[-1].startswith("--") else []
    refused(call(main_app, *arguments, *paths), says)


def test_a_bad_line_can_be_skipped_and_is_counted(data, checkpoint, tmp_path, caplog):
    with (data / "corpus.jsonl").open("a") as file:
        file.write("{oops\n")
    arguments = ["encode", "--checkpoint", checkpoint, "--data", data, "--out", tmp_path / "s", "device=cpu"]
    refused(call(main_app, *arguments), "corpus.jsonl:49")
    result = call(main_app, *arguments, "--no-strict")
    assert result.exit_code == 0 and "skipped 1 bad lines, read 48" in result.stderr


def test_prepare_writes_what_the_other_commands_take(tmp_path):
    assert call(main_app, "prepare", "tiny-model", "--family", "qwen3", "--out", tmp_path / "m").exit_code == 0
    assert (tmp_path / "m/model.safetensors").is_file()
    made = call(main_app, "prepare", "sample", "--out", tmp_path / "d", "--seed", 1)
    assert made.exit_code == 0 and (tmp_path / "d/test/qrels/test.tsv").is_file()
    made = call(main_app, "prepare", "sample", "--kind", "qilin", "--searches", 8, "--out", tmp_path / "q")
    assert made.exit_code == 0, made.stderr
    files = [tmp_path / f"q/search_{split}.parquet" for split in ("train", "test")]
    assert [pyarrow.parquet.read_metadata(file).num_rows for file in files] == [8, 2]
