"""Which records share a forward pass: those of like length, so that little is padding.

On a CPU more tokens at a time gain nothing, but cost padding and memory that is asked of the kernel for each layer:
there a batch of long records has fewer of them.
"""

import math
from collections.abc import Sequence

import torch

CPU_TOKENS = 1024  # of a batch, about


def batches(lengths: Sequence[float], batch_size: int, device: torch.device) -> list[list[int]]:
    """Places of records, the longest first, in batches of `batch_size` at most; a longer record stands alone."""
    most_tokens = CPU_TOKENS if device.type == "cpu" else math.inf
    made: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True):
        last = made[-1] if made else []
        if 0 < len(last) < batch_size and (len(last) + 1) * lengths[last[0]] <= most_tokens:
            last.append(place)
        else:
            made.append([place])
    return made
