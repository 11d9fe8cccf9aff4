"""docs/benchmarks.md from the results of all benchmarks: what is measured, beside what, and how it came out.

    python benchmarks/page.py                   # --check: exit code 1 where the page is not what the results say

Writes what stands between the page's two markers; text around them is written by people. A benchmark without results is
named, never left out silently. tests/test_benchmark_page.py fails where page and results differ.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import page_growth
from page_checks import safety

ROOT = Path(__file__).parent.parent
PAGE, RESULTS = ROOT / "docs/benchmarks.md", ROOT / "benchmarks/results"
BEGIN, END = "<!-- results: written by benchmarks/page.py -->", "<!-- end of results -->"

HEAD = (
    "what", "ours", "best peer", "peer's", "ratio", "target", "reached", "memory, ours / peer's", "equal results",
    "command", "commit", "machine",
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """How a file's rows are read: which number is the cost, which the ratio to ours, and what ratio is aimed at."""

    file: str
    what: str
    cost: str = "median_s"
    ratio: str = "ratio"
    target: float | None = None
    ours: str = "colmrl"  # the row's tool
    full: str | None = None  # the file that has all peers, where this one has some: cases whose best is among them


COMPARED = (
    Compared("maxsim", "MaxSim, fp32", target=3.5, ours="colmrl, fp32"),
    Compared("maxsim-fp32", "MaxSim, fp32, again", target=3.5, ours="colmrl, fp32", full="maxsim"),
    Compared("maxsim", "MaxSim, bf16 and fp32 rescoring", ours="colmrl, bf16 + fp32 rescoring"),
    Compared("mining", "mining", "cpu_s", target=2.0),
    Compared("train", "training, a step", "step_s", "step_s_ratio", target=1.3),
    Compared("train", "training, an epoch", "epoch_s", "epoch_s_ratio", target=1.3),
    Compared("train", "training, an epoch, `train.tower_cache`", "epoch_s", target=1.3, ours="colmrl, tower_cache"),
    Compared("encode", "encoding", target=1.5, ours="colmrl: embed"),
    Compared("rerank_speed", "reranking"),
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args(argv)
    before = PAGE.read_text(encoding="utf-8")
    after = replaced(before, rendered(RESULTS))
    if not arguments.check:
        PAGE.write_text(after, encoding="utf-8")
    elif before != after:
        sys.exit(f"{PAGE}: is not what {RESULTS} says: python benchmarks/page.py")


def replaced(page: str, results: str) -> str:
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{results}\n{END}{rest.partition(END)[2]}"


def rendered(results: Path) -> str:
    """All that the results say, in Markdown."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    rows, missing = [], []
    for one in COMPARED:
        if one.file in found:
            rows += compared(found[one.file], one, found[one.full] if one.full else found[one.file])
        else:
            missing.append(one.file)
    for name in ("search-clustered", "search-pages"):
        rows += searched(found[name]) if name in found else []
    if "startup" in found:
        rows += started(found["startup"])
    missing += [
        name
        for name in ("startup", "scale", "search-clustered", "kills", "faults", "fuzz", "mutants", "coverage")
        if name not in found
    ]
    parts = ["## Beside the best peer", "", *table(HEAD, rows)]
    if missing:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(missing))
        parts += ["", f"No results of {names} are there yet (`benchmarks/results/`)."]
    if "scale" in found:
        parts += ["", *page_growth.lines(found["scale"])]
    parts += ["", *safety(found)]
    return "\n".join(parts) + "\n"


def compared(content: dict[str, Any], of: Compared, full: dict[str, Any]) -> list[list[str]]:
    """A row a case: ours, and the peer that comes nearest."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in content["rows"]):
        own = next((row for row in content["rows"] if (row["case"], row["tool"]) == (case, of.ours)), None)
        best = best_peer(content, case, of.cost)
        if own is None or best is None or best["tool"] != (best_peer(full, case, of.cost) or best)["tool"]:
            continue
        lines.append(line(f"{of.what}: {case}", own, best, best[of.cost] / own[of.cost], of.cost, of.target, content))
    return lines


def best_peer(content: dict[str, Any], case: str, cost: str) -> dict[str, Any] | None:
    peers = [row for row in content["rows"] if row["case"] == case and not row["tool"].startswith("colmrl")]
    return min(peers, key=lambda row: row[cost], default=None)


def line(
    what: str,
    own: dict[str, Any],
    best: dict[str, Any],
    ratio: float,
    cost: str,
    target: float | None,
    content: dict[str, Any],
) -> list[str]:
    return [
        what,
        seconds(own[cost]),
        f"{best['tool']} {best.get('version', '')}".strip(),
        seconds(best[cost]),
        f"{math.floor(ratio * 100) / 100:.2f}×",
        f"≥ {target:g}×" if target else "",
        ("yes" if ratio >= target else "**no**") if target else "",
        f"{memory(own)} / {memory(best)}" if memory(own) or memory(best) else "",
        equality(own, best),
        *source(content),
    ]


def searched(content: dict[str, Any]) -> list[list[str]]:
    """Ours at the recall of the best peer's quickest way, or better."""
    peers = [row for row in content["rows"] if row["tool"] != "colmrl"]
    best = min(peers, key=lambda row: row["median_s"])
    good = [row for row in content["rows"] if row["tool"] == "colmrl" and row["recall_at_10"] >= best["recall_at_10"]]
    own = min(good, key=lambda row: row["median_s"])
    said = f"search, {own['case']}: {own['way']}, beside {best['way']}"
    cells = line(said, own, best, best["median_s"] / own["median_s"], "median_s", None, content)
    cells[8] = f"recall@10 {own['recall_at_10']:.3f} / {best['recall_at_10']:.3f}"
    return [cells]


def started(content: dict[str, Any]) -> list[list[str]]:
    """The slowest of ours in each case, beside the quickest peer."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in content["rows"]):
        rows = [row for row in content["rows"] if row["case"] == case]
        own = max((row for row in rows if row["tool"] == "colmrl"), key=lambda row: row["median_s"])
        peers = [row for row in rows if row["tool"] not in ("colmrl", "torch")]
        if not peers:
            continue
        best = min(peers, key=lambda row: row["median_s"])
        cells = line(
            f"start: {case}: `{own['said']}`", own, best, best["median_s"] / own["median_s"], "median_s", None, content
        )
        cells[7] = ""  # what a process holds that was forked off a large one is not its own
        if "target" in own:
            slowest = max(row["wall_s"] for row in rows if row["tool"] == "colmrl")
            cells[5], cells[6] = f"≤ {own['target']:g} s", "yes" if slowest <= own["target"] else "**no**"
        lines.append(cells)
    return lines


def equality(own: dict[str, Any], best: dict[str, Any]) -> str:
    said = [
        f"{text} {best[key]:{form}}"
        for key, text, form in (
            ("max_difference", "differ by", ".0e"),
            ("loss_difference", "losses differ by", ".0e"),
            ("same", "the same for", ".4%"),
            ("not_by_ties", "not explained by ties:", ""),
        )
        if key in best
    ]
    if own.get("same_top_10"):
        said.append("same top 10")
    return "; ".join(said)


def memory(row: dict[str, Any]) -> str:
    value = row.get("peak_mib", row.get("peak_mb"))
    return f"{value:,.0f} MiB" if value is not None else ""


def seconds(value: float) -> str:
    return f"{value:,.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 0.1 else f"{value * 1e3:.1f} ms"


def source(content: dict[str, Any]) -> list[str]:
    return [f"`{content['command']}`", f"{content['commit']}", content.get("machine", "")]


def table(head: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *cells]]


if __name__ == "__main__":
    main()
