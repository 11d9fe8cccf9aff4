"""The recipes on the real data of ../shared, by the commands that their headers give; skipped where it is absent."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.cli.train import train_app

SHARED = Path(__file__).parents[2].parent / "shared/data"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")]


@pytest.mark.parametrize(
    ("recipe", "data", "more", "says"),
    [
        ("amazon-beauty", "amazon_beauty", [], "22363 users, 12101 items, 198502 interactions"),
        ("pages", "pages_lilypond", ["data.train_split=test"], "957 examples"),
    ],
)
def test_a_recipe_takes_real_data_in_place_of_its_sample(recipe, data, more, says, tmp_path):
    arguments = ["--config", recipe, "--data", str(SHARED / data), "--output", str(tmp_path / "run"), *more]
    done = CliRunner().invoke(train_app, [*arguments, "train.max_steps=2", "train.workers=1"])
    assert done.exit_code == 0, done.output
    assert says in done.output and "generated" not in done.output


def test_the_check_of_scifact_finds_the_questions_that_it_has_in_both_splits(tmp_path):
    """Two test queries of SciFact repeat training queries word for word, with the same answer."""
    import json

    more = [f"data.path={SHARED / 'scifact'}", "model.backbone=tiny:bert", f"output={tmp_path}"]
    done = CliRunner().invoke(main_app, ["data", "check", "minilm-scifact", *more])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (SHARED / "scifact/queries.jsonl").open()]
    text = {str(row["_id"]): " ".join(row["text"].casefold().split()) for row in lines}
    split = {}
    for name in ("train", "test"):
        rows = (SHARED / f"scifact/qrels/{name}.tsv").read_text().splitlines()[1:]
        split[name] = {text[row.split("\t")[0]] for row in rows if not row.endswith("\t0")}
    shared = len(split["train"] & split["test"])
    assert shared == 2 and f"leakage: {shared} of the test split's 300 queries, by content" in done.output.replace(
        "\n", " "
    )
