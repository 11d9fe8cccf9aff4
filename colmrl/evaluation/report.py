"""report.md and frontier.png: what each size answers with, at which price, for every round."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colmrl.evaluation.run import Row
from colmrl.view import View

COLUMNS = {"ndcg_at_5": "nDCG@5", "ndcg_at_10": "nDCG@10", "recall_at_1": "Recall@1", "mrr_at_10": "MRR@10"}
_COLOURS = {"single": "#d95f02", "multi": "#1b6ca8"}


def by_view(rows: Sequence[Row]) -> dict[tuple[int | None, str], dict[str, float]]:
    """(round, view) → metric → value, in the rows' order."""
    table: dict[tuple[int | None, str], dict[str, float]] = {}
    for row in rows:
        table.setdefault((row["round"], row["view"]), {})[row["metric"]] = row["value"]
    return table


def round_name(number: int | None) -> str:
    return {None: "", 0: "0 (untrained)"}.get(number, str(number))


def table_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Header and one line a (round, view), as text; no column of rounds where there are none."""
    table = by_view(rows)
    rounds = any(number is not None for number, _ in table)
    lines = [[*(["round"] if rounds else []), "view", *COLUMNS.values(), "bytes/document"]]
    for (number, view), values in table.items():
        scores = [f"{values[metric]:.4f}" for metric in COLUMNS]
        price = f"{values['bytes_per_document']:,.0f}"
        lines.append([*([round_name(number)] if rounds else []), view, *scores, price])
    return lines


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def frontier_png(path: Path, rows: Sequence[Row], title: str) -> None:
    """nDCG@5 against bytes a document (log scale): one line a head, number of vectors, precision and round."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    table = by_view(rows)
    rounds = list(dict.fromkeys(number for number, _ in table))
    for number in rounds:
        lines: dict[tuple[str, int | None, str], list[tuple[float, float, View]]] = {}
        for (of_round, name), values in table.items():
            if of_round == number:
                view = View.parse(name)
                point = (values["bytes_per_document"], values["ndcg_at_5"], view)
                lines.setdefault((view.head, view.vectors, view.precision), []).append(point)
        for (head, vectors, precision), points in lines.items():
            points.sort(key=lambda point: point[:2])
            strength = 1.0 if len(rounds) == 1 else 0.3 + 0.7 * rounds.index(number) / (len(rounds) - 1)
            axes.plot(
                [cost for cost, _, _ in points],
                [quality for _, quality, _ in points],
                marker={None: "o", 16: "s", 8: "^", 4: "v"}.get(vectors, "D"),
                linestyle="-" if precision in ("fp32", "fp16") else ":",
                color=_COLOURS[head],
                alpha=strength,
                label=f"round {round_name(number)} {head}"
                if vectors is None and precision in ("fp32", "fp16")
                else None,
            )
            if number == rounds[-1]:
                for cost, quality, view in points:
                    axes.annotate(str(view), (cost, quality), fontsize=6, xytext=(3, 4), textcoords="offset points")
    axes.set(xscale="log", xlabel="bytes a document (log scale)", ylabel="nDCG@5", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def write_report(folder: Path, rows: Sequence[Row], about: dict[str, Any]) -> Path:
    """report.md with the table, the picture and where both came from."""
    frontier_png(folder / "frontier.png", rows, f"{folder.name}: quality against storage")
    text = [
        f"# {folder.name}",
        "",
        f"`{about['command']}`, commit {about['commit']}, seed {about['seed']}, {about['seconds']:.0f} s in this call.",
        "",
        f"{about['documents']} documents and {about['queries']} queries that training never saw; a random order "
        f"would have Recall@1 {1 / about['documents']:.4f}."
        if about["unseen"]
        else f"{about['documents']} documents, {about['queries']} queries.",
        "",
        markdown_table(table_lines(rows)),
        "",
        "![nDCG@5 against bytes a document](frontier.png)",
        "",
    ]
    path = folder / "report.md"
    path.write_text("\n".join(text))
    return path
