import numpy as np
import pytest
from made import mining, write_data, write_store
from PIL import Image

from colmrl.config import DataConfig
from colmrl.data import media
from colmrl.data.reading import read_collection
from colmrl.data.records import Records
from colmrl.data.triples import read_triples
from colmrl.mining import mine, read_report
from colmrl.mining.contents import Contents


@pytest.fixture
def pages(tmp_path):
    """d0, d1, d4: the same picture in files of other names; d2: another of the same size in bytes; d3: the first with a
    text; d5, d6: the same text."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for name, grey in (("a", 10), ("b", 10), ("c", 11), ("e", 10)):
        Image.new("L", (8, 8), grey).save(folder / f"images/{name}.bmp")
    corpus = [{"image": "images/a.bmp"}, {"image": "images/b.bmp"}, {"image": "images/c.bmp"}]
    corpus += [{"image": "images/a.bmp", "text": "x"}, {"image": "images/e.bmp"}, {"text": "y"}, {"text": "y"}]
    return write_data(tmp_path / "made", 2, [move(row, folder) for row in corpus], {0: [0], 1: [5]})


def move(row, folder):
    return row | {"image": str(folder / row["image"])} if "image" in row else row


def test_documents_are_the_same_by_text_and_pictures_whatever_files_are_called(pages):
    documents = read_collection(str(pages), DataConfig()).documents
    contents = Contents(documents, list(documents.ids))
    found = contents.of(np.array([[6, 0, 3, -1], [1, 2, 4, 5]]))
    assert found.tolist() == [[5, 0, 3, -1], [0, 2, 0, 5]]


def test_only_candidates_are_read_and_pictures_only_where_sizes_do_not_tell_them_apart(pages, monkeypatch):
    documents, read, hashed = read_collection(str(pages), DataConfig()).documents, [], []
    recorded = Records(documents.ids, lambda row: read.append(row) or documents[row])
    monkeypatch.setattr(media, "content_hash", lambda image: hashed.append(image) or image)
    contents = Contents(recorded, list(documents.ids))
    read.clear()  # checking types looked at one
    contents.of(np.array([3, 0, 5]))
    assert sorted(read) == [0, 3, 5] and not hashed
    contents.of(np.array([0, 0, 5, 2]))
    assert sorted(read) == [0, 0, 2, 3, 5] and len(hashed) == 2


def test_a_copy_of_the_positive_or_of_a_better_candidate_is_no_negative(pages, tmp_path):
    vectors = np.eye(8)[:1] + 0.2 * np.arange(7)[:, None] * np.eye(8)[1]  # ranked d0, d1, … d6 for q0 and q1
    store = write_store(tmp_path / "s", pages, np.eye(8)[[0, 0]], vectors)
    ids = {"q0", "q1"}, {f"d{n}" for n in range(7)}
    plain = mine(mining("mine.filters=[]", "mine.negatives=9"), store, tmp_path / "a.jsonl")
    assert read_triples(plain, *ids)[0].neg_ids == ("d1", "d2", "d3", "d4", "d5", "d6")
    out = mine(mining("mine.filters=[{duplicates: true}]", "mine.negatives=9"), store, tmp_path / "b.jsonl")
    first, second = read_triples(out, *ids)
    assert first.neg_ids == ("d2", "d3", "d5")  # d1, d4: of the positive d0; d6: of d5
    assert second.neg_ids == ("d0", "d2", "d3")  # d1, d4: of d0; d6: of the positive d5
    assert [step["removed"] for step in read_report(out)["steps"]] == [2, 6]
