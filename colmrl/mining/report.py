"""What mining did, to be judged before it is trained on: how many candidates each step removed, how the scores lie,
twenty triples to read. Beside `triples.jsonl`: triples.jsonl.report.json, triples.jsonl.report.md, triples.mining.png.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from colmrl.data.records import Collection, Document, Triple
from colmrl.files import read_json, write_text, write_whole

EXAMPLES = 20
_BIN = 0.01  # of scores, which lie between -1 and 1
_SHOWN = 300  # characters of a text
_COLOURS = {"positives": "#1a9850", "candidates": "#b0b0b0", "negatives": "#d73027"}


@dataclass
class Tally:
    """Counted while mining goes on. `removed`: candidates that each of `labels` removed; `bins`: of positives,
    candidates (known answers are none) and kept negatives, how many score where, by the search's scores.
    """

    labels: list[str]
    removed: list[int] = field(init=False)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("queries", "candidates", "kept candidates", "pairs", "negatives", "pairs left without negatives"), 0
        )
    )
    bins: dict[str, Int[np.ndarray, " bins"]] = field(
        default_factory=lambda: {kind: np.zeros(round(2 / _BIN) + 1, dtype=np.int64) for kind in _COLOURS}
    )
    examples: list[Triple] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.removed = [0] * len(self.labels)

    def score(self, kind: str, scores: Float[np.ndarray, " n"]) -> None:
        places = np.floor((scores.clip(-1, 1) + 1) / _BIN).astype(np.int64)
        self.bins[kind] += np.bincount(places, minlength=len(self.bins[kind]))

    def steps(self) -> list[dict[str, Any]]:
        """Each step with how many candidates it removed and how many it left, over all queries."""
        left, rows = self.counts["candidates"], []
        for label, removed in zip(self.labels, self.removed, strict=True):
            left -= removed
            rows.append({"step": label, "removed": removed, "left": left})
        return rows

    def histograms(self) -> dict[str, Any]:
        """Counts a bin of `width` from `low` on, empty bins at both ends left out."""
        filled = np.flatnonzero(sum(self.bins.values()))
        first, last = (filled[0], filled[-1]) if len(filled) else (0, 0)
        kinds = {kind: counts[first : last + 1].tolist() for kind, counts in self.bins.items()}
        return {"low": round(float(first) * _BIN - 1, 2), "width": _BIN, **kinds}


def report_path(triples: Path) -> Path:
    return triples.with_name(triples.name + ".report.json")


def read_report(triples: Path) -> dict[str, Any]:
    return read_json(report_path(triples), "remove the triples, and mine again", ("store_stamp",))


def readable_path(triples: Path) -> Path:
    return triples.with_name(triples.name + ".report.md")


def picture_path(triples: Path) -> Path:
    return triples.with_suffix(".mining.png")


def step_lines(report: Mapping[str, Any]) -> list[list[str]]:
    """A table: what was found, what each step left of it, what was kept."""
    counts = report["counts"]
    lines = [["step", "removed", "left"], ["search", "", f"{counts['candidates']:,}"]]
    lines += [[step["step"], f"{step['removed']:,}", f"{step['left']:,}"] for step in report["steps"]]
    left = report["steps"][-1]["left"]
    kept = counts["kept candidates"]
    return [*lines, [f"sampling ({report['mine']['sampling']})", f"{left - kept:,}", f"{kept:,}"]]


def write_readable(out: Path, report: Mapping[str, Any], examples: Sequence[Triple], collection: Collection) -> None:
    """`out` is the triples' path."""
    counts, share = report["counts"], report["share_without_negatives"]
    head, *body = ["| " + " | ".join(line) + " |" for line in step_lines(report)]
    parts = [
        f"# {out.name}",
        f"`{report['command']}`, commit {report['commit']}, seed {report['seed']}.",
        f"{counts['queries']:,} queries searched at {report['view']} in {report['store']}: {counts['pairs']:,} pairs "
        f"of a query and a positive, {counts['negatives']:,} negatives, {counts['pairs left without negatives']:,} "
        f"pairs ({share:.1%}) left without. Triples carry the scores of {report['scores']}.",
        "\n".join([head, "|---|--:|--:|", *body]),
        f"![Scores of positives, candidates and negatives]({picture_path(out).name})",
        f"## {len(examples)} triples, drawn at random from those with negatives",
        *(_example(triple, collection) for triple in examples),
    ]
    write_text(readable_path(out), "\n\n".join(parts) + "\n")


def _example(triple: Triple, collection: Collection) -> str:
    query = collection.queries.named(triple.query_id)
    shown = [_cut(query.text), *(f"`{image}`" for image in query.images)]
    scores = [triple.pos_score, *(triple.neg_scores or [])]
    rows = [("positive", triple.pos_id), *(("negative", name) for name in triple.neg_ids)]
    lines = [
        f"- {kind} {'–' if score is None else f'{score:.4f}'} `{name}` {_document(collection.documents.named(name))}"
        for (kind, name), score in zip(rows, scores, strict=True)
    ]
    return "\n".join([f"**{triple.query_id}** {' '.join(filter(None, shown))}", "", *lines])


def _document(document: Document) -> str:
    return " ".join(filter(None, [_cut(document.body), *(f"`{image}`" for image in document.images)]))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def write_picture(out: Path, report: Mapping[str, Any]) -> None:
    """mining.png: the three histograms, each scaled to its own size, for positives are few beside candidates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    histograms = report["histograms"]
    edges = histograms["low"] + histograms["width"] * np.arange(len(histograms["positives"]) + 1)
    for kind, colour in _COLOURS.items():
        counts = np.array(histograms[kind])
        axes.stairs(
            counts / max(1, counts.sum()), edges, fill=True, alpha=0.45, color=colour, label=f"{counts.sum():,} {kind}"
        )
    axes.set(xlabel=f"score at {report['view']}", ylabel="share of each", title=out.name)
    axes.grid(alpha=0.3)
    axes.legend()
    write_whole(picture_path(out), lambda partial: figure.savefig(partial, dpi=120, format="png"))
