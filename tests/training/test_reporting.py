from pathlib import Path

import pytest
import torch
from engine import lines
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from colmrl.errors import InputError
from colmrl.training import reporting
from colmrl.training import throughput as throughput_module
from colmrl.training.run import train
from colmrl.training.throughput import Throughput

VIEWS = ("single@128", "single@32", "multi@64", "multi@16")


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_every_number_of_the_log(settings, tmp_path, sample):
    more = ["train.report_to=[tensorboard]", "train.log_steps=1", "train.max_steps=3"]
    more += ["train.eval_steps=3", f"data.eval_path={sample}/test"]
    train(settings(tmp_path / "a", *more))
    seen = scalars(tmp_path / "a/tensorboard")
    for line in lines(tmp_path / "a"):
        for name, value in line.items():
            if name in ("step", "seconds") or ("loss" not in line and "eval_seconds" not in line):
                continue
            tag = f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"
            assert seen[tag][line["step"]] == pytest.approx(value, rel=1e-6), tag
    assert set(seen) >= {f"train/loss_{view}" for view in VIEWS} | {f"eval/{view}/ndcg_at_10" for view in VIEWS}
    assert set(seen) >= {"train/grad_norm", "train/learning_rate", "train/tokens_per_s", "train/peak_memory_bytes"}


def test_a_step_that_is_done_again_is_reported_once(settings, tmp_path, monkeypatch):
    """In metrics.jsonl and TensorBoard: a run cut at step 3, after its resume point of step 2."""
    more = ["train.report_to=[tensorboard]", "train.log_steps=1", "train.max_steps=4", "train.save_steps=2"]
    with monkeypatch.context() as patch:
        numbers = Throughput.numbers

        def cut(self):
            if lines_so_far() == 3:
                raise KeyboardInterrupt
            return numbers(self)

        def lines_so_far():
            return len(lines(tmp_path / "a")) if (tmp_path / "a/metrics.jsonl").exists() else 0

        patch.setattr(Throughput, "numbers", cut)
        with pytest.raises(KeyboardInterrupt):
            train(settings(tmp_path / "a", *more))
    assert [line["step"] for line in lines(tmp_path / "a")] == [1, 2, 3]
    with (tmp_path / "a/metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    train(settings(tmp_path / "a", *more))
    assert [line["step"] for line in lines(tmp_path / "a") if "loss" in line] == [1, 2, 3, 4]
    assert set(scalars(tmp_path / "a/tensorboard")["train/loss"]) == {1, 2, 3, 4}


def test_wandb_writes_into_the_run_folder_and_goes_on_with_the_same_run(settings, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    told = []
    original = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **kw: told.append(kw) or original(**kw))
    train(settings(tmp_path / "a", "train.report_to=[wandb]", "train.log_steps=1"))
    (file,) = (tmp_path / "a/wandb").glob("offline-run-*/*.wandb")
    assert b"loss_single@32" in file.read_bytes() and wandb.run is None
    assert told[0]["id"] == (tmp_path / "a/wandb-run.txt").read_text() and told[0]["config"]["train"]["max_steps"] == 2
    reporting._wandb(settings(tmp_path / "a"), tmp_path / "a")
    wandb.finish()
    assert told[1]["id"] == told[0]["id"]


def test_a_missing_package_is_said_with_its_install_line_before_anything_is_written(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"train\.report_to: wandb: is not installed: pip install wandb"):
        train(settings(tmp_path / "a", "train.report_to=[wandb]"))
    assert not (tmp_path / "a").exists()


def batch(*shapes, pairs):
    """Chunks of (rows, width, tokens in all)."""
    chunks = []
    for rows, width, tokens in shapes:
        mask = torch.zeros(rows * width, dtype=torch.long)
        mask[:tokens] = 1
        chunks.append({"attention_mask": mask.view(rows, width)})
    return {"chunks": chunks, "negatives": torch.full((pairs, 0), -1)}


def test_throughput_counts_pairs_and_tokens_but_not_padding_evaluating_or_saving(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(throughput_module.time, "perf_counter", lambda: now[0])
    events = CallbackHandler([seen := Throughput()], nn.Linear(1, 1), None, None, None)
    told = TrainingArguments(use_cpu=True), TrainerState(), TrainerControl()
    events.on_train_begin(*told)
    seen.on_batch(batch((2, 5, 8), (4, 10, 22), pairs=4))
    now[0] = 2.0
    events.on_step_end(*told)
    numbers = seen.numbers()
    assert numbers["pairs_per_s"] == 2 and numbers["tokens_per_s"] == 15 and numbers["padding"] == 0.4
    now[0] = 60.0
    events.on_evaluate(*told, {})
    now[0] = 100.0
    events.on_save(*told)
    seen.on_batch(batch((1, 10, 10), pairs=6))
    now[0] = 103.0
    events.on_step_end(*told)
    numbers = seen.numbers()
    assert numbers["pairs_per_s"] == 2 and numbers["tokens_per_s"] == pytest.approx(10 / 3) and numbers["padding"] == 0


def test_peak_memory_is_what_the_process_had_resident():
    before = throughput_module.peak_memory_bytes()
    held = torch.ones(100 << 18)  # 100 MiB
    after = throughput_module.peak_memory_bytes()
    assert before <= after and after >= held.nbytes
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    assert after == pytest.approx(int(peak.split()[1]) * 1024, rel=0.05)


def test_the_log_has_what_the_batches_had(settings, tmp_path, monkeypatch):
    batches = []
    original = Throughput.on_batch
    monkeypatch.setattr(Throughput, "on_batch", lambda self, b: batches.append(b) or original(self, b))
    train(settings(tmp_path / "a", "train.log_steps=2", "train.accumulation=2"))
    assert len(batches) == 4
    line = lines(tmp_path / "a")[0]  # the first step's two batches
    masks = [chunk["attention_mask"] for b in batches[:2] for chunk in b["chunks"]]
    tokens = sum(int(mask.sum()) for mask in masks)
    assert line["padding"] == pytest.approx(1 - tokens / sum(mask.numel() for mask in masks))
    assert line["tokens_per_s"] / line["pairs_per_s"] == pytest.approx(tokens / (2 * 8))
