"""Several processes of one run (torchrun, accelerate launch): which one this is, and what the first does for all."""

import atexit
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

from colmrl.errors import InputError
from colmrl.files import locked

T = TypeVar("T")


def processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if processes() > 1 else 0


def device() -> torch.device:
    """Where the backend's messages are kept."""
    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")


def data_worker(number: int) -> None:
    """For a DataLoader's `worker_init_fn`: where the process that asked for a batch is gone before it has taken it over
    (Ctrl-C), Python's thread that hands tensors over would print a traceback; what fails otherwise is still said.
    """
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, ConnectionError | EOFError):
            shown(kind, error, trace)

    sys.excepthook = hook


def start(on: str, **kwargs: Any) -> None:
    """Join the other processes, where the launcher's environment says that there are any. `kwargs`: as
    torch.distributed.init_process_group takes them, e.g. `timeout`. The first alone says what is going on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        PartialState(cpu=on == "cpu", **kwargs)
        atexit.register(_leave)
    if rank():
        logging.getLogger("colmrl").setLevel(logging.WARNING)


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


@contextlib.contextmanager
def locked_by_first(folder: Path, remedy: str = "choose another --out") -> Iterator[None]:
    """The processes of one run have a folder to themselves (`files.locked`): the first holds the lock."""
    with contextlib.ExitStack() as held:
        on_first(lambda: held.enter_context(locked(folder, remedy=remedy)))
        yield


def wait() -> None:
    """Until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
