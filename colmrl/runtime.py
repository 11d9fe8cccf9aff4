"""Where torch runs, and with how many threads."""

import torch

from colmrl.config import Config


def use_torch(config: Config) -> str:
    """Set torch up as the configuration says; returns the device that models go to."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return config.device or ("cuda" if torch.cuda.is_available() else "cpu")
