"""transformers.Trainer for a reranker: the task's loss and batches, the candidates that it is judged on, resume points
that hold what is trained and nothing else; and what a task's module gives it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer

from colmrl.config import Config
from colmrl.data.reading import read_collection
from colmrl.errors import InputError
from colmrl.evaluation.reranking import validate
from colmrl.processes import on_first, processes, rank, wait
from colmrl.reranking.candidates import open_candidates
from colmrl.reranking.reranker import Reranker
from colmrl.training.guards import check_finite
from colmrl.training.held_out import undisturbed
from colmrl.training.sampler import RetrievalBatches

log = logging.getLogger(__name__)
_WEIGHTS = "trainable.safetensors"


@runtime_checkable
class RerankData(Protocol):
    """Examples to train on, by index. What is drawn for one may depend on the seed, the epoch and its index alone, so
    that an interrupted run goes on as it would have."""

    sizes: list[int]  # examples of each source, one source after another
    weights: list[float] | None  # of the sources, in batches; None: every example counts the same

    def set_epoch(self, epoch: int) -> None: ...
    def identity(self) -> dict[str, object]:
        """`processes` and a hash of the `examples`, as `guards.identity` says them."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


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


class RerankTrainer(Trainer):
    """`judged`: what the trainer's evaluations compare by, named by the settings."""

    def __init__(self, config: Config, task: RerankTask, held_out: HeldOutCandidates | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.config, self.task, self.held_out = config, task, held_out
        self.model_accepts_loss_kwargs = False  # ours is a mean over the batch

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Each process draws its own share of every batch, so nothing is left for accelerate to split."""
        train, data = self.config.train, self.train_dataset
        assert isinstance(data, Dataset)
        self._batches = batches(self.config, data)
        return DataLoader(
            data,
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=train.workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """What draws by the epoch is told it here: on resuming, the library puts a loader of its own around them."""
        self.train_dataset.set_epoch(kwargs["epoch"])  # pyright: ignore
        self._batches.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        return self.task.compute_loss(self.config, model, inputs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self.model is not None:
            check_finite(self.model, self.state.global_step)
        super().log(logs, start_time)

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
        metrics = {f"eval_{name}": value for name, value in judged.items()}
        metrics["eval_seconds"] = time.monotonic() - start
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_rng_state(self, output_dir: str) -> None:
        """The first process's state comes after this, and says that the resume point is whole."""
        super()._save_rng_state(output_dir)
        wait()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        assert self.model is not None
        trained = {name: p.detach().contiguous() for name, p in self.model.named_parameters() if p.requires_grad}
        save_file(trained, folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target = model or self.model
        assert target is not None
        _, unexpected = target.load_state_dict(load_file(Path(resume_from_checkpoint) / _WEIGHTS), strict=False)
        assert not unexpected, unexpected


def batches(config: Config, data: Any) -> RetrievalBatches:
    """Which examples make a batch of this process."""
    return RetrievalBatches(data.sizes, data.weights, config.train.batch_size, config.seed, rank(), processes())
