"""A plan: one view to search at, or a funnel of them, `single@64/1000+single@256/200+multi@128`.

The first stage looks at the whole corpus, each later one at what the one before it passed on: `/N` documents, or as
many as `index.candidates` says. The last stage's scores are the ranking's.
"""

from dataclasses import dataclass

from colmrl.errors import InputError
from colmrl.view import View, parse_views


@dataclass(frozen=True)
class Stage:
    """A view, and how many documents go on from it (None: the default; of the last stage: what is asked for)."""

    view: View
    keep: int | None = None

    def __str__(self) -> str:
        return f"{self.view}/{self.keep}" if self.keep else str(self.view)


@dataclass(frozen=True)
class Plan:
    stages: tuple[Stage, ...]

    @classmethod
    def parse(cls, text: str) -> "Plan":
        stages = tuple(_stage(part.strip(), text) for part in text.split("+"))
        if stages[-1].keep:
            raise InputError(f"plan {text!r}: /{stages[-1].keep}: nothing comes after the last stage: drop it")
        return cls(stages)

    @classmethod
    def of(cls, plan: "Plan | View") -> "Plan":
        return plan if isinstance(plan, Plan) else cls((Stage(plan),))

    @property
    def view(self) -> View:
        """The one whose scores decide."""
        return self.stages[-1].view

    def __str__(self) -> str:
        return "+".join(map(str, self.stages))


def views_to_index(text: str) -> list[View]:
    """`single@64,multi@64`; InputError for a funnel, of which only the first stage can use an index."""
    for name in text.split(","):
        if "+" in name or "/" in name:
            first = Plan.parse(name).stages[0].view
            raise InputError(
                f"--view {name.strip()}: a funnel, which cannot be indexed: index its first view ({first}), and give "
                "that index to the funnel's search; later stages score candidates exactly"
            )
    return parse_views(text)


def _stage(part: str, text: str) -> Stage:
    name, slash, keep = part.partition("/")
    if slash and not (keep.isascii() and keep.isdigit() and int(keep)):
        raise InputError(f"plan {text!r}: /{keep}: not a number of documents: write e.g. single@64/1000+multi@128")
    return Stage(View.parse(name), int(keep) if keep else None)
