"""DESIGN §7: 2 ranks × B (gloo) = 1 process × 2B, in loss and gradient, with explicit negatives, accumulation included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine import EVERYTHING, assert_same
from test_training import triples

SCRIPT = Path(__file__).parent / "one_process.py"


def steps(processes, out, settings_of, *overrides):
    """What the gradients and losses were at each step."""
    out.mkdir()
    command = [sys.executable, str(SCRIPT), f"{out}/steps.pt", *settings_of, *overrides]
    if processes > 1:
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command[1:1] = run
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    return torch.load(out / "steps.pt")


@pytest.fixture(scope="module")
def base(tiny, sample, tmp_path_factory):
    file = triples(sample, tmp_path_factory.mktemp("t") / "t.jsonl")
    return [
        f"model.backbone={tiny('internvl')}",
        f"data.path={sample}/train",
        f"data.triples={file}",
        "device=cpu",
        "single.dims=[128,32]",
        "multi.dims=[64,16]",
        # so small that weights stay, and every step shows the gradient of the same model; not clipped
        "train={max_steps: 6, negatives: 1, learning_rate: 1e-12, max_grad_norm: 0, log_steps: 1}",
        *EVERYTHING,
    ]


def compare(one, two, tolerance=1e-5):
    assert len(one) == len(two) == 6
    for alone, both in zip(one, two, strict=True):
        assert_same((alone["loss"].item(), alone), (both["loss"].item(), both), tolerance)


@pytest.mark.parametrize(
    "how",
    [[], ["train.mini_batch_size=3"], ["train.accumulation=2"], ["train.mini_batch_size=5", "train.accumulation=2"]],
    ids=["plain", "cached", "accumulated", "both"],
)
def test_two_processes_have_the_gradient_of_one_with_twice_the_batch(how, base, tmp_path):
    """The epoch ends within the six steps, with an uneven batch."""
    one = steps(1, tmp_path / "one", base, "train.batch_size=20", *how)
    two = steps(2, tmp_path / "two", base, "train.batch_size=10", *how)
    compare(one, two)
    assert len({float(step["loss"]) for step in one}) == 6
