"""What parity tests share: a batch with explicit negatives, and the gradient that a step leaves."""

import contextlib
import json
import os
from itertools import islice

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from colmrl.data.reading import read_training
from colmrl.models.retriever import Retriever
from colmrl.training.batches import Collator
from colmrl.training.grad_cache import cached_step, tensors
from colmrl.training.objective import Objective
from colmrl.training.pool import make_pool

EVERYTHING = [
    "loss={pairwise: 0.3, self_distillation: 0.5, query_query: true, document_document: true, learn_temperature: true}",
    "multi.budgets=[4,2]",
]


def examples(config, count, negatives=2):
    """The first `count` training examples, each with the next documents that do not answer it as hard negatives."""
    found, positives = read_training(config.data, config.show)
    documents = list(found.parts[0].documents)
    made = []
    for i, example in enumerate(islice(found, count)):
        others = [d for d in documents[i:] + documents[:i] if d.id not in positives[example.query.id]]
        made.append(type(example)(example.query, example.positive, tuple(others[: negatives - i % 2])))
    return made, positives


def batch_of(config, model, mini_batch_size=None, count=6, only=None, pass_tokens=None):
    made, positives = examples(config, count)
    collator = Collator(model.inputs, positives, mini_batch_size, pass_tokens=pass_tokens)
    return collator([made[i] for i in only or range(count)])


def leave_sharded():
    """End a process of sharded weights. DTensor's caches hold the process group, so that gloo's threads outlive
    destroy_process_group, and one that asks for the interpreter's lock while it shuts down aborts the process
    ("terminate called without an active exception"): it does not shut down.
    """
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)


def loss_function(config, objective, batch):
    """Embeddings of the batch's chunks → its loss."""

    def loss_of(embedded):
        losses = objective(make_pool(embedded, batch, config.multi.budgets))
        return objective.total(losses, tensors(embedded))

    return loss_of


def gradients(config, model: Retriever, batch, cached, precision=None):
    """Loss, and name → gradient of model and objective, of one step."""
    objective = Objective(config)
    torch.manual_seed(0)

    loss_of = loss_function(config, objective, batch)
    model.train().zero_grad()
    forward = autocast(model, precision)
    if cached:
        step = (loss_of, torch.Tensor.backward, torch.Tensor.backward, contextlib.nullcontext)
        loss = cached_step(forward, batch["chunks"], *step)
    else:
        loss = loss_of(forward(*batch["chunks"]))
        loss.backward()
    named = [*model.named_parameters(), *objective.named_parameters()]
    return loss.item(), {name: p.grad.clone() for name, p in named if p.grad is not None}


def autocast(model, precision):
    def forward(*chunks):
        with torch.autocast("cpu", precision) if precision else contextlib.nullcontext():
            return model(*chunks)

    return forward


def assert_same(one, other, tolerance=1e-5):
    """Losses and gradients agree, relative to the largest entry of each gradient."""
    assert abs(one[0] - other[0]) < tolerance * max(1, abs(one[0])), (one[0], other[0])
    assert one[1].keys() == other[1].keys() and one[1]
    largest = max(float(grad.abs().max()) for grad in one[1].values())
    for name, grad in one[1].items():
        difference = float((grad - other[1][name]).abs().max())
        assert difference <= tolerance * largest, (name, difference, largest)


def weights(folder):
    """All that a run or checkpoint folder holds, by name."""
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{path.parent.name}/{name}": t for path in files for name, t in load_file(path).items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def lines(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
