"""Where torch runs, and with how many threads."""

import contextlib

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


def use_torch(config: Config) -> str:
    """Set torch up as the configuration says; returns the device that models go to."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise InputError("device: cuda: torch sees no GPU here: leave it null, or say cpu")
    return config.device or ("cuda" if available else "cpu")
