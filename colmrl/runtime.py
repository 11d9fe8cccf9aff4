"""Where torch runs, and with how many threads."""

import torch

from colmrl.config import Config
from colmrl.errors import InputError


def use_torch(config: Config) -> str:
    """Set torch up as the configuration says; returns the device that models go to."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise InputError("device: cuda: torch sees no GPU here: leave it null, or say cpu")
    return config.device or ("cuda" if available else "cpu")
