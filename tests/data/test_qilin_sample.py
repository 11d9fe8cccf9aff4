import numpy
import pytest
from PIL import Image

from colmrl.data.qilin import read_qilin
from colmrl.data.qilin_sample import write_qilin_sample
from colmrl.data.sample import COLOURS, PLACES
from colmrl.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("datasets.config.HF_UPDATE_DOWNLOAD_COUNTS", False)  # no network


def test_the_same_seed_writes_the_same_tables_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    sizes = {"searches": 10, "notes": 12, "test_searches": 3}
    one, two, three = (write_qilin_sample(tmp_path / f"{i}", seed, **sizes) for i, seed in enumerate((1, 1, 2)))
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(names) == 6 + 2 + 12
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    assert (one / "search_train.parquet").read_bytes() != (three / "search_train.parquet").read_bytes()
    with pytest.raises(InputError, match="exists and is not empty"):
        write_qilin_sample(one)
    with pytest.raises(InputError, match="3 notes: too few"):
        write_qilin_sample(tmp_path / "d", notes=3)
    monkeypatch.setattr("colmrl.data.qilin_sample._request_row", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_qilin_sample(tmp_path / "d", **sizes)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("sizes", [(1, 12, 1), (1, 12, 500), (300, 13, 1)])
def test_any_size_can_be_written(tmp_path, sizes):
    searches, notes, tests = sizes
    collection = read_qilin(write_qilin_sample(tmp_path / "q", 3, searches, notes, tests))
    assert [len(collection.qrels[split]) for split in ("train", "test")] == [searches, tests]
    assert len(collection.documents) == notes


def shows(picture, place, colour):
    """Whether the quarter of a picture has more than a few pixels of about that colour."""
    x, y = place % 2 * 32, place // 2 * 32
    pixels = numpy.asarray(picture.convert("RGB").crop((x, y, x + 32, y + 32)), dtype=float)
    return (numpy.abs(pixels - COLOURS[colour]).max(-1) < 45).sum() > 40


def test_clicks_follow_the_query_and_train_and_test_ask_for_other_things(tmp_path):
    collection = read_qilin(write_qilin_sample(tmp_path / "q", searches=60, notes=60, test_searches=20))
    pictures = {document.id: Image.open(document.images[0]) for document in collection.documents}
    seen, asked = {True: [], False: []}, {}
    for split in ("train", "test"):
        for name, shown in collection.top_ranked[split].items():
            text = collection.queries.named(name).text
            named = [(phrase.split()[0], PLACES.index(phrase.split(maxsplit=2)[2])) for phrase in text.split(" and ")]
            asked.setdefault(split, set()).add(frozenset(text.split(" and ")))
            for note in shown:
                answers = all(shows(pictures[note], place, colour) for colour, place in named)
                seen[answers].append(note in collection.qrels[split][name])
    assert numpy.mean(seen[True]) > 0.75 and numpy.mean(seen[False]) < 0.1
    assert not asked["train"] & asked["test"]
