"""A finished store that lost something: said when it is read, and made again by encoding."""

import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from colmrl.cli.store import store_app
from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.store import EmbeddingStore, remove
from colmrl.view import View


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def copy(store, tmp_path):
    return shutil.copytree(store, tmp_path / "store")


@pytest.fixture
def data(sample, tmp_path):
    return shutil.copytree(sample / "train", tmp_path / "data")


@pytest.mark.parametrize("content", [None, "", '{"id": "train-000-0", "hash": "0"}\n'])
def test_a_lost_file_of_ids_is_said_and_written_again(content, copy, checkpoint, settings, sample):
    before, path = contents(copy), copy / "documents/ids-00001.jsonl"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=r"ids-00001.jsonl: not whole .*: run encode.py again"):
        EmbeddingStore(copy / "documents")
    encode(settings(copy), checkpoint, sample / "train", copy)
    assert contents(copy) == before


def test_a_lost_file_of_ids_is_written_again_in_a_store_that_documents_were_taken_out_of(
    copy, checkpoint, settings, sample
):
    remove(copy / "documents", EmbeddingStore(copy / "documents").ids[:1])
    before = contents(copy)
    (copy / "documents/ids-00001.jsonl").unlink()
    encode(settings(copy), checkpoint, sample / "train", copy)
    assert contents(copy) == before


def test_what_the_data_has_more_is_said_in_a_store_that_documents_were_taken_out_of(copy, checkpoint, settings, data):
    gone, *kept = EmbeddingStore(copy / "documents").ids
    remove(copy / "documents", [gone])
    before = contents(copy)
    encode(settings(copy), checkpoint, data, copy)
    assert contents(copy) == before
    line = json.loads((data / "corpus.jsonl").read_text().splitlines()[0])
    with (data / "corpus.jsonl").open("a") as file:
        file.write(json.dumps(line | {"_id": "new"}) + "\n")
    with pytest.raises(InputError, match="the data's records changed: add what changed to it with --append"):
        encode(settings(copy), checkpoint, data, copy)
    assert contents(copy) == before
    encode(settings(copy), checkpoint, data, copy, append=True)
    assert EmbeddingStore(copy / "documents").ids == [*kept, "new"]


def test_every_view_that_show_names_can_be_read(copy):
    said = CliRunner().invoke(store_app, ["show", str(copy)]).output
    documents = EmbeddingStore(copy / "documents")
    named = re.findall(r"(?:single|multi)@[\w:]+", said.replace("multi@64x32", "multi@64x4"))
    assert {"multi@64x4", "multi@64:binary"} <= set(named)
    for view in map(View.parse, named):
        assert len(next(iter(documents.multi(view) if view.head == "multi" else documents.single(view))))


def test_lost_positions_are_said_and_made_again(copy, checkpoint, settings, sample):
    before = contents(copy)
    (copy / "documents/multi-00002.positions.npy").unlink()
    with pytest.raises(InputError, match=r"multi-00002.positions.npy: of shard 2, is missing"):
        EmbeddingStore(copy / "documents")
    encode(settings(copy), checkpoint, sample / "train", copy)
    assert contents(copy) == before


def test_what_check_finds_it_removes_and_encoding_makes_it_again(copy, checkpoint, settings, sample):
    before, run = contents(copy), CliRunner().invoke
    path = copy / "documents/multi-00003.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    said = run(store_app, ["check", str(copy)])
    assert said.exit_code == 1 and f"{path}: damaged" in said.output and "--repair" in said.output and path.exists()
    command = json.loads((copy / "documents/manifest.json").read_text())["command"]
    assert command in said.output.replace("\n", "")
    assert run(store_app, ["check", str(copy), "--repair"]).exit_code == 1 and not path.exists()
    encode(settings(copy), checkpoint, sample / "train", copy)
    assert contents(copy) == before and run(store_app, ["check", str(copy)]).exit_code == 0


@pytest.mark.parametrize("append", [False, True])
def test_a_shard_is_made_again_without_what_was_removed_from_it(append, copy, checkpoint, settings, data):
    gone, kept = EmbeddingStore(copy / "documents").ids[0], EmbeddingStore(copy / "documents").ids[1:]
    remove(copy / "documents", [gone])
    vectors = next(iter(EmbeddingStore(copy / "documents").single(EmbeddingStore(copy / "documents").views()[0])))
    lines = (data / "corpus.jsonl").read_text().splitlines(keepends=True)
    (data / "corpus.jsonl").write_text("".join(lines[1:]))
    qrels = (data / "qrels/train.tsv").read_text().splitlines(keepends=True)
    (data / "qrels/train.tsv").write_text("".join(line for line in qrels if line.split("\t")[1] != gone))
    (copy / "documents/single-00000.npy").write_bytes(b"cut")
    encode(settings(copy), checkpoint, data, copy, append)
    again = EmbeddingStore(copy / "documents")
    assert again.ids == kept and CliRunner().invoke(store_app, ["check", str(copy)]).exit_code == 0
    assert (next(iter(again.single(again.views()[0]))) == vectors).all()


def test_a_store_is_judged_and_mined_without_what_was_removed_from_it(copy, settings, sample, tmp_path):
    from colmrl.configure import replace
    from colmrl.evaluation.run import judge
    from colmrl.mining import mine

    gone = EmbeddingStore(copy / "documents").ids[:5]
    config = replace(settings(tmp_path), data={"path": str(sample / "train"), "eval_split": "train"})
    config = replace(config, mine={"filters": (), "k": 40})
    remove(copy / "documents", gone)
    rows = {row["metric"]: row["value"] for row in judge(config, copy, EmbeddingStore(copy / "documents").views()[:1])}
    assert 0 < rows["recall_at_10"] <= 1
    triples = [json.loads(line) for line in mine(config, copy, tmp_path / "triples.jsonl").read_text().splitlines()]
    qrels = [line.split("\t") for line in (sample / "train/qrels/train.tsv").read_text().splitlines()[1:]]
    assert [row["pos_id"] for row in triples] == [document for _, document, _ in qrels if document not in gone]
    assert all(not set(gone).intersection(row["neg_ids"]) for row in triples)
