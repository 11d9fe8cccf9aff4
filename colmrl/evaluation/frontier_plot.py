"""frontier.png: nDCG@5 against bytes a document and milliseconds a query; what nothing cheaper beats is named."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colmrl.evaluation.frontier import Point
from colmrl.evaluation.report import pareto
from colmrl.view import View

_COLOURS = {"single": "#d95f02", "multi": "#1b6ca8", "funnel": "#7570b3"}
_MARKERS = {"fp32": "o", "fp16": "s", "int8": "^", "binary": "*"}
_PEER = "#555555"
_LEADER = 14  # points of distance from which a line leads to the name
_FONT = 7

Spot = tuple[float, float, str]  # cost, quality, name


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
    for axes, cost, label in zip(panels, ("bytes", "ms"), ("bytes a document", "milliseconds a query"), strict=True):
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
        axes.legend(fontsize=_FONT, loc="lower right")
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


def place_names(axes: Any, spots: Sequence[Spot], points: Sequence[tuple[float, float]]) -> list[Any]:
    """Write each name near its spot where it covers no other name, stays on the axes and covers as few `points` as can
    be; from further away, a line leads to it. Returns the texts.
    """
    renderer = axes.figure.canvas.get_renderer()
    inside, taken, texts = axes.get_window_extent(renderer), [], []
    pixels = axes.transData.transform(list(points))
    legend = axes.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent(renderer))
    for cost, quality, name in sorted(spots, key=lambda spot: -spot[1]):
        text = axes.annotate(
            name,
            (cost, quality),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=_FONT,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "grey", "shrinkA": 0, "shrinkB": 2},
        )
        at_rest = text.get_window_extent(renderer)
        best: tuple[float, tuple[float, float], Any] | None = None
        for x, y in _offsets(at_rest.width * 72 / axes.figure.dpi):
            box = at_rest.translated(x * axes.figure.dpi / 72, y * axes.figure.dpi / 72).padded(3)
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if not fits or any(box.overlaps(other) for other in taken):
                continue
            covered = sum(box.contains(*pixel) for pixel in pixels)
            badness = 20 * covered + math.hypot(x, y)
            if best is None or badness < best[0]:
                best = badness, (x, y), box
        if best is None:
            text.remove()  # the tables have it
            continue
        text.set_position(best[1])
        if math.hypot(*best[1]) < _LEADER:
            text.arrow_patch.set_visible(False)
        taken.append(best[2])
        texts.append(text)
    return texts


def _offsets(width: float) -> list[tuple[float, float]]:
    """Places around a point to try, in points (1/72 inch) from it to the middle of a name of this width."""
    found = []
    for far in (9, 16, 26, 38, 52, 70, 90, 115, 140):
        for step in range(16):
            angle = 2 * math.pi * step / 16
            found.append((math.cos(angle) * (far + width / 2), math.sin(angle) * far))
    return found
