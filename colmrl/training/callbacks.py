"""What is seen and kept of a training run while it goes."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress as Bar
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from colmrl.files import write_text
from colmrl.progress import bar

log = logging.getLogger(__name__)


class Metrics(TrainerCallback):
    """Every log of the trainer as a line of metrics.jsonl; a progress bar, or log lines where there is no terminal."""

    def __init__(self, path: Path):
        self.path = path
        self.bar: Bar | None = None
        self.start = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.path.is_file():  # what an interrupted run did after its last resume point is done again
            lines = [
                line
                for line in self.path.read_text(encoding="utf-8").splitlines()
                if _is_before(line, state.global_step)
            ]
            write_text(self.path, "".join(f"{line}\n" for line in lines))
        self.bar = bar("training")
        self.bar.start()
        self.task = self.bar.add_task("", total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def close(self) -> None:
        """Give the terminal back, however training ended."""
        if self.bar is not None:
            self.bar.stop()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        with self.path.open("a", encoding="utf-8") as file:
            line = {"step": state.global_step, "seconds": round(time.monotonic() - self.start, 3), **logs}
            file.write(json.dumps(line) + "\n")
        if "loss" in logs:
            log.info("step %d of %d: loss %.3f", state.global_step, state.max_steps, float(logs["loss"]))
        judged = {name.removeprefix("eval_"): value for name, value in logs.items() if name.endswith("/ndcg_at_10")}
        if judged:
            numbers = ", ".join(f"{name} {value:.4f}" for name, value in judged.items())
            log.info("step %d of %d: %s", state.global_step, state.max_steps, numbers)


def _is_before(line: str, step: int) -> bool:
    """Whether a line of metrics.jsonl is whole and of a step up to this one."""
    try:
        return json.loads(line)["step"] <= step
    except ValueError:
        return False
