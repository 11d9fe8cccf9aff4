"""One of the processes of the FSDP test: a step with sharded weights (fully_shard, as accelerate's FSDP 2), plain and
cached; rank 0 leaves the gradients.

torchrun --nproc-per-node 2 one_shard.py FOLDER key=value …
"""

import contextlib
import functools
import sys

import torch
import torch.distributed as dist
from engine import batch_of, leave_sharded, loss_function
from torch.distributed.fsdp import fully_shard

from colmrl.configure import load_config
from colmrl.models.retriever import Retriever
from colmrl.processes import processes, rank
from colmrl.training.gather import gather_counts
from colmrl.training.grad_cache import cached_step
from colmrl.training.objective import Objective


@contextlib.contextmanager
def no_sync(model):
    """As accelerate's no_sync for FSDP 2."""
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def sharded(config):
    model = Retriever.create(config).train()
    for layer in model.backbone.model.language_model.layers:
        fully_shard(layer)
    fully_shard(model)
    return model


def gradients(config, cached):
    model = sharded(config)
    batch = batch_of(config, model, 2 if cached else None, only=range(rank(), 6, processes()))
    loss_of = loss_function(config, Objective(config), batch)
    if cached:
        backward, passes = torch.Tensor.backward, max(gather_counts(len(batch["chunks"])))
        cached_step(model, batch["chunks"], loss_of, backward, backward, functools.partial(no_sync, model), passes)
    else:
        loss_of(model(*batch["chunks"])).backward()
    return {name: p.grad.full_tensor() for name, p in model.named_parameters() if p.grad is not None}


def main(folder, *overrides):
    torch.set_num_threads(1)
    config = load_config(None, overrides)
    dist.init_process_group("gloo")
    for name in ("plain", "cached"):
        grads = gradients(config, cached=name == "cached")
        if rank() == 0:
            torch.save(grads, f"{folder}/{name}.pt")
    leave_sharded()


if __name__ == "__main__":
    main(*sys.argv[1:])
