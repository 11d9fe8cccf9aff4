"""What a sweep says, as files: frontier.csv, .md and .png, results.json; which point to take; peers beside it."""

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import replace
from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.evaluation.each_query import KEPT, write_each
from colmrl.evaluation.frontier import QUALITY, Point, sweep
from colmrl.evaluation.frontier_plot import Peer, frontier_png
from colmrl.evaluation.report import COLUMNS, markdown_table, pareto
from colmrl.evaluation.run import Task, open_task, write_results
from colmrl.evaluation.significance import difference
from colmrl.files import locked, write_text, write_whole


@dataclass(frozen=True)
class Advice:
    """`why`: what was asked for; `point`: None where nothing answers it."""

    why: str
    point: Point | None


def recommend(points: Sequence[Point], max_bytes: float | None = None, max_ms: float | None = None) -> list[Advice]:
    """The best; the cheapest within 1, 2 and 5 % of it; the best under the bounds, each by itself and both."""
    best = _best(points)
    assert best is not None
    advice = [Advice("best", best)]
    for share in (1, 2, 5):
        near = [point for point in points if point.quality >= (1 - share / 100) * best.quality]
        advice.append(Advice(f"cheapest within {share} %", min(near, key=lambda p: (p.bytes, -p.quality, p.ms))))
    small = [point for point in points if max_bytes is None or point.bytes <= max_bytes]
    quick = [point for point in points if max_ms is None or point.ms <= max_ms]
    if max_bytes is not None:
        advice.append(Advice(f"best of at most {max_bytes:,g} bytes", _best(small)))
    if max_ms is not None:
        advice.append(Advice(f"best of at most {max_ms:,g} ms", _best(quick)))
    if max_bytes is not None and max_ms is not None:
        advice.append(Advice("best of both", _best([point for point in small if point in quick])))
    return advice


def _best(points: Sequence[Point]) -> Point | None:
    """Of equally good ones the smallest, then the quickest."""
    return max(points, key=lambda point: (point.quality, -point.bytes, -point.ms), default=None)


def best_by(points: Sequence[Point], cost: str) -> list[Point]:
    """The points that nothing beats at their cost, `bytes` or `ms`: cheapest first."""
    by_name = {point.name: point for point in points}
    costs: list[tuple[float, float, str]] = [(getattr(p, cost), p.quality, p.name) for p in points]
    return [by_name[name] for *_, name in pareto(costs)]


def rows_of(points: Sequence[Point]) -> list[dict[str, Any]]:
    """As in results.json: a row a number."""
    return [
        {"round": None, "view": point.name, "metric": metric, "value": value}
        for point in points
        for metric, value in (point.values | {"bytes_per_document": point.bytes, "ms_per_query": point.ms}).items()
    ]


def read_peers(path: Path) -> list[Peer]:
    """Published points, a CSV with the columns name, bytes, ndcg_at_5."""
    if not path.is_file():
        raise InputError(f"{path}: no such file: give a CSV with the columns name, bytes, ndcg_at_5")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in ("name", "bytes", QUALITY) if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}:1: no column {', '.join(missing)}: write name,bytes,{QUALITY} into the first line"
                )
            return [_peer(path, reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}): mend it") from None


def _peer(path: Path, number: int, row: Mapping[str, str | None]) -> Peer:
    def value(key: str, allowed: str, fits: Any) -> float:
        try:
            found = float(row[key] or "")
        except ValueError:
            found = math.nan
        if not fits(found):
            raise InputError(f"{path}:{number}: {key}: {row[key]!r}: not {allowed}: mend the line")
        return found

    name = (row["name"] or "").strip()
    if not name:
        raise InputError(f"{path}:{number}: name: empty: mend the line")
    size = value("bytes", "a number of bytes above 0", lambda v: 0 < v < math.inf)
    return Peer(name, size, value(QUALITY, "between 0 and 1", lambda v: 0 <= v <= 1))


def write_frontier(
    out: Path,
    points: Sequence[Point],
    advice: Sequence[Advice],
    task: Task,
    peers: Sequence[Peer],
    seed: int,
    about: str,
) -> None:
    """All files; `about`: a sentence that says what was encoded."""
    named = {point.name for point in best_by(points, "bytes")}
    write_text(out / "frontier.csv", _csv(points, named))
    write_whole(out / "frontier.png", lambda partial: frontier_png(partial, points, peers, out.name))
    parts = [
        f"# {out.name}: quality against bytes a document",
        f"`{provenance.command()}`, commit {provenance.commit()}.",
    ]
    parts += [f"{about} {len(points)} points.", "![nDCG@5 against bytes and milliseconds](frontier.png)"]
    parts += ["## Which to take", markdown_table(chosen := advice_lines(advice, seed))]
    parts += ["## Points that nothing cheaper beats", markdown_table(point_lines(best_by(points, "bytes")))]
    parts += ["## All points", markdown_table(point_lines(points))]
    if peers:
        lines = [["name", "bytes", "nDCG@5"], *([p.name, f"{p.bytes:,.0f}", f"{p.quality:.4f}"] for p in peers)]
        parts += ["## Peers, as published", markdown_table(lines)]
    write_text(out / "frontier.md", "\n\n".join(parts) + "\n")
    write_each(out / "results.json", task.facts, [({"round": None, "view": p.name}, p.each) for p in points])
    write_results(out / "results.json", rows_of(points), seed, store=str(task.documents.folder.parent), advice=chosen)


def advice_lines(advice: Sequence[Advice], seed: int) -> list[list[str]]:
    """Header and a line each, with the p-value (paired randomisation) of the difference to the best."""
    best = advice[0].point
    assert best is not None
    lines = [["", "way", "bytes/document", "ms/query", "nDCG@5", "of the best", "p"]]
    for one in advice:
        point = one.point
        if point is None:
            lines.append([one.why, "none", "", "", "", "", ""])
            continue
        mine, theirs = ([of_query[QUALITY] for of_query in p.each.values()] for p in (point, best))
        p = "" if point is best else f"{difference(theirs, mine, seed).p_randomisation:.3f}"
        share = f"{100 * point.quality / best.quality:.1f} %" if best.quality else ""
        lines.append([one.why, point.name, *_costs(point), f"{point.quality:.4f}", share, p])
    return lines


def point_lines(points: Sequence[Point]) -> list[list[str]]:
    lines = [["way", "bytes/document", "ms/query", *COLUMNS.values()]]
    return lines + [[p.name, *_costs(p), *(f"{p.values[name]:.4f}" for name in COLUMNS)] for p in points]


def _costs(point: Point) -> list[str]:
    return [f"{point.bytes:,.0f}", f"{point.ms:.2f}"]


def _csv(points: Sequence[Point], named: set[str]) -> str:
    """A line a point; head, dim, vectors and precision are of the view whose scores decide."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    sizes = ("head", "dim", "vectors", "precision")
    table.writerow(["way", *sizes, "index", "depth", "bytes_per_document", "ms_per_query", *KEPT, "pareto"])
    for point in points:
        plan = point.way.parsed
        depth = plan.stages[0].keep if len(plan.stages) > 1 else ""
        view = [getattr(plan.view, size) or "" for size in sizes]
        numbers = [f"{point.values[name]:.6f}" for name in KEPT]
        costs = [f"{point.bytes:.2f}", f"{point.ms:.4f}"]
        table.writerow([point.name, *view, point.way.index or "", depth, *costs, *numbers, int(point.name in named)])
    return text.getvalue()


def run_frontier(
    config: Config,
    checkpoint: str | None,
    store: str | Path | None,
    out: Path | None = None,
    peers: Sequence[Peer] = (),
    max_bytes: float | None = None,
    max_ms: float | None = None,
) -> tuple[Path, list[Advice]]:
    """Encode in full with `checkpoint` (None: a store that is there), sweep, and write `out` (None: beside the store).
    Returns `out` and what to take.
    """
    if checkpoint is not None:
        full = replace(config, encode={"views": ()})
        data = config.data.eval_path or config.data.path
        store = encode(full, checkpoint, data, store or Path(checkpoint).parent / "store")
    assert store is not None
    out = out or Path(store).parent / "frontier"
    started, task = time.monotonic(), open_task(config, store)
    with locked(out):
        points = sweep(config, task, out)
        advice = recommend(points, max_bytes, max_ms)
        write_frontier(out, points, advice, task, peers, config.seed, _about(config, task, started))
    return out, advice


def _about(config: Config, task: Task, started: float) -> str:
    manifest = task.documents.manifest
    return (
        f"{manifest.data}, split {config.data.eval_split}: {len(task.qrels)} queries, {len(task.documents)} documents, "
        f"encoded once by {manifest.checkpoint}; {time.monotonic() - started:.0f} s for what was not known yet, "
        f"{torch.get_num_threads()} threads."
    )
