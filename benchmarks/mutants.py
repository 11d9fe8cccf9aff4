"""Does a test notice when one thing in the losses, scoring, views, the store or mining is changed? Mutation testing.

    pip install mutmut==3.8.1 coverage
    python benchmarks/run.py mutants                              all five modules, 60 mutants of each
    python benchmarks/run.py mutants --module store --sample 20 --seed 1

Mutants are mutmut's (benchmarks/mutants_made.py), drawn from all of a module's by the seed. Against each run only the
module's own tests, and of them only those that reach the changed lines (coverage contexts), cheapest first, until one
fails; at most --most-seconds of them. mutmut's own runner passes over functions with decorators (its mutants stand side
by side behind trampolines); here every mutant is a copy of the tree with one file changed, and a forked child that
imports it anew (benchmarks/mutants_tests.py). The same tests have to pass before on the copy as it is.

A mutant is killed where a test fails, a shape check included, or the time runs out. What survives is named in
benchmarks/results/mutants.json, with the reason from benchmarks/survivors.yaml where no test can or need notice.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENOUGH = 0.8  # killed, of each module's
MODULES = {  # what is changed, and the tests that have to notice
    "losses": (["colmrl/losses"], ["tests/losses", "tests/training/test_objective.py"]),
    "scoring": (["colmrl/scoring.py"], ["tests/test_scoring.py", "tests/test_kernels.py"]),
    "view": (["colmrl/view.py"], ["tests/test_view.py"]),
    "store": (["colmrl/store"], ["tests/store", "tests/api/test_stores.py"]),
    "mining": (["colmrl/mining"], ["tests/mining"]),
}
LEFT_OUT = [  # they kill, start or compare many processes: half a minute each, and cheaper ones stand beside them
    "tests/store/test_ray.py",
    "tests/store/test_several_processes.py",
    "tests/store/test_interrupted.py",
    "tests/mining/test_benchmark.py",
    "tests/mining/test_sentence_transformers.py::test_the_same_options_give_the_same_triples",
    "tests/mining/test_mining.py::test_killed_at_any_file_it_writes_and_run_again_the_triples_are_the_same",
]


@dataclass(frozen=True)
class Trial:
    """Where a copy of the tree is, and which tests reach what there."""

    work: Path
    most_s: float
    reasons: dict[tuple[str, str, str], str]

    @property
    def tree(self) -> Path:
        return self.work / "tree"

    def row(self, module: str, sample: int | None, seed: int, tests: list[str]) -> dict[str, Any]:
        from mutants_made import drawn
        from mutants_tests import preload, run, traced

        started, paths = _cpu_s(), MODULES[module][0]
        shutil.rmtree(self.tree, ignore_errors=True)
        _copy_tree(self.tree)
        found = traced(self.tree, [*tests, *(f"--deselect={test}" for test in LEFT_OUT)], self.work)
        preload(self.tree, found, paths)
        every, mutants = drawn(ROOT, paths, sample, random.Random(f"{seed} {module}"))
        reaching = [found.reaching(mutant.file, (mutant.begins, mutant.lines[1])) for mutant in mutants]
        chosen = [found.within(some, self.most_s) for some in reaching]
        used = sorted({test for some, _ in chosen for test in some}, key=found.cost)
        expected_s = found.within(used, 1e9)[1]
        assert run(self.tree, used, expected_s, self.work)[0] == "passed", f"{self.work}/run.log: without a mutant"
        counts, survived = {"failed": 0, "timeout": 0, "crash": 0}, []
        for mutant, all_of_them, (some, expected_s) in zip(mutants, reaching, chosen, strict=True):
            (self.tree / mutant.file).write_text(mutant.code)
            what, by = run(self.tree, some, expected_s, self.work) if some else ("passed", "")
            shutil.copy2(ROOT / mutant.file, self.tree / mutant.file)
            said = by or f"{len(some)} of {len(all_of_them)} tests"
            print(f"{_cpu_s() - started:6.0f} {what:8}{mutant.name}   {said}", flush=True)
            if what != "passed":
                counts[what] += 1
                continue
            about = {"at": f"{mutant.file}:{mutant.lines[0]}", "was": mutant.was, "became": mutant.became}
            why = self.reasons.get((mutant.file, mutant.was, mutant.became))
            survived.append({**about, "tests": len(some), "of": len(all_of_them), "why": why})
        killed = sum(counts.values())
        low, high = wilson(killed, len(mutants))
        numbers = {"changes": every, "mutants": len(mutants), "killed": killed, "score": killed / len(mutants)}
        numbers |= {"low": low, "high": high, "cpu_s": round(_cpu_s() - started)}
        failing = [test for test in found.failed if test in found.asks]
        return {"module": module, "tests": tests, **numbers, "by": counts, "not_run": failing, "survived": survived}


def wilson(killed: int, tried: int, z: float = 1.96) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927)."""
    share, more = killed / tried, z * z / tried
    middle = (share + more / 2) / (1 + more)
    half = z * (share * (1 - share) / tried + more / (4 * tried)) ** 0.5 / (1 + more)
    return middle - half, middle + half


def _copy_tree(tree: Path) -> None:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in filter(None, subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def reasons() -> dict[tuple[str, str, str], str]:
    """Why a change need not be noticed, by file and change."""
    import yaml

    stated = yaml.safe_load((ROOT / "benchmarks/survivors.yaml").read_text())
    return {(one["file"], one["was"], one["became"]): group["why"] for group in stated for one in group["changes"]}


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| module | changes | mutants | killed | score | 95% interval | survivors explained |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        explained = sum(bool(one["why"]) for one in row["survived"])
        lines.append(
            f"| {row['module']} | {row['changes']} | {row['mutants']} | {row['killed']} | {row['score']:.0%} "
            f"| {row['low']:.0%}–{row['high']:.0%} | {explained} of {len(row['survived'])} |"
        )
    for row in rows:
        for one in row["survived"]:
            lines.append(f"- {one['at']}: `{one['was']}` → `{one['became']}`: {one['why'] or 'NOT EXPLAINED'}")
    return "\n".join(lines)


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _prepare() -> None:
    """One thread a process, also in what tests start; colmrl is not imported here."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    sys.path.insert(0, str(Path(__file__).parent))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", choices=list(MODULES), nargs="*", default=list(MODULES))
    parser.add_argument("--sample", type=int, default=60, help="mutants of each module; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-seconds", type=float, default=20, help="of tests against one mutant, CPU seconds")
    parser.add_argument("--tests", nargs="*", help="only these, of one module: more is killed by all of its tests")
    parser.add_argument("--work", type=Path, default=None, help="a folder to be kept; else a temporary one")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/mutants.json")
    arguments = parser.parse_args(argv)
    _prepare()
    rows, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        work = (arguments.work or Path(place)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        trial = Trial(work, arguments.most_seconds, reasons())
        for module in arguments.module:
            with ProcessPoolExecutor(
                1, get_context("fork")
            ) as apart:  # that nothing of one module's is imported for the next
                tests = arguments.tests or MODULES[module][1]
                rows.append(apart.submit(trial.row, module, arguments.sample or None, arguments.seed, tests).result())
            print(table(rows[-1:]), flush=True)
    sys.path.insert(0, str(ROOT))
    from colmrl import provenance

    about = {"command": provenance.command(), "commit": provenance.commit(), "machine": f"{os.cpu_count()} cores"}
    about |= {"seed": arguments.seed, "most_seconds": arguments.most_seconds}
    content = {**about, "wall_s": round(time.monotonic() - started), "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(table(rows))
    unexplained = [one for row in rows for one in row["survived"] if not one["why"]]
    sys.exit(1 if unexplained or any(row["score"] < ENOUGH for row in rows) else 0)


if __name__ == "__main__":
    main()
