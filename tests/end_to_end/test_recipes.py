"""Every format has a recipe that runs as it stands: its sample is generated, a tiny model takes some steps."""

import json
import re

import pytest
from typer.testing import CliRunner

from colmrl.cli.encode import encode_app
from colmrl.cli.evaluate import eval_app
from colmrl.cli.train import train_app
from colmrl.configure import RECIPES

FORMATS = ["pages", "video-pairs", "triples", "query-image", "qilin", "amazon-beauty"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", FORMATS)
def test_a_recipe_trains_as_it_stands(recipe, tmp_path):
    settings = ["--config", str(RECIPES / f"{recipe}.yaml"), "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(train_app, [*settings, "train.max_steps=2", "train.log_steps=1", "train.workers=0"])
    assert done.exit_code == 0, done.output
    assert re.search(r"generated|GENERATED", done.output)
    logged = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in logged if "loss" in line]
    assert len(losses) == 2 and all(0 < loss < 50 for loss in losses)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["video-pairs", "qilin"])
def test_what_a_recipe_trained_encodes_and_is_judged_on_its_test_split(recipe, tmp_path):
    run, cli = tmp_path / "run", CliRunner()
    few = ["device=cpu", "threads=1"]
    trained = cli.invoke(train_app, ["--config", recipe, "--output", str(run), "train.max_steps=1", "train.workers=0"])
    assert trained.exit_code == 0, trained.output
    data = str(next(path for path in (run / "data", run / "data/qilin") if any(path.glob("*.[jp]*"))))
    stored = cli.invoke(encode_app, ["--checkpoint", str(run / "checkpoint"), "--data", data, "-c", recipe, *few])
    assert stored.exit_code == 0, stored.output
    judged = cli.invoke(eval_app, ["--store", str(run / "store"), "--data", data, "-c", recipe, *few])
    assert judged.exit_code == 0, judged.output
    rows = json.loads((run / "store/results.json").read_text())["rows"]
    assert {"single@128", "single@16"} <= {row["view"] for row in rows}
