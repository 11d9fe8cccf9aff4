"""One command for the benchmarks that compare with peers or with ourselves at scale.

    python benchmarks/run.py NAME [options]     # without a name: the list; with --help: that benchmark's options

Each prints one table and writes benchmarks/results/NAME.json.
"""

import sys
from importlib import import_module
from typing import Literal, get_args

Name = Literal[
    "maxsim", "search", "mining", "negatives", "false_negatives", "sizes", "kills", "rerank", "interop", "database",
    "fuzz", "faults", "licences", "startup", "train", "encode", "rerank_speed", "scale", "mutants", "covered",
    "reading", "all",
]  # fmt: skip


def main() -> None:
    name, *options = [*sys.argv[1:], ""][: max(1, len(sys.argv) - 1)]
    if name not in get_args(Name):
        print(__doc__, "Benchmarks: " + ", ".join(get_args(Name)), sep="\n")
        sys.exit(0 if name in ("", "-h", "--help") else 2)
    import_module(name).main(options)


if __name__ == "__main__":
    main()
