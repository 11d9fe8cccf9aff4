import json
import shutil

import pytest
import torch
from conftest import FAMILIES
from engine import weights
from transformers import TrainerCallback
from typer.testing import CliRunner

from colmrl.cli.train import train_app
from colmrl.configure import load_config
from colmrl.data.beir import read_corpus, read_qrels, read_queries
from colmrl.data.reading import read_training
from colmrl.data.records import Triple, relevant
from colmrl.data.triples import write_triples
from colmrl.errors import InputError
from colmrl.models.retriever import Retriever
from colmrl.training import resumable
from colmrl.training.run import negatives_to_use, train


def train_app_config(*arguments):
    """The configuration that train.py would run with."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("colmrl.training.run.train", seen.append)
        assert CliRunner().invoke(train_app, list(arguments)).exit_code == 0
    return seen[0]


def triples(sample, path, negatives=3):
    folder = sample / "train"
    queries, documents = read_queries(folder), read_corpus(folder)
    qrels = read_qrels(folder, "train", {q.id for q in queries}, {d.id for d in documents})
    made = []
    for query_id, judged in qrels.items():
        known = relevant(judged)
        others = [d.id for d in documents if d.id not in known][:negatives]
        made += [Triple(query_id, positive, tuple(others), 0.5, (0.1,) * len(others)) for positive in sorted(known)]
    write_triples(path, made, queries, documents, str(folder))
    return path


@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_what_it_should_and_nothing_else(family, tuning, settings, tmp_path):
    text_only = ["model.document_fields=[text]", f"data.triples={tmp_path}/t.jsonl"]
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"query": f"red {i}", "pos": f"circle {i}", "negs": [f"ring {i}"]}) + "\n" for i in range(8))
    )
    overrides = [f"model.tuning={tuning}", *(text_only if family in ("qwen3", "bert") else [])]
    config = settings(tmp_path / "a", *overrides, family=family)
    start = {name: p.clone() for name, p in Retriever.create(config).named_parameters() if name}
    model = Retriever.load(train(config))
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    expected = {
        "full": {name for name in start if name.startswith("backbone")},
        "lora": {name for name in start if "lora_B" in name},
        "frozen": set(),
    }[tuning]
    assert "multi.projection.weight" in changed
    trained_backbone = {name for name in changed if name.startswith("backbone")}
    assert trained_backbone >= expected if tuning == "lora" else len(trained_backbone) >= 0.8 * len(expected)
    assert tuning == "full" or all("lora_" in name for name in trained_backbone)
    if tuning == "frozen":
        assert not trained_backbone


def test_the_loss_falls(settings, tmp_path):
    train(settings(tmp_path / "a", "train.max_steps=60", "train.log_steps=10", "train.learning_rate=3e-3"))
    lines = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 7 and losses[-1] < losses[0] - 0.3  # the first step is always logged
    assert {"loss_single@128", "loss_single@32", "loss_multi@64", "loss_multi@16"} <= set(lines[0])


def test_an_interrupted_run_goes_on_to_the_same_weights(settings, tmp_path, sample, monkeypatch):
    file = triples(sample, tmp_path / "t.jsonl")
    same = ["train.max_steps=6", "train.save_steps=2", f"data.triples={file}", "train.negatives=1", "lora.dropout=0.1"]
    same += ["model.tuning=lora", "train.batch_size=32"]  # more than an epoch, so that negatives are drawn anew
    whole = weights(train(settings(tmp_path / "whole", *same)))

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        metrics = resumable.Metrics
        Stop.close = metrics.close
        Stop.bar = None
        patch.setattr(resumable, "Metrics", lambda path: Stop())
        with pytest.raises(KeyboardInterrupt):
            train(settings(tmp_path / "cut", *same))
    assert not (tmp_path / "cut/checkpoint").exists()
    (tmp_path / "cut/trainer/checkpoint-5").mkdir()  # killed while it was written: its state, which comes last, is not
    (tmp_path / "cut/trainer/checkpoint-5/trainable.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match=r"unfinished run with other train\.learning_rate"):
        train(settings(tmp_path / "cut", *same, "train.learning_rate=1"))
    for name in ("optimizer.pt", "rng_state.pth", "trainable.safetensors"):
        part = tmp_path / "cut/trainer/checkpoint-4" / name
        before = part.read_bytes()
        part.write_bytes(before[:-40])
        with pytest.raises(InputError, match=rf"{part}: not whole: put it back, or remove .*checkpoint-4"):
            train(settings(tmp_path / "cut", *same))
        part.unlink()
        if name != "trainable.safetensors":  # without which nothing begins anew silently
            with pytest.raises(InputError, match=rf"{part}: not whole"):
                train(settings(tmp_path / "cut", *same))
        part.write_bytes(before)
    resumed = weights(train(settings(tmp_path / "cut", *same)))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not (tmp_path / "cut/trainer").exists()


def test_a_finished_run_is_never_overwritten(checkpoint, settings):
    before = weights(checkpoint)
    with pytest.raises(InputError, match="exists already"):
        train(settings(checkpoint.parent))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), weights(checkpoint).values(), strict=True))


def test_training_goes_on_from_a_checkpoint(checkpoint, settings, tmp_path):
    same = weights(train(settings(tmp_path / "a", f"train.init_from={checkpoint}", "train.max_steps=0")))
    assert all(torch.equal(a, b) for a, b in zip(weights(checkpoint).values(), same.values(), strict=True))
    for other in ("model.tuning=lora", "single.pooling=last"):
        with pytest.raises(InputError, match=rf"init_from.*another {other.partition('=')[0]}"):
            train(settings(tmp_path / "b", f"train.init_from={checkpoint}", other))
    assert not (tmp_path / "b").exists()
    cooler = ("train.max_steps=0", "multi.temperature=0.5")  # a temperature is of the loss, not of the model
    warm = train(settings(tmp_path / "c", f"train.init_from={checkpoint}", *cooler))
    assert Retriever.load(warm).description.multi.temperature == 0.5


def test_a_run_folder_says_what_was_run(checkpoint):
    environment = json.loads((checkpoint.parent / "environment.json").read_text())
    assert environment["packages"]["torch"] and environment["command"] and environment["seed"] == 0
    assert (checkpoint.parent / "config.yaml").is_file()


def test_bad_input_is_said_before_anything_is_written(settings, tmp_path, sample):
    for overrides, says in (
        (["data.path=nowhere"], "no such data set"),
        (["data.train_split=dev"], "no split 'dev'"),
        (["train.negatives=2"], r"2 is more than the examples have \(0\).*data\.triples"),
        ([f"data.triples={triples(sample, tmp_path / 't.jsonl', 1)}", "train.negatives=2"], r"mine more"),
        (["model.backbone=nowhere"], r"model\.backbone"),
        (["train.init_from=nowhere"], "not a colmrl checkpoint"),
        (["model.tuning=frozen", "multi.dims=[]"], "no head has weights"),
    ):
        with pytest.raises(InputError, match=says):
            train(settings(tmp_path / "out", *overrides))
        assert not (tmp_path / "out").exists()


def test_negatives_are_used_where_there_are_any(settings, tmp_path, sample):
    file = triples(sample, tmp_path / "t.jsonl", 3)
    for overrides, used in (
        ([], 0),
        ([f"data.triples={file}"], 1),
        ([f"data.triples={file}", "train.negatives=3"], 3),
        ([f"data.triples={file}", "train.negatives=0"], 0),
    ):
        config = settings(tmp_path / "a", *overrides)
        assert negatives_to_use(config, read_training(config.data)[0]) == used


def test_a_run_that_stopped_before_its_first_resume_point_may_begin_anew(settings, tmp_path):
    with pytest.raises(InputError, match=r"model\.max_document_tokens: 9999: the backbone reads 512"):
        train(settings(tmp_path / "a", "model.max_document_tokens=9999", "model.document_fields=[text]", family="bert"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/config.yaml").write_text("seed: 5\n")
    assert train(settings(tmp_path / "a", "train.max_steps=1")).is_dir()


def test_a_bad_picture_is_said_with_its_record_from_a_worker_too(settings, tmp_path, sample):
    data = shutil.copytree(sample / "train", tmp_path / "data")
    broken = data / "images/train-000-0.png"
    broken.write_bytes(broken.read_bytes()[:80])
    for workers in (0, 1):
        overrides = [f"data.path={data}", "train.batch_size=64", f"train.workers={workers}"]
        with pytest.raises(InputError, match=r"document 'train-000-0': .*train-000-0\.png: not a readable image"):
            train(settings(tmp_path / f"out-{workers}", *overrides))


def test_the_flags_of_a_first_look_set_what_they_say():
    made = train_app_config("--config", "demo", "--auto-batch", "--profile", "train.profile=3")
    assert (made.train.auto_batch, made.train.profile) == (0.9, 3)
    made = train_app_config("--config", "demo", "--auto_batch")
    assert (made.train.auto_batch, made.train.profile) == (0.9, 0)


def test_examples_are_the_relevant_pairs(settings, tmp_path, sample):
    examples, positives = read_training(settings(tmp_path / "a").data)
    lines = (sample / "train/qrels/train.tsv").read_text().splitlines()[1:]
    assert [f"{e.query.id}\t{e.positive.id}\t1" for e in examples] == lines
    assert sum(map(len, positives.values())) == len(lines)


def test_what_answers_a_query_is_no_negative_of_another_that_asks_the_same(tmp_path):
    (tmp_path / "qrels").mkdir()
    for name, rows in (
        ("corpus", [{"_id": name, "text": name} for name in "abc"]),
        ("queries", [{"_id": "1", "text": "x"}, {"_id": "2", "text": "x"}, {"_id": "3", "text": "y"}]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "qrels/train.tsv").write_text("1\ta\t1\n2\tb\t1\n3\tc\t1\n2\tc\t0\n")
    _, positives = read_training(load_config(None, [f"data.path={tmp_path}"]).data)
    assert positives == {"1": {"a", "b"}, "2": {"a", "b"}, "3": {"c"}}
