"""A short run of benchmarks/faults.py, and memory that runs out."""

import importlib
import random
from pathlib import Path

import pytest
import torch

from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.models.retriever import Retriever
from colmrl.training.run import train
from colmrl.training.trainer import RetrieverTrainer

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FAULTS = [("encode", "killed"), ("encode", "two at once"), ("mine", "interrupted"), ("mine", "full disk")]
FAULTS += [("eval", "clock"), ("index", "killed"), ("train", "full disk"), ("mine", "damaged")]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """stage → what injects faults into it, its undisturbed run done once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        faults, work = importlib.import_module("faults"), tmp_path_factory.mktemp("faults")
        stages, made = faults.stages_of(work), {}

        def of(name):
            if name not in made:
                made[name] = faults.Bench(stages[name], work / "place" / name, False, random.Random(0))
            return made[name]

        yield of


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "fault"), FAULTS)
def test_a_stage_that_is_disturbed_and_run_again_leaves_what_it_would_have_left(stage, fault, bench):
    one = bench(stage)
    try:
        assert one.inject(fault), one.said.read_text()
        assert one.recovers() == ""
    finally:
        one.clear()


ENDS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), "the device's memory has run out"),
    (MemoryError("cannot allocate"), "memory has run out"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"), "memory has run out"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "the system ended a data worker"),
]


@pytest.mark.parametrize(("error", "said"), ENDS)
def test_memory_that_runs_out_says_what_to_change(error, said, settings, checkpoint, sample, tmp_path, monkeypatch):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(RetrieverTrainer, "training_step", full)
    with pytest.raises(InputError, match=rf"training: .*{said}") as found:
        train(settings(tmp_path / "a"))
    for setting in ("train.mini_batch_size", "--auto-batch", "train.gradient_checkpointing", "model.max_pixels"):
        assert setting in str(found.value)
    assert "\n" not in str(found.value)
    monkeypatch.setattr(Retriever, "_embed", full)
    with pytest.raises(InputError, match=rf"encoding: .*{said}.*encode\.batch_size"):
        encode(settings(tmp_path), checkpoint, sample / "train", tmp_path / "store")


def test_other_errors_of_training_stay_what_they_are(settings, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(RetrieverTrainer, "training_step", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(settings(tmp_path / "a"))
