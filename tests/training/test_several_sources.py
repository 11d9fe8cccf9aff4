"""Training on several data sets, within a budget of tokens, from a teacher's scores: whole runs."""

import json

import pytest
import torch
from engine import weights
from transformers import TrainerCallback

from colmrl.errors import InputError
from colmrl.inputs import write_inputs
from colmrl.training import run as run_module
from colmrl.training.batches import Collator, key
from colmrl.training.run import train


@pytest.fixture
def sources(tmp_path, sample):
    """The sample's pictures, and twelve texts with a negative and its teacher's scores."""
    rows = [
        {"query": f"red {n}", "pos": f"circle {n}", "negs": [f"ring {n}"], "pos_score": 2, "neg_scores": [n / 12]}
        for n in range(12)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.sources=[{{path: {sample}/train, weight: 1}}, {{triples: {tmp_path}/t.jsonl, weight: 2}}]"


def test_every_batch_of_a_run_is_of_one_source_and_shares_are_kept(settings, tmp_path, sources, monkeypatch):
    seen = []
    collate = Collator.__call__

    def watched(self, examples):
        seen.append([example.query.id for example in examples])
        batch = collate(self, examples)
        assert set(batch["known"].flatten().tolist()) >= {key(example.positive.id) for example in examples}
        assert batch["teacher"].isnan().all() == seen[-1][0].startswith("0:")
        return batch

    monkeypatch.setattr(Collator, "__call__", watched)
    train(settings(tmp_path / "a", sources, "train.max_steps=12", "train.batch_size=4", "loss.teacher_kl=0.5"))
    batches = [{name.partition(":")[0] for name in batch} for batch in seen]
    assert all(len(batch) == 1 for batch in batches)
    assert {"0", "1"} == set.union(*batches)
    lines = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert any("teacher_kl" in name for line in lines for name in line)


def test_an_interrupted_run_over_sources_goes_on_to_the_same_weights(settings, tmp_path, sources, monkeypatch):
    same = [sources, "train.max_steps=6", "train.save_steps=2", "train.batch_size=4", "train.mini_batch_tokens=200"]
    whole = weights(train(settings(tmp_path / "whole", *same)))

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise KeyboardInterrupt

    trainer = run_module.RetrieverTrainer

    def stopping(*args, **kwargs):
        made = trainer(*args, **kwargs)
        made.add_callback(Stop())
        return made

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "RetrieverTrainer", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(settings(tmp_path / "cut", *same))
    resumed = weights(train(settings(tmp_path / "cut", *same)))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_budget_of_tokens_and_what_is_found_to_fit_train_like_the_whole_batch(settings, tmp_path, sources):
    plain = weights(train(settings(tmp_path / "plain", sources)))
    for name, setting in (("tokens", "train.mini_batch_tokens=100"), ("auto", "train.auto_batch=0.9")):
        same = weights(train(settings(tmp_path / name, sources, setting)))
        assert all((plain[n] - same[n]).abs().mean() < 1e-5 for n in plain)


def test_a_teacher_that_gave_no_scores_is_said_before_anything_is_written(settings, tmp_path):
    with pytest.raises(InputError, match=r"loss\.teacher_margin_mse: no example has a score"):
        train(settings(tmp_path / "a", "loss.teacher_margin_mse=1"))
    assert not (tmp_path / "a").exists()


def test_a_source_may_be_a_sample_that_is_written_first(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("colmrl.data.samples.write_sample_of", lambda kind, folder, seed: folder.mkdir(parents=True))
    names = "[{path: 'sample:shapes/train', triples: 'sample:other/t.jsonl', weight: 3}, {path: there}]"
    made = write_inputs(settings(tmp_path / "a", f"data.sources={names}")).data.sources
    assert (made[0].path, made[0].triples) == (f"{tmp_path}/a/data/shapes/train", f"{tmp_path}/a/data/other/t.jsonl")
    assert made[0].weight == 3 and made[1].path == "there" and (tmp_path / "a/data/shapes").is_dir()
