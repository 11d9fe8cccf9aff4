"""The listwise recipes run as they stand: a sample is generated, a tiny model takes a step and is judged."""

import json

import pytest
from typer.testing import CliRunner

from colmrl.cli.train import train_app
from colmrl.reranking.reranker import open_reranker

FORMS = ["raw_image", "caption", "semantic_summary", "semantic_summary_small"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [*(f"beauty-{form}" for form in FORMS), "docs-listwise"])
def test_a_listwise_recipe_trains_as_it_stands(recipe, tmp_path):
    few = ["train.max_steps=1", "train.eval_steps=1", "rerank.queries=2", "train.batch_size=2"]
    done = CliRunner().invoke(train_app, ["--config", recipe, "--output", str(tmp_path / "run"), *few])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert 0 < lines[0]["loss"] < 20 and any("eval_ndcg_at_10" in line for line in lines)
    form = open_reranker(tmp_path / "run/checkpoint").description.show.item_form  # pyright: ignore
    assert recipe == "docs-listwise" or form == recipe.removeprefix("beauty-")
