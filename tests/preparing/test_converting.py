"""colmrl convert and colmrl prepare qilin, as a person types them."""

import json

import pytest
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.config import DataConfig
from colmrl.data.qilin_sample import write_qilin_sample
from colmrl.data.reading import read_collection
from colmrl.data.tables import open_tables


def run(*arguments):
    return CliRunner().invoke(main_app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def qilin(tmp_path_factory):
    return write_qilin_sample(tmp_path_factory.mktemp("q") / "qilin", searches=40, notes=40, test_searches=10)


def test_qilin_is_prepared_with_everything_that_it_says(qilin, tmp_path):
    out = tmp_path / "out"
    assert run("prepare", "qilin", qilin, "--out", out, "--max-pixels", 1000).exit_code == 0
    raw, made = (read_collection(str(folder), DataConfig()) for folder in (qilin, out))
    for split in ("train", "test"):
        assert made.judged(split) == raw.judged(split) and made.top_ranked[split] == raw.top_ranked[split]
        assert list(made.train_on(split).triples()) == list(raw.train_on(split).triples())
    assert list(made.queries) == list(raw.queries)
    assert [(d.id, d.text, d.title, d.meta) for d in made.documents] == [
        (d.id, d.text, d.title, d.meta) for d in raw.documents
    ]
    from colmrl.data.media import picture_size

    sizes = [picture_size(d.images[0]) for d in made.documents]
    assert sizes and all(900 < w * h <= 1000 for w, h in sizes)  # covers are 64 × 64


def test_a_conversion_that_was_interrupted_goes_on_and_gives_the_same(qilin, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run("prepare", "qilin", qilin, "--out", whole, "--max-pixels", 1000).exit_code == 0
    from colmrl.data import writing

    real, left = writing.Pictures._smaller, [7]

    def stop(self, reference):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(self, reference)

    monkeypatch.setattr(writing.Pictures, "_smaller", stop)
    assert run("prepare", "qilin", qilin, "--out", cut, "--max-pixels", 1000).exit_code != 0
    assert not json.loads((cut / "manifest.json").read_text())["finished"] and not (cut / "corpus.jsonl").exists()
    left[0] = 33  # of 40: what is written is not written again
    assert run("prepare", "qilin", qilin, "--out", cut, "--max-pixels", 1000).exit_code == 0
    files = sorted(p.relative_to(whole) for p in whole.rglob("*.*") if p.name != "manifest.json")
    assert all((whole / file).read_bytes() == (cut / file).read_bytes() for file in files) and len(files) > 40
    assert "is whole already" in run("prepare", "qilin", qilin, "--out", cut, "--max-pixels", 1000).output
    refused = run("prepare", "qilin", qilin, "--out", cut, "--max-pixels", 500)
    assert refused.exit_code == 2 and "was begun with other max_pixels (1000, now 500)" in refused.output


def test_a_source_that_changed_is_not_taken_for_what_was_converted(tmp_path):
    source, out = tmp_path / "s.jsonl", tmp_path / "out"
    source.write_text('{"anchor": "a", "positive": "b"}\n')
    assert run("convert", source, "--out", out).exit_code == 0
    source.write_text('{"anchor": "a", "positive": "c"}\n')
    open_tables.cache_clear()
    refused = run("convert", source, "--out", out)
    assert refused.exit_code == 2 and "was begun with other content" in refused.output
    for _ in range(2):  # a try that cannot be leaves nothing in the way of the next
        assert run("convert", source, "--to", "query-image", "--out", tmp_path / "q").exit_code == 2
    assert run("convert", source, "--to", "triples", "--out", tmp_path / "q").exit_code == 0


def test_a_folder_that_is_not_whole_is_not_read(qilin, tmp_path):
    out = tmp_path / "out"
    assert run("convert", qilin, "--to", "beir", "--out", out).exit_code == 0
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"finished": False}))
    refused = run("convert", out, "--to", "triples", "--out", tmp_path / "t")
    assert refused.exit_code == 2 and "is not whole: give the command that began it again" in refused.output


@pytest.mark.parametrize("to", ["sentence-transformers", "ms-swift"])
def test_any_format_becomes_any_other(qilin, tmp_path, to):
    assert run("convert", qilin, "--to", to, "--out", tmp_path / "out").exit_code == 0
    open_tables.cache_clear()
    made = read_collection(str(tmp_path / "out"), DataConfig())
    raw = read_collection(str(qilin), DataConfig())
    assert len(made.train_on("train")) == len(raw.train_on("train")) > 40
    first, expected = made.train_on("train")[0], raw.train_on("train")[0]
    assert (first.query.text, first.positive.body) == (expected.query.text, expected.positive.body)
    assert len(first.negatives) == len(expected.negatives)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "parquet"], "--to 'parquet': no such format: choose from beir, query-image"),
        (["--to", "colpali", "--fields", "sound"], "--fields 'sound'"),
        (["--to", "colpali", "--max-pixels", "9"], "--max-pixels: for --to beir only"),
        (["--to", "colpali"], "colpali cannot hold text beside pictures"),
        (["--to", "query-image", "--fields", "image", "nosuch.key=1"], "nosuch"),
    ],
)
def test_what_cannot_be_converted_is_said(qilin, tmp_path, arguments, says):
    refused = run("convert", qilin, "--out", tmp_path / "out", *arguments)
    assert refused.exit_code == 2 and says in refused.output.replace("\n", " ")
