"""The machinery of benchmarks/mutants.py on a tree of one module: what is changed, and which tests run against it."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("mutmut", reason="pip install mutmut")
pytest.importorskip("coverage", reason="pip install coverage")
MODULE = '''"""Sums."""
import logging
from jaxtyping import Float
log = logging.getLogger(__name__)
__all__ = ["add"]
Number = int | float
LEAST = 3


def add(one: "int", other: int = 0) -> int:
    """The sum."""
    assert one >= LEAST, "too " + "small"
    if other < 0:
        log.info("less than 0: %d", 7)
        raise ValueError("less than" + str(0))
    return (
        one +
        other
    )


class Sum:
    @property
    def twice(self) -> int:
        return 2 * 5

    def never(self) -> int:
        return 8 - 1
'''
TESTS = """
import pytest
from colmrl.sums import Sum, add

@pytest.fixture(scope="session")
def made():
    return add(3, 4)

def test_fixture(made):
    assert made == 7

def test_refused():
    with pytest.raises(ValueError):
        add(9, -1)

def test_twice():
    assert Sum().twice == 10

@pytest.mark.skip
def test_skipped():
    assert Sum().never() == 7
"""
SCRIPT = """
import json, random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from mutants_made import drawn
from mutants_tests import preload, run, traced
tree, work, found = Path("tree").resolve(), Path(".").resolve(), {}
seen = traced(tree, ["tests"], work)
preload(tree, seen, ["colmrl/sums.py"])
assert "colmrl" in sys.modules and "colmrl.sums" not in sys.modules
for mutant in drawn(tree, ["colmrl/sums.py"], None, random.Random(0))[1]:
    chosen, expected_s = seen.within(seen.reaching(mutant.file, (mutant.begins, mutant.lines[1])), 60)
    before = (tree / mutant.file).read_text()
    (tree / mutant.file).write_text(mutant.code)
    ended = run(tree, chosen, 1, work) if chosen else ("no test", "")
    found[f"{mutant.was} > {mutant.became}"] = [len(chosen), *ended]
    (tree / mutant.file).write_text(before)
print(json.dumps([found, run(tree, list(seen.asks), 1, work)]))
"""


@pytest.fixture
def tree(tmp_path):
    for name in ("colmrl", "tests"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    (tmp_path / "tree/colmrl/__init__.py").write_text("")
    (tmp_path / "tree/colmrl/sums.py").write_text(MODULE)
    (tmp_path / "tree/tests/test_sums.py").write_text(TESTS)
    shutil.copy(ROOT / "tests/typechecking.py", tmp_path / "tree/tests")
    return tmp_path / "tree"


def test_texts_types_and_names_are_not_changed(tree, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from mutants_made import drawn

    count, mutants = drawn(tree, ["colmrl"], None, random.Random(0))
    assert {mutant.lines[0] for mutant in mutants} == {7, 10, 12, 13, 17, 25, 28} and len(mutants) <= count
    assert {mutant.begins for mutant in mutants if mutant.lines[0] == 17} == {16}
    some = drawn(tree, ["colmrl"], 5, random.Random(0))[1]
    assert len(some) == 5 and some == drawn(tree, ["colmrl"], 5, random.Random(0))[1] and set(some) <= set(mutants)


@pytest.mark.slow
def test_a_change_is_found_by_the_tests_that_reach_it_through_shared_fixtures_too(tree, tmp_path):
    ran = [sys.executable, "-c", SCRIPT, str(ROOT / "benchmarks")]
    done = subprocess.run(ran, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found, unchanged = json.loads(done.stdout.splitlines()[-1])
    assert unchanged == ["passed", ""]
    fixture, twice = "tests/test_sums.py::test_fixture", "tests/test_sums.py::test_twice"
    assert found["( one + other ) > ( one - other )"] == [1, "failed", fixture]
    assert found["2 * 5 > 2 / 5"] == [1, "failed", twice]
    assert found["3 > 4"] == [3, "failed", fixture], "what is run on import is reached by all tests of the file"
    assert found["0 > 1"][1] == "passed", "the default is never taken"
    assert found["8 - 1 > 8 + 1"] == [0, "no test", ""]


def test_the_interval_is_wilsons(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from mutants import wilson
    from scipy.stats import binomtest

    for killed, tried in ((60, 60), (50, 60), (0, 7)):
        expected = binomtest(killed, tried).proportion_ci(method="wilson")
        assert wilson(killed, tried) == pytest.approx((expected.low, expected.high), abs=1e-4)
