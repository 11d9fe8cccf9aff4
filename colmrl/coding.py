"""Vectors as they are kept: fp32, fp16, int8 with one scale a vector, or one bit a dim; and back to fp32.

A prefix of a kept vector is read without the rest of it: cut, then normalised; of bits, the bits of the prefix.
Letters: t vectors, h dims.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from colmrl.view import Precision

_BIT = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)  # numpy's order
_SIGNS = ((torch.arange(256)[:, None] & _BIT) != 0).float() * 2 - 1  # of each byte, eight at a time: 9x faster


@dataclass(frozen=True)
class Codes:
    """`values`: [t, kept] of float32, float16 or int8, or [t, ⌈kept / 8⌉] uint8 of bits, by `precision`. `scales`: what
    each int8 vector is multiplied by, else None. `dim`: the leading dims that are read, of the `kept` ones.
    """

    values: Tensor
    scales: Float[Tensor, " t"] | None
    precision: Precision
    kept: int
    dim: int

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, rows: slice | Int[Tensor, " n"]) -> "Codes":
        """Some of the vectors; a slice shares memory."""
        scales = self.scales[rows] if self.scales is not None else None
        return Codes(self.values[rows], scales, self.precision, self.kept, self.dim)

    def rounded(self, precision: Precision) -> "Codes":
        """At this precision: as they are kept, or coded anew."""
        return self if self.precision == precision else code(self.decode(), precision)

    def decode(self) -> Float[Tensor, "t {self.dim}"]:
        """fp32, as scores take them."""
        match self.precision:
            case "binary":
                signs = (_SIGNS / self.dim**0.5).to(self.values.device)
                return F.embedding(self.values[:, : -(-self.dim // 8)].int(), signs).flatten(1)[:, : self.dim]
            case "int8" if self.dim == self.kept:
                return self.values.float() * cast(Tensor, self.scales)[:, None]
            case "fp32" | "fp16" if self.dim == self.kept:
                return self.values.float()
            case _:
                return F.normalize(self.values[:, : self.dim].float(), dim=-1, eps=1e-12)


@dataclass(frozen=True)
class CodedItems:
    """Items of several vectors each, as they are kept: item i is `codes.rows(slice(offsets[i], offsets[i + 1]))`."""

    codes: Codes
    offsets: Int[Tensor, "items_and_one"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Int[Tensor, " items"]:
        return self.offsets.diff()

    def slice(self, start: int, stop: int) -> "CodedItems":
        """Items start..stop, sharing memory."""
        offsets = self.offsets[start : stop + 1]
        return CodedItems(self.codes.rows(slice(int(offsets[0]), int(offsets[-1]))), offsets - offsets[0])

    def select(self, items: Int[Tensor, " n"]) -> "CodedItems":
        """These items, in this order."""
        rows, offsets = rows_of(self.offsets, items)
        return CodedItems(self.codes.rows(rows), offsets)


def code(vectors: Float[Tensor, "t h"], precision: Precision) -> Codes:
    """Normalised vectors, to be kept. int8: the largest entry of each becomes 127."""
    scales = None
    match precision:
        case "fp32":
            values = vectors
        case "fp16":
            values = vectors.half()
        case "int8":
            scales = vectors.abs().amax(1).clamp(min=1e-12) / 127
            values = (vectors / scales[:, None]).round().to(torch.int8)
        case "binary":
            bits = F.pad((vectors > 0).to(torch.uint8), (0, -vectors.shape[1] % 8)).unflatten(1, (-1, 8))
            values = (bits * _BIT.to(bits.device)).sum(-1, dtype=torch.uint8)
    return Codes(values, scales, precision, vectors.shape[1], vectors.shape[1])


def rows_of(
    offsets: Int[Tensor, "items_and_one"], items: Int[Tensor, " n"]
) -> tuple[Int[Tensor, " t"], Int[Tensor, "n_and_one"]]:
    """Where the vectors of these items stand, one after another, and the offsets of the items among them."""
    counts = offsets.diff()[items]
    chosen = F.pad(counts.cumsum(0), (1, 0))
    within = torch.arange(int(chosen[-1]), device=items.device) - chosen[:-1].repeat_interleave(counts)
    return offsets[items].repeat_interleave(counts) + within, chosen
