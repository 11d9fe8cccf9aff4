"""What can be started from and exported to: does it load, and how far are the vectors apart from the library's own?

    python benchmarks/run.py interop            # --only interop_sources

Other libraries run in environments that are made on first use (benchmarks/peers.py). Each module below yields its rows.
Writes benchmarks/results/interop.json and the table in docs/interop.md.
"""

import argparse
import importlib
import importlib.util
import json
import os
import platform
import re
import tempfile
from pathlib import Path

import torch

from colmrl import provenance

ROOT = Path(__file__).parents[1]
MODULES = ("interop_sources", "interop_colpali", "interop_targets")
LIMIT = 1e-4  # of any coordinate
_TABLE = re.compile(r"(?<=<!-- interop -->\n).*?(?=<!-- /interop -->)", re.DOTALL)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MODULES, help="these rows are made anew, the others kept")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/interop.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/interop.md")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    kept = json.loads(arguments.out.read_text())["rows"] if arguments.only and arguments.out.exists() else []
    rows = []
    for name in MODULES:
        if arguments.only and name != arguments.only:
            rows += [row for row in kept if row["module"] == name]
            continue
        if importlib.util.find_spec(name) is None:
            continue
        with tempfile.TemporaryDirectory() as work:
            for row in importlib.import_module(name).rows(Path(work)):
                rows.append({"module": name, **row})
                print(line(rows[-1]), flush=True)
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    page = arguments.page.read_text()
    made = "\n".join([*table(rows), "", f"`python benchmarks/run.py interop`, commit {content['commit']}.", ""])
    arguments.page.write_text(_TABLE.sub(lambda _: made, page))
    worse = [row for row in rows if row["parity_error"] is not None and row["parity_error"] > LIMIT]
    if worse:
        raise SystemExit(f"vectors differ by more than {LIMIT:g}: {', '.join(row['case'] for row in worse)}")


def table(rows: list[dict]) -> list[str]:
    names = ("", "case", "library", "loads", "largest difference", "")
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names), *map(line, rows)]


def line(row: dict) -> str:
    error = row["parity_error"]
    said = "" if error is None else "0" if error == 0 else f"{error:.1e}"
    cells = (row["direction"], row["case"], f"{row['tool']} {row['version']}".strip(), "yes" if row["loads"] else "no")
    return "| " + " | ".join([*cells, said, row["note"]]) + " |"
