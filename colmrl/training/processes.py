"""Several processes of one run (torchrun, accelerate launch): what the first does for all."""

import atexit
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist
from accelerate import PartialState

from colmrl.errors import InputError
from colmrl.training.gather import device, rank

T = TypeVar("T")


def start(on: str) -> None:
    """Join the other processes, where the launcher's environment says that there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        PartialState(cpu=on == "cpu")
        atexit.register(_leave)


def on_first(work: Callable[[], T]) -> T:
    """What `work()` gives in the first process, in every process; its InputError is raised in every process too, so
    that none waits for one that has gone."""
    if not dist.is_initialized():
        return work()
    said: list[Any] = [None, None]
    if rank() == 0:
        try:
            said[0] = work()
        except InputError as error:
            said[1] = str(error)
    dist.broadcast_object_list(said, device=device())
    if said[1] is not None:
        raise InputError(said[1])
    return said[0]


def wait() -> None:
    """Until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
