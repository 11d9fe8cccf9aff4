"""One of the processes of test_distributed: real steps of the trainer; rank 0 leaves gradients and losses.

torchrun --nproc-per-node 2 one_process.py key=value … -- OUT key=value … -- OUT key=value …    (a run for each OUT)
"""

import sys
from itertools import groupby
from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed

from colmrl.configure import load_config
from colmrl.data.reading import read_training
from colmrl.models.retriever import Retriever
from colmrl.processes import rank
from colmrl.training.batches import Collator, ExampleDataset
from colmrl.training.trainer import RetrieverTrainer, arguments


class Keep(TrainerCallback):
    def __init__(self, out):
        self.out, self.steps = out, []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        named = [*kwargs["model"].named_parameters(), *self.trainer.objective.named_parameters()]
        self.steps.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.steps[-1]["loss"] = torch.tensor(logs["loss"])
            self.steps[-1] |= {name: torch.tensor(loss) for name, loss in logs.items() if name.startswith("loss_")}

    def on_train_end(self, args, state, control, **kwargs):
        if rank() == 0:
            torch.save(self.steps, self.out)


def one_run(out, overrides):
    config = load_config(None, overrides)
    set_seed(0)
    torch.set_num_threads(1)
    examples, positives = read_training(config.data, config.show)
    model = Retriever.create(config)
    keep = Keep(out)
    trainer = RetrieverTrainer(
        config,
        model=model,
        args=arguments(config, Path(out).with_suffix(""), 100),
        train_dataset=ExampleDataset(examples, config.train.negatives or 0, config.seed),
        data_collator=Collator(model.inputs, positives, config.train.mini_batch_size),
        callbacks=[keep],
    )
    keep.trainer = trainer
    trainer.train()


def main(*words):
    base, *runs = [list(group) for separator, group in groupby(words, "--".__eq__) if not separator]
    for out, *more in runs:
        one_run(out, [*base, *more])


if __name__ == "__main__":
    main(*sys.argv[1:])
