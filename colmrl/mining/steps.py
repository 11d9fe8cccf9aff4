"""The settings' filters as steps from block to block, in their order; known answers go first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from colmrl.config import FilterConfig, TeacherConfig
from colmrl.mining import filters
from colmrl.mining.block import Block
from colmrl.mining.contents import Contents
from colmrl.mining.teacher import Teacher

_MARGINS = ("absolute_margin", "relative_margin", "max_score")  # that a teacher's scores can be held to


@dataclass(frozen=True)
class Step:
    """`label`: what reports call it."""

    label: str
    apply: Callable[[Block], Block]


def make_steps(
    settings: Sequence[FilterConfig], contents: Contents, open_teacher: Callable[[TeacherConfig], Teacher]
) -> list[Step]:
    """Known answers, then what the settings say; of a teacher first its scores, then what they are held to."""
    steps = [Step("known answers", _without_known)]
    for setting in settings:
        if setting.duplicates:
            steps.append(Step("duplicates", partial(_without_duplicates, contents)))
        elif setting.teacher:
            steps.append(Step("teacher scores", open_teacher(setting.teacher).judge))
            given = {name: getattr(setting.teacher, name) for name in _MARGINS}
            steps += [
                Step(f"teacher {name} {value:g}", partial(_filtered, FilterConfig(**{name: value}), True))
                for name, value in given.items()
                if value is not None
            ]
        else:
            name, value = next((name, value) for name, value in vars(setting).items() if value is not None)
            steps.append(Step(f"{name} {value:g}", partial(_filtered, setting, False)))
    return steps


def _without_known(block: Block) -> Block:
    return block.without(filters.known_answers(block.positions, *block.known))


def _without_duplicates(contents: Contents, block: Block) -> Block:
    rows, answers = block.known
    same = filters.duplicates(block.left, contents.of(block.positions), rows, contents.of(answers))
    return block.without(same)


def _filtered(setting: FilterConfig, taught: bool, block: Block) -> Block:
    """By the search's scores, or by the teacher's."""
    scores, positives = (block.judged, block.judged_positives) if taught else (block.scores, block.positive_scores)
    assert scores is not None and positives is not None
    answer = block.lowest(positives)
    match setting:
        case FilterConfig(range_min=int(ranks)):
            removed = filters.range_min(block.left, ranks)
        case FilterConfig(range_max=int(ranks)):
            removed = filters.range_max(block.left, ranks)
        case FilterConfig(max_score=float(bound)):
            removed = filters.max_score(scores, bound)
        case FilterConfig(min_score=float(bound)):
            removed = filters.min_score(scores, bound)
        case FilterConfig(absolute_margin=float(margin)):
            removed = filters.absolute_margin(scores, answer, margin)
        case FilterConfig(relative_margin=float(margin)):
            removed = filters.relative_margin(scores, answer, margin)
        case _:
            raise AssertionError(setting)
    return block.without(removed)
