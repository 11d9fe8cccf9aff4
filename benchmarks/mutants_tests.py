"""Tests run in a forked child of a process that has imported what they need, but nothing that a mutant may change.

`traced` runs tests once and says which reach which line; `run` runs some of them on a changed tree and stops at the
first that fails. What a fixture of a whole module or session reaches counts for every test that asks for it.
"""

import ast
import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest

QUIET = ["-q", "--no-header", "--hypothesis-seed=0"]
for _plugin in ("cacheprovider", "xdist", "unraisableexception", "threadexception"):  # the last two collect garbage
    QUIET += ["-p", f"no:{_plugin}"]


@dataclass
class Traced:
    """`seconds`: of CPU, of each test without its shared fixtures, and of each such fixture; `asks`: test → those that
    it uses; `lines`: file → line → tests and fixtures that reach it; `modules`, `own`: what was imported on the way,
    colmrl apart.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    asks: dict[str, list[str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    lines: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)

    def reaching(self, file: str, lines: tuple[int, int]) -> list[str]:
        """Passing tests that reach one of these lines, cheapest first. What is run on import all tests do that reach
        the file.
        """
        reached = self.lines.get(file, {})
        names = {name for line in range(lines[0], lines[1] + 1) for name in reached.get(str(line), ())}
        if "" in names:
            names = {name for some in reached.values() for name in some}
        found = [test for test, asked in self.asks.items() if test in names or not names.isdisjoint(asked)]
        return sorted((test for test in found if test not in self.failed), key=self.cost)

    def cost(self, test: str) -> float:
        return self.seconds[test] + sum(self.seconds.get(name, 0) for name in self.asks[test])

    def within(self, tests: Sequence[str], most_s: float) -> tuple[list[str], float]:
        """As many of the first as may be expected to take no longer, one at least; and what they take."""
        paid: set[str] = set()
        chosen, total = [], 0.0
        for test in tests:
            new = [name for name in self.asks[test] if name not in paid]
            cost = self.seconds[test] + sum(self.seconds.get(name, 0) for name in new)
            if chosen and total + cost > most_s:
                break
            paid.update(new)
            chosen.append(test)
            total += cost
        return chosen, total


class _Tracer:
    """A pytest plugin: the coverage's context is the test, or the shared fixture that is being made."""

    def __init__(self, tree: Path):
        self._tree, self.found = tree, Traced()
        self._measured = coverage.Coverage(data_file=None, config_file=False, source=[str(tree / "colmrl")])
        self._names, self._started = [""], [0.0]
        self._measured.start()

    @contextlib.contextmanager
    def _within(self, name: str) -> Iterator[None]:
        before = _cpu_s()
        self._names.append(name)
        self._started.append(0.0)
        self._measured.switch_context(name)
        try:
            yield
        finally:
            self._names.pop()
            inner, total = self._started.pop(), _cpu_s() - before
            self._started[-1] += total
            self.found.seconds[name] = self.found.seconds.get(name, 0) + total - inner
            self._measured.switch_context(self._names[-1])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        self.found.asks[item.nodeid] = [f"fixture {name}" for name in item.fixturenames]
        with self._within(item.nodeid):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        shared = fixturedef.scope != "function"
        with self._within(f"fixture {fixturedef.argname}") if shared else contextlib.nullcontext():
            return (yield)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if not report.passed and report.nodeid not in self.found.failed:  # skipped ones find nothing either
            self.found.failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._measured.stop()
        data = self._measured.get_data()
        for file in data.measured_files():
            lines = data.contexts_by_lineno(file)
            name = str(Path(file).relative_to(self._tree))
            self.found.lines[name] = {str(line): sorted(names) for line, names in lines.items()}
        ours = {name for name, module in list(sys.modules.items()) if _is_in(module, self._tree)}
        self.found.modules = [name for name in sys.modules if name not in ours]
        self.found.own = [name for name in sys.modules if name in ours and name.partition(".")[0] == "colmrl"]


def _is_in(module: Any, tree: Path) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(str(tree))


class _Ordered:
    """A pytest plugin: only these tests, in this order; `told`: where the one that fails is written to."""

    def __init__(self, tests: Sequence[str], tree: Path, told: Path):
        self._rank, self._tree, self._told = {test: rank for rank, test in enumerate(tests)}, tree, told

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self._rank), key=lambda i: self._rank[i.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._told.write_text(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        ours = sys.modules.get("colmrl")
        assert ours is None or str(ours.__file__).startswith(str(self._tree)), "another tree was tested"


def traced(tree: Path, tests: Sequence[str], work: Path) -> Traced:
    said = work / "traced.json"
    said.unlink(missing_ok=True)

    def child() -> int:
        sys.dont_write_bytecode = False  # the mutants' children read it
        tracer = _Tracer(tree)
        code = pytest.main([*QUIET, f"--basetemp={work}/tmp", *tests], plugins=[tracer])
        said.write_text(json.dumps(vars(tracer.found)))
        return int(code)

    ended = _forked(tree, child, work / "traced.log", 3600, 3600)
    assert said.is_file(), f"{work}/traced.log: the tests did not end: {ended}"
    return Traced(**json.loads(said.read_text()))


def preload(tree: Path, found: Traced, changed: Sequence[str]) -> None:
    """Import what the tests will: other packages, and of colmrl, checked as tests check it, what is not in `changed`
    and does not import any of it in the end. What cannot be imported by its name alone they import themselves.
    """
    for name in found.modules:
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    path = list(sys.path)
    _only(tree)
    sys.path.insert(0, str(tree / "tests"))
    from jaxtyping import install_import_hook

    stale = _importing(tree, found.own, changed)
    with install_import_hook("colmrl", "typechecking.tower"):
        for name in found.own:
            if name not in stale:
                importlib.import_module(name)
    assert not stale & set(sys.modules)
    sys.path[:] = path
    gc.collect()
    gc.freeze()


def _importing(tree: Path, names: Sequence[str], changed: Sequence[str]) -> set[str]:
    """Those of the modules that are in `changed` (files and folders) or import, anywhere in them, one that does."""
    imports, stale = {}, set()
    for name in names:
        file = tree / (name.replace(".", "/") + ".py")
        file = file if file.is_file() else tree / name.replace(".", "/") / "__init__.py"
        if any(file == tree / path or (tree / path) in file.parents for path in changed):
            stale.add(name)
        said = {name}
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                said.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                said.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
        imports[name] = {one.rsplit(".", above)[0] for one in said for above in range(one.count(".") + 1)} - {name}
    while more := {name for name in names if name not in stale and imports[name] & stale}:
        stale |= more
    return stale


def _only(tree: Path) -> None:
    """colmrl is this tree's."""
    sys.path[:] = [str(tree), *(path for path in sys.path[1:] if not (Path(path) / "colmrl").is_dir())]


def run(tree: Path, tests: Sequence[str], expected_s: float, work: Path) -> tuple[str, str]:
    """What came of it ("passed", "failed", "timeout", "crash") and the test that failed. A timeout: four times the CPU
    seconds that they may be expected to take and half a minute, or twenty times in the clock's.
    """
    told = work / "failed.txt"
    told.unlink(missing_ok=True)

    def child() -> int:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        return int(pytest.main([*QUIET, "-x", f"--basetemp={work}/tmp", *files], plugins=[_Ordered(tests, tree, told)]))

    ended = _forked(tree, child, work / "run.log", 30 + 4 * expected_s, 120 + 20 * expected_s)
    by = told.read_text() if told.is_file() else ""
    if ended in ("timeout", "crash"):
        return ended, by
    return ("passed" if ended == "0" else "failed"), by


def _forked(tree: Path, do: Callable[[], int], log: Path, cpu_s: float, wall_s: float) -> str:
    """The code with which a child ended that did it in that tree, "timeout" or "crash"."""
    child = os.fork()
    if not child:
        code = 70
        try:
            os.setsid()
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 10))
            os.chdir(tree)
            _only(tree)
            os.environ["PYTHONPATH"] = str(tree)
            code = do()
        finally:
            sys.stdout.flush()
            os._exit(code)
    until = time.monotonic() + wall_s
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            ended = None
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started and left behind
    if ended is None or (os.WIFSIGNALED(ended[1]) and os.WTERMSIG(ended[1]) in (signal.SIGXCPU, signal.SIGKILL)):
        return "timeout"
    return "crash" if os.WIFSIGNALED(ended[1]) else str(os.WEXITSTATUS(ended[1]))


def _cpu_s() -> float:
    """Of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
