"""Which records of a batch the model sees together: few chunks, little padding, within a budget of tokens."""

from collections.abc import Sequence

import numpy as np

_PADDING = 0.1  # of what the model computes on, at most
# What a pass costs beside its tokens. Reading the weights and adding to their gradients, in tokens, whatever the model;
# and starting a layer's operations, in what is multiplied and added meanwhile. Measured on a core of a CPU, reckoned
# for a GPU (docs/performance-log.md).
_WEIGHTS_CPU, _WEIGHTS_GPU = 64, 512
_LAYER_FLOP_CPU, _LAYER_FLOP_GPU = 2e8, 4e11
_TOKEN_FLOP = 72  # of a layer, times its width squared: 12 weights, 6 for each, forward and backward


def tokens_worth_a_pass(width: int, on_gpu: bool) -> int:
    """Of padding in a model of that width: what one forward and backward pass less is worth."""
    weights, layer = (_WEIGHTS_GPU, _LAYER_FLOP_GPU) if on_gpu else (_WEIGHTS_CPU, _LAYER_FLOP_CPU)
    return weights + round(layer / (_TOKEN_FLOP * width**2))


def chunks_of(lengths: Sequence[int], records: int | None = None, tokens: int | None = None) -> list[list[int]]:
    """Records of like length together, the longest first, so that memory fails early; at most `records` a chunk.

    With `tokens`, a chunk's size with padding (its records × the longest) is at most that, save where one record alone
    is longer; and as few chunks as leave padding, over all of them, within a tenth.
    """
    order = sorted(range(len(lengths)), key=lambda place: lengths[place], reverse=True)
    most = records or max(len(order), 1)
    if tokens is None:
        return [order[start : start + most] for start in range(0, len(order), most)]
    longest_first = np.array([lengths[place] for place in order], np.int64)
    worth = tokens  # padding that one chunk less is worth
    while True:
        ends = _cut(longest_first, most, tokens, worth)
        padded = sum(int(longest_first[start]) * (end - start) for start, end in zip([0, *ends], ends, strict=False))
        if padded - longest_first.sum() <= _PADDING * padded:
            return [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        worth //= 2


def by_length(lengths: Sequence[int], worth: int) -> list[list[int]]:
    """Records of like length together, the longest first, so that padding + `worth` tokens a chunk is least."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place], reverse=True)
    longest_first = np.array([lengths[place] for place in order], np.int64)
    ends = _cut(longest_first, len(order), int(longest_first.max() * len(order)), worth)
    return [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _cut(lengths: np.ndarray, most: int, tokens: int, worth: int) -> list[int]:
    """Where the chunks of records in falling length end, so that padding + `worth` a chunk is least: the cheapest way
    from each record to the end follows from those after it."""
    count = len(lengths)
    cost, end = np.zeros(count + 1, np.int64), np.zeros(count, np.int64)
    for start in range(count - 1, -1, -1):
        room = min(most, max(1, tokens // int(lengths[start])), count - start)
        whole = lengths[start] * np.arange(1, room + 1) + cost[start + 1 : start + room + 1]
        best = int(whole.argmin())
        cost[start], end[start] = whole[best] + worth, start + best + 1
    ends, place = [], 0
    while place < count:
        place = int(end[place])
        ends.append(place)
    return ends
