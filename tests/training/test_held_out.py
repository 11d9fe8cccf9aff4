import shutil

import pytest
import torch
from engine import lines, same, weights
from transformers import TrainerState

from colmrl.configure import replace
from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.evaluation.run import judge
from colmrl.models.retriever import Retriever
from colmrl.training import held_out as held_out_module
from colmrl.training.held_out import HeldOut, undisturbed
from colmrl.training.run import train
from colmrl.view import parse_views


def judged(output):
    """step → metric → value"""
    return {line["step"]: line for line in lines(output) if "eval_seconds" in line}


@pytest.fixture(scope="module")
def watched(settings, sample):
    """Settings of a run of six steps that is judged every two on the sample's test split."""

    def make(output, *overrides):
        base = ["train.max_steps=6", "train.eval_steps=2", f"data.eval_path={sample}/test", "train.learning_rate=3e-3"]
        return settings(output, *base, *overrides)

    return make


def test_what_is_judged_during_training_is_what_encode_and_eval_give(watched, tmp_path, sample):
    """At the last step, of the average too, and of all trained dims; queries without judgements are left out."""
    data = shutil.copytree(sample / "test", tmp_path / "data")
    with (data / "queries.jsonl").open("a") as file:
        file.write('{"_id": "unjudged", "text": "red"}\n')
    for name, more in (("a", []), ("b", ["train.ema=0.6", "train.precision=bf16"])):
        config = watched(tmp_path / name, f"data.eval_path={data}", *more)
        checkpoint = train(config)
        rows = judge(config, encode(config, checkpoint, data, tmp_path / f"{name}-store"))
        last = judged(tmp_path / name)[6]
        kept = {f"eval_{row['view']}/{row['metric']}": row["value"] for row in rows if "_at_" in row["metric"]}
        assert kept == {key: last[key] for key in kept} and len(kept) == 4 * 8
        assert set(last) - set(kept) == {"step", "seconds", "epoch", "eval_seconds"}
        assert not (tmp_path / name / "trainer").exists()


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl", "qwen3_vl"])
def test_training_is_the_same_with_and_without_being_judged(family, watched, settings, tmp_path, tiny):
    more = ["model.tuning=lora", "lora.dropout=0.2", "train.gradient_checkpointing=true", "train.max_steps=3"]
    more += [f"model.backbone={tiny(family)}"]
    looked_at = train(watched(tmp_path / "a", *more, "train.eval_steps=1"))
    not_looked_at = train(watched(tmp_path / "b", *more, "train.eval_steps=null"))
    assert same(weights(looked_at), weights(not_looked_at))
    assert set(judged(tmp_path / "a")) == {1, 2, 3} and not judged(tmp_path / "b")


def test_nothing_is_disturbed(checkpoint):
    model = Retriever.load(checkpoint)
    model.train()
    model.single.eval()
    model.forward = wrapped = lambda *_: None
    state = torch.get_rng_state()
    with undisturbed(model):
        assert not any(module.training for module in model.modules()) and model.forward != wrapped
        torch.rand(1)
    assert torch.equal(torch.get_rng_state(), state) and model.forward is wrapped
    assert model.training and model.backbone.training and not model.single.training


def test_the_held_out_data_are_read_once(watched, tmp_path, monkeypatch):
    read = []
    original = held_out_module.read_collection
    monkeypatch.setattr(held_out_module, "read_collection", lambda *a: read.append(a) or original(*a))
    train(watched(tmp_path / "a"))
    assert len(read) == 1 and set(judged(tmp_path / "a")) == {2, 4, 6}


def with_values(monkeypatch, values):
    """Judging gives these, in turn, and keeps the weights that were judged."""
    seen, values = [], list(values)

    def judge_(self, model, folder):
        seen.append({name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad})
        return {"single@32/ndcg_at_10": values[len(seen) - 1]}

    monkeypatch.setattr(HeldOut, "judge", judge_)
    return seen


@pytest.mark.parametrize("ema", ["null", "0.5"])
def test_the_best_weights_are_kept(ema, watched, tmp_path, monkeypatch):
    """Those that were judged: of the average, where there is one; whether or not the step is one of save_steps."""
    seen = with_values(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.1, 0.1])
    more = ["train.best_metric=single@32/ndcg_at_10", "train.eval_steps=1", "train.save_steps=4", f"train.ema={ema}"]
    model = Retriever.load(train(watched(tmp_path / "a", *more)))
    kept = dict(model.named_parameters())
    same_as = [all(torch.equal(kept[name], p) for name, p in judged_.items()) for judged_ in seen]
    assert same_as == [False, True, False, False, False, False]


def test_training_stops_when_patience_ends(watched, tmp_path, monkeypatch):
    with_values(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.4])
    more = ["train.best_metric=single@32/ndcg_at_10", "train.eval_steps=1", "train.patience=2"]
    train(watched(tmp_path / "a", *more))
    assert max(judged(tmp_path / "a")) == 4


def test_a_run_that_had_stopped_is_not_trained_on(watched, tmp_path, monkeypatch):
    """Killed between its end, by patience or by steps, and its checkpoint."""
    more = ["train.best_metric=single@32/ndcg_at_10", "train.eval_steps=1", "train.patience=2", "train.save_steps=1"]
    for name, values, end in (("patience", [0.1, 0.3, 0.2, 0.3], 4), ("steps", [1, 2, 3, 4, 5, 6], 6)):
        with monkeypatch.context() as patch:
            with_values(patch, values)
            whole = weights(train(watched(tmp_path / f"{name}-whole", *more)))
        with monkeypatch.context() as patch:
            with_values(patch, values)
            patch.setattr(Retriever, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                train(watched(tmp_path / name, *more))
        moved = (tmp_path / name).rename(tmp_path / f"{name}-moved")
        points = sorted((moved / "trainer").glob("checkpoint-*"))
        assert TrainerState.load_from_json(f"{points[-1]}/trainer_state.json").best_metric == max(values)
        assert same(weights(train(watched(moved, *more))), whole)
        assert max(judged(moved)) == end


def test_settings_that_make_no_sense_are_said_before_anything_is_written(watched, tmp_path, sample):
    for overrides, says in (
        (["train.best_metric=single@32/ndcg_at_10", "train.eval_steps=null"], r"best_metric.*give train\.eval_steps"),
        (["train.patience=2"], r"train\.patience: 2: nothing to wait for"),
        (["train.best_metric=single@48/ndcg_at_10"], r"single@48.*views: single@128, single@32, multi@64, multi@16"),
        (["train.best_metric=single@32/accuracy"], r"metrics: ndcg_at_1, .*mrr_at_10"),
        (["train.best_metric=ndcg_at_10"], r"not of the form VIEW/METRIC"),
        (["train.best_metric=single@32/ndcg_at_10", "eval.views=[multi@64]"], r"views: multi@64; metrics"),
        (["eval.views=[multi@48]"], r"multi@48.*was not trained"),
        (["data.eval_split=dev"], r"no split 'dev'.*choose from test"),
        (["data.eval_path=nowhere"], r"nowhere: no such data set"),
    ):
        with pytest.raises(InputError, match=says):
            train(watched(tmp_path / "out", *overrides))
        assert not (tmp_path / "out").exists()


def test_views_are_those_of_eval_views(watched, tmp_path):
    config = watched(tmp_path / "a", "eval.views=[single@32,multi@16x4:int8]")
    assert HeldOut(config).views == parse_views("single@32,multi@16x4:int8")
    model = Retriever.create(replace(config, train={"init_from": None}))
    assert {name.partition("/")[0] for name in HeldOut(config).judge(model, tmp_path / "s")} == {
        "single@32",
        "multi@16x4:int8",
    }
