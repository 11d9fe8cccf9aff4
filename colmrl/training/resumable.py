"""What both trainers share over transformers.Trainer: batches that each process draws for itself, going on where a run
was interrupted, and resume points that hold what is trained and nothing else.
"""

import logging
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerState

from colmrl.config import Config
from colmrl.files import writing
from colmrl.models.weights import read_tensors
from colmrl.processes import data_worker, on_first, processes, rank, wait
from colmrl.training.callbacks import Metrics
from colmrl.training.ema import LOST
from colmrl.training.guards import check_finite
from colmrl.training.held_out import KeepBest, is_over
from colmrl.training.reporting import close_reporters, reporters
from colmrl.training.run_folder import resume_point
from colmrl.training.sampler import RetrievalBatches

log = logging.getLogger(__name__)
_WEIGHTS, _BESIDE = "trainable.safetensors", "objective."


@runtime_checkable
class TrainingData(Protocol):
    """Examples by index. What is drawn for one may depend on the seed, the epoch and its index alone, so that an
    interrupted run goes on as it would have."""

    @property
    def sizes(self) -> list[int]:
        """Examples of each source, one source after another."""
        ...

    @property
    def weights(self) -> list[float] | None:
        """Of the sources, in batches; None: every example counts the same."""
        ...

    def set_epoch(self, epoch: int) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


def batches_of(config: Config, data: TrainingData) -> RetrievalBatches:
    """Which examples make a batch of this process."""
    return RetrievalBatches(data.sizes, data.weights, config.train.batch_size, config.seed, rank(), processes())


class ResumableTrainer(Trainer):
    """`beside`: what is trained besides the model, and saved with it."""

    train_dataset: TrainingData  # pyright: ignore[reportIncompatibleVariableOverride]
    beside: nn.Module | None = None

    def __init__(self, config: Config, **kwargs: Any):
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)
        self.config = config
        self.model_accepts_loss_kwargs = False  # ours is a mean over the batch

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Each process draws its own share of every batch, so nothing is left for accelerate to split."""
        self._batches = batches_of(self.config, self.train_dataset)
        return DataLoader(
            self.train_dataset,  # pyright: ignore[reportArgumentType]
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=self.config.train.workers,
            worker_init_fn=data_worker,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """What draws by the epoch is told it here: on resuming, the library puts a loader of its own around them."""
        self.train_dataset.set_epoch(kwargs["epoch"])
        self._batches.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def fit(self, output: Path) -> None:
        """Train to the end, from the newest resume point where there is one."""
        patience, steps = self.config.train.patience, self.args.max_steps
        if rank():
            torch.manual_seed(self.config.seed + rank())  # of dropout: weights were drawn alike, and are on their way
        resume = on_first(lambda: resume_point(output / "trainer"))
        if resume:
            log.info("going on from %s", resume)
        if resume and is_over(Path(resume), steps, patience):
            self.state = TrainerState.load_from_json(f"{resume}/trainer_state.json")
            self._load_from_checkpoint(resume)
        else:
            self._train_watched(output, resume)
        assert self.model is not None
        check_finite(self.model, self.state.global_step)
        if self.state.global_step < steps:
            log.info("stopped: nothing better in %d evaluations (train.patience)", patience)

    def _train_watched(self, output: Path, resume: str | None) -> None:
        """With what the settings ask for: the best resume point, patience, metrics.jsonl, reporters."""
        if self.config.train.best_metric:
            self.add_callback(KeepBest())
        if self.config.train.patience:
            self.add_callback(EarlyStoppingCallback(self.config.train.patience))
        if rank():
            self.train(resume_from_checkpoint=resume)
            return
        metrics, step = Metrics(output / "metrics.jsonl"), int(resume.rpartition("-")[2]) if resume else 0
        for callback in (metrics, *reporters(self.config, output, step)):
            self.add_callback(callback)
        try:
            self.train(resume_from_checkpoint=resume)
        finally:
            metrics.close()
            close_reporters(self.config)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Weights that are no numbers any more are said at the step's loss."""
        if "loss" in logs and self.model is not None:
            check_finite(self.model, self.state.global_step)
        super().log(logs, start_time)

    def note_judged(self, judged: dict[str, float], since: float) -> dict[str, float]:
        """Tell everything that listens; `since`: when judging began. Returns `eval_NAME` → value."""
        metrics = {f"eval_{name}": value for name, value in judged.items()}
        metrics["eval_seconds"] = time.monotonic() - since
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with writing(Path(str(self.args.output_dir))):
            super()._save_checkpoint(*args, **kwargs)

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
        values = state_dict or dict(self.model.named_parameters())  # given where weights are sharded: whole ones
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        trained: dict[str, Tensor] = {name: values[name].detach().contiguous() for name in names}
        if self.beside is not None:
            trained |= {f"{_BESIDE}{name}": value.contiguous() for name, value in self.beside.state_dict().items()}
        save_file(trained, folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        weights = read_tensors(Path(resume_from_checkpoint) / _WEIGHTS, LOST)
        if self.beside is not None:
            names = [name for name in weights if name.startswith(_BESIDE)]
            self.beside.load_state_dict({name.removeprefix(_BESIDE): weights.pop(name) for name in names})
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # from shards, which the library saved
            return
        target = model or self.model
        assert target is not None
        _, unexpected = target.load_state_dict(weights, strict=False)
        assert not unexpected, unexpected
