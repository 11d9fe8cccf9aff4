"""Every format has a recipe that runs as it stands: its sample is generated, a tiny model takes some steps."""

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from colmrl.cli.encode import encode_app
from colmrl.cli.evaluate import eval_app
from colmrl.cli.mine import mine_app
from colmrl.cli.train import train_app
from colmrl.config import DataConfig
from colmrl.configure import RECIPES, load_config
from colmrl.data.reading import read_collection
from colmrl.store import EmbeddingStore, check_same_data

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
    # without the recipe: how records are shown is the checkpoint's
    stored = cli.invoke(encode_app, ["--checkpoint", str(run / "checkpoint"), "--data", data, *few])
    assert stored.exit_code == 0, stored.output
    judged = cli.invoke(eval_app, ["--store", str(run / "store"), *few])
    assert judged.exit_code == 0, judged.output
    trained_on = read_collection(data, DataConfig(), load_config(recipe).show)
    kept = EmbeddingStore(run / "store/documents")
    check_same_data(kept, trained_on.documents, data)
    mined = cli.invoke(
        mine_app, ["--store", str(run / "store"), "--k", "20", "mine.filters=[{relative_margin: 0}]", *few]
    )
    assert mined.exit_code == 0, mined.output
    for triple in map(json.loads, (run / "triples.jsonl").open()):
        assert trained_on.itself.get(triple["query_id"]) not in triple["neg_ids"]
    rows = json.loads((run / "store/results.json").read_text())["rows"]
    assert {"single@128", "single@16"} <= {row["view"] for row in rows}


REAL = ["colqwen2_5-lora", "colqwen3-lora", "colinternvl3_5-lora", "qwen2_5vl-mrl", "joint-qwen3vl", "qwen3vl-8gb"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", REAL)
def test_a_recipe_of_a_real_model_runs_as_its_header_says_without_a_gpu(recipe, tmp_path):
    header = re.sub(r" *\\\n#? *", " ", (RECIPES / f"{recipe}.yaml").read_text())
    for word in ("Hardware:", "Memory:", "Time:", "Hyperparameters:"):
        assert word in header, word
    (shown,) = re.findall(r"python train\.py ([^\n]*model\.backbone=tiny:[^\n(]*)", header)
    few = ["train.max_steps=2", "train.log_steps=1", "train.workers=0", "threads=1"]
    done = CliRunner().invoke(train_app, [*shown.split(), *few, "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    logged = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    config = load_config(recipe)
    for view in [f"multi@64x{budget}" for budget in config.multi.budgets] + ["single@64"] * bool(config.single.dims):
        assert f"loss_{view}" in logged[0], (view, logged[0])


def test_multi_node_is_the_recipe_that_the_launchers_are_shown_with():
    config = load_config("multi-node")
    assert config.train.mini_batch_size and config.single.dims and config.multi.budgets
    assert "torchrun --nnodes 2 --node-rank 0" in (RECIPES / "multi-node.yaml").read_text()
    for launcher in ("fsdp", "deepspeed-zero2"):
        shown = yaml.safe_load((RECIPES / "accelerate" / f"{launcher}.yaml").read_text())
        assert shown["num_processes"] == 8 and shown["distributed_type"] in ("FSDP", "DEEPSPEED")
