import hashlib
import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from colmrl.cli.lineage import lineage_app
from colmrl.configure import load_config
from colmrl.errors import InputError
from colmrl.evaluation.report import by_view
from colmrl.lineage import checked, read_rounds
from colmrl.loop import loop
from colmrl.models.retriever import fingerprint


def config(output, *overrides):
    short = ["train.max_steps=3", "train.warmup_steps=0", "eval.views=[single@128,multi@32x4]", "device=cpu"]
    mining = ["loop.index=true", "mine.filters=[{relative_margin: 0}]"]
    return load_config("demo", [f"output={output}", *short, *mining, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("loop") / "demo"
    loop(config(output))
    return output


def times(folder):
    kept = ("checkpoint/*", "store/*/*.npy", "mining-store/*/*.npy", "triples.jsonl")
    return {p: p.stat().st_mtime_ns for pattern in kept for p in folder.glob(f"round-*/{pattern}")}


@pytest.mark.slow
def test_the_loop_leaves_a_report_of_every_round(finished):
    results = json.loads((finished / "results.json").read_text())
    table = by_view(results["rows"])
    assert list(table) == [(n, v) for n in (0, 1, 2) for v in ("single@128", "multi@32x4")]
    assert table[0, "multi@32x4"]["bytes_per_document"] == 4 * 32 * 4
    text = (finished / "report.md").read_text()
    assert "256 queries (test) against 256 documents" in text and "| 0 | single@128 |" in text
    assert (finished / "frontier.png").is_file() and (finished / "environment.json").is_file()
    triple = json.loads((finished / "round-1/triples.jsonl").read_text().splitlines()[0])
    assert triple["pos"].startswith("images/train-") and triple["pos_id"] not in triple["neg_ids"]
    trained = (finished / "round-2/config.yaml").read_text()
    assert "round-1/triples.jsonl" in trained and "round-1/checkpoint" in trained


@pytest.mark.slow
def test_each_round_names_by_content_what_it_is_and_was_made_from(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    zero, one, two = read_rounds(run)[:3]
    triples = hashlib.sha256((run / "round-1/triples.jsonl").read_bytes()).hexdigest()
    links = {link.what: link for link in one.links}
    assert list(links) == ["checkpoint", "store", "mining-store", "index", "triples", "results"]
    assert links["checkpoint"].hash == fingerprint(run / "round-1/checkpoint")
    assert links["checkpoint"].of == (zero.hash_of("checkpoint"),)
    assert links["triples"].hash == triples
    assert links["triples"].of == (links["mining-store"].hash, links["index"].hash)
    assert links["results"].of == (links["store"].hash,) and links["store"].of == (links["checkpoint"].hash,)
    assert next(link.of for link in two.links) == (links["checkpoint"].hash, triples)
    assert all(said == "" for *_, said in checked(run, [zero, one, two]))
    (run / "round-1/triples.jsonl").write_text("")
    shutil.rmtree(run / "round-0/checkpoint")
    for name in ("round-2/store/documents/multi-00000.npy", "round-1/indexes/*/index.faiss"):
        (path,) = run.glob(name)
        path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    said = {(number, link.what): said for number, link, said in checked(run, [zero, one, two]) if said}
    empty = hashlib.sha256(b"").hexdigest()[:12]
    damaged = {(2, "store"): "damaged: documents/multi-00000.npy", (1, "index"): "damaged: index.faiss"}
    assert said == {(0, "checkpoint"): "gone", (1, "triples"): f"changed: now {empty}", **damaged}
    shown = CliRunner().invoke(lineage_app, [str(run)])
    assert shown.exit_code == 1
    assert all(text in shown.stdout for text in ("changed: now", "0/checkpoint", "1/triples"))


@pytest.mark.slow
def test_what_is_done_is_skipped_and_what_is_missing_is_done(finished):
    before = times(finished)
    rows = loop(config(finished))
    assert times(finished) == before
    (finished / "round-2/results.json").unlink()
    assert loop(config(finished)) == rows and times(finished) == before
    more = loop(config(finished, "loop.rounds=3", "eval.views=[single@16]"))
    assert list(by_view(more)) == [(n, "single@16") for n in (0, 1, 2, 3)]
    assert {path: stamp for path, stamp in times(finished).items() if path in before} == before


@pytest.mark.slow
def test_a_loop_with_other_settings_is_refused(finished):
    before = times(finished)
    for other in ("train.learning_rate=1e-5", "mine.k=5"):
        with pytest.raises(InputError, match=f"holds a loop with other {other.partition('=')[0]}"):
            loop(config(finished, other))
    assert times(finished) == before


def test_what_cannot_be_done_later_is_said_before_anything_is_written(tmp_path):
    for override, says in (
        ("mine.view=single@100", "single@100' was not trained"),
        ("eval.views=[multi@99]", "multi@99' was not trained"),
        ("train.negatives=9", r"train.negatives: 9: .*\(mine.negatives\)"),
        ("train.negatives=0", r"train.negatives: 0: "),
    ):
        with pytest.raises(InputError, match=says):
            loop(config(tmp_path / "demo", override))
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_demo_keeps_what_the_readme_promises(tmp_path):
    """Round 2 on 256 unseen pictures: multi@128 ≥ 0.90 and single@128 ≥ 0.65 nDCG@5; untrained is chance."""
    command = [sys.executable, "-m", "colmrl", "loop", "--config", "demo", "--output", str(tmp_path / "demo")]
    subprocess.run(command, check=True, capture_output=True)
    table = by_view(json.loads((tmp_path / "demo/results.json").read_text())["rows"])
    assert table[2, "multi@128"]["ndcg_at_5"] >= 0.90
    assert table[2, "single@128"]["ndcg_at_5"] >= 0.65
    assert table[0, "multi@128"]["ndcg_at_5"] < 0.05 and table[0, "single@128"]["ndcg_at_5"] < 0.05
