"""The retriever's trainer: the loss of both heads, and our settings in the library's words."""

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from colmrl.config import Config
from colmrl.errors import InputError
from colmrl.models.retriever import Embeddings, Retriever
from colmrl.processes import on_first, processes
from colmrl.runtime import use_torch
from colmrl.training.batches import Collator
from colmrl.training.chunks import tokens_worth_a_pass
from colmrl.training.ema import Ema
from colmrl.training.gather import gather_counts, sum_over_processes
from colmrl.training.grad_cache import cached_step, tensors
from colmrl.training.held_out import HeldOut
from colmrl.training.objective import Objective
from colmrl.training.pool import make_pool
from colmrl.training.resumable import ResumableTrainer


class RetrieverTrainer(ResumableTrainer):
    """The loss of both heads over all processes' candidates, in one pass or by GradCache.

    `on_batch`: called with every batch before its step; `numbers`: what else is in each log. `ema`: what is evaluated
    in place of the weights, if anything is.
    """

    def __init__(self, config: Config, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.beside = self.objective = Objective(config).to(self.args.device)
        self.on_batch: list[Callable[[dict[str, Any]], None]] = []
        self.numbers: list[Callable[[], dict[str, float]]] = []
        self.ema: Ema | None = None
        self._step = -1
        self._losses: dict[str, list[Tensor]] = defaultdict(list)
        train = config.train
        self._cached = bool(train.mini_batch_size or train.mini_batch_tokens or train.auto_batch)
        _check_engine(self, config, self._cached)
        if isinstance(self.data_collator, Collator) and isinstance(self.model, Retriever) and not _sharded(self):
            worth = tokens_worth_a_pass(self.model.backbone.hidden_size, self.args.device.type != "cpu")
            self.data_collator = replace(self.data_collator, pass_tokens=worth)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        if self._step != self.state.global_step:
            self.objective.zero_grad()  # the library zeroes the model's gradients alone
            self._step = self.state.global_step
        for seen in self.on_batch:
            seen(inputs)
        if self._cached:
            loss = self._cached_step(model, inputs)
        else:
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients and processes() > 1:
            for p in self.objective.parameters():  # which DistributedDataParallel does not know
                if p.grad is not None:
                    p.grad = sum_over_processes(p.grad) / processes()
        return loss

    def _cached_step(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        return cached_step(
            model,
            inputs["chunks"],
            lambda embedded: self._loss(embedded, inputs) / self.current_gradient_accumulation_steps,
            self.accelerator.backward,  # scales the loss for fp16; the cached gradient carries the scale on
            Tensor.backward,
            functools.partial(self.accelerator.no_sync, model=model),
            max(gather_counts(len(inputs["chunks"]))) if self.is_fsdp_enabled else None,
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        return self._loss(model(*inputs["chunks"]), inputs)

    def _loss(self, embedded: Embeddings, batch: dict[str, Any]) -> Tensor:
        losses = self.objective(
            make_pool(embedded, batch, self.config.multi.budgets, self.config.multi.position_weight)
        )
        for name, loss in losses.items():
            self._losses[f"loss_{name}"].append(loss.detach())
        # gradnorm moves its weights once a step, with the last batch of a window
        return self.objective.total(losses, tensors(embedded) if self.accelerator.sync_gradients else [])

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """What the objective learns goes along, without weight decay."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        learnt = [p for p in self.objective.parameters() if p.requires_grad]
        if fresh and learnt:
            optimizer.add_param_group({"params": learnt, "weight_decay": 0.0})
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean loss of each view since the last log, over all processes, and what `numbers` give."""
        if "loss" in logs and self._losses:
            means = torch.stack([torch.stack(values).mean() for values in self._losses.values()])
            logs |= dict(zip(self._losses, (sum_over_processes(means) / processes()).tolist(), strict=True))
            self._losses.clear()
            if self.config.loss.learn_temperature:
                logs |= {
                    f"temperature_{head}": self.objective.temperature(head).item()
                    for head in self.objective.log_temperatures
                }
            if self.config.loss.balance != "fixed":
                weights = zip(self.objective.views, self.objective.balance.tolist(), strict=True)
                logs |= {f"balance_{view}": weight for view, weight in weights}
            for numbers in self.numbers:
                logs |= numbers()
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Retrieval on what is held out, judged by the first process; `eval_VIEW/METRIC` → value in all of them."""
        held_out, model, start = self.eval_dataset, self.model, time.monotonic()
        assert isinstance(held_out, HeldOut) and isinstance(model, Retriever)
        folder = Path(str(self.args.output_dir)) / "held-out"
        with self.ema.swapped() if self.ema is not None else contextlib.nullcontext():
            judged = on_first(lambda: held_out.judge(model, folder))
        return self.note_judged(judged, start)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.ema is not None and self.args.should_save:
            self.ema.save(Path(output_dir or str(self.args.output_dir)))


def arguments(config: Config, folder: Path, steps_an_epoch: int) -> TrainingArguments:
    """Our section `train` in the library's words. `steps_an_epoch`: optimizer steps."""
    train = config.train
    on_cpu = use_torch(config) == "cpu"
    steps = train.max_steps if train.max_steps >= 0 else max(1, round(train.epochs * steps_an_epoch))
    schedule = "constant_with_warmup" if train.schedule == "constant" else train.schedule
    made = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.accumulation,
        learning_rate=train.learning_rate,
        optim="adamw_torch_fused" if train.optimizer == "adamw" else train.optimizer,
        weight_decay=train.weight_decay,
        adam_beta2=train.adam_beta2,
        max_grad_norm=train.max_grad_norm,
        warmup_steps=train.warmup_steps,
        lr_scheduler_type=schedule,
        bf16=train.precision == "bf16",
        fp16=train.precision == "fp16",
        use_cpu=on_cpu,
        seed=config.seed,
        data_seed=config.seed,
        dataloader_pin_memory=not on_cpu,
        # a batch of texts alone leaves a trained vision tower without a gradient, and what is read off the middle of a
        # model the layers above
        ddp_find_unused_parameters=config.model.tuning == "full"
        or config.lora.vision
        or config.rerank.answer == "relevance",
        ddp_broadcast_buffers=False,
        save_strategy="steps",
        save_steps=train.save_steps,
        save_total_limit=1,  # and the best
        eval_strategy="steps" if train.eval_steps else "no",
        eval_steps=train.eval_steps,
        metric_for_best_model=train.best_metric,
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,  # how long early stopping has waited
        logging_steps=train.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # a loss that is not a number is to be seen
        remove_unused_columns=False,
        label_names=[],
        report_to="none",
        disable_tqdm=True,  # callbacks.Metrics shows how far it is
    )
    made._n_gpu = min(1, made.n_gpu)  # several GPUs in one process would mean DataParallel, which cannot gather ours
    return made


def _sharded(trainer: Trainer) -> bool:
    """Whether a forward pass gathers weights, so that all processes must make equally many."""
    return trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled


def _check_engine(trainer: Trainer, config: Config, cached: bool) -> None:
    """What the parts of an engine cannot do together is said before the first step."""
    if trainer.is_deepspeed_enabled and cached:
        raise InputError(
            "train.mini_batch_size, train.mini_batch_tokens: GradCache takes several backward passes a step, "
            "DeepSpeed one: use FSDP or plain processes, or train.gradient_checkpointing with a smaller batch_size"
        )
    sharded = _sharded(trainer)
    if sharded and (config.train.ema or config.train.eval_steps or config.train.auto_batch):
        raise InputError(
            "train.ema, train.eval_steps, train.auto_batch: need whole weights: leave them null, or FSDP and DeepSpeed"
        )
    if sharded and (config.loss.learn_temperature or config.loss.balance == "uncertainty"):
        raise InputError("loss.learn_temperature, loss.balance: uncertainty: are not sharded: leave FSDP and DeepSpeed")
    if sharded and config.model.dtype != "fp32":
        raise InputError(
            f"model.dtype: {config.model.dtype}: cannot be sharded together with the fp32 heads and adapters: use fp32 "
            "with train.precision=bf16, or plain processes (torchrun)"
        )
