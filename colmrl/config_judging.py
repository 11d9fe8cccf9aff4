"""The sections of the configuration that say what is judged; `config` has the others."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from colmrl.view import Head
from colmrl.view import Precision as StoredPrecision

STRICT = ConfigDict(extra="forbid")
Positive = Annotated[int, Field(gt=0)]
Dims = tuple[Positive, ...]
IndexType = Literal["flat", "ivf", "hnsw", "ivfpq", "rabitq"]


@dataclass(frozen=True, config=STRICT)
class EvalConfig:
    """What is judged."""

    views: tuple[str, ...] = ()  # none: every trained dim of both heads
    k: Annotated[int, Field(ge=10)] = 100  # ranks a query
    gpu: bool = True  # where there is one


@dataclass(frozen=True, config=STRICT)
class FrontierConfig:
    """What `colmrl frontier` sweeps: every combination that there is."""

    heads: tuple[Head, ...] = ("single", "multi")
    dims: Dims = ()  # none: every trained one
    budgets: tuple[Positive | None, ...] = (None, 32, 16, 8, 4)  # vectors a document of the multi head; null: all
    precisions: tuple[StoredPrecision, ...] = ("fp32", "fp16", "int8", "binary")
    indexes: tuple[IndexType, ...] = ()  # beside exact search; section `index` says how each is built and searched
    depths: Dims = ()  # documents that a single view passes on to `rerank`; none: no second stage
    rerank: str | None = None  # the second stage's view; null: the multi head's largest
    timed: Positive = 20  # queries, one at a time, that a query's milliseconds are the median of
