"""Names beside points of a picture, none over another."""

import math
from collections.abc import Sequence
from typing import Any

FONT = 7
_LEADER = 14  # points of distance from which a line leads to the name

Spot = tuple[float, float, str]  # x, y, name


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
            fontsize=FONT,
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
