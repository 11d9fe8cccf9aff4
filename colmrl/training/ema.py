"""An exponential moving average of the trained weights (Polyak averaging; decay as in timm and TensorFlow).

average ← d·average + (1 − d)·weights after every step t, d = min(decay, (1 + t) / (10 + t)): so that a short run's
average is not its starting point. What is judged during training, and kept at its end, is the average.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from colmrl.models.weights import read_tensors

AVERAGE = "average.safetensors"  # in a resume point
LOST = "remove the folder of this resume point: an earlier one, or the beginning, is gone on from"


class Ema(TrainerCallback):
    """Begins as a copy of the weights, or goes on from `resume`, a resume point's folder."""

    def __init__(self, decay: float, resume: str | None = None):
        self.decay, self.resume = decay, resume
        self.average: dict[str, Tensor] = {}
        self._weights: dict[str, nn.Parameter] = {}

    def begin(self, model: nn.Module) -> None:
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self._weights.items()}
        if self.resume is not None:
            saved = read_tensors(Path(self.resume) / AVERAGE, LOST)
            assert saved.keys() == self.average.keys()
            for name, average in self.average.items():
                average.copy_(saved[name])

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimizer step `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [p.data for p in self._weights.values()], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """The model with the average as its weights; what was trained comes back at the end."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def save(self, folder: Path) -> None:
        save_file({name: average.contiguous() for name, average in self.average.items()}, folder / AVERAGE)

    def _swap(self) -> None:
        for name, weights in self._weights.items():
            weights.data, self.average[name] = self.average[name], weights.data

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        assert model is not None
        self.begin(model)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.update(state.global_step)


def load_average(model: nn.Module, point: Path) -> None:
    """The average of a resume point as the model's weights."""
    _, unexpected = model.load_state_dict(read_tensors(point / AVERAGE, LOST), strict=False)
    assert not unexpected, unexpected
