"""The card says what the run folder knows; a push is dry until it is confirmed."""

import huggingface_hub
import pytest
import yaml
from making import make
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.exporting.run import Asked, export

FRONTIER = """# run: quality against bytes a document

`colmrl frontier`, commit x.

DATA, split test: 24 queries, 24 documents, encoded once by {checkpoint}; 3 s for what was not known yet.

![nDCG@5 against bytes and milliseconds](frontier.png)

## Which to take

| | way |
|---|---|
| best | `multi@64` |

## Points that nothing cheaper beats

| way |
|---|
| `single@32` |

## All points

| way |
|---|
| `multi@16` |
"""


@pytest.fixture
def run(tiny, tmp_path):
    """A run folder with a checkpoint and a frontier of it."""
    folder = make(tmp_path / "run/checkpoint", tiny("bert"))
    settings = {
        "data": {"path": "/home/me/secret/scifact", "triples": "hard/triples.jsonl", "train_split": "train"},
        "train": {"batch_size": 32, "max_steps": -1, "epochs": 3, "init_from": None},
        "seed": 7,
        "mteb": {"license": "cc-by-4.0"},
    }
    (folder.parent / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder.parent / "frontier").mkdir()
    (folder.parent / "frontier/frontier.md").write_text(FRONTIER.format(checkpoint=folder.resolve()))
    (folder.parent / "frontier/frontier.png").write_bytes(b"a picture")
    return folder


def test_the_card_has_data_frontier_and_licence_of_the_run(run, tmp_path):
    out = export(run, Asked("transformers"), tmp_path / "e")
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "cc-by-4.0" and front["library_name"] == "transformers"
    assert "`secret/scifact`, with `hard/triples.jsonl`, split `train`" in card and "/home/me" not in card
    assert "batches of 32, 3 epochs, seed 7" in card
    assert "24 queries, 24 documents" in card and "| best | `multi@64` |" in card and "`single@32`" in card
    assert "`multi@16`" not in card and (out / "frontier.png").read_bytes() == b"a picture"
    assert "`Query: {text}`" in card


def test_what_is_not_known_is_not_said(run, tmp_path):
    (run.parent / "config.yaml").unlink()
    report = run.parent / "frontier/frontier.md"
    report.write_text(report.read_text().replace(str(run.resolve()), "/another/checkpoint"))
    out = export(run, Asked("transformers"), tmp_path / "e")
    card = (out / "README.md").read_text()
    assert "license" not in yaml.safe_load(card.split("---")[1]) and "Licence: not given" in card
    assert "Not known" in card and "What each size costs" not in card and not (out / "frontier.png").exists()
    out = export(run, Asked("transformers", license="mit"), tmp_path / "f")
    assert yaml.safe_load((out / "README.md").read_text().split("---")[1])["license"] == "mit"


def test_a_push_is_dry_until_it_is_confirmed(run, tmp_path, monkeypatch):
    asked: list = []

    class Api:
        def create_repo(self, repo, **options):
            asked.append((repo, options))

        def upload_folder(self, **options):
            asked.append(sorted(path.name for path in options["folder_path"].iterdir()))
            return f"https://hub/{options['repo_id']}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    command = ["export", str(run), "--to", "transformers", "--out", str(tmp_path / "e"), "--push", "me/model"]
    dry = CliRunner().invoke(main_app, command)
    assert dry.exit_code == 0 and not asked and "would go to me/model" in dry.output
    size = (tmp_path / "e/model.safetensors").stat().st_size
    assert f"{size:,}  model.safetensors" in dry.output
    wet = CliRunner().invoke(main_app, [*command, "--yes"])  # the folder is there from before
    assert wet.exit_code == 0 and "https://hub/me/model" in wet.output
    assert asked[0] == ("me/model", {"private": True, "exist_ok": True})
    assert {"README.md", "model.safetensors", "heads.safetensors", "frontier.png"} <= set(asked[1])


def test_wrong_asks_are_a_line(run, tmp_path):
    def said(*more):
        done = CliRunner().invoke(main_app, ["export", str(run), "--out", str(tmp_path / "e"), *more])
        assert done.exit_code == 2, done.output
        return done.output

    assert "not a reranker: of a retriever name a layout" in said()
    assert "--push 'bad name': Repo id must use" in said("--to", "onnx", "--push", "bad name")
    assert "--yes: confirms --push REPO" in said("--to", "onnx", "--yes")
    assert "--to word2vec: unknown: choose from sentence-transformers" in said("--to", "word2vec")
    (tmp_path / "e").mkdir()
    (tmp_path / "e/mine").write_text("x")
    assert "exists and is not empty" in said("--to", "transformers")
