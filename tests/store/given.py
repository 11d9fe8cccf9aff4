"""A store of given vectors, written without a model."""

import numpy as np
import torch

from colmrl.scoring import MultiVectors
from colmrl.store import ArraySpec, Manifest

COUNTS = (3, 1, 4, 2, 2)  # vectors of each record, in shards of two
RECORDS = {f"d{n}": f"{n + 1:032x}" for n in range(len(COUNTS))}
SPECS = (
    ArraySpec("single", 8),
    ArraySpec("multi", 8),
    ArraySpec("multi", 8, 2, "int8"),
    ArraySpec("single", 8, None, "binary"),
)
SAID = {"kind": "documents", "fingerprint": "f", "checkpoint": "c", "data": "x", "shard_size": 2, "content_hash": ""}
WANTED = Manifest(**SAID, arrays=SPECS, single_dims=(8, 4), multi_dims=(8, 4))


def normalised(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def vectors_of(name):
    """Single vector, vectors, and their places of a record: drawn by its name."""
    draw, count = np.random.default_rng(int(name[1:])), COUNTS[int(name[1:]) % len(COUNTS)]
    places = np.stack([np.arange(count), draw.integers(0, 9, count)], 1).astype(np.float32)
    return normalised(draw.normal(size=8)), normalised(draw.normal(size=(count, 8))), places


def write(writer):
    """Every shard that is missing, then the end of it."""
    for number in writer.missing():
        made = [vectors_of(name) for name in writer.ids(number)]
        single = np.stack([one for one, _, _ in made]).astype(np.float32)
        packed = MultiVectors.pack([_tensor(some) for _, some, _ in made])
        places = _tensor(np.concatenate([places for _, _, places in made]))
        pooled = MultiVectors.pack([_tensor(normalised(some[:2])) for _, some, _ in made])
        multi = MultiVectors(packed.vectors, packed.offsets, places)
        writer.write(number, {"single": single, "multi": multi, "multi-x2-int8": pooled, "single-binary": single})
    writer.finish()


def _tensor(array):
    return torch.from_numpy(np.asarray(array, dtype=np.float32))
