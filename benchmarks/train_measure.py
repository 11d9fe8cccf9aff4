"""What a training run costs, told by transformers' Trainer, which all tools of `train.py` build on: its callbacks and
its `training_step`. Needs no colmrl, so that it runs in every tool's environment.
"""

import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from workers import resident

BATCH, EPOCHS = "batch", "epochs"


class Costs(TrainerCallback):
    """CPU seconds of each step (without loading its batch) and up to each step's end, and its loss."""

    def __init__(self, trainer: Trainer):
        self.steps: list[float] = []
        self.ends: list[float] = []
        self.losses: list[torch.Tensor] = []
        inner = trainer.training_step

        def step(*args: Any, **kwargs: Any) -> torch.Tensor:
            loss = inner(*args, **kwargs)
            self.losses.append(loss.detach().clone())
            return loss

        trainer.training_step = step  # pyright: ignore[reportAttributeAccessIssue]
        trainer.add_callback(self)

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._begin = time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.process_time())
        self.steps.append(self.ends[-1] - self._begin)


def measure(trainer: Trainer, run: Callable[[], object], case: dict[str, Any], held_kib: int) -> dict[str, Any]:
    """Of one run over `case`'s epochs. The first epoch begins where the tool is told to train; the others are warm.
    `held_kib`: what the process had resident after importing. A step: the median of those of the warm epochs.
    """
    costs, epochs = Costs(trainer), case["epochs"]
    Path("/proc/self/clear_refs").write_text("5")
    start = time.process_time()
    run()
    assert len(costs.ends) == epochs * case["steps"], (len(costs.ends), case)
    ends = [start, *costs.ends[case["steps"] - 1 :: case["steps"]]]
    taken = [after - before for before, after in pairwise(ends)]
    return {
        "first_epoch_s": taken[0],
        "epoch_s": statistics.median(taken[1:]),
        "step_s": statistics.median(costs.steps[case["steps"] :]),
        "peak_mib": (resident("VmHWM") - held_kib) / 1024,
        "losses": [float(loss) for loss in costs.losses],
    }


def settings(case: dict[str, Any]) -> dict[str, Any]:
    """What every tool's TrainingArguments say; the optimizer is the library's default, AdamW."""
    return {
        "max_steps": case["epochs"] * case["steps"],
        "per_device_train_batch_size": case["batch"],
        "learning_rate": case["learning_rate"],
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def adapt(whole: torch.nn.Module, model: Any, folder: Path) -> None:
    """colmrl's LoRA, as it was drawn, on a peer's model; it and the projection are trained."""
    model.load_adapter(str(folder / "checkpoint/adapter"), is_trainable=True)
    for name, parameter in whole.named_parameters():
        parameter.requires_grad_("lora_" in name or "linear.weight" in name or "custom_text_proj.weight" in name)


def read_case(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "case.json").read_text())


def dataset(folder: Path) -> Any:
    """Every epoch's pairs one after another, in the order in which colmrl draws them; pictures are opened when asked
    for, as a data set of the hub has them."""
    from datasets import Dataset, Image

    pairs = Dataset.from_list(json.loads((folder / "pairs.json").read_text()))
    return pairs.cast_column("image", Image()) if "image" in pairs.column_names else pairs
