"""For the page of page.py: how each stage's cost grows, and what a million pages cost on paper."""

from typing import Any

import scale_costs


def lines(content: dict[str, Any]) -> list[str]:
    head = (
        "| stage | documents | CPU s | own memory, MiB | resident, MiB | on disk, MB | grows with | linear or better "
    )
    rows = [head + "| memory flat |", "|---" * 9 + "|"]
    for row in content["rows"]:
        sizes = row["sizes"]
        cells = [
            row["case"],
            _each(sizes, "documents", ",.0f"),
            _each(sizes, "cpu_s", ".3g"),
            _each(sizes, "own_mib", ",.0f"),
            _each(sizes, "peak_mib", ",.0f"),
            _each([{"mb": size["disk_bytes"] / 1e6} for size in sizes], "mb", ",.1f")
            if sizes[-1]["disk_bytes"]
            else "",
            f"n^{row['exponent']:.2f}",
            "yes" if row["linear"] else "**no**",
            ("yes" if row["flat"] else "**no**") if "flat" in row else "",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    if any(row["case"].startswith("index ivf") and not row["linear"] for row in content["rows"]):
        rows += [
            "",
            "An ivf index takes n^1.5 to build: its lists grow with √n, which is why its search takes no more than √n. "
            f"From {scale_costs.TRAINED_ON // 39:,} lists on (2.8 million vectors; `index.training_vectors`) they stay "
            "as many, and building is linear.",
        ]
    said = f"`{content['command']}`, commit {content['commit']}, {content['machine']}."
    parts = ["## How cost grows", "", said, "", *rows]
    if content["paper"]:
        parts += ["", "## A million and a hundred million pages, on paper", "", scale_costs.markdown(content["paper"])]
        if units := scale_costs.database_units():
            place = "benchmarks/results/database.json"
            parts += [
                "",
                f"Qdrant (measured: {units['documents']:,.0f} documents of 48 × 128, `{place}`): "
                f"{units['bytes_a_document'] / 1e3:,.1f} kB a document on disk, put in at {1 / units['put_in_s']:,.0f} "
                f"documents a second, {units['query_s'] * 1e3:,.0f} ms a query by brute force.",
            ]
    return parts


def _each(sizes: list[dict[str, float]], name: str, form: str) -> str:
    return " / ".join(f"{size[name]:{form}}" for size in sizes)
