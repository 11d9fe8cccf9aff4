"""No path in data leads out of the folder that it starts in, in any format; absolute ones and links are meant."""

import json

import datasets
import pytest
from PIL import Image

from colmrl.config import DataConfig, ShowConfig
from colmrl.data.media import open_image
from colmrl.data.reading import read_collection
from colmrl.data.sequences_sample import write_sequences_sample
from colmrl.data.tables import open_tables
from colmrl.data.video_pairs import write_video_sample
from colmrl.errors import InputError
from colmrl.files import climbs, file_name
from colmrl.preparing.pictures import copy_pictures

OUTSIDE = "../secret.png"


@pytest.fixture
def root(tmp_path):
    """A data folder's place, with a picture beside it."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    return tmp_path / "data"


def rewrite(path, change):
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def beir(root, image):
    (root / "qrels").mkdir(parents=True)
    (root / "corpus.jsonl").write_text(json.dumps({"_id": "d", "image": image}) + "\n")
    (root / "queries.jsonl").write_text('{"_id": "q", "text": "what?"}\n')
    (root / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")


def video_pairs(root, image):
    write_video_sample(root, videos=6)
    rewrite(root / "video_meta.jsonl", lambda row: row | {"images": [image]})


def triples(root, image):
    root.mkdir()
    (root / "t.jsonl").write_text(json.dumps({"query": "q", "pos": image, "negs": []}) + "\n")


def sequences(root, image):
    write_sequences_sample(root)
    rewrite(root / "item_meta.jsonl", lambda row: row | {"image_path": image})


def query_image(root, image):
    root.mkdir()
    held = {"query": ["what?"], "image": [{"bytes": None, "path": image}]}
    datasets.Dataset.from_dict(held).to_parquet(root / "train.parquet")


def qilin(root, image):
    root.mkdir()
    note = {"note_idx": 1, "note_title": "t", "note_content": "c", "image_path": [image]}
    (root / "notes.jsonl").write_text(json.dumps(note) + "\n")
    shown = [{"note_idx": 1, "position": 0, "click": 1}]
    row = {"search_idx": 1, "query": "q", "search_result_details_with_idx": shown, "user_idx": 1}
    for split in ("train", "test"):
        (root / f"search_{split}.jsonl").write_text(json.dumps(row) + "\n")


def table_reference(root, image):
    query_image(root.parent / "secret", "x")
    triples(root, "../secret/train/doc_0.png")


WAYS = [beir, video_pairs, triples, sequences, query_image, qilin, table_reference]


@pytest.mark.parametrize("written", WAYS, ids=lambda written: written.__name__)
def test_a_picture_outside_the_root_is_refused_by_every_reader(written, root, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    written(root, OUTSIDE)
    path = root / "t.jsonl" if (root / "t.jsonl").exists() else root
    show = ShowConfig(item_form="raw_image")
    with pytest.raises(InputError, match="climbs out of"):
        collection = read_collection(str(path), DataConfig(path=str(path), root=str(root)), show)
        list(collection.documents)


@pytest.mark.parametrize("written", WAYS[:4], ids=lambda written: written.__name__)
def test_absolute_paths_and_links_are_meant(written, root, tmp_path):
    written(root, str(tmp_path / "secret.png"))
    path = root / "t.jsonl" if (root / "t.jsonl").exists() else root
    data, show = DataConfig(path=str(path), root=str(root)), ShowConfig(item_form="raw_image")
    read = [document.images for document in read_collection(str(path), data, show).documents if document.images]
    assert read and all(images == (str(tmp_path / "secret.png"),) for images in read)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    if written is beir:
        (root / "corpus.jsonl").write_text('{"_id": "d", "image": "link.png"}\n')
        (document,) = read_collection(str(path), data, show).documents
        assert open_image(document.images[0]).size == (8, 8)


def test_a_path_that_goes_down_and_up_again_stays_inside():
    assert not any(map(climbs, ("a/../b.png", "./a", "/etc/../x", "..a/b", "a..")))
    assert all(map(climbs, ("..", "../a", "a/../../b", "./../a", "a/b/../../../c/../..")))


def test_ids_that_are_no_names_of_files_write_nothing(root, tmp_path):
    assert not any(map(file_name, ("", ".", "..", "../a", "a/b", "a\\b", "a\0")))
    source, out = root, tmp_path / "deep" / "out"
    source.mkdir()
    Image.new("RGB", (8, 8)).save(source / "B1.png")
    found = copy_pictures(["B1", "../B1", "../../escaped"], source, out)
    assert [path.name for path in found.paths.values()] == ["B1.png"] and set(found.problems) == {
        "../B1",
        "../../escaped",
    }
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["out", "B1.png"]


def test_a_splits_name_that_is_a_path_is_refused(root, tmp_path):
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"query": ["a"]})})
    saved.save_to_disk(root)
    (root / "train").rename(tmp_path / "escaped")
    (root / "dataset_dict.json").write_text('{"splits": ["../escaped"]}')
    with pytest.raises(InputError, match="no name for a split"):
        open_tables(str(root))
