"""Training curves of a run, from the metrics.jsonl of its rounds."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

Lines = list[dict[str, Any]]  # of one metrics.jsonl, a step each


def read_metrics(path: Path) -> Lines:
    """The last of each step: a run that went on from a resume point may have said some twice. A torn line is none."""
    by_step: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            stated = json.loads(line)
        except ValueError:
            continue
        by_step.setdefault(stated["step"], {}).update(stated)
    return [by_step[step] for step in sorted(by_step)]


def curves(of: Mapping[str, Lines]) -> Image.Image | None:
    """Loss, its parts, and what was judged while training, a row each run; None where nothing was logged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    logged = {name: panels for name, lines in of.items() if (panels := _panels(lines))}
    if not logged:
        return None
    figure = Figure(figsize=(9, 3 * sum(map(len, logged.values()))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = iter(figure.subplots(sum(map(len, logged.values())), 1, squeeze=False)[:, 0])
    for name, panels in logged.items():
        for title, keys in panels.items():
            one = next(axes)
            for key in keys:
                points = [(line["step"], line[key]) for line in of[name] if key in line]
                one.plot(*zip(*points, strict=True), label=key.removeprefix("loss_").removeprefix("eval_"), lw=1.2)
            one.set(title=f"{name}: {title}", xlabel="step")
            one.grid(alpha=0.3)
            if len(keys) > 1:
                one.legend(fontsize=7, ncol=2)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90)
    return Image.open(out)


def _panels(lines: Lines) -> dict[str, Sequence[str]]:
    """Title → the keys that are drawn together."""
    keys = list(dict.fromkeys(key for line in lines for key in line))
    panels = {
        "loss": [key for key in keys if key == "loss"],
        "loss of each view": [key for key in keys if key.startswith("loss_")],
        "judged while training": [key for key in keys if key.startswith("eval_") and "ndcg_at_10" in key],
    }
    return {title: found for title, found in panels.items() if found}
