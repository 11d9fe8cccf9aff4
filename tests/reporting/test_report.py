"""report.html: what is in it, that nothing of the data becomes markup, and how it looks in a browser."""

import json
import re
import shutil

import pytest
from browser import looked_at
from PIL import Image
from typer.testing import CliRunner

from colmrl.cli.evaluate import eval_app
from colmrl.cli.main import main_app
from colmrl.evaluation.run import write_results
from colmrl.reporting import page
from colmrl.reporting.curves import curves, read_metrics

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = 390  # pixels


@pytest.fixture(scope="module")
def run(checkpoint, store, sample, tmp_path_factory):
    """A training run with its store judged, and what mining leaves beside it."""
    folder = shutil.copytree(checkpoint.parent, tmp_path_factory.mktemp("report") / "run <b>&'1'")
    judge = ["--store", store, "--split", "train", "--views", "single@32,multi@64", "threads=1"]
    judge += ["--out", folder / "store/results.json"]
    made = CliRunner().invoke(eval_app, [str(one) for one in judge])
    assert made.exit_code == 0, made.stderr
    shutil.copy(folder / "store/results.json", folder / "results.json")
    sweep = ["frontier", "--store", store, "--split", "train", "--out", folder / "frontier", "frontier.timed=1"]
    made = CliRunner().invoke(main_app, [*map(str, sweep), "threads=1", "frontier.budgets=[4]"])
    assert made.exit_code == 0, made.stderr
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("eval_split: test", "eval_split: train"))
    Image.new("RGB", (900, 300), "green").save(folder / "triples.mining.png")
    counts = {"counts": {"queries": 96}, "steps": [{"step": "known <i>answers</i>", "removed": 1234, "left": 5}]}
    (folder / "triples.jsonl.report.json").write_text(json.dumps(counts))
    return folder


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("html") / "r.html"
    made = CliRunner().invoke(main_app, ["report", str(run), "--out", str(out)])
    assert made.exit_code == 0 and made.stdout.strip() == str(out), made.stderr
    return out


def test_everything_of_the_run_is_in_one_file(report, run):
    text = report.read_text()
    titles = ["What was run", "Quality against storage", "Results", "Training", "Mining", "Examples"]
    assert re.findall(r"<h2>(.*?)</h2>", text) == titles
    assert "1,234" in text and "cheapest within 5 %" in text and "single@32" in text
    assert json.loads((run / "environment.json").read_text())["commit"] in text
    assert text.count('<figure class="') == 6 * 5 and '<figure class="right">' in text
    assert text.count("similarity of each query token") == 6  # overlays


def test_nothing_is_fetched_and_texts_are_escaped(report):
    text = report.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) > 30 and all(source.startswith("data:") for source in sources)
    assert "<script" not in text and "@import" not in text and "url(" not in text
    assert "known &lt;i&gt;answers&lt;/i&gt;" in text and "<i>" not in text
    assert "<h1>run &lt;b&gt;&amp;&#x27;1&#x27;</h1>" in text
    made = page.table([["<a>"], ["<script>"]])
    assert "<a>" not in made and "<script" not in made
    image = page.figure(Image.new("RGB", (2, 2)), '"><script>', True)
    assert "<script" not in image and '">' not in image.partition('alt="')[2].partition('" src')[0]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
def test_a_phone_shows_it_without_scrolling_sideways(report, tmp_path):
    seen, console = looked_at(CHROMIUM, report, PHONE, tmp_path)
    assert seen["needed"] <= seen["width"] <= PHONE
    assert seen["images"] == seen["loaded"] > 30 and seen["outside"] == seen["scripts"] == 0
    assert console == []


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
def test_the_browser_would_say_what_is_wrong(tmp_path):
    (tmp_path / "bad.html").write_text(
        '<!doctype html><div style="width: 900px">wide</div><img src="data:image/png;base64,AAAA">'
        "<script>console.error('oh no')</script>"
    )
    seen, console = looked_at(CHROMIUM, tmp_path / "bad.html", PHONE, tmp_path)
    assert seen["needed"] >= 900 and (seen["images"], seen["loaded"]) == (1, 0) and "oh no" in console[0]


def test_a_run_whose_checkpoint_is_another_now_has_no_examples_and_says_why(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    (other / "checkpoint/colmrl.json").write_text((other / "checkpoint/colmrl.json").read_text() + " ")
    made = CliRunner().invoke(main_app, ["report", str(other)])
    assert made.exit_code == 0, made.stderr
    assert "Not shown: " in (other / "report.html").read_text()


def test_results_of_mteb_are_a_table(tmp_path):
    row = {"task": "local-a", "view": "single@32", "model": "m<1>", "metric": "ndcg_at_5", "value": 0.25}
    write_results(tmp_path / "results.json", [row], 0)
    out = tmp_path / "r.html"
    made = CliRunner().invoke(main_app, ["report", str(tmp_path), "--out", str(out)])
    assert made.exit_code == 0, made.output
    assert "m&lt;1&gt;" in out.read_text() and "0.2500" in out.read_text()


def test_examples_are_shown_of_what_a_frontier_alone_judged(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for beside in ("store/results.queries.json", "results.queries.json"):
        (tmp_path / "run" / beside).unlink(missing_ok=True)
    out = tmp_path / "r.html"
    made = CliRunner().invoke(main_app, ["report", str(tmp_path / "run"), "--out", str(out)])
    assert made.exit_code == 0, made.output
    assert "<h2>Examples</h2>" in out.read_text() and '<figure class="right">' in out.read_text()


def test_what_is_no_run_is_refused(tmp_path):
    for path, says in ((tmp_path, "nothing to report"), (tmp_path / "nowhere", "no such folder")):
        made = CliRunner().invoke(main_app, ["report", str(path)])
        assert made.exit_code == 2 and says in made.stderr


def test_of_a_step_that_was_logged_twice_the_last_counts(tmp_path):
    lines = [{"step": 1, "loss": 9.0}, {"step": 2, "loss": 5.0}, {"step": 2, "loss": 4.0}, {"step": 2, "eval_x": 1}]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*map(json.dumps, lines), '{"step": 3, "lo']))
    found = read_metrics(tmp_path / "metrics.jsonl")
    assert found == [{"step": 1, "loss": 9.0}, {"step": 2, "loss": 4.0, "eval_x": 1}]
    assert curves({"a": found}).width > 500 and curves({"a": []}) is None
