"""Where a step's time goes: a torch.profiler trace (chrome://tracing, Perfetto) and a table of ten parts.

Every moment belongs to one part, so the parts sum to the whole: a module's forward to what it is, and the backward pass
to the part whose gradient is being computed, told by when the gradients of the modules' outputs arrive. While it is
profiled a GPU is waited for at every change of part, so steps are a little slower than others.
"""

import dataclasses
import functools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from colmrl.files import write_text

log = logging.getLogger(__name__)

_BACK = " backward"
_PARTS = {  # name in the table: what is counted in it
    "load": ("load",),
    "vision": ("vision",),
    "vision backward": ("vision backward",),
    "language": ("language",),
    "language backward": ("language backward",),
    "heads": ("heads", "heads backward"),
    "loss": ("loss",),
    "loss backward": ("loss backward",),
    "optimizer": ("optimizer",),
    "other": ("other",),
}
_PAUSE = "evaluating and saving"  # not of a step


class Clock:
    """Seconds of each part; the innermost that was entered is running."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[tuple[str, Any]] = [("other", None)]
        self._backward = False
        self._since = self._now()

    def start(self) -> None:
        """Count from now on."""
        self._since = self._now()

    def enter(self, part: str) -> None:
        self._tick()
        part = _PAUSE if self._running[-1][0] == _PAUSE else part
        mark = torch.profiler.record_function(part)
        mark.__enter__()
        self._running.append((part, mark))

    def leave(self) -> None:
        self._tick()
        _, mark = self._running.pop()
        if mark is not None:
            mark.__exit__(None, None, None)

    def backward(self, part: str) -> None:
        """The backward pass has come to a part; it is over when autograd says so."""
        self._tick()
        if self._backward:
            self._running.pop()
        else:
            self._backward = True
            torch.autograd.Variable._execution_engine.queue_callback(self._end_backward)  # pyright: ignore
        self._running.append((part + _BACK, None))  # no mark: a GPU's backward pass has a thread of its own

    def _end_backward(self) -> None:
        self._backward = False
        self.leave()

    def stop(self) -> None:
        self._tick()

    def _tick(self) -> None:
        now = self._now()
        self.seconds[self._running[-1][0]] += now - self._since
        self._since = now

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


class Profile(TrainerCallback):
    """Profiles `steps` steps, from the second on, and writes what it saw into `folder`.

    `modules`: vision, language, heads → the modules that are it; the innermost counts.
    """

    def __init__(self, steps: int, folder: Path, trainer: Trainer, modules: Mapping[str, Sequence[nn.Module]]):
        self.steps, self.folder, self.trainer, self.modules = steps, folder, trainer, modules
        self._done = 0
        self._clock: Clock | None = None
        self._undo: list[Callable[[], object]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.max_steps - state.global_step == 1:  # there is no second step
            self._start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._clock is None:
            if not self._done:
                self._start()
            return
        self._done += 1
        if self._done == self.steps:
            self._stop()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._clock is not None:
            self._stop()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._clock is not None:
            self._clock.enter("optimizer")

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._clock is not None:
            self._clock.leave()

    def _start(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self._trace = torch.profiler.profile(activities=activities)
        self._trace.start()
        self._clock = clock = Clock()
        for part, modules in self.modules.items():
            for module in modules:
                self._undo += _watch(clock, part, module)
        for method, part in (
            ("get_batch_samples", "load"),
            ("_loss", "loss"),
            ("_clip_grad_norm", "optimizer"),
            ("evaluate", _PAUSE),
            ("_save_checkpoint", _PAUSE),
        ):
            setattr(self.trainer, method, _timed(clock, part, getattr(self.trainer, method)))
            self._undo.append(functools.partial(delattr, self.trainer, method))
        clock.start()

    def _stop(self) -> None:
        clock, self._clock = self._clock, None
        assert clock is not None
        clock.stop()
        self._trace.stop()
        for undo in self._undo:
            undo()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._trace.export_chrome_trace(str(self.folder / "trace.json"))
        lines = table(clock.seconds, self._done)
        write_text(self.folder / "table.txt", "\n".join(lines) + "\n")
        log.info("profile of %d steps, in full: %s\n%s", self._done, self.folder / "trace.json", "\n".join(lines))


def table(seconds: Mapping[str, float], steps: int) -> list[str]:
    """A line a part: milliseconds a step and per cent of it."""
    parts = {name: sum(seconds.get(one, 0.0) for one in counted) for name, counted in _PARTS.items()}
    whole = sum(parts.values())
    lines = [f"{'part of a step':<18}{'ms':>10}{'%':>8}"]
    return lines + [f"{name:<18}{s / steps * 1e3:>10.1f}{100 * s / whole:>8.1f}" for name, s in parts.items()]


def _watch(clock: Clock, part: str, module: nn.Module) -> list[Callable[[], object]]:
    """Enter and leave the part with the module's calls, and hear of its outputs' gradients; returns what ends this."""

    def after(_module: nn.Module, _inputs: object, output: object) -> None:
        clock.leave()
        _await_gradient(clock, part, output)

    before = module.register_forward_pre_hook(lambda _module, _inputs: clock.enter(part))
    return [before.remove, module.register_forward_hook(after).remove]


def _timed(clock: Clock, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method as a part, and the backward pass of a loss that it gives."""

    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        clock.enter(part)
        try:
            output = method(*args, **kwargs)
        finally:
            clock.leave()
        if part == "loss":
            _await_gradient(clock, part, output)
        return output

    return run


def _await_gradient(clock: Clock, part: str, output: object) -> None:
    """The part's turn in the backward pass comes when the gradients of its outputs are there: of all, since a vision
    tower's features go into several layers of the language model."""
    watched = [tensor for tensor in _tensors(output) if tensor.requires_grad]
    if watched and torch.is_grad_enabled():
        register_multi_grad_hook(watched, lambda _: clock.backward(part), mode="all")


def _tensors(value: object) -> Iterator[Tensor]:
    match value:
        case Tensor():
            yield value
        case Mapping():
            for item in value.values():
                yield from _tensors(item)
        case list() | tuple():
            for item in value:
                yield from _tensors(item)
        case _ if dataclasses.is_dataclass(value):
            for item in vars(value).values():
                yield from _tensors(item)
        case _:
            return
