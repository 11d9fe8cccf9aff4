"""How documents are found for mteb: view or funnel, index, reranker; and the settings that its numbers depend on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from colmrl.config import Config, IndexType
from colmrl.configure import flat, to_dict
from colmrl.errors import InputError
from colmrl.search.faiss_types import check_type
from colmrl.search.plan import Plan, Stage

_OF_INDEX = ("index.lists", "index.probes", "index.training_vectors", "index.candidates")
_OF_RERANKER = ("rerank.permutations", "rerank.stride", "rerank.candidates")


@dataclass(frozen=True)
class Way:
    """A view or a funnel, by an index (a type, built where there is none; or a folder; None: exactly), and whose
    checkpoint reranks the best `rerank.top_k` (None: nobody's).
    """

    plan: Plan
    index: IndexType | Path | None = None
    reranker: str | None = None

    @property
    def is_plain(self) -> bool:
        """Exact search at one view, whatever comes after it."""
        return self.index is None and len(self.plan.stages) == 1

    @property
    def first(self) -> "Way":
        """Without the reranker."""
        return replace(self, reranker=None)

    def at_dim(self, dim: int) -> "Way":
        """The same single view at another dim."""
        (stage,) = self.plan.stages
        return replace(self, plan=Plan((Stage(replace(stage.view, dim=dim)),)))

    def __str__(self) -> str:
        index = [] if self.index is None else [f"index {self.index}"]
        return ", ".join([str(self.plan), *index, *([f"reranked by {self.reranker}"] if self.reranker else [])])


def parse_ways(plans: str, index: str | None, reranker: str | None) -> list[Way]:
    """`single@256,single@64/1000+multi@128`: one each."""
    found = [parse_way(plan.strip(), index, reranker) for plan in plans.split(",") if plan.strip()]
    if not found:
        raise InputError("--views: names none: give e.g. single@256,multi@128,multi@64x32")
    return list(dict.fromkeys(found))


def parse_way(plan: str, index: str | None = None, reranker: str | None = None) -> Way:
    way = Plan.parse(plan)
    if index in get_args(IndexType):
        check_type(way.stages[0].view, cast(IndexType, index))
        return Way(way, cast(IndexType, index), reranker)
    if index is not None and not (Path(index) / "manifest.json").is_file():
        kinds = ", ".join(get_args(IndexType))
        raise InputError(f"--index {index}: neither a type ({kinds}) nor a folder that colmrl index wrote: give one")
    return Way(way, Path(index) if index is not None else None, reranker)


def settings_of(config: Config, way: Way, given: Sequence[str] = ()) -> dict[str, str]:
    """What the numbers of this way depend on and is not as by default, key → JSON; of a reranker the depth always.
    `given`: what holds in place of a reranker's own settings.
    """
    now, before = flat(to_dict(config)), flat(to_dict(Config()))
    keys = ["encode.pooling"] if any(stage.view.vectors for stage in way.plan.stages) else []
    if not way.is_plain:
        keys += ["eval.k", "index.probes", "index.candidates"]
    if way.index is not None and not isinstance(way.index, Path):
        keys += [*_OF_INDEX, "seed"]
    changed = [key for key in dict.fromkeys(keys) if now[key] != before[key]]
    if way.reranker is not None:
        changed += ["rerank.top_k", *(key for key in _OF_RERANKER if key in given)]
    return {key: json.dumps(now[key]) for key in changed}
