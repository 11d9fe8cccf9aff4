"""How fast training goes and what it takes: pairs and tokens a second over all processes, padding, peak memory."""

import resource
import sys
import time
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from colmrl.training.gather import largest_of_processes, sum_over_processes

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


class Throughput(TrainerCallback):
    """Counts every batch; `numbers` gives what was counted since it was last asked. Evaluating and saving are no
    training: their time does not count. On a GPU nothing is waited for before `numbers`."""

    def __init__(self) -> None:
        self._tokens: Tensor | int = 0
        self._pairs = self._places = 0
        self._start = self._step_end = time.perf_counter()

    def on_batch(self, batch: dict[str, Any]) -> None:
        self._pairs += len(batch["negatives"])
        for chunk in batch["chunks"]:
            self._tokens = self._tokens + chunk["attention_mask"].sum()
            self._places += chunk["attention_mask"].numel()

    def numbers(self) -> dict[str, float]:
        now = time.perf_counter()
        counted = torch.tensor([self._pairs, int(self._tokens), self._places], dtype=torch.float64)
        pairs, tokens, places = sum_over_processes(counted).tolist()
        memory = largest_of_processes(torch.tensor([peak_memory_bytes()], dtype=torch.float64))
        seconds = now - self._start
        self._tokens = self._pairs = self._places = 0
        self._start = now
        return {
            "pairs_per_s": pairs / seconds,
            "tokens_per_s": tokens / seconds,
            "padding": 1 - tokens / max(places, 1),
            "peak_memory_bytes": memory.item(),
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._step_end = time.perf_counter()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._leave_out()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._leave_out()

    def _leave_out(self) -> None:
        """The time since the step, or since the log that came after it."""
        now = time.perf_counter()
        self._start += now - max(self._start, self._step_end)
        self._step_end = now


def peak_memory_bytes() -> float:
    """Most that was allocated on the GPU so far; without one, most that the process had resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated())
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT)
