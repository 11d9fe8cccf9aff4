"""`kill -9` at any step, then the same command: the same weights as if nothing had happened (CPU, fp32)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine import lines, same, weights
from test_training import triples

from colmrl.configure import save_config
from colmrl.errors import InputError
from colmrl.processes import on_first
from colmrl.training import run as run_module
from colmrl.training.held_out import HeldOut
from colmrl.training.run import train
from colmrl.training.trainer import RetrieverTrainer


@pytest.fixture(scope="module")
def everything(settings, sample, tmp_path_factory):
    """Settings of a run with all that a resume point has to hold."""
    file = triples(sample, tmp_path_factory.mktemp("triples") / "t.jsonl")
    more = ["train.max_steps=9", "train.save_steps=2", f"data.triples={file}", "train.negatives=1", "train.log_steps=1"]
    more += ["model.tuning=lora", "lora.dropout=0.1", "train.batch_size=24", "train.mini_batch_size=20"]
    more += ["train.accumulation=2", "train.ema=0.7", "train.eval_steps=3", f"data.eval_path={sample}/test"]
    more += ["train.best_metric=multi@64/ndcg_at_10", "train.patience=5", "train.learning_rate=3e-3"]
    more += ["loss.learn_temperature=true"]
    return lambda output, *extra: settings(output, *more, *extra)


@pytest.fixture(scope="module")
def uninterrupted(everything, tmp_path_factory):
    """The folder of such a run."""
    return train(everything(tmp_path_factory.mktemp("whole") / "run")).parent


def run(config, processes=1):
    """The same run in a process (or several) of its own."""
    given = Path(config.output).parent / "given.yaml"
    save_config(config, given)
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    command = [sys.executable, *launch, "train.py", "--config", str(given)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def steps_done(output):
    path = output / "metrics.jsonl"
    return path.read_text().count('"loss"') if path.exists() else 0


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("step", [1, 5, 8])
def test_a_killed_run_goes_on_to_the_same_weights(step, everything, uninterrupted, tmp_path):
    """Killed before the first resume point, and after two others; with the best so far before and after it."""
    output = tmp_path / "cut"
    process = run(everything(output))
    while steps_done(output) < step:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (output / "checkpoint").exists()
    process.communicate()
    assert same(weights(train(everything(output))), weights(uninterrupted / "checkpoint"))
    assert [line["step"] for line in lines(output) if "loss" in line] == list(range(1, 10))
    numbers = [{k: v for k, v in line.items() if k.endswith("_at_10")} for line in lines(output)]
    assert numbers == [{k: v for k, v in line.items() if k.endswith("_at_10")} for line in lines(uninterrupted)]


def test_what_does_not_change_the_weights_may_change_and_nothing_else(everything, tmp_path, monkeypatch):
    def cut(self, *args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RetrieverTrainer, "evaluate", cut)
        with pytest.raises(KeyboardInterrupt):
            train(everything(tmp_path / "a"))
        with pytest.raises(KeyboardInterrupt):
            train(everything(tmp_path / "a", "train.report_to=[tensorboard]", "train.profile=1", "train.save_steps=4"))
        for key, value in (("ema", 0.8), ("eval_steps", 2), ("patience", 3), ("best_metric", "multi@16/ndcg_at_10")):
            with pytest.raises(InputError, match=rf"an unfinished run with other train\.{key}"):
                train(everything(tmp_path / "a", f"train.{key}={value}"))
        unjudged = ["train.best_metric=null", "train.patience=null"]
        with pytest.raises(KeyboardInterrupt):
            train(everything(tmp_path / "b", *unjudged))
    train(everything(tmp_path / "b", *unjudged, "train.eval_steps=null"))


def test_two_processes_make_one_run_that_can_be_killed(everything, tmp_path):
    """One folder, one log, the same numbers as uninterrupted; early stopping and the best are those of both."""
    written = []
    for name, kill_at in (("whole", None), ("cut", 4)):
        output = tmp_path / name / "run"
        output.parent.mkdir()
        process = run(everything(output, "train.batch_size=12"), 2)
        if kill_at:
            while steps_done(output) < kill_at:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.01)
            for pid in (process.pid, *children(process.pid)):
                os.kill(pid, signal.SIGKILL)
            process.communicate()
            process = run(everything(output, "train.batch_size=12"), 2)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.split() == [str(output / "checkpoint")]
        assert [line["step"] for line in lines(output) if "loss" in line] == list(range(1, 10))
        assert err.count("training 0.") == 1
        written.append(weights(output / "checkpoint"))
    assert same(*written)


def test_wrong_input_ends_every_process(everything, tmp_path):
    process = run(everything(tmp_path / "run", "data.path=nowhere", "data.eval_path=nowhere"), 2)
    _, err = process.communicate(timeout=120)
    assert process.returncode and "nowhere: no such data set" in err and not (tmp_path / "run").exists()


def test_one_process_is_its_own_first():
    assert on_first(lambda: 5) == 5
    with pytest.raises(InputError, match="wrong"):
        on_first(lambda: (_ for _ in ()).throw(InputError("wrong")))


def cut_at(monkeypatch, step):
    """Interrupt training in that step."""
    original = RetrieverTrainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == step - 1:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(RetrieverTrainer, "training_step", training_step)


def test_the_mini_batch_that_was_found_is_kept_for_a_run_that_goes_on(settings, tmp_path, monkeypatch):
    more = ["train.auto_batch=0.9", "train.max_steps=3", "train.save_steps=1"]
    for found, cut, used in ((3, 1, 3), (4, 2, 4), (5, None, 4)):  # begun, begun anew, gone on with
        with monkeypatch.context() as patch:
            patch.setattr(run_module, "choose_mini_batch", lambda *_, found=found: found)
            sizes = []
            collator = run_module.Collator
            patch.setattr(run_module, "Collator", lambda *a, s=sizes, c=collator: s.append(a[2]) or c(*a))
            if cut:
                cut_at(patch, cut)
                with pytest.raises(KeyboardInterrupt):
                    train(settings(tmp_path / "a", *more))
            else:
                train(settings(tmp_path / "a", *more))
        assert sizes == [used]


def test_patience_counts_on_in_a_run_that_goes_on(settings, sample, tmp_path, monkeypatch):
    values = {1: 0.3, 2: 0.1, 3: 0.2, 4: 0.2}
    more = ["train.max_steps=6", "train.save_steps=1", "train.eval_steps=1", f"data.eval_path={sample}/test"]
    more += ["train.best_metric=single@32/ndcg_at_10", "train.patience=2"]
    step = []
    monkeypatch.setattr(HeldOut, "judge", lambda *_: step.append(1) or {"single@32/ndcg_at_10": values[len(step)]})
    with monkeypatch.context() as patch:
        cut_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(settings(tmp_path / "a", *more))
    train(settings(tmp_path / "a", *more))
    assert max(line["step"] for line in lines(tmp_path / "a")) == 3
