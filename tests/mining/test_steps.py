"""Each step that settings name, on one query's candidates."""

import numpy as np
import pytest

from colmrl.config import FilterConfig, TeacherConfig
from colmrl.data.records import Document, Records
from colmrl.mining.block import Block
from colmrl.mining.contents import Contents
from colmrl.mining.steps import make_steps

STEPS = [
    ({"min_score": 0.5}, [False, False, True]),  # an equal score stays
    ({"max_score": 0.5}, [True, False, False]),
    ({"absolute_margin": 0.3}, [True, False, False]),
    ({"relative_margin": 0.5}, [True, True, False]),
    ({"range_min": 1}, [True, False, False]),
    ({"range_max": 2}, [False, False, True]),
]


def block():
    return Block(
        query_ids=["q"],
        positions=np.array([[4, 5, 6]]),
        scores=np.array([[0.9, 0.5, 0.2]], np.float32),
        left=np.ones((1, 3), bool),
        positives=(np.array([0]), np.array([1])),
        positive_scores=np.array([0.8], np.float32),
        known=(np.array([0]), np.array([1])),
    )


def unread(number):
    raise AssertionError(number)


def steps(setting, teacher=None):
    return make_steps([setting], Contents(Records[Document]([], unread), []), lambda _: teacher)


@pytest.mark.parametrize(("setting", "gone"), STEPS)
def test_a_step_removes_what_its_name_says(setting, gone):
    known, step = steps(FilterConfig(**setting))
    assert step.label == "{} {:g}".format(*next(iter(setting.items())))
    assert (~step.apply(known.apply(block())).left).tolist() == [gone]


@pytest.mark.parametrize("name", ["absolute_margin", "relative_margin", "max_score"])
def test_a_teachers_scores_are_what_its_bounds_are_held_to(name):
    class Teacher:
        name = "the search, turned round"

        def judge(self, asked):
            """As sure as the search, the other way round."""
            judged = asked.scores[:, ::-1]
            return Block(**vars(asked) | {"judged": judged, "judged_positives": np.array([0.8], np.float32)})

    value, gone = next((next(iter(setting.values())), gone) for setting, gone in STEPS if name in setting)
    setting = FilterConfig(teacher=TeacherConfig(store="s", **{name: value}))
    _, judge, step = steps(setting, Teacher())
    assert (judge.label, step.label) == ("teacher scores", f"teacher {name} {value:g}")
    assert (~step.apply(judge.apply(block())).left).tolist() == [gone[::-1]]
