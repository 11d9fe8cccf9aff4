"""What would silently make a run another than was asked for."""

import json
import logging

import pytest
from engine import weights
from test_training import triples

from colmrl.configure import load_config
from colmrl.errors import InputError
from colmrl.files import locked
from colmrl.training.guards import identity, unused
from colmrl.training.objective import Objective
from colmrl.training.run import train
from colmrl.training.trainer import RetrieverTrainer


def cut_at(patch, step):
    """Training that is stopped before this step."""
    original = RetrieverTrainer.training_step

    def stepping(self, *args, **kwargs):
        if self.state.global_step + 1 == step:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    patch.setattr(RetrieverTrainer, "training_step", stepping)


def test_a_run_is_not_gone_on_with_on_other_examples_or_by_other_processes(settings, sample, tmp_path, monkeypatch):
    file = triples(sample, tmp_path / "t.jsonl")
    config = settings(tmp_path / "a", f"data.triples={file}", "train.max_steps=4", "train.save_steps=2")
    with monkeypatch.context() as patch:
        cut_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    whole = file.read_text()
    file.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"an unfinished run on other training examples than data\.path"):
        train(config)
    file.write_text(whole)
    saved = tmp_path / "a/environment.json"
    saved.write_text(json.dumps(json.loads(saved.read_text()) | {"processes": 2}))
    with pytest.raises(InputError, match="an unfinished run of 2 processes, not 1"):
        train(config)
    saved.write_text(json.dumps(json.loads(saved.read_text()) | {"processes": 1}))
    assert weights(train(config))
    assert identity(None)["processes"] == 1


def test_two_runs_cannot_share_a_folder(settings, tmp_path):
    with locked(tmp_path / "a"), pytest.raises(InputError, match=r"this process writes here.*another --output"):
        train(settings(tmp_path / "a"))
    train(settings(tmp_path / "a"))


def test_weights_that_are_no_numbers_stop_the_run_and_leave_no_checkpoint(settings, tmp_path, monkeypatch):
    original = RetrieverTrainer._loss
    monkeypatch.setattr(RetrieverTrainer, "_loss", lambda *a: original(*a) * float("nan"))
    with pytest.raises(InputError, match=r"step 1: .*: holds NaN or infinite numbers.*lower train\.learning_rate"):
        train(settings(tmp_path / "a", "train.log_steps=10", "train.max_steps=3"))
    assert not (tmp_path / "a/checkpoint").exists()


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["lora.r=64", "lora.vision=true"], ["lora.r, lora.vision: model.tuning is full"]),
        (["multi.budgets=[4]", "multi.dims=[]"], ["multi.budgets: multi.dims is empty"]),
        (["single.projection=64", "single.dims=[]"], ["single.projection: single.dims is empty"]),
        (["loss.teacher_temperature=3"], ["loss.teacher_temperature: loss.teacher_kl is 0"]),
        (["data.sources=[{path: a}]", "data.triples=t"], ["data.triples: data.sources is trained on"]),
        (["lora.r=64", "model.tuning=lora", "loss.teacher_temperature=3", "loss.teacher_kl=1"], []),
    ],
)
def test_settings_that_nothing_uses_are_said(overrides, said):
    found = unused(load_config(None, overrides))
    assert len(found) == len(said) and all(text in line for text, line in zip(said, found, strict=True))


def test_what_a_step_is_is_said_and_what_is_not_used_too(settings, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "colmrl"):
        train(settings(tmp_path / "a", "lora.r=64", "train.accumulation=2"))
    assert (
        "2 steps of 16 queries (processes 1 × batch 8 × accumulation 2), each against up to 8 documents" in caplog.text
    )
    assert "not used: lora.r: model.tuning is full" in caplog.text


def test_a_batch_of_one_without_negatives_is_refused(settings, tmp_path):
    with pytest.raises(InputError, match=r"train\.batch_size: 1, and no hard negatives"):
        train(settings(tmp_path / "a", "train.batch_size=1"))


def test_some_sources_with_a_weight_and_some_without_are_refused(settings, sample, tmp_path):
    sources = f"data.sources=[{{path: {sample}/train, weight: 3}}, {{path: {sample}/train}}]"
    with pytest.raises(InputError, match=r"data\.sources: some have a weight and some have none"):
        train(settings(tmp_path / "a", sources))


def test_a_fixed_temperature_is_what_it_says_and_a_learnt_one_can_leave_its_bound():
    for learn, expected in (("false", 0.002), ("true", 0.01)):
        objective = Objective(load_config(None, ["single.temperature=0.002", f"loss.learn_temperature={learn}"]))
        assert objective.temperature("single").item() == pytest.approx(expected)
    objective.temperature("single").backward()
    grad = objective.log_temperatures["single"].grad
    assert grad is not None and grad.item() == pytest.approx(0.002)
