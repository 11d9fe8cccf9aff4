"""The benchmarks that compare with peers or measure growth, one after another, and the page that shows them.

    python benchmarks/run.py all                # --only NAME …; about half an hour on a quiet machine

Each in a process of its own; one that fails is said, and the others go on. Writes benchmarks/results/*.json, then
docs/benchmarks.md (page.py). Leave the working tree as it is meanwhile: results name its commit.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import page

HERE = Path(__file__).parent
NAMES = {
    "startup": [],
    "maxsim": [],
    "search": ["--cases", "clustered", "--out", "benchmarks/results/search-clustered.json"],
    "mining": [],
    "train": [],
    "encode": [],
    "rerank_speed": [],
    "scale": [],
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = [name for name in NAMES if (HERE / f"{name}.py").is_file()]
    parser.add_argument("--only", nargs="+", choices=there, default=there)
    arguments = parser.parse_args(argv)
    failed = []
    for name in arguments.only:
        started = time.perf_counter()
        done = subprocess.run([sys.executable, HERE / "run.py", name, *NAMES[name]], cwd=HERE.parent)
        failed += [name] if done.returncode else []
        print(f"{name}: {'failed' if done.returncode else 'done'} in {time.perf_counter() - started:.0f} s", flush=True)
    page.main([])
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
