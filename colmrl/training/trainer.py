"""transformers.Trainer with our loss, our checkpoints and a metrics.jsonl; everything else is the library's."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from colmrl.config import Config
from colmrl.errors import InputError
from colmrl.losses.matryoshka import nested_losses, total
from colmrl.models.retriever import Embeddings
from colmrl.runtime import use_torch
from colmrl.scoring import dot, maxsim, truncate

_WEIGHTS = "trainable.safetensors"


class RetrieverTrainer(Trainer):
    """`compute_loss` on both heads; resume points hold what is trained and nothing else."""

    def __init__(self, config: Config, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.model_accepts_loss_kwargs = False  # ours is a mean over the batch
        self._losses: dict[str, list[float]] = defaultdict(list)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        losses = batch_losses(
            self.config, model(inputs["queries"]), model(inputs["documents"]), inputs["known_positive"]
        )
        for name, loss in losses.items():
            self._losses[f"loss_{name}"].append(loss.item())
        return (total(losses), {}) if return_outputs else total(losses)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean loss of each view since the last log."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self._losses.items()}
            self._losses.clear()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        assert self.model is not None
        trained = {name: p.detach().contiguous() for name, p in self.model.named_parameters() if p.requires_grad}
        save_file(trained, folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        weights = load_file(Path(resume_from_checkpoint) / _WEIGHTS)
        target = model or self.model
        assert target is not None
        _, unexpected = target.load_state_dict(weights, strict=False)
        assert not unexpected, unexpected


def batch_losses(
    config: Config, queries: Embeddings, documents: Embeddings, known_positive: Tensor
) -> dict[str, Tensor]:
    """View name → loss, for every trained view of both heads."""
    losses: dict[str, Tensor] = {}
    if queries.single is not None and documents.single is not None:
        q, d = queries.single, documents.single
        losses |= nested_losses(
            "single",
            config.single.dims,
            lambda dim: dot(truncate(q, dim), truncate(d, dim)),
            known_positive,
            config.single.temperature,
            config.loss,
        )
    if queries.multi is not None and documents.multi is not None:
        q_multi, d_multi = queries.multi, documents.multi
        losses |= nested_losses(
            "multi",
            config.multi.dims,
            lambda dim: maxsim(q_multi.truncate(dim), d_multi.truncate(dim)),
            known_positive,
            config.multi.temperature,
            config.loss,
        )
    return losses


def arguments(config: Config, folder: Path, steps_an_epoch: int) -> TrainingArguments:
    """Our section `train` in the library's words."""
    train = config.train
    on_cpu = use_torch(config) == "cpu"
    steps = train.max_steps if train.max_steps >= 0 else max(1, round(train.epochs * steps_an_epoch))
    schedule = "constant_with_warmup" if train.schedule == "constant" else train.schedule
    made = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=train.batch_size,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        adam_beta2=train.adam_beta2,
        warmup_steps=train.warmup_steps,
        lr_scheduler_type=schedule,
        bf16=train.precision == "bf16",
        use_cpu=on_cpu,
        seed=config.seed,
        data_seed=config.seed,
        dataloader_num_workers=train.workers,
        dataloader_pin_memory=not on_cpu,
        save_strategy="steps",
        save_steps=train.save_steps,
        save_total_limit=1,
        logging_steps=train.log_steps,
        remove_unused_columns=False,
        label_names=[],
        report_to="none",
        disable_tqdm=True,  # callbacks.Metrics shows how far it is
    )
    made._n_gpu = min(1, made.n_gpu)  # several GPUs in one process would mean DataParallel, which cannot gather ours
    return made


def check_single_process() -> None:
    """Negatives are not gathered across processes yet, so several would silently train on smaller batches."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("WORLD_SIZE > 1: train.py runs in one process so far: start it with python, not torchrun")
