"""A view names one way to embed: `<head>@<dim>[x<vectors>][:<precision>]`, e.g. `multi@64x32:int8`.

The same string is the CLI argument, the manifest key, the report row and (as `slug`) the file name.
Bytes follow from it, so that a quality figure can always stand beside its price.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from colmrl.errors import InputError

Head = Literal["single", "multi"]
Precision = Literal["fp32", "fp16", "int8", "binary"]

_GRAMMAR = re.compile(r"(single|multi)@([1-9]\d*)(?:x([1-9]\d*))?(?::(fp32|fp16|int8|binary))?")
_BITS: dict[Precision, int] = {"fp32": 32, "fp16": 16, "int8": 8, "binary": 1}
_SCALE_BYTES = 4  # int8 keeps one fp32 scale a vector


@dataclass(frozen=True, order=True)
class View:
    """One embedding size. `vectors` is the most vectors a document keeps (None: all of them)."""

    head: Head
    dim: int
    vectors: int | None = None
    precision: Precision = "fp32"

    @classmethod
    def parse(cls, text: str) -> "View":
        match = _GRAMMAR.fullmatch(text.strip())
        if match is None:
            raise InputError(
                f"view {text!r}: not of the form <head>@<dim>[x<vectors>][:<precision>]: "
                "write e.g. single@256, multi@128, multi@64x32:int8 (fp32, fp16, int8, binary)"
            )
        head, dim, vectors, precision = match.groups()
        if head == "single" and vectors is not None:
            raise InputError(f"view {text!r}: the single head has one vector: drop x{vectors}, or use multi@")
        return cls(cast(Head, head), int(dim), int(vectors) if vectors else None, cast(Precision, precision or "fp32"))

    def __str__(self) -> str:
        vectors = f"x{self.vectors}" if self.vectors else ""
        precision = "" if self.precision == "fp32" else f":{self.precision}"
        return f"{self.head}@{self.dim}{vectors}{precision}"

    @property
    def slug(self) -> str:
        """The view as a file name."""
        return str(self).replace("@", "-").replace(":", "-")

    def bytes_per_document(self, vectors_per_document: float = 1.0) -> float:
        """Bytes that one document's vectors take, without ids and offsets.

        `vectors_per_document` is the mean number that documents really keep in this view (a short document
        may have fewer than the budget); 1 for the single head.
        """
        per_vector = (self.dim * _BITS[self.precision] + 7) // 8
        return vectors_per_document * (per_vector + (_SCALE_BYTES if self.precision == "int8" else 0))


def parse_views(text: str | Iterable[str]) -> list[View]:
    """Views from `single@64,multi@64x16` or from a list of such names, in order, without repeats."""
    names = text.split(",") if isinstance(text, str) else list(text)
    return list(dict.fromkeys(View.parse(name) for name in names if name.strip()))


@dataclass(frozen=True)
class TrainedViews:
    """Which dims each head of a checkpoint was trained at; every view is checked against it."""

    single_dims: tuple[int, ...]
    multi_dims: tuple[int, ...]

    def check(self, view: View) -> None:
        """Raise an InputError that names what was trained if this view's dim was not."""
        dims = self.single_dims if view.head == "single" else self.multi_dims
        if view.dim not in dims:
            trained = ", ".join([f"single@{d}" for d in self.single_dims] + [f"multi@{d}" for d in self.multi_dims])
            wrong = "was not trained" if dims else f"asks for a {view.head} head, which the model has not"
            raise InputError(f"view {str(view)!r} {wrong}: choose from {trained}")

    def full(self) -> list[View]:
        """The largest view of each head."""
        return [View(head, max(dims)) for head, dims in self._heads() if dims]

    def _heads(self) -> list[tuple[Head, tuple[int, ...]]]:
        return [("single", self.single_dims), ("multi", self.multi_dims)]
