"""A reranker's trainer: the task's loss, the candidates that it is judged on, and what a task's module gives it."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from colmrl.config import Config
from colmrl.data.reading import read_collection
from colmrl.errors import InputError
from colmrl.evaluation.reranking import validate
from colmrl.processes import on_first
from colmrl.reranking.candidates import open_candidates
from colmrl.reranking.reranker import Reranker
from colmrl.training.held_out import undisturbed
from colmrl.training.resumable import ResumableTrainer, TrainingData

log = logging.getLogger(__name__)


@runtime_checkable
class RerankData(TrainingData, Protocol):
    def identity(self) -> dict[str, object]:
        """`processes` and a hash of the `examples`, as `guards.identity` says them."""
        ...


@runtime_checkable
class RerankTask(Protocol):
    """A module, one for each `task`."""

    def examples(self, config: Config) -> RerankData: ...
    def create(self, config: Config) -> nn.Module:
        """What is trained: has `language` (LanguageModel) and `save(folder)`, which writes the checkpoint."""
        ...

    def collator(self, config: Config, model: Any) -> Callable[[Sequence[Any]], dict[str, Any]]: ...
    def compute_loss(self, config: Config, model: Any, batch: dict[str, Any]) -> Tensor:
        """Of one process's batch, a mean. `model` may be wrapped: only its forward may be called."""
        ...

    def reranker(self, model: Any) -> Reranker:
        """The model as it stands, to be judged."""
        ...


class HeldOutCandidates:
    """The candidates that section `rerank` names, of `data.eval_path`'s `data.eval_split`, read once."""

    def __init__(self, config: Config):
        self.collection = read_collection(config.data.eval_path or config.data.path, config.data, config.show)
        self.candidates = open_candidates(config, self.collection, config.data.eval_split)
        log.info(
            "judged on %d queries of %s, candidates: %s, %s",
            len(self.candidates),
            self.collection.source,
            self.candidates.mode,
            self.candidates.source,
        )

    def judge(self, reranker: Reranker) -> dict[str, float]:
        return validate(reranker, self.candidates, self.collection)


class RerankTrainer(ResumableTrainer):
    """The task's loss, and the held-out candidates, where there are any."""

    def __init__(self, config: Config, task: RerankTask, held_out: HeldOutCandidates | None, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.task, self.held_out = task, held_out
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise InputError(f"task: {config.task}: is not sharded: leave FSDP and DeepSpeed, use torchrun")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        return self.task.compute_loss(self.config, model, inputs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """On the held-out candidates, judged by the first process; `eval_METRIC` → value in all of them."""
        held_out, model, start = self.held_out, self.model, time.monotonic()
        assert held_out is not None and model is not None

        def judge() -> dict[str, float]:
            with undisturbed(model), torch.inference_mode():
                return held_out.judge(self.task.reranker(model))

        judged = on_first(judge)
        best = self.config.train.best_metric
        if best is not None and best not in judged:
            raise InputError(f"train.best_metric: {best!r}: is not measured: choose from {', '.join(judged)}")
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in judged.items())
        log.info("step %d of %d: %s", self.state.global_step, self.state.max_steps, numbers)
        return self.note_judged(judged, start)
