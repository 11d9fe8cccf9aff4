"""Training at budgets pools as the store will: with the positions of patches."""

import json

import pytest

from colmrl.training.run import train


@pytest.mark.parametrize("cached", [[], ["train.mini_batch_size=4"]], ids=["whole", "GradCache"])
def test_positions_weigh_in_what_training_pools_and_in_nothing_else(cached, settings, tmp_path):
    losses = []
    for weight in (0, 3):
        overrides = ["multi.budgets=[4]", f"multi.position_weight={weight}", "train.max_steps=1", "train.log_steps=1"]
        train(settings(tmp_path / f"{weight}", *overrides, *cached))
        losses.append(json.loads((tmp_path / f"{weight}/metrics.jsonl").read_text().splitlines()[0]))
    assert losses[0]["loss_multi@64"] == losses[1]["loss_multi@64"]
    assert losses[0]["loss_multi@64x4"] != losses[1]["loss_multi@64x4"]
