"""DESIGN §7: 2 ranks × B (gloo) = 1 process × 2B, in loss and gradient, with negatives and accumulation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine import EVERYTHING, assert_same, batch_of, gradients, weights
from test_training import triples

from colmrl.configure import load_config
from colmrl.models.retriever import Retriever
from colmrl.training.run import train

HERE = Path(__file__).parent


def run(script, processes, *arguments, works=True):
    """A script beside this one, in so many processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(HERE / script), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parents[1]}:{HERE}:{HERE.parent}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode == 0) == works, done.stderr


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


HOW = {
    "plain": [],
    "cached": ["train.mini_batch_size=3"],
    "accumulated": ["train.accumulation=2"],
    "both": ["train.mini_batch_size=5", "train.accumulation=2"],
}
TWICE = {f"twice, {name}": ["train.max_steps=2", "train.accumulation=2", *HOW[name]] for name in ("plain", "both")}
EACH = {"each": ["train.max_steps=4"]}


def steps(processes, folder, base, cases):
    """Case → what the gradients and losses were at each of its steps; all cases in the same processes."""
    folder.mkdir()
    given = [word for name, more in cases.items() for word in ("--", f"{folder}/{name}.pt", *more)]
    run("one_process.py", processes, *base, *given)
    return {name: torch.load(folder / f"{name}.pt") for name in cases}


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    of_two = {name: ["train.batch_size=20", *how] for name, how in HOW.items()}
    of_one = {name: ["train.batch_size=10", *how] for name, how in (EACH | TWICE).items()}
    return steps(1, tmp_path_factory.mktemp("alone") / "steps", base, of_two | of_one)


@pytest.fixture(scope="module")
def both(base, tmp_path_factory):
    cases = {name: ["train.batch_size=10", *how] for name, how in HOW.items()}
    return steps(2, tmp_path_factory.mktemp("both") / "steps", base, cases)


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_two_processes_have_the_gradient_of_one_with_twice_the_batch(how, alone, both):
    """The epoch ends within the six steps, with an uneven batch."""
    compare(alone[how], both[how])
    assert len({float(step["loss"]) for step in alone[how]}) == 6


@pytest.mark.slow
@pytest.mark.parametrize("how", TWICE)
def test_an_accumulated_gradient_is_the_mean_of_its_batches_own(how, alone):
    each = alone["each"]
    for step, first, second in zip(alone[how], each[::2], each[1::2], strict=True):
        mean = {name: (first[name] + second[name]) / 2 for name in step}
        assert_same((step["loss"].item(), step), (mean["loss"].item(), mean))


def test_sharded_weights_have_the_same_gradient_though_one_process_has_more_chunks(base, settings, tmp_path):
    """FSDP 2 (fully_shard) on gloo: accelerate itself shards on GPUs only."""
    overrides = [*base, "data.triples=null"]
    config = load_config(None, overrides)
    model = Retriever.create(config)
    order = [0, 2, 4, 1, 3, 5]  # rank by rank
    expected = gradients(config, model, batch_of(config, model, only=order), cached=False)[1]
    run("one_shard.py", 2, str(tmp_path), *overrides)
    for name in ("plain", "cached"):
        found = torch.load(tmp_path / f"{name}.pt")
        assert_same((0, {name: grad for name, grad in expected.items() if name in found}), (0, found))
        assert len(found) > 50


@pytest.mark.slow
def test_a_run_with_sharded_weights_learns_what_one_process_does_and_goes_on_after_a_kill(base, settings, tmp_path):
    more = ["train={max_steps: 4, negatives: 1, learning_rate: 1e-4, log_steps: 1, save_steps: 2, mini_batch_size: 3}"]
    overrides = [*base, *more, "loss.learn_temperature=false"]
    run("one_fsdp_run.py", 2, "0", *overrides, f"output={tmp_path}/whole", "train.batch_size=5")
    train(load_config(None, [*overrides, f"output={tmp_path}/alone", "train.batch_size=10"]))
    run("one_fsdp_run.py", 2, "4", *overrides, f"output={tmp_path}/cut", "train.batch_size=5", works=False)
    assert not (tmp_path / "cut/checkpoint").exists() and (tmp_path / "cut/trainer/checkpoint-2").exists()
    run("one_fsdp_run.py", 2, "0", *overrides, f"output={tmp_path}/cut", "train.batch_size=5")
    losses = {
        name: [json.loads(line).get("loss") for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()][
            :4
        ]
        for name in ("whole", "alone", "cut")
    }
    assert losses["whole"] == pytest.approx(losses["alone"], rel=1e-3) and losses["whole"] == losses["cut"]
    whole, cut = weights(tmp_path / "whole/checkpoint"), weights(tmp_path / "cut/checkpoint")
    assert whole.keys() == cut.keys() == weights(tmp_path / "alone/checkpoint").keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    Retriever.load(tmp_path / "whole/checkpoint")
