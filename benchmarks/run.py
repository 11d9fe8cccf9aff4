"""One command for the benchmarks that compare with peers or with ourselves at scale.

    python benchmarks/run.py NAME [options]     # without a name: the list; with --help: that benchmark's options

Each prints one table and writes benchmarks/results/NAME.json.
"""

import sys
from typing import Literal, cast, get_args

Name = Literal[
    "maxsim",
    "search",
    "mining",
    "negatives",
    "false_negatives",
    "sizes",
    "kills",
    "rerank",
    "fuzz",
    "faults",
    "licences",
    "licences",
]


def main() -> None:
    name, *options = [*sys.argv[1:], ""][: max(1, len(sys.argv) - 1)]
    if name not in get_args(Name):
        print(__doc__, "Benchmarks: " + ", ".join(get_args(Name)), sep="\n")
        sys.exit(0 if name in ("", "-h", "--help") else 2)
    match cast(Name, name):
        case "maxsim":
            from maxsim import main as benchmark
        case "search":
            from search import main as benchmark
        case "mining":
            from mining import main as benchmark
        case "negatives":
            from negatives import main as benchmark
        case "false_negatives":
            from false_negatives import main as benchmark
        case "sizes":
            from sizes import main as benchmark
        case "kills":
            from kills import main as benchmark
        case "fuzz":
            from fuzz import main as benchmark
        case "faults":
            from faults import main as benchmark
        case "licences":
            from licences import main as benchmark
        case "rerank":
            from rerank import main as benchmark
    benchmark(options)


if __name__ == "__main__":
    main()
