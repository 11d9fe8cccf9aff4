"""A run's folder → report.html: of a loop, a training run, a frontier or anything else that wrote results.json; each
section stands where its files do.
"""

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from colmrl.config import Config
from colmrl.configure import load_config, replace
from colmrl.errors import InputError
from colmrl.evaluation.each_query import path_beside
from colmrl.evaluation.report import COLUMNS, table_lines
from colmrl.evaluation.run import read_results
from colmrl.files import read_json, write_text
from colmrl.lineage import read_rounds
from colmrl.reporting import page
from colmrl.reporting.curves import curves, read_metrics
from colmrl.reporting.examples import examples

log = logging.getLogger(__name__)


def write_run_report(run: Path, out: Path) -> Path:
    """InputError where the folder holds nothing to report."""
    sections = [*_what(run), *_lineage(run), *_frontier(run), *_tables(run)]
    sections += [*_training(run), *_mining(run), *_examples(run)]
    if not sections:
        raise InputError(f"{run}: nothing to report: give the folder of a loop, a training run, or results.json")
    write_text(out, page.page(run.resolve().name, sections))
    return out


def _rounds(run: Path) -> list[Path]:
    """In order; of a run that is no loop, itself."""
    folders = [path for path in run.glob("round-*") if path.name.removeprefix("round-").isdigit()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("round-"))) or [run]


def _what(run: Path) -> Iterator[str]:
    known = _json(run / "environment.json") or _json(run / "results.json")
    if not known:
        return
    facts = [f"commit {known.get('commit')}", f"seed {known.get('seed')}"]
    facts += [f"Python {known['python']}, {known['platform']}, {known['cores']} cores"] if "python" in known else []
    facts += [f"{name} {version}" for name, version in known.get("packages", {}).items()]
    parts = [page.command(str(known.get("command"))), page.said("; ".join(facts))]
    if (run / "config.yaml").is_file():
        text = (run / "config.yaml").read_text(encoding="utf-8").splitlines()
        settings = [line for line in text if not line.rstrip().endswith(": null")]
        parts.append(page.folded("every setting", page.lines(settings)))
    yield page.section("What was run", *parts)


def _lineage(run: Path) -> Iterator[str]:
    if not any(run.glob("round-*/manifest.json")):
        return
    rounds = read_rounds(run)
    named = {link.hash: f"{each.round}/{link.what}" for each in reversed(rounds) for link in each.links}
    lines = [["round", "what", "hash", "made from"]]
    for each in rounds:
        for link in each.links:
            sources = ", ".join(named.get(source, source[:12]) for source in link.of)
            lines.append([str(each.round), link.path, link.hash[:12], sources])
    yield page.section("What was made of what", page.table(lines), page.said(f"Checked by: colmrl lineage {run}"))


def _frontier(run: Path) -> Iterator[str]:
    parts = []
    if (run / "frontier.png").is_file():
        parts.append(page.chart_file(run / "frontier.png", "nDCG@5 against bytes a document"))
    swept = run / "frontier"
    if (swept / "frontier.png").is_file():
        parts.append(page.chart_file(swept / "frontier.png", "nDCG@5 against bytes and milliseconds"))
        advice = (_json(swept / "results.json") or {}).get("advice")
        parts += [page.heading("Which to take"), page.table(advice)] if advice else []
    table = next((path for path in (swept / "frontier.csv", run / "frontier.csv") if path.is_file()), None)
    if table:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        best = sorted((row for row in rows if row["pareto"] == "1"), key=lambda row: float(row["bytes_per_document"]))
        parts += [page.heading("Points that nothing cheaper beats"), page.table(_point_lines(best))]
        parts += [page.folded(f"all {len(rows)} points", page.table(_point_lines(rows)))]
    if parts:
        yield page.section("Quality against storage", *parts)


def _point_lines(rows: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Of frontier.csv."""
    lines = [["way", "bytes/document", "ms/query", *COLUMNS.values()]]
    for row in rows:
        costs = [f"{float(row['bytes_per_document']):,.0f}", f"{float(row['ms_per_query']):.2f}"]
        lines.append([row["way"], *costs, *(f"{float(row[name]):.4f}" for name in COLUMNS)])
    return lines


def _tables(run: Path) -> Iterator[str]:
    """What was judged; of a loop the last round first."""
    path = run / "results.json"
    if not path.is_file():
        return
    rows = read_results(path)["rows"]
    if not rows or "view" not in rows[0] or (run / "frontier.csv").is_file():
        return
    if "model" in rows[0]:  # of eval.py mteb
        lines = [["task", "model", "metric", "value"]]
        lines += [[row["task"], row["model"], row["metric"], f"{row['value']:.4f}"] for row in rows]
        yield page.section("Results", page.table(lines))
        return
    rounds = list(dict.fromkeys(row["round"] for row in rows))
    last = [row for row in rows if row["round"] == rounds[-1]]
    parts = [page.table(table_lines(last))]
    if len(rounds) > 1:
        parts.append(page.folded("all rounds", page.table(table_lines(rows))))
    yield page.section("Results", *parts)


def _training(run: Path) -> Iterator[str]:
    found = {path.name: path / "metrics.jsonl" for path in _rounds(run)}
    picture = curves({name: read_metrics(path) for name, path in found.items() if path.is_file()})
    if picture is not None:
        yield page.section("Training", page.chart(picture, "loss by step"))


def _mining(run: Path) -> Iterator[str]:
    parts = []
    for folder in _rounds(run):
        for histogram in sorted(folder.glob("*.mining.png")):
            name = histogram.name.removesuffix(".mining.png")
            stated = _json(folder / f"{name}.jsonl.report.json")
            parts.append(page.heading(f"{folder.name}/{name}.jsonl"))
            if stated:
                parts.append(page.table([["", "number"], *([k, f"{v:,}"] for k, v in stated["counts"].items())]))
                steps = [[s["step"], f"{s['removed']:,}", f"{s['left']:,}"] for s in stated["steps"]]
                parts.append(page.table([["step", "removed", "left"], *steps]))
            parts.append(page.chart_file(histogram, "scores of positives, candidates and negatives"))
    if parts:
        yield page.section("Mining", *parts)


def _examples(run: Path) -> Iterator[str]:
    last = _rounds(run)[-1]
    store, checkpoint = last / "store", last / "checkpoint"
    places = (last / "results.json", store / "results.json", last / "frontier" / "results.json")
    results = next((path for path in places if path_beside(path).is_file()), None)  # of each query
    if results is None or not checkpoint.is_dir() or not (store / "documents/manifest.json").is_file():
        return
    try:
        found = examples(_settings(run), store, checkpoint, results)
    except InputError as error:
        log.info("no examples: %s", error)
        yield page.section("Examples", page.said(f"Not shown: {error}"))
        return
    parts = [page.said("The queries that the best view does worst at, then some drawn. Green frame: a right answer.")]
    for one in found:
        parts += [page.heading(one.query), page.said(one.how)]
        parts.append(page.pages(page.figure(p.picture, p.caption, p.right) for p in one.pages))
        if one.overlay is not None:
            parts.append(page.wide(one.overlay, "similarity of each query token, painted over the first page"))
        else:
            parts.append(page.said(one.why))
    yield page.section("Examples", *parts)


def _settings(run: Path) -> Config:
    """The run's, of which only how data is read and judged matters; the data is the store's."""
    path = run / "config.yaml"
    config = load_config(path) if path.is_file() else Config()
    return replace(config, data={"path": "", "eval_path": None})


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path, "remove it, and run again") if path.is_file() else None
