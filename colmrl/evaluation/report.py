"""report.md and frontier.png: what each size answers with, at which price, for every round."""

from collections.abc import Sequence
from pathlib import Path

from colmrl.evaluation.naming import place_names
from colmrl.evaluation.run import Row
from colmrl.view import View

COLUMNS = {"ndcg_at_5": "nDCG@5", "ndcg_at_10": "nDCG@10", "recall_at_1": "Recall@1", "mrr_at_10": "MRR@10"}
Point = tuple[float, float, str]  # bytes a document, nDCG@5, view
_COLOURS = {"single": "#d95f02", "multi": "#1b6ca8"}


def by_view(rows: Sequence[Row]) -> dict[tuple[int | None, str], dict[str, float]]:
    """(round, view) → metric → value, in the rows' order."""
    table: dict[tuple[int | None, str], dict[str, float]] = {}
    for row in rows:
        table.setdefault((row["round"], row["view"]), {})[row["metric"]] = row["value"]
    return table


def round_name(number: int | None) -> str:
    return "" if number is None else str(number)


def told_apart(*namings: list[str]) -> list[str]:
    """The first of these, short names before long ones, in which no name is there twice; else the last."""
    return next((names for names in namings if len(set(names)) == len(names)), namings[-1])


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


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no cheaper or equally cheap one beats, cheapest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def frontier_png(path: Path, rows: Sequence[Row], title: str) -> None:
    """nDCG@5 against bytes a document (log scale): a line for each round, head, number of vectors and precision;
    the last round's Pareto points are named.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lines: dict[tuple[int | None, str, int | None, str], list[Point]] = {}
    for (number, name), values in by_view(rows).items():
        view = View.parse(name)
        point = (values["bytes_per_document"], values["ndcg_at_5"], name)
        lines.setdefault((number, view.head, view.vectors, view.precision), []).append(point)
    rounds = list(dict.fromkeys(number for number, *_ in lines))
    budgets = sorted({vectors or 0 for _, _, vectors, _ in lines})
    for (number, head, vectors, precision), points in lines.items():
        last = number == rounds[-1]
        plain = vectors is None and precision == "fp32"
        kind = f"{head}{f', {vectors} vectors' if vectors else ''}{'' if precision == 'fp32' else f', {precision}'}"
        axes.plot(
            *zip(*[point[:2] for point in sorted(points)], strict=True),
            marker="*" if precision != "fp32" else "os^vDPX"[budgets.index(vectors or 0) % 7],
            linestyle="-" if plain else ":",
            color=_COLOURS[head],
            alpha=1.0 if last else 0.25 + 0.3 * rounds.index(number) / len(rounds),
            label=f"round {round_name(number)} {kind}".replace("round  ", "") if plain or last else None,
        )
    axes.set(xscale="log", xlabel="bytes a document (log scale)", ylabel="nDCG@5", title=title)
    axes.set_ylim(0, 1.05 * max(quality for points in lines.values() for _, quality, _ in points))
    axes.margins(x=0.08)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.canvas.draw()  # the layout decides where a point is on the page
    last_round = [point for key, points in lines.items() if key[0] == rounds[-1] for point in points]
    place_names(axes, pareto(last_round), [point[:2] for points in lines.values() for point in points])
    figure.savefig(path, dpi=150)


def write_report(folder: Path, rows: Sequence[Row], about: Sequence[str]) -> Path:
    """report.md: paragraphs that say where the numbers came from, the table, and the picture (frontier.png)."""
    frontier_png(folder / "frontier.png", rows, f"{folder.name}: quality against storage")
    picture = "![nDCG@5 against bytes a document](frontier.png)"
    path = folder / "report.md"
    path.write_text(
        "\n\n".join([f"# {folder.name}", *about, markdown_table(table_lines(rows)), picture]) + "\n", encoding="utf-8"
    )
    return path
