"""frontier.png: nDCG@5 against bytes a document and milliseconds a query; what nothing cheaper beats is named."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colmrl.evaluation.frontier import Point
from colmrl.evaluation.naming import FONT, place_names
from colmrl.evaluation.report import pareto
from colmrl.view import View

_COLOURS = {"single": "#d95f02", "multi": "#1b6ca8", "funnel": "#7570b3"}
_MARKERS = {"fp32": "o", "fp16": "s", "int8": "^", "binary": "*"}
_PEER = "#555555"


@dataclass(frozen=True)
class Peer:
    """A published point."""

    name: str
    bytes: float
    quality: float


def frontier_png(path: Path, points: Sequence[Point], peers: Sequence[Peer], title: str) -> None:
    figure = frontier_figure(points, peers, title)
    figure.savefig(path, dpi=150, format="png")


def frontier_figure(points: Sequence[Point], peers: Sequence[Peer], title: str) -> Any:
    """The matplotlib figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 10), layout="constrained")
    FigureCanvasAgg(figure)
    top = 1.08 * max([0.05, *(p.quality for p in points), *(peer.quality for peer in peers)])
    panels = figure.subplots(2, 1)
    labels = ("bytes a document", "milliseconds a query, search alone")
    for axes, cost, label in zip(panels, ("bytes", "ms"), labels, strict=True):
        _scatter(axes, points, cost)
        spots = [(getattr(point, cost), point.quality, point.name) for point in points]
        best = pareto(spots)
        axes.step(*zip(*[spot[:2] for spot in best], strict=True), where="post", color="black", lw=0.8, alpha=0.5)
        if cost == "bytes" and peers:
            axes.plot(
                [peer.bytes for peer in peers], [peer.quality for peer in peers], "D", color=_PEER, ms=5, label="peers"
            )
            best = best + [(peer.bytes, peer.quality, peer.name) for peer in peers]
        axes.set(xscale="log", xlabel=f"{label} (log scale)", ylabel="nDCG@5", ylim=(0, top))
        axes.margins(x=0.12)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=FONT, loc="lower right")
        figure.canvas.draw()  # the layout decides where a point is on the page
        place_names(axes, best, [(x, y) for x, y, _ in spots])
    panels[0].set_title(f"{title}: quality against storage and time, {len(points)} points")
    return figure


def _scatter(axes: Any, points: Sequence[Point], cost: str) -> None:
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((_kind(point), point.way.parsed.view.precision), []).append(point)
    for (kind, precision), some in groups.items():
        sizes = [_marker_size(point.way.parsed.view) for point in some]
        axes.scatter(
            [getattr(point, cost) for point in some],
            [point.quality for point in some],
            s=sizes,
            marker=_MARKERS[precision],
            facecolors="none" if any(point.way.index for point in some) else _COLOURS[kind.partition(" ")[0]],
            edgecolors=_COLOURS[kind.partition(" ")[0]],
            alpha=0.65,
            label=f"{kind}, {precision}",
        )


def _kind(point: Point) -> str:
    plan = point.way.parsed
    kind = "funnel" if len(plan.stages) > 1 else plan.view.head
    return f"{kind} {point.way.index}" if point.way.index else kind


def _marker_size(view: View) -> float:
    """Square points; fewer vectors, smaller."""
    return 46 if view.vectors is None else 14 + 6 * math.log2(1 + view.vectors)
