"""Training at budgets pools as the store will: with the positions of patches."""

import json

from colmrl.training.run import train


def test_positions_weigh_in_what_training_pools_and_in_nothing_else(settings, tmp_path):
    losses = []
    for weight in (0, 3):
        overrides = ["multi.budgets=[4]", f"multi.position_weight={weight}", "train.max_steps=1", "train.log_steps=1"]
        train(settings(tmp_path / f"{weight}", *overrides))
        losses.append(json.loads((tmp_path / f"{weight}/metrics.jsonl").read_text().splitlines()[0]))
    assert losses[0]["loss_multi@64"] == losses[1]["loss_multi@64"]
    assert losses[0]["loss_multi@64x4"] != losses[1]["loss_multi@64x4"]
