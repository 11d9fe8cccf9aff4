"""Which lines of colmrl/ the tests run, by package.

    make coverage             # runs all tests (about twice as long as `make test` on one core), then this

Reads coverage's own report, outputs/coverage/report.json; writes benchmarks/results/coverage.json.
"""

import argparse
import json
import os
from collections import Counter
from pathlib import Path

from colmrl import provenance
from colmrl.evaluation.report import markdown_table


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=Path("outputs/coverage/report.json"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/coverage.json"))
    asked = parser.parse_args(argv)
    rows = by_package(json.loads(asked.report.read_text())["files"])
    lines, covered = (sum(row[key] for row in rows) for key in ("lines", "covered"))
    head = {"command": "make coverage", "commit": provenance.commit(), "machine": f"{os.cpu_count()} cores"}
    found = {**head, "lines": lines, "covered": covered, "percent": 100 * covered / lines, "rows": rows}
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    shown = [[row["package"], f"{row['lines']:,}", f"{row['percent']:.1f}"] for row in rows]
    print(markdown_table([["package", "lines", "% run"], *shown, ["all", f"{lines:,}", f"{found['percent']:.1f}"]]))


def by_package(files: dict[str, dict]) -> list[dict]:
    """`files`: of coverage's report. What stands in colmrl/ itself is one package."""
    lines, covered = Counter[str](), Counter[str]()
    for name, found in files.items():
        parts = Path(name).parts
        package = "/".join(parts[parts.index("colmrl") :][:-1][:2])
        lines[package] += found["summary"]["num_statements"]
        covered[package] += found["summary"]["covered_lines"]
    return [
        {"package": name, "lines": count, "covered": covered[name], "percent": 100 * covered[name] / max(1, count)}
        for name, count in sorted(lines.items())
    ]


if __name__ == "__main__":
    main()
