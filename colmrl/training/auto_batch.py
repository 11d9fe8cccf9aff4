"""Before step one: the largest `mini_batch_size` whose forward and backward pass stays within the device's memory.

Tried on copies of the longest record of many. A GPU's peak is what torch had allocated; a CPU's is what torch's
allocator gave out by its profiler, with the weights: neither counts what other programs, or libraries, hold.
"""

import contextlib
import gc
import logging
import os
import random
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile

from colmrl.config import Config, Precision
from colmrl.errors import InputError
from colmrl.models.inputs import ModelInput, tokens
from colmrl.models.retriever import Retriever
from colmrl.runtime import mixed_precision
from colmrl.training.batches import ExampleDataset
from colmrl.training.grad_cache import tensors

log = logging.getLogger(__name__)

_LOOKED_AT = 256  # examples, whose records are built to find a long one
_STATE_BYTES = {"adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 0}  # of a trained parameter; there from step one on
_AVERAGE_BYTES = 4  # of a trained parameter, where train.ema is on


def choose_mini_batch(config: Config, model: Retriever, dataset: ExampleDataset) -> int:
    """Records a chunk, at most those of a whole batch, so that the peak is within `train.auto_batch` of the memory; it
    takes the place of `train.mini_batch_size`.

    `model` on its device and as it will be trained. Its weights and the random state are left as they were, without
    gradients. Raises InputError where not even one record fits.
    """
    train = config.train
    assert train.auto_batch is not None
    if train.mini_batch_tokens:
        raise InputError("train.auto_batch: finds train.mini_batch_size: leave train.mini_batch_tokens null, or this")
    record, whole = longest_record(model, dataset, config.seed), device_bytes(model.device)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    later = trained * (_STATE_BYTES[train.optimizer] + (_AVERAGE_BYTES if train.ema else 0))
    limit, peaks = train.auto_batch * whole - later, dict[int, int]()

    def fits(size: int) -> bool:
        try:
            peaks[size] = peak_bytes(model, model.inputs.join([record] * size), train.precision)
        except torch.cuda.OutOfMemoryError:
            return False
        return peaks[size] <= limit

    size = largest_that_fits(fits, train.batch_size * (2 + dataset.negatives))
    needs = f"{(peaks.get(size or 1, whole) + later) / 2**30:.2f} of {whole / 2**30:.2f} GiB"
    if not size:
        raise InputError(
            f"train.auto_batch: {train.auto_batch}: one record of {tokens(record)} tokens takes {needs}: raise it, "
            "lower model.max_pixels or model.max_document_tokens, or set train.gradient_checkpointing"
        )
    log.info("auto-batch: mini_batch_size %d: that many records of %d tokens take %s", size, tokens(record), needs)
    return size


def largest_that_fits(fits: Callable[[int], bool], most: int) -> int:
    """The largest size up to `most` that fits, 0 where 1 does not: by doubling, then by halving what is between."""
    low, high = 0, most + 1  # low fits, high does not
    while high - low > 1:
        middle = min(max(1, 2 * low), most) if high > most else (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def longest_record(model: Retriever, dataset: ExampleDataset, seed: int) -> ModelInput:
    """The one of most tokens among the queries and documents of examples drawn with `seed`."""
    places = random.Random(seed).sample(range(len(dataset)), min(_LOOKED_AT, len(dataset)))
    longest: ModelInput | None = None
    for place in places:
        example = dataset[place]
        built = model.inputs.each_query([example.query])
        built += model.inputs.each_document([example.positive, *example.negatives])
        longest = max([longest, *built] if longest else built, key=tokens)
    assert longest is not None
    return longest


def device_bytes(device: torch.device) -> int:
    """Memory of the GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_bytes(model: Retriever, batch: ModelInput, precision: Precision = "fp32") -> int:
    """Most memory at once in one forward and backward pass, weights and gradients included."""
    device, was_training = model.device, model.training
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), _peak(model) as peak:
            on_device = {name: tensor.to(device) for name, tensor in batch.items()}
            with mixed_precision(device, precision):
                embedded = model.train()(on_device)
            torch.stack([vectors.float().square().sum() for vectors in tensors(embedded)]).sum().backward()
        return peak()
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
        embedded = on_device = None
        gc.collect()
        if devices:
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _peak(model: Retriever) -> Iterator[Callable[[], int]]:
    """What the most was that was allocated inside, asked for afterwards."""
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
        yield lambda: torch.cuda.max_memory_allocated(model.device)
        return
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        yield lambda: _held(model) + _highest(seen)


def _held(model: Retriever) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def _highest(seen: profile) -> int:
    """The highest sum of what was allocated and freed."""
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        most = max(most, now)
    return most
