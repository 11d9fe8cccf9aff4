"""Ray (docs.ray.io): the same work on all machines of a cluster, by Ray Data's map_batches over a pool of actors.

Every machine must have this colmrl, and see the same files under the same paths.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from colmrl.errors import InputError
from colmrl.progress import track

log = logging.getLogger(__name__)
Work = Callable[[Any], None]  # does one item
_ANSWER_S = 10.0  # Ray itself tries for minutes
Opener = Callable[[], Work]  # is called once in each worker, e.g. to load a model


class Worker:
    """What Ray keeps in each of its processes. What is wrong with the input comes back as a text: it has a remedy."""

    def __init__(self, opener: Opener, folder: str, items: Sequence[Any]):
        self._open, self._folder, self._items = opener, folder, items
        self._work: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        try:
            if self._work is None:
                os.chdir(self._folder)  # relative paths mean the same on every machine
                self._work = self._open()
            for place in batch["item"]:
                self._work(self._items[place])
        except (InputError, OSError) as error:
            return {"error": [f"{error} (on {socket.gethostname()})"]}
        return {"error": [""]}


def share_out(
    opener: Opener,
    items: Sequence[Any],
    address: str,
    workers: int | None = None,
    gpus: float | None = None,
    cpus: int = 1,
) -> None:
    """Each item is done by one of the workers, and again by another where its worker dies. A worker takes `cpus`, or
    `gpus` (None: one, where there are any) and one CPU. `workers`: at most; None: as many as the cluster has room for.
    `address`: "local" starts Ray on this machine; "auto", or HOST:PORT, is a cluster that runs.
    """
    with _ray(address) as ray:
        there = ray.cluster_resources()
        gpus = (1.0 if there.get("GPU") else 0.0) if gpus is None else gpus
        cpus = 1 if gpus else cpus
        fit = int(min(there.get("CPU", 0) // cpus, there.get("GPU", 0) // gpus if gpus else len(items)))
        if not fit:
            have = f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
            asked = f"{cpus} CPUs (threads) and {gpus:g} GPUs (encode.ray_gpus)"
            raise InputError(f"ray {address}: has {have}, and a worker takes {asked}: ask for less, or add machines")
        pool = min(workers or fit, len(items))
        log.info("ray: %d workers for %d shards, %d machines", pool, len(items), len(ray.nodes()))
        given = {"opener": opener, "folder": str(Path.cwd()), "items": items}
        done = ray.data.from_items(range(len(items)), override_num_blocks=len(items)).map_batches(
            Worker,
            fn_constructor_kwargs=given,
            batch_size=1,
            num_cpus=cpus,
            num_gpus=gpus or None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool, initial_size=pool),
        )
        for row in track(done.iter_rows(), "shards", len(items)):
            if row["error"]:
                raise InputError(row["error"])


@contextlib.contextmanager
def _ray(address: str) -> Iterator[Any]:
    """Ray, joined quietly, and left; one that the program itself has joined stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of what it starts here; at Ray's 15 a busy machine starves them
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("encode.ray: ray is not installed: pip install 'ray[data]', or leave it out") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    joined = ray.is_initialized()
    if not joined:
        _check_answers(address)
        try:
            options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _no_cluster(address, " ".join(str(error).split())[:200]) from None
    try:
        yield ray
    finally:
        if not joined:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """An InputError where nothing listens at HOST:PORT."""
    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, why: str) -> InputError:
    remedy = "start one (ray start --head), give its HOST:PORT, or say local"
    return InputError(f"encode.ray: {address}: no cluster answers ({why}): {remedy}")
