import json
import time

import pytest
import torch
from torch import nn

from colmrl.models.retriever import Retriever
from colmrl.training.profiling import Clock, Profile, _watch, table
from colmrl.training.run import train
from colmrl.training.trainer import RetrieverTrainer

PARTS = ["load", "vision", "vision backward", "language", "language backward", "heads", "loss", "loss backward"]
PARTS += ["optimizer", "other"]


def read(folder):
    """part → (milliseconds, per cent)"""
    rows = [line.rsplit(maxsplit=2) for line in (folder / "table.txt").read_text().splitlines()[1:]]
    return {name.strip(): (float(ms), float(percent)) for name, ms, percent in rows}


@pytest.mark.parametrize("more", [[], ["train.mini_batch_size=3"], ["train.accumulation=2", "train.eval_steps=2"]])
def test_the_parts_of_a_step_sum_to_it(more, settings, tmp_path, sample, monkeypatch):
    """In one pass, with GradCache, and with evaluations, which are no part of a step."""
    window, paused = [], []

    def timed(owner, method, note):
        original = getattr(owner, method)

        def run(*args, **kwargs):
            start = time.perf_counter()
            result = original(*args, **kwargs)
            note(start, time.perf_counter())
            return result

        monkeypatch.setattr(owner, method, run)

    timed(Profile, "_start", lambda _, end: window.append(end))
    timed(Profile, "_stop", lambda start, _: window.append(start))
    timed(RetrieverTrainer, "evaluate", lambda start, end: paused.append(end - start))
    more = ["train.profile=3", "train.max_steps=5", f"data.eval_path={sample}/test", *more]
    train(settings(tmp_path / "a", *more))
    parts = read(tmp_path / "a/profile")
    assert list(parts) == PARTS
    whole = window[1] - window[0] - sum(paused[:1])  # at step 2; those at 4 and 5 come after it
    assert sum(ms for ms, _ in parts.values()) * 3 == pytest.approx(whole * 1e3, rel=0.1)
    assert sum(percent for _, percent in parts.values()) == pytest.approx(100, abs=0.6)
    assert all(parts[name][0] > 0 for name in PARTS)
    assert parts["other"][1] < 20
    trace = json.loads((tmp_path / "a/profile/trace.json").read_text())
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {"load", "vision", "language", "heads", "loss", "optimizer", "aten::addmm"} <= names


@pytest.mark.parametrize("slow", ["vision", "language", "heads", "loss", "optimizer", "load"])
def test_time_is_told_of_the_part_that_takes_it(slow, settings, tmp_path, monkeypatch):
    """A part that waits 200 ms: forward in the model, whatever in the rest."""

    def wait(*_):
        time.sleep(0.2)

    original = Retriever.create.__func__

    def create(cls, config):
        model = original(cls, config)
        modules = {"vision": model.backbone.vision_modules[0], "language": model.backbone.model.language_model}
        modules["heads"] = model.multi
        if slow in modules:
            next(m for m in modules[slow].modules() if isinstance(m, nn.Linear)).register_forward_pre_hook(wait)
        return model

    monkeypatch.setattr(Retriever, "create", classmethod(create))
    for part, owner, method in (
        ("loss", RetrieverTrainer, "_loss"),
        ("optimizer", torch.optim.AdamW, "step"),
        ("load", RetrieverTrainer, "get_batch_samples"),
    ):
        if part == slow:
            whole = getattr(owner, method)
            monkeypatch.setattr(owner, method, lambda *a, whole=whole, **kw: wait() or whole(*a, **kw))
    train(settings(tmp_path / "a", "train.profile=1"))
    parts = read(tmp_path / "a/profile")
    assert max(parts, key=lambda name: parts[name][0]) == slow and parts[slow][0] > 200


def test_the_backward_pass_is_told_of_the_part_that_it_is_in(monkeypatch):
    """Two modules after each other, each with a slow backward pass of its own length, by a clock that is ours."""
    monkeypatch.setattr("colmrl.training.profiling.time.perf_counter", lambda: _SlowBackward.now)

    class Slow(nn.Module):
        def __init__(self, seconds):
            super().__init__()
            self.seconds = seconds

        def forward(self, values):
            return _SlowBackward.apply(values, self.seconds)

    vision, language = Slow(0.03), Slow(0.06)
    clock = Clock()
    undo = _watch(clock, "vision", vision) + _watch(clock, "language", language)
    for _ in range(2):
        language(vision(torch.ones(2, requires_grad=True))).sum().backward()
    for end in undo:
        end()
    language(vision(torch.ones(2, requires_grad=True))).sum().backward()  # not seen any more
    clock.stop()
    assert clock.seconds["vision backward"] == pytest.approx(0.06)
    assert clock.seconds["language backward"] == pytest.approx(0.12)
    assert clock.seconds["other"] == pytest.approx(0.09)


class _SlowBackward(torch.autograd.Function):
    now = 0.0

    @staticmethod
    def forward(ctx, values, seconds):
        ctx.seconds = seconds
        return values * 2

    @staticmethod
    def backward(ctx, *grads):
        _SlowBackward.now += ctx.seconds
        return grads[0] * 2, None


def test_a_profile_changes_no_weight(settings, tmp_path):
    more = ["train.max_steps=3", "model.tuning=lora", "lora.dropout=0.1", "train.mini_batch_size=3"]
    a = Retriever.load(train(settings(tmp_path / "a", "train.profile=2", *more)))
    b = Retriever.load(train(settings(tmp_path / "b", *more)))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_a_table_is_ten_lines_of_milliseconds_a_step():
    lines = table({"load": 0.2, "heads": 0.1, "heads backward": 0.3, "evaluating and saving": 9.0}, 2)
    assert len(lines) == 11 and lines[1].split() == ["load", "100.0", "33.3"]
    assert lines[6].split() == ["heads", "200.0", "66.7"]
