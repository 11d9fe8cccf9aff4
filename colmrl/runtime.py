"""Where torch runs, and with how many threads."""

import contextlib
from collections.abc import Iterator

import torch

from colmrl.config import Config, Precision
from colmrl.errors import InputError


def mixed_precision(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Autocast as training does under `train.precision`."""
    match precision:
        case "fp32":
            return contextlib.nullcontext()
        case "bf16":
            return torch.autocast(device.type, torch.bfloat16)
        case "fp16":
            return torch.autocast(device.type, torch.float16)


@contextlib.contextmanager
def memory_said(what: str, remedy: str) -> Iterator[None]:
    """Memory that has run out, of the device or of the machine, is an InputError that says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error).strip().partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError):
            place = "the device's memory has run out"
        elif isinstance(error, MemoryError) or "not enough memory" in said or "can't allocate memory" in said:
            place = "memory has run out"
        elif "DataLoader worker" in said and "killed by signal: Killed" in said:
            place, remedy = "memory has run out: the system ended a data worker", f"lower the workers, or {remedy}"
        else:
            raise
        raise InputError(f"{what}: {place} ({said[:200] or type(error).__name__}): {remedy}") from None


def use_torch(config: Config) -> str:
    """Set torch up as the configuration says; returns the device that models go to."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise InputError("device: cuda: torch sees no GPU here: leave it null, or say cpu")
    return config.device or ("cuda" if available else "cpu")
